use super::*;

const LONG: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn no_names(name: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
    panic!("{name:?} is no name to look up")
}

#[test]
fn durations_have_a_unit_or_are_seconds() {
    let cases = [("0", 0), ("30", 30_000), ("30s", 30_000), ("500ms", 500), ("5m", 300_000)];
    for (text, milliseconds) in cases.into_iter().chain([("1h", 3_600_000), ("01s", 1000)]) {
        assert_eq!(parse_duration(text), Some(Duration::from_millis(milliseconds)), "{text}");
    }
    let overflow = "18446744073709551615h";
    for text in ["", "s", "1d", "1 s", " 1", "-1", "+1", "1.5s", "1S", "off", "1s1s", overflow] {
        assert_eq!(parse_duration(text), None, "{text}");
    }
}

#[test]
fn a_busy_poll_is_a_few_microseconds_or_off() {
    for (text, us) in [("off", 0), ("0", 0), ("50", 50), ("50us", 50), ("1000us", 1000)] {
        assert_eq!(busy_poll(text), Ok(Duration::from_micros(us)), "{text}");
    }
    for text in ["", "us", "-1", "1ms", "1001", "50 us", "on"] {
        assert!(busy_poll(text).unwrap_err().contains("\"50us\""), "{text}");
    }
}

#[test]
fn a_drain_lasts_between_a_millisecond_and_a_day() {
    assert_eq!(drain("1ms"), Ok(Duration::from_millis(1)));
    assert_eq!(drain("24h"), Ok(Duration::from_secs(86_400)));
    for text in ["0", "0ms", "86401", "25h", "off"] {
        assert!(drain(text).unwrap_err().contains("from 1ms to 24h"), "{text}");
    }
}

#[test]
fn listeners_are_addresses_or_unix_paths() {
    for text in ["127.0.0.1:8080", "[::]:8080", "0.0.0.0:0", "[fe80::1%2]:80"] {
        assert_eq!(listen(text), Ok(Listen::Tcp(text.parse().unwrap())), "{text}");
    }
    assert_eq!(listen("unix:/run/x"), Ok(Listen::Unix("/run/x".into())));
    let long = format!("unix:/{LONG}{LONG}");
    let wrong = ["", ":8080", "8080", "localhost:80", "127.0.0.1", "::1:80", "1.2.3.4:65536"];
    for text in wrong.into_iter().chain(["unix:", "unix:a\0b", "/run/x", long.as_str()]) {
        assert!(listen(text).is_err(), "{text}");
    }
}

#[test]
fn unix_paths_fit_into_sun_path() {
    let path = |length: usize| format!("unix:/{}", "a".repeat(length - 1));
    assert!(listen(&path(107)).is_ok());
    assert!(listen(&path(108)).unwrap_err().contains("107"));
}

#[test]
fn addresses_and_paths_are_endpoints_without_a_look_up() {
    let tcp = |text: &str| EndpointTarget::Tcp(vec![text.parse().unwrap()]);
    for text in ["127.0.0.1:80", "[::1]:65535"] {
        assert_eq!(endpoint(text, &no_names).unwrap().target, tcp(text), "{text}");
    }
    let unix = endpoint("unix:/run/x", &no_names).unwrap();
    assert_eq!(unix.target, EndpointTarget::Unix("/run/x".into()));
    assert_eq!(unix.text, "unix:/run/x");
    let wrong = ["", "app", ":80", "app:", "app:x", "app:65536", "ws://app:80", "app:80/", "a b:1"];
    for text in wrong.into_iter().chain(["::1:80", "[::1]", "[app]:80", "unix:", "127.0.0.1:0"]) {
        assert!(endpoint(text, &no_names).is_err(), "{text}");
    }
}

#[test]
fn every_address_of_a_name_belongs_to_the_endpoint() {
    let both = [SocketAddr::from(([192, 0, 2, 1], 80)), SocketAddr::from(([192, 0, 2, 2], 80))];
    let resolve = |name: &str, port| match (name, port) {
        ("app_1.test", 80) => Ok(both.to_vec()),
        ("empty.test", _) => Ok(vec![]),
        _ => Err(io::Error::other("gone")),
    };
    let found = endpoint("app_1.test:80", &resolve).unwrap();
    assert_eq!(found.target, EndpointTarget::Tcp(both.to_vec()));
    assert!(endpoint("empty.test:80", &resolve).unwrap_err().contains("no address"));
    assert!(endpoint("other.test:80", &resolve).unwrap_err().ends_with("resolve: gone"));
}

#[test]
fn hosts_are_names_suffixes_or_addresses() {
    let exact = |text: &str| Ok(HostPattern::Exact(text.into()));
    assert_eq!(host("Chat.Example.COM"), exact("chat.example.com"));
    assert_eq!(host("localhost"), exact("localhost"));
    assert_eq!(host("192.0.2.1"), exact("192.0.2.1"));
    assert_eq!(host("[2001:DB8:0::1]"), exact("[2001:db8::1]"));
    assert_eq!(host("*.Example.com"), Ok(HostPattern::Suffix(".example.com".into())));
    let wrong = ["", "*", "*.", "*example.com", "a.*.com", "a..b", ".a", "a.", "a:80", "a b"];
    for text in wrong.into_iter().chain(["-a", "a-", "a/b", "[::1", "::1", "ä.de", LONG]) {
        assert!(host(text).is_err(), "{text}");
    }
}

#[test]
fn paths_are_plain_prefixes() {
    for text in ["/", "/ws", "/ws/", "/a/b", "/...", "/a..b", "/~x@y:z;p=1,2!$&'()*+-._"] {
        assert_eq!(path(text), Ok(text.to_owned()));
    }
    let wrong = ["", "ws", "*", "http://a/", "/a?b", "/a#b", "/%61", "/.", "/..", "/a/./b"];
    for text in wrong.into_iter().chain(["/a/..", "/a b", "/ä", "/a\\b", "/a\r\n", "/{x}"]) {
        assert!(path(text).is_err(), "{text}");
    }
}

#[test]
fn protocols_are_tokens_with_at_most_one_version() {
    for (text, lower) in [("WebSocket", "websocket"), ("IRC/6.9", "irc/6.9"), ("h2c", "h2c")] {
        assert_eq!(protocol(text), Ok(lower.to_owned()));
    }
    for text in ["", "/", "a/", "/1", "a/1/2", "a b", "a,b", "a;b", "\"a\"", "ä"] {
        assert!(protocol(text).is_err(), "{text}");
    }
}

#[test]
fn names_are_short_and_plain() {
    let fits = &LONG[..64];
    assert_eq!(route_name(fits), Ok(fits.to_owned()));
    assert_eq!(gateway_name("a!b"), Ok("a!b".to_owned()));
    let long = format!("{fits}a");
    for text in ["", "a b", "a\"b", "ä", long.as_str()] {
        assert!(route_name(text).is_err() && gateway_name(text).is_err(), "{text}");
    }
    assert!(route_name("a!b").is_err());
}

#[test]
fn networks_may_be_single_addresses() {
    let peer = |text: &str| text.parse::<IpAddr>().unwrap();
    assert!(network("10.0.0.0/8").unwrap().contains(&peer("10.255.0.1")));
    let one = network("192.0.2.7").unwrap();
    assert!(one.contains(&peer("192.0.2.7")) && !one.contains(&peer("192.0.2.6")));
    assert!(network("2001:db8::1").unwrap().contains(&peer("2001:db8::1")));
    for text in ["", "10.0.0.0/33", "10.0.0/8", "any", "::/129"] {
        assert!(network(text).is_err(), "{text}");
    }
}

#[test]
fn controllers_are_networks_or_whoever_comes_over_a_unix_socket() {
    assert_eq!(controller("unix"), Ok(None));
    assert_eq!(controller("10.0.0.0/8"), Ok(Some("10.0.0.0/8".parse().unwrap())));
    for text in ["", "Unix", "unix:", "unix:/run/x", "10.0.0.0/33", "any"] {
        assert!(controller(text).unwrap_err().contains("or \"unix\""), "{text}");
    }
}

#[test]
fn origins_are_refused_with_what_would_be_right() {
    assert!(origin("https://*.example.com").is_ok() && origin("null").is_ok());
    assert!(origin("wss://example.com").unwrap_err().contains("with http or https"));
    for text in ["", "*", "example.com", "https://example.com/", "https://a@b"] {
        assert!(origin(text).unwrap_err().contains("without path"), "{text}");
    }
}

#[test]
fn subprotocols_are_tokens_whose_case_counts() {
    assert_eq!(subprotocol("graphql-transport-WS"), Ok("graphql-transport-WS".to_owned()));
    for text in ["", "a b", "a,b", "a/b", "\"a\"", "ä"] {
        assert!(subprotocol(text).is_err(), "{text}");
    }
}

#[test]
fn sizes_have_a_unit_or_are_bytes() {
    for (text, bytes) in [("0", 0), ("10", 10), ("64KiB", 65_536), ("16MiB", 16 << 20)] {
        assert_eq!(parse_bytes(text), Some(bytes), "{text}");
    }
    assert_eq!(parse_bytes("3GiB"), Some(3 << 30));
    let overflow = "18446744073709551615GiB";
    for text in ["", "KiB", "1KB", "1kib", "1 KiB", "-1", "1.5MiB", "1TiB", "off", overflow] {
        assert_eq!(parse_bytes(text), None, "{text}");
    }
}
