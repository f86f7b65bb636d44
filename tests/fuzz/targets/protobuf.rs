//! Protobuf bodies: streams of metric families, each behind its length.
#![no_main]

use std::collections::HashMap;

use libfuzzer_sys::fuzz_target;
use meshscrape::model::normalise_nan;
use meshscrape::parse::Entry;
use meshscrape::parse::protobuf::{FamilyParser, FamilyStep, NativeHistograms, ProtobufError};

fuzz_target!(|body: &[u8]| {
    for (native, classic_too) in [(false, false), (true, false), (true, true)] {
        let histograms = NativeHistograms { read: native, classic_too };
        let whole = read(body, body.len().max(1), histograms);
        let pieces = read(body, 1 + body.len() % 13, histograms);
        assert_eq!(whole, pieces, "the same bytes give the same entries however they are cut");
        if let (_, Some(error)) = &whole {
            assert!(error.byte <= body.len() as u64, "{error}");
            let words = error.to_string();
            assert!(words.len() < 400 && !words.contains(char::is_control), "{words:?}");
        }
    }
});

/// The entries in words, and the error behind them.
fn read(body: &[u8], piece: usize, histograms: NativeHistograms) -> (Vec<String>, Option<ProtobufError>) {
    let mut parser = FamilyParser::new(histograms);
    let mut entries = Vec::new();
    let mut keys = HashMap::new();
    let (mut from, mut until) = (0, 0);
    loop {
        match parser.next(&body[from..until], until == body.len()) {
            Ok(FamilyStep::Family(mut family, taken)) => {
                assert!(taken > 0, "a family that takes nothing would come for ever");
                from += taken;
                loop {
                    match family.next_entry() {
                        Ok(Some(entry)) => {
                            entries.push(format!("{entry:?}"));
                            let Entry::Sample(sample) = entry else { continue };
                            assert_eq!(sample.value.to_bits(), normalise_nan(sample.value).to_bits());
                            let labels = sample.labels().ok();
                            let key = sample.series.key().as_bytes().to_vec();
                            assert_eq!(keys.entry(key).or_insert_with(|| labels.clone()), &labels);
                        }
                        Ok(None) => break,
                        Err(error) => return (entries, Some(error)),
                    }
                }
            }
            Ok(FamilyStep::NeedMore) => {
                assert!(until < body.len(), "more is asked for where nothing more can come");
                until = (until + piece).min(body.len());
            }
            Ok(FamilyStep::End) => {
                assert!(from == body.len());
                return (entries, None);
            }
            Err(error) => return (entries, Some(error)),
        }
    }
}
