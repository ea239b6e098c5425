//! Sockets that a service manager opened for us, as sd_listen_fds(3) hands them over: descriptors from 3 on, and
//! environment variables that say how many, for which process, and how each is named.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use super::cvt;

/// `SD_LISTEN_FDS_START`
const FIRST: RawFd = 3;

/// A descriptor that came with the process.
#[derive(Debug)]
pub struct Passed {
    /// Close-on-exec from now on.
    pub fd: OwnedFd,
    /// `FileDescriptorName=` of the unit; "unknown" when the manager does not name it.
    pub name: String,
}

/// Whether these descriptors were taken: each has one owner.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes what `LISTEN_FDS` announces for this process; nothing the second time.
///
/// # Errors
///
/// The variables contradict themselves, or a descriptor is not open.
pub fn take() -> io::Result<Vec<Passed>> {
    let variable = |name| std::env::var(name).ok();
    let (pid, count, names) =
        (variable("LISTEN_PID"), variable("LISTEN_FDS"), variable("LISTEN_FDNAMES"));
    let names = announced(pid.as_deref(), count.as_deref(), names.as_deref(), std::process::id())?;
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let number = |at: usize| RawFd::try_from(at).map(|at| FIRST + at).expect("there are few");
    // All of them before any is owned: a wrong number must not close what is somebody else's.
    for at in 0..names.len() {
        // SAFETY: the call takes no pointer, and a number that is no descriptor is an EBADF.
        cvt(unsafe { libc::fcntl(number(at), libc::F_SETFD, libc::FD_CLOEXEC) } as isize)?;
    }
    let own = |(at, name)| {
        // SAFETY: the descriptor is open, as fcntl said; it was there before the program opened anything, the
        // manager says that it is meant for this process, and `TAKEN` keeps it from being owned twice.
        let fd = unsafe { OwnedFd::from_raw_fd(number(at)) };
        Passed { fd, name }
    };
    Ok(names.into_iter().enumerate().map(own).collect())
}

/// The names of the descriptors that are meant for the process `own`.
fn announced(
    pid: Option<&str>,
    count: Option<&str>,
    names: Option<&str>,
    own: u32,
) -> io::Result<Vec<String>> {
    let (Some(pid), Some(count)) = (pid, count) else { return Ok(Vec::new()) };
    // Inherited from a parent that was activated: these are its numbers, not ours.
    if pid.parse() != Ok(own) {
        return Ok(Vec::new());
    }
    let wrong = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    let Ok(count) = count.parse::<u16>() else { return wrong("LISTEN_FDS is no number") };
    let Some(names) = names else { return Ok(vec!["unknown".to_owned(); usize::from(count)]) };
    let names: Vec<String> = names.split(':').map(str::to_owned).collect();
    match names.len() == usize::from(count) || (count == 0 && names == [""]) {
        true => Ok(names.into_iter().take(usize::from(count)).collect()),
        false => wrong("LISTEN_FDNAMES does not name as many as LISTEN_FDS counts"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_ours_only_when_the_process_is() {
        let own = |pid, count, names| announced(pid, count, names, 7).map_err(|e| e.to_string());
        let none = Ok(Vec::new());
        assert_eq!(own(None, None, None), none);
        assert_eq!(own(Some("8"), Some("2"), None), none);
        assert_eq!(own(Some("x"), Some("2"), None), none);
        assert_eq!(own(Some("7"), None, None), none);
        assert_eq!(own(Some("7"), Some("0"), Some("")), none);
        assert_eq!(own(Some("7"), Some("2"), None), Ok(vec!["unknown".into(), "unknown".into()]));
        assert_eq!(own(Some("7"), Some("2"), Some("a:b")), Ok(vec!["a".into(), "b".into()]));
        assert!(own(Some("7"), Some("2"), Some("a")).unwrap_err().contains("LISTEN_FDNAMES"));
        assert!(own(Some("7"), Some("many"), None).unwrap_err().contains("LISTEN_FDS"));
    }
}
