//! What the table makes of native histograms, and of the exemplars of both kinds of samples.

use super::*;
use crate::model::{self, Buckets, CUSTOM_SCHEMA, Exemplar, Histogram, Span, Tally};
use crate::parse::HistogramEntry;

pub(super) fn histogram(custom_values: Vec<f64>) -> Histogram {
    let schema = if custom_values.is_empty() { 0 } else { CUSTOM_SCHEMA };
    let positive = Buckets { spans: vec![Span { offset: 0, length: 1 }], counts: vec![3] };
    let counts = model::Counts::Integer(Tally { count: 3, positive, ..Tally::default() });
    Histogram { schema, zero_threshold: 0.0, sum: 4.5, gauge: false, counts, custom_values }
}

/// One scrape of this histogram under the name of the sample in `text`.
pub(super) fn scrape_histogram(scene: &mut Scene, at_ms: i64, text: &str, histogram: &Histogram) -> Vec<Block> {
    let mut parser = Parser::new(Format::PrometheusText);
    let Ok(Step::Entry(Entry::Sample(sample), _)) = parser.next(text.as_bytes(), true) else { panic!("a sample") };
    let mut pass = scene.table.begin(at_ms);
    let entry = HistogramEntry { series: sample.series, histogram, timestamp_ms: None, start_ms: None, exemplars: &[] };
    pass.add_histogram(&entry).expect("a good histogram");
    pass.check_limit().expect("small enough");
    pass.commit(&HEALTH)
}

/// How many histograms a receiver gets.
pub(super) fn histograms_for(receiver: usize, blocks: &[Block]) -> usize {
    let blocks: Vec<&Block> = blocks.iter().filter(|block| block.receiver == receiver).collect();
    let request = wire::decode(&wire::join(&blocks).expect("one format")).expect("valid");
    request.timeseries.iter().map(|series| series.histograms.len()).sum()
}

#[test]
fn native_histograms_go_to_those_who_want_them_and_listed_bounds_to_nobody() {
    let rest = "remote_write:
- {url: 'http://one.example/w', name: one, send_native_histograms: true}
- {url: 'http://two.example/w', name: two}";
    let mut scene = scene("", rest);
    let blocks = scrape_histogram(&mut scene, 1000, "h 1\n", &histogram(Vec::new()));
    assert_eq!((histograms_for(0, &blocks), histograms_for(1, &blocks)), (1, 0));
    let blocks = scrape_histogram(&mut scene, 2000, "h 1\n", &histogram(vec![1.0]));
    assert_eq!((histograms_for(0, &blocks), histograms_for(1, &blocks)), (0, 0));
    let dropped: Vec<u64> = scene.views.iter().map(|view| view.recipients[0].listed_bounds.get()).collect();
    assert_eq!(dropped, [1, 0], "counted where it is wanted");
    let l = r#"{instance="t:1", job="j"}"#;
    assert_eq!(lines_for(1, &scene.scrape(3000, "")), [format!("h{l} stale 3000")]);
}

#[test]
fn a_receiver_with_another_name_is_counted_under_that() {
    let metrics = Metrics::default();
    let views = |name: &str| {
        let said = said("", &format!("remote_write: [{{url: 'http://one.example/w', name: {name}}}]"));
        views_of([(0, &*said.config.remote_write[0])], &[], &metrics)
    };
    let (one, same, renamed) = (views("one"), views("one"), views("renamed"));
    assert_eq!(one, same);
    assert_ne!(one, renamed, "where they count is another counter");
    one[0].recipients[0].listed_bounds.inc();
    let counted = [same, renamed].map(|views| views[0].recipients[0].listed_bounds.get());
    assert_eq!(counted, [1, 0]);
}

/// The exemplars that a receiver gets: name of the series, labels, value, time.
fn exemplars_for(receiver: usize, blocks: &[Block]) -> Vec<String> {
    let blocks: Vec<_> = blocks.iter().filter(|block| block.receiver == receiver).collect();
    let request = wire::decode(&wire::join(&blocks).expect("one format")).expect("a request");
    let mut told = Vec::new();
    let mut sampled = std::collections::BTreeSet::new();
    for series in request.timeseries {
        let name = series.labels.iter().find(|label| label.name == "__name__").expect("a name").value.clone();
        for exemplar in series.exemplars {
            assert!(sampled.contains(&name), "an exemplar stands behind a sample of its series");
            let labels: Labels = exemplar.labels.iter().map(|label| (&label.name, &label.value)).collect();
            told.push(format!("{name} {labels} {} {}", exemplar.value, exemplar.timestamp));
        }
        sampled.extend((!series.samples.is_empty() || !series.histograms.is_empty()).then_some(name));
    }
    told
}

/// One good scrape of OpenMetrics.
fn scrape_openmetrics(scene: &mut Scene, at_ms: i64, lines: &str) -> Vec<Block> {
    let mut pass = scene.table.begin(at_ms);
    feed_openmetrics(&mut pass, lines);
    pass.commit(&HEALTH)
}

fn feed_openmetrics(pass: &mut Pass<'_>, lines: &str) {
    let (mut parser, mut rest) = (Parser::new(Format::OpenMetrics), lines.as_bytes());
    while let Step::Entry(entry, taken) = parser.next(rest, false).expect("good lines") {
        if let Entry::Sample(sample) = &entry {
            pass.add(sample).expect("a good sample");
        }
        rest = &rest[taken..];
    }
}

const TWO_RECEIVERS: &str = "remote_write:
- {url: 'http://one.example/w', name: one, send_exemplars: true, queue_config: {max_samples_per_send: 1}}
- {url: 'http://two.example/w', name: two}";

#[test]
fn exemplars_go_once_to_those_who_want_them() {
    let mut scene = scene("", TWO_RECEIVERS);
    let lines = "a 1 # {n=\"1\"} 1\nb 1\nc 1 # {} 2 0.5\n";
    let blocks = scrape_openmetrics(&mut scene, 1000, lines);
    assert_eq!(exemplars_for(0, &blocks), [r#"a {n="1"} 1 1000"#, "c {} 2 500"]);
    assert_eq!(exemplars_for(1, &blocks), [""; 0]);
    assert_eq!(exemplars_for(0, &scrape_openmetrics(&mut scene, 2000, lines)), [""; 0]);
    let blocks = scrape_openmetrics(&mut scene, 3000, "a 1 # {n=\"2\"} 1\nc 1 # {} 2 1.5\n");
    assert_eq!(exemplars_for(0, &blocks), [r#"a {n="2"} 1 3000"#, "c {} 2 1500"]);
}

#[test]
fn exemplars_that_go_back_in_time_or_lie_ahead_are_dropped() {
    let mut scene = scene("", TWO_RECEIVERS);
    scrape_openmetrics(&mut scene, 10_000, "a 1 # {n=\"1\"} 1 5\n");
    let mut pass = scene.table.begin(20_000);
    feed_openmetrics(&mut pass, "a 1 # {n=\"2\"} 1 4\nb 1 # {} 1 99999\n");
    assert_eq!(pass.counts().exemplars_out_of_order, 1);
    assert_eq!(exemplars_for(0, &pass.commit(&HEALTH)), [""; 0]);
}

#[test]
fn exemplars_of_a_failed_scrape_come_with_the_next_one() {
    let mut scene = scene("", TWO_RECEIVERS);
    let mut pass = scene.table.begin(1000);
    let line = "a 1 # {n=\"1\"} 1\n";
    feed_openmetrics(&mut pass, line);
    let blocks = pass.fail(&Failure::new(Reason::Parse, "what follows is none"), &HEALTH);
    assert_eq!(exemplars_for(0, &blocks), [""; 0]);
    assert_eq!(exemplars_for(0, &scrape_openmetrics(&mut scene, 2000, line)), [r#"a {n="1"} 1 2000"#]);
}

#[test]
fn exemplars_of_one_scrape_are_bounded() {
    let mut scene = scene("", "remote_write: [{url: 'http://r.example/w', send_exemplars: true}]");
    let long = "x".repeat(100);
    let lines: String = (0..95_000).map(|n| format!("a{{n=\"{n}\"}} 1 # {{n=\"{long}\"}} 1\n")).collect();
    let sent = exemplars_for(0, &scrape_openmetrics(&mut scene, 1000, &lines)).len();
    assert!((80_000..95_000).contains(&sent), "{sent}");
}

#[test]
fn many_exemplars_of_one_histogram_have_its_labels_once() {
    let rest = "remote_write: [{url: 'http://r.example/w', send_exemplars: true, send_native_histograms: true}]";
    let mut scene = scene("", rest);
    let text = format!("h{{x=\"{}\"}} 1\n", "y".repeat(1 << 16));
    let of = |n: u16| Exemplar { labels: Labels::new(), value: n.into(), timestamp_ms: Some(n.into()) };
    let exemplars: Vec<Exemplar> = (0..1000).map(of).collect();
    let mut parser = Parser::new(Format::PrometheusText);
    let Ok(Step::Entry(Entry::Sample(sample), _)) = parser.next(text.as_bytes(), true) else { panic!("a sample") };
    let mut pass = scene.table.begin(1000);
    let histogram = histogram(Vec::new());
    let entry = HistogramEntry {
        series: sample.series,
        histogram: &histogram,
        timestamp_ms: None,
        start_ms: None,
        exemplars: &exemplars,
    };
    pass.add_histogram(&entry).expect("a good histogram");
    let blocks = pass.commit(&HEALTH);
    assert_eq!(exemplars_for(0, &blocks).len(), 1000);
    let bytes: u32 = blocks.iter().map(|block| block.raw_len).sum();
    assert!(bytes < 200_000, "{bytes}");
}

#[test]
fn histograms_of_one_scrape_are_bounded() {
    let mut scene = scene("  native_histogram_bucket_limit: 1", "");
    let mut pass = scene.table.begin(1000);
    let mut wide = histogram(vec![1.0, 2.0]);
    let model::Counts::Integer(tally) = &mut wide.counts else { panic!("integer") };
    tally.positive = Buckets { spans: vec![Span { offset: 0, length: 2 }], counts: vec![2, -1] };
    let mut parser = Parser::new(Format::PrometheusText);
    let Ok(Step::Entry(Entry::Sample(sample), _)) = parser.next(b"h 1\n", true) else { panic!("a sample") };
    let entry =
        HistogramEntry { series: sample.series, histogram: &wide, timestamp_ms: None, start_ms: None, exemplars: &[] };
    pass.add_histogram(&entry).expect("the others are counted still");
    let failure = pass.check_limit().expect_err("listed bounds cannot be reduced");
    assert_eq!(failure.reason, Reason::BucketLimit);
    assert_eq!(failure.detail, "histogram bucket limit exceeded (limit: 1)");
    assert_eq!((pass.counts().scraped, pass.counts().kept, pass.counts().added), (1, 1, 0));
}

#[test]
fn exemplars_of_histograms_that_are_not_sent_fill_no_block_beyond_its_size() {
    let mut scene = scene("", "remote_write: [{url: 'http://one.example/w', send_exemplars: true}]");
    let mut pass = scene.table.begin(1000);
    let lines: String = (0..60).map(|number| format!("h{{number=\"{number}\"}} 1\n")).collect();
    let (mut parser, mut rest) = (Parser::new(Format::PrometheusText), lines.as_bytes());
    let histogram = histogram(Vec::new());
    while let Step::Entry(Entry::Sample(sample), taken) = parser.next(rest, true).expect("good lines") {
        let exemplars: Vec<_> = (0..1000)
            .map(|number| Exemplar {
                labels: [("trace_id", format!("{number:0100}"))].into_iter().collect(),
                value: 1.0,
                timestamp_ms: Some(number),
            })
            .collect();
        let series = sample.series;
        let entry =
            HistogramEntry { series, histogram: &histogram, timestamp_ms: None, start_ms: None, exemplars: &exemplars };
        pass.add_histogram(&entry).expect("a good histogram");
        rest = &rest[taken..];
    }
    let blocks = pass.commit(&HEALTH);
    assert!(blocks.len() > 1, "{}", blocks.len());
    let largest = blocks.iter().map(|block| block.raw_len).max();
    assert!(largest.is_some_and(|largest| largest < 5 << 20), "{largest:?}");
    let exemplars = |block: &Block| {
        let request = wire::decode(&wire::join(&[block]).expect("one format")).expect("a request");
        request.timeseries.iter().map(|series| series.exemplars.len()).sum::<usize>()
    };
    assert_eq!(blocks.iter().map(exemplars).sum::<usize>(), 60_000, "and none is lost");
}
