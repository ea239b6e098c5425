//! A proxy in front of the gateway that nobody has told it of: all clients would be one, with one limit for all.

use std::net::IpAddr;
use std::sync::Once;

use tracing::warn;

use crate::config::Gateway;
use crate::http::head::RequestHead;

/// Warns, once in the life of the process, when `peer` looks like a local proxy and no proxy is trusted: it tells
/// of clients, and nobody believes it.
pub(super) fn look(gateway: &Gateway, peer: Option<IpAddr>, head: &RequestHead<'_>) {
    static TOLD: Once = Once::new();
    let Some(peer) = peer.filter(|peer| is_local(peer.to_canonical())) else { return };
    let tells = |name| head.fields().list(name).next().is_some();
    if gateway.trusted_proxies.is_empty() && (tells("x-forwarded-for") || tells("forwarded")) {
        TOLD.call_once(|| {
            warn!(
                "{peer} names clients (X-Forwarded-For) and is not trusted to: limits and logs take it for the \
                 one client; if it is your proxy, set [gateway] trusted_proxies = [\"{peer}\"]"
            );
        });
    }
}

/// Whether this is an address of this machine, or of a private network.
fn is_local(peer: IpAddr) -> bool {
    match peer {
        IpAddr::V4(peer) => peer.is_loopback() || peer.is_private() || peer.is_link_local(),
        IpAddr::V6(peer) => {
            peer.is_loopback() || peer.is_unique_local() || peer.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_are_loopback_and_private_networks() {
        for (peer, expected) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("172.16.0.1", true),
            ("169.254.1.1", true),
            ("::1", true),
            ("fd00::1", true),
            ("fe80::1", true),
            ("192.0.2.1", false),
            ("172.32.0.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_local(peer.parse().unwrap()), expected, "{peer}");
        }
    }
}
