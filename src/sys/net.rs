//! Sockets: listening, accepting and connecting, all non-blocking and close-on-exec from birth.
//!
//! <https://man7.org/linux/man-pages/man2/accept4.2.html>, <https://man7.org/linux/man-pages/man2/connect.2.html>.

use std::io;
use std::mem;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use super::reactor::Reactor;
use super::stream::Stream;
use super::{Errno, cvt, sockopt};

/// Options of a TCP socket, both legs.
#[derive(Clone, Copy, Debug)]
pub struct TcpOptions {
    /// `TCP_NODELAY`.
    pub nodelay: bool,
    /// Idle time before the first keepalive probe; `None`: no keepalive.
    pub keepalive: Option<Duration>,
    /// Time between probes.
    pub keepalive_interval: Duration,
    /// Unanswered probes until the connection is dropped.
    pub keepalive_probes: u32,
    /// `TCP_USER_TIMEOUT`; `None`: the kernel's.
    pub user_timeout: Option<Duration>,
}

impl TcpOptions {
    /// Sets all of them. A listener hands them on to the sockets it accepts, so it pays once.
    fn apply(&self, socket: &Socket) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        self.apply_liveness(socket)
    }

    /// The same for a connect. No peer on this very machine can vanish without a FIN or a reset, so the
    /// options that find out are left away there: they are most of the calls that make a socket.
    fn apply_for(&self, socket: &Socket, address: SocketAddr) -> io::Result<()> {
        socket.set_tcp_nodelay(self.nodelay)?;
        if address.ip().is_loopback() { Ok(()) } else { self.apply_liveness(socket) }
    }

    fn apply_liveness(&self, socket: &Socket) -> io::Result<()> {
        if let Some(idle) = self.keepalive {
            let mut keepalive =
                TcpKeepalive::new().with_time(idle).with_interval(self.keepalive_interval);
            if self.user_timeout.is_none() {
                // With a user timeout the kernel counts time, not probes (tcp(7)).
                keepalive = keepalive.with_retries(self.keepalive_probes);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        if self.user_timeout.is_some() {
            socket.set_tcp_user_timeout(self.user_timeout)?;
        }
        Ok(())
    }
}

/// Connections that wait to be accepted; the kernel caps it at `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A TCP listener that shares its port with the other workers' (`SO_REUSEPORT`).
pub fn listen_tcp(address: SocketAddr, options: &TcpOptions) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        // One address, one family: `[::]` beside `0.0.0.0` is then no conflict.
        socket.set_only_v6(true)?;
    }
    options.apply(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A Unix listener. A socket file that nobody listens on any more is replaced; any other file is not.
pub fn listen_unix(path: &Path) -> io::Result<OwnedFd> {
    listen_unix_after(path, || Ok(()))
}

/// The same; `bound` is called when the file is there and nobody can connect yet.
pub fn listen_unix_after(
    path: &Path,
    bound: impl FnOnce() -> io::Result<()>,
) -> io::Result<OwnedFd> {
    let address = SockAddr::unix(path)?;
    let stale = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket())
        && Socket::new(Domain::UNIX, Type::STREAM, None)?
            .connect(&address)
            .is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused);
    if stale {
        std::fs::remove_file(path)?;
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.bind(&address)?;
    bound()?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Where a socket listens that somebody else opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

/// Makes a listening socket that somebody else opened one like ours, and says where it listens.
///
/// # Errors
///
/// It is no listening stream socket, or of a family that we do not serve.
pub fn take_over(socket: BorrowedFd<'_>, options: &TcpOptions) -> io::Result<Listening> {
    let socket = SockRef::from(&socket);
    if socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a listening stream socket"));
    }
    let address = socket.local_addr()?;
    socket.set_nonblocking(true)?;
    match (address.as_socket(), address.as_pathname()) {
        (Some(address), _) => {
            options.apply(&socket)?;
            Ok(Listening::Tcp(address))
        }
        (None, Some(path)) => Ok(Listening::Unix(path.to_owned())),
        (None, None) => {
            let wrong = "neither an IP address nor a path";
            Err(io::Error::new(io::ErrorKind::InvalidInput, wrong))
        }
    }
}

/// The TCP address that a socket is bound to; `None` for a Unix socket.
pub fn local_address(socket: BorrowedFd<'_>) -> Option<SocketAddr> {
    SockRef::from(&socket).local_addr().ok()?.as_socket()
}

/// A listening socket, registered with the worker's reactor.
#[derive(Debug)]
pub struct Acceptor {
    /// There until this is dropped.
    socket: Option<Stream>,
}

impl Acceptor {
    /// Registers a listening socket.
    ///
    /// # Errors
    ///
    /// epoll_ctl(2): no memory, or no room in epoll.
    pub fn new(fd: OwnedFd, reactor: &Rc<Reactor>) -> io::Result<Acceptor> {
        Ok(Acceptor { socket: Some(Stream::new(fd, reactor)?) })
    }

    /// The next connection and, over TCP, its peer; pending when none is there.
    pub fn poll_accept(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<(OwnedFd, Option<SocketAddr>)>> {
        let socket = self.socket.as_ref().expect("it is there until the drop");
        loop {
            ready!(socket.poll_readable(cx));
            match accept(socket.as_fd()) {
                Err(error) if Errno::of(&error) == Errno::Again => socket.clear_readable(),
                result => return Poll::Ready(result),
            }
        }
    }

    /// The next connection if one is there now.
    pub fn accept_now(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        accept(self.socket.as_ref().expect("it is there until the drop").as_fd())
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        // Deregistered in order, since other workers may hold descriptors of the same Unix listener.
        drop(self.socket.take().map(Stream::into_fd));
    }
}

fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let accept = |storage: *mut _, len: *mut libc::socklen_t| {
        // SAFETY: socket2 passes storage that is large enough for every address, and its length.
        let fd = cvt(unsafe {
            libc::accept4(
                listener.as_raw_fd(),
                storage,
                len,
                libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            )
        } as isize)?;
        Ok(fd as i32)
    };
    // SAFETY: on success accept4 has filled in the address and its length.
    let (fd, address) = unsafe { SockAddr::try_init(|storage, len| accept(storage.cast(), len)) }?;
    // SAFETY: accept4 returned a new descriptor that nothing else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    Ok((socket, address.as_socket()))
}

/// What an accept error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptFault {
    /// The connection is gone before it was taken (`ECONNABORTED`, a pending network error): take the next.
    Connection,
    /// No descriptors or memory (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`): wait, some will come back.
    Shortage,
}

/// Tells a broken connection from a shortage; accept(2) "Error handling".
pub fn accept_fault(error: &io::Error) -> AcceptFault {
    match error.raw_os_error() {
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EPERM) => {
            AcceptFault::Shortage
        }
        _ => AcceptFault::Connection,
    }
}

/// Where to connect.
#[derive(Clone, Copy, Debug)]
pub enum Target<'a> {
    /// IPv4 or IPv6.
    Tcp(SocketAddr, &'a TcpOptions),
    /// A Unix stream socket.
    Unix(&'a Path),
}

/// Starts a connect, over TCP from `source` if there is one. The socket is connected when a write is possible and
/// `SO_ERROR` is 0.
///
/// # Errors
///
/// `EAGAIN` from a Unix socket means that its backlog is full: nothing was started. `EADDRNOTAVAIL` means that no
/// local port is left for this pair of addresses, or that `source` is not of this machine.
pub fn start_connect(target: Target<'_>, source: Option<IpAddr>) -> io::Result<OwnedFd> {
    let (socket, address) = match target {
        Target::Tcp(address, options) => {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
            options.apply_for(&socket, address)?;
            if let Some(source) = source {
                // With the port left to the connect, which knows the other end too: else a port that one
                // connection uses would be lost to all others.
                sockopt::bind_address_no_port(socket.as_fd())?;
                socket.bind(&SocketAddr::new(source, 0).into())?;
            }
            (socket, SockAddr::from(address))
        }
        Target::Unix(path) => {
            (Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?, SockAddr::unix(path)?)
        }
    };
    match socket.connect(&address) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// How many descriptors this process may have open: soft and hard limit.
pub fn nofile_limit() -> io::Result<(u64, u64)> {
    // SAFETY: rlimit is plain old data; all zeroes is a value of it.
    let mut limit: libc::rlimit = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes one rlimit.
    cvt(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } as isize)?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

/// How many descriptors this process has open, of those below `below`: asked one by one, since /proc may be hidden.
pub fn open_descriptors(below: u64) -> u64 {
    let below = i32::try_from(below).unwrap_or(i32::MAX);
    // SAFETY: F_GETFD takes no argument and changes nothing, whatever the number is.
    let is_open = |fd: &i32| unsafe { libc::fcntl(*fd, libc::F_GETFD) } >= 0;
    (0..below).filter(is_open).count() as u64
}

/// Raises the soft limit of open descriptors to the hard limit: a session takes two.
pub fn raise_nofile_limit() -> io::Result<u64> {
    let (_, hard) = nofile_limit()?;
    let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: the kernel only reads one rlimit.
    cvt(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } as isize)?;
    Ok(hard)
}
