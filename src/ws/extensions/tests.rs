use super::*;

fn offer(lines: &[&str]) -> Result<Offer, &'static str> {
    Offer::read(lines.iter().map(|line| line.as_bytes()), Deflate::SeeThrough)
}

fn forwarded(lines: &[&str]) -> Option<String> {
    offer(lines).expect("it is of the grammar").field()
}

#[test]
fn only_well_formed_permessage_deflate_goes_upstream() {
    for (lines, expected) in [
        (&["permessage-deflate"][..], Some("permessage-deflate")),
        (
            &["Permessage-Deflate ; Client_Max_Window_Bits"],
            Some("permessage-deflate; client_max_window_bits"),
        ),
        (
            &["permessage-deflate; client_max_window_bits=10; server_max_window_bits=\"12\""],
            Some("permessage-deflate; server_max_window_bits=12; client_max_window_bits=10"),
        ),
        (
            &["permessage-deflate; server_no_context_takeover, permessage-deflate"],
            Some("permessage-deflate; server_no_context_takeover, permessage-deflate"),
        ),
        (&["x-webkit-deflate-frame", "permessage-deflate"], Some("permessage-deflate")),
        (&["permessage-bzip2, mux; max-channels=4"], None),
        (
            &["permessage-deflate; unknown, permessage-deflate; client_no_context_takeover"],
            Some("permessage-deflate; client_no_context_takeover"),
        ),
        (&["permessage-deflate; server_max_window_bits"], None),
        (&["permessage-deflate; server_max_window_bits=7"], None),
        (&["permessage-deflate; server_max_window_bits=16"], None),
        (&["permessage-deflate; server_max_window_bits=08"], None),
        (&["permessage-deflate; client_max_window_bits=+9"], None),
        (&["permessage-deflate; server_no_context_takeover=1"], None),
        (&["permessage-deflate; client_max_window_bits; client_max_window_bits=9"], None),
        (&[",, permessage-deflate ,"], Some("permessage-deflate")),
        (&[], None),
        (&[""], None),
    ] {
        assert_eq!(forwarded(lines).as_deref(), expected, "{lines:?}");
    }
}

#[test]
fn what_is_not_of_the_grammar_is_refused() {
    for line in [
        "permessage-deflate permessage-deflate",
        "permessage-deflate;",
        "permessage-deflate; =1",
        "permessage-deflate; a=",
        "permessage-deflate; a=\"\"",
        "permessage-deflate; a=\"b c\"",
        "permessage-deflate; a=\"b",
        "permessage-deflate; a=\"b\\",
        "\"permessage-deflate\"",
        "perme\u{e4}ssage",
    ] {
        assert_eq!(offer(&[line]), Err("extension"), "{line}");
    }
}

#[test]
fn a_stripped_offer_offers_nothing() {
    let lines = ["permessage-deflate".as_bytes()];
    let offer = Offer::read(lines, Deflate::Strip).expect("it is of the grammar");
    assert_eq!(offer.field(), None);
    assert_eq!(offer.accept(lines), Err("extension"));
    assert_eq!(offer.accept([]), Ok(None));
}

#[test]
fn an_acceptance_is_of_what_was_offered_and_no_more() {
    const ANY: &str = "permessage-deflate; client_max_window_bits";
    const NARROW: &str =
        "permessage-deflate; server_max_window_bits=12; server_no_context_takeover";
    let plain = Agreement {
        client_no_context_takeover: false,
        server_no_context_takeover: false,
        client_max_window_bits: 15,
        server_max_window_bits: 15,
    };
    for (offered, answer, expected) in [
        (ANY, "permessage-deflate", Ok(plain)),
        (
            ANY,
            "permessage-deflate; client_max_window_bits=9",
            Ok(Agreement { client_max_window_bits: 9, ..plain }),
        ),
        (ANY, "permessage-deflate; client_max_window_bits", Err("extension_parameter")),
        (
            ANY,
            "permessage-deflate; server_max_window_bits=9",
            Ok(Agreement { server_max_window_bits: 9, ..plain }),
        ),
        (
            ANY,
            "permessage-deflate; client_no_context_takeover",
            Ok(Agreement { client_no_context_takeover: true, ..plain }),
        ),
        (
            "permessage-deflate",
            "permessage-deflate; client_max_window_bits=9",
            Err("extension_parameter"),
        ),
        (
            "permessage-deflate; client_max_window_bits=10",
            "permessage-deflate; client_max_window_bits=11",
            Err("extension_parameter"),
        ),
        (NARROW, "permessage-deflate", Err("extension_parameter")),
        (
            NARROW,
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
            Err("extension_parameter"),
        ),
        (
            NARROW,
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=11",
            Ok(Agreement { server_no_context_takeover: true, server_max_window_bits: 11, ..plain }),
        ),
        // The second of two offers was taken.
        (
            "permessage-deflate; server_no_context_takeover, permessage-deflate",
            "permessage-deflate",
            Ok(plain),
        ),
        (ANY, "permessage-deflate, permessage-deflate", Err("extension")),
        (ANY, "x-other", Err("extension")),
        (ANY, "permessage-deflate; unknown", Err("extension_parameter")),
        (ANY, "permessage-deflate;;", Err("extension")),
        ("x-other", "permessage-deflate", Err("extension")),
    ] {
        let offer = offer(&[offered]).expect("it is of the grammar");
        let accepted = offer.accept([answer.as_bytes()]);
        assert_eq!(accepted, expected.map(Some), "{offered} / {answer}");
    }
}
