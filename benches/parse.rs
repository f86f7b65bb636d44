//! How fast a body is read: our parser beside the crates `prometheus-parse` and `prometheus-exposition-format-rs`, on the
//! stats of a real Envoy and on a generated body in the shape of Istio's request metrics (24 labels, about 860 bytes a
//! line).
//!
//! Ours reads up to each sample's value and keeps nothing, as a scrape of known series does; `ours, labels` also decodes
//! and sorts every label set, as for a series never seen before. The others have one mode: they own everything. At the end
//! stands how many times as long each one takes as ours does.
//!
//! Not here: `openmetrics-parser`, whose licence is the LGPL, and `prom_text_format_parser`, which refuses Envoy's
//! `name{} 1`.
#![allow(missing_docs, reason = "criterion's macro makes public functions without documentation")]

use std::fmt::Write;
use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use meshscrape::parse::{Entry, Format, ParseError, Parser, Step};

const ENVOY: &str = include_str!("../tests/fixtures/exposition/envoy-1.40-stats.prom");

/// Reads a body and says how many samples are in it.
type Reader = fn(&str) -> usize;

const READERS: [(&str, Reader); 4] = [
    ("ours", ours),
    ("ours, labels", ours_with_labels),
    ("prometheus-parse", prometheus_parse),
    ("prometheus-exposition-format-rs", prometheus_exposition_format),
];

fn bodies(criterion: &mut Criterion) {
    let mut table = String::new();
    for (name, body) in [("envoy", ENVOY.to_owned()), ("istio", istio_body(2_500))] {
        let mut group = criterion.benchmark_group(format!("parse/{name}"));
        let samples = ours(&body);
        group.throughput(Throughput::ElementsAndBytes { elements: samples as u64, bytes: body.len() as u64 });
        group.sample_size(20);
        let times = READERS.map(|(reader, read)| (reader, measure(&mut group, reader, read, &body)));
        group.finish();
        push_ratios(&mut table, name, samples, body.len(), &times);
    }
    println!("{table}");
}

/// The shortest time that one reading took; `None` if only other benchmarks were asked for.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, reader: &str, read: Reader, body: &str) -> Option<Duration> {
    let mut shortest: Option<Duration> = None;
    group.bench_function(reader, |bencher| {
        bencher.iter_custom(|times| {
            let begin = Instant::now();
            for _ in 0..times {
                black_box(read(black_box(body)));
            }
            let took = begin.elapsed();
            let each = took.div_f64(times as f64);
            shortest = Some(shortest.map_or(each, |shortest| shortest.min(each)));
            took
        });
    });
    shortest
}

fn push_ratios(table: &mut String, name: &str, samples: usize, bytes: usize, times: &[(&str, Option<Duration>)]) {
    let Some(ours) = times[0].1 else { return };
    // Writing to a String cannot fail.
    let _ = writeln!(table, "{name}: {samples} samples, {bytes} bytes");
    for (reader, time) in times {
        if let Some(time) = time {
            let ratio = time.as_secs_f64() / ours.as_secs_f64();
            let rate = samples as f64 / time.as_secs_f64() / 1e6;
            let _ = writeln!(table, "  {reader:31} {ratio:6.1} x {rate:7.2} million samples/s");
        }
    }
}

fn ours(body: &str) -> usize {
    let mut samples = 0;
    let read = each_entry(body, |entry| samples += usize::from(matches!(black_box(entry), Entry::Sample(_))));
    read.expect("a well-formed body");
    samples
}

fn ours_with_labels(body: &str) -> usize {
    let mut samples = 0;
    let read = each_entry(body, |entry| {
        if let Entry::Sample(sample) = entry {
            samples += usize::from(black_box(sample.labels()).is_ok());
        }
    });
    read.expect("a well-formed body");
    samples
}

fn prometheus_parse(body: &str) -> usize {
    let lines = body.lines().map(|line| Ok(line.to_owned()));
    prometheus_parse::Scrape::parse(lines).expect("lines from memory").samples.len()
}

fn prometheus_exposition_format(body: &str) -> usize {
    let metrics = prometheus_exposition_format_rs::parse_complete(body).expect("a well-formed body");
    metrics.iter().map(|metric| metric.samples.len()).sum()
}

fn each_entry<'a>(body: &'a str, mut each: impl FnMut(Entry<'a>)) -> Result<(), ParseError> {
    let mut parser = Parser::new(Format::PrometheusText);
    let mut rest = body.as_bytes();
    while let Step::Entry(entry, taken) = parser.next(rest, true)? {
        rest = &rest[taken..];
        each(entry);
    }
    Ok(())
}

/// Request counters as a sidecar with many peers exposes them.
fn istio_body(series: usize) -> String {
    let mut body = "# TYPE istio_requests_total counter\n".to_owned();
    for n in 0..series {
        let (peer, version) = (n / 4, n % 3 + 1);
        let code = [200, 301, 404, 503][n % 4];
        let value = n * 977 + 13;
        // Writing to a String cannot fail.
        let _ = writeln!(
            body,
            "istio_requests_total{{reporter=\"destination\",source_workload=\"checkout-v{version}\",\
             source_canonical_service=\"checkout-{peer}\",source_canonical_revision=\"v{version}\",\
             source_workload_namespace=\"shop-{peer}\",source_principal=\"spiffe://cluster.local/ns/shop-{peer}/sa/checkout\",\
             source_app=\"checkout-{peer}\",source_version=\"v{version}\",source_cluster=\"Kubernetes\",\
             destination_workload=\"cart-v1\",destination_workload_namespace=\"shop-cart\",\
             destination_principal=\"spiffe://cluster.local/ns/shop-cart/sa/cart\",destination_app=\"cart\",\
             destination_version=\"v1\",destination_service=\"cart.shop-cart.svc.cluster.local\",\
             destination_canonical_service=\"cart\",destination_canonical_revision=\"v1\",\
             destination_service_name=\"cart\",destination_service_namespace=\"shop-cart\",\
             destination_cluster=\"Kubernetes\",request_protocol=\"http\",response_code=\"{code}\",\
             response_flags=\"-\",connection_security_policy=\"mutual_tls\"}} {value}"
        );
    }
    body
}

criterion_group!(benches, bodies);
criterion_main!(benches);
