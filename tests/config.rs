//! Configuration files under `tests/config`: what is read from the good ones, and every fault of the bad ones.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use upsplice::config::admission::{Admission, ClientLimits, Crowd, Pace};
use upsplice::config::inspection::{
    Deflate, Depth, Heartbeat, Inspection, MessageLimits, OnExcess, OnViolation, Rates,
};
use upsplice::config::log::{ClientAddr, LogFormat};
use upsplice::config::traces::{Sampler, Trust};
use upsplice::config::{
    self, Config, EndpointTarget, Engine, HostPattern, Listen, Mode, OnChange, Origin, Protocols,
    Runtime,
};

fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(folder);
    let entries = fs::read_dir(folder).expect("the folder is part of the repository");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "toml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

/// A name service with one good name, one without address, and nothing else.
fn resolve(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let address = |last| SocketAddr::from(([192, 0, 2, last], port));
    match name {
        "app.test" => Ok(vec![address(1), address(2)]),
        "empty.test" => Ok(vec![]),
        _ => Err(io::Error::other("no such name")),
    }
}

fn read(folder: &str, file: &str) -> Config {
    let files = files(folder);
    let path = files.iter().find(|path| path.ends_with(file)).expect("the file exists");
    let text = fs::read_to_string(path).unwrap();
    config::from_toml_with(&text, file, &resolve).unwrap_or_else(|faults| panic!("{faults}"))
}

#[test]
fn every_fault_of_a_file_is_reported_with_its_line() {
    for path in files("invalid") {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let expected = fs::read_to_string(path.with_extension("faults")).unwrap();
        let faults = config::from_toml_with(&text, name, &resolve).expect_err(name);
        assert_eq!(faults.to_string(), expected.trim_end(), "\n\n{faults}\n");
    }
}

#[test]
fn a_valid_file_has_no_fault() {
    for path in files("valid") {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(!read("valid", &name).routes.is_empty(), "{name}");
    }
}

#[test]
fn every_key_reaches_the_configuration() {
    let config = read("valid", "contract.toml");
    let (gateway, seconds) = (&config.gateway, Duration::from_secs);
    assert_eq!((gateway.workers, gateway.runtime), (4, Runtime::Epoll));
    assert_eq!((gateway.drain, gateway.no_fallback), (seconds(60), true));
    assert_eq!((gateway.drain_over, gateway.drain_rate), (Some(seconds(20)), Some(50)));
    assert!(!gateway.balance);
    assert_eq!((gateway.name.as_str(), gateway.access_log), ("edge-1", false));
    assert!(gateway.watch_file);
    assert!(gateway.trusts("10.9.9.9".parse().unwrap()));
    assert!(gateway.trusts("::ffff:192.0.2.7".parse().unwrap()));
    assert!(!gateway.trusts("192.0.2.8".parse().unwrap()));

    assert_eq!(gateway.admin, Some(Listen::Unix(upsplice::config::ADMIN_SOCKET.into())));

    let log = &gateway.log;
    assert_eq!((&log.file, log.session_open), (&None, true));
    assert_eq!((log.client_addr, log.format), (ClientAddr::Network, LogFormat::Json));
    assert_eq!(log.filter.as_deref(), Some("warn,upsplice::upstream=debug"));
    assert_eq!(log.omit, ["user_agent", "client_port"]);
    assert_eq!(&*log.redacted("a?token=b&c"), "a?[redacted]&c");

    let traces = &gateway.traces;
    assert_eq!(traces.endpoint.as_deref(), Some("http://127.0.0.1:4318"));
    assert_eq!((&*traces.service_name, traces.trust), ("edge", Trust::Any));
    assert_eq!(traces.sampler, Sampler { by_parent: true, ratio: 0.25 });
    assert_eq!(traces.delay, seconds(1));

    let limits = &gateway.limits;
    assert_eq!((limits.head_bytes_max, limits.line_bytes_max), (16384, 4096));
    assert_eq!((limits.head_data_bytes_max, limits.body_bytes_max), (0, 1000));
    assert_eq!(limits.fields_max, 64);

    let tcp = &gateway.tcp;
    assert_eq!((tcp.nodelay, tcp.keepalive, tcp.user_timeout), (false, None, None));
    assert_eq!((tcp.keepalive_interval, tcp.keepalive_probes), (seconds(20), 3));

    let addresses: Vec<&Listen> = config.listeners.iter().map(|l| &l.address).collect();
    let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
    let unix = Listen::Unix("/run/upsplice.sock".into());
    assert_eq!(addresses, [&tcp("0.0.0.0:8080"), &tcp("[::1]:0"), &unix]);
    assert!(!config.demo);
}

#[test]
fn every_key_of_the_limits_at_the_door_reaches_the_configuration() {
    let config = read("valid", "contract.toml");
    let pace = |per_second, burst| Some(Pace { per_second, burst });
    let expected = Admission {
        all: Crowd { sessions_max: Some(50_000), handshakes: pace(2_000, 8_000) },
        exchanges_max: Some(4_000),
        client: ClientLimits {
            crowd: Crowd { sessions_max: Some(20), handshakes: pace(5, 5) },
            exchanges_max: Some(10),
            ipv4_prefix: 24,
            ipv6_prefix: 56,
        },
        descriptors_reserved: Some(100),
    };
    assert_eq!(config.gateway.admission, expected);
    let of_route = Crowd { sessions_max: Some(1000), handshakes: pace(100, 1) };
    assert_eq!(config.routes[0].admission, of_route);
    assert_eq!(config.routes[1].admission, Crowd::default());
    let config = read("valid", "least.toml");
    assert_eq!(config.gateway.admission, Admission::default());
    let client = ClientLimits::default();
    assert_eq!((client.ipv4_prefix, client.ipv6_prefix, client.is_on()), (32, 64, false));
}

#[test]
fn every_key_of_a_route_reaches_the_configuration() {
    let config = read("valid", "contract.toml");
    let [chat, rest, docker, _] = &config.routes[..] else { panic!("four routes") };
    assert_eq!((chat.name.as_str(), chat.path.as_str()), ("chat", "/ws"));
    assert_eq!(chat.host, Some(HostPattern::Exact("chat.example.com".into())));
    assert_eq!(chat.protocols, Protocols::Only(vec!["websocket".into()]));
    assert_eq!((chat.mode, chat.engine), (Mode::ZeroCopy, Engine::Splice));
    let texts: Vec<&str> = chat.to.iter().map(|to| to.text.as_str()).collect();
    let expected = ["10.0.0.5:9000", "[2001:db8::5]:9000", "unix:/run/app.sock", "app.test:9001"];
    assert_eq!(texts, expected);
    assert_eq!(chat.to[2].target, EndpointTarget::Unix("/run/app.sock".into()));
    let resolved = EndpointTarget::Tcp(resolve("app.test", 9001).unwrap());
    assert_eq!(chat.to[3].target, resolved);
    let switches = [chat.rekey, chat.lenient_connection, docker.empty_host];
    assert_eq!(docker.on_change, OnChange::Drain);
    assert_eq!(chat.on_change, OnChange::Keep);
    assert_eq!((chat.websocket_strict, switches), (false, [true; 3]));
    let timeouts = &chat.timeouts;
    assert_eq!(timeouts.connect, Duration::from_millis(500));
    assert_eq!(timeouts.handshake, Duration::from_secs(7));
    assert_eq!((timeouts.idle, timeouts.half_close), (Some(Duration::from_secs(7200)), None));

    assert_eq!(rest.host, Some(HostPattern::Suffix(".example.com".into())));
    assert_eq!(rest.protocols, Protocols::Any { also: vec!["h2c".into()] });
}

#[test]
fn every_key_of_an_inspected_route_reaches_the_configuration() {
    let config = read("valid", "contract.toml");
    let controllers = &config.gateway.trusted_controllers;
    assert!(controllers.trust(Some("::ffff:10.1.0.1".parse().unwrap())) && controllers.trust(None));
    assert!(!controllers.trust(Some("10.2.0.1".parse().unwrap())));
    let route = &config.routes[3];
    assert_eq!(route.mode, Mode::Inspect);
    let expected = Inspection {
        depth: Depth::Payload,
        on_violation: OnViolation::Log,
        deflate: Deflate::SeeThrough,
        limits: MessageLimits {
            frame_bytes_max: Some(65_536),
            message_bytes_max: Some(1_000_000),
            fragments_max: Some(100),
            inflated_bytes_max: Some(1 << 30),
            inflated_ratio_max: None,
        },
        rates: [
            Rates {
                messages: Some(50),
                bytes: Some(1 << 20),
                control_frames: Some(5),
                inflated_bytes: Some(1 << 20),
                on_excess: OnExcess::Close,
            },
            Rates::default(),
        ],
        heartbeat: Some(Heartbeat {
            interval: Duration::from_secs(30),
            timeout: Duration::from_secs(5),
        }),
    };
    assert_eq!(*route.inspection, expected);
    let origins = route.origins.as_ref().expect("they are listed");
    let page = Origin::parse("https://a.example.com").expect("an origin");
    assert!(origins.required && origins.allowed.len() == 3);
    assert!(origins.allowed.iter().any(|allowed| allowed.matches(Some(&page))));
    assert_eq!(route.subprotocols, Some(vec!["chat".into(), "superchat".into()]));
}

#[test]
fn sessions_are_told_before_those_that_are_left_are_ended() {
    let route = "[[route]]\nname = \"a\"\nto = [\"127.0.0.1:1\"]\n";
    let text = format!("[gateway]\ndrain = \"20s\"\ndrain_over = \"20s\"\n{route}");
    let faults = config::from_toml(&text, "f").expect_err("no time to go");
    assert_eq!(
        faults.to_string(),
        "f:3: [gateway] drain_over: must be shorter than drain (20s): who is told needs time to go"
    );
    assert!(config::from_toml(&text.replacen("20s", "21s", 1), "f").is_ok());
}

#[test]
fn what_a_route_says_of_inspection_is_kept_where_a_controller_may_ask_for_it() {
    let opaque = "[[route]]\nname = \"a\"\nto = [\"127.0.0.1:1\"]\ninspect = \"payload\"\n";
    let controllers = "[gateway]\ntrusted_controllers = [\"unix\"]\n";
    let faults = config::from_toml(opaque, "f").expect_err("nobody would ever ask");
    assert_eq!(faults.to_string(), "f:4: [[route]] inspect: needs mode = \"inspect\"");
    let config = config::from_toml(&format!("{controllers}{opaque}"), "f").expect("no fault");
    let route = &config.routes[0];
    assert_eq!((route.mode, route.inspection.depth), (Mode::ZeroCopy, Depth::Payload));
}

#[test]
fn what_the_file_leaves_out_has_the_documented_default() {
    let config = read("valid", "least.toml");
    let (gateway, seconds) = (&config.gateway, Duration::from_secs);
    assert!(gateway.workers >= 1 && gateway.balance && gateway.access_log && !gateway.no_fallback);
    assert_eq!((gateway.runtime, gateway.drain), (Runtime::Auto, seconds(30)));
    assert_eq!((gateway.drain_over, gateway.drain_rate), (None, Some(1000)));
    let limits = &gateway.limits;
    assert_eq!((limits.head_bytes_max, limits.line_bytes_max), (32768, 8192));
    assert_eq!((limits.fields_max, limits.head_data_bytes_max), (100, 65536));
    let tcp = &gateway.tcp;
    assert_eq!((tcp.nodelay, tcp.keepalive, tcp.keepalive_probes), (true, Some(seconds(60)), 4));
    assert_eq!((tcp.keepalive_interval, tcp.user_timeout), (seconds(15), None));
    assert_eq!(config.listeners[0].address, Listen::Tcp("127.0.0.1:8080".parse().unwrap()));
    let route = &config.routes[0];
    assert_eq!((&route.host, route.path.as_str(), route.engine), (&None, "/", Engine::Auto));
    assert_eq!(route.protocols, Protocols::Only(vec!["websocket".into()]));
    assert!(route.websocket_strict && !route.rekey && !route.empty_host);
    assert_eq!((route.timeouts.connect, route.timeouts.handshake), (seconds(5), seconds(10)));
    assert_eq!(route.timeouts.idle, Some(seconds(3600)));
    assert_eq!(route.timeouts.half_close, Some(seconds(30)));

    assert!(gateway.trusted_controllers.is_empty());
    assert_eq!((&route.origins, &route.subprotocols), (&None, &None));
    let inspection = &route.inspection;
    assert_eq!((route.mode, inspection.depth), (Mode::ZeroCopy, Depth::Frames));
    assert_eq!(inspection.on_violation, OnViolation::Close);
    assert_eq!((inspection.deflate, inspection.heartbeat), (Deflate::Pass, None));
    // All of them off but one: a bomb is judged also where nobody thought of it.
    let off = MessageLimits {
        frame_bytes_max: None,
        message_bytes_max: None,
        fragments_max: None,
        inflated_bytes_max: Some(64 << 20),
        inflated_ratio_max: None,
    };
    assert_eq!((inspection.limits, inspection.rates), (off, [Rates::default(); 2]));
}

#[test]
fn what_an_inspected_route_leaves_out_follows_from_how_far_it_looks() {
    for (keys, deflate, timeout) in [
        ("", Deflate::Pass, None),
        ("inspect = \"frames\"", Deflate::Pass, None),
        ("inspect = \"payload\"", Deflate::SeeThrough, None),
        ("heartbeat.interval = \"1m\"", Deflate::Pass, Some(Duration::from_secs(10))),
    ] {
        let text =
            format!("[[route]]\nname = \"a\"\nto = [\"127.0.0.1:1\"]\nmode = \"inspect\"\n{keys}");
        let config = config::from_toml(&text, "f").expect(keys);
        let inspection = &config.routes[0].inspection;
        assert_eq!(inspection.deflate, deflate, "{keys}");
        assert_eq!(inspection.heartbeat.map(|heartbeat| heartbeat.timeout), timeout, "{keys}");
    }
}
