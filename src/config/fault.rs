//! What is wrong with a configuration, all of it at once.

use std::fmt;

/// One thing to correct, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The file as the operator named it, or a flag such as `--to`.
    pub place: String,
    /// Line in the file, from 1; `None` for a flag or a file that cannot be read.
    pub line: Option<usize>,
    /// What is wrong and what to do.
    pub message: String,
}

/// Every fault of a configuration, in the order of the file; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// `Err` with the faults in the order of their lines, or `Ok` if there are none.
    pub(super) fn check(faults: Vec<Fault>) -> Result<(), Faults> {
        if faults.is_empty() { Ok(()) } else { Err(Faults::some(faults)) }
    }

    /// Faults known to be there: those of flags, then those of the file by line.
    pub(super) fn some(mut faults: Vec<Fault>) -> Faults {
        assert!(!faults.is_empty(), "a refusal without a fault would tell nobody what to correct");
        faults.sort_by_key(|fault| fault.line);
        Faults(faults)
    }

    /// The faults, one by one.
    pub fn iter(&self) -> impl Iterator<Item = &Fault> {
        self.0.iter()
    }
}

/// `file:line: message`
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.place, self.message),
            None => write!(f, "{}: {}", self.place, self.message),
        }
    }
}

/// One fault a line.
impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, fault) in self.0.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}
