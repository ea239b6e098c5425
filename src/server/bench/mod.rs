//! `upsplice probe --bench`: from which message size on an engine pays on this machine, and what an idle
//! session costs. A short answer, not the lab: one worker, loopback, some ten seconds.
//!
//! The gateways are real ones in this process, one for each engine; client and backend are this program
//! once more, in a process of its own ([`client`]). So the worker's thread clock is what the relay costs,
//! and the growth of this process is what sessions cost.

pub mod client;
pub mod load;
pub mod memory;
pub mod summary;

mod backend;
mod text;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use self::client::PATIENCE;
use self::load::{Load, Peers, Plan};
use self::memory::{Idle, Memory};
use self::summary::{Carrier, Row, Sample, Summary, sentences};
use super::choice::{engine_for, engine_word};
use super::{AccessLog, Gateway};
use crate::config::{
    self, Config, Endpoint, EndpointTarget, Engine, Listen, Listener, Protocols, Route,
};
use crate::metrics;
use crate::sys::net::raise_nofile_limit;
use crate::sys::probe::Probe;
use crate::sys::thread::{cores, cpu_time, keep_to};

/// What is measured; [`summary::BASELINE`] has to be among them.
const ENGINES: [Engine; 2] = [Engine::Splice, Engine::Copy];

/// Fewer cores are not shared out: worker, client and backend would only wait for each other.
const CORES_MIN: usize = 3;

/// Sessions that come before those whose memory is counted: what all of them share is there then.
const WARM_UP_SESSIONS: usize = 20;

/// Descriptors that are not for idle sessions.
const DESCRIPTORS_SPARE: u64 = 128;

/// Measures. Client and backend are `/proc/self/exe bench-peers`, so only the program itself can.
///
/// # Errors
///
/// A gateway, or the other process, did not start or stopped answering.
pub fn run(probe: &Probe, plan: &Plan) -> io::Result<Summary> {
    let places = Places::choose();
    let mut peers = Peers::start(places.peers())?;
    let mut lanes = Vec::new();
    let mut engines = Vec::new();
    for engine in ENGINES {
        let choice = engine_for(probe, engine, true);
        if choice.taken.is_some() {
            lanes.push(Lane::start(engine, peers.backend_port, &places)?);
        }
        engines.push(Carrier {
            engine: engine_word(engine),
            refused: choice.taken.is_none().then_some(choice.why),
            carried: BTreeMap::new(),
            delivered: 0,
        });
    }
    let idle = match lanes.first() {
        Some(lane) => idle_cost(&mut peers, lane, plan.idle)?,
        None => Idle::default(),
    };
    let slice = plan.slice(lanes.len());
    let mut samples = vec![vec![Vec::new(); lanes.len()]; plan.loads.len()];
    let began = Instant::now();
    let mut round = 0;
    while plan.goes_on(round, began.elapsed()) {
        for (load, samples) in plan.loads.iter().zip(&mut samples) {
            for turn in 0..lanes.len() {
                // Each goes first as often as any other.
                let at = (turn + round) % lanes.len();
                let sample = lanes[at].measure(&mut peers, (*load, plan.sessions), slice)?;
                samples[at].push(sample);
            }
        }
        round += 1;
    }
    let words: Vec<&'static str> = lanes.iter().map(|lane| engine_word(lane.engine)).collect();
    let rows: Vec<Row> = plan
        .loads
        .iter()
        .zip(samples)
        .map(|(load, samples)| {
            Row::new(*load, &words.iter().copied().zip(samples).collect::<Vec<_>>())
        })
        .collect();
    for lane in lanes {
        let carrier = engines.iter_mut().find(|carrier| carrier.engine == engine_word(lane.engine));
        lane.finish(carrier.expect("every lane is of the list"));
    }
    Ok(Summary {
        pinned: places.worker.is_some(),
        rounds: round,
        sessions: plan.sessions,
        sentences: sentences(&engines, &rows),
        engines,
        rows,
        idle,
    })
}

/// Which cores are whose; none when there are too few.
struct Places {
    all: Vec<usize>,
    worker: Option<usize>,
}

impl Places {
    /// The last core for the worker: interrupts tend to be served by the first.
    fn choose() -> Places {
        let all = cores();
        let worker = all.last().copied().filter(|_| all.len() >= CORES_MIN);
        Places { all, worker }
    }

    fn peers(&self) -> &[usize] {
        if self.worker.is_some() { &self.all[self.all.len() - 3..self.all.len() - 1] } else { &[] }
    }

    /// Does `work` on the worker's core, where the threads that it starts will stay.
    fn on_worker_core<T>(&self, work: impl FnOnce() -> T) -> io::Result<T> {
        let Some(worker) = self.worker else { return Ok(work()) };
        keep_to(&[worker])?;
        let done = work();
        keep_to(&self.all)?;
        Ok(done)
    }
}

/// A gateway of one worker with one engine.
struct Lane {
    engine: Engine,
    gateway: Gateway,
    port: u16,
    worker: i32,
    delivered: u64,
}

impl Lane {
    fn start(engine: Engine, backend_port: u16, places: &Places) -> io::Result<Lane> {
        let others = workers();
        let config = config(engine, backend_port);
        let started = places.on_worker_core(|| Gateway::start(config, AccessLog::Off))?;
        let gateway = started.map_err(io::Error::other)?;
        let port = gateway.addresses().first().and_then(super::BoundAddress::port);
        let worker = workers().into_iter().find(|worker| !others.contains(worker));
        match (port, worker) {
            (Some(port), Some(worker)) => Ok(Lane { engine, gateway, port, worker, delivered: 0 }),
            _ => Err(io::Error::other("the worker's thread is not listed in /proc/self/task")),
        }
    }

    fn measure(
        &mut self,
        peers: &mut Peers,
        what: (Load, usize),
        slice: Duration,
    ) -> io::Result<Sample> {
        let sample = peers.measure(self.port, what, slice, || cpu_time(self.worker))?;
        self.delivered += match what.0 {
            Load::Echo { .. } => 2 * sample.bytes,
            Load::Bulk { .. } => sample.bytes,
        };
        Ok(sample)
    }

    /// Ends it; what it carried goes into `carrier`.
    fn finish(self, carrier: &mut Carrier) {
        let bytes = self.gateway.metrics().bytes;
        carrier.carried =
            bytes.into_iter().map(|(engine, ways)| (engine, ways.values().sum())).collect();
        carrier.delivered = self.delivered;
        self.gateway.stop_now();
        self.gateway.join();
    }
}

/// Threads of this process that are workers.
fn workers() -> Vec<i32> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let workers = tasks.filter(|task| {
        fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("worker-"))
    });
    workers.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

fn config(engine: Engine, backend_port: u16) -> Config {
    let backend = SocketAddr::from((Ipv4Addr::LOCALHOST, backend_port));
    let to = Endpoint::new(backend.to_string(), EndpointTarget::Tcp(vec![backend]));
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Config {
        gateway: config::Gateway { workers: 1, access_log: false, ..Default::default() },
        listeners: vec![Listener { address: Listen::Tcp(listen) }],
        routes: vec![Route {
            engine,
            protocols: Protocols::Only(vec![backend::PROTOCOL.to_owned()]),
            ..Route::new("bench", vec![to])
        }],
        demo: false,
        file: None,
    }
}

/// Opens idle sessions, looks, and closes them.
fn idle_cost(peers: &mut Peers, lane: &Lane, wanted: usize) -> io::Result<Idle> {
    // What the limit is, if it cannot be raised, the probe has said.
    let descriptors = raise_nofile_limit().unwrap_or(1024);
    let possible = descriptors.saturating_sub(DESCRIPTORS_SPARE) / 2;
    let sessions = wanted.min(usize::try_from(possible).unwrap_or(usize::MAX));
    peers.hold(lane.port, WARM_UP_SESSIONS)?;
    until(lane, |now| now.sessions_open == WARM_UP_SESSIONS as u64)?;
    let before = Memory::now();
    peers.hold(lane.port, sessions)?;
    until(lane, |now| now.sessions_open == (WARM_UP_SESSIONS + sessions) as u64)?;
    let idle = Memory::now().per_session(before, sessions);
    peers.release(lane.port)?;
    until(lane, |now| now.connections_open == 0)?;
    Ok(idle)
}

/// Waits until the gateway's counters say so.
fn until(lane: &Lane, so: impl Fn(&metrics::Snapshot) -> bool) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !so(&lane.gateway.metrics()) {
        if Instant::now() > deadline {
            return Err(io::Error::other("idle sessions do not open or close"));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
