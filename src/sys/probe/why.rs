//! The answer to one attempt, and the likely cause of a refusal.

use std::io;

use serde::Serialize;

use super::Host;

/// The answer to one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "ability", rename_all = "lowercase")]
pub enum Ability {
    /// It was tried and did what it should.
    Yes,
    /// It was tried and refused, or did something else.
    No(Why),
    /// Something it needs was missing, so this says nothing about the thing itself.
    Untried(Why),
}

/// Which call failed, how, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Why {
    /// The system call, with its option where that matters: `splice`, `setsockopt TCP_ULP`.
    pub call: &'static str,
    /// The name of the errno; `None` when the call succeeded but its effect was wrong.
    pub errno: Option<String>,
    /// What happened, in words.
    pub message: String,
    /// The likely cause on this host and what changes it; empty when nothing is known.
    pub hint: String,
}

impl Ability {
    /// True exactly when it was tried and works.
    pub fn works(&self) -> bool {
        matches!(self, Ability::Yes)
    }

    /// Why it does not work or was not tried.
    pub fn why(&self) -> Option<&Why> {
        match self {
            Ability::Yes => None,
            Ability::No(why) | Ability::Untried(why) => Some(why),
        }
    }

    /// The answer that an attempt gave: a failure is a refusal.
    pub(super) fn from_attempt(attempt: Result<(), Why>) -> Ability {
        match attempt {
            Ok(()) => Ability::Yes,
            Err(why) => Ability::No(why),
        }
    }
}

impl Why {
    /// `call` failed with `error`.
    pub(super) fn refused(call: &'static str, error: &io::Error, host: &Host) -> Why {
        let errno = error.raw_os_error();
        Why {
            call,
            errno: errno.map(errno_name),
            message: match errno {
                Some(_) => plain_message(error),
                None => error.to_string(),
            },
            hint: errno.map_or_else(String::new, |errno| hint(call, errno, host)),
        }
    }

    /// `call` succeeded, but not with the effect it should have.
    pub(super) fn wrong(call: &'static str, message: impl Into<String>) -> Why {
        Why { call, errno: None, message: message.into(), hint: String::new() }
    }
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.errno {
            Some(errno) => write!(f, "{}: {errno}: {}", self.call, self.message)?,
            None => write!(f, "{}: {}", self.call, self.message)?,
        }
        if !self.hint.is_empty() {
            write!(f, " ({})", self.hint)?;
        }
        Ok(())
    }
}

/// The likely cause of `errno` from `call` here. The order matters: a switch that is known to be
/// off explains more than a filter that is only known to be there.
fn hint(call: &str, errno: i32, host: &Host) -> String {
    let uring = call.starts_with("io_uring");
    match (errno, host.io_uring_disabled) {
        (libc::EMFILE, _) => return "no descriptor is free: raise the nofile limit".into(),
        (libc::ENFILE, _) => return "the system's descriptors are used up: fs.file-max".into(),
        (libc::EPERM | libc::EACCES, Some(level @ (1 | 2))) if uring => {
            return format!(
                "kernel.io_uring_disabled is {level}: sysctl -w kernel.io_uring_disabled=0"
            );
        }
        (libc::ENOMEM, _) if uring => {
            return "kernels before 5.12 count rings as memlock: raise it".into();
        }
        (libc::ENOENT, _) if call == ULP => {
            return "the kernel has no tls module loaded: modprobe tls, or CONFIG_TLS".into();
        }
        (libc::EPERM, _) if call == "fcntl F_SETPIPE_SZ" => {
            return "the user's pipe pages are used up, or the size is above fs.pipe-max-size"
                .into();
        }
        (libc::EADDRNOTAVAIL | libc::ENETUNREACH, _) => {
            return "is the loopback interface up?".into();
        }
        _ => {}
    }
    let filtered = matches!(host.seccomp_mode, Some(1 | 2));
    match errno {
        libc::EPERM | libc::EACCES | libc::ENOSYS | libc::EINVAL if filtered => {
            "a seccomp filter is active: the container's or service's profile may refuse it, or the \
             sandbox of the gateway itself"
                .into()
        }
        libc::EPERM | libc::EACCES => "a security module or sandbox refuses it".into(),
        libc::ENOSYS => "this kernel, or what emulates it, does not have it".into(),
        libc::EINVAL | libc::ENOPROTOOPT | libc::EOPNOTSUPP => {
            "this kernel does not know it".into()
        }
        _ => String::new(),
    }
}

/// The names that occur here; others keep their number.
fn errno_name(errno: i32) -> String {
    let name = match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::EBADF => "EBADF",
        libc::EAGAIN => "EAGAIN",
        libc::ENOMEM => "ENOMEM",
        libc::EACCES => "EACCES",
        libc::EBUSY => "EBUSY",
        libc::EINVAL => "EINVAL",
        libc::ENFILE => "ENFILE",
        libc::EMFILE => "EMFILE",
        libc::ENOSYS => "ENOSYS",
        libc::ETIME => "ETIME",
        libc::ENOPROTOOPT => "ENOPROTOOPT",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EADDRINUSE => "EADDRINUSE",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ENOBUFS => "ENOBUFS",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        _ => return format!("errno {errno}"),
    };
    name.to_owned()
}

/// The words of `error` without std's "(os error 1)", which the errno's name already says.
fn plain_message(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// The attempt at kTLS, as it is named in a [`Why`].
pub(super) const ULP: &str = "setsockopt TCP_ULP";

#[cfg(test)]
mod tests {
    use super::*;

    fn why(call: &'static str, errno: i32, host: &Host) -> Why {
        Why::refused(call, &io::Error::from_raw_os_error(errno), host)
    }

    #[test]
    fn a_refusal_names_the_call_the_errno_and_the_words_once() {
        let why = why("splice", libc::ENOSYS, &Host::default());
        assert_eq!(why.errno.as_deref(), Some("ENOSYS"));
        assert_eq!(
            why.to_string(),
            "splice: ENOSYS: Function not implemented \
             (this kernel, or what emulates it, does not have it)"
        );
    }

    #[test]
    fn the_hint_names_the_cause_that_this_host_shows() {
        let open = Host::default();
        let filtered = Host { seccomp_mode: Some(2), ..Host::default() };
        let disabled =
            Host { seccomp_mode: Some(2), io_uring_disabled: Some(2), ..Host::default() };
        let allowed = Host { seccomp_mode: Some(2), io_uring_disabled: Some(0), ..Host::default() };
        for (call, errno, host, part) in [
            ("splice", libc::EPERM, &open, "security module"),
            ("splice", libc::EPERM, &filtered, "seccomp"),
            ("splice", libc::ENOSYS, &filtered, "seccomp"),
            ("splice", libc::EINVAL, &filtered, "seccomp"),
            ("splice", libc::EPERM, &disabled, "seccomp"),
            ("splice", libc::EINVAL, &open, "does not know it"),
            ("io_uring_setup", libc::EPERM, &disabled, "io_uring_disabled is 2"),
            ("io_uring_setup", libc::EPERM, &allowed, "seccomp"),
            ("io_uring_setup", libc::ENOMEM, &open, "memlock"),
            ("pipe2", libc::EMFILE, &filtered, "nofile"),
            (ULP, libc::ENOENT, &filtered, "modprobe tls"),
            ("connect", libc::ENETUNREACH, &open, "loopback"),
        ] {
            let hint = why(call, errno, host).hint;
            assert!(hint.contains(part), "{call} {errno}: {hint:?} lacks {part:?}");
        }
    }

    #[test]
    fn an_errno_without_a_name_keeps_its_number() {
        assert_eq!(errno_name(4095), "errno 4095");
    }
}
