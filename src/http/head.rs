//! Request and response heads: found incrementally, scanned strictly, parsed once (rules H1–H3, H7).

use std::borrow::Cow;
use std::mem::MaybeUninit;

use super::reject::Refusal;
use super::target::{self, Target};
use crate::config::Limits;

/// Which kind of head is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadKind {
    /// From downstream.
    Request,
    /// From upstream.
    Response,
}

/// Looks for the blank line as bytes come in; every byte is looked at once, however they are cut.
#[derive(Debug)]
pub struct HeadScanner {
    limits: Limits,
    kind: HeadKind,
    scanned: usize,
    line_start: usize,
    lines: usize,
}

/// One field line: its name as sent, its value without surrounding white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'b> {
    /// As sent; compare with [`Field::is`].
    pub name: &'b str,
    /// May hold bytes beyond ASCII.
    pub value: &'b [u8],
}

impl Field<'_> {
    /// Whether this is the field `name`, in any case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The fields of a head, in their order; repeated lines stay lines of their own.
#[derive(Clone, Debug, Default)]
pub struct Fields<'b>(Vec<Field<'b>>);

/// A request head that is sound as HTTP/1.1; whether it may be forwarded is for others to say.
#[derive(Debug)]
pub struct RequestHead<'b> {
    method: &'b str,
    target: Target<'b>,
    host: &'b str,
    route_host: Cow<'b, str>,
    fields: Fields<'b>,
    content_length: Option<u64>,
}

/// A response head that is sound.
#[derive(Debug)]
pub struct ResponseHead<'b> {
    /// 0 or 1: the y of HTTP/1.y.
    pub minor_version: u8,
    /// Three digits, 100 to 599.
    pub status: u16,
    /// The phrase after the status.
    pub reason: &'b str,
    fields: Fields<'b>,
    content_length: Option<u64>,
}

impl HeadScanner {
    /// A scanner at the start of a head.
    pub fn new(limits: &Limits, kind: HeadKind) -> HeadScanner {
        HeadScanner { limits: *limits, kind, scanned: 0, line_start: 0, lines: 0 }
    }

    /// Goes on with `all`, the bytes that came so far; the head's length, blank line included, once it
    /// is complete.
    ///
    /// # Errors
    ///
    /// A line that does not end in CR LF, a control character, a folded line, a blank line before the
    /// start line: 400. Past a limit: 414 or 431.
    pub fn scan(&mut self, all: &[u8]) -> Result<Option<usize>, Refusal> {
        while self.scanned < all.len() {
            self.pass_plain(all);
            let Some(&byte) = all.get(self.scanned) else { break };
            let at_line_start = self.scanned == self.line_start;
            self.check(byte, at_line_start, all)?;
            self.scanned += 1;
            if byte == b'\n' {
                if self.scanned - self.line_start == 2 {
                    return Ok(Some(self.scanned));
                }
                self.lines += 1;
                self.line_start = self.scanned;
            } else if byte != b'\r' && self.scanned - self.line_start > self.limits.line_bytes_max {
                return Err(self.line_too_long());
            }
            if self.scanned >= self.limits.head_bytes_max {
                return Err(Refusal::new(431, "head_too_large"));
            }
        }
        Ok(None)
    }

    /// Passes printable ASCII within a line, short of every limit: nothing that [`Self::check`] looks for, and
    /// most of any head.
    fn pass_plain(&mut self, all: &[u8]) {
        if self.scanned == self.line_start || all[self.scanned - 1] == b'\r' {
            return;
        }
        let line_end = self.line_start.saturating_add(self.limits.line_bytes_max);
        let end = all.len().min(line_end).min(self.limits.head_bytes_max.saturating_sub(1));
        if let Some(rest) = all.get(self.scanned..end) {
            let plain = rest.iter().position(|byte| !matches!(byte, b' '..=b'~'));
            self.scanned += plain.unwrap_or(rest.len());
        }
    }

    fn check(&self, byte: u8, at_line_start: bool, all: &[u8]) -> Result<(), Refusal> {
        let bad = |rule| Err(Refusal::new(400, rule));
        let after_cr = self.scanned > 0 && all[self.scanned - 1] == b'\r';
        match byte {
            b'\n' if !after_cr => bad("bare_lf"),
            b'\n' => Ok(()),
            _ if after_cr && self.scanned != 0 => bad("bare_cr"),
            b'\r' if at_line_start && self.lines == 0 => bad("blank_before_head"),
            b'\r' => Ok(()),
            b' ' | b'\t' if at_line_start && self.lines > 0 => bad("folded_line"),
            _ if at_line_start && self.lines == 0 && !is_token(byte) => bad("bad_start_line"),
            b'\t' if self.lines > 0 => Ok(()),
            0..=31 | 127 => bad("control_character"),
            128.. if self.lines == 0 && self.kind == HeadKind::Request => bad("bad_target"),
            b':' if at_line_start => bad("empty_field_name"),
            _ if self.lines > self.limits.fields_max => Err(Refusal::new(431, "too_many_fields")),
            _ => Ok(()),
        }
    }

    fn line_too_long(&self) -> Refusal {
        match (self.kind, self.lines) {
            (HeadKind::Request, 0) => Refusal::new(414, "target_too_long"),
            _ => Refusal::new(431, "line_too_long"),
        }
    }
}

impl<'b> Fields<'b> {
    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Field<'b>> {
        self.0.iter()
    }

    /// The values of all lines with this name.
    pub fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'b [u8]> + 's {
        self.0.iter().filter(move |field| field.is(name)).map(|field| field.value)
    }

    /// The value, when there is exactly one line with this name; the error is how many there are.
    pub fn only(&self, name: &str) -> Result<&'b [u8], usize> {
        let mut values = self.all(name);
        match (values.next(), values.count()) {
            (Some(value), 0) => Ok(value),
            (Some(_), more) => Err(1 + more),
            (None, _) => Err(0),
        }
    }

    /// The elements of a comma-separated list that may be split over lines (RFC 9110 §5.6.1), trimmed,
    /// empty ones left out.
    pub fn list<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'b [u8]> + 's {
        self.all(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|element| !element.is_empty())
    }

    /// Whether a list names `element`, in any case.
    pub fn lists(&self, name: &str, element: &str) -> bool {
        self.list(name).any(|found| found.eq_ignore_ascii_case(element.as_bytes()))
    }

    /// How long the body says it is (rule H1): one decimal number, in one line.
    fn content_length(&self) -> Result<Option<u64>, &'static str> {
        let value = match self.only("content-length") {
            Ok(value) => value,
            Err(0) => return Ok(None),
            Err(_) => return Err("two_content_lengths"),
        };
        let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
        let number = str::from_utf8(value).ok().filter(|_| digits).and_then(|v| v.parse().ok());
        number.map(Some).ok_or("bad_content_length")
    }

    fn parsed(headers: &[httparse::Header<'b>]) -> Fields<'b> {
        Fields(headers.iter().map(|h| Field { name: h.name, value: h.value }).collect())
    }
}

impl<'b> RequestHead<'b> {
    /// Parses a head that [`HeadScanner`] found.
    ///
    /// # Errors
    ///
    /// 400 for what breaks RFC 9112, 501 for CONNECT, 505 for another version than 1.1.
    pub fn parse(head: &'b [u8], limits: &Limits) -> Result<RequestHead<'b>, Refusal> {
        let bad = |rule| Refusal::new(400, rule);
        if head.starts_with(b"PRI * HTTP/2") {
            return Err(Refusal::new(505, "http2_preface"));
        }
        let mut storage = Storage::of(limits.fields_max);
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(head, storage.headers()) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            Ok(_) => return Err(bad("bad_head")),
            Err(httparse::Error::TooManyHeaders) => {
                return Err(Refusal::new(431, "too_many_fields"));
            }
            Err(httparse::Error::Version) => return Err(Refusal::new(505, "bad_version")),
            Err(_) => return Err(bad("bad_head")),
        }
        let method = parsed.method.unwrap_or_default();
        if parsed.version != Some(1) {
            // RFC 9110 §7.8: Upgrade in HTTP/1.0 must be ignored, and nothing else is offered here.
            return Err(Refusal::new(505, "http_1_0"));
        }
        if !method.bytes().all(|byte| byte.is_ascii_uppercase() || matches!(byte, b'-' | b'_')) {
            return Err(bad("bad_method"));
        }
        if method == "CONNECT" {
            return Err(Refusal::new(501, "connect"));
        }
        let fields = Fields::parsed(parsed.headers);
        let target = Target::parse(parsed.path.unwrap_or_default(), method).map_err(bad)?;
        let field_host = match fields.only("host") {
            Ok(host) => str::from_utf8(host).map_err(|_| bad("bad_host"))?,
            Err(0) => return Err(bad("no_host")),
            Err(_) => return Err(bad("two_hosts")),
        };
        let host = target.authority().unwrap_or(field_host);
        for host in [host, field_host] {
            target::check_host(host).map_err(bad)?;
        }
        let content_length = fields.content_length().map_err(bad)?;
        if fields.all("transfer-encoding").next().is_some() && content_length.is_some() {
            return Err(bad("length_and_encoding"));
        }
        let route_host = target::route_host(host);
        Ok(RequestHead { method, target, host, route_host, fields, content_length })
    }

    /// In upper case.
    pub fn method(&self) -> &'b str {
        self.method
    }

    /// Path and query, as sent: what goes upstream.
    pub fn origin_form(&self) -> &'b str {
        self.target.origin_form()
    }

    /// The path without its query, as sent; `*` for the server as a whole.
    pub fn path(&self) -> &'b str {
        let origin = self.target.origin_form();
        origin.split('?').next().unwrap_or(origin)
    }

    /// The path to find a route by: `OPTIONS *` asks the server as a whole, which is what `/` stands for.
    pub fn route_path(&self) -> &'b str {
        match self.target {
            Target::Asterisk => "/",
            _ => self.path(),
        }
    }

    /// The effective host and port: the target's authority, or `Host` (RFC 9112 §3.2.2).
    pub fn host(&self) -> &'b str {
        self.host
    }

    /// The effective host in lower case and without port; `None` when `Host` is empty.
    pub fn route_host(&self) -> Option<&str> {
        Some(&*self.route_host).filter(|host| !host.is_empty())
    }

    /// The fields.
    pub fn fields(&self) -> &Fields<'b> {
        &self.fields
    }

    /// `Content-Length`, if there is one.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }
}

impl<'b> ResponseHead<'b> {
    /// Parses a head that [`HeadScanner`] found.
    ///
    /// # Errors
    ///
    /// The rule that the upstream broke.
    pub fn parse(head: &'b [u8], limits: &Limits) -> Result<ResponseHead<'b>, &'static str> {
        let mut storage = Storage::of(limits.fields_max);
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        let room = storage.headers();
        match config.parse_response_with_uninit_headers(&mut parsed, head, room) {
            Ok(httparse::Status::Complete(len)) if len == head.len() => {}
            _ => return Err("bad_response_head"),
        }
        let status = parsed.code.unwrap_or_default();
        if !(100..600).contains(&status) {
            return Err("bad_status");
        }
        let fields = Fields::parsed(parsed.headers);
        let content_length = fields.content_length()?;
        Ok(ResponseHead {
            minor_version: parsed.version.unwrap_or_default(),
            status,
            reason: parsed.reason.unwrap_or_default(),
            fields,
            content_length,
        })
    }

    /// The fields.
    pub fn fields(&self) -> &Fields<'b> {
        &self.fields
    }

    /// `Content-Length`, if there is one.
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }
}

/// Room for httparse's headers: on the stack up to the default limit, since each exchange needs it twice.
/// Nothing is written to it that the parser does not fill: to clear it took longer than to parse.
#[expect(clippy::large_enum_variant, reason = "to lie on the stack is what it is for")]
enum Storage<'b> {
    Stack([MaybeUninit<httparse::Header<'b>>; FIELDS_ON_STACK], usize),
    Heap(Vec<MaybeUninit<httparse::Header<'b>>>),
}

/// The default of `limits.fields`.
const FIELDS_ON_STACK: usize = 100;

impl<'b> Storage<'b> {
    fn of(fields_max: usize) -> Storage<'b> {
        if fields_max <= FIELDS_ON_STACK {
            Storage::Stack([const { MaybeUninit::uninit() }; FIELDS_ON_STACK], fields_max)
        } else {
            Storage::Heap(vec![const { MaybeUninit::uninit() }; fields_max])
        }
    }

    fn headers(&mut self) -> &mut [MaybeUninit<httparse::Header<'b>>] {
        match self {
            Storage::Stack(headers, fields_max) => &mut headers[..*fields_max],
            Storage::Heap(headers) => headers,
        }
    }
}

/// RFC 9110 §5.6.2 tchar.
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
