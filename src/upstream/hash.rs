//! The number that a request, or an endpoint, is hashed by: the same in every process and release.

use sha1::{Digest, Sha1};

/// A number for these bytes. SHA-1 keeps nothing secret here; it mixes well, never changes, and is there.
pub fn of(parts: &[&[u8]]) -> u64 {
    let mut sha = Sha1::new();
    for part in parts {
        sha.update((part.len() as u64).to_be_bytes());
        sha.update(part);
    }
    let digest: [u8; 20] = sha.finalize().into();
    let [first, ..] = digest.as_chunks::<8>().0 else { unreachable!("there are twenty bytes") };
    u64::from_be_bytes(*first)
}

/// The value of the first cookie of this name in the values of `Cookie` (RFC 6265 §4.2.1).
pub fn cookie<'b>(values: impl Iterator<Item = &'b [u8]>, name: &str) -> Option<&'b [u8]> {
    values.flat_map(|value| value.split(|byte| *byte == b';')).find_map(|pair| {
        let pair = pair.trim_ascii();
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        (&pair[..equals] == name.as_bytes()).then(|| &pair[equals + 1..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_same_for_ever_and_knows_where_parts_end() {
        assert_eq!(of(&[b"127.0.0.1:9000"]), 0xcf32_10eb_fbc6_b2b5);
        assert_ne!(of(&[b"ab", b"c"]), of(&[b"a", b"bc"]));
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (values, wanted) in [
            (&[&b"sid=7"[..]][..], Some(&b"7"[..])),
            (&[b"xsid=1; sid=2;sid=3"], Some(b"2")),
            (&[b"a=b", b"c=d; sid=x=y"], Some(b"x=y")),
            (&[b"sid"], None),
            (&[b"SID=1"], None),
            (&[b"sid="], Some(b"")),
            (&[], None),
        ] {
            assert_eq!(cookie(values.iter().copied(), "sid"), wanted, "{values:?}");
        }
    }
}
