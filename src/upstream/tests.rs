use super::view::EndpointState;
use super::*;
use crate::config::upstreams::{Ejection as EjectionRules, HashBy, Health};
use crate::config::{Endpoint as Entry, Route};

const NOW: Duration = Duration::from_secs(1);

fn entry(text: &str, addresses: &[&str]) -> Entry {
    let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
    Entry::new(text, EndpointTarget::Tcp(addresses))
}

fn upstream(to: Vec<Entry>, balance: Balance) -> Upstream {
    let ejection = EjectionRules { after: Some(1), ..EjectionRules::default() };
    let mut route = Route::new("r", to);
    route.upstreams = Arc::new(UpstreamRules { balance, ejection, ..UpstreamRules::default() });
    Upstream::new(&route, &[], None)
}

fn three(balance: Balance) -> Upstream {
    let to = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|text| entry(text, &[text]));
    upstream(to.into(), balance)
}

fn texts(held: &[Held]) -> Vec<&str> {
    held.iter().map(|held| held.endpoint().text()).collect()
}

#[test]
fn sessions_go_where_the_fewest_are_whatever_came_before() {
    let upstream = three(Balance::LeastSessions);
    let choose = || upstream.choose(None, &[], NOW).unwrap();
    let mut held: Vec<Held> = (0..9).map(|_| choose()).collect();
    assert_eq!(upstream.endpoints().map_sessions(), [3, 3, 3]);
    held.retain(|held| held.endpoint().text() != "10.0.0.2:1");
    assert_eq!(upstream.endpoints().map_sessions(), [3, 0, 3]);
    let new: Vec<Held> = (0..3).map(|_| choose()).collect();
    assert_eq!(texts(&new), ["10.0.0.2:1"; 3]);
}

#[test]
fn a_name_that_drains_brings_no_endpoint_that_does_not() {
    let (before, after) = (["10.0.0.1:1"], ["10.0.0.1:1", "10.0.0.2:1"]);
    for (called, wanted) in [("app.test:1", [true, true]), ("10.0.0.1:1", [true, false])] {
        let upstream = upstream(vec![entry("app.test:1", &before)], Balance::LeastSessions);
        upstream.endpoints()[0].set_drained(called, true);
        upstream.lead_to(&[entry("app.test:1", &after)]);
        let all = upstream.endpoints();
        assert_eq!([all[0].is_drained(), all[1].is_drained()], wanted, "{called}");
        assert_eq!(upstream.choose(None, &[], NOW).is_none(), wanted[1], "{called}");
        assert!(upstream.is_drained());
        // What is known of the first is enough to undo it for all.
        all[0].set_drained(called, false);
        assert!(!all.iter().any(|endpoint| endpoint.is_drained()), "{called}");
        assert!(upstream.choose(None, &[], NOW).is_some(), "{called}");
    }
}

#[test]
fn what_checks_have_found_holds_for_as_long_as_there_are_checks() {
    let to = ["10.0.0.1:1", "10.0.0.2:1"].map(|text| entry(text, &[text]));
    let mut route = Route::new("r", to.into());
    let rules = |health| Arc::new(UpstreamRules { health, ..UpstreamRules::default() });
    route.upstreams = rules(Some(Health::default()));
    let checked = Upstream::new(&route, &[], None);
    let fails = || checked.endpoints()[0].checked(false, 1, 1);
    assert!(fails());
    let first_two = |upstream: &Upstream| -> Vec<String> {
        let held: Vec<Held> = (0..2).map(|_| upstream.choose(None, &[], NOW).unwrap()).collect();
        let mut texts: Vec<String> = texts(&held).into_iter().map(str::to_owned).collect();
        texts.sort();
        texts
    };
    assert_eq!(first_two(&checked), ["10.0.0.2:1"; 2]);
    assert_eq!(checked.view(NOW).endpoints[0].state, EndpointState::Unhealthy);
    // A reload takes the checks away, and the route goes on with the endpoints that it has.
    route.upstreams = rules(None);
    let known = checked.members.load();
    let unchecked = Upstream::new(&route, &known.all, None);
    assert!(Arc::ptr_eq(&unchecked.endpoints()[0], &checked.endpoints()[0]));
    assert_eq!(first_two(&unchecked), ["10.0.0.1:1", "10.0.0.2:1"]);
    assert_eq!(unchecked.view(NOW).endpoints[0].state, EndpointState::Healthy);
}

#[test]
fn an_ejected_endpoint_is_the_last_resort_and_then_tried_by_one() {
    let upstream = three(Balance::LeastSessions);
    let all = upstream.endpoints();
    upstream.failed(&all[0], Failure::Connect, NOW);
    let held: Vec<Held> = (0..4).map(|_| upstream.choose(None, &[], NOW).unwrap()).collect();
    assert_eq!(all.map_sessions(), [0, 2, 2]);
    let last = upstream.choose(None, &all[1..], NOW).expect("better one that failed than none");
    assert_eq!(last.endpoint().text(), "10.0.0.1:1");
    assert_eq!(upstream.view(NOW).last_resorts, 1);
    assert!(upstream.choose(None, &all, NOW).is_none(), "each was tried");
    drop((last, held));

    let later = NOW + 2 * EjectionRules::default().first;
    let held: Vec<Held> = (0..6).map(|_| upstream.choose(None, &[], later).unwrap()).collect();
    assert_eq!(all[0].sessions(), 1, "one tries it: {:?}", texts(&held));
    upstream.connected(&all[0]);
    let more = upstream.choose(None, &[], later).unwrap();
    assert_eq!(more.endpoint().text(), "10.0.0.1:1", "it is back, and has the fewest");
}

#[test]
fn keys_stay_where_they_are_when_another_endpoint_fails_and_return_with_it() {
    let upstream = three(Balance::Hash(HashBy::Client));
    let at = |key: u64| upstream.choose(Some(key), &[], NOW).unwrap().endpoint().text().to_owned();
    let keys: Vec<u64> = (0..300).map(|key: u64| hash::of(&[&key.to_be_bytes()])).collect();
    let before: Vec<String> = keys.iter().map(|&key| at(key)).collect();
    let failed = &upstream.endpoints()[1];
    upstream.failed(failed, Failure::Connect, NOW);
    let moved = keys.iter().zip(&before).filter(|(key, before)| at(**key) != **before);
    let lost = before.iter().filter(|text| **text == *failed.text).count();
    assert_eq!(moved.count(), lost);
    assert!((60..140).contains(&lost), "{lost} of 300 keys were its own");
    upstream.connected(failed);
    assert!(keys.iter().zip(&before).all(|(key, before)| at(*key) == *before));
}

#[test]
fn weights_decide_how_often_it_is_whose_turn() {
    let entry = |text: &str, weight| Entry { weight, ..entry(text, &[text]) };
    let upstream =
        upstream(vec![entry("10.0.0.1:1", 3), entry("10.0.0.2:1", 1)], Balance::RoundRobin);
    let chosen: Vec<Held> = (0..40).map(|_| upstream.choose(None, &[], NOW).unwrap()).collect();
    assert_eq!(upstream.endpoints().map_sessions(), [30, 10]);
    drop(chosen);
}

#[test]
fn a_name_that_leads_elsewhere_leaves_sessions_alone_and_gets_them_back() {
    let name = |addresses: &[&str]| vec![entry("app.test:1", addresses)];
    let upstream = upstream(name(&["10.0.0.1:1", "10.0.0.2:1"]), Balance::LeastSessions);
    let old = upstream.endpoints();
    let held = upstream.choose(None, &[], NOW).unwrap();
    assert!(Arc::ptr_eq(held.endpoint(), &old[0]));
    upstream.lead_to(&name(&["10.0.0.3:1"]));
    assert_eq!(upstream.endpoints().map_sessions(), [0, 1], "who has sessions is still seen");
    let new = upstream.choose(None, &[], NOW).unwrap();
    assert_eq!(new.endpoint().address().to_string(), "10.0.0.3:1");
    assert!(upstream.choose(None, &[Arc::clone(new.endpoint())], NOW).is_none());
    upstream.lead_to(&name(&["10.0.0.1:1", "10.0.0.3:1"]));
    assert!(Arc::ptr_eq(&upstream.endpoints()[0], &old[0]), "it is the same again");
    assert_eq!(upstream.endpoints().map_sessions(), [1, 1]);
    upstream.lead_to(&name(&["10.0.0.3:1"]));
    assert!(!upstream.has_spent_endpoints());
    drop(held);
    assert!(upstream.has_spent_endpoints());
    upstream.lead_to(&name(&["10.0.0.3:1"]));
    assert_eq!(upstream.endpoints().len(), 1);
}

#[test]
fn local_addresses_take_turns_and_fit_the_family() {
    let mut route = Route::new("r", vec![]);
    let sources = ["10.0.0.7", "::7", "10.0.0.8"].map(|text| text.parse().unwrap());
    let rules = UpstreamRules { sources: sources.into(), ..UpstreamRules::default() };
    route.upstreams = Arc::new(rules);
    let upstream = Upstream::new(&route, &[], None);
    let of = |to: &str| -> Vec<String> {
        upstream.sources(to.parse().unwrap()).map(|source| source.to_string()).collect()
    };
    assert_eq!(of("10.0.0.1:1"), ["10.0.0.7", "10.0.0.8"]);
    assert_eq!(of("10.0.0.1:1"), ["10.0.0.8", "10.0.0.7"]);
    assert_eq!(of("[::1]:1"), ["::7"]);
}

/// Live sessions, in the order of the endpoints.
trait MapSessions {
    fn map_sessions(&self) -> Vec<usize>;
}

impl MapSessions for Vec<Arc<Endpoint>> {
    fn map_sessions(&self) -> Vec<usize> {
        self.iter().map(|endpoint| endpoint.sessions()).collect()
    }
}
