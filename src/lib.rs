//! upsplice: a Linux gateway for long-lived upgraded connections.
//!
//! This page is the architecture. It says where things are, what is true of them, and why; the kernel's side
//! of each decision is in `kernel-notes/`, by number.
//!
//! # In one picture
//!
//! ```text
//!             exchange: parsed, judged, written anew           relay: opaque bytes
//!  downstream ────────► session ────────► upstream    downstream ═► pipe ═► upstream
//!             ◄────────         ◄────────                        ◄═ pipe ◄═
//! ```
//!
//! A session has two lives. First it is HTTP: small, branchy, run once, written for correctness. Then it is
//! a relay: the same two steps a million times, a small state machine over a kernel mechanism. Everything that
//! can be decided without a socket is decided in code that has none; everything that talks to the kernel is
//! in one folder.
//!
//! # The way of a session
//!
//! 1. [`server`] accepts it, in one of the workers: a thread with its own runtime, reactor
//!    ([`sys::reactor`]), listeners (`SO_REUSEPORT`), pipes and sessions. Nothing is shared between workers
//!    but counters that are read, the [`upstream`] endpoints, and how much each has to do ([`session::load`]): a connection is handed to
//!    the one that has the least before anything is read from it, and sessions follow once a second.
//! 2. [`session`] reads the head: [`http::head`] finds its end byte by byte, strictly, then parses it once.
//! 3. [`route`] maps host, path and offered protocols to a route; [`http::upgrade`] judges what is asked,
//!    [`http::origin`] which page asks, [`session::mode`] whether the session is inspected.
//! 4. [`upstream`] chooses an endpoint, which is connected within the `connect` timer; when it cannot be, another.
//! 5. [`http::fields`] writes the head that goes upstream. What was not parsed is never forwarded.
//! 6. The answer is judged: only a 101 of HTTP/1.1, to a protocol that was offered, for WebSocket with the
//!    right `Sec-WebSocket-Accept`, opens a tunnel. Anything else is relayed as an ordinary response, with its
//!    own framing, and both close.
//! 7. The 101 goes downstream with the upstream's head data in the same write; the client's own head data is
//!    what its direction of the relay owes first ([`relay::HeadData`]).
//! 8. [`session::joined`] gives the [`relay::Relay`] a seat in the registry, and a turn whenever its sockets have
//!    events. It has no task of its own, and keeps nothing of the exchange.
//!    In mode `inspect` that relay follows the frames ([`relay::Framed`]): an inspector of [`ws`] says before each fill
//!    what may pass unseen, and judges the rest.
//! 9. The end is a side, a stage and a kind ([`error::End`]): one JSON line, a few counters.
//!
//! # What is where
//!
//! | module | owns | never |
//! | --- | --- | --- |
//! | [`cli`], [`config`] | flags, environment, TOML; all faults at once | opens a listener |
//! | [`route`] | host, path, protocols → route | a socket, a clock |
//! | [`http`] | heads, upgrades, fields, bodies: bytes in, values out | a socket, a clock |
//! | [`ws`] | frames, their rules, compression, limits: bytes in, judgements out | a socket, a clock, a changed byte |
//! | [`session`] | one connection from accept to close, live sessions, timers | splice |
//! | [`upstream`] | endpoints: who gets the next session, health, names | a session |
//! | [`relay`] | bytes between two joined sockets, engines, pipes | HTTP, routes |
//! | [`server`] | listeners, workers, signals, stop, the service manager; the demo | a session's bytes |
//! | [`admin`] | what the operator asks: API, metrics, taps; the client of it | a worker's thread |
//! | [`top`] | a running gateway on the screen of a terminal, asked over its API | a gateway's own state |
//! | [`trace`] | spans: where a session stands in a trace, the way to a collector | a session's bytes, a worker's time |
//! | [`sys`] | system calls, the only `unsafe` | decides anything |
//! | [`error`], [`metrics`] | the words and numbers of ends | use anything above them |
//!
//! `main → cli → config`; `main → top → admin`; `server → admin → session → {http, ws, route, upstream, relay, trace}`; `relay → {ws, sys}`. `tests/tidy.rs` keeps it so.
//!
//! # What is always true
//!
//! - No byte of a client reaches an upstream before a valid 101, but for its head and declared body.
//! - After the join payload does not enter user memory, with engine `splice`: no receive, no send. The
//!   exceptions are counted: a fallback, with its [reason](metrics::Reason), and an urgent byte (`oob`).
//! - With engine `auto` each direction is copied while its fills are small and spliced while they are large
//!   ([`relay::pace`]); it changes only with nothing held. Where a worker finds many small messages at once
//!   their sessions go by its ring (`relay::crowd`), until that is over or they carry more.
//! - With engine `uring` the worker's ring moves the bytes and its sockets are not in the reactor; what a direction
//!   may hold is bounded by its credit ([`relay::Kit`], note 0012). The rest of this list holds for it, too.
//! - An inspected byte passes as it came or not at all, and no part of a control frame, or of what breaks a rule, passes
//!   before the whole was judged. A frame of ours (Close, ping) stands only where a frame ended, and is masked to a server.
//! - With `splice` and `copy` a direction fills only when nothing is held, so an `EAGAIN` has one meaning, bytes cannot overtake each
//!   other, and backpressure is the kernel's window. A drain is exactly as long as the pipe's content.
//! - An end is passed on once, after the last byte; a reset is passed on as a reset. Every byte taken is
//!   given, held or counted as discarded.
//! - An idle session owns no buffer, no pipe and no task: two sockets and less than a kilobyte (note 0004).
//! - A relay can be detached between any two turns, and resumed by another engine, worker or process: all it
//!   is are two descriptors, at most two pipes, and numbers ([`relay::Detached`]).
//! - Timers touch nothing when bytes move, and no clock is read: progress is looked at four times per window
//!   ([`relay::idle`]).
//! - A session whose last turn was long has its next one alone, so that small messages wait for one of them.
//! - A worker sleeps in one place, its reactor: a message costs one epoll_wait(2) however many are ready.
//! - `run` binds its listeners, then becomes its user and gives up what a running gateway does not do, then starts
//!   threads ([`sys::sandbox`]): whatever it does later has to be on the list of calls there, and the files it
//!   opens in the folders that `server::confine` names.
//! - Nothing a peer sends may panic. Nothing on the data path takes a lock or formats text.
//!
//! # Words
//!
//! *downstream* connected to us, *upstream* is what we connect to, whichever way a message flows; *client* and
//! *backend* are the programs of the tests. A *session* is one downstream connection; its *head* is start line
//! and fields, its *head data* what was read beyond a head, its *exchange* the request and response before the
//! 101, its *relay* what comes after. A *direction* is one of the two flows, a [`relay::half::Half`] its state,
//! with *source* and *sink*; to *fill* is socket into pipe, to *drain* pipe into socket. An *engine* is how bytes
//! move, a *mode* what the operator asked for. An *endpoint* is one upstream address of a *route*. *Stop* and
//! *drain deadline* speak of the process.
//!
//! # What it needs
//!
//! Linux; splice(2) between sockets and pipes for engine `splice`, without which it copies and says so; io_uring
//! for `--runtime uring`, engine `uring`, and crowds of small messages. [`sys::probe`] finds out by trying.

pub mod admin;
pub mod cli;
pub mod config;
pub mod error;
pub mod http;
pub mod metrics;
pub mod relay;
pub mod route;
pub mod server;
pub mod session;
#[allow(unsafe_code)]
pub mod sys;
pub mod top;
pub mod trace;
pub mod upstream;
pub mod ws;
