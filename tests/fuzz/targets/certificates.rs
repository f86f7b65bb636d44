//! A directory of certificates: chain, key and roots with anything in them. The input is the three files, with a zero
//! byte between them.
#![no_main]

use libfuzzer_sys::fuzz_target;

mod directory;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    directory::check(next(), next(), next());
});
