//! The mask of a client's payload (RFC 6455 §5.3).

/// Unmasks `source`, which begins `offset` bytes into a payload masked with `key`, into `out`, which is as long.
pub fn unmask_into(source: &[u8], key: [u8; 4], offset: usize, out: &mut [u8]) {
    assert_eq!(source.len(), out.len(), "as much comes out as goes in");
    let mut key = key;
    key.rotate_left(offset % 4);
    let wide = u64::from_ne_bytes([key[0], key[1], key[2], key[3], key[0], key[1], key[2], key[3]]);
    let (lanes, rest) = source.as_chunks::<8>();
    let (out_lanes, out_rest) = out.as_chunks_mut::<8>();
    for (lane, out) in lanes.iter().zip(out_lanes) {
        *out = (u64::from_ne_bytes(*lane) ^ wide).to_ne_bytes();
    }
    for ((byte, out), key) in rest.iter().zip(out_rest).zip(key.iter().cycle()) {
        *out = byte ^ key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_piece_of_a_payload_is_unmasked_as_its_place_says() {
        let key = [0x11, 0x22, 0x33, 0x44];
        let plain: Vec<u8> = (0..100).collect();
        let masked: Vec<u8> =
            plain.iter().enumerate().map(|(at, byte)| byte ^ key[at % 4]).collect();
        for begin in 0..24 {
            for end in begin..100 {
                let mut out = vec![0; end - begin];
                unmask_into(&masked[begin..end], key, begin, &mut out);
                assert_eq!(out, plain[begin..end], "{begin}..{end}");
            }
        }
    }
}
