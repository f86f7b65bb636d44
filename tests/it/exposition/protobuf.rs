//! Protobuf expositions: in whatever pieces they come, and each way to refuse one, with its place in the body.

use meshscrape::parse::protobuf::{FamilyParser, FamilyStep, MAX_FAMILY_BYTES, MAX_METRIC_BYTES, NativeHistograms};
use proptest::prelude::*;

use super::{Seen, seen};
use crate::support::protobuf::stream;

/// All entries of a body, and the error behind them.
fn read<'b>(chunks: impl IntoIterator<Item = &'b [u8]>) -> (Vec<Seen>, Option<String>) {
    let mut parser = FamilyParser::new(NativeHistograms { read: true, classic_too: true });
    let mut chunks = chunks.into_iter();
    let (mut buffer, mut entries, mut at_end) = (Vec::new(), Vec::new(), false);
    loop {
        let taken = match parser.next(&buffer, at_end) {
            Ok(FamilyStep::Family(mut family, taken)) => loop {
                match family.next_entry() {
                    Ok(Some(entry)) => entries.push(seen(&entry)),
                    Ok(None) => break taken,
                    Err(error) => return (entries, Some(error.to_string())),
                }
            },
            Ok(FamilyStep::NeedMore) => {
                assert!(!at_end, "more is asked for where nothing more can come");
                match chunks.next() {
                    Some(chunk) => buffer.extend_from_slice(chunk),
                    None => at_end = true,
                }
                continue;
            }
            Ok(FamilyStep::End) => {
                assert!(at_end && buffer.is_empty());
                return (entries, None);
            }
            Err(error) => return (entries, Some(error.to_string())),
        };
        assert!(taken > 0, "a family that takes nothing would come for ever");
        buffer.drain(..taken);
    }
}

const GOOD: &str = r#"name: "a_bytes" help: "A." unit: "bytes" type: GAUGE metric { gauge { value: 1 } } metric { label { name: "x" value: "1" } gauge { value: nan } timestamp_ms: -5 }
name: "h" type: HISTOGRAM metric { histogram { sample_count: 3 sample_sum: 1.5 bucket { cumulative_count: 2 upper_bound: 1 } } }
name: "s" type: SUMMARY metric { summary { sample_count: 3 quantile { quantile: 0.5 value: 2 } } }"#;

#[test]
fn a_body_gives_the_entries_that_text_would_give() {
    let (entries, error) = read([stream(GOOD.as_bytes()).as_slice()]);
    assert_eq!(error, None);
    let told: Vec<_> = entries
        .iter()
        .map(|entry| match entry {
            Seen::Sample(sample) => {
                let labels = sample.labels.as_ref().expect("no label is given twice");
                let time = sample.timestamp_ms.map(|ms| format!(" {ms}")).unwrap_or_default();
                format!("{labels} {:?}{time}", f64::from_bits(sample.bits))
            }
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(
        told,
        [
            r#"Help("a_bytes", "A.")"#,
            r#"Unit("a_bytes", "bytes")"#,
            r#"Type("a_bytes", Gauge)"#,
            r#"{__name__="a_bytes"} 1.0"#,
            r#"{__name__="a_bytes", x="1"} NaN -5"#,
            r#"Help("h", "")"#,
            r#"Type("h", Histogram)"#,
            r#"{__name__="h_count"} 3.0"#,
            r#"{__name__="h_sum"} 1.5"#,
            r#"{__name__="h_bucket", le="1.0"} 2.0"#,
            r#"{__name__="h_bucket", le="+Inf"} 3.0"#,
            r#"Help("s", "")"#,
            r#"Type("s", Summary)"#,
            r#"{__name__="s_count"} 3.0"#,
            r#"{__name__="s_sum"} 0.0"#,
            r#"{__name__="s", quantile="0.5"} 2.0"#,
        ]
    );
}

#[test]
fn a_body_may_come_byte_by_byte() {
    let body = stream(GOOD.as_bytes());
    assert_eq!(read(body.chunks(1)), read([body.as_slice()]));
}

/// `text` follows a good family of 22 bytes, and is refused with these words.
#[track_caller]
fn refused(text: &str, words: &str) {
    let body = stream(format!("name: \"good\" type: GAUGE metric {{ gauge {{ value: 1 }} }}\n{text}").as_bytes());
    let (entries, error) = read([body.as_slice()]);
    assert_eq!(error.as_deref(), Some(words), "{text}");
    let samples = entries.iter().filter(|entry| matches!(entry, Seen::Sample(_))).count();
    assert!(samples >= 1, "what comes before is told");
}

#[test]
fn what_is_not_a_family_is_refused_with_its_place() {
    let not_a_number =
        "this is not a number as protobuf writes them: the body is probably not a stream of MetricFamily messages";
    refused("raw 808080808000", &format!("byte 22: {not_a_number}"));
    refused("raw 0180", &format!("byte 23: {not_a_number}"));
    refused("raw ff", "byte 22: the body ends inside a metric family, of which 1 bytes are missing");
    refused("raw 0a0a", "byte 22: the body ends inside a metric family, of which 9 bytes are missing");
    refused("raw 818080801001", "byte 22: the metric family has 4294967297 bytes, and 33554432 are read at most");
    refused("raw 0100", "byte 23: a field has the number 0, which no field has");
    refused("raw 020a05", "byte 23: the field 1 is longer than the message around it");
    refused("raw 0133", "byte 23: the field 6 of MetricFamily cannot have the wire type 3");
    refused("raw 022001", "byte 23: the field 4 of MetricFamily cannot have the wire type 0");
    refused("raw 050d00000000", "byte 23: the field 1 of MetricFamily cannot have the wire type 5");
}

#[test]
fn a_family_that_says_nothing_sensible_is_refused() {
    refused("type: GAUGE metric { gauge { value: 1 } }", "byte 23: the name of a metric family is empty");
    refused("name: \"a\" type: 9 metric { }", "byte 23: \"a\" has the unknown type 9");
    refused(
        "name: \"a_s\" unit: \"seconds\" type: GAUGE metric { }",
        "byte 23: the unit \"seconds\" is not the last part of the metric name \"a_s\"",
    );
    refused("name: \"a\" type: GAUGE metric { label { value: \"1\" } }", "byte 30: a label of \"a\" has an empty name");
    let labels = "label { name: \"x\" } ".repeat(1025);
    let words = "byte 32: a metric of \"a\" has over 1024 labels";
    refused(&format!("name: \"a\" type: GAUGE metric {{ {labels} }}"), words);
    refused(
        "raw 0a0a016118012203120109",
        "byte 30: a metric of \"a\" cannot be read: failed to decode Protobuf message: Number.value: Metric.gauge: buffer underflow",
    );
}

#[test]
fn texts_are_utf8() {
    let family = |part: &[u8], rest: &str| {
        let body = [&b"name: \"a"[..], part, b"\" type: GAUGE metric { ", rest.as_bytes(), b" }"].concat();
        read([stream(&body).as_slice()]).1.expect("refused")
    };
    assert_eq!(family(b"\xff", ""), "byte 1: the name of the metric family is not valid UTF-8");
    assert!(family(b"\" help: \"\xff", "").ends_with("the help text of the metric family is not valid UTF-8"));
    assert!(family(b"\" unit: \"\xff", "").ends_with("the unit of the metric family is not valid UTF-8"));
}

#[test]
fn memory_for_a_family_is_bounded_whatever_it_claims() {
    let mut claim = Vec::new();
    prost::encoding::encode_varint(MAX_FAMILY_BYTES as u64 + 1, &mut claim);
    let (_, error) = read([claim.as_slice()]);
    assert!(error.is_some_and(|error| error.contains("are read at most")), "before any of it has come");
    let long = "x".repeat(MAX_METRIC_BYTES);
    let family = format!("name: \"a\" type: GAUGE metric {{ label {{ name: \"x\" value: \"{long}\" }} }}");
    let (_, error) = read([stream(family.as_bytes()).as_slice()]);
    assert!(error.is_some_and(|error| error.contains("the metric has 1048")), "a metric has a bound of its own");
}

proptest! {
    #[test]
    fn no_bytes_panic(body in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200usize) {
        let _ = read(body.chunks(cut.max(1)));
    }

    /// Bytes that are nearly right come further than random ones.
    #[test]
    fn no_changed_body_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = stream(GOOD.as_bytes());
        let at = at.index(body.len());
        body[at] = byte;
        let whole = read([body.as_slice()]);
        prop_assert_eq!(read(body.chunks(7)), whole);
    }
}
