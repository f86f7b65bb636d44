//! How fast a body is read: our parser beside the crate `prometheus-parse`, on the stats of a real Envoy and on a
//! generated body in the shape of Istio's request metrics (24 labels, about 860 bytes a line).
//!
//! Ours reads up to each sample's value and keeps nothing, as a scrape of known series does; `ours, labels` also decodes
//! and sorts every label set, as for a series never seen before. Theirs has one mode: it owns everything.
#![allow(missing_docs, reason = "criterion's macro makes public functions without documentation")]

use std::fmt::Write;
use std::hint::black_box;

use criterion::{BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime};
use meshscrape::parse::{Entry, Format, ParseError, Parser, Step};

const ENVOY: &str = include_str!("../tests/fixtures/exposition/envoy-1.40-stats.prom");

fn bodies(criterion: &mut Criterion) {
    for (name, body) in [("envoy", ENVOY.to_owned()), ("istio", istio_body(2_500))] {
        let mut samples = 0;
        read(&body, |_| samples += 1).expect("a well-formed body");
        let mut group = criterion.benchmark_group(format!("parse/{name}"));
        group.throughput(Throughput::ElementsAndBytes { elements: samples, bytes: body.len() as u64 });
        group.sample_size(20);
        measure(&mut group, &body);
        group.finish();
    }
}

fn measure(group: &mut BenchmarkGroup<'_, WallTime>, body: &str) {
    group.bench_function("ours", |bencher| {
        bencher.iter(|| read(black_box(body), |entry| drop(black_box(entry))));
    });
    group.bench_function("ours, labels", |bencher| {
        bencher.iter(|| {
            read(black_box(body), |entry| {
                if let Entry::Sample(sample) = entry {
                    let _ = black_box(sample.labels());
                }
            })
        });
    });
    group.bench_function("prometheus-parse", |bencher| {
        bencher.iter(|| {
            let lines = black_box(body).lines().map(|line| Ok(line.to_owned()));
            prometheus_parse::Scrape::parse(lines).expect("lines from memory").samples.len()
        });
    });
}

fn read<'a>(body: &'a str, mut each: impl FnMut(Entry<'a>)) -> Result<(), ParseError> {
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
