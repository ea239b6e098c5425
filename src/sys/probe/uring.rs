//! Whether a ring can be made and what can be done on it.
//!
//! Operations are asked for by `IORING_REGISTER_PROBE`; provided buffers and multishot are flags of
//! operations, which that does not tell, so they are carried out once.
//! <https://man7.org/linux/man-pages/man7/io_uring.7.html>

use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use serde::Serialize;

use super::buffers::{self, Buffers};
use super::why::{Ability, Why};
use super::{Host, WAIT_MAX, loopback};

/// What io_uring allows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Uring {
    /// A ring as `tokio_uring::start` makes it (256 entries), and one operation through it.
    pub ring: Ability,
    /// Whether the kernel would tell which operations it has.
    pub register_probe: Ability,
    /// Operations by name; all false where the kernel would not tell.
    pub operations: Operations,
    /// A ring of provided buffers (5.19).
    pub provided_buffers: Ability,
    /// One accept that stays armed (5.19).
    pub multishot_accept: Ability,
    /// One recv that stays armed and takes provided buffers (6.0).
    pub multishot_recv: Ability,
}

/// Operations a gateway on io_uring would use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Operations {
    /// `IORING_OP_ACCEPT`
    pub accept: bool,
    /// `IORING_OP_CONNECT`
    pub connect: bool,
    /// `IORING_OP_RECV`
    pub recv: bool,
    /// `IORING_OP_SEND`
    pub send: bool,
    /// `IORING_OP_SHUTDOWN`
    pub shutdown: bool,
    /// `IORING_OP_CLOSE`
    pub close: bool,
    /// `IORING_OP_ASYNC_CANCEL`
    pub cancel: bool,
}

impl Operations {
    /// Every operation with its name, in the order of a connection's life.
    pub fn named(&self) -> [(&'static str, bool); 7] {
        [
            ("accept", self.accept),
            ("connect", self.connect),
            ("recv", self.recv),
            ("send", self.send),
            ("shutdown", self.shutdown),
            ("close", self.close),
            ("cancel", self.cancel),
        ]
    }
}

/// Makes a ring and tries everything on it.
pub(super) fn probe(host: &Host) -> Uring {
    match make(host) {
        Ok(ring) => features(ring, host),
        Err(why) => {
            let untried = Ability::Untried(why.clone());
            Uring {
                ring: Ability::No(why),
                register_probe: untried.clone(),
                operations: Operations::default(),
                provided_buffers: untried.clone(),
                multishot_accept: untried.clone(),
                multishot_recv: untried,
            }
        }
    }
}

/// A ring that has carried one operation: io_uring_enter may be refused where io_uring_setup is
/// not.
fn make(host: &Host) -> Result<IoUring, Why> {
    let mut ring =
        IoUring::new(RING_ENTRIES).map_err(|e| Why::refused("io_uring_setup", &e, host))?;
    let nop = opcode::Nop::new().build().user_data(FIRST);
    // SAFETY: a no-op names no descriptor and no memory.
    let pushed = unsafe { ring.submission().push(&nop) };
    pushed.map_err(|_| Why::wrong("io_uring_setup", "the new ring is full"))?;
    // A no-op completes while it is submitted, so this wait needs no bound.
    ring.submit_and_wait(1).map_err(|e| Why::refused(ENTER, &e, host))?;
    match ring.completion().next() {
        Some(done) if done.user_data() == FIRST && done.result() == 0 => Ok(()),
        other => Err(Why::wrong(ENTER, format!("a no-op completed as {other:?}"))),
    }?;
    Ok(ring)
}

fn features(mut ring: IoUring, host: &Host) -> Uring {
    let mut table = io_uring::Probe::new();
    let told = ring.submitter().register_probe(&mut table);
    let has = |code| told.is_ok() && table.is_supported(code);
    let operations = Operations {
        accept: has(opcode::Accept::CODE),
        connect: has(opcode::Connect::CODE),
        recv: has(opcode::Recv::CODE),
        send: has(opcode::Send::CODE),
        shutdown: has(opcode::Shutdown::CODE),
        close: has(opcode::Close::CODE),
        cancel: has(opcode::AsyncCancel::CODE),
    };
    let register_probe =
        Ability::from_attempt(told.map_err(|e| Why::refused("io_uring_register PROBE", &e, host)));
    let (multishot_accept, (provided_buffers, multishot_recv)) =
        match ring.params().is_feature_ext_arg() {
            true => (accept(&mut ring, host), recv(&mut ring, host)),
            false => {
                let why = Why::wrong(ENTER, "waits cannot be bounded: a kernel before 5.11");
                let untried = Ability::Untried(why);
                (untried.clone(), (untried.clone(), untried))
            }
        };
    Uring {
        ring: Ability::Yes,
        register_probe,
        operations,
        provided_buffers,
        multishot_accept,
        multishot_recv,
    }
}

/// One connection taken by a multishot accept that stays armed, then cancelled.
fn accept(ring: &mut IoUring, host: &Host) -> Ability {
    let (listener, address) = match loopback::listener(host) {
        Ok(listening) => listening,
        Err(why) => return Ability::Untried(why),
    };
    let _near = match loopback::connect(address, host) {
        Ok(near) => near,
        Err(why) => return Ability::Untried(why),
    };
    let entry = opcode::AcceptMulti::new(types::Fd(listener.as_raw_fd())).build();
    let first = match submit(ring, entry.user_data(FIRST)) {
        Ok(()) => completion(ring, "io_uring multishot accept", host),
        Err(why) => Err(why),
    };
    let mut armed = matches!(&first, Ok(done) if cqueue::more(done.flags()));
    let answer = verdict("io_uring multishot accept", first.as_ref(), host);
    drop_accepted(first.ok());
    if armed {
        let _ = submit(ring, opcode::AsyncCancel::new(FIRST).build().user_data(CANCEL));
    }
    // Strangers may connect to the port until the accept is gone: what it takes is closed.
    while armed && let Ok(done) = completion(ring, ENTER, host) {
        armed = done.user_data() != FIRST || cqueue::more(done.flags());
        drop_accepted(Some(done));
    }
    // The cancellation completes before or after what it cancels; unread completions go with the
    // ring.
    answer
}

/// Closes the connection that `done` brought, if it is one of an accept.
fn drop_accepted(done: Option<cqueue::Entry>) {
    if let Some(done) = done.filter(|done| done.user_data() == FIRST && done.result() >= 0) {
        // SAFETY: the kernel has just put this descriptor into our table and nothing else knows it.
        drop(unsafe { OwnedFd::from_raw_fd(done.result()) });
    }
}

/// A ring of provided buffers, and one byte taken into it by a multishot recv that stays armed.
fn recv(ring: &mut IoUring, host: &Host) -> (Ability, Ability) {
    const CALL: &str = "io_uring multishot recv";
    let buffers = match Buffers::register(ring, host) {
        Ok(buffers) => buffers,
        Err(why) => return (Ability::No(why.clone()), Ability::Untried(why)),
    };
    let (mut near, far) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => {
            let why = Why::refused("socketpair", &error, host);
            buffers.unregister(ring);
            return (Ability::Yes, Ability::Untried(why));
        }
    };
    let sent = near.write_all(&[BYTE]).map_err(|e| Why::refused("write", &e, host));
    let entry = opcode::RecvMulti::new(types::Fd(far.as_raw_fd()), buffers::GROUP).build();
    let first = sent
        .and_then(|()| submit(ring, entry.user_data(FIRST_RECV)))
        .and_then(|()| recv_completion(ring, CALL, host));
    let mut armed = match &first {
        Ok(done) => cqueue::more(done.flags()),
        // Unknown: it may have been submitted and not have completed.
        Err(_) => true,
    };
    let answer = match verdict(CALL, first.as_ref(), host) {
        Ability::Yes if buffers.first_byte() != BYTE => {
            Ability::No(Why::wrong(CALL, "another byte arrived than was sent"))
        }
        answer => answer,
    };
    // The end of the source ends the operation; only then the kernel has let go of the buffers.
    drop(near);
    while armed && let Ok(done) = recv_completion(ring, CALL, host) {
        armed = cqueue::more(done.flags());
    }
    match armed {
        false => buffers.unregister(ring),
        true => buffers.leak(),
    }
    (Ability::Yes, answer)
}

/// The next completion of the recv: that of the accept's cancellation may still lie before it.
fn recv_completion(
    ring: &mut IoUring,
    call: &'static str,
    host: &Host,
) -> Result<cqueue::Entry, Why> {
    loop {
        let done = completion(ring, call, host)?;
        if done.user_data() == FIRST_RECV {
            return Ok(done);
        }
        drop_accepted(Some(done));
    }
}

/// Whether the first completion of a multishot operation is what it should be.
fn verdict(call: &'static str, first: Result<&cqueue::Entry, &Why>, host: &Host) -> Ability {
    match first {
        Err(why) => Ability::No(why.clone()),
        Ok(done) if done.result() < 0 => {
            Ability::No(Why::refused(call, &io::Error::from_raw_os_error(-done.result()), host))
        }
        Ok(done) if !cqueue::more(done.flags()) => {
            Ability::No(Why::wrong(call, "it ended after one completion"))
        }
        Ok(_) => Ability::Yes,
    }
}

fn submit(ring: &mut IoUring, entry: squeue::Entry) -> Result<(), Why> {
    // SAFETY: the callers keep the entry's descriptor open, and the provided buffers mapped, until
    // the operation's last completion was seen; where it was not, the buffers are leaked.
    let pushed = unsafe { ring.submission().push(&entry) };
    pushed.map_err(|_| Why::wrong(ENTER, "the submission queue is full"))
}

/// Submits what is queued and takes the next completion, waiting [`WAIT_MAX`] at most.
fn completion(ring: &mut IoUring, call: &'static str, host: &Host) -> Result<cqueue::Entry, Why> {
    let bound = types::Timespec::new().nsec(WAIT_MAX.subsec_nanos());
    for _ in 0..INTERRUPTIONS_MAX {
        if let Some(done) = ring.completion().next() {
            return Ok(done);
        }
        match ring.submitter().submit_with_args(1, &types::SubmitArgs::new().timespec(&bound)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                // The completion may have come with the timeout.
                let late = ring.completion().next();
                return late.ok_or_else(|| Why::wrong(call, "it did not complete in time"));
            }
            Err(error) => return Err(Why::refused(ENTER, &error, host)),
        }
    }
    Err(Why::wrong(call, "signals kept interrupting it"))
}

const ENTER: &str = "io_uring_enter";

/// What tokio-uring asks for by default: a smaller ring may be allowed where memlock forbids that
/// one.
const RING_ENTRIES: u32 = 256;

/// Marks the no-op and the accept.
const FIRST: u64 = 1;

/// Marks the recv.
const FIRST_RECV: u64 = 2;

/// Marks the cancellation of the accept.
const CANCEL: u64 = 3;

const BYTE: u8 = 0xa5;

const INTERRUPTIONS_MAX: usize = 100;
