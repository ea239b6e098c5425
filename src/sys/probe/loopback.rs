//! Connected TCP sockets to try things on, with every wait bounded.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};

use socket2::Socket;

use super::why::{Ability, Why};
use super::{Host, WAIT_MAX};

/// A listener on a loopback address and its address; IPv6 where there is no IPv4.
pub(super) fn listener(host: &Host) -> Result<(TcpListener, SocketAddr), Why> {
    let refused = |error| Why::refused("bind", &error, host);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .or_else(|_| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)))
        .map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

/// Both ends of a TCP connection over loopback; reads and writes on them wait [`WAIT_MAX`] at most.
pub(super) fn pair(host: &Host) -> Result<(TcpStream, TcpStream), Why> {
    let (listener, address) = listener(host)?;
    let near = connect(address, host)?;
    // SO_RCVTIMEO bounds accept(2) too: a filter on loopback may drop the handshake's last packet.
    let listener = Socket::from(listener);
    let accepted = || -> io::Result<TcpStream> {
        listener.set_read_timeout(Some(WAIT_MAX))?;
        let far = TcpStream::from(listener.accept()?.0);
        bound_waits(&far)?;
        // The port is open to everybody on this machine: somebody else may have come first.
        match far.peer_addr()? == near.local_addr()? {
            true => Ok(far),
            false => Err(io::Error::other("another process connected to the probe's port")),
        }
    };
    let far = accepted().map_err(|error| Why::refused("accept", &error, host))?;
    Ok((near, far))
}

/// A connection to `address`, its waits bounded.
pub(super) fn connect(address: SocketAddr, host: &Host) -> Result<TcpStream, Why> {
    TcpStream::connect_timeout(&address, WAIT_MAX)
        .and_then(|stream| bound_waits(&stream).map(|()| stream))
        .map_err(|error| Why::refused("connect", &error, host))
}

/// The answer of `attempt` on a pair; without a pair there is none.
pub(super) fn on_pair(
    host: &Host,
    attempt: impl FnOnce(TcpStream, TcpStream) -> Result<(), Why>,
) -> Ability {
    match pair(host) {
        Ok((near, far)) => Ability::from_attempt(attempt(near, far)),
        Err(why) => Ability::Untried(why),
    }
}

fn bound_waits(stream: &TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(WAIT_MAX))?;
    stream.set_write_timeout(Some(WAIT_MAX))
}
