//! A file as the rules see it: its text, and its code without comments and literals.

/// A line, counted from 1, and what is wrong there.
pub type Fault = (usize, String);

pub struct File {
    pub path: String,
    pub text: String,
    /// The text with comments and literals blanked, line for line; empty if this is not Rust.
    pub code: String,
}

impl File {
    pub fn new(path: &str, text: &str) -> File {
        let code = if path.ends_with(".rs") { code_of(text) } else { String::new() };
        File { path: path.to_owned(), text: text.to_owned(), code }
    }

    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The module of the crate that the file belongs to: the first name below src/.
    pub fn module(&self) -> Option<&str> {
        let below = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        below.split('/').next()
    }

    /// How many `super::` lead from the file's module to the crate.
    fn depth(&self) -> usize {
        let below = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        below.trim_end_matches("/mod").split('/').count()
    }

    /// Where the code has one of these words, with what is wrong about it.
    pub fn words(&self, words: &[&str], what: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, line) in self.code.lines().enumerate() {
            for word in line.split(|c| !is_name(c)).filter(|word| words.contains(word)) {
                faults.push((index + 1, format!("`{word}` {what}")));
            }
        }
        faults
    }

    /// Where the code begins a path with one of these packages or brings one in by its name alone.
    pub fn packages(&self, packages: &[&str], what: &str) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, line) in self.code.lines().enumerate() {
            for package in packages {
                let uses = line.match_indices(package).any(|(at, _)| {
                    let (before, after) = (&line[..at], &line[at + package.len()..]);
                    let whole = !before.ends_with(is_name) && !after.starts_with(is_name);
                    let named = ["use ", "crate "].iter().any(|word| before.ends_with(word));
                    whole && (named || after.starts_with("::"))
                });
                if uses {
                    faults.push((index + 1, format!("`{package}` {what}")));
                }
            }
        }
        faults
    }

    /// The first name of every path that starts at the crate: after `crate::`, after the crate's own
    /// name, after as many `super::` as lead there, each with or without a group in braces.
    pub fn roots_used(&self) -> Vec<(usize, String)> {
        let up = "super::".repeat(self.depth());
        let mut used = Vec::new();
        for prefix in ["crate::", "upsplice::", &up] {
            for (at, _) in self.code.match_indices(prefix) {
                if self.code[..at].ends_with(|c| is_name(c) || c == ':' || c == '$') {
                    continue;
                }
                let start = at + prefix.len();
                for (offset, name) in first_names(&self.code[start..]) {
                    let line = 1 + self.code[..start + offset].matches('\n').count();
                    used.push((line, name));
                }
            }
        }
        used
    }
}

/// Where `text` has one of `needles`, with what is wrong about it.
pub fn faults_at(text: &str, needles: &[&str], what: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for needle in needles.iter().filter(|needle| line.contains(**needle)) {
            faults.push((index + 1, format!("`{needle}` {what}")));
        }
    }
    faults
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The names that a path goes on with: one, or those at the first level of a group.
fn first_names(rest: &str) -> Vec<(usize, String)> {
    let name_at =
        |at: usize| -> String { rest[at..].chars().take_while(|c| is_name(*c)).collect() };
    if !rest.starts_with('{') {
        return vec![(0, name_at(0))];
    }
    let (mut depth, mut expected, mut names) = (0, false, Vec::new());
    for (at, c) in rest.char_indices() {
        match c {
            '{' => (depth, expected) = (depth + 1, depth == 0),
            '}' if depth == 1 => break,
            '}' => depth -= 1,
            ',' => expected = depth == 1,
            c if expected && is_name(c) => {
                names.push((at, name_at(at)));
                expected = false;
            }
            _ => {}
        }
    }
    names
}

/// Rust text with comments, strings and characters blanked; every line keeps its number.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_name = code.ends_with(is_name);
        let blank = blank_length(rest, in_name);
        if blank == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..blank].chars().filter(|c| *c == '\n'));
            rest = &rest[blank..];
        }
    }
    code
}

/// How many bytes from here on are a comment or a literal.
fn blank_length(rest: &str, in_name: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    let prefix = rest.find(|c| !matches!(c, 'b' | 'c' | 'r')).unwrap_or(0);
    if rest.starts_with('"') || !in_name && prefix <= 2 && prefix > 0 {
        let raw = rest[..prefix].contains('r');
        let hashes = rest[prefix..].chars().take_while(|c| raw && *c == '#').count();
        let open = prefix + hashes;
        if rest[open..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let body = &rest[open + 1..];
            let length = if raw { body.find(&end) } else { unescaped(body, '"') };
            return length.map_or(rest.len(), |length| open + 1 + length + end.len());
        }
    }
    if let Some(body) = rest.strip_prefix('\'') {
        // Otherwise it is a lifetime.
        let is_literal = body.starts_with('\\') || body.chars().nth(1) == Some('\'');
        if is_literal {
            return unescaped(body, '\'').map_or(rest.len(), |length| length + 2);
        }
    }
    0
}

/// Where `end` first stands without a backslash before it.
fn unescaped(body: &str, end: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        if c == end && !escaped {
            return Some(at);
        }
        escaped = c == '\\' && !escaped;
    }
    None
}

/// Block comments may hold others.
fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest[at..].starts_with("*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += rest[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    rest.len()
}
