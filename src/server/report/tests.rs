//! The report of made-up probes, against golden text.

use super::super::choice::tests::{all_works, refused};
use super::*;
use crate::config::{Endpoint, EndpointTarget, Gateway, Listen, Listener, Route};

#[test]
fn text_of_a_host_where_everything_works() {
    let text = report(&all_works(), Some(&config(&[("chat", Engine::Auto)])), false);
    assert_eq!(
        text,
        "\
kernel              Linux 6.12.1 x86_64
seccomp             no filter
splice, TCP         yes
splice, Unix        yes
pipe                64 KiB
pipe, 256 KiB       yes
pipe-max-size       1 MiB
pipe pages          8192 for all pipes of ours; limits per user: soft 16384, hard none; no capability lifts them
io_uring            yes, kernel.io_uring_disabled is 0
  operations        accept connect recv send shutdown close cancel
  provided buffers  yes
  multishot accept  yes
  multishot recv    yes
kTLS                yes
SO_REUSEPORT        yes
TCP_USER_TIMEOUT    yes
nofile              1024 of 4096

routes:
  chat  auto     asked for auto: splice works: what comes in small pieces is copied, the rest spliced

workers:
  epoll    asked for auto: as fast as io_uring or faster (kernel-notes/0002)
"
    );
}

#[test]
fn what_of_the_sandbox_is_to_be_had_is_told_when_it_was_asked_for() {
    let mut probe = all_works();
    assert!(!report(&probe, None, false).contains("sandbox"));
    assert!(!report(&probe, None, true).contains("sandbox"));
    probe.sandbox = Some(Sandbox {
        calls: Ability::No(refused("seccomp")),
        files: Ability::Yes,
        landlock: Some(5),
        capabilities: Ability::Yes,
    });
    let text = report(&probe, None, false);
    let wanted = "
sandbox             of a running gateway; see --no-sandbox
  seccomp filter    no: seccomp: EPERM: Operation not permitted (a hint)
  landlock          yes, version 5
  fewer rights      yes
";
    assert!(text.contains(wanted), "{text}");
    let json: serde_json::Value =
        serde_json::from_str(&report(&probe, None, true)).expect("one object");
    assert_eq!(json.pointer("/sandbox/calls/errno"), Some(&"EPERM".into()));
    assert_eq!(json.pointer("/sandbox/landlock"), Some(&5.into()));
}

#[test]
fn text_names_refusals_degraded_pipes_and_what_is_unknown() {
    let mut probe = all_works();
    probe.host.seccomp_mode = Some(2);
    probe.splice.tcp = Ability::No(refused("splice"));
    probe.pipes.fresh_bytes = Some(8192);
    probe.pipes.degraded = true;
    probe.pipes.user_pages_soft = None;
    probe.io_uring.operations.shutdown = false;
    probe.io_uring.ring = Ability::No(refused("io_uring_setup"));
    probe.ktls = Ability::Untried(refused("connect"));
    probe.nofile = None;
    let config = config(&[("a", Engine::Splice), ("longer", Engine::Copy)]);
    let text = report(&probe, Some(&config), false);
    for line in [
        "seccomp             a filter is active",
        "splice, TCP         no: splice: EPERM: Operation not permitted (a hint)",
        "pipe                8 KiB, degraded: this user's pipe pages are used up",
        "io_uring            no: io_uring_setup: EPERM: Operation not permitted (a hint)",
        "  operations        accept connect recv send close cancel; lacking: shutdown",
        "kTLS                not tried: connect: EPERM: Operation not permitted (a hint)",
        "nofile              unknown",
        "  a       copy     asked for splice: splice is refused: \
         splice: EPERM: Operation not permitted (a hint)",
        "  longer  copy     asked for copy: configured",
        "  epoll    asked for auto: as fast as io_uring or faster (kernel-notes/0002)",
    ] {
        assert!(text.lines().any(|found| found == line), "{line:?} is not a line of\n{text}");
    }
    assert!(text.contains("soft unknown, hard none"), "{text}");
}

#[test]
fn a_route_that_may_not_fall_back_is_refused() {
    let mut probe = all_works();
    probe.splice.unix = Ability::No(refused("splice"));
    let mut config = config(&[("lab", Engine::Splice)]);
    config.gateway.no_fallback = true;
    config.gateway.runtime = Runtime::Epoll;
    let text = report(&probe, Some(&config), false);
    assert!(text.contains("  lab  refused  asked for splice: "), "{text}");
    assert!(text.contains("  epoll    asked for epoll: configured\n"), "{text}");
}

#[test]
fn json_holds_the_findings_and_the_choices_in_one_object() {
    let mut probe = all_works();
    probe.splice.tcp = Ability::No(refused("splice"));
    let config = config(&[("chat", Engine::Auto)]);
    let text = report(&probe, Some(&config), true);
    let object: serde_json::Value = serde_json::from_str(&text).expect("the report is JSON");
    for (pointer, value) in [
        ("/host/kernel", "6.12.1".into()),
        ("/splice/tcp/ability", "no".into()),
        ("/splice/tcp/call", "splice".into()),
        ("/splice/tcp/errno", "EPERM".into()),
        ("/splice/unix/ability", "yes".into()),
        ("/pipes/budget_pages", 8192.into()),
        ("/io_uring/operations/recv", true.into()),
        ("/nofile/soft", 1024.into()),
        ("/routes/0/name", "chat".into()),
        ("/routes/0/engine", "copy".into()),
        ("/worker/runtime", serde_json::Value::from("epoll")),
    ] {
        assert_eq!(object.pointer(pointer), Some(&value), "{pointer} in {text}");
    }
}

#[test]
fn without_a_configuration_the_engine_of_any_route_is_told() {
    let text = report(&all_works(), None, false);
    assert!(text.contains("\nroutes:\n  (any)  auto     asked for auto: splice works"), "{text}");
}

/// A configuration with these routes and nothing unusual.
fn config(routes: &[(&str, Engine)]) -> Config {
    let route = |&(name, engine): &(&str, Engine)| {
        let target = EndpointTarget::Unix("/nowhere".into());
        let nowhere = Endpoint::new("unix:/nowhere", target);
        Route { engine, ..Route::new(name, vec![nowhere]) }
    };
    Config {
        gateway: Gateway { workers: 1, ..Gateway::default() },
        listeners: vec![Listener { address: Listen::Unix("/nowhere".into()) }],
        routes: routes.iter().map(route).collect(),
        demo: false,
        file: None,
    }
}
