//! Remote write 2.0: its headers, what the receiver must say, and 1.0 for one that does not know it.

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
