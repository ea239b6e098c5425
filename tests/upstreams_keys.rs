//! The keys of a file that say how a route uses its endpoints.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use upsplice::config::upstreams::{Balance, Ejection, HashBy, Health, OnUnhealthy, UpstreamRules};
use upsplice::config::{Faults, Route, from_toml_with};

fn resolve(_: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok(vec![SocketAddr::from(([192, 0, 2, 1], port)), SocketAddr::from(([192, 0, 2, 2], port))])
}

fn route(keys: &str) -> Result<Route, Faults> {
    let text = format!("[[route]]\nname = \"r\"\n{keys}\n");
    from_toml_with(&text, "t", &resolve).map(|mut config| config.routes.remove(0))
}

fn rules(keys: &str) -> UpstreamRules {
    let route = route(&format!("to = [\"a.test:1\"]\n{keys}")).expect("a good route");
    route.upstreams.as_ref().clone()
}

#[test]
fn endpoints_are_addresses_or_tables_with_a_weight() {
    let route = route(
        "to = [\"10.0.0.1:1\", { address = \"app.test:2\", weight = 7 }, { address = \"unix:/x\" }]",
    );
    let to = route.expect("a good route").to;
    let found: Vec<_> = to.iter().map(|each| (&*each.text, each.weight, each.name())).collect();
    let app = ("app.test:2", 7, Some(("app.test", 2)));
    assert_eq!(found, [("10.0.0.1:1", 1, None), app, ("unix:/x", 1, None)]);
}

#[test]
fn what_is_left_out_has_its_default() {
    assert_eq!(rules(""), UpstreamRules::default());
    assert_eq!(rules("[route.balance]"), UpstreamRules::default());
    assert_eq!(rules("[route.health]").health, Some(Health::default()));
}

#[test]
fn every_key_says_what_it_says() {
    let all = rules(
        "source = [\"10.0.0.2\", \"::2\"]\nresolve_every = \"off\"\n\
         [route.balance]\nby = \"hash\"\nhash = \"header:X-User\"\neject_after = 1\neject_for = 5\n\
         eject_max = \"1m\"\n\
         [route.health]\ninterval = 7\ntimeout = \"1s\"\npath = \"/up\"\nstatus = \"3xx\"\nrise = 4\n\
         fall = 5\non_unhealthy = \"close\"\nclose_over = \"off\"",
    );
    let seconds = Duration::from_secs;
    let wanted = UpstreamRules {
        balance: Balance::Hash(HashBy::Header("x-user".to_owned())),
        ejection: Ejection { after: Some(1), first: seconds(5), longest: seconds(60) },
        health: Some(Health {
            interval: seconds(7),
            timeout: seconds(1),
            path: Some("/up".to_owned()),
            status: (300, 399),
            rise: 4,
            fall: 5,
            on_unhealthy: OnUnhealthy::Close { over: Duration::ZERO },
        }),
        sources: vec!["10.0.0.2".parse().expect("v4"), "::2".parse().expect("v6")],
        resolve_every: None,
    };
    assert_eq!(all, wanted);
    let cookie = rules("[route.balance]\nby = \"hash\"\nhash = \"cookie:SID\"").balance;
    assert_eq!(cookie, Balance::Hash(HashBy::Cookie("SID".to_owned())));
    assert_eq!(rules("balance = { eject_after = \"off\" }").ejection.after, None);
    assert_eq!(rules("balance = { eject_for = \"5m\" }").ejection.longest, seconds(300));
    assert_eq!(rules("health = { path = \"/\", status = 204 }").health.unwrap().status, (204, 204));
}

#[test]
fn a_wrong_key_is_told_with_what_it_should_be() {
    for (keys, wanted) in [
        ("to = []", "to: must not be an empty list"),
        ("to = [7]", "to: must be a string in quotes, or { address"),
        ("to = [{ weight = 2 }]", "to address: is missing"),
        ("to = [{ address = \"a:1\", weight = 0 }]", "to weight: must be a whole number from 1 to"),
        ("to = [{ address = \"a:1\", wieght = 2 }]", "unknown key \"wieght\""),
        ("to = \"a:1\"\nbalance = { by = \"hash\" }", "hash: is missing"),
        ("to = \"a:1\"\nbalance = { hash = \"client\" }", "hash: needs by = \"hash\""),
        ("to = \"a:1\"\nbalance = { by = \"random\" }", "by: must be \"least_sessions\""),
        (
            "to = \"a:1\"\nbalance = { by = \"hash\", hash = \"query:x\" }",
            "hash: must be \"client\"",
        ),
        ("to = \"a:1\"\nbalance = { by = \"hash\", hash = \"header:a b\" }", "hash: must be"),
        (
            "to = \"a:1\"\nbalance = { eject_for = 5, eject_max = 4 }",
            "eject_max: must not be shorter than eject_for",
        ),
        ("to = \"a:1\"\nhealth = { status = 200 }", "status: needs path"),
        ("to = \"a:1\"\nhealth = { path = \"/\", status = \"6xx\" }", "status: must be a status"),
        ("to = \"a:1\"\nhealth = { close_over = 5 }", "close_over: needs on_unhealthy"),
        ("to = \"a:1\"\nhealth = { on_unhealthy = \"drain\" }", "must be \"keep\" or \"close\""),
        ("to = \"a:1\"\nhealth = { rise = 0 }", "rise: must be a whole number"),
        ("to = \"a:1\"\nsource = \"0.0.0.0\"", "source: must be IP addresses of this machine"),
        ("to = \"a:1\"\nresolve_every = \"soon\"", "resolve_every: must be seconds"),
    ] {
        let faults = route(keys).expect_err(keys).to_string();
        assert!(faults.contains(wanted), "{keys}: {faults}");
        assert_eq!(faults.lines().count(), 1, "{keys}: {faults}");
    }
}
