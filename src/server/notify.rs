//! What the service manager is told, in the words of sd_notify(3): one datagram per message, to the socket that
//! `NOTIFY_SOCKET` names.
//!
//! The socket is connected once, before the sandbox closes the ways to other sockets; that, and that it fits on
//! a page, is why it is done here and not by a package, which would connect anew for each message. Whoever is
//! not told, since there is no manager or it does not listen, misses nothing: no message is worth an error.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tracing::warn;

use super::Gateway;
use crate::sys::clock;

/// A manager that does not read must not hold up the gateway for longer.
const WRITE_MAX: Duration = Duration::from_secs(1);
/// Between two looks at what there is to say, where the manager does not ask for a shorter one.
const PERIOD: Duration = Duration::from_secs(5);

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    socket: Option<UnixDatagram>,
    /// The manager kills a service that is silent for so long.
    watchdog: Option<Duration>,
    /// The last status, which is not said twice.
    status: RefCell<String>,
    stops: Cell<bool>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    pub fn from_environment() -> Notifier {
        let Some(address) = std::env::var_os("NOTIFY_SOCKET") else { return Notifier::default() };
        match connect(&address) {
            Ok(socket) => {
                let variable = |name| std::env::var(name).ok();
                let watchdog = watchdog(
                    variable("WATCHDOG_USEC").as_deref(),
                    variable("WATCHDOG_PID").as_deref(),
                    std::process::id(),
                );
                Notifier { socket: Some(socket), watchdog, ..Notifier::default() }
            }
            Err(error) => {
                warn!(?address, %error, "cannot reach the service manager; it is told nothing");
                Notifier::default()
            }
        }
    }

    /// All listeners accept. Also ends what [`reloading`](Notifier::reloading) began.
    pub fn ready(&self, gateway: &Gateway) {
        let status = self.news(self.summary(gateway)).unwrap_or_default();
        self.say(&format!("READY=1\n{status}"));
    }

    /// The configuration is read anew; [`ready`](Notifier::ready) says when that has ended. systemd compares the
    /// time with that of its own request, and takes a message without it for an old one.
    pub fn reloading(&self) {
        self.say(&reloading(clock::monotonic()));
    }

    /// The stop has begun.
    pub fn stopping(&self, gateway: &Gateway) {
        self.stops.set(true);
        let status = self.news(self.summary(gateway)).unwrap_or_default();
        self.say(&format!("STOPPING=1\n{status}"));
    }

    /// What an operator wants to know first.
    fn summary(&self, gateway: &Gateway) -> String {
        let metrics = gateway.metrics();
        let parts = gateway.drains().into_iter().filter(|(drain, _)| !drain.what().stops());
        let parts = parts.map(|(drain, left)| format!(", draining {}, {left} left", drain.what()));
        format!(
            "{}{}, {}, {}, {}{}",
            if self.stops.get() { "draining: " } else { "" },
            counted(metrics.sessions_open, "session"),
            counted(metrics.connections_open, "connection"),
            counted(gateway.workers.len() as u64, "worker"),
            gateway.engines(),
            parts.collect::<String>(),
        )
    }

    /// One line for people.
    fn status(&self, text: String) {
        if let Some(status) = self.news(text) {
            self.say(&status);
        }
    }

    /// The message about this status, unless it is the one that was said last.
    fn news(&self, text: String) -> Option<String> {
        let status = format!("STATUS={text}\n");
        (self.status.replace(text) != *self.status.borrow()).then_some(status)
    }

    fn say(&self, message: &str) {
        if let Some(socket) = &self.socket {
            // It does not listen now; the next message will show whether it does again.
            let _ = socket.send(message.as_bytes());
        }
    }

    /// Says how the gateway is doing, and while all of its workers answer also that it is alive, for ever. A
    /// stalled worker ends the feed: the others would go on, but its sessions and every connection that the
    /// kernel deals out to it would not.
    pub async fn watch(&self, gateway: &Gateway) -> Infallible {
        if self.socket.is_none() {
            return std::future::pending().await;
        }
        let period = self.watchdog.map_or(PERIOD, |watchdog| watchdog / 2);
        loop {
            if self.watchdog.is_some() {
                // The answers take their time out of the period, so a slow one does not delay the next look.
                let until = tokio::time::Instant::now() + period;
                let silent = gateway.silent_workers(until).await;
                match silent[..] {
                    [] => {
                        self.say("WATCHDOG=1");
                        self.status(self.summary(gateway));
                    }
                    [..] => self.status(format!("{} no answer", names(&silent))),
                }
                tokio::time::sleep_until(until).await;
            } else {
                self.status(self.summary(gateway));
                tokio::time::sleep(period).await;
            }
        }
    }
}

fn counted(number: u64, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

fn names(workers: &[usize]) -> String {
    let names: Vec<String> = workers.iter().map(|index| format!("worker-{index}")).collect();
    match names.len() {
        1 => format!("{} gives", names[0]),
        _ => format!("{} give", names.join(", ")),
    }
}

fn reloading(now: Duration) -> String {
    format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros())
}

/// A path, or behind `@` the name of an abstract socket.
fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(address)?,
        _ => return Err(io::Error::other("neither a path nor an abstract socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_write_timeout(Some(WRITE_MAX))?;
    Ok(socket)
}

/// The watchdog's time, if it is meant for this process.
fn watchdog(microseconds: Option<&str>, of: Option<&str>, own: u32) -> Option<Duration> {
    if of.is_some_and(|of| of.parse() != Ok(own)) {
        return None;
    }
    let microseconds = microseconds?.parse().ok().filter(|number| *number > 0)?;
    Some(Duration::from_micros(microseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watchdog_is_ours_when_it_names_us_or_nobody() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), None, 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("7"), 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("8"), 7), None);
        assert_eq!(watchdog(Some("1000000"), Some("x"), 7), None);
        assert_eq!(watchdog(Some("0"), None, 7), None);
        assert_eq!(watchdog(Some("soon"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn a_reload_carries_its_time_in_microseconds() {
        let message = reloading(Duration::new(3, 4_005));
        assert_eq!(message, "RELOADING=1\nMONOTONIC_USEC=3000004");
    }

    #[test]
    fn a_reload_reaches_the_socket_and_a_status_is_not_said_twice() {
        let (manager, socket) = UnixDatagram::pair().expect("a pair");
        let notifier = Notifier { socket: Some(socket), ..Notifier::default() };
        let before = clock::monotonic().as_micros();
        notifier.reloading();
        notifier.status("one".into());
        notifier.status("one".into());
        notifier.status("two".into());
        let mut buffer = [0; 256];
        let mut next = || {
            let length = manager.recv(&mut buffer).expect("a datagram");
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        let reload = next();
        let time = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("both lines");
        assert!(time.parse::<u128>().expect("a number") >= before);
        assert_eq!([next(), next()], ["STATUS=one\n", "STATUS=two\n"]);
    }

    #[test]
    fn an_address_that_is_neither_path_nor_abstract_is_refused() {
        assert!(connect(OsStr::new("vsock:2:1234")).is_err());
        assert!(connect(OsStr::new("/nonexistent/notify")).is_err());
    }
}
