//! What epoll has said of a socket, in bits.

/// What has been seen of a socket and not been cleared since.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::sys) struct Ready(pub(super) u8);

impl Ready {
    pub const READABLE: Ready = Ready(1);
    pub const WRITABLE: Ready = Ready(1 << 1);
    /// No byte will follow those that are queued.
    pub const READ_CLOSED: Ready = Ready(1 << 2);
    pub const WRITE_CLOSED: Ready = Ready(1 << 3);
    pub const PRIORITY: Ready = Ready(1 << 4);

    pub fn has(self, any: Ready) -> bool {
        self.0 & any.0 != 0
    }

    pub const fn or(self, other: Ready) -> Ready {
        Ready(self.0 | other.0)
    }

    pub(super) fn of(events: u32) -> Ready {
        let has = |flag: i32| events & flag.cast_unsigned() != 0;
        let (hangup, error) = (has(libc::EPOLLHUP), has(libc::EPOLLERR));
        let mut ready = Ready::default();
        let mut add = |on: bool, what: Ready| {
            if on {
                ready = ready.or(what);
            }
        };
        add(has(libc::EPOLLIN) || has(libc::EPOLLPRI), Ready::READABLE);
        add(has(libc::EPOLLOUT), Ready::WRITABLE);
        add(hangup || (has(libc::EPOLLIN) && has(libc::EPOLLRDHUP)), Ready::READ_CLOSED);
        let only_error = events == libc::EPOLLERR.cast_unsigned();
        add(hangup || (has(libc::EPOLLOUT) && error) || only_error, Ready::WRITE_CLOSED);
        add(has(libc::EPOLLPRI), Ready::PRIORITY);
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_readiness_as_the_kernel_means_it() {
        let (input, output, hangup) = (libc::EPOLLIN, libc::EPOLLOUT, libc::EPOLLHUP);
        let (peer_ended, error, urgent) = (libc::EPOLLRDHUP, libc::EPOLLERR, libc::EPOLLPRI);
        let none = Ready::default();
        for (events, expected) in [
            (0, none),
            (input, Ready::READABLE),
            (output, Ready::WRITABLE),
            (input | peer_ended, Ready::READABLE.or(Ready::READ_CLOSED)),
            (peer_ended, none),
            (urgent, Ready::READABLE.or(Ready::PRIORITY)),
            (error, Ready::WRITE_CLOSED),
            (output | error, Ready::WRITABLE.or(Ready::WRITE_CLOSED)),
            (hangup, Ready::READ_CLOSED.or(Ready::WRITE_CLOSED)),
        ] {
            assert_eq!(Ready::of(events.cast_unsigned()), expected, "{events:#x}");
        }
    }
}
