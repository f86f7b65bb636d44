//! Our encoder and joining of ready blocks, beside prost and snap doing the same from owned structs.
//!
//! The payload is Istio-like: long label sets that differ in a few values, 2,000 samples a block.

use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use meshscrape::model::{Block, Labels, Metadata, MetricType, Sample, TargetId, WriteFormat};
use meshscrape::wire::v2::{self, Dictionary, Draft, What};
use meshscrape::wire::{compress, encode_labels, join, proto, push_sample};
use prost::Message as _;

const SERIES: u32 = 2_000;
const NOW_MS: i64 = 1_795_000_000_000;

fn series() -> Vec<Labels> {
    let one = |n: u32| {
        let code = ["200", "404", "503"][n as usize % 3];
        let peer = format!("workload-{}", n / 30);
        let bound = (f64::from(n % 30) * 2.5).to_string();
        [
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
        ]
        .into_iter()
        .collect()
    };
    (0..SERIES).map(one).collect()
}

fn value(n: usize) -> f64 {
    n as f64 * 1.25
}

fn message(encoded: &[Vec<u8>]) -> Vec<u8> {
    let mut message = Vec::new();
    for (n, labels) in encoded.iter().enumerate() {
        push_sample(&mut message, labels, Sample { value: value(n), timestamp_ms: NOW_MS });
    }
    message
}

fn request(series: &[Labels]) -> proto::WriteRequest {
    let entry = |(n, labels): (usize, &Labels)| proto::TimeSeries {
        labels: labels.iter().map(|(name, value)| proto::Label { name: name.into(), value: value.into() }).collect(),
        samples: vec![proto::Sample { value: value(n), timestamp: NOW_MS }],
        ..proto::TimeSeries::default()
    };
    proto::WriteRequest { timeseries: series.iter().enumerate().map(entry).collect(), ..Default::default() }
}

fn wire(criterion: &mut Criterion) {
    let series = series();
    let encoded: Vec<_> = series.iter().map(encode_labels).collect();
    let raw = message(&encoded);
    let owned = request(&series);
    assert_eq!(raw.len(), owned.encoded_len() + 9, "the same message, but for the one value that is zero");

    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    group.bench_function("labels once", |bench| bench.iter(|| series.iter().map(encode_labels).collect::<Vec<_>>()));
    group.bench_function("known labels", |bench| bench.iter(|| message(black_box(&encoded))));
    group.bench_function("prost, structs ready", |bench| bench.iter(|| black_box(&owned).encode_to_vec()));
    group.bench_function("prost, structs built", |bench| bench.iter(|| request(black_box(&series)).encode_to_vec()));
    group.finish();

    let block = block(WriteFormat::V1, &raw);
    let blocks = [&block; 10];
    let together = raw.repeat(blocks.len());

    let mut group = criterion.benchmark_group("request of ten blocks");
    group.throughput(Throughput::Elements(u64::from(SERIES) * blocks.len() as u64));
    group.bench_function("compress each once", |bench| {
        bench.iter(|| {
            for _ in 0..blocks.len() {
                black_box(compress(black_box(&raw)).expect("it fits"));
            }
        });
    });
    group.bench_function("join", |bench| bench.iter(|| join(black_box(&blocks)).expect("one format")));
    group.bench_function("snap over everything", |bench| {
        bench.iter(|| snap::raw::Encoder::new().compress_vec(black_box(&together)).expect("it fits"));
    });
    group.finish();
}

/// The same samples by 2.0, each said to be what it is.
fn wire2(criterion: &mut Criterion) {
    let series = series();
    let mut dictionary = Dictionary::default();
    let encoded: Vec<_> = series.iter().map(|labels| dictionary.encode(labels)).collect();
    let (help, unit) = ("How long requests took".into(), "milliseconds".into());
    let family = "istio_request_duration_milliseconds".into();
    let metadata = Arc::new(Metadata { family, kind: MetricType::Histogram, help, unit });
    let message = |draft: &mut Draft<'_>| {
        for (n, labels) in encoded.iter().enumerate() {
            let what = What { labels, metadata: Some(&metadata) };
            draft.push_sample(what, Sample { value: value(n), timestamp_ms: NOW_MS }, None);
        }
        draft.finish()
    };
    let raw = message(&mut Draft::new(&dictionary));
    let owned = v2::proto::Request::decode(raw.as_slice()).expect("our own");

    let mut group = criterion.benchmark_group("encode 2.0");
    group.throughput(Throughput::Elements(u64::from(SERIES)));
    group.bench_function("known labels", |bench| bench.iter(|| message(&mut Draft::new(black_box(&dictionary)))));
    group.bench_function("prost, structs ready", |bench| bench.iter(|| black_box(&owned).encode_to_vec()));
    group.bench_function("compress", |bench| bench.iter(|| compress(black_box(&raw)).expect("it fits")));
    group.finish();

    let block = block(WriteFormat::V2, &raw);
    println!("{} bytes a sample", block.elements.len() as f64 / f64::from(SERIES));
    let blocks = [&block; 10];
    let mut group = criterion.benchmark_group("request of ten blocks of 2.0");
    group.throughput(Throughput::Elements(u64::from(SERIES) * blocks.len() as u64));
    group.bench_function("join", |bench| bench.iter(|| join(black_box(&blocks)).expect("one format")));
    group.bench_function("each as 1.0", |bench| bench.iter(|| v2::recode(black_box(&block)).expect("our own")));
    group.finish();
}

fn block(format: WriteFormat, raw: &[u8]) -> Block {
    Block {
        target: TargetId(1),
        receiver: 0,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format,
        samples: SERIES,
        min_ms: NOW_MS,
        max_ms: NOW_MS,
        raw_len: u32::try_from(raw.len()).expect("a few hundred kilobytes"),
        elements: Bytes::from(compress(raw).expect("a few hundred kilobytes")),
    }
}

criterion_group!(benches, wire, wire2);
criterion_main!(benches);
