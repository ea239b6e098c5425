//! Where the gateway listens: sockets of its own, and those that a service manager has opened for it.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::{StartError, tcp_options};
use crate::admin::Door;
use crate::config::{Config, Listen};
use crate::sys::activation::Passed;
use crate::sys::net::{self, TcpOptions};

/// Where a listener really listens: port 0 has become a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BoundAddress {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

/// Listening sockets, by worker, then in the order of the configuration.
#[derive(Debug)]
pub struct Bound {
    pub(super) addresses: Vec<BoundAddress>,
    pub(super) sockets: Vec<Vec<OwnedFd>>,
    pub(super) socket_files: SocketFiles,
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
            addresses: Vec::new(),
            sockets: (0..config.gateway.workers).map(|_| Vec::new()).collect(),
            socket_files: SocketFiles::default(),
            admin: None,
        };
        for listener in &config.listeners {
            let text = || listen_text(&listener.address);
            let fail = |source| StartError::Listen { address: text(), source };
            match passed.iter().position(|(address, ..)| address.is_for(&listener.address)) {
                Some(at) => {
                    let (address, Passed { fd, .. }) = passed.swap_remove(at);
                    bound.share(address, fd).map_err(fail)?;
                }
                None => bound.open(&listener.address, &options).map_err(fail)?,
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

    /// Binds sockets of our own.
    fn open(&mut self, listen: &Listen, options: &TcpOptions) -> io::Result<()> {
        match listen {
            Listen::Unix(path) => {
                let first = net::listen_unix(path)?;
                self.socket_files.add(path);
                self.share(BoundAddress::Unix(path.clone()), first)
            }
            Listen::Tcp(asked) => {
                let first = net::listen_tcp(*asked, options)?;
                let address = net::local_address(first.as_fd()).unwrap_or(*asked);
                for sockets in &mut self.sockets[1..] {
                    sockets.push(net::listen_tcp(address, options)?);
                }
                self.sockets[0].push(first);
                self.addresses.push(BoundAddress::Tcp(address));
                Ok(())
            }
        }
    }

    /// Gives one socket to all workers.
    fn share(&mut self, address: BoundAddress, socket: OwnedFd) -> io::Result<()> {
        for sockets in &mut self.sockets[1..] {
            sockets.push(socket.try_clone()?);
        }
        self.sockets[0].push(socket);
        self.addresses.push(address);
        Ok(())
    }
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
    fn add(&self, path: &Path) {
        self.0.lock().expect("nothing panics with the lock held").push(path.to_owned());
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
