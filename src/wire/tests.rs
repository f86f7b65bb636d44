//! Our bytes against a protobuf library and the snap crate.

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::model::{
    Block, Buckets, Counts, Histogram, Labels, Metadata, MetricType, STALE_NAN_BITS, Sample, Span, Tally, TargetId,
    WriteFormat, stale_nan,
};

/// By the numbers that they have in messages.
pub(in crate::wire) const KINDS: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

/// A block as a target's task makes it.
fn block(series: &[(Labels, Sample)]) -> Block {
    let mut message = Vec::new();
    for (labels, sample) in series {
        push_sample(&mut message, &encode_labels(labels), *sample);
    }
    Block {
        target: TargetId(1),
        receiver: 0,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples: series.len() as u32,
        min_ms: 0,
        max_ms: 0,
        raw_len: message.len() as u32,
        elements: Bytes::from(compress(&message).expect("far below 4 GiB")),
    }
}

fn entry(labels: &Labels, sample: Sample) -> proto::TimeSeries {
    let labels = labels.iter().map(|(name, value)| proto::Label { name: name.into(), value: value.into() }).collect();
    let samples = vec![proto::Sample { value: sample.value, timestamp: sample.timestamp_ms }];
    proto::TimeSeries { labels, samples, ..Default::default() }
}

fn read_back(request: proto::WriteRequest) -> Vec<(Labels, Sample)> {
    let mut series = Vec::new();
    for entry in request.timeseries {
        assert!(entry.labels.is_sorted_by(|a, b| a.name < b.name), "sorted and unique: {:?}", entry.labels);
        let labels: Labels = entry.labels.iter().map(|label| (&label.name, &label.value)).collect();
        assert_eq!(labels.len(), entry.labels.len(), "no label was empty");
        assert_eq!(entry.samples.len(), 1, "one sample an entry");
        for sample in entry.samples {
            series.push((labels.clone(), Sample { value: sample.value, timestamp_ms: sample.timestamp }));
        }
    }
    series
}

pub(in crate::wire) fn any_labels() -> impl Strategy<Value = Labels> {
    let pair = ("[a-zA-Z_][a-zA-Z0-9_.é]{0,12}", "([a-z]{0,40}|.{0,6})");
    proptest::collection::vec(pair, 0..8).prop_map(|pairs| pairs.into_iter().collect())
}

pub(in crate::wire) fn any_sample() -> impl Strategy<Value = Sample> {
    let value = prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        Just(0.0),
        Just(-0.0),
        Just(stale_nan()),
        Just(f64::INFINITY),
        any::<f64>()
    ];
    let timestamp = prop_oneof![any::<i64>(), Just(0), Just(-1), 1_600_000_000_000..4_000_000_000_000i64];
    (value, timestamp).prop_map(|(value, timestamp_ms)| Sample { value, timestamp_ms })
}

fn any_series() -> impl Strategy<Value = Vec<(Labels, Sample)>> {
    proptest::collection::vec((any_labels(), any_sample()), 0..12)
}

/// Numbers that a library does not leave out for being 0 while their bits are not.
pub(in crate::wire) fn any_value() -> impl Strategy<Value = f64> {
    any::<u64>().prop_map(|bits| f64::from_bits(if bits == (-0.0f64).to_bits() { 0 } else { bits }))
}

fn any_buckets<B: std::fmt::Debug>(count: impl Strategy<Value = B>) -> impl Strategy<Value = Buckets<B>> {
    let span = (any::<i32>(), any::<u32>()).prop_map(|(offset, length)| Span { offset, length });
    let parts = (proptest::collection::vec(span, 0..4), proptest::collection::vec(count, 0..9));
    parts.prop_map(|(spans, counts)| Buckets { spans, counts })
}

pub(in crate::wire) fn any_histogram() -> impl Strategy<Value = Histogram> {
    let whole = (any::<u64>(), any::<u64>(), any_buckets(any::<i64>()), any_buckets(any::<i64>()));
    let float = (any_value(), any_value(), any_buckets(any_value()), any_buckets(any_value()));
    let counts = prop_oneof![
        whole.prop_map(|(count, zero_count, negative, positive)| {
            Counts::Integer(Tally { count, zero_count, negative, positive })
        }),
        float.prop_map(|(count, zero_count, negative, positive)| {
            Counts::Float(Tally { count, zero_count, negative, positive })
        }),
    ];
    (any::<i32>(), any_value(), any_value(), any::<bool>(), counts).prop_map(
        |(schema, zero_threshold, sum, gauge, counts)| Histogram {
            schema,
            zero_threshold,
            sum,
            gauge,
            counts,
            custom_values: Vec::new(),
        },
    )
}

/// The same as a protobuf library has it.
pub(in crate::wire) fn of_library(histogram: &Histogram, timestamp: i64) -> proto::Histogram {
    let spans = |spans: &[Span]| -> Vec<_> {
        spans.iter().map(|span| proto::BucketSpan { offset: span.offset, length: span.length }).collect()
    };
    let head = proto::Histogram {
        sum: histogram.sum,
        schema: histogram.schema,
        zero_threshold: histogram.zero_threshold,
        reset_hint: if histogram.gauge { 3 } else { 0 },
        timestamp,
        ..Default::default()
    };
    match histogram.counts.clone() {
        Counts::Integer(tally) => proto::Histogram {
            count: Some(proto::Count::Integer(tally.count)),
            zero_count: Some(proto::ZeroCount::Integer(tally.zero_count)),
            negative_spans: spans(&tally.negative.spans),
            negative_deltas: tally.negative.counts,
            positive_spans: spans(&tally.positive.spans),
            positive_deltas: tally.positive.counts,
            ..head
        },
        Counts::Float(tally) => proto::Histogram {
            count: Some(proto::Count::Float(tally.count)),
            zero_count: Some(proto::ZeroCount::Float(tally.zero_count)),
            negative_spans: spans(&tally.negative.spans),
            negative_counts: tally.negative.counts,
            positive_spans: spans(&tally.positive.spans),
            positive_counts: tally.positive.counts,
            ..head
        },
    }
}

proptest! {
    #[test]
    fn our_histograms_are_those_of_the_library(
        labels in any_labels(),
        histogram in any_histogram(),
        timestamp in prop_oneof![Just(0), any::<i64>()],
    ) {
        let mut ours = Vec::new();
        push_histogram(&mut ours, &encode_labels(&labels), &histogram, timestamp);
        let labels = labels.iter().map(|(name, value)| proto::Label { name: name.into(), value: value.into() }).collect();
        let histograms = vec![of_library(&histogram, timestamp)];
        let series = proto::TimeSeries { labels, histograms, ..Default::default() };
        prop_assert_eq!(ours, proto::WriteRequest { timeseries: vec![series], ..Default::default() }.encode_to_vec());
    }

    #[test]
    fn our_exemplars_are_those_of_the_library(
        labels in any_labels(),
        all in proptest::collection::vec((any_labels(), any_value(), prop_oneof![Just(0), any::<i64>()]), 1..4),
    ) {
        let mut ours = Vec::new();
        let encoded: Vec<_> = all.iter().map(|(own, value, timestamp)| encode_exemplar(own, *value, *timestamp)).collect();
        push_exemplars(&mut ours, &encode_labels(&labels), encoded.iter().map(Vec::as_slice));
        let pairs = |labels: &Labels| -> Vec<_> {
            labels.iter().map(|(name, value)| proto::Label { name: name.into(), value: value.into() }).collect()
        };
        let exemplars = all.iter().map(|(own, value, timestamp)| {
            proto::Exemplar { labels: pairs(own), value: *value, timestamp: *timestamp }
        });
        let exemplars = exemplars.collect();
        let series = proto::TimeSeries { labels: pairs(&labels), exemplars, ..Default::default() };
        prop_assert_eq!(ours, proto::WriteRequest { timeseries: vec![series], ..Default::default() }.encode_to_vec());
    }

    #[test]
    fn our_metadata_is_that_of_the_library(kind in 0..8usize, family in ".*", help in ".*", unit in ".*") {
        let mut ours = Vec::new();
        let metadata =
            Metadata { family: (*family).into(), kind: KINDS[kind], help: (*help).into(), unit: (*unit).into() };
        push_metadata(&mut ours, &metadata);
        push_metadata(&mut ours, &metadata);
        let kind = i32::try_from(kind).expect("small");
        let entry = proto::MetricMetadata { r#type: kind, metric_family_name: family, help, unit };
        let theirs = proto::WriteRequest { metadata: vec![entry.clone(), entry], ..Default::default() };
        prop_assert_eq!(&ours, &theirs.encode_to_vec());
        prop_assert_eq!(decode(&pack(&ours).expect("small")).expect("a valid request"), theirs);
    }

    #[test]
    fn what_was_sent_is_what_arrives(blocks in proptest::collection::vec(any_series(), 0..5)) {
        let made: Vec<_> = blocks.iter().map(|series| block(series)).collect();
        let body = join(&made.iter().collect::<Vec<_>>()).expect("one format");
        let arrived = read_back(decode(&body).expect("a valid request"));
        prop_assert_eq!(arrived, blocks.concat());
    }

    #[test]
    fn our_bytes_are_those_of_the_library(labels in any_labels(), sample in any_sample()) {
        // The library leaves zeros out; we never do.
        prop_assume!(sample.value.to_bits() != 0 && sample.value != 0.0 && sample.timestamp_ms != 0);
        let mut ours = Vec::new();
        push_sample(&mut ours, &encode_labels(&labels), sample);
        let theirs = proto::WriteRequest { timeseries: vec![entry(&labels, sample)], ..Default::default() }.encode_to_vec();
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn parts_of_a_block_hold_all_of_it_and_nothing_twice(series in any_series(), chosen in any::<u64>()) {
        let whole = block(&series);
        prop_assert_eq!(series_of(&whole).expect("ours"), series.iter().map(|(labels, _)| labels.clone()).collect::<Vec<_>>());
        let is_chosen = |at: usize| chosen >> (at % 64) & 1 == 1;
        for wanted in [true, false] {
            let part = part(&whole, |at| is_chosen(at) == wanted).expect("ours");
            let expected: Vec<_> =
                (0..).zip(&series).filter(|(at, _)| is_chosen(*at) == wanted).map(|(_, one)| one.clone()).collect();
            prop_assert_eq!(part.is_none(), expected.is_empty());
            if let Some(part) = part {
                prop_assert_eq!(part, block(&expected));
            }
        }
    }

    #[test]
    fn strangers_bytes_never_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&body);
    }
}

#[test]
fn zeros_are_written() {
    let mut message = Vec::new();
    push_sample(&mut message, &[], Sample { value: 0.0, timestamp_ms: 0 });
    assert_eq!(message, [0x0a, 13, 0x12, 11, 0x09, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0]);
}

#[test]
fn an_entry_of_a_known_series_changes_in_value_and_timestamp_only() {
    let labels = encode_labels(&[("__name__", "up"), ("job", "shop")].into_iter().collect());
    let encode = |value, timestamp_ms| {
        let mut message = Vec::new();
        push_sample(&mut message, &labels, Sample { value, timestamp_ms });
        message
    };
    let (now, year_2109) = (1_795_000_000_000, 4_398_046_511_103);
    let (zero, one) = (encode(0.0, now), encode(-1.5e300, year_2109));
    assert_eq!(zero.len(), one.len());
    let patchable = zero.len() - 15;
    assert_eq!(zero[..patchable], one[..patchable]);
}

#[test]
fn the_bits_of_a_staleness_marker_survive() {
    let labels: Labels = [("__name__", "up")].into_iter().collect();
    let stale = block(&[(labels, Sample { value: stale_nan(), timestamp_ms: 1 })]);
    let request = decode(&join(&[&stale]).expect("one format")).expect("a valid request");
    assert_eq!(request.timeseries[0].samples[0].value.to_bits(), STALE_NAN_BITS);
}

/// The compressor works on pieces of 64 KiB: joined blocks put such pieces anywhere.
#[test]
fn large_blocks_join() {
    let series = |tag: &str| -> Vec<_> {
        let one = |n: u32| -> (Labels, Sample) {
            let number = n.to_string();
            let labels = [("__name__", "requests_total"), ("pod", tag), ("n", &number)].into_iter().collect();
            (labels, Sample { value: f64::from(n), timestamp_ms: 1_795_000_000_000 })
        };
        (0..5_000).map(one).collect()
    };
    let (first, second) = (series("a"), series("b"));
    let (a, b) = (block(&first), block(&second));
    assert!(a.raw_len > 3 * 65_536);
    let body = join(&[&a, &b]).expect("one format");
    assert_eq!(snap::raw::decompress_len(&body).expect("a prefix"), (a.raw_len + b.raw_len) as usize);
    assert_eq!(read_back(decode(&body).expect("a valid request")), [first, second].concat());
}

#[test]
fn nothing_joins_to_an_empty_request() {
    assert_eq!(join(&[]).expect("nothing to differ"), [0]);
    assert_eq!(join(&[&block(&[])]).expect("one format"), [0]);
    assert_eq!(decode(&[0]).expect("a valid request"), proto::WriteRequest::default());
}

#[test]
fn a_claimed_length_is_looked_at_before_it_is_allocated() {
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f];
    assert!(matches!(decode(&claim), Err(WireError::ClaimsTooMuch { .. })));
    assert!(matches!(decode(&[]), Err(WireError::Snappy(snap::Error::Empty))));
    assert!(matches!(decode(b"\x02\x04\xff\xff"), Err(WireError::Protobuf(_))));
}
