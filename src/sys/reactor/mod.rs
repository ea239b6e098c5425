//! A worker's reactor: one epoll instance for all sockets of its sessions, its deadlines, and its doorbell.
//!
//! It hands events out by itself: to the task of an exchange by its waker, to the joined sessions as a list of
//! keys that their one driver goes through. A registration is a few words in a table (a runtime's own is 256 B,
//! two of them per session), and an event of a joined session touches no scheduler. Nobody waits in the
//! runtime's reactor: the thread sleeps here ([`Reactor::sleep_here`]), so that a message costs one epoll_wait(2). A
//! runtime that must sleep in its own way watches this one as one descriptor ([`Reactor::poll_ready`]).
//!
//! Readiness is edge-triggered: "ready" means that a call is worth trying, and is cleared only when a call
//! said `EAGAIN`. <https://man7.org/linux/man-pages/man7/epoll.7.html>.

mod clock;
mod doorbell;
mod readiness;
mod spin;

use std::cell::{Cell, OnceCell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use slab::Slab;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::clock::Clock;
pub use self::clock::Sleep;
pub use self::doorbell::Doorbell;
pub(super) use self::readiness::Ready;
use self::spin::Spin;
use super::cvt;

/// Events taken by one epoll_wait(2).
const EVENTS_MAX: usize = 256;

/// The event data of the clock and of the doorbell, which no place and serial have.
const CLOCK: u64 = u64::MAX;
const DOORBELL: u64 = u64::MAX - 1;

/// What a socket is watched for; an urgent byte is `EPOLLPRI`.
const WATCHED: i32 =
    libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLPRI | libc::EPOLLRDHUP | libc::EPOLLET;

/// Who is told of a socket's events.
#[derive(Debug)]
enum Owner {
    /// Nobody: whoever looks finds the readiness.
    Nobody,
    /// The task of an exchange, once.
    Task(Waker),
    /// The joined session with this key.
    Session(u32),
}

#[derive(Debug)]
struct Slot {
    ready: Ready,
    /// Tells an event of this socket from a late one of the socket that had the slot before.
    serial: u32,
    owner: Owner,
}

/// A socket's place in a reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place(u32);

thread_local! {
    static SLEEPING: RefCell<Option<Rc<Reactor>>> = const { RefCell::new(None) };
}

/// Sleeps in the reactor of this thread, if it has one ([`Reactor::sleep_here`]).
pub fn park_current() {
    let reactor = SLEEPING.with(|sleeping| sleeping.borrow().as_ref().map(Rc::clone));
    if let Some(reactor) = reactor {
        reactor.park();
    }
}

/// For as long as this lives, its thread sleeps in a reactor.
#[derive(Debug)]
pub struct SleepsHere(());

impl Drop for SleepsHere {
    fn drop(&mut self) {
        SLEEPING.with(|sleeping| sleeping.borrow_mut().take());
    }
}

/// What [`Reactor::collect`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Events taken.
    pub events: usize,
    /// Whether a task was woken by one of them.
    pub woke_tasks: bool,
}

/// One epoll instance and the readiness of the sockets in it. It belongs to one thread.
#[derive(Debug)]
pub struct Reactor {
    epoll: OwnedFd,
    /// The same descriptor as the runtime knows it, from the first wait on.
    in_runtime: OnceCell<AsyncFd<i32>>,
    slots: RefCell<Slab<Slot>>,
    serial: Cell<u32>,
    events: RefCell<Vec<libc::epoll_event>>,
    /// Events were taken by the last park, and not handed out yet.
    parked: Cell<bool>,
    /// Sessions that are woken without an event.
    told: RefCell<Vec<usize>>,
    /// Wakes the task that hands events out, after a park.
    carrier: RefCell<Option<Waker>>,
    clock: Clock,
    doorbell: OnceCell<Doorbell>,
    spin: Cell<Spin>,
}

impl Reactor {
    /// An empty reactor. Nothing is said to the runtime before the first wait.
    ///
    /// # Errors
    ///
    /// `EMFILE`, `ENFILE`, `ENOMEM`: epoll_create1(2), timerfd_create(2).
    pub fn new() -> io::Result<Reactor> {
        // SAFETY: no pointers are passed.
        let fd = cvt(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) } as isize)?;
        // SAFETY: epoll_create1 returned a new descriptor that nothing else owns.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        let reactor = Reactor {
            epoll,
            in_runtime: OnceCell::new(),
            slots: RefCell::default(),
            serial: Cell::new(0),
            events: RefCell::new(Vec::with_capacity(EVENTS_MAX)),
            parked: Cell::new(false),
            told: RefCell::default(),
            carrier: RefCell::default(),
            clock: Clock::new()?,
            doorbell: OnceCell::new(),
            spin: Cell::default(),
        };
        reactor.watch(reactor.clock.as_fd(), libc::EPOLLIN | libc::EPOLLET, CLOCK)?;
        Ok(reactor)
    }

    /// Wakes this reactor whenever `doorbell` is rung, by any thread.
    ///
    /// # Errors
    ///
    /// epoll_ctl(2): no memory, or no room in epoll.
    pub fn answer(&self, doorbell: Doorbell) -> io::Result<()> {
        self.watch(doorbell.as_fd(), libc::EPOLLIN | libc::EPOLLET, DOORBELL)?;
        assert!(self.doorbell.set(doorbell).is_ok(), "a reactor has one doorbell");
        Ok(())
    }

    /// From now on this thread sleeps in this reactor, until the answer is dropped: its runtime calls
    /// [`park_current`] when it has nothing else to do.
    pub fn sleep_here(self: &Rc<Self>) -> SleepsHere {
        SLEEPING.with(|sleeping| *sleeping.borrow_mut() = Some(Rc::clone(self)));
        SleepsHere(())
    }

    /// Sleeps until there is an event, and wakes the task that was named by [`Reactor::poll_carry`], which is to
    /// hand out what has come.
    fn park(&self) {
        if !self.parked.replace(true) && !self.look_for_events() {
            self.wait(-1);
        }
        self.nudge();
    }

    /// Before it goes to sleep, the thread looks for events for at most `longest`; by default not at all.
    pub fn look_before_sleep(&self, longest: Duration) {
        self.spin.set(Spin::new(longest));
    }

    /// True when there are some.
    fn look_for_events(&self) -> bool {
        let mut spin = self.spin.get();
        let tries = spin.should_try();
        let mut seen = false;
        if tries {
            let until = Instant::now() + spin.longest;
            while !seen && Instant::now() < until {
                self.wait(0);
                seen = !self.events.borrow().is_empty();
            }
            spin.tried(seen);
        }
        self.spin.set(spin);
        seen
    }

    /// Lets the session with this key be among the next that are woken.
    pub fn tell(&self, session: usize) {
        self.told.borrow_mut().push(session);
        self.nudge();
    }

    /// Names the task that hands events out. Pending until there may be some, which wakes it.
    pub fn poll_carry(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut carrier = self.carrier.borrow_mut();
        if !carrier.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *carrier = Some(cx.waker().clone());
        }
        let sleeps_here = SLEEPING.with(|sleeping| sleeping.borrow().is_some());
        if sleeps_here { Poll::Pending } else { self.poll_ready(cx) }
    }

    /// Lets all others have their turn, and this reactor its look at the sockets, then goes on.
    pub async fn yield_now(&self) {
        self.nudge();
        tokio::task::yield_now().await;
    }

    /// Lets the sockets be looked at soon: a task that only ever yields to the runtime would keep the thread from
    /// going to sleep, and so from looking.
    pub fn nudge(&self) {
        if let Some(carrier) = &*self.carrier.borrow() {
            carrier.wake_by_ref();
        }
    }

    /// Runs one future on a thread that has no runtime.
    #[cfg(test)]
    pub(crate) fn run_alone<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            match work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(done) => return done,
                Poll::Pending => self.park(),
            }
            self.collect(drop);
        }
    }

    /// Fills the list of events. `EINTR` is the only error that a good descriptor and buffer can meet; the next
    /// look sees the events.
    fn wait(&self, timeout: i32) {
        let mut events = self.events.borrow_mut();
        events.clear();
        // SAFETY: the kernel writes at most EVENTS_MAX events, for which the vector has room.
        let taken = cvt(unsafe {
            let max = EVENTS_MAX as i32;
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), max, timeout)
        } as isize);
        // SAFETY: the kernel has written that many events.
        unsafe { events.set_len(taken.unwrap_or(0)) };
    }

    /// Takes the events that are there, without waiting, and gives the keys of sessions among them to `woken`.
    pub fn collect(&self, mut woken: impl FnMut(usize)) -> Collected {
        if !self.parked.replace(false) {
            self.wait(0);
        }
        self.told.borrow_mut().drain(..).for_each(&mut woken);
        let events = self.events.borrow();
        let mut collected = Collected { events: events.len(), woke_tasks: false };
        for event in events.iter() {
            let (place, serial) = match event.u64 {
                CLOCK => {
                    collected.woke_tasks |= self.clock.fire();
                    continue;
                }
                DOORBELL => {
                    // Whoever rang has woken a task already, which could not wake this thread.
                    collected.woke_tasks = true;
                    continue;
                }
                data => ((data >> 32) as usize, data as u32),
            };
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(place).filter(|slot| slot.serial == serial) else {
                continue;
            };
            slot.ready = slot.ready.or(Ready::of(event.events));
            match slot.owner {
                Owner::Nobody => {}
                Owner::Session(key) => woken(key as usize),
                Owner::Task(_) => {
                    let Owner::Task(waker) = std::mem::replace(&mut slot.owner, Owner::Nobody)
                    else {
                        unreachable!("it was a task's");
                    };
                    collected.woke_tasks = true;
                    // Waking may run code that looks at other sockets.
                    drop(slots);
                    waker.wake();
                }
            }
        }
        collected
    }

    /// Ready when [`Reactor::collect`] is worth a call. One task waits for one reactor.
    ///
    /// The instance is drained by `collect` to its last event, so the next edge is a new one.
    ///
    /// # Panics
    ///
    /// The runtime has no room for one more descriptor, or there is none.
    pub fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let io = self.in_runtime.get_or_init(|| {
            // SAFETY: the descriptor stays open for as long as the reactor, which owns this registration
            // too and drops it along.
            unsafe { AsyncFd::register_with_interest(self.epoll.as_raw_fd(), Interest::READABLE) }
                .expect("the runtime has room for the reactor")
        });
        match ready!(io.poll_read_ready(cx)) {
            Ok(mut guard) => guard.clear_ready(),
            Err(_) => return Poll::Pending,
        }
        Poll::Ready(())
    }

    /// A future that is ready at `at`, or soon after it.
    pub fn sleep_until(self: &Rc<Self>, at: Instant) -> Sleep {
        Sleep::new(Rc::clone(self), at)
    }

    /// What comes of `work` when it is ready before `at`. Taken where it is pinned: an async function has room for its
    /// argument twice, as it came and as it is used, and those of an exchange are nested.
    pub async fn timeout_at<T>(
        self: &Rc<Self>,
        at: Instant,
        mut work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        let mut sleep = pin!(self.sleep_until(at));
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => sleep.as_mut().poll(cx).map(|()| None),
        })
        .await
    }

    /// What comes of `work` when it takes no longer than `limit`.
    pub async fn timeout<T>(
        self: &Rc<Self>,
        limit: Duration,
        work: Pin<&mut impl Future<Output = T>>,
    ) -> Option<T> {
        self.timeout_at(Instant::now() + limit, work).await
    }

    /// Sockets that are watched.
    pub fn len(&self) -> usize {
        self.slots.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Watches `socket`. Readiness that it has already comes as an event.
    pub(super) fn add(&self, socket: BorrowedFd<'_>) -> io::Result<Place> {
        self.add_for(socket, WATCHED)
    }

    /// Watches a descriptor that is only ever read.
    pub(super) fn add_readable(&self, fd: BorrowedFd<'_>) -> io::Result<Place> {
        self.add_for(fd, libc::EPOLLIN | libc::EPOLLET)
    }

    fn add_for(&self, fd: BorrowedFd<'_>, events: i32) -> io::Result<Place> {
        let serial = self.serial.get().wrapping_add(1);
        self.serial.set(serial);
        let slot = Slot { ready: Ready::default(), serial, owner: Owner::Nobody };
        let place = self.slots.borrow_mut().insert(slot);
        let added = self.watch(fd, events, (place as u64) << 32 | u64::from(serial));
        let place = u32::try_from(place).expect("there are fewer descriptors than that");
        match added {
            Ok(()) => Ok(Place(place)),
            Err(error) => {
                self.forget(Place(place));
                Err(error)
            }
        }
    }

    fn watch(&self, fd: BorrowedFd<'_>, events: i32, data: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: data };
        // SAFETY: the kernel reads one event; both descriptors are open for the time of the call.
        cvt(unsafe {
            let (epoll, fd) = (self.epoll.as_raw_fd(), fd.as_raw_fd());
            libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event)
        } as isize)?;
        Ok(())
    }

    /// Stops watching a socket that stays open.
    pub(super) fn remove(&self, place: Place, socket: BorrowedFd<'_>) {
        let (epoll, socket) = (self.epoll.as_raw_fd(), socket.as_raw_fd());
        // SAFETY: both descriptors are open for the time of the call, and no event is read.
        let removed =
            cvt(
                unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_DEL, socket, std::ptr::null_mut()) }
                    as isize,
            );
        debug_assert!(removed.is_ok(), "a socket was watched that is not there: {removed:?}");
        self.forget(place);
    }

    /// Frees the place of a socket whose last descriptor is about to be closed: the kernel forgets it then.
    /// An event that is on its way is void, by its serial.
    pub(super) fn forget(&self, place: Place) {
        let slot = self.slots.borrow_mut().remove(place.0 as usize);
        drop(slot);
    }

    pub(super) fn ready(&self, place: Place) -> Ready {
        self.slots.borrow()[place.0 as usize].ready
    }

    pub(super) fn clear(&self, place: Place, what: Ready) {
        self.slots.borrow_mut()[place.0 as usize].ready.0 &= !what.0;
    }

    /// The task of `cx` is woken by the next event.
    pub(super) fn wake_task(&self, place: Place, cx: &Context<'_>) {
        let owner = &mut self.slots.borrow_mut()[place.0 as usize].owner;
        match owner {
            Owner::Task(known) => known.clone_from(cx.waker()),
            _ => *owner = Owner::Task(cx.waker().clone()),
        }
    }

    /// From now on the session with this key is told. A task that waited is forgotten: its waker would keep
    /// the memory of the whole task for as long as the socket lives.
    pub(super) fn wake_session(&self, place: Place, key: usize) {
        let key = u32::try_from(key).expect("there are fewer sessions than that");
        self.slots.borrow_mut()[place.0 as usize].owner = Owner::Session(key);
    }

    /// Nobody is told any more.
    pub(super) fn wake_nobody(&self, place: Place) {
        self.slots.borrow_mut()[place.0 as usize].owner = Owner::Nobody;
    }
}

#[cfg(test)]
mod tests;
