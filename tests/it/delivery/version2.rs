//! Remote write 2.0: its headers, what the receiver must say, and 1.0 for one that does not know it.

use meshscrape::model::{Counts, Histogram};

use super::secrecy::capture;
use super::*;
use crate::support::receiver::{OF_2, Recorded, confirming};

const WRITTEN: &str = "x-prometheus-remote-write-samples-written";

/// A receiver's configuration that sends 2.0.
fn remote2(url: &str) -> RemoteWrite {
    RemoteWrite { message: WriteFormat::V2, ..remote("main", url) }
}

/// The versions of requests, in order.
fn versions(recorded: &[Recorded]) -> Vec<&str> {
    recorded.iter().map(|one| one.header("x-prometheus-remote-write-version").expect("a version")).collect()
}

fn is_of_2(request: &Recorded) -> bool {
    request.header("content-type") == Some(OF_2)
}

#[tokio::test]
async fn a_request_of_2_is_what_the_specification_says() {
    let receiver = Receiver::start(confirming()).await;
    let mut remote = remote2(&receiver.url());
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    remote.queue.max_samples_per_send = 6;
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block2_of(1, 1, 3)).await;
    pipe.push(block2_of(2, 1, 3)).await;

    let recorded = receiver.requests(1).await;
    for (name, value) in [
        ("content-encoding", "snappy"),
        ("content-type", "application/x-protobuf;proto=io.prometheus.write.v2.Request"),
        ("x-prometheus-remote-write-version", "2.0.0"),
        ("user-agent", concat!("meshscrape/", env!("CARGO_PKG_VERSION"))),
    ] {
        assert_eq!(recorded[0].header(name), Some(value), "{name}");
    }
    let request = wire::decode_v2(&recorded[0].body).expect("a request of 2.0");
    assert_eq!(request.timeseries.len(), 6);
    // Two targets and three numbers: the table is that of both blocks, and nothing stands there twice.
    let expected = ["", "__name__", "probe", "n", "0", "target", "1", "How full it is", "2"];
    assert_eq!(request.symbols, expected);
    for series in &request.timeseries {
        let metadata = series.metadata.expect("each series says what it is");
        assert_eq!((metadata.r#type, &*request.symbols[metadata.help_ref as usize]), (2, "How full it is"));
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    assert_eq!(receiver.samples(6).await.len(), 6);
}

#[tokio::test]
async fn who_takes_2_without_saying_what_was_written_has_not_got_it() {
    let receiver = Receiver::start(always(Answer::ok())).await;
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote2(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block2_of(1, 1, 5)).await;
    pipe.push(block2_of(2, 1, 5)).await;
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (0, 10));
    assert_eq!(receiver.recorded().iter().map(|one| one.samples.len()).sum::<usize>(), 10, "nothing is sent again");
    let refusal = seen.last_refusal.expect("there was one");
    assert_eq!(refusal.status, 204);
    assert!(refusal.words.contains("write protobuf_message: prometheus.WriteRequest"), "{}", refusal.words);
    assert!(log.text().contains("write protobuf_message: prometheus.WriteRequest"), "{}", log.text());
}

#[tokio::test]
async fn what_the_receiver_says_it_did_not_write_is_counted_and_said() {
    let receiver = Receiver::start(always(Answer::ok().header(WRITTEN, "4"))).await;
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote2(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block2_of(1, 1, 5)).await;
    until(&monitor, |seen| seen.delivered_samples == 4 && seen.rejected_samples == 1).await;
    assert_eq!(pipe.metric("prometheus_remote_storage_samples_failed_total"), 1.0);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    assert_eq!(receiver.recorded().len(), 1);
    assert!(log.text().contains("unwritten=1"), "{}", log.text());
}

#[tokio::test]
async fn what_was_written_of_a_rejected_request_is_not_lost() {
    let receiver = Receiver::start(always(Answer::status(400).header(WRITTEN, "3").saying("out of order"))).await;
    let pipe = Pipe::to(vec![remote2(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block2_of(1, 1, 5)).await;
    until(&monitor, |seen| seen.delivered_samples == 3 && seen.rejected_samples == 2).await;
    assert_eq!(pipe.metric("prometheus_remote_storage_samples_failed_total"), 2.0);
    pipe.end().await;
}

#[tokio::test]
async fn who_does_not_know_2_gets_1_as_long_as_the_connection_lasts() {
    let mut number = 0;
    let receiver = Receiver::start(Box::new(move |request| {
        number += 1;
        match () {
            () if is_of_2(request) && number < 6 => Answer::status(415).saying("what is that?"),
            () if number == 5 => Answer::cut(),
            () => Answer::ok().confirming(request),
        }
    }))
    .await;
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote2(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=4 {
        pipe.push(block2_of(1, scrape, 2)).await;
        let samples = 2 * u64::from(scrape);
        until(&monitor, |seen| seen.delivered_samples == samples).await;
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);

    let recorded = receiver.recorded();
    // 2.0 is refused; the same as 1.0; two more as 1.0, the third of which gets no answer; 2.0 over another connection.
    assert_eq!(versions(&recorded), ["2.0.0", "0.1.0", "0.1.0", "0.1.0", "0.1.0", "2.0.0"]);
    assert_eq!(recorded[0].samples, recorded[1].samples);
    assert_eq!(recorded[4].samples, recorded[5].samples);
    let samples = receiver.samples(8).await;
    assert_eq!(values_of(1, &samples), [1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0]);
    let said = log.text();
    assert_eq!(said.matches("does not know remote write 2.0").count(), 1, "{said}");
    assert!(said.contains("what is that?"), "{said}");
}

#[tokio::test]
async fn who_knows_neither_version_is_told_of_once() {
    let receiver = Receiver::start(always(Answer::status(415))).await;
    let pipe = Pipe::to(vec![remote2(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block2_of(1, 1, 2)).await;
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    assert_eq!(versions(&receiver.recorded()), ["2.0.0", "0.1.0"]);
    assert_eq!(monitor.snapshot().rejected_samples, 2);
}

/// As after a change of the configuration, with blocks of before still in the queue.
#[tokio::test]
async fn blocks_of_both_versions_reach_a_receiver_of_either_in_order() {
    for message in [WriteFormat::V1, WriteFormat::V2] {
        let receiver = Receiver::start(confirming()).await;
        let mut remote = RemoteWrite { message, ..remote2(&receiver.url()) };
        remote.queue.batch_send_deadline = Duration::from_secs(3600);
        remote.queue.max_samples_per_send = 12;
        let pipe = Pipe::to(vec![remote]);
        for (scrape, block) in [block_of, block2_of, block2_of, block_of].into_iter().enumerate() {
            pipe.push(block(1, scrape as u32, 3)).await;
        }
        assert_eq!(pipe.end().await, [Undelivered::default()]);
        let samples = receiver.samples(12).await;
        assert_eq!(values_of(1, &samples), [[0.0; 3], [1.0; 3], [2.0; 3], [3.0; 3]].concat());
        let expected: &[_] = match message {
            WriteFormat::V1 => &["0.1.0", "0.1.0", "0.1.0"],
            WriteFormat::V2 => &["0.1.0", "2.0.0", "0.1.0"],
        };
        assert_eq!(versions(&receiver.recorded()), expected);
    }
}

#[tokio::test]
async fn with_2_families_are_told_of_in_no_request_of_their_own() {
    let receiver = Receiver::start(confirming()).await;
    let mut remote = remote2(&receiver.url());
    remote.metadata.send_interval = Duration::from_millis(1);
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..20 {
        pipe.push(block2_of(1, scrape, 1)).await;
    }
    receiver.samples(20).await;
    pipe.end().await;
    assert!(receiver.recorded().iter().all(|one| !one.samples.is_empty()));
}

fn histogram_of_nothing() -> Histogram {
    let counts = Counts::Integer(meshscrape::model::Tally::default());
    Histogram { schema: 3, zero_threshold: 0.0, sum: 0.0, gauge: false, counts, custom_values: Vec::new() }
}

/// Two samples, a histogram and three exemplars.
fn mixed_block(target: u64, scrape: u32) -> Block {
    let plain = block_of(target, scrape, 0);
    let mut dictionary = Dictionary::default();
    let mut labels = |name: &str| {
        let labels: Labels = [("__name__", name), ("target", &target.to_string())].into_iter().collect();
        dictionary.encode(&labels)
    };
    let [counter, gauge, histogram] = ["c", "g", "h"].map(&mut labels);
    let what = |labels| What { labels, metadata: None };
    let mut draft = Draft::new(&dictionary);
    for labels in [&counter, &gauge] {
        draft.push_sample(what(labels), Sample { value: f64::from(scrape), timestamp_ms: plain.min_ms }, None);
    }
    draft.push_histogram(what(&histogram), &histogram_of_nothing(), plain.min_ms, None);
    let exemplar = wire::encode_exemplar(&[("trace_id", "x")].into_iter().collect(), 1.0, plain.min_ms);
    for _ in 0..3 {
        draft.push_exemplar(what(&histogram), &exemplar);
    }
    Block { samples: 3, histograms: 1, exemplars: 3, ..in_format_2(plain, &draft.finish()) }
}

fn written(samples: u64, histograms: u64, exemplars: u64) -> Answer {
    Answer::ok()
        .header(WRITTEN, samples.to_string())
        .header("x-prometheus-remote-write-histograms-written", histograms.to_string())
        .header("x-prometheus-remote-write-exemplars-written", exemplars.to_string())
}

#[tokio::test]
async fn each_kind_is_counted_under_its_own_name() {
    // Tried again, taken in part, rejected in halves until the histogram is known, and taken.
    let mut number = 0;
    let receiver = Receiver::start(Box::new(move |request| {
        number += 1;
        let request = wire::decode_v2(&request.body).expect("a request of 2.0");
        let has_histogram = request.timeseries.iter().any(|one| !one.histograms.is_empty());
        match number {
            1 => Answer::status(503),
            2 => written(1, 1, 0),
            3.. if has_histogram => Answer::status(400),
            _ => written(2, 0, 0),
        }
    }))
    .await;
    let pipe = Pipe::to(vec![remote2(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(mixed_block(1, 1)).await;
    until(&monitor, |seen| seen.delivered_samples == 2 && seen.rejected_samples == 1).await;
    let all = |what: &str| {
        ["samples", "histograms", "exemplars"]
            .map(|kind| pipe.metric(&format!("prometheus_remote_storage_{kind}{what}_total{{")))
    };
    assert_eq!((all(""), all("_retried"), all("_failed")), ([4.0, 2.0, 6.0], [2.0, 1.0, 3.0], [1.0, 0.0, 3.0]));

    // The whole, its two halves, and the halves of that with the histogram.
    pipe.push(mixed_block(1, 2)).await;
    until(&monitor, |seen| seen.delivered_samples == 4 && seen.rejected_samples == 2).await;
    assert_eq!(all("_retried"), [2.0, 1.0, 3.0]);
    assert_eq!(all("_failed"), [1.0, 1.0, 6.0], "only what was in the part at fault");
    assert_eq!(pipe.end().await, [Undelivered::default()]);
}

#[tokio::test]
async fn each_kind_that_grows_too_old_is_counted_under_its_own_name() {
    let receiver = Receiver::start(always(Answer::status(503))).await;
    let mut remote = remote2(&receiver.url());
    remote.queue.sample_age_limit = Duration::from_secs(60);
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    let old = mixed_block(1, 1);
    pipe.push(Block { min_ms: old.min_ms - 120_000, max_ms: old.max_ms - 120_000, ..old }).await;
    until(&monitor, |seen| seen.too_old_samples == 3).await;
    // The counter of histograms is one that others count in, too.
    for (kind, count) in [("samples", 2.0), ("exemplars", 3.0)] {
        assert_eq!(pipe.metric(&format!("prometheus_remote_storage_{kind}_dropped_total{{")), count, "{kind}");
    }
    pipe.end().await;
    assert!(receiver.recorded().is_empty());
}
