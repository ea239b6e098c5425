//! `Sec-WebSocket-Extensions`: what goes upstream is read as it was meant, and what is agreed on was offered.

#![no_main]

use libfuzzer_sys::fuzz_target;
use upsplice::ws::extensions::Offer;
use upsplice::ws::policy::Deflate;

fuzz_target!(|data: &[u8]| {
    // Lines of the offer, then lines of the answer.
    let mut sides = data.splitn(2, |byte| *byte == 0);
    let (asked, answered) = (sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
    let lines = || asked.split(|byte| *byte == b'\n');
    let stripped = Offer::read(lines(), Deflate::Strip);
    let Ok(offer) = Offer::read(lines(), Deflate::SeeThrough) else {
        assert!(stripped.is_err(), "the grammar does not hang on the policy");
        return;
    };
    assert_eq!(stripped.map(|offer| offer.field()), Ok(None));
    let field = offer.field();
    let again = Offer::read(field.iter().map(String::as_bytes), Deflate::SeeThrough);
    assert_eq!(again.as_ref(), Ok(&offer), "{field:?}");

    let Ok(Some(agreed)) = offer.accept(answered.split(|byte| *byte == b'\n')) else { return };
    let field = field.expect("nothing is agreed on that was not offered");
    let bits = 8..=15;
    assert!(bits.contains(&agreed.client_max_window_bits));
    assert!(bits.contains(&agreed.server_max_window_bits));
    if agreed.client_max_window_bits != 15 {
        assert!(field.contains("client_max_window_bits"), "{field}");
    }
    // An offer that asks for something of the server has it.
    let offers = || field.split(", ");
    if offers().all(|offer| offer.contains("server_no_context_takeover")) {
        assert!(agreed.server_no_context_takeover, "{field}");
    }
    if offers().all(|offer| offer.contains("server_max_window_bits=8")) {
        assert_eq!(agreed.server_max_window_bits, 8, "{field}");
    }
});
