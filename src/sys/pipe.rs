//! pipe(2): the kernel's buffer between two sockets.
//!
//! <https://man7.org/linux/man-pages/man2/pipe.2.html>, <https://man7.org/linux/man-pages/man7/pipe.7.html>.
//! A pipe counts slots, not bytes: one slot may refer to a fragment of up to 32 KiB, so a "64 KiB"
//! pipe may hold more than 64 KiB. Never bound a drain by the size.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use super::{Errno, cvt};

/// Both ends of one pipe; closed on drop, with whatever is still in it.
#[derive(Debug)]
pub struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    size: u32,
}

impl Pipe {
    /// A non-blocking, close-on-exec pipe of the default size (rule R1). The size is read back, since
    /// past `pipe-user-pages-soft` the kernel silently makes pipes of two slots (rule R13).
    pub fn new() -> io::Result<Pipe> {
        let mut fds = [-1; 2];
        // SAFETY: `fds` is a valid array of two ints that the kernel fills in on success only.
        cvt(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } as isize)?;
        // SAFETY: pipe2 returned two new descriptors that nothing else owns.
        let (read, write) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
        let mut pipe = Pipe { read, write, size: 0 };
        pipe.size = pipe.control(libc::F_GETPIPE_SZ, 0)?;
        Ok(pipe)
    }

    /// A pipe made of two descriptors that came from elsewhere, e.g. another process.
    pub fn from_parts(read: OwnedFd, write: OwnedFd) -> io::Result<Pipe> {
        let mut pipe = Pipe { read, write, size: 0 };
        pipe.size = pipe.control(libc::F_GETPIPE_SZ, 0)?;
        Ok(pipe)
    }

    /// Asks for `bytes` of room; the kernel rounds up, or says `EPERM` past its limits.
    pub fn grow(&mut self, bytes: u32) -> io::Result<()> {
        self.size = self.control(libc::F_SETPIPE_SZ, bytes)?;
        Ok(())
    }

    /// `F_GETPIPE_SZ` when it was made or last grown: slots × page size, in bytes.
    pub fn size(&self) -> u32 {
        self.size
    }

    /// The end that is drained.
    pub fn read_end(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// The end that is filled.
    pub fn write_end(&self) -> BorrowedFd<'_> {
        self.write.as_fd()
    }

    /// Takes the `bytes` in the pipe into user memory: the rescue when splice is refused while the pipe
    /// holds bytes. It needs no further descriptor: there may be none left.
    pub fn read_out(&self, bytes: usize) -> io::Result<Vec<u8>> {
        let mut out = vec![0; bytes];
        let mut filled = 0;
        while filled < bytes {
            let rest = &mut out[filled..];
            // SAFETY: the kernel writes at most `rest.len()` bytes to `rest`, which we borrow mutably.
            match cvt(unsafe {
                libc::read(self.read.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len())
            }) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if Errno::of(&error) == Errno::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(out)
    }

    fn control(&self, command: libc::c_int, argument: u32) -> io::Result<u32> {
        // SAFETY: both commands take an int and no pointer; the descriptor is open, we own it.
        let ret = cvt(unsafe { libc::fcntl(self.write.as_raw_fd(), command, argument) } as isize)?;
        Ok(ret as u32)
    }
}
