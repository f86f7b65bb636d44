//! Our bytes of 2.0 against a protobuf library, and against our own bytes of 1.0.

use std::sync::Arc;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::model::{Block, CUSTOM_SCHEMA, Histogram, Labels, Metadata, Sample, TargetId, WriteFormat, stale_nan};
use crate::wire::snappy::message_of;
use crate::wire::tests::{KINDS, any_histogram, any_labels, any_sample, any_value, of_library};
use crate::wire::{
    compress, decode_v2, encode_exemplar, encode_labels, join, part, push_exemplars, push_histogram, push_sample,
    series_of,
};

/// What an entry holds.
#[derive(Clone, Debug)]
enum One {
    /// And since when it counts.
    Sample(Sample, Option<i64>),
    Histogram(Histogram, i64, Option<i64>),
    Exemplar(Labels, f64, i64),
}

#[derive(Clone, Debug)]
struct Entry {
    labels: Labels,
    metadata: Option<Arc<Metadata>>,
    one: One,
}

/// Texts that are also used as labels are among help texts and units.
fn any_metadata() -> impl Strategy<Value = Option<Arc<Metadata>>> {
    let text = || prop_oneof![Just(String::new()), "[a-z]{0,2}", ".{0,20}"];
    let one = (0..KINDS.len(), text(), text()).prop_map(|(kind, help, unit)| {
        Arc::new(Metadata { family: "f".into(), kind: KINDS[kind], help: (*help).into(), unit: (*unit).into() })
    });
    proptest::option::of(one)
}

/// Histograms of all schemas, among them many with listed bounds.
fn any_histogram_of_2() -> impl Strategy<Value = Histogram> {
    let listed = (any_histogram(), vec(any_value(), 0..5)).prop_map(|(one, custom_values)| Histogram {
        schema: CUSTOM_SCHEMA,
        custom_values,
        ..one
    });
    prop_oneof![any_histogram().prop_filter("listed bounds", |one| one.schema != CUSTOM_SCHEMA), listed]
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let timestamp = || prop_oneof![Just(0), any::<i64>()];
    // 0 is none.
    let start = || proptest::option::of(any::<i64>().prop_filter("some", |start_ms| *start_ms != 0));
    let one = prop_oneof![
        3 => (any_sample(), start()).prop_map(|(one, start_ms)| One::Sample(one, start_ms)),
        1 => (any_histogram_of_2(), timestamp(), start()).prop_map(|(one, at, start_ms)| One::Histogram(one, at, start_ms)),
        1 => (any_labels(), any_value(), timestamp()).prop_map(|(labels, value, at)| One::Exemplar(labels, value, at)),
    ];
    (any_labels(), any_metadata(), one).prop_map(|(labels, metadata, one)| Entry { labels, metadata, one })
}

/// The message that a draft makes.
fn message(entries: &[Entry]) -> Vec<u8> {
    let mut dictionary = Dictionary::default();
    let encoded: Vec<_> = entries.iter().map(|entry| dictionary.encode(&entry.labels)).collect();
    let mut draft = Draft::new(&dictionary);
    push(&mut draft, entries, &encoded);
    let length = draft.len();
    let message = draft.finish();
    assert_eq!(message.len(), length);
    message
}

fn push(draft: &mut Draft<'_>, entries: &[Entry], encoded: &[Vec<u8>]) {
    for (entry, labels) in entries.iter().zip(encoded) {
        let what = What { labels, metadata: entry.metadata.as_ref() };
        match &entry.one {
            One::Sample(sample, start_ms) => draft.push_sample(what, *sample, *start_ms),
            One::Histogram(histogram, at, start_ms) => draft.push_histogram(what, histogram, *at, *start_ms),
            One::Exemplar(labels, value, at) => draft.push_exemplar(what, &encode_exemplar(labels, *value, *at)),
        }
    }
}

fn block(message: &[u8], samples: usize) -> Block {
    Block {
        target: TargetId(1),
        receiver: 0,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V2,
        samples: samples as u32,
        min_ms: 0,
        max_ms: 0,
        raw_len: message.len() as u32,
        elements: Bytes::from(compress(message).expect("far below 4 GiB")),
    }
}

fn block_of(entries: &[Entry]) -> Block {
    let counted = entries.iter().filter(|entry| !matches!(entry.one, One::Exemplar(..)));
    block(&message(entries), counted.count())
}

/// What a protobuf library makes of the same entries: each text has its place in the order in which texts come.
fn of_a_library(entries: &[Entry]) -> Vec<u8> {
    let mut request = proto::Request { symbols: vec![String::new()], timeseries: Vec::new() };
    for Entry { labels, metadata, one } in entries {
        let mut place = |text: &str| {
            let symbols = &mut request.symbols;
            let at = symbols.iter().position(|known| known == text).unwrap_or_else(|| {
                symbols.push(text.to_owned());
                symbols.len() - 1
            });
            at as u32
        };
        let mut refs = |labels: &Labels| -> Vec<u32> {
            labels.iter().flat_map(|(name, value)| [place(name), place(value)]).collect()
        };
        let mut series = proto::TimeSeries { labels_refs: refs(labels), ..Default::default() };
        match one {
            One::Sample(sample, start_ms) => series.samples.push(proto::Sample {
                value: sample.value,
                timestamp: sample.timestamp_ms,
                start_timestamp: start_ms.unwrap_or(0),
            }),
            One::Histogram(histogram, at, start_ms) => series.histograms.push(of_2(histogram, *at, *start_ms)),
            One::Exemplar(own, value, timestamp) => {
                series.exemplars.push(proto::Exemplar { labels_refs: refs(own), value: *value, timestamp: *timestamp })
            }
        }
        series.metadata = metadata.as_ref().map(|metadata| proto::Metadata {
            r#type: KINDS.iter().position(|kind| *kind == metadata.kind).expect("listed") as i32,
            help_ref: place(&metadata.help),
            unit_ref: place(&metadata.unit),
        });
        request.timeseries.push(series);
    }
    request.encode_to_vec()
}

fn of_2(histogram: &Histogram, timestamp: i64, start_ms: Option<i64>) -> proto::Histogram {
    let of_1 = of_library(histogram, timestamp);
    proto::Histogram {
        count: of_1.count,
        sum: of_1.sum,
        schema: of_1.schema,
        zero_threshold: of_1.zero_threshold,
        zero_count: of_1.zero_count,
        negative_spans: of_1.negative_spans,
        negative_deltas: of_1.negative_deltas,
        negative_counts: of_1.negative_counts,
        positive_spans: of_1.positive_spans,
        positive_deltas: of_1.positive_deltas,
        positive_counts: of_1.positive_counts,
        reset_hint: of_1.reset_hint,
        timestamp,
        custom_values: histogram.custom_values.clone(),
        start_timestamp: start_ms.unwrap_or(0),
    }
}

/// What our encoder of 1.0 makes of the same entries, as far as 1.0 can hold them.
fn of_1(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for Entry { labels, one, .. } in entries {
        let labels = encode_labels(labels);
        match one {
            One::Sample(sample, _) => push_sample(&mut out, &labels, *sample),
            One::Histogram(histogram, ..) if histogram.schema == CUSTOM_SCHEMA => {}
            One::Histogram(histogram, at, _) => push_histogram(&mut out, &labels, histogram, *at),
            One::Exemplar(own, value, at) => {
                push_exemplars(&mut out, &labels, std::iter::once(&*encode_exemplar(own, *value, *at)));
            }
        }
    }
    out
}

/// The library leaves zeros out of samples; we never do.
fn without_zeros(entries: Vec<Entry>) -> Vec<Entry> {
    let is_zero = |one: &One| matches!(one, One::Sample(sample, _) if sample.value == 0.0 || sample.timestamp_ms == 0);
    entries.into_iter().filter(|entry| !is_zero(&entry.one)).collect()
}

proptest! {
    #[test]
    fn our_requests_are_those_of_the_library(entries in vec(any_entry(), 0..12)) {
        let entries = without_zeros(entries);
        let ours = message(&entries);
        prop_assert_eq!(&ours, &of_a_library(&entries));
        let read = proto::Request::decode(ours.as_slice()).expect("a request");
        prop_assert_eq!(read.symbols.first().map(String::as_str), Some(""));
        let unique: std::collections::HashSet<_> = read.symbols.iter().collect();
        prop_assert_eq!(unique.len(), read.symbols.len());
        for (series, entry) in read.timeseries.iter().zip(&entries) {
            let labels = read.labels(&series.labels_refs).expect("valid references");
            prop_assert!(labels.is_sorted_by(|one, other| one.name < other.name));
            prop_assert!(labels.iter().map(|label| (&*label.name, &*label.value)).eq(entry.labels.iter()));
        }
    }

    #[test]
    fn joined_blocks_are_one_request_of_all_entries(blocks in vec(vec(any_entry(), 0..6), 1..5)) {
        let blocks: Vec<_> = blocks.into_iter().map(without_zeros).collect();
        let made: Vec<_> = blocks.iter().map(|entries| block_of(entries)).collect();
        let body = join(&made.iter().collect::<Vec<_>>()).expect("joins");
        let joined = snap::raw::Decoder::new().decompress_vec(&body).expect("snappy");
        prop_assert_eq!(joined, of_a_library(&blocks.concat()));
    }

    #[test]
    fn a_recoded_block_is_what_the_encoder_of_1_makes(entries in vec(any_entry(), 0..12)) {
        let block = block_of(&entries);
        let recoded = recode(&block).expect("recodes");
        let listed = entries.iter().filter(|entry| {
            matches!(&entry.one, One::Histogram(histogram, ..) if histogram.schema == CUSTOM_SCHEMA)
        });
        prop_assert_eq!(recoded.listed_bounds as usize, listed.count());
        prop_assert_eq!(recoded.block.samples, block.samples - recoded.listed_bounds);
        prop_assert_eq!(recoded.block.format, WriteFormat::V1);
        prop_assert_eq!(message_of(&recoded.block).expect("snappy"), of_1(&entries));
    }

    #[test]
    fn a_part_of_a_block_is_what_the_library_makes_of_its_entries(entries in vec(any_entry(), 0..12), chosen in any::<u16>()) {
        let entries = without_zeros(entries);
        let whole = block_of(&entries);
        let series: Vec<_> = entries.iter().map(|entry| entry.labels.clone()).collect();
        prop_assert_eq!(series_of(&whole).expect("ours"), series);
        let is_chosen = |at: usize| chosen >> at & 1 == 1;
        let expected: Vec<_> =
            entries.iter().enumerate().filter(|(at, _)| is_chosen(*at)).map(|(_, one)| one.clone()).collect();
        let samples = expected.iter().filter(|entry| !matches!(entry.one, One::Exemplar(..))).count();
        match part(&whole, is_chosen).expect("ours") {
            Some(part) => {
                prop_assert_eq!(part.samples as usize, samples);
                prop_assert_eq!(message_of(&part).expect("snappy"), of_a_library(&expected));
            }
            None => prop_assert_eq!(samples, 0),
        }
    }

    #[test]
    fn damaged_blocks_are_told_and_never_panic(
        entries in vec(any_entry(), 1..4),
        noise in vec(any::<u8>(), 0..80),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let good = block_of(&entries);
        let mut bytes = message(&entries);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        for bad in [block(&noise, 1), block(&bytes, 1), block(&bytes[..at], 1)] {
            let _ = join(&[&good, &bad]);
            let _ = recode(&bad);
            let _ = series_of(&bad);
            let _ = part(&bad, |at| at % 2 == 0);
        }
    }
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().copied().collect()
}

fn sample_of(pairs: &[(&str, &str)]) -> Entry {
    Entry { labels: labels(pairs), metadata: None, one: One::Sample(Sample { value: 1.0, timestamp_ms: 2 }, None) }
}

#[test]
fn blocks_of_different_formats_do_not_join() {
    let block = block_of(&[sample_of(&[("__name__", "up")])]);
    let other = Block { format: WriteFormat::V1, ..block.clone() };
    assert!(matches!(join(&[&block, &other]), Err(WireError::Mixed)));
}

#[test]
fn a_reference_that_leads_nowhere_is_told() {
    // One symbol, and an entry that refers to the second.
    let message = [0x22, 0x00, 0x2a, 0x04, 0x0a, 0x02, 0x00, 0x01];
    let (good, bad) = (block_of(&[sample_of(&[("__name__", "up")])]), block(&message, 1));
    assert!(matches!(join(&[&good, &bad]), Err(WireError::Damaged(_))));
    assert!(matches!(recode(&bad), Err(WireError::Damaged(_))));
    let request = decode_v2(&join(&[&bad]).expect("alone it goes as it is")).expect("a request");
    assert!(matches!(request.samples(), Err(WireError::Damaged(_))));
}

#[test]
fn each_message_of_a_draft_has_its_own_table() {
    let entries = [sample_of(&[("__name__", "a"), ("x", "y")]), sample_of(&[("__name__", "b")])];
    let mut dictionary = Dictionary::default();
    let encoded: Vec<_> = entries.iter().map(|entry| dictionary.encode(&entry.labels)).collect();
    let mut draft = Draft::new(&dictionary);
    for at in [0, 1, 0] {
        push(&mut draft, &entries[at..=at], &encoded[at..=at]);
        assert_eq!(draft.finish(), of_a_library(&entries[at..=at]));
        assert!(draft.is_empty());
    }
}

#[test]
fn zeros_and_the_bits_of_a_staleness_marker_are_written() {
    let entry = |value, timestamp_ms| Entry {
        one: One::Sample(Sample { value, timestamp_ms }, None),
        ..sample_of(&[("__name__", "up")])
    };
    let message = message(&[entry(0.0, 0), entry(-0.0, 1), entry(stale_nan(), 1)]);
    let read = proto::Request::decode(message.as_slice()).expect("a request");
    let bits: Vec<_> = read.timeseries.iter().map(|series| series.samples[0].value.to_bits()).collect();
    assert_eq!(bits, [0, 1 << 63, stale_nan().to_bits()]);
    assert!(message.windows(13).any(|bytes| bytes == [0x12, 11, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]));
}

#[test]
fn a_dictionary_forgets_what_nobody_uses() {
    let mut dictionary = Dictionary::default();
    let kept = dictionary.encode(&labels(&[("__name__", "up"), ("job", "cart")]));
    let bytes = dictionary.bytes();
    let gone: Vec<_> = (0..1_000).map(|n| dictionary.encode(&labels(&[("n", &n.to_string())]))).collect();
    assert!(dictionary.has_grown() && dictionary.bytes() > bytes + 1_000 * 8);
    dictionary.sweep([kept.as_slice()].into_iter());
    assert_eq!((dictionary.bytes(), dictionary.has_grown()), (bytes, false));
    let numbers = dictionary.highest();
    for n in 0..gone.len() {
        dictionary.encode(&labels(&[("n", &(n + 5_000).to_string())]));
    }
    assert_eq!(dictionary.highest(), numbers, "numbers that are free are given again");
    assert_eq!(dictionary.encode(&labels(&[("__name__", "up"), ("job", "cart")])), kept);
    dictionary.sweep(std::iter::empty());
    assert_eq!(dictionary.bytes(), 0);
}

/// What design and documentation say a sample costs: Istio's labels, counters of whole numbers.
#[test]
fn a_sample_of_a_known_shape_takes_few_bytes() {
    let help: Arc<str> = "How long requests took".into();
    let metadata = Some(Arc::new(Metadata {
        family: "istio_request_duration_milliseconds".into(),
        kind: KINDS[3],
        help,
        unit: "milliseconds".into(),
    }));
    let entry = |n: u32| {
        let (code, peer) = (["200", "404", "503"][n as usize % 3], format!("workload-{}", n / 30));
        let bound = (f64::from(n % 30) * 2.5).to_string();
        let pairs = [
            ("__name__", "istio_request_duration_milliseconds_bucket"),
            ("connection_security_policy", "mutual_tls"),
            ("destination_canonical_revision", "latest"),
            ("destination_principal", "spiffe://cluster.local/ns/shop/sa/cart"),
            ("destination_service", "cart.shop.svc.cluster.local"),
            ("destination_workload", "cart"),
            ("instance", "10.0.0.17:15092"),
            ("job", "istio-secure-merged"),
            ("le", &bound),
            ("reporter", "destination"),
            ("request_protocol", "http"),
            ("response_code", code),
            ("source_principal", "spiffe://cluster.local/ns/shop/sa/frontend"),
            ("source_workload", &peer),
        ];
        let value = f64::from(n.wrapping_mul(2_654_435_761) >> 12);
        let one = One::Sample(Sample { value, timestamp_ms: 1_795_000_000_000 }, None);
        Entry { labels: labels(&pairs), metadata: metadata.clone(), one }
    };
    let entries: Vec<_> = (0..2_000).map(entry).collect();
    let per_sample = |block: &Block| block.elements.len() as f64 / entries.len() as f64;
    let with = block_of(&entries);
    let without: Vec<_> = entries.iter().map(|entry| Entry { metadata: None, ..entry.clone() }).collect();
    let (with, without) = (per_sample(&with), per_sample(&block_of(&without)));
    let of_1 = compress(&of_1(&entries)).expect("small").len() as f64 / entries.len() as f64;
    let told = format!("{with} with metadata, {without} without, {of_1} by 1.0");
    assert!(with < 14.0 && with < without + 0.5 && with < of_1 / 3.0, "{told}");
}
