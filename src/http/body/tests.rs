use super::*;
use crate::config::Limits;

fn follow(framing: Framing, pieces: &[&[u8]]) -> Followed {
    let mut body = BodyFollower::new(framing);
    let mut total = 0;
    let mut done = body.state == State::Done;
    for piece in pieces {
        let progress = body.feed(piece)?;
        assert!(progress.taken == piece.len() || progress.done, "only an end leaves bytes");
        total += progress.taken;
        done = progress.done;
    }
    Ok((total, done))
}

/// Bytes that belong to the body and whether it is complete, or the rule it breaks.
type Followed = Result<(usize, bool), &'static str>;

const CHUNKED: &[(&str, Followed)] = &[
    ("0\r\n\r\n", Ok((5, true))),
    ("0\r\n\r\nHTTP/1.1 200 OK", Ok((5, true))),
    ("5\r\nhello\r\n0\r\n\r\nmore", Ok((15, true))),
    ("00005\r\nhello\r\n000\r\n\r\n", Ok((21, true))),
    ("A\r\n0123456789\r\n0\r\n\r\n", Ok((20, true))),
    ("a;x=y;z\r\n0123456789\r\n0;q\r\n\r\n", Ok((28, true))),
    ("1 ;n=\"v\"\r\nx\r\n0\r\n\r\n", Ok((18, true))),
    ("0\r\nA: b\r\nC: d\r\n\r\nrest", Ok((17, true))),
    ("5\r\nhel", Ok((6, false))),
    ("5\r\nhello\r\n", Ok((10, false))),
    ("0\r\n", Ok((3, false))),
    ("0\r\nA: b\r\n", Ok((9, false))),
    ("2\r\n\r\n\r\n0\r\n\r\n", Ok((12, true))),
    ("\r\n", Err("bad_chunk_size")),
    ("-1\r\n", Err("bad_chunk_size")),
    ("+1\r\nx\r\n", Err("bad_chunk_size")),
    (" 1\r\nx\r\n", Err("bad_chunk_size")),
    ("0x1\r\n", Err("bad_chunk_size")),
    ("g\r\n", Err("bad_chunk_size")),
    (";a\r\n", Err("bad_chunk_size")),
    ("1\nx\r\n", Err("bad_chunk_size")),
    ("1;a\nx\r\n", Err("bad_chunk_size")),
    ("1;a\0\r\nx\r\n", Err("bad_chunk_size")),
    ("1\rx", Err("bad_chunk_size")),
    ("1\r\nxy\r\n", Err("bad_chunk_end")),
    ("1\r\nx\n", Err("bad_chunk_end")),
    ("1\r\nx\rx", Err("bad_chunk_end")),
    ("0\r\n\n", Err("bad_trailer")),
    ("0\r\nA: b\n", Err("bad_trailer")),
    ("0\r\n\rA", Err("bad_trailer")),
    ("fffffffffffffff\r\n", Ok((17, false))),
    ("1000000000000000\r\n", Err("chunk_too_large")),
    ("ffffffffffffffffffffffff\r\n", Err("chunk_too_large")),
];

#[test]
fn chunked_bodies_end_where_they_say_however_they_are_cut() {
    for (text, expected) in CHUNKED {
        let bytes = text.as_bytes();
        assert_eq!(follow(Framing::Chunked, &[bytes]), *expected, "{text:?}");
        for cut in 0..=bytes.len() {
            let (a, b) = bytes.split_at(cut);
            // What comes behind the end is never fed: the relay stops there.
            let mut body = BodyFollower::new(Framing::Chunked);
            let cut_found = body.feed(a).and_then(|first| {
                let second =
                    if first.done { Progress { taken: 0, done: true } } else { body.feed(b)? };
                Ok((first.taken + second.taken, second.done))
            });
            assert_eq!(cut_found, *expected, "{text:?} at {cut}");
        }
    }
}

#[test]
fn size_lines_and_trailers_are_bounded() {
    for (extension, fits) in [(4093, true), (4094, true), (4095, false)] {
        // The line's CR LF counts: "0", the extension, CR, and LF.
        let text = format!("0;{}\r\n\r\n", "e".repeat(extension - 2));
        let expected = if fits { Ok((text.len(), true)) } else { Err("chunk_line_too_long") };
        assert_eq!(follow(Framing::Chunked, &[text.as_bytes()]), expected, "{extension}");
    }
    for (trailer, fits) in [(16_381, true), (16_382, true), (16_383, false)] {
        let text = format!("0\r\n{}\r\n\r\n", "t".repeat(trailer - 2));
        let expected = if fits { Ok((text.len(), true)) } else { Err("trailer_too_large") };
        assert_eq!(follow(Framing::Chunked, &[text.as_bytes()]), expected, "{trailer}");
    }
}

#[test]
fn other_bodies_end_by_length_or_with_the_connection() {
    assert_eq!(follow(Framing::Length(5), &[b"he", b"llo more"]), Ok((5, true)));
    assert_eq!(follow(Framing::Length(5), &[b"hell"]), Ok((4, false)));
    assert_eq!(follow(Framing::Length(0), &[b"more"]), Ok((0, true)));
    assert_eq!(follow(Framing::None, &[b"more"]), Ok((0, true)));
    assert_eq!(follow(Framing::UntilClose, &[b"all", b"of it"]), Ok((8, false)));
}

#[test]
fn only_some_bodies_may_end_with_the_connection() {
    let ends = |framing, bytes: &[u8]| {
        let mut body = BodyFollower::new(framing);
        body.feed(bytes).unwrap();
        body.ends_with_connection()
    };
    assert!(ends(Framing::UntilClose, b"") && ends(Framing::UntilClose, b"x"));
    assert!(ends(Framing::None, b"") && ends(Framing::Length(1), b"x"));
    assert!(!ends(Framing::Length(2), b"x") && !ends(Framing::Length(2), b""));
    assert!(!ends(Framing::Chunked, b"0\r\n") && ends(Framing::Chunked, b"0\r\n\r\n"));
}

#[test]
fn an_answer_says_how_its_body_ends() {
    use Framing::{Chunked, Length, None, UntilClose};
    for (head, method, expected) in [
        ("1.1 200 OK\r\nContent-Length: 5\r\n", "GET", Ok(Length(5))),
        ("1.1 200 OK\r\nContent-Length: 5\r\n", "HEAD", Ok(None)),
        ("1.1 200 OK\r\n", "GET", Ok(UntilClose)),
        ("1.0 200 OK\r\n", "GET", Ok(UntilClose)),
        ("1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n", "GET", Ok(Chunked)),
        ("1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", "HEAD", Ok(None)),
        ("1.1 204 No\r\nContent-Length: 5\r\n", "GET", Ok(None)),
        ("1.1 304 No\r\nContent-Length: 5\r\n", "GET", Ok(None)),
        ("1.1 205 No\r\nContent-Length: 0\r\n", "GET", Ok(Length(0))),
        ("1.1 200 OK\r\nTransfer-Encoding: gzip\r\n", "GET", Err("unknown_encoding")),
        ("1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n", "GET", Err("unknown_encoding")),
        ("1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n", "GET", Err("unknown_encoding")),
        ("1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n", "GET", Err("unknown_encoding")),
        ("1.0 200 OK\r\nTransfer-Encoding: chunked\r\n", "GET", Err("encoding_in_http_1_0")),
        (
            "1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "GET",
            Err("length_and_encoding"),
        ),
    ] {
        let text = format!("HTTP/{head}\r\n");
        let response = ResponseHead::parse(text.as_bytes(), &Limits::default()).unwrap();
        assert_eq!(Framing::of_answer(&response, method), expected, "{method} {head:?}");
    }
}
