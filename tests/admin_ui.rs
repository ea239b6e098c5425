//! The page of the admin API, and whom the API hears from a browser.

mod support;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use support::Gw;
use support::admin::{Api, unix};
use support::process::config_to;

fn gw(line: &str) -> Gw {
    Gw::from_toml(&config_to("127.0.0.1:9".parse().expect("an address"), line, ""))
}

/// Over TCP, with a token; the folder holds its file.
fn over_tcp() -> (Gw, Api, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "a-token-that-nobody-guesses").expect("written");
    std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("it is ours");
    let line = format!("admin = \"127.0.0.1:0\"\nadmin_token_file = \"{}\"", file.display());
    let gw = gw(&line);
    let api = Api::of(&gw.gateway);
    (gw, api, folder)
}

#[test]
fn the_page_needs_no_token_and_what_it_asks_does() {
    let (gw, mut api, _folder) = over_tcp();
    let page = api.ask("GET", "/ui");
    assert_eq!(page.status, 200, "{}", page.head);
    assert!(page.body.starts_with("<!doctype html>"));
    for field in [
        "content-type: text/html; charset=utf-8",
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
        "cache-control: no-store",
    ] {
        assert!(page.head.contains(field), "no {field:?} in {}", page.head);
    }
    assert!(!page.head.contains("unsafe"), "{}", page.head);
    assert_eq!(api.ask("HEAD", "/ui").body, "");
    assert_eq!(api.ask("GET", "/ui/").body, page.body);
    assert_eq!(api.ask("POST", "/ui/").status, 405);
    assert_eq!(api.ask("POST", "/ui").status, 405);
    for (method, target) in [("GET", "/v1/sessions"), ("POST", "/v1/drain"), ("GET", "/metrics")] {
        assert_eq!(api.ask(method, target).status, 401, "{method} {target}");
    }
    let foreign = "POST /v1/drain?stop=false HTTP/1.1\r\nHost: gateway\r\nOrigin: http://evil.test\r\nConnection: close\r\n\r\n";
    assert_eq!(api.send(foreign).status, 401);
    api.token = Some("a-token-that-nobody-guesses".into());
    assert_eq!(api.ask("GET", "/v1/sessions").status, 200);
    gw.stop();
}

#[test]
fn a_page_of_another_site_cannot_steer_what_asks_for_no_token() {
    let (line, api) = unix();
    let gw = gw(&line);
    let ask = |method: &str, target: &str, fields: &str| {
        let head = format!("{method} {target} HTTP/1.1\r\n{fields}Connection: close\r\n\r\n");
        api.send(&head).status
    };
    let own =
        "Host: localhost:9090\r\nOrigin: http://localhost:9090\r\nSec-Fetch-Site: same-origin\r\n";
    let other =
        "Host: localhost:9090\r\nOrigin: http://evil.test\r\nSec-Fetch-Site: cross-site\r\n";
    let renamed = "Host: evil.test\r\nOrigin: http://evil.test\r\nSec-Fetch-Site: same-origin\r\n";
    for foreign in [other, renamed] {
        assert_eq!(ask("POST", "/v1/drain?stop=false", foreign), 403);
        assert_eq!(ask("DELETE", "/v1/sessions?route=test", foreign), 403);
        assert_eq!(ask("GET", "/v1/sessions", foreign), 403);
        // It says nothing that such a page could read.
        assert_eq!(ask("GET", "/ui", foreign), 200);
    }
    assert_eq!(api.get("/v1/drain")["drains"], serde_json::json!([]), "nothing was begun");
    assert_eq!(ask("GET", "/v1/sessions", own), 200);
    assert_eq!(ask("POST", "/v1/drain?stop=false", own), 202);
    assert_eq!(ask("DELETE", "/v1/drain", own), 200);
    gw.stop();
}
