//! A file that lines are appended to, whoever renames, removes or truncates it meanwhile.
//!
//! Before each batch the name is looked up: when it has another file, or none, the name is opened anew. So no signal
//! is needed after a rotation. A line is never torn by that: what a full disk took of a line is left behind in the
//! old file, and the new one begins with the whole line.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Others have no business with what clients ask; the group may read it.
const MODE: u32 = 0o640;

/// The file, under its name.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    identity: Identity,
}

/// What tells a file from another that has its name.
type Identity = (u64, u64);

/// Whole lines that are to be written, and how far that is.
#[derive(Debug, Default)]
pub(super) struct Batch {
    text: Vec<u8>,
    written: usize,
}

impl LogFile {
    /// Opens it, or makes it.
    pub fn open(path: &Path) -> io::Result<LogFile> {
        let mut options = OpenOptions::new();
        // Appending finds the end by itself, also after somebody has truncated the file.
        let file = options.append(true).create(true).mode(MODE).open(path)?;
        let identity = identity_of(&file.metadata()?);
        Ok(LogFile { path: path.to_owned(), file, identity })
    }

    /// Writes the batch to the file that has the name now.
    pub fn append(&mut self, batch: &mut Batch) -> io::Result<()> {
        let named = std::fs::metadata(&self.path).map(|found| identity_of(&found)).ok();
        if named != Some(self.identity) {
            *self = LogFile::open(&self.path)?;
            batch.rewind_to_line();
        }
        batch.write_to(&mut self.file)
    }
}

impl Batch {
    /// Bytes of it that nobody has taken yet.
    pub fn left(&self) -> &[u8] {
        &self.text[self.written..]
    }

    /// Adds a line.
    pub fn push(&mut self, line: &str) {
        if self.left().is_empty() {
            self.text.clear();
            self.written = 0;
        }
        self.text.extend_from_slice(line.as_bytes());
        self.text.push(b'\n');
    }

    /// Writes what is left. After an error it goes on with the byte that was not taken.
    pub fn write_to(&mut self, out: &mut impl Write) -> io::Result<()> {
        while !self.left().is_empty() {
            match out.write(self.left()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(taken) => self.written += taken,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Goes back to where the line begins that was begun.
    fn rewind_to_line(&mut self) {
        let before = self.text[..self.written].iter().rposition(|byte| *byte == b'\n');
        self.written = before.map_or(0, |at| at + 1);
    }
}

fn identity_of(metadata: &std::fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes so many bytes, then is full.
    struct Full {
        taken: Vec<u8>,
        room: usize,
    }

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let taken = bytes.len().min(self.room - self.taken.len());
            self.taken.extend_from_slice(&bytes[..taken]);
            if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn batch() -> Batch {
        let mut batch = Batch::default();
        batch.push("first");
        batch.push("second");
        batch
    }

    #[test]
    fn a_line_that_a_full_disk_has_torn_is_completed_when_there_is_room() {
        let mut batch = batch();
        let mut disk = Full { taken: Vec::new(), room: 9 };
        assert!(batch.write_to(&mut disk).is_err());
        assert_eq!(disk.taken, b"first\nsec");
        disk.room = 100;
        batch.push("third");
        batch.write_to(&mut disk).expect("there is room");
        assert_eq!(disk.taken, b"first\nsecond\nthird\n");
        assert!(batch.left().is_empty());
    }

    #[test]
    fn a_new_file_begins_with_a_whole_line() {
        for (room, left) in [(9, &b"second\n"[..]), (6, b"second\n"), (3, b"first\nsecond\n")] {
            let mut batch = batch();
            batch.write_to(&mut Full { taken: Vec::new(), room }).expect_err("it is full");
            batch.rewind_to_line();
            assert_eq!(batch.left(), left, "{room}");
        }
    }

    #[test]
    fn the_file_is_the_one_that_has_the_name_when_lines_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let mut log = LogFile::open(&path).expect("a file");
        let mut append = |line| {
            let mut batch = Batch::default();
            batch.push(line);
            log.append(&mut batch).expect("it is written");
        };
        let read = |path: &Path| std::fs::read_to_string(path).expect("it is there");
        append("first");
        std::fs::rename(&path, &old).expect("it is moved");
        append("second");
        assert_eq!((read(&old), read(&path)), ("first\n".into(), "second\n".into()));
        std::fs::rename(&path, &old).expect("it is moved");
        File::create(&path).expect("as logrotate does it with `create`");
        append("third");
        std::fs::remove_file(&old).expect("it is removed");
        std::fs::copy(&path, &old).expect("as logrotate does it");
        OpenOptions::new().write(true).truncate(true).open(&path).expect("with `copytruncate`");
        append("fourth");
        assert_eq!((read(&old), read(&path)), ("third\n".into(), "fourth\n".into()));
    }
}
