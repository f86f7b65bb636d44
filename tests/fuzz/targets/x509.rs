//! The certificates themselves, which PEM would hide from mutation: the input is certificates in DER, one after the other,
//! and becomes both our chain and the roots, beside a key that belongs to the corpus' first certificate.
#![no_main]

use base64::prelude::{BASE64_STANDARD, Engine as _};
use libfuzzer_sys::fuzz_target;

mod directory;

/// Belongs to nothing but the corpus.
const KEY: &str = include_str!("../corpus/x509.key");

fuzz_target!(|data: &[u8]| {
    let (mut rest, mut pem) = (data, String::new());
    while !rest.is_empty() {
        let (certificate, behind) = rest.split_at(length(rest));
        pem += &format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            BASE64_STANDARD.encode(certificate)
        );
        rest = behind;
    }
    directory::check(pem.as_bytes(), KEY.as_bytes(), pem.as_bytes());
});

/// The length of the first certificate as it says itself, or everything.
fn length(data: &[u8]) -> usize {
    match *data {
        [0x30, 0x81, length, ..] => 3 + usize::from(length),
        [0x30, 0x82, high, low, ..] => 4 + usize::from(u16::from_be_bytes([high, low])),
        _ => data.len(),
    }
    .min(data.len())
}
