//! One worker: a thread, its runtime, its listeners, its sessions.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinHandle;
use tracing::warn;

use super::bind::chooses_rings;
use super::control::{Control, Controller, Controls};
use super::{balance, demo, listener};
use crate::metrics::{Counters, Snapshot};
use crate::relay::Kit;
use crate::relay::pool::PipeBudget;
use crate::session::access_log::LogSender;
use crate::session::depart::depart;
use crate::session::drains::Drains;
use crate::session::joined;
use crate::session::load::Loads;
use crate::session::plan::Plan;
use crate::session::question;
use crate::session::registry::{Order, Registry};
use crate::session::worker::{Page, Worker};
use crate::sys::net::Acceptor;
use crate::sys::reactor::{Reactor, park_current};
use crate::sys::ring::Prepared;
use crate::trace::Tracer;
use crate::ws::deflate::InflaterBudget;

/// How long a worker that was told to stop waits for its sessions to say so.
const STOP_GRACE: Duration = Duration::from_secs(2);

/// What all workers share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    pub plans: Arc<ArcSwap<Plan>>,
    pub budget: Arc<PipeBudget>,
    pub inflaters: Arc<InflaterBudget>,
    pub counters: Arc<[Arc<Counters>]>,
    pub controls: Arc<[Controller]>,
    pub drains: Arc<Drains>,
    pub loads: Arc<Loads>,
    pub tracer: Option<Tracer>,
    pub uring: bool,
}

/// What a worker is given and no other has.
#[derive(Debug)]
pub(super) struct Means {
    /// Where it listens.
    pub sockets: Vec<OwnedFd>,
    /// For engine `auto`, where this thread may not make one.
    pub ring: Option<Prepared>,
}

/// The worker's thread, from start to end. False when a session's task panicked.
pub(super) fn main(
    index: usize,
    shared: Shared,
    means: Means,
    controls: Controls,
    log: LogSender,
    ready: &mpsc::Sender<io::Result<()>>,
) -> bool {
    crate::sys::alloc::use_own_lists();
    let uring = shared.uring;
    let others = Arc::clone(&shared.controls);
    let work = async move {
        let Controls { receiver, doorbell } = controls;
        let Means { sockets, ring } = means;
        let made = new_worker(index, shared, ring, log).and_then(|worker| {
            worker.kit.reactor.answer(doorbell)?;
            worker.kit.reactor.look_before_sleep(worker.plan().config.gateway.busy_poll);
            let acceptors = acceptors(sockets, &worker.kit.reactor)?;
            Ok((Rc::new(worker), acceptors))
        });
        match made {
            Ok((worker, acceptors)) => {
                // Nobody waits any more when another worker has failed: then Stop is on its way.
                let _ = ready.send(Ok(()));
                // The ring of tokio-uring has to be slept in; it watches the reactor as one descriptor.
                let sleeps_here = (!uring).then(|| worker.kit.reactor.sleep_here());
                serve(&worker, acceptors, receiver, others).await;
                drop(sleeps_here);
                !worker.panicked.get()
            }
            Err(error) => {
                let _ = ready.send(Err(error));
                true
            }
        }
    };
    if uring {
        return tokio_uring::start(work);
    }
    // Without tokio's reactor and timers, so that nobody can wait for them: the thread sleeps in ours.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .on_thread_park(park_current)
        .build_local(tokio::runtime::LocalOptions::default());
    match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            let _ = ready.send(Err(error));
            true
        }
    }
}

/// Accepts and obeys until everything has ended.
async fn serve(
    worker: &Rc<Worker>,
    acceptors: Vec<Acceptor>,
    mut control: UnboundedReceiver<Control>,
    others: Arc<[Controller]>,
) {
    let watcher = Rc::clone(worker);
    let watching = tokio::task::spawn_local(async move {
        watcher.registry.watch_progress(&watcher.kit.reactor).await
    });
    let clock = Rc::clone(worker);
    let alarming =
        tokio::task::spawn_local(
            async move { clock.registry.watch_alarms(&clock.kit.reactor).await },
        );
    let accepting = (0..).zip(acceptors);
    let accepting = accepting
        .map(|(slot, acceptor)| Accepting::begin(slot, acceptor, worker, &others))
        .collect();
    let carrier = Rc::clone(worker);
    let carrying = tokio::task::spawn_local(async move { joined::carry(&carrier).await });
    let balancer = Rc::clone(worker);
    let balancing = worker
        .balances
        .then(|| tokio::task::spawn_local(async move { balance::rebalance(&balancer).await }));
    let mut servants = Servants { accepting, watching, alarming, carrying, balancing };
    let mut deadline = None;
    loop {
        match next_control(worker, &mut control, deadline, &mut servants).await {
            Some(Control::Admit(accepted)) => listener::admit(accepted, worker),
            Some(Control::Adopt(moved)) => joined::adopt(worker, *moved),
            Some(Control::Depart(leaving)) => {
                tokio::task::spawn_local(depart(Rc::clone(worker), leaving));
            }
            Some(Control::Follow { open, close, done }) => {
                servants.follow(worker, open, &close, &others).await;
                drop(done);
            }
            Some(Control::Sessions(reply)) => {
                let _ = reply.send(worker.registry.view(worker.index));
            }
            Some(Control::Move { id, to, reply }) => {
                let _ = reply.send(worker.registry.order_one(&id, Order::Move(to)));
            }
            Some(Control::Ping(reply)) => {
                // Who asked may have given up: then this answer comes too late.
                let _ = reply.send(());
            }
            Some(Control::Ask(question)) => question::answer(worker, question),
            Some(Control::Drain(until)) => {
                servants.stop_accepting(worker).await;
                deadline = Some(deadline.map_or(until, |before: Instant| before.min(until)));
            }
            Some(Control::Stop) | None => break,
        }
    }
    servants.stop_accepting(worker).await;
    // What another worker gave away just now must not vanish without its line. A receive, since
    // only that waits for a message that is being sent at this moment.
    control.close();
    while let Some(told) = control.recv().await {
        match told {
            Control::Admit(accepted) => listener::admit(accepted, worker),
            Control::Adopt(moved) => joined::adopt(worker, *moved),
            _ => {}
        }
    }
    worker.stop();
    let quiet = pin!(until_quiet(worker));
    // What has not ended by now is dropped with the runtime.
    let _ = worker.kit.reactor.timeout(STOP_GRACE, quiet).await;
    servants.watching.abort();
    servants.alarming.abort();
    servants.carrying.abort();
    if let Some(balancing) = servants.balancing {
        balancing.abort();
    }
    worker.registry.clear();
}

/// A listener, and the task that accepts there.
struct Accepting {
    slot: u16,
    acceptor: Rc<Acceptor>,
    task: JoinHandle<()>,
}

impl Accepting {
    fn begin(
        slot: u16,
        acceptor: Acceptor,
        worker: &Rc<Worker>,
        others: &Arc<[Controller]>,
    ) -> Accepting {
        let acceptor = Rc::new(acceptor);
        let accept =
            listener::accept(Rc::clone(&acceptor), slot, Rc::clone(worker), Arc::clone(others));
        Accepting { slot, acceptor, task: tokio::task::spawn_local(accept) }
    }

    /// Takes the connections that wait in the kernel, then closes the listener.
    async fn stop(self, worker: &Rc<Worker>) {
        self.task.abort();
        // Cancelled, as asked. Nothing is left to come in between.
        let _ = self.task.await;
        listener::accept_waiting(&self.acceptor, self.slot, worker);
    }
}

/// The tasks that serve the sessions, and the listeners.
struct Servants {
    accepting: Vec<Accepting>,
    watching: JoinHandle<()>,
    alarming: JoinHandle<()>,
    carrying: JoinHandle<()>,
    /// Where there are others to balance with.
    balancing: Option<JoinHandle<()>>,
}

impl Servants {
    fn are_accepting(&self) -> bool {
        !self.accepting.is_empty()
    }

    /// Lets a panic of one of them be the worker's: without it connections would wait in a queue that
    /// nobody empties, or idle sessions live for ever, and nobody would know.
    fn poll_panic(&mut self, cx: &mut Context<'_>) {
        let others = [&mut self.watching, &mut self.alarming, &mut self.carrying]
            .into_iter()
            .chain(&mut self.balancing);
        let accepting = self.accepting.iter_mut().map(|accepting| &mut accepting.task);
        for task in accepting.chain(others) {
            if let Poll::Ready(ended) = Pin::new(task).poll(cx) {
                match ended {
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    _ => unreachable!("these tasks have no end"),
                }
            }
        }
    }

    /// Takes the connections that wait in the kernel, then closes the listeners: the other way round they
    /// would be reset. The accept tasks are gone before that, so nothing is left to come in between.
    async fn stop_accepting(&mut self, worker: &Rc<Worker>) {
        worker.loads.close(worker.index);
        for accepting in self.accepting.drain(..) {
            accepting.stop(worker).await;
        }
    }

    /// Accepts at new listeners, and no more at some.
    async fn follow(
        &mut self,
        worker: &Rc<Worker>,
        open: Vec<(u16, OwnedFd)>,
        close: &[u16],
        others: &Arc<[Controller]>,
    ) {
        // It has stopped to accept for good.
        if !self.are_accepting() {
            return;
        }
        for (slot, socket) in open {
            match Acceptor::new(socket, &worker.kit.reactor) {
                Ok(acceptor) => {
                    self.accepting.push(Accepting::begin(slot, acceptor, worker, others));
                }
                Err(error) => warn!(%error, "a worker cannot accept at a new listener"),
            }
        }
        let (gone, stay) =
            self.accepting.drain(..).partition(|accepting| close.contains(&accepting.slot));
        self.accepting = stay;
        for accepting in Vec::<Accepting>::from_iter(gone) {
            accepting.stop(worker).await;
        }
    }
}

/// The next order; `None` when there is nothing left to do: the gateway is gone, the deadline has come, or
/// all connections have ended while draining.
async fn next_control(
    worker: &Rc<Worker>,
    control: &mut UnboundedReceiver<Control>,
    deadline: Option<Instant>,
    servants: &mut Servants,
) -> Option<Control> {
    let next = async {
        let mut quiet = pin!(until_empty(worker));
        poll_fn(|cx| match control.poll_recv(cx) {
            Poll::Ready(told) => Poll::Ready(told),
            Poll::Pending if !servants.are_accepting() => {
                servants.poll_panic(cx);
                quiet.as_mut().poll(cx).map(|()| None)
            }
            Poll::Pending => {
                servants.poll_panic(cx);
                Poll::Pending
            }
        })
        .await
    };
    match deadline {
        Some(deadline) => worker.kit.reactor.timeout_at(deadline, pin!(next)).await.flatten(),
        None => next.await,
    }
}

/// Until no connection is left, nor on its way here. The worker takes nothing new by then, so the way is
/// free for ever once it is.
async fn until_empty(worker: &Worker) {
    loop {
        until_quiet(worker).await;
        if worker.loads.connections(worker.index) == 0 {
            return;
        }
        // It arrives as a message, and then this is asked again.
        worker.quiet.notified().await;
    }
}

async fn until_quiet(worker: &Worker) {
    while worker.connections.get() > 0 {
        worker.quiet.notified().await;
    }
}

fn acceptors(sockets: Vec<OwnedFd>, reactor: &Rc<Reactor>) -> io::Result<Vec<Acceptor>> {
    sockets.into_iter().map(|socket| Acceptor::new(socket, reactor)).collect()
}

fn new_worker(
    index: usize,
    shared: Shared,
    ring: Option<Prepared>,
    log: LogSender,
) -> io::Result<Worker> {
    let Shared { plans, budget, inflaters, counters: all, controls, drains, loads, tracer, .. } =
        shared;
    let config = Arc::clone(&plans.load().config);
    let counters = Arc::clone(&all[index]);
    let page = config.demo.then(|| -> Page {
        Box::new(move |method, target| {
            let sum = Snapshot::of(all.iter().map(AsRef::as_ref));
            let sum = serde_json::to_string(&sum).expect("numbers always serialise");
            demo::respond(method, target, &sum)
        })
    });
    let balances = config.gateway.balance && config.gateway.workers > 1;
    // A ring disturbs the thread that made it when it is closed (its waits end with EINTR): better this one.
    let own_ring = || chooses_rings(&config).then(Prepared::new)?.ok();
    let kit = Kit::new(budget, Arc::clone(&counters), config.gateway.no_fallback)?;
    Ok(Worker {
        index,
        kit: Rc::new(kit.with_prepared(ring.or_else(own_ring))),
        plans,
        counters,
        inflaters,
        registry: Registry::default(),
        log,
        tracer,
        hand_over: Box::new(move |to, moved| match controls.get(to) {
            Some(control) => control.send(Control::Adopt(moved)).map_err(|back| match back {
                Control::Adopt(moved) => moved,
                _ => unreachable!("what was sent comes back"),
            }),
            None => Err(moved),
        }),
        page,
        balances,
        drains,
        loads,
        accepted_lately: Cell::new(0),
        connections: Cell::new(0),
        quiet: Notify::new(),
        stopping: Notify::new(),
        stopped: Cell::new(false),
        panicked: Cell::new(false),
    })
}
