//! Where the gateway answers its operator, and what a request over TCP has to know.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::fault::Fault;
use super::section::{Notes, Section};
use super::{Faults, Listen, value};

/// Where the command line looks for a gateway, if nothing says otherwise.
pub const ADMIN_SOCKET: &str = "/run/upsplice/admin.sock";

/// A shorter secret can be guessed, a longer one is no secret but the wrong file.
const TOKEN_BYTES: std::ops::RangeInclusive<usize> = 16..=512;
/// Others may neither read nor write the file, the group may at most read it.
const FORBIDDEN_MODE: u32 = 0o027;

/// The secret of requests over TCP. It is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Reads a token file: one line, that others may not read.
    ///
    /// # Errors
    ///
    /// What completes "KEY: …".
    pub fn read(path: &str) -> Result<Token, String> {
        let fail = |error: io::Error| format!("{path:?} cannot be read: {error}");
        let mode = fs::metadata(path).map_err(fail)?.permissions().mode();
        if mode & FORBIDDEN_MODE != 0 {
            let mode = mode & 0o777;
            return Err(format!("{path:?} is open to others (mode {mode:o}); chmod 600 {path}"));
        }
        let text = fs::read_to_string(path).map_err(fail)?;
        let token = text.trim_end_matches(['\n', '\r']);
        if !TOKEN_BYTES.contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let (low, high) = TOKEN_BYTES.into_inner();
            return Err(format!(
                "{path:?} must hold one line of {low} to {high} visible ASCII characters"
            ));
        }
        Ok(Token(token.into()))
    }

    /// What a request has to bring along.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Notes what is missing of `admin` in a file.
pub(super) fn check(section: &Section, admin: Option<&Listen>) {
    if matches!(admin, Some(Listen::Tcp(_))) && section.value("admin_token_file").is_none() {
        let at = section.value("admin").map_or(section.start(), |value| value.at);
        section.refuse("admin", at, NEEDS_TOKEN);
    }
}

/// What an address over TCP lacks without a token.
pub(super) const NEEDS_TOKEN: &str =
    "needs admin_token_file over TCP, or a Unix socket, \"unix:/run/upsplice/admin.sock\"";

/// How a running gateway is reached: what the verbs that talk to one look for.
#[derive(Clone, Debug)]
pub struct Reach {
    /// Where it answers.
    pub address: Listen,
    /// What it wants to hear over TCP.
    pub token: Option<Token>,
}

impl Reach {
    /// What flags and environment say, then the file, then the default place. Of the file only the two keys are
    /// looked at: whether the rest of it is right does not matter here.
    ///
    /// # Errors
    ///
    /// What is wrong with the file or the token.
    pub fn find(
        admin: Option<Listen>,
        token_file: Option<&Path>,
        config: Option<&Path>,
    ) -> Result<Reach, Faults> {
        let flag = |message| Fault { place: "--admin-token-file".into(), line: None, message };
        let token = token_file.map(|path| Token::read(&path.display().to_string()));
        let token = token.transpose().map_err(|problem| Faults::some(vec![flag(problem)]))?;
        let mut reach = Reach { address: Listen::Unix(PathBuf::from(ADMIN_SOCKET)), token };
        if let Some(path) = config.filter(|_| admin.is_none()) {
            let (address, token) = of_file(path)?;
            reach.address = address.unwrap_or(reach.address);
            reach.token = reach.token.or(token);
        }
        reach.address = admin.unwrap_or(reach.address);
        Ok(reach)
    }
}

fn of_file(path: &Path) -> Result<(Option<Listen>, Option<Token>), Faults> {
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| {
        let message = format!("cannot be read: {error}");
        Faults::some(vec![Fault { place: name.clone(), line: None, message }])
    })?;
    let notes = Notes::new(&text, &name);
    let Ok(document) = DeTable::parse(&text).map(toml::Spanned::into_inner) else {
        notes.fault(0, "not valid TOML; see upsplice check");
        return Err(Faults::some(notes.into_faults()));
    };
    let gateway = document.iter().find(|(key, _)| key.get_ref() == "gateway");
    let table = match gateway.map(|(_, value)| value.get_ref()) {
        Some(DeValue::Table(table)) => Some(table),
        _ => None,
    };
    let section = Section::new(&notes, "[gateway]", table, 0);
    let found =
        (section.text("admin", value::listen), section.text("admin_token_file", Token::read));
    drop(section);
    Faults::check(notes.into_faults())?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file.as_file().set_permissions(fs::Permissions::from_mode(mode)).expect("it is ours");
        file
    }

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn a_token_is_one_line_that_others_cannot_read_and_is_never_shown() {
        for (text, mode, wanted) in [
            (format!("{SECRET}\n"), 0o600, Ok(())),
            (SECRET.to_owned(), 0o440, Ok(())),
            (SECRET.to_owned(), 0o604, Err("is open to others (mode 604)")),
            (SECRET.to_owned(), 0o620, Err("is open to others (mode 620)")),
            (SECRET[1..].to_owned(), 0o600, Err("must hold one line")),
            (format!("{SECRET}\n{SECRET}"), 0o600, Err("must hold one line")),
        ] {
            let file = file(&text, mode);
            let found = Token::read(file.path().to_str().expect("UTF-8"));
            match wanted {
                Ok(()) => {
                    let token = found.expect("a token");
                    assert_eq!(token.secret(), SECRET);
                    assert_eq!(format!("{token:?}"), "Token(..)");
                }
                Err(part) => {
                    let problem = found.expect_err("it is none");
                    assert!(problem.contains(part) && !problem.contains("789"), "{problem}");
                }
            }
        }
        assert!(Token::read("/nonexistent").expect_err("it is none").contains("cannot be read"));
    }

    #[test]
    fn a_flag_comes_before_the_file_and_the_file_before_the_usual_place() {
        let usual = Reach::find(None, None, None).expect("nothing is wrong");
        assert_eq!(usual.address, Listen::Unix(ADMIN_SOCKET.into()));
        let token = file(SECRET, 0o600);
        let text = format!(
            "[gateway]\nadmin = \"127.0.0.1:9\"\nadmin_token_file = {:?}\nworkers = \"wrong\"",
            token.path()
        );
        let config = file(&text, 0o644);
        let found = Reach::find(None, None, Some(config.path())).expect("the rest does not matter");
        assert_eq!(found.address, Listen::Tcp("127.0.0.1:9".parse().expect("an address")));
        assert_eq!(found.token.as_ref().map(Token::secret), Some(SECRET));
        let flag = Listen::Unix("/x".into());
        let found = Reach::find(Some(flag.clone()), None, Some(Path::new("/nonexistent")));
        assert_eq!(found.expect("nobody reads it").address, flag);
        let faults = Reach::find(None, None, Some(token.path())).expect_err("no TOML");
        assert!(faults.to_string().contains("not valid TOML"), "{faults}");
        let faults = Reach::find(None, None, Some(Path::new("/nonexistent"))).expect_err("no file");
        assert!(faults.to_string().contains("/nonexistent: cannot be read"), "{faults}");
    }
}
