//! Notices when the configuration file has become another, for a gateway that is told to look.
//!
//! It is looked at by its name, once a second: whatever an editor, a package or a mounted volume puts in its place has
//! another time, size or number. A second look has to find the same, so that a file is not read while it is written.

use std::convert::Infallible;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Gateway;
use super::notify::Notifier;

const PERIOD: Duration = Duration::from_secs(1);

/// What tells one file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    modified: (i64, i64),
    size: u64,
    number: u64,
}

/// What was seen of a file.
#[derive(Debug)]
struct Seen {
    /// When it was read.
    read: Option<Mark>,
    last: Option<Mark>,
}

/// Reloads whenever `file` has become another, for ever; `None`: nobody asked for it.
pub(super) async fn follow(
    file: Option<PathBuf>,
    gateway: &Gateway,
    notifier: &Notifier,
) -> Infallible {
    let Some(file) = file else { return std::future::pending().await };
    let mark = mark(&file);
    let mut seen = Seen { read: mark, last: mark };
    loop {
        tokio::time::sleep(PERIOD).await;
        if seen.is_another(self::mark(&file)) {
            super::run::reload(gateway, notifier).await;
        }
    }
}

/// `None` while there is none.
fn mark(file: &Path) -> Option<Mark> {
    let found = std::fs::metadata(file).ok()?;
    let modified = (found.mtime(), found.mtime_nsec());
    Some(Mark { modified, size: found.size(), number: found.ino() })
}

impl Seen {
    /// Whether the file should be read, as it is `now`.
    fn is_another(&mut self, now: Option<Mark>) -> bool {
        let stays = self.last == now;
        self.last = now;
        let is_another = stays && now.is_some() && now != self.read;
        if is_another {
            self.read = now;
        }
        is_another
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_once_it_is_another_and_stays_so() {
        let mark = |size| Some(Mark { modified: (0, 0), size, number: 1 });
        let mut seen = Seen { read: mark(1), last: mark(1) };
        let looks = [mark(1), mark(2), mark(3), mark(3), mark(3), None, None, mark(3), mark(1)];
        assert!(
            looks
                .into_iter()
                .map(|now| seen.is_another(now))
                .eq([false, false, false, true, false, false, false, false, false])
        );
        assert!(seen.is_another(mark(1)), "it is what it was before, but not what was read last");
    }
}
