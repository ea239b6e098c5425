//! Where the gateway listens: sockets of its own, and those that a service manager has opened for it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tracing::info;

use super::{StartError, tcp_options};
use crate::admin::Door;
use crate::config::{Config, Engine, Listen};
use crate::sys::activation::Passed;
use crate::sys::net::{self, TcpOptions};
use crate::sys::ring::Prepared;

/// Where a listener really listens: port 0 has become a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

/// A listener, as a reload finds it.
#[derive(Clone, Debug)]
pub(super) struct Listening {
    /// As configured.
    pub asked: Listen,
    /// Where that is.
    pub address: BoundAddress,
    /// Whether it still is.
    pub is_open: bool,
}

/// What has to be had before less is allowed: listening sockets, by worker, then in the order of the
/// configuration; and a ring for each worker.
#[derive(Debug)]
pub struct Bound {
    pub(super) listening: Vec<Listening>,
    pub(super) sockets: Vec<Vec<OwnedFd>>,
    /// Made by [`Bound::prepare_rings`].
    pub(super) rings: Vec<Prepared>,
    pub(super) socket_files: Arc<SocketFiles>,
    /// Where the operator is answered.
    pub(super) admin: Option<Door>,
}

/// The files of the Unix listeners, removed once: by then another process may own the path.
#[derive(Debug, Default)]
pub(super) struct SocketFiles(Mutex<Vec<PathBuf>>);

impl Bound {
    /// Binds every listener once per worker: over TCP each worker has its own queue (`SO_REUSEPORT`), over
    /// Unix they share one.
    ///
    /// A listener whose address a `passed` socket has takes that one, which all workers share: the manager's
    /// queue outlives this process, so nothing that waits in it is lost over a restart, as it would be in
    /// further queues of our own.
    ///
    /// # Errors
    ///
    /// A listener cannot be bound, or a passed socket has no place in the configuration.
    pub fn new(config: &Config, passed: Vec<Passed>) -> Result<Bound, StartError> {
        let options = tcp_options(&config.gateway.tcp);
        let mut passed = taken_over(passed, &options)?;
        let mut bound = Bound {
            listening: Vec::new(),
            sockets: (0..config.gateway.workers).map(|_| Vec::new()).collect(),
            rings: Vec::new(),
            socket_files: Arc::default(),
            admin: None,
        };
        for listener in &config.listeners {
            let text = || listen_text(&listener.address);
            let fail = |source| StartError::Listen { address: text(), source };
            match passed.iter().position(|(address, ..)| address.is_for(&listener.address)) {
                Some(at) => {
                    let (address, Passed { fd, .. }) = passed.swap_remove(at);
                    let sockets = shared(fd, config.gateway.workers).map_err(fail)?;
                    bound.add(&listener.address, address, sockets);
                }
                None => {
                    let (address, sockets) =
                        open(&listener.address, config.gateway.workers, &options).map_err(fail)?;
                    bound.socket_files.add(&address);
                    bound.add(&listener.address, address, sockets);
                }
            }
        }
        let admin = Door::open(config).transpose();
        bound.admin = admin.map_err(|source| {
            let address = config.gateway.admin.as_ref().map(listen_text).unwrap_or_default();
            StartError::Listen { address, source }
        })?;
        match passed.first() {
            None => Ok(bound),
            Some((address, Passed { name, .. })) => {
                let has: Vec<_> =
                    config.listeners.iter().map(|l| listen_text(&l.address)).collect();
                Err(StartError::Unable(format!(
                    "the service manager passed a socket {name:?} for {address}, which is no listener's \
                     address (they are {}): write address = \"{address}\", or change the socket unit",
                    has.join(", ")
                )))
            }
        }
    }

    /// Makes the rings that engine `auto` may choose, since workers will not be allowed to; whether there are any.
    pub(super) fn prepare_rings(&mut self, config: &Config) -> bool {
        self.rings = rings(config);
        !self.rings.is_empty()
    }

    fn add(&mut self, asked: &Listen, address: BoundAddress, sockets: Vec<OwnedFd>) {
        self.listening.push(Listening { asked: asked.clone(), address, is_open: true });
        for (of_worker, socket) in self.sockets.iter_mut().zip(sockets) {
            of_worker.push(socket);
        }
    }
}

/// Whether a worker may come to want a ring though no route names it.
pub(super) fn chooses_rings(config: &Config) -> bool {
    config.routes.iter().any(|route| route.engine == Engine::Auto)
}

/// A ring for each worker, or none.
fn rings(config: &Config) -> Vec<Prepared> {
    if !chooses_rings(config) {
        return Vec::new();
    }
    let made: io::Result<Vec<_>> = (0..config.gateway.workers).map(|_| Prepared::new()).collect();
    made.unwrap_or_else(|error| {
        info!("engine auto does without a ring for many small messages: {error}");
        Vec::new()
    })
}

/// Binds sockets of our own, one for each worker.
pub(super) fn open(
    listen: &Listen,
    workers: usize,
    options: &TcpOptions,
) -> io::Result<(BoundAddress, Vec<OwnedFd>)> {
    match listen {
        Listen::Unix(path) => {
            let socket = net::listen_unix(path)?;
            Ok((BoundAddress::Unix(path.clone()), shared(socket, workers)?))
        }
        Listen::Tcp(asked) => {
            let first = net::listen_tcp(*asked, options)?;
            let address = net::local_address(first.as_fd()).unwrap_or(*asked);
            let mut sockets = vec![first];
            for _ in 1..workers {
                sockets.push(net::listen_tcp(address, options)?);
            }
            Ok((BoundAddress::Tcp(address), sockets))
        }
    }
}

/// One socket for all workers.
fn shared(socket: OwnedFd, workers: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = (1..workers).map(|_| socket.try_clone()).collect::<io::Result<Vec<_>>>()?;
    sockets.push(socket);
    Ok(sockets)
}

/// The passed sockets with their addresses, made as ours are.
fn taken_over(
    passed: Vec<Passed>,
    options: &TcpOptions,
) -> Result<Vec<(BoundAddress, Passed)>, StartError> {
    let take = |socket: Passed| match net::take_over(socket.fd.as_fd(), options) {
        Ok(net::Listening::Tcp(address)) => Ok((BoundAddress::Tcp(address), socket)),
        Ok(net::Listening::Unix(path)) => Ok((BoundAddress::Unix(path), socket)),
        Err(error) => Err(StartError::Unable(format!(
            "the service manager passed a socket {:?} that cannot be accepted from: {error}",
            socket.name
        ))),
    };
    passed.into_iter().map(take).collect()
}

pub(super) fn listen_text(address: &Listen) -> String {
    match address {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

impl BoundAddress {
    /// The port; `None` for a Unix socket.
    pub fn port(&self) -> Option<u16> {
        match self {
            BoundAddress::Tcp(address) => Some(address.port()),
            BoundAddress::Unix(_) => None,
        }
    }

    /// Whether this is where a listener should listen.
    fn is_for(&self, listen: &Listen) -> bool {
        match (self, listen) {
            (BoundAddress::Tcp(address), Listen::Tcp(asked)) => address == asked,
            (BoundAddress::Unix(path), Listen::Unix(asked)) => path == asked,
            _ => false,
        }
    }
}

impl std::fmt::Display for BoundAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BoundAddress::Tcp(address) => address.fmt(f),
            BoundAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl SocketFiles {
    /// Notes the file of a Unix listener of ours.
    pub(super) fn add(&self, address: &BoundAddress) {
        if let BoundAddress::Unix(path) = address {
            self.0.lock().expect("nothing panics with the lock held").push(path.clone());
        }
    }

    /// Removes the file of a listener that is closed, if it is ours.
    pub(super) fn remove_one(&self, path: &Path) {
        let mut files = self.0.lock().expect("nothing panics with the lock held");
        if let Some(at) = files.iter().position(|file| file == path) {
            // A file that somebody else removed is removed.
            let _ = std::fs::remove_file(files.swap_remove(at));
        }
    }

    pub(super) fn remove(&self) {
        for path in self.0.lock().expect("nothing panics with the lock held").drain(..) {
            // A file that somebody else removed is removed.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        self.remove();
    }
}
