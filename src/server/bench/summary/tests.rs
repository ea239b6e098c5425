//! Made-up samples in, words out.

use super::*;

fn sample(cpu_nanos: u64) -> Sample {
    Sample { cpu_nanos, messages: 10, bytes: 1_000, nanos: 2 * cpu_nanos, p50_nanos: 5_000 }
}

fn samples(cpu: &[u64]) -> Vec<Sample> {
    cpu.iter().map(|&cpu| sample(cpu)).collect()
}

fn row(bytes: usize, splice: &[u64], copy: &[u64]) -> Row {
    Row::new(Load::Echo { bytes }, &[("splice", samples(splice)), ("copy", samples(copy))])
}

fn carrier(engine: &'static str) -> Carrier {
    Carrier { engine, refused: None, carried: BTreeMap::new(), delivered: 0 }
}

#[test]
fn a_median_is_the_middle_or_the_mean_of_the_middle_two() {
    for (values, expected) in [
        (&[][..], None),
        (&[3.0], Some(3.0)),
        (&[9.0, 1.0], Some(5.0)),
        (&[9.0, 1.0, 2.0], Some(2.0)),
        (&[4.0, 9.0, 1.0, 2.0], Some(3.0)),
    ] {
        assert_eq!(median(values), expected, "{values:?}");
    }
}

#[test]
fn a_difference_is_one_that_the_rounds_agree_about() {
    use Verdict::{Less, More, Same};
    for (ours, verdict) in [
        (&[50.0, 60.0, 70.0][..], Less),
        (&[150.0, 160.0, 170.0], More),
        (&[50.0, 60.0, 170.0], Same), // Three rounds: none may say otherwise.
        (&[50.0, 60.0, 70.0, 80.0, 170.0], Less), // One of five may.
        (&[50.0, 60.0, 70.0, 180.0, 170.0], Same), // Two may not.
        (&[99.0, 99.0, 99.0, 99.0, 99.0], Same), // They agree, about next to nothing.
        (&[100.0], Same),
    ] {
        let paired = Paired::of(ours, &vec![100.0; ours.len()]).expect("there are rounds");
        assert_eq!(paired.verdict, verdict, "{ours:?}");
        assert!(paired.least <= paired.ratio && paired.ratio <= paired.most, "{paired:?}");
    }
    assert_eq!(Paired::of(&[], &[]), None);
    assert_eq!(Paired::of(&[1.0], &[0.0]), None, "nothing to compare with");
}

#[test]
fn ratios_are_taken_in_a_round_and_not_of_medians() {
    // The machine is three times as slow in each next round; the ratio stays.
    let row = row(64, &[90, 270, 810], &[100, 300, 900]);
    let paired = row.paired("splice").expect("it was measured");
    assert!((paired.ratio - 0.9).abs() < 1e-9 && (paired.most - 0.9).abs() < 1e-9, "{paired:?}");
    assert_eq!(row.cheapest, Some("splice"));
}

#[test]
fn figures_are_medians_in_their_units() {
    let row = row(100, &[1_000, 3_000, 2_000], &[4_000, 4_000, 4_000]);
    let figure = &row.figures[0];
    assert_eq!((row.load, row.bytes, figure.engine), ("echo", 100, "splice"));
    assert_eq!((figure.cpu_us_per_message, figure.cpu_s_per_gb), (0.2, 2.0));
    assert_eq!((figure.gb_per_s, figure.p50_us), (0.25, 5.0));
    assert_eq!(figure.messages_per_s, 2_500_000.0);
    assert_eq!(row.figures[1].cpu_against_copy, None, "copy is what the others are compared with");
}

#[test]
fn the_cheapest_engine_is_named_only_beyond_the_spread() {
    let three = |splice: &[u64], copy: &[u64], uring: &[u64]| {
        let samples =
            [("splice", samples(splice)), ("copy", samples(copy)), ("uring", samples(uring))];
        Row::new(Load::Echo { bytes: 64 }, &samples).cheapest
    };
    assert_eq!(three(&[120; 3], &[100; 3], &[80; 3]), Some("uring"));
    assert_eq!(three(&[70; 3], &[100; 3], &[80; 3]), Some("splice"));
    assert_eq!(three(&[120; 3], &[100; 3], &[130; 3]), Some("copy"));
    assert_eq!(three(&[120; 3], &[100; 3], &[100; 3]), None);
    let alone = Row::new(Load::Echo { bytes: 64 }, &[("copy", samples(&[100; 3]))]);
    assert_eq!(alone.cheapest, None, "nothing to compare with");
}

#[test]
fn the_crossover_is_said_in_one_sentence() {
    // Splice's cost at 64 B, 1 KiB, 16 KiB and 1 MiB, where copy's is 100.
    for (splice, expected) in [
        (
            [125, 110, 80, 50],
            "splice is up to 50 % cheaper than copy from 16 KiB messages on; below that copy is up to 20 % cheaper.",
        ),
        (
            [125, 100, 100, 50],
            "splice is up to 50 % cheaper than copy from 1 MiB messages on; below that copy is up to 20 % cheaper.",
        ),
        (
            [100, 100, 80, 50],
            "splice is up to 50 % cheaper than copy from 16 KiB messages on; below that there is no difference beyond the spread.",
        ),
        (
            [90, 80, 80, 75],
            "splice is up to 25 % cheaper than copy, from the smallest messages on.",
        ),
        (
            [100, 100, 100, 100],
            "there is no difference beyond the spread between splice and copy, at any message size.",
        ),
        (
            [125, 110, 100, 100],
            "copy is up to 20 % cheaper than splice, and splice pays at no size.",
        ),
        (
            [80, 90, 100, 125],
            "splice is up to 20 % cheaper than copy up to 1 KiB messages; above that copy is up to 20 % cheaper.",
        ),
        (
            [80, 125, 80, 125],
            "neither wins on one side of a size: splice is cheaper with messages of 64 B, 16 KiB, copy with 1 KiB, 1 MiB.",
        ),
    ] {
        let rows: Vec<Row> = [64, 1 << 10, 16 << 10, 1 << 20]
            .into_iter()
            .zip(splice)
            .map(|(bytes, cpu)| row(bytes, &[cpu; 3], &[100; 3]))
            .collect();
        let said = sentences(&[carrier("splice"), carrier("copy")], &rows);
        assert_eq!(said, [format!("On this machine {expected}")], "{splice:?}");
    }
}

#[test]
fn a_refused_engine_is_named_and_a_stream_has_its_price() {
    let refused = Carrier { refused: Some("splice: EPERM".into()), ..carrier("splice") };
    let samples = [("copy", samples(&[500; 3]))];
    let rows = [Row::new(Load::Bulk { bytes: 64 << 10 }, &samples)];
    assert_eq!(
        sentences(&[refused, carrier("copy")], &rows),
        [
            "Engine splice was not measured: splice: EPERM.",
            "A GB of a bulk stream costs CPU time of 0.50 s by copy."
        ]
    );
}
