//! Options of TCP sockets, each set for real: kTLS, `SO_REUSEPORT`, `TCP_USER_TIMEOUT`.

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::why::{Ability, ULP, Why};
use super::{Host, loopback};

/// `TCP_ULP` "tls". It needs an ESTABLISHED socket: on any other the answer is ENOTCONN whatever
/// the kernel has.
pub(super) fn ktls(host: &Host) -> Ability {
    loopback::on_pair(host, |near, _far| {
        let name = *b"tls";
        // JUSTIFICATION: socket2 has no TCP_ULP.
        // SAFETY: `near` is open during the call; the pointer and the length describe the live
        // array `name`, which the kernel copies before it returns.
        let answer = unsafe {
            libc::setsockopt(
                near.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_ULP,
                name.as_ptr().cast(),
                name.len() as libc::socklen_t,
            )
        };
        match answer {
            0 => Ok(()),
            _ => Err(Why::refused(ULP, &io::Error::last_os_error(), host)),
        }
    })
}

/// Two listeners on one port.
pub(super) fn reuseport(host: &Host) -> Ability {
    let address = match loopback::listener(host) {
        // The port was free a moment ago, and says which address family works here.
        Ok((_, address)) => address,
        Err(why) => return Ability::Untried(why),
    };
    let listen = |port: u16| -> Result<Socket, Why> {
        let step =
            |call, result: io::Result<()>| result.map_err(|error| Why::refused(call, &error, host));
        let mut address = address;
        address.set_port(port);
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)
            .map_err(|error| Why::refused("socket", &error, host))?;
        step("setsockopt SO_REUSEPORT", socket.set_reuse_port(true))?;
        step("bind", socket.bind(&address.into()))?;
        step("listen", socket.listen(1))?;
        Ok(socket)
    };
    let both = || {
        let first = listen(0)?;
        let bound = first.local_addr().map_err(|e| Why::refused("getsockname", &e, host))?;
        let port = bound.as_socket().map_or(0, |bound| bound.port());
        listen(port).map(drop)
    };
    Ability::from_attempt(both())
}

/// `TCP_USER_TIMEOUT`, read back.
pub(super) fn user_timeout(host: &Host) -> Ability {
    const CALL: &str = "setsockopt TCP_USER_TIMEOUT";
    let timeout = Some(Duration::from_secs(30));
    loopback::on_pair(host, |near, _far| {
        let socket = SockRef::from(&near);
        socket.set_tcp_user_timeout(timeout).map_err(|e| Why::refused(CALL, &e, host))?;
        match socket.tcp_user_timeout() {
            Ok(kept) if kept == timeout => Ok(()),
            Ok(kept) => Err(Why::wrong(CALL, format!("30 s was set, {kept:?} is kept"))),
            Err(error) => Err(Why::refused("getsockopt TCP_USER_TIMEOUT", &error, host)),
        }
    })
}
