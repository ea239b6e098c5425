use super::*;
use crate::config::admission::ClientLimits;

const CROWD: Crowd = Crowd { sessions_max: None, handshakes: None };

fn limit(kind: &Kind) -> Limit {
    match kind {
        Kind::Limited { limit, retry_after } => {
            assert!((1..=RETRY_SECONDS_MAX).contains(retry_after), "{kind:?}");
            *limit
        }
        other => panic!("{other:?}"),
    }
}

fn client(last: u8, limits: &Admission) -> Option<Client> {
    Some(Client::of([192, 0, 2, last].into(), &limits.client))
}

#[test]
fn each_place_goes_back_when_the_pass_is_dropped_also_by_a_panic() {
    let limiter = Arc::new(Limiter::default());
    let mut limits = Admission { exchanges_max: Some(1), ..Admission::default() };
    limits.client.crowd.sessions_max = Some(1);
    let mut pass = limiter.enter(client(1, &limits), &limits).expect("there is room");
    assert_eq!(limit(&limiter.enter(client(2, &limits), &limits).unwrap_err()), Limit::Exchanges);
    pass.admit(client(1, &limits), ("chat", &CROWD), &limits).expect("there is room");
    pass.end_exchange();
    assert_eq!((limiter.exchanges(), limiter.sessions(), limiter.sessions_of("chat")), (0, 1, 1));
    assert_eq!(limiter.clients(), 1);
    let panicked = std::thread::spawn(move || {
        let _pass = pass;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert_eq!((limiter.exchanges(), limiter.sessions(), limiter.sessions_of("chat")), (0, 0, 0));
    assert_eq!(limiter.clients(), 0);
}

#[test]
fn what_is_refused_in_the_middle_gives_back_what_it_had_by_then() {
    let limiter = Arc::new(Limiter::default());
    let one = Crowd { sessions_max: Some(1), handshakes: None };
    let mut limits = Admission::default();
    limits.client = ClientLimits { crowd: one, ..limits.client };
    let enter = |last| limiter.enter(client(last, &limits), &limits).expect("there is room");
    let mut first = enter(1);
    first.admit(client(1, &limits), ("chat", &one), &limits).expect("there is room");
    let mut second = enter(2);
    let refused = second.admit(client(2, &limits), ("chat", &one), &limits).unwrap_err();
    assert_eq!(limit(&refused), Limit::RouteSessions);
    drop(second);
    assert_eq!(limiter.clients(), 1);
    let mut third = enter(1);
    let refused = third.admit(client(1, &limits), ("chat", &one), &limits).unwrap_err();
    assert_eq!(limit(&refused), Limit::ClientSessions, "the client comes first");
    drop((first, third));
    assert_eq!((limiter.clients(), limiter.sessions_of("chat")), (0, 0));
}

#[test]
fn a_handshake_that_all_are_too_many_for_costs_its_route_none() {
    // Its start is to come: for it no time passes, however slow the test is.
    let started = Instant::now() + Duration::from_secs(3600);
    let limiter = Arc::new(Limiter { started, ..Limiter::default() });
    let of = |per_second, burst| Crowd {
        sessions_max: None,
        handshakes: Some(Pace { per_second, burst }),
    };
    let (route, other) = (of(1, 2), of(1, 100));
    let limits = Admission { all: of(1, 3), ..Admission::default() };
    let free = Admission::default();
    let admit = |route: (&str, &Crowd), limits: &Admission| {
        let mut pass = limiter.enter(None, limits).expect("no limit");
        pass.admit(None, route, limits).map_err(|kind| limit(&kind))
    };
    for _ in 0..3 {
        assert_eq!(admit(("other", &other), &limits), Ok(()));
    }
    for _ in 0..5 {
        assert_eq!(admit(("chat", &route), &limits), Err(Limit::Handshakes));
    }
    for answer in [Ok(()), Ok(()), Err(Limit::RouteHandshakes)] {
        assert_eq!(admit(("chat", &route), &free), answer);
    }
}

#[test]
fn a_client_that_a_proxy_names_counts_from_then_on() {
    let limiter = Arc::new(Limiter::default());
    let mut limits = Admission::default();
    limits.client.exchanges_max = Some(1);
    let mut first = limiter.enter(None, &limits).expect("nobody knows whose it is");
    let mut second = limiter.enter(None, &limits).expect("nobody knows whose it is");
    first.admit(client(1, &limits), ("chat", &CROWD), &limits).expect("there is room");
    let refused = second.admit(client(1, &limits), ("chat", &CROWD), &limits).unwrap_err();
    assert_eq!(limit(&refused), Limit::ClientExchanges);
    first.end_exchange();
    second.admit(client(1, &limits), ("chat", &CROWD), &limits).expect("there is room again");
}

#[test]
fn no_more_than_so_many_get_in_however_many_threads_ask() {
    const MAX: u32 = 100;
    let limiter = Arc::new(Limiter::default());
    let crowd = Crowd { sessions_max: Some(MAX), handshakes: None };
    let limits = Admission { all: crowd, ..Admission::default() };
    let all = std::thread::scope(|scope| {
        let ask = || {
            let enter = || {
                let mut pass = limiter.enter(None, &limits).expect("no limit");
                pass.admit(None, ("chat", &CROWD), &limits).map(|()| pass).ok()
            };
            (0..MAX).filter_map(|_| enter()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect::<Vec<_>>()
    });
    assert_eq!((all.len(), limiter.sessions()), (MAX as usize, MAX));
    drop(all);
    assert_eq!((limiter.sessions(), limiter.sessions_of("chat")), (0, 0));
}
