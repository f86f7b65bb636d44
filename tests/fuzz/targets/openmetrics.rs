//! Bodies in the OpenMetrics text format.
#![no_main]

use libfuzzer_sys::fuzz_target;
use meshscrape::parse::Format;

mod lines;

fuzz_target!(|body: &[u8]| {
    lines::check(Format::OpenMetrics, body);
});
