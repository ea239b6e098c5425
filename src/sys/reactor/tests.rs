use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::time::{Duration, Instant};

use super::*;

fn collect(reactor: &Reactor) -> Vec<usize> {
    let mut woken = Vec::new();
    reactor.collect(|key| woken.push(key));
    woken
}

#[test]
fn an_event_names_the_session_that_owns_the_socket_and_leaves_its_readiness() {
    let reactor = Reactor::new().expect("an epoll instance");
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let place = reactor.add(ours.as_fd()).expect("room in epoll");
    reactor.wake_session(place, 7);
    assert_eq!(collect(&reactor), [7], "a new socket can be written to");
    assert!(!reactor.ready(place).has(Ready::READABLE));
    assert_eq!(collect(&reactor), [0; 0], "an edge is told once");
    theirs.write_all(b"x").expect("it is open");
    assert_eq!(collect(&reactor), [7]);
    assert!(reactor.ready(place).has(Ready::READABLE));
    reactor.clear(place, Ready::READABLE);
    assert!(!reactor.ready(place).has(Ready::READABLE));
    drop(theirs);
    assert_eq!(collect(&reactor), [7]);
    assert!(reactor.ready(place).has(Ready::READ_CLOSED));
    assert!(reactor.ready(place).has(Ready::WRITE_CLOSED));
}

#[test]
fn a_socket_that_was_removed_is_not_told_of_and_can_be_added_again() {
    let reactor = Reactor::new().expect("an epoll instance");
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let place = reactor.add(ours.as_fd()).expect("room in epoll");
    reactor.wake_session(place, 1);
    reactor.remove(place, ours.as_fd());
    assert!(reactor.is_empty());
    theirs.write_all(b"x").expect("it is open");
    assert_eq!(collect(&reactor), [0; 0]);
    let place = reactor.add(ours.as_fd()).expect("room in epoll");
    reactor.wake_session(place, 2);
    assert_eq!(collect(&reactor), [2]);
    assert!(
        reactor.ready(place).has(Ready::READABLE),
        "what came before is an event of the new place"
    );
}

#[test]
fn a_late_event_of_a_closed_socket_is_not_taken_for_one_of_its_successor() {
    let reactor = Reactor::new().expect("an epoll instance");
    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let second_descriptor = ours.try_clone().expect("a descriptor");
    let place = reactor.add(ours.as_fd()).expect("room in epoll");
    reactor.forget(place);
    drop(ours);
    // The kernel still watches the socket, because it has another descriptor.
    let (next, _peer) = UnixStream::pair().expect("a pair");
    let successor = reactor.add(next.as_fd()).expect("room in epoll");
    assert_eq!(successor, place, "the place is used again");
    reactor.wake_session(successor, 9);
    assert_eq!(collect(&reactor), [9], "the successor's own first edge");
    theirs.write_all(b"x").expect("it is open");
    assert_eq!(collect(&reactor), [0; 0]);
    assert!(!reactor.ready(successor).has(Ready::READABLE));
    drop(second_descriptor);
}

fn reactor() -> Rc<Reactor> {
    Rc::new(Reactor::new().expect("descriptors"))
}

#[test]
fn deadlines_come_in_their_order_and_not_before_their_time() {
    let reactor = reactor();
    let begun = Instant::now();
    let at = |ms| begun + Duration::from_millis(ms);
    let later = reactor.sleep_until(at(30));
    reactor.run_alone(async {
        // The later one is set first: the earlier must set the descriptor anew.
        let mut later = pin!(later);
        assert!(poll_fn(|cx| Poll::Ready(later.as_mut().poll(cx))).await.is_pending());
        reactor.sleep_until(at(10)).await;
        assert!(Instant::now() >= at(10));
        assert!(
            poll_fn(|cx| Poll::Ready(later.as_mut().poll(cx))).await.is_pending()
                || Instant::now() >= at(30)
        );
        later.await;
        assert!(Instant::now() >= at(30));
        // One that is past already is due at once.
        reactor.sleep_until(begun).await;
    });
}

#[test]
fn a_timeout_ends_work_that_takes_too_long_and_leaves_no_deadline_behind() {
    let reactor = reactor();
    let soon = Instant::now() + Duration::from_millis(5);
    reactor.run_alone(async {
        assert_eq!(reactor.timeout_at(soon, pin!(std::future::pending::<()>())).await, None);
        assert_eq!(reactor.timeout(Duration::from_secs(3600), pin!(async { 7 })).await, Some(7));
        let never = reactor.sleep_until(soon + Duration::from_secs(3600));
        assert_eq!(reactor.timeout(Duration::from_millis(1), pin!(never)).await, None);
    });
    assert!(reactor.clock.is_empty());
}

#[test]
fn a_doorbell_wakes_a_reactor_that_sleeps_however_often_it_is_rung() {
    let reactor = reactor();
    let doorbell = Doorbell::new().expect("a descriptor");
    doorbell.ring();
    reactor.answer(doorbell.clone()).expect("room in epoll");
    reactor.park();
    assert!(reactor.collect(drop).woke_tasks, "what was rung before is heard");
    for _ in 0..3 {
        let rings = doorbell.clone();
        let ringing = std::thread::spawn(move || rings.ring());
        reactor.park();
        assert_eq!(reactor.collect(drop), Collected { events: 1, woke_tasks: true });
        ringing.join().expect("no panic");
    }
}

#[test]
fn what_a_park_has_taken_is_handed_out_once() {
    let reactor = reactor();
    let (ours, _theirs) = UnixStream::pair().expect("a pair");
    let place = reactor.add(ours.as_fd()).expect("room in epoll");
    reactor.wake_session(place, 3);
    reactor.park();
    reactor.park();
    assert_eq!(collect(&reactor), [3]);
    assert_eq!(collect(&reactor), [0; 0]);
}
