//! Relays without a worker around them: for programs that join sockets by themselves, and for tests. Nobody keeps the
//! time of a relay here, so one that inspects needs a worker for its rates, its pings and its end.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::{Kit, Relay, Share, Turn};
use crate::error::End;

impl Relay {
    /// Turn after turn, for one that drives a relay and its reactor alone: ready when the relay is over.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let reactor = Rc::clone(&self.kit().reactor);
        loop {
            reactor.collect(drop);
            match self.turn(Share::Alone) {
                Turn::Over(end) => return Poll::Ready(end),
                Turn::Spent => {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // Who drives one relay has no crowd, and no use for another engine.
                Turn::Waiting | Turn::Calls(_) => ready!(reactor.poll_carry(cx)),
            }
        }
    }
}

/// Carries all relays of a kit to their ends; each is given to `ended` with its own.
pub async fn carry(relays: Vec<Relay>, kit: &Kit, mut ended: impl FnMut(Relay, End)) {
    let mut left = relays.len();
    let mut due: Vec<usize> = (0..left).collect();
    let mut relays: Vec<Option<Relay>> = relays.into_iter().map(Some).collect();
    for (key, relay) in relays.iter().enumerate() {
        relay.iter().for_each(|relay| relay.attach(key));
    }
    loop {
        for key in std::mem::take(&mut due) {
            let Some(relay) = &mut relays[key] else { continue };
            match relay.turn(Share::AmongOthers) {
                Turn::Waiting | Turn::Calls(_) => {}
                Turn::Spent => due.push(key),
                Turn::Over(end) => {
                    left -= 1;
                    ended(relays[key].take().expect("it has just had a turn"), end);
                }
            }
        }
        if left == 0 {
            return;
        }
        if due.is_empty() {
            let mut waits = false;
            poll_fn(|cx| match std::mem::replace(&mut waits, true) {
                true => Poll::Ready(()),
                false => kit.reactor.poll_carry(cx),
            })
            .await;
        } else {
            tokio::task::yield_now().await;
        }
        kit.reactor.collect(|key| due.push(key));
    }
}
