//! `traceparent`: which trace a request belongs to, and who its parent is there (W3C Trace Context §3.2).

use std::fmt;

use super::head::Fields;

/// The name of the field.
pub const TRACEPARENT: &str = "traceparent";
/// What goes along with it, and means nothing without it.
pub const TRACESTATE: &str = "tracestate";

/// A valid `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Which trace; never 0.
    pub trace_id: u128,
    /// Which span of it; never 0.
    pub span_id: u64,
    /// Whether that span was recorded, and more.
    pub flags: u8,
}

/// The flags that version 00 knows: sampled, and a random trace id.
const SAMPLED: u8 = 1;
const KNOWN: u8 = 3;
/// `00-` and the rest of version 00.
const LEN: usize = 55;

impl TraceParent {
    /// The only one of a head, if it is valid; two contradict each other.
    pub fn of(fields: &Fields<'_>) -> Option<TraceParent> {
        TraceParent::parse(fields.only(TRACEPARENT).ok()?)
    }

    /// Reads a value. A later version may have more behind what is known (§3.2.2).
    fn parse(value: &[u8]) -> Option<TraceParent> {
        let (known, more) = value.split_at_checked(LEN)?;
        let known = str::from_utf8(known).ok()?;
        let mut parts = known.split('-');
        let mut next = |digits| number(parts.next()?, digits);
        let version = next(2)?;
        let trace_id = next(32).filter(|id| *id != 0)?;
        let span_id = next(16).filter(|id| *id != 0)?;
        let flags = next(2)?;
        let fits = match version {
            0 => more.is_empty(),
            0xff => false,
            _ => more.is_empty() || more.starts_with(b"-"),
        };
        fits.then_some(TraceParent {
            trace_id,
            span_id: u64::try_from(span_id).ok()?,
            flags: u8::try_from(flags).ok()? & KNOWN,
        })
    }

    /// Whether the parent was recorded.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The same place with another span, recorded or not.
    pub fn child(self, span_id: u64, is_sampled: bool) -> TraceParent {
        let flags = self.flags & !SAMPLED | u8::from(is_sampled);
        TraceParent { span_id, flags, ..self }
    }
}

/// So many hexadecimal digits, in lower case.
fn number(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let fits = text.len() == digits && text.bytes().all(is_digit);
    fits.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// As version 00.
impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(text.as_bytes())
    }

    #[test]
    fn what_was_written_is_read() {
        let found = parse(GOOD).expect("it is valid");
        assert_eq!(found.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((found.span_id, found.flags), (0x00f0_67aa_0ba9_02b7, 1));
        assert_eq!(found.to_string(), GOOD);
        let child = found.child(7, false);
        assert_eq!(child.to_string(), "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000007-00");
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = GOOD.replacen("00", "cc", 1);
        assert_eq!(parse(&later), parse(GOOD));
        assert_eq!(parse(&format!("{later}-what-the-future-brings")), parse(GOOD));
        assert_eq!(parse(&format!("{later}.what-the-future-brings")), None);
        let flags = parse(&GOOD.replace("-01", "-ff")).expect("it is valid").flags;
        assert_eq!(flags, 3, "flags that are not known are not passed on");
    }

    #[test]
    fn what_the_specification_refuses_is_none() {
        for bad in [
            "",
            "00",
            &GOOD.to_uppercase(),
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}-00"),
            &format!(" {GOOD}"),
            &GOOD.replacen("00", "ff", 1),
            &GOOD.replacen("00", "0x", 1),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
            &GOOD.replace("4bf9", "+bf9"),
            &GOOD.replace("00f067aa0ba902b7-01", "00f067aa0ba902b-701"),
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
