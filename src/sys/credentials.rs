//! Who the process is: another user, once what needs root is done, and the capabilities that are left.
//!
//! <https://man7.org/linux/man-pages/man7/credentials.7.html>,
//! <https://man7.org/linux/man-pages/man7/capabilities.7.html>.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::null_mut;

use super::cvt;
use super::sandbox::Refused;

/// A user and its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its number.
    pub user: u32,
    /// The number of its first group.
    pub group: u32,
    /// The name by which its other groups are found; a number has none.
    name: Option<CString>,
}

impl Identity {
    /// Of a user and a group, by name or number. Without a group, the user's own.
    ///
    /// # Errors
    ///
    /// Nobody has this name, or the user's group is not known.
    pub fn find(user: &str, group: Option<&str>) -> io::Result<Identity> {
        let absent = |what: String| Err(io::Error::new(io::ErrorKind::NotFound, what));
        let entry = entry_of(user)?;
        let group = match (group, &entry) {
            (Some(group), _) => match group.parse().ok().map_or_else(|| group_of(group), ok)? {
                Some(number) => number,
                None => return absent(format!("no group {group:?}")),
            },
            (None, Some((_, own))) => *own,
            (None, None) => return absent(format!("no user {user:?}, or none with a group")),
        };
        match (entry, user.parse()) {
            (Some((number, _)), parsed) => {
                let name = parsed.is_err().then(|| CString::new(user).ok()).flatten();
                Ok(Identity { user: number, group, name })
            }
            (None, Ok(number)) => Ok(Identity { user: number, group, name: None }),
            (None, Err(_)) => absent(format!("no user {user:?}")),
        }
    }

    /// Becomes this user, for good. All threads do, by the C library.
    ///
    /// # Errors
    ///
    /// `EPERM`: only root can, or who has the capabilities. The process is in between then, and must end.
    pub fn assume(&self) -> io::Result<()> {
        if self.is_ours() {
            return Ok(());
        }
        match &self.name {
            // SAFETY: the name ends in NUL and lives through the call.
            Some(name) => cvt(unsafe { libc::initgroups(name.as_ptr(), self.group) } as isize)?,
            // SAFETY: the kernel reads one number.
            None => cvt(unsafe { libc::setgroups(1, &raw const self.group) } as isize)?,
        };
        // SAFETY: the call takes numbers only. The group first: the user may not change it.
        cvt(unsafe { libc::setresgid(self.group, self.group, self.group) } as isize)?;
        // SAFETY: the call takes numbers only. From root, it also gives up all capabilities.
        cvt(unsafe { libc::setresuid(self.user, self.user, self.user) } as isize)?;
        // SAFETY: as above; it must fail.
        if self.user != 0 && unsafe { libc::setuid(0) } == 0 {
            return Err(io::Error::other("root could be had back"));
        }
        Ok(())
    }

    fn is_ours(&self) -> bool {
        // SAFETY: the calls take nothing and always succeed.
        unsafe {
            libc::getuid() == self.user
                && libc::geteuid() == self.user
                && libc::getgid() == self.group
                && libc::getegid() == self.group
        }
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    effective_user() == 0
}

/// The user that this process acts as.
pub fn effective_user() -> u32 {
    // SAFETY: the call takes nothing and always succeeds.
    unsafe { libc::geteuid() }
}

fn ok(number: u32) -> io::Result<Option<u32>> {
    Ok(Some(number))
}

/// Number and group of a user in the user database, by name or number.
fn entry_of(user: &str) -> io::Result<Option<(u32, u32)>> {
    let Ok(name) = CString::new(user) else { return Ok(None) };
    let number: Option<u32> = user.parse().ok();
    let look = |entry: *mut libc::passwd, buffer: &mut [libc::c_char], found: *mut *mut _| {
        let (at, length) = (buffer.as_mut_ptr(), buffer.len());
        match number {
            // SAFETY: all pointers are live, and `length` is the buffer's.
            Some(number) => unsafe { libc::getpwuid_r(number, entry, at, length, found) },
            // SAFETY: the same.
            None => unsafe { libc::getpwnam_r(name.as_ptr(), entry, at, length, found) },
        }
    };
    Ok(database(look)?.map(|entry| (entry.pw_uid, entry.pw_gid)))
}

fn group_of(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    let look = |entry: *mut libc::group, buffer: &mut [libc::c_char], found: *mut *mut _| {
        // SAFETY: all pointers are live, and the length is the buffer's.
        unsafe { libc::getgrnam_r(name.as_ptr(), entry, buffer.as_mut_ptr(), buffer.len(), found) }
    };
    Ok(database(look)?.map(|entry| entry.gr_gid))
}

/// One entry, with a buffer that grows until it fits. Only its numbers may be used: its texts are gone.
fn database<T: Copy>(
    look: impl Fn(*mut T, &mut [libc::c_char], *mut *mut T) -> i32,
) -> io::Result<Option<T>> {
    let mut buffer = vec![0; 4 << 10];
    loop {
        let (mut entry, mut found) = (MaybeUninit::<T>::uninit(), null_mut());
        match look(entry.as_mut_ptr(), &mut buffer, &raw mut found) {
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            libc::EINTR => {}
            // Some C libraries say so, instead of an entry that is null.
            0 | libc::ENOENT | libc::ESRCH if found.is_null() => return Ok(None),
            // SAFETY: an entry that was found has been filled in.
            0 => return Ok(Some(unsafe { entry.assume_init() })),
            errno => return Err(io::Error::from_raw_os_error(errno)),
        }
    }
}

/// A capability that a running gateway uses: a listener that is added later, and large pipes.
const KEPT: [(u32, &str); 2] = [(10, "CAP_NET_BIND_SERVICE"), (24, "CAP_SYS_RESOURCE")];

/// `_LINUX_CAPABILITY_VERSION_3`
const VERSION: u32 = 0x2008_0522;

/// `cap_user_header_t`
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// `cap_user_data_t`, of which there are two: for the lower and for the upper 32 capabilities.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Gives up all capabilities but those of [`KEPT`]; what is left of these.
pub(super) fn keep_capabilities() -> Result<Vec<&'static str>, Refused> {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets::default(); 2];
    // SAFETY: the kernel reads the header and writes two sets, as this version of the header says.
    let got = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    if got != 0 {
        return Err(Refused::last("capget"));
    }
    let wanted = KEPT.iter().fold(0, |bits, (capability, _)| bits | 1 << capability);
    let kept = sets[0].permitted & wanted;
    let sets = [Sets { effective: kept, permitted: kept, inheritable: 0 }, Sets::default()];
    // SAFETY: the kernel reads the header and two sets.
    let set = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    if set != 0 {
        return Err(Refused::last("capset"));
    }
    let is_kept = |&&(capability, _): &&(u32, _)| kept & (1 << capability) != 0;
    Ok(KEPT.iter().filter(is_kept).map(|&(_, name)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_by_number() {
        let root = Identity { user: 0, group: 0, name: Some(c"root".to_owned()) };
        assert_eq!(Identity::find("root", None).expect("every system has it"), root);
        let by_number = Identity { name: None, ..root.clone() };
        assert_eq!(Identity::find("0", None).expect("it is there"), by_number);
        assert_eq!(Identity::find("0", Some("root")).expect("it is there"), by_number);
        let strangers = Identity { user: 54321, group: 54322, name: None };
        assert_eq!(
            Identity::find("54321", Some("54322")).expect("numbers need no entry"),
            strangers
        );
    }

    #[test]
    fn who_is_nobody_is_named() {
        let said = |user, group| Identity::find(user, group).unwrap_err().to_string();
        assert!(said("no-such-user", None).contains("\"no-such-user\""));
        assert!(said("no-such-user", Some("0")).contains("\"no-such-user\""));
        assert!(said("root", Some("no-such-group")).contains("\"no-such-group\""));
        assert!(said("54321", None).contains("\"54321\""));
    }
}
