//! The text of `/metrics`, read back: names, labels, values, and how much counters have grown.

use std::collections::BTreeMap;

use super::plain;

/// The labels of a series, in the order of their names.
pub type Labels = BTreeMap<String, String>;

/// A whole page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Exposition {
    families: BTreeMap<String, BTreeMap<Labels, f64>>,
}

/// What is no page of OpenMetrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// From 1 on.
    pub line: usize,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Exposition {
    /// Reads a page. Label values come out without control characters.
    ///
    /// # Errors
    ///
    /// The first line that is none of OpenMetrics; a page without its end was cut off.
    pub fn parse(text: &str) -> Result<Exposition, Malformed> {
        let mut page = Exposition::default();
        for (line, number) in text.lines().zip(1..) {
            if line == "# EOF" {
                return Ok(page);
            }
            if line.starts_with('#') || line.is_empty() {
                continue;
            }
            let malformed = |what| Malformed { line: number, what };
            let (name, labels, value) = series(line).map_err(malformed)?;
            page.families.entry(name.to_owned()).or_default().insert(labels, value);
        }
        Err(Malformed { line: text.lines().count(), what: "the page ends without # EOF" })
    }

    /// The only series of that name, or the sum of all of them; `None` when there is none.
    pub fn value(&self, name: &str) -> Option<f64> {
        self.families.get(name).map(|all| all.values().sum())
    }

    /// Sums by the value of one label.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let all = self.families.get(name).into_iter().flatten();
        sums(all.map(|(labels, value)| (labels, *value)), label)
    }

    /// The first value of that label.
    pub fn label(&self, name: &str, label: &str) -> Option<&str> {
        self.families.get(name)?.keys().find_map(|labels| labels.get(label)).map(String::as_str)
    }

    /// How much the counters of that name have grown since `before`, by the value of one label. A counter that
    /// is smaller than it was began anew, and all of it is growth.
    pub fn growth_by(&self, before: &Exposition, name: &str, label: &str) -> BTreeMap<String, f64> {
        self.growth_where(before, name, label, |_| true)
    }

    /// The same for the series with labels that fit.
    pub fn growth_where(
        &self,
        before: &Exposition,
        name: &str,
        label: &str,
        fits: impl Fn(&Labels) -> bool,
    ) -> BTreeMap<String, f64> {
        let all = self.families.get(name).into_iter().flatten().filter(|(labels, _)| fits(labels));
        let before = before.families.get(name);
        let grown = all.map(|(labels, now)| {
            let was = before.and_then(|before| before.get(labels)).copied().unwrap_or_default();
            (labels, if *now >= was { now - was } else { *now })
        });
        sums(grown, label)
    }
}

fn sums<'a>(all: impl Iterator<Item = (&'a Labels, f64)>, label: &str) -> BTreeMap<String, f64> {
    let mut sums = BTreeMap::new();
    for (labels, value) in all {
        if let Some(name) = labels.get(label) {
            *sums.entry(name.clone()).or_default() += value;
        }
    }
    sums
}

/// `name{label="value",…} value`, and a time or an exemplar that nobody asks for.
fn series(line: &str) -> Result<(&str, Labels, f64), &'static str> {
    let end = line.find(['{', ' ']).ok_or("a name without a value")?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() {
        return Err("a value without a name");
    }
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let value = rest.split_whitespace().next().ok_or("a name without a value")?;
    let value = value.parse().map_err(|_| "a value that is no number")?;
    Ok((name, labels, value))
}

/// What is between the braces, of which the first is gone, and what comes after them.
fn labels(mut rest: &str) -> Result<(Labels, &str), &'static str> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([' ', ',']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Ok((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"").ok_or("labels that do not end")?;
        let (value, after) = unquote(quoted)?;
        labels.insert(name.trim().to_owned(), plain(&value));
        rest = after;
    }
}

/// A value whose opening quote is gone, and what comes after the closing one.
fn unquote(text: &str) -> Result<(String, &str), &'static str> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err("a label value that does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(text: &str) -> Exposition {
        Exposition::parse(&format!("{text}\n# EOF\n")).expect("a page")
    }

    fn map(entries: &[(&str, f64)]) -> BTreeMap<String, f64> {
        entries.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }

    #[test]
    fn series_are_found_by_name_and_summed_by_label() {
        let page = page(
            "# HELP a_total What a is.\n# TYPE a counter\na_total{x=\"1\",y=\"p\"} 2\n\
             a_total{x=\"1\",y=\"q\"} 3\na_total{x=\"2\",y=\"p\"} 5 1700000000.5\nb 1.5e3\nc{} +Inf",
        );
        assert_eq!(page.value("a_total"), Some(10.0));
        assert_eq!(page.by("a_total", "x"), map(&[("1", 5.0), ("2", 5.0)]));
        assert_eq!(page.by("a_total", "none"), map(&[]));
        assert_eq!((page.value("b"), page.value("c")), (Some(1500.0), Some(f64::INFINITY)));
        assert_eq!((page.value("absent"), page.label("a_total", "y")), (None, Some("p")));
    }

    #[test]
    fn escapes_in_labels_are_undone_and_control_characters_shown() {
        let page = page(r#"a{x="q\"u\\o",y="}, # ="} 1"#);
        assert_eq!(page.label("a", "x"), Some("q\"u\\o"));
        assert_eq!(page.label("a", "y"), Some("}, # ="));
        let page = self::page("a{x=\"b\\nc\u{1b}\u{202e}d\"} 1");
        assert_eq!(page.label("a", "x"), Some("b\u{fffd}c\u{fffd}\u{fffd}d"));
    }

    #[test]
    fn counters_that_begin_anew_have_not_shrunk() {
        let before = page("a_total{x=\"1\"} 100\na_total{x=\"2\"} 7\na_total{x=\"gone\"} 5");
        let now = page("a_total{x=\"1\"} 40\na_total{x=\"2\"} 9\na_total{x=\"new\"} 3");
        let grown = now.growth_by(&before, "a_total", "x");
        assert_eq!(grown, map(&[("1", 40.0), ("2", 2.0), ("new", 3.0)]));
    }

    #[test]
    fn what_is_no_page_is_refused_with_its_line() {
        for (text, line, part) in [
            ("", 0, "# EOF"),
            ("a 1\n", 1, "# EOF"),
            ("a 1\nb\n# EOF", 2, "without a value"),
            ("a x\n# EOF", 1, "no number"),
            (" 1\n# EOF", 1, "without a name"),
            ("a{x=\"1} 1\n# EOF", 1, "does not end"),
            ("a{x=\"1\\", 1, "does not end"),
            ("a{x 1\n# EOF", 1, "do not end"),
            ("a{} \n# EOF", 1, "without a value"),
        ] {
            let malformed = Exposition::parse(text).expect_err(text);
            assert_eq!(malformed.line, line, "{text:?}");
            assert!(malformed.what.contains(part), "{text:?}: {malformed:?}");
        }
    }
}
