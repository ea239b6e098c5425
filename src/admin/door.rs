//! Where operators come in, and who is heard.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use crate::config::{Config, Listen, Token};
use crate::sys::credentials::{self, Identity};
use crate::sys::net;

/// Only the owner may connect.
const SOCKET_MODE: u32 = 0o600;
/// Everybody may see where the socket is.
const FOLDER_MODE: u32 = 0o755;

/// Where the API answers: port 0 has become a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// IPv4 or IPv6.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

/// A listening socket, and what those who come must show.
#[derive(Debug)]
pub struct Door {
    address: Address,
    socket: OwnedFd,
    token: Option<Token>,
}

/// The same within a runtime.
pub(super) struct Entrance(Listener);

enum Listener {
    Tcp(TcpListener),
    Unix { listener: UnixListener, own: u32 },
}

/// A connection of somebody who may be heard, once a token was shown where one is needed.
pub(super) type Visitor = Pin<Box<dyn Duplex>>;

/// What a connection is read from and written to.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

impl Door {
    /// Binds and listens where the configuration says; `None` when it says nothing. A stale socket file is replaced, a
    /// missing folder made.
    ///
    /// # Errors
    ///
    /// The place is taken, or may not be taken.
    pub fn open(config: &Config) -> Option<io::Result<Door>> {
        let gateway = &config.gateway;
        let at = gateway.admin.as_ref()?;
        // Bound as root, it is for the user that the gateway will be.
        let owner = gateway.user.as_deref().filter(|_| credentials::is_root());
        Some(Door::open_for(at, gateway.admin_token.clone(), owner, gateway.group.as_deref()))
    }

    fn open_for(
        at: &Listen,
        token: Option<Token>,
        owner: Option<&str>,
        group: Option<&str>,
    ) -> io::Result<Door> {
        match at {
            Listen::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address)?;
                listener.set_nonblocking(true)?;
                let address = Address::Tcp(listener.local_addr()?);
                Ok(Door { address, socket: listener.into(), token })
            }
            Listen::Unix(path) => {
                let owner = owner.map(|user| Identity::find(user, group)).transpose()?;
                let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
                if let Some(folder) = folder.filter(|folder| !folder.exists()) {
                    DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
                    give(folder, owner.as_ref())?;
                }
                let socket = listen_privately(path, owner.as_ref())?;
                Ok(Door { address: Address::Unix(path.clone()), socket, token: None })
            }
        }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Goes on in the runtime of this thread. The token is for each request.
    pub(super) fn enter(self) -> io::Result<(Entrance, Option<Token>)> {
        let listener = match &self.address {
            Address::Tcp(_) => Listener::Tcp(TcpListener::from_std(self.socket.into())?),
            Address::Unix(_) => Listener::Unix {
                listener: UnixListener::from_std(self.socket.into())?,
                own: credentials::effective_user(),
            },
        };
        Ok((Entrance(listener), self.token))
    }
}

fn give(path: &Path, owner: Option<&Identity>) -> io::Result<()> {
    match owner {
        Some(owner) => chown(path, Some(owner.user), Some(owner.group)),
        None => Ok(()),
    }
}

/// Between bind and listen nobody can connect, so nobody comes before the mode is set.
fn listen_privately(path: &Path, owner: Option<&Identity>) -> io::Result<OwnedFd> {
    net::listen_unix_after(path, || {
        std::fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE))?;
        give(path, owner)
    })
}

impl Entrance {
    /// The next connection; `None` is somebody who is not heard.
    pub fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Visitor>>> {
        match &self.0 {
            Listener::Tcp(listener) => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                Poll::Ready(Ok(Some(Box::pin(stream))))
            }
            Listener::Unix { listener, own } => {
                let (stream, _) = ready!(listener.poll_accept(cx))?;
                let user = stream.peer_cred()?.uid();
                let is_heard = user == 0 || user == *own;
                Poll::Ready(Ok(is_heard.then(|| Box::pin(stream) as Visitor)))
            }
        }
    }
}

/// Whether `authorization` brings the token along. How long that takes tells nothing of the token but its length.
pub(super) fn is_known(token: &Token, authorization: Option<&[u8]>) -> bool {
    let bearer = authorization.and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(rest)
    });
    bearer.is_some_and(|secret| secret.ct_eq(token.secret().as_bytes()).into())
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}
