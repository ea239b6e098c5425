//! Which route carries a request: (host, path, upgrade tokens) to a route's index. Pure.
//!
//! A **place** is a host pattern and a path prefix. The most specific place that fits the request decides
//! alone: an exact host before the longest suffix before any host, then the longest path. Only there
//! are the tokens looked at, and a route that names one comes before a route that takes `"any"`. A
//! refused token never falls through to a wider place: whoever limits `/ws` to "websocket" has limited it,
//! whatever `/` would carry.
//!
//! Paths are compared as raw bytes. Whether `%77s` or `a/../ws` may be asked for is the exchange's business.

use std::collections::HashMap;

use crate::config::{HostPattern, Protocols, Route};

/// All routes, arranged for looking up. Built once per configuration.
#[derive(Debug)]
pub struct Routes {
    exact: HashMap<Box<str>, Vec<Place>>,
    /// Keyed with the leading dot, as [`HostPattern::Suffix`] holds it.
    suffix: HashMap<Box<str>, Vec<Place>>,
    any: Vec<Place>,
}

/// What [`Routes::find`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'r> {
    /// The index that it was given.
    Route(usize),
    /// No route has this host and path: 404.
    NoRoute,
    /// Host and path have a route, and none there carries an offered token: 426.
    ProtocolRefused {
        /// The first route of the place, for the log.
        route: usize,
        /// Tokens to name in the 426's `Upgrade`, lower case; never empty.
        allowed: &'r [String],
    },
}

/// A host pattern (by the map it is in) and a path prefix.
#[derive(Debug)]
struct Place {
    path: Box<str>,
    /// Routes of this place in the order of the file.
    routes: Vec<(usize, Protocols)>,
    allowed: Vec<String>,
}

impl Routes {
    /// Arranges `routes`, each with the index to be found by; the configuration has seen to it that no two claim
    /// the same token at one place.
    pub fn new<'r>(routes: impl IntoIterator<Item = (usize, &'r Route)>) -> Routes {
        let mut all = Routes { exact: HashMap::new(), suffix: HashMap::new(), any: Vec::new() };
        for (index, route) in routes {
            let places = match &route.host {
                Some(HostPattern::Exact(host)) => {
                    all.exact.entry(host.as_str().into()).or_default()
                }
                Some(HostPattern::Suffix(host)) => {
                    all.suffix.entry(host.as_str().into()).or_default()
                }
                None => &mut all.any,
            };
            insert(places, index, route);
        }
        let buckets = all.exact.values_mut().chain(all.suffix.values_mut());
        for places in buckets.chain([&mut all.any]) {
            places.sort_by_key(|place| std::cmp::Reverse(place.path.len()));
        }
        all
    }

    /// The route for a request: `host` in lower case without port, `path` without query, `tokens` as offered,
    /// in any case. Does not allocate.
    pub fn find(&self, host: Option<&str>, path: &str, tokens: &[&str]) -> Found<'_> {
        match self.place(host, path) {
            Some(place) => place.choose(tokens),
            None => Found::NoRoute,
        }
    }

    fn place(&self, host: Option<&str>, path: &str) -> Option<&Place> {
        let fits = |places: &'_ Vec<Place>| places.iter().position(|place| place.covers(path));
        if let Some(host) = host {
            if let Some(places) = self.exact.get(host)
                && let Some(at) = fits(places)
            {
                return Some(&places[at]);
            }
            if !self.suffix.is_empty() {
                // From the left, so the longest suffix comes first; the label before it is never empty.
                for (dot, _) in host.match_indices('.').filter(|(dot, _)| *dot > 0) {
                    if let Some(places) = self.suffix.get(&host[dot..])
                        && let Some(at) = fits(places)
                    {
                        return Some(&places[at]);
                    }
                }
            }
        }
        self.any.iter().find(|place| place.covers(path))
    }
}

/// Whether a route with these `protocols` carries `token`.
pub fn allowed(protocols: &Protocols, token: &str) -> bool {
    if names(protocols, token) {
        return true;
    }
    match protocols {
        Protocols::Any { .. } => !needs_naming(token),
        Protocols::Only(_) => false,
    }
}

/// Those of the offered `tokens` a route carries, in the client's order: what may be forwarded.
pub fn filter<'a>(
    protocols: &'a Protocols,
    tokens: &'a [&'a str],
) -> impl Iterator<Item = &'a str> + 'a {
    tokens.iter().copied().filter(move |token| allowed(protocols, token))
}

impl Place {
    fn covers(&self, path: &str) -> bool {
        match path.strip_prefix(&*self.path) {
            Some(rest) => rest.is_empty() || rest.starts_with('/') || self.path.ends_with('/'),
            None => false,
        }
    }

    fn choose(&self, tokens: &[&str]) -> Found<'_> {
        let first = |fits: fn(&Protocols, &str) -> bool| {
            tokens.iter().find_map(|token| {
                self.routes.iter().find(|(_, protocols)| fits(protocols, token)).map(|(at, _)| *at)
            })
        };
        match first(names).or_else(|| first(allowed)) {
            Some(route) => Found::Route(route),
            None => Found::ProtocolRefused { route: self.routes[0].0, allowed: &self.allowed },
        }
    }
}

fn insert(places: &mut Vec<Place>, index: usize, route: &Route) {
    let known = places.iter().position(|place| *place.path == *route.path);
    let place = match known {
        Some(at) => &mut places[at],
        None => {
            let (routes, allowed) = (Vec::new(), Vec::new());
            places.push(Place { path: route.path.as_str().into(), routes, allowed });
            places.last_mut().expect("a place was just pushed")
        }
    };
    place.routes.push((index, route.protocols.clone()));
    let named = match &route.protocols {
        Protocols::Only(tokens) => tokens.clone(),
        // "any" cannot be spelled in an Upgrade field; the token most clients mean can.
        Protocols::Any { also } => [&["websocket".to_owned()], also.as_slice()].concat(),
    };
    for token in named {
        if !place.allowed.contains(&token) {
            place.allowed.push(token);
        }
    }
}

fn names(protocols: &Protocols, token: &str) -> bool {
    let (Protocols::Only(named) | Protocols::Any { also: named }) = protocols;
    named.iter().any(|name| name.eq_ignore_ascii_case(token))
}

/// Protocols that carry a whole HTTP connection past the rules of this one (rule U6): `"any"` leaves them out.
fn needs_naming(token: &str) -> bool {
    let (name, version) = token.split_once('/').unwrap_or((token, ""));
    name.eq_ignore_ascii_case("h2c")
        || name.eq_ignore_ascii_case("tls")
        || (name.eq_ignore_ascii_case("http") && version.starts_with('2'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::{Endpoint, EndpointTarget};

    fn of(routes: &[Route]) -> Routes {
        Routes::new(routes.iter().enumerate())
    }

    fn route(host: &str, path: &str, protocols: &str) -> Route {
        let to = Endpoint::new("unix:/x", EndpointTarget::Unix("/x".into()));
        let mut route = Route::new("r", vec![to]);
        route.host = match host.strip_prefix('*') {
            _ if host.is_empty() => None,
            Some(suffix) => Some(HostPattern::Suffix(suffix.into())),
            None => Some(HostPattern::Exact(host.into())),
        };
        route.path = path.into();
        let mut tokens: Vec<String> = protocols.split(' ').map(str::to_owned).collect();
        let any = tokens.iter().any(|token| token == "any");
        tokens.retain(|token| token != "any");
        route.protocols =
            if any { Protocols::Any { also: tokens } } else { Protocols::Only(tokens) };
        route
    }

    fn routes() -> Routes {
        of(&[
            route("", "/", "any"),                           // 0
            route("", "/ws", "websocket"),                   // 1
            route("", "/ws/deep", "websocket"),              // 2
            route("*.example.com", "/", "websocket"),        // 3
            route("*.chat.example.com", "/", "websocket"),   // 4
            route("a.chat.example.com", "/ws", "websocket"), // 5
            route("both.example.com", "/", "any h2c"),       // 6
            route("both.example.com", "/", "websocket irc"), // 7
            route("both.example.com", "/slash/", "tls/1.0"), // 8
        ])
    }

    #[test]
    fn the_most_specific_place_wins() {
        let routes = routes();
        let cases: &[(Option<&str>, &str, usize)] = &[
            (None, "/", 0),
            (None, "/ws", 1),
            (None, "/ws/", 1),
            (None, "/ws/a", 1),
            (None, "/wsx", 0),
            (None, "/ws/deep", 2),
            (None, "/ws/deep/er", 2),
            (None, "/ws/deeper", 1),
            (Some("other.org"), "/ws", 1),
            (Some("example.com"), "/", 0),
            (Some("x.example.com"), "/ws", 3),
            (Some("x.y.example.com"), "/", 3),
            (Some(".example.com"), "/", 0),
            (Some("xexample.com"), "/", 0),
            (Some("chat.example.com"), "/", 3),
            (Some("b.chat.example.com"), "/", 4),
            (Some("a.chat.example.com"), "/ws/1", 5),
            (Some("a.chat.example.com"), "/other", 4),
            (Some("both.example.com"), "/slash", 7),
        ];
        for (host, path, expected) in cases {
            let found = routes.find(*host, path, &["websocket"]);
            assert_eq!(found, Found::Route(*expected), "{host:?} {path}");
        }
    }

    #[test]
    fn a_route_that_names_the_token_comes_before_any() {
        let routes = routes();
        let find = |tokens: &[&str]| routes.find(Some("both.example.com"), "/", tokens);
        assert_eq!(find(&["WebSocket"]), Found::Route(7));
        assert_eq!(find(&["h2c"]), Found::Route(6));
        assert_eq!(find(&["other"]), Found::Route(6));
        assert_eq!(find(&["other", "IRC"]), Found::Route(7));
        assert_eq!(find(&["tls/1.0", "h2c"]), Found::Route(6));
    }

    #[test]
    fn a_refused_token_does_not_fall_through_to_a_wider_place() {
        let routes = routes();
        let refused = Found::ProtocolRefused { route: 1, allowed: &["websocket".to_owned()] };
        assert_eq!(routes.find(None, "/ws", &["other"]), refused);
        assert_eq!(routes.find(None, "/ws", &[]), refused);
        let Found::ProtocolRefused { route, allowed } =
            routes.find(Some("both.example.com"), "/", &["tls/1.2"])
        else {
            panic!("TLS is not named there");
        };
        assert_eq!((route, allowed.join(" ").as_str()), (6, "websocket h2c irc"));
    }

    #[test]
    fn nothing_fits_without_a_route_for_host_and_path() {
        let routes = of(&[route("a.org", "/ws", "any")]);
        assert_eq!(routes.find(Some("b.org"), "/ws", &["x"]), Found::NoRoute);
        assert_eq!(routes.find(Some("a.org"), "/", &["x"]), Found::NoRoute);
        assert_eq!(routes.find(Some("a.org"), "*", &["x"]), Found::NoRoute);
        assert_eq!(routes.find(Some("a.org"), "", &["x"]), Found::NoRoute);
        assert_eq!(routes.find(None, "/ws", &["x"]), Found::NoRoute);
    }

    #[test]
    fn any_leaves_out_what_has_to_be_named() {
        let any = Protocols::Any { also: vec![] };
        for token in ["h2c", "H2C", "HTTP/2.0", "http/2", "TLS/1.2", "tls/1.0", "TLS"] {
            assert!(!allowed(&any, token), "{token}");
            let also = Protocols::Any { also: vec![token.to_ascii_lowercase()] };
            assert!(allowed(&also, token), "{token} named");
        }
        for token in ["websocket", "WebSocket", "HTTP/3.0", "h2cx", "tlsx", "tcp", "IRC/6.9"] {
            assert!(allowed(&any, token), "{token}");
        }
    }

    #[test]
    fn only_takes_what_it_lists_in_any_case() {
        let only = Protocols::Only(vec!["websocket".into(), "irc/6.9".into()]);
        assert!(allowed(&only, "WEBSOCKET"));
        assert!(allowed(&only, "IRC/6.9"));
        for token in ["IRC", "irc/7", "websocket/13", "websockets", "", "h2c"] {
            assert!(!allowed(&only, token), "{token}");
        }
        let kept: Vec<&str> = filter(&only, &["h2c", "irc/6.9", "WebSocket"]).collect();
        assert_eq!(kept, ["irc/6.9", "WebSocket"]);
    }

    /// The rule of the module's head, said slowly: keep what fits, take the greatest by (host, path), then look
    /// at the tokens.
    fn oracle(all: &[Route], host: Option<&str>, path: &str, tokens: &[&str]) -> Option<usize> {
        let host_rank = |route: &Route| match (&route.host, host) {
            (None, _) => Some(0),
            (Some(HostPattern::Exact(name)), Some(host)) => (name == host).then_some(1000),
            (Some(HostPattern::Suffix(end)), Some(host)) => {
                (host.len() > end.len() && host.ends_with(end.as_str())).then_some(end.len())
            }
            (Some(_), None) => None,
        };
        let below = |prefix: &str| {
            let mut prefix = prefix.to_owned();
            if !prefix.ends_with('/') {
                prefix.push('/');
            }
            prefix
        };
        let rank = |route: &Route| {
            let covered = path == route.path || path.starts_with(&below(&route.path));
            host_rank(route).filter(|_| covered).map(|host| (host, route.path.len()))
        };
        let best = all.iter().filter_map(rank).max()?;
        let there = || all.iter().enumerate().filter(|(_, route)| rank(route) == Some(best));
        let named = tokens.iter().find_map(|token| {
            there().find(|(_, r)| match &r.protocols {
                Protocols::Only(list) | Protocols::Any { also: list } => {
                    list.contains(&token.to_lowercase())
                }
            })
        });
        let open = ["websocket", "tcp"];
        let any = tokens
            .iter()
            .filter(|token| open.contains(token))
            .find_map(|_| there().find(|(_, r)| matches!(r.protocols, Protocols::Any { .. })));
        named.or(any).map(|(at, _)| at)
    }

    proptest! {
        // A failing case is kept as a row of a table above, not as a seed in a file.
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn finds_what_the_plain_rule_finds(
            rows in prop::collection::vec((
                prop::sample::select(vec!["", "a.b.c", "b.c", "*.b.c", "*.c", "*.a.b.c"]),
                prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/ab"]),
                prop::sample::select(vec!["websocket", "any", "any h2c", "tcp websocket", "h2c"]),
            ), 1..16),
            host in prop::option::of(prop::sample::select(
                vec!["a.b.c", "b.c", "c", "x.b.c", "x.a.b.c", "y", "x.y.c"])),
            path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/a/b/c", "/ab", "/abc", "//a"]),
            tokens in prop::collection::vec(
                prop::sample::select(vec!["websocket", "H2C", "tcp", "tls/1.2"]), 0..3),
        ) {
            let all: Vec<Route> = rows.iter().map(|(h, p, t)| route(h, p, t)).collect();
            let routes = of(&all);
            let found = match routes.find(host, path, &tokens) {
                Found::Route(at) => Some(at),
                _ => None,
            };
            prop_assert_eq!(found, oracle(&all, host, path, &tokens));
        }
    }
}
