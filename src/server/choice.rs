//! What the configuration asks for against what the probe found: one engine per route, one runtime
//! per worker.
//!
//! Policy only: nothing is tried here, and the same answer is given to the report and to the
//! workers.

use crate::config::{Engine, Runtime};
use crate::sys::probe::{Ability, Probe};

/// What is taken, and the reason in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice<T> {
    /// An engine is `Auto` where copy and splice both work, and the traffic of each direction decides. A runtime
    /// never is. `None`: what was asked for is not to be had and nothing else may be taken.
    pub taken: Option<T>,
    /// One sentence without a full stop.
    pub why: String,
}

/// The engine a route's sessions start with.
///
/// Degraded pipes do not change it: they pass as other pipes are closed, so each session finds out
/// for itself.
pub fn engine_for(probe: &Probe, asked: Engine, no_fallback: bool) -> Choice<Engine> {
    let obstacle = match (probe.splice_works(), &probe.pipes.create) {
        (Err(why), _) | (Ok(()), Ability::No(why) | Ability::Untried(why)) => Some(why),
        (Ok(()), Ability::Yes) => None,
    };
    match (asked, obstacle) {
        (Engine::Copy, _) => choose(Engine::Copy, "configured"),
        (Engine::Uring, _) => ring_for(probe, no_fallback),
        (asked, None) if probe.pipes.degraded => choose(
            asked,
            "splice works, but the user's pipe pages are used up at present: \
             sessions go by copy until some are free",
        ),
        (Engine::Auto, None) => choose(
            Engine::Auto,
            "splice works: what comes in small pieces is copied, the rest spliced",
        ),
        (_, None) => choose(Engine::Splice, "splice works"),
        (Engine::Splice, Some(why)) if no_fallback => {
            Choice { taken: None, why: format!("splice is refused and no fallback allowed: {why}") }
        }
        (_, Some(why)) => choose(Engine::Copy, format!("splice is refused: {why}")),
    }
}

/// The ring is only taken where it is asked for: it is for many small messages (kernel-notes/0012).
fn ring_for(probe: &Probe, no_fallback: bool) -> Choice<Engine> {
    match probe.ring_engine_works() {
        Ok(()) => choose(Engine::Uring, "io_uring works"),
        Err(why) if no_fallback => Choice {
            taken: None,
            why: format!("io_uring is refused and no fallback allowed: {why}"),
        },
        Err(why) => choose(Engine::Copy, format!("io_uring is refused: {why}")),
    }
}

/// The runtime a worker runs in. `auto` is plain tokio: a ring gains nothing beyond the spread between runs
/// (kernel-notes/0002).
pub fn runtime_for(probe: &Probe, asked: Runtime) -> Choice<Runtime> {
    match (asked, probe.uring_works()) {
        (Runtime::Epoll, _) => choose(Runtime::Epoll, "configured"),
        (Runtime::Auto, _) => {
            choose(Runtime::Epoll, "as fast as io_uring or faster (kernel-notes/0002)")
        }
        (Runtime::Uring, Ok(())) => choose(Runtime::Uring, "io_uring works"),
        (Runtime::Uring, Err(why)) => {
            Choice { taken: None, why: format!("io_uring is configured but refused: {why}") }
        }
    }
}

/// The engine in the words of the configuration file.
pub fn engine_word(engine: Engine) -> &'static str {
    match engine {
        Engine::Auto => "auto",
        Engine::Splice => "splice",
        Engine::Copy => "copy",
        Engine::Uring => "uring",
    }
}

/// The runtime in the words of the configuration file.
pub fn runtime_word(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Auto => "auto",
        Runtime::Uring => "uring",
        Runtime::Epoll => "epoll",
    }
}

fn choose<T>(taken: T, why: impl Into<String>) -> Choice<T> {
    Choice { taken: Some(taken), why: why.into() }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::probe::{Host, Limit, Operations, Pipes, Splice, Uring, Why};

    /// A probe of a host where everything works.
    pub(in crate::server) fn all_works() -> Probe {
        Probe {
            host: Host {
                kernel: "6.12.1".into(),
                arch: "x86_64".into(),
                seccomp_mode: Some(0),
                cap_sys_resource: Some(false),
                cap_sys_admin: Some(false),
                io_uring_disabled: Some(0),
            },
            splice: Splice { tcp: Ability::Yes, unix: Ability::Yes },
            pipes: Pipes {
                create: Ability::Yes,
                fresh_bytes: Some(64 << 10),
                degraded: false,
                grow: Ability::Yes,
                above_max: false,
                max_bytes: Some(1 << 20),
                user_pages_soft: Some(16_384),
                user_pages_hard: Some(0),
                page_bytes: 4096,
                budget_pages: 8_192,
            },
            io_uring: Uring {
                ring: Ability::Yes,
                register_probe: Ability::Yes,
                operations: Operations {
                    accept: true,
                    connect: true,
                    recv: true,
                    send: true,
                    shutdown: true,
                    close: true,
                    cancel: true,
                },
                provided_buffers: Ability::Yes,
                multishot_accept: Ability::Yes,
                multishot_recv: Ability::Yes,
            },
            ktls: Ability::Yes,
            reuseport: Ability::Yes,
            user_timeout: Ability::Yes,
            nofile: Some(Limit { soft: 1024, hard: 4096 }),
            sandbox: None,
        }
    }

    /// A refusal of `call`.
    pub(in crate::server) fn refused(call: &'static str) -> Why {
        Why {
            call,
            errno: Some("EPERM".into()),
            message: "Operation not permitted".into(),
            hint: "a hint".into(),
        }
    }

    #[test]
    fn an_engine_is_chosen_by_what_is_asked_and_what_works() {
        let works = all_works();
        let mut no_splice = works.clone();
        no_splice.splice.tcp = Ability::No(refused("splice"));
        let mut no_pipe = works.clone();
        no_pipe.pipes.create = Ability::No(refused("pipe2"));
        let mut no_loopback = works.clone();
        no_loopback.splice.tcp = Ability::Untried(refused("connect"));
        let mut no_ring = works.clone();
        no_ring.io_uring.ring = Ability::No(refused("io_uring_setup"));
        let mut no_multishot = works.clone();
        no_multishot.io_uring.multishot_recv = Ability::No(refused("io_uring_enter"));
        let (splice, copy) = (Some(Engine::Splice), Some(Engine::Copy));
        let uring = Some(Engine::Uring);
        for (name, probe, asked, no_fallback, taken) in [
            ("all works", &works, Engine::Auto, false, Some(Engine::Auto)),
            ("all works", &works, Engine::Splice, true, splice),
            ("all works", &works, Engine::Copy, true, copy),
            ("no splice", &no_splice, Engine::Auto, true, copy),
            ("no splice", &no_splice, Engine::Splice, false, copy),
            ("no splice", &no_splice, Engine::Splice, true, None),
            ("no pipe", &no_pipe, Engine::Auto, false, copy),
            ("no pipe", &no_pipe, Engine::Splice, true, None),
            ("no loopback", &no_loopback, Engine::Splice, true, splice),
            ("all works", &works, Engine::Uring, true, uring),
            ("no splice", &no_splice, Engine::Uring, true, uring),
            ("no ring", &no_ring, Engine::Uring, false, copy),
            ("no ring", &no_ring, Engine::Uring, true, None),
            ("no ring", &no_ring, Engine::Auto, false, Some(Engine::Auto)),
            ("no multishot", &no_multishot, Engine::Uring, false, copy),
            ("no multishot", &no_multishot, Engine::Uring, true, None),
        ] {
            let choice = engine_for(probe, asked, no_fallback);
            assert_eq!(choice.taken, taken, "{name}, {asked:?}, no fallback {no_fallback}");
        }
    }

    #[test]
    fn a_refused_engine_says_which_call_was_refused() {
        let mut probe = all_works();
        probe.splice.unix = Ability::No(refused("splice"));
        let why = engine_for(&probe, Engine::Auto, false).why;
        assert!(why.contains("splice: EPERM") && why.contains("a hint"), "{why}");
    }

    #[test]
    fn degraded_pipes_leave_the_engine_and_are_named() {
        let mut probe = all_works();
        probe.pipes.degraded = true;
        let choice = engine_for(&probe, Engine::Splice, false);
        assert_eq!(choice.taken, Some(Engine::Splice));
        assert!(choice.why.contains("used up"), "{}", choice.why);
    }

    #[test]
    fn a_runtime_is_chosen_by_what_is_asked_and_what_works() {
        let works = all_works();
        let mut refuses = works.clone();
        refuses.io_uring.ring = Ability::No(refused("io_uring_setup"));
        let (uring, epoll) = (Some(Runtime::Uring), Some(Runtime::Epoll));
        for (probe, asked, taken) in [
            (&works, Runtime::Auto, epoll),
            (&works, Runtime::Uring, uring),
            (&works, Runtime::Epoll, epoll),
            (&refuses, Runtime::Auto, epoll),
            (&refuses, Runtime::Uring, None),
            (&refuses, Runtime::Epoll, epoll),
        ] {
            assert_eq!(runtime_for(probe, asked).taken, taken, "{asked:?}");
        }
    }
}
