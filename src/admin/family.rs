//! Families of metrics, written one after the other: what prometheus-client needs per value, in one word each.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

/// Names and values of labels; the names of a family are always the same.
pub(super) type Labels<'l> = Vec<(&'static str, &'l str)>;

/// What a histogram shows.
pub(super) struct Buckets {
    pub sum: f64,
    /// Upper bounds, and how many are above the bound before: the last bound is infinite.
    pub counts: Vec<(f64, u64)>,
}

impl Buckets {
    /// One more count than there are bounds.
    pub fn new(bounds: impl IntoIterator<Item = f64>, counts: &[u64], sum: f64) -> Buckets {
        let bounds = bounds.into_iter().chain([f64::INFINITY]);
        Buckets { sum, counts: bounds.zip(counts.iter().copied()).collect() }
    }
}

/// The page as it grows.
pub(super) struct Families<'e>(pub DescriptorEncoder<'e>);

impl Families<'_> {
    /// A family of counters; "_total" is added to its name.
    pub fn counters<'l, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in values {
            labelled(&mut family, &labels, |metric| {
                metric.encode_counter::<NoLabelSet, V, f64>(&value, None)
            })?;
        }
        Ok(())
    }

    /// A family of gauges.
    pub fn gauges<'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in values {
            labelled(&mut family, &labels, |metric| metric.encode_gauge(&value))?;
        }
        Ok(())
    }

    /// A family of histograms.
    pub fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (Labels<'l>, Buckets)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, Buckets { sum, counts }) in values {
            let count = counts.iter().map(|(_, count)| count).sum();
            labelled(&mut family, &labels, |metric| {
                metric.encode_histogram::<NoLabelSet>(sum, count, &counts, None)
            })?;
        }
        Ok(())
    }

    /// One counter.
    pub fn counter(
        &mut self,
        name: &str,
        help: &str,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        self.counters(name, help, [(Vec::new(), value)])
    }

    /// One gauge.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> fmt::Result {
        self.gauges(name, help, [(Vec::new(), value)])
    }
}

fn labelled(
    family: &mut MetricEncoder<'_>,
    labels: &Labels<'_>,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    match labels.is_empty() {
        true => encode(family),
        false => encode(&mut family.encode_family(labels)?),
    }
}
