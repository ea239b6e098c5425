//! `Sec-WebSocket-Extensions` (RFC 6455 §9.1), as far as an inspector has to understand it: permessage-deflate
//! (RFC 7692 §7.1), and nothing else.
//!
//! A frame can only be read if what was agreed about it is understood. So it is the client's offer that is cut down
//! to what we know, never the server's acceptance alone: the server would go on and use what it accepted.

use crate::config::inspection::Deflate;

const NAME: &str = "permessage-deflate";
const SERVER_NO_CONTEXT_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_CONTEXT_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_MAX_WINDOW_BITS: &str = "server_max_window_bits";
const CLIENT_MAX_WINDOW_BITS: &str = "client_max_window_bits";

/// A field that is not of the grammar.
const MALFORMED: &str = "extension";
/// An acceptance of something that was not offered.
const NOT_OFFERED: &str = "extension";
/// A parameter that is unknown, there twice, has no good value, or was not offered.
const PARAMETER: &str = "extension_parameter";

/// What goes upstream of a client's offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    deflate: Vec<Parameters>,
}

/// What both sides agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreement {
    /// The client begins each message with an empty window.
    pub client_no_context_takeover: bool,
    /// So does the server.
    pub server_no_context_takeover: bool,
    /// The client's window; 15 where nothing was said.
    pub client_max_window_bits: u8,
    /// The server's.
    pub server_max_window_bits: u8,
}

/// The parameters of one offer, or of the acceptance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: Option<Bits>,
}

/// `client_max_window_bits`, which an offer may make without a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bits {
    Any,
    Most(u8),
}

impl Offer {
    /// Reads the client's field lines; what is not well-formed permessage-deflate is left out.
    ///
    /// # Errors
    ///
    /// The short word of the rule, when a line is not of the grammar at all.
    pub fn read<'l>(
        lines: impl IntoIterator<Item = &'l [u8]>,
        policy: Deflate,
    ) -> Result<Offer, &'static str> {
        let mut deflate = Vec::new();
        for extension in read(lines)? {
            let known = extension.name.eq_ignore_ascii_case(NAME);
            if known
                && policy != Deflate::Strip
                && let Ok(parameters) = Parameters::read(&extension)
            {
                deflate.push(parameters);
            }
        }
        Ok(Offer { deflate })
    }

    /// The value of the field that goes upstream; `None`: no such field.
    pub fn field(&self) -> Option<String> {
        let offers: Vec<String> = self.deflate.iter().map(Parameters::write).collect();
        (!offers.is_empty()).then(|| offers.join(", "))
    }

    /// Judges the field lines of the 101; `None`: no extension is in use.
    ///
    /// # Errors
    ///
    /// The short word of the rule that the server broke.
    pub fn accept<'l>(
        &self,
        lines: impl IntoIterator<Item = &'l [u8]>,
    ) -> Result<Option<Agreement>, &'static str> {
        let accepted = read(lines)?;
        let extension = match &*accepted {
            [] => return Ok(None),
            [one] if one.name.eq_ignore_ascii_case(NAME) && !self.deflate.is_empty() => one,
            _ => return Err(NOT_OFFERED),
        };
        let answer = Parameters::read(extension)?;
        let client_max_window_bits = match answer.client_max_window_bits {
            None => 15,
            Some(Bits::Most(bits)) => bits,
            Some(Bits::Any) => return Err(PARAMETER),
        };
        if !self.deflate.iter().any(|offer| answer.answers(offer)) {
            return Err(PARAMETER);
        }
        Ok(Some(Agreement {
            client_no_context_takeover: answer.client_no_context_takeover,
            server_no_context_takeover: answer.server_no_context_takeover,
            client_max_window_bits,
            server_max_window_bits: answer.server_max_window_bits.unwrap_or(15),
        }))
    }
}

impl Parameters {
    /// Reads them; a declined offer is an error.
    fn read(extension: &Extension) -> Result<Parameters, &'static str> {
        let mut parameters = Parameters::default();
        for (at, (name, value)) in extension.parameters.iter().enumerate() {
            if extension.parameters[..at].iter().any(|(other, _)| other == name) {
                return Err(PARAMETER);
            }
            match (&**name, value.as_deref()) {
                (SERVER_NO_CONTEXT_TAKEOVER, None) => parameters.server_no_context_takeover = true,
                (CLIENT_NO_CONTEXT_TAKEOVER, None) => parameters.client_no_context_takeover = true,
                (SERVER_MAX_WINDOW_BITS, Some(value)) => {
                    parameters.server_max_window_bits = Some(window_bits(value)?);
                }
                (CLIENT_MAX_WINDOW_BITS, None) => {
                    parameters.client_max_window_bits = Some(Bits::Any);
                }
                (CLIENT_MAX_WINDOW_BITS, Some(value)) => {
                    parameters.client_max_window_bits = Some(Bits::Most(window_bits(value)?));
                }
                _ => return Err(PARAMETER),
            }
        }
        Ok(parameters)
    }

    fn write(&self) -> String {
        let mut text = NAME.to_owned();
        let mut add = |name: &str, value: Option<u8>| {
            text.push_str("; ");
            text.push_str(name);
            if let Some(value) = value {
                text.push('=');
                text.push_str(&value.to_string());
            }
        };
        if self.server_no_context_takeover {
            add(SERVER_NO_CONTEXT_TAKEOVER, None);
        }
        if self.client_no_context_takeover {
            add(CLIENT_NO_CONTEXT_TAKEOVER, None);
        }
        if let Some(bits) = self.server_max_window_bits {
            add(SERVER_MAX_WINDOW_BITS, Some(bits));
        }
        match self.client_max_window_bits {
            None => {}
            Some(Bits::Any) => add(CLIENT_MAX_WINDOW_BITS, None),
            Some(Bits::Most(bits)) => add(CLIENT_MAX_WINDOW_BITS, Some(bits)),
        }
        text
    }

    /// Whether this acceptance is one of `offer` (RFC 7692 §7.1.1, §7.1.2).
    fn answers(&self, offer: &Parameters) -> bool {
        let server_context = self.server_no_context_takeover || !offer.server_no_context_takeover;
        let server_window = match (offer.server_max_window_bits, self.server_max_window_bits) {
            (None, _) => true,
            (Some(most), Some(bits)) => bits <= most,
            (Some(_), None) => false,
        };
        let client_window = match (offer.client_max_window_bits, self.client_max_window_bits) {
            (_, None) | (Some(Bits::Any), Some(_)) => true,
            (Some(Bits::Most(most)), Some(Bits::Most(bits))) => bits <= most,
            (Some(Bits::Most(_)), Some(Bits::Any)) | (None, Some(_)) => false,
        };
        server_context && server_window && client_window
    }
}

/// 8 to 15, decimal, without a leading zero (RFC 7692 §7.1.2.1).
fn window_bits(value: &str) -> Result<u8, &'static str> {
    match value {
        "8" | "9" | "10" | "11" | "12" | "13" | "14" | "15" => value.parse().map_err(|_| PARAMETER),
        _ => Err(PARAMETER),
    }
}

/// One element of the list.
#[derive(Debug, PartialEq, Eq)]
struct Extension {
    name: String,
    /// Names in lower case.
    parameters: Vec<(String, Option<String>)>,
}

/// The elements of all lines, which are one list (RFC 9110 §5.3).
fn read<'l>(lines: impl IntoIterator<Item = &'l [u8]>) -> Result<Vec<Extension>, &'static str> {
    let mut all = Vec::new();
    for line in lines {
        let mut reader = Reader(line);
        loop {
            reader.skip_space();
            // RFC 9110 §5.6.1: a recipient must accept empty elements.
            if reader.take(b',') {
                continue;
            }
            if reader.0.is_empty() {
                break;
            }
            all.push(reader.extension()?);
            reader.skip_space();
            if !reader.0.is_empty() && !reader.take(b',') {
                return Err(MALFORMED);
            }
        }
    }
    Ok(all)
}

/// What is left of a line.
struct Reader<'l>(&'l [u8]);

impl Reader<'_> {
    fn extension(&mut self) -> Result<Extension, &'static str> {
        let name = self.token()?;
        let mut parameters = Vec::new();
        loop {
            self.skip_space();
            if !self.take(b';') {
                return Ok(Extension { name, parameters });
            }
            self.skip_space();
            let name = self.token()?.to_ascii_lowercase();
            self.skip_space();
            let value = match self.take(b'=') {
                false => None,
                true => {
                    self.skip_space();
                    Some(if self.take(b'"') { self.quoted()? } else { self.token()? })
                }
            };
            parameters.push((name, value));
        }
    }

    fn token(&mut self) -> Result<String, &'static str> {
        let len = self.0.iter().take_while(|byte| is_token(**byte)).count();
        let (token, rest) = self.0.split_at(len);
        self.0 = rest;
        match token {
            [] => Err(MALFORMED),
            token => Ok(String::from_utf8_lossy(token).into_owned()),
        }
    }

    /// Behind the opening quote; what it quotes must be a token (RFC 6455 §9.1).
    fn quoted(&mut self) -> Result<String, &'static str> {
        let mut text = String::new();
        while let Some((&byte, rest)) = self.0.split_first() {
            self.0 = rest;
            let byte = match byte {
                b'"' if text.is_empty() => return Err(MALFORMED),
                b'"' => return Ok(text),
                b'\\' => {
                    let (&escaped, rest) = self.0.split_first().ok_or(MALFORMED)?;
                    self.0 = rest;
                    escaped
                }
                byte => byte,
            };
            if !is_token(byte) {
                return Err(MALFORMED);
            }
            text.push(char::from(byte));
        }
        Err(MALFORMED)
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.0.first() == Some(&byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }

    fn skip_space(&mut self) {
        let len = self.0.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        self.0 = &self.0[len..];
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
