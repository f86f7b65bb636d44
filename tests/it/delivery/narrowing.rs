//! What it costs to find the one series that a receiver does not want.

use std::sync::atomic::{AtomicBool, Ordering};

use super::secrecy::capture;
use super::*;
use crate::support::prometheus::Prometheus;
use crate::support::receiver::Recorded;

const WORDS: &str = "label value too long in series 7";

fn is_poisoned(labels: &Labels) -> bool {
    labels.value("target") == "13" && labels.value("n") == "7"
}

/// Rejects what holds the poisoned series.
fn judge(request: &Recorded) -> Answer {
    match request.samples.iter().any(|(labels, _)| is_poisoned(labels)) {
        true => Answer::status(400).saying(WORDS),
        false => Answer::ok().confirming(request),
    }
}

/// A receiver that does not want what holds such series.
pub(super) async fn rejecting(bad: impl Fn(&Labels) -> bool + Send + 'static) -> Receiver {
    Receiver::start(Box::new(move |request| match request.samples.iter().any(|(labels, _)| bad(labels)) {
        true => Answer::status(400),
        false => Answer::ok(),
    }))
    .await
}

pub(super) fn number(labels: &Labels) -> u32 {
    labels.value("n").parse().expect("a number")
}

/// Waits until so many samples are either delivered or rejected.
pub(super) async fn judged(monitor: &Monitor, samples: u64) {
    until(monitor, |seen| seen.delivered_samples + seen.rejected_samples == samples).await;
}

#[tokio::test]
async fn one_poisoned_series_among_30_targets_costs_itself_only() {
    for (format, make) in [(WriteFormat::V1, block_of as fn(u64, u32, u32) -> Block), (WriteFormat::V2, block2_of)] {
        let receiver = Receiver::start(Box::new(judge)).await;
        let mut remote = remote("main", &receiver.url());
        remote.message = format;
        remote.queue.max_samples_per_send = 600;
        remote.queue.batch_send_deadline = Duration::from_millis(500);
        let (log, _guard) = capture();
        let pipe = Pipe::to(vec![remote]);
        let monitor = pipe.monitors[0].clone();
        let mut asked = Vec::new();
        for scrape in 1..=3u32 {
            for target in 0..30 {
                pipe.push(make(target, scrape, 20)).await;
            }
            judged(&monitor, u64::from(scrape) * 600).await;
            asked.push(receiver.recorded().len());
        }
        assert_eq!(pipe.end().await, [Undelivered::default()]);
        let seen = monitor.snapshot();
        assert_eq!((seen.rejected_samples, seen.delivered_samples), (3, 1797), "{format:?}");
        let samples = receiver.samples(1797).await;
        assert_eq!(samples.len(), 1797, "{format:?}: nothing is sent twice that was taken");
        for target in 0..30 {
            assert!(values_of(target, &samples).is_sorted(), "{format:?}, target {target}");
        }
        // All, each target, and the halves of 20 series down to one; then the others, the rest of the target, and the one.
        assert!(asked[0] <= 1 + 30 + 2 * 5, "{format:?}: {asked:?}");
        assert!(asked[2] - asked[0] <= 2 * 4, "{format:?}: it is remembered: {asked:?}");

        let said = log.text();
        let named: Vec<_> = said.lines().filter(|line| line.contains("does not want this series")).collect();
        assert_eq!(named.len(), 1, "{format:?}: {said}");
        assert!(named[0].contains(WORDS) && named[0].contains("status=400"), "{}", named[0]);
        assert!(named[0].contains("13") && named[0].contains("probe"), "{}", named[0]);
    }
}

/// As when a label of the target itself is too long.
#[tokio::test]
async fn a_target_with_bad_series_only_costs_the_others_nothing() {
    let bad = |labels: &Labels| labels.value("target") == "1";
    let receiver = rejecting(bad).await;
    let mut remote = filling(&receiver.url(), 40);
    remote.queue.max_requests_in_flight = 1;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=4u32 {
        for target in [1, 2] {
            pipe.push(block_of(target, scrape, 20)).await;
        }
        judged(&monitor, u64::from(scrape) * 40).await;
    }
    pipe.end().await;
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (80, 80));
}

/// As when a label that all of them carry is too long: no request is taken, and none of a target alone.
#[tokio::test]
async fn a_bad_series_in_every_target_of_a_request_costs_itself_only() {
    let bad = |labels: &Labels| labels.value("n") == "3";
    let receiver = rejecting(bad).await;
    let pipe = Pipe::to(vec![filling(&receiver.url(), 16)]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=3u32 {
        for target in [1, 2] {
            pipe.push(block_of(target, scrape, 8)).await;
        }
        judged(&monitor, u64::from(scrape) * 16).await;
    }
    pipe.end().await;
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (42, 6));
}

/// The same with a series from long ago in each target, which a real Prometheus does not want.
#[tokio::test]
async fn of_targets_with_a_bad_series_each_prometheus_has_all_others() {
    let prometheus = Prometheus::start().await;
    let pipe = Pipe::to(vec![filling(&prometheus.write_url(), 16)]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=3u32 {
        for target in [1, 2] {
            let block = block_of(target, scrape, 8);
            let mut message = Vec::new();
            for n in 0..8 {
                let (target, n, age_ms) =
                    (target.to_string(), n.to_string(), if n == 3 { 365 * 86_400_000 } else { 0 });
                let labels = [("__name__", "probe"), ("target", &*target), ("n", &*n)].into_iter().collect();
                let sample = Sample { value: f64::from(scrape), timestamp_ms: block.max_ms - age_ms };
                push_sample(&mut message, &encode_labels(&labels), sample);
            }
            let elements = Bytes::from(compress(&message).expect("a small message"));
            pipe.push(Block { raw_len: message.len() as u32, elements, ..block }).await;
        }
        judged(&monitor, u64::from(scrape) * 16).await;
    }
    pipe.end().await;
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (42, 6), "{:?}", seen.last_refusal);
    let stored = prometheus.raw(&[("__name__", "probe")], 0, Clock::system().now_ms() + 60_000).await;
    assert_eq!(stored.len(), 14, "{stored:?}");
    for one in stored {
        let values: Vec<_> = one.samples.iter().map(|point| point.value).collect();
        assert_eq!(values, [1.0, 2.0, 3.0], "{:?}", one.labels);
    }
}

/// Whoever is searched first tells nothing of the others, so that next time it is another one.
#[tokio::test]
async fn a_target_with_bad_series_only_hides_for_a_minute_at_most_that_each_other_has_one() {
    let bad = |labels: &Labels| labels.value("target") == "1" || labels.value("n") == "3";
    let receiver = rejecting(bad).await;
    let pipe = Pipe::to(vec![filling(&receiver.url(), 24)]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=3u32 {
        for target in [1, 2, 3] {
            pipe.push(block_of(target, scrape, 8)).await;
        }
        judged(&monitor, u64::from(scrape) * 24).await;
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(60)).await;
        tokio::time::resume();
    }
    pipe.end().await;
    assert_eq!(monitor.snapshot().delivered_samples, 2 * 14, "of the second and the third scrape");
}

pub(super) async fn a_minute_later() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
}

/// The same where they never share a request, and where the one comes first whenever a minute is over.
#[tokio::test]
async fn a_target_with_bad_series_only_hides_not_for_ever_that_another_has_one() {
    let bad = |labels: &Labels| labels.value("target") == "1" || labels.value("n") == "3";
    let receiver = rejecting(bad).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_requests_in_flight = 1;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    let mut settled = 0;
    for scrape in 1..=4u32 {
        for (target, series) in [(1, 4), (2, 8)] {
            settled += u64::from(series);
            pipe.push(block_of(target, scrape, series)).await;
            judged(&monitor, settled).await;
        }
        a_minute_later().await;
    }
    pipe.end().await;
    assert_eq!(monitor.snapshot().delivered_samples, 3 * 7, "of all scrapes but the first");
}

/// A healthy target is between them: it is not the receiver that takes nothing.
#[tokio::test]
async fn a_target_with_bad_series_only_hides_nothing_while_a_third_is_delivered() {
    let bad =
        |labels: &Labels| labels.value("target") == "1" || labels.value("target") == "2" && labels.value("n") == "3";
    let receiver = rejecting(bad).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_requests_in_flight = 1;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    let mut settled = 0;
    for target in [3, 1, 2] {
        settled += 8;
        pipe.push(block_of(target, 1, 8)).await;
        judged(&monitor, settled).await;
    }
    pipe.end().await;
    assert_eq!(monitor.snapshot().delivered_samples, 8 + 7);
}

#[tokio::test]
async fn each_target_is_tried_in_its_turn_whichever_share_a_request() {
    let receiver = Receiver::start(always(Answer::status(400))).await;
    let mut remote = filling(&receiver.url(), 16);
    remote.queue.max_requests_in_flight = 1;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    let mut settled = 0;
    for scrape in 1..=4u32 {
        for pair in [[1, 2], [3, 4]] {
            settled += 16;
            for target in pair {
                pipe.push(block_of(target, scrape, 8)).await;
            }
            until(&monitor, |seen| seen.rejected_samples == settled).await;
        }
    }
    pipe.end().await;
    let mut tried = std::collections::BTreeMap::<_, u32>::new();
    for request in receiver.recorded().iter().filter(|one| one.samples.len() == 8 && one.samples[0].1.value > 1.0) {
        let mut targets: Vec<_> = request.samples.iter().map(|(labels, _)| labels.value("target").to_owned()).collect();
        targets.dedup();
        *tried.entry(targets).or_default() += 1;
    }
    let names = tried.keys().flatten().map(String::as_str);
    assert_eq!(names.collect::<Vec<_>>(), ["1", "2", "3", "4"], "{tried:?}");
}

/// Not for ten minutes only.
#[tokio::test]
async fn one_series_at_fault_is_known_as_long_as_it_is_rejected() {
    let receiver = rejecting(|labels| number(labels) == 7).await;
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    let (mut asked, mut before) = (Vec::new(), 0);
    for scrape in 1..=15 {
        pipe.push(block_of(1, scrape, 20)).await;
        judged(&pipe.monitors[0], u64::from(scrape) * 20).await;
        // But for those with metadata, once a minute.
        let requests = receiver.recorded().iter().filter(|one| !one.samples.is_empty()).count();
        asked.push(requests - before);
        before = requests;
        a_minute_later().await;
    }
    pipe.end().await;
    assert!(asked[1..].iter().all(|requests| *requests == 2), "the others and the one: {asked:?}");
    assert_eq!(log.text().matches("does not want this series").count(), 1);
}

#[tokio::test]
async fn a_series_that_is_taken_again_is_forgiven() {
    let (mut count, taken_from) = (0, 8);
    let receiver = Receiver::start(Box::new(move |request| {
        count += 1;
        if count < taken_from { judge(request) } else { Answer::ok() }
    }))
    .await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=5u32 {
        pipe.push(block_of(13, scrape, 8)).await;
        judged(&monitor, u64::from(scrape) * 8).await;
    }
    pipe.end().await;
    // 8, halves of 4, 2 and 1; then the seven and the one; then all together.
    let sizes: Vec<_> = receiver.recorded().iter().map(|one| one.samples.len()).collect();
    assert_eq!(sizes, [8, 4, 4, 2, 2, 1, 1, 7, 1, 8, 8, 8]);
    assert_eq!(monitor.snapshot().rejected_samples, 1);
}

#[tokio::test]
async fn a_series_that_is_taken_again_is_forgiven_beside_one_that_is_not() {
    // Five at first, and then only the last of them.
    let (healed, only_one) = (Arc::new(AtomicBool::new(false)), 4);
    let is_healed = Arc::clone(&healed);
    let receiver = rejecting(move |labels| {
        let bad = if is_healed.load(Ordering::SeqCst) { only_one..5 } else { 0..5 };
        bad.contains(&labels.value("n").parse::<u32>().expect("a number"))
    })
    .await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block_of(1, 1, 16)).await;
    judged(&monitor, 16).await;
    assert_eq!(monitor.snapshot().rejected_samples, 5);
    healed.store(true, Ordering::SeqCst);
    let mut rejected = Vec::new();
    for scrape in 2..200u32 {
        let before = monitor.snapshot().rejected_samples;
        pipe.push(block_of(1, scrape, 16)).await;
        judged(&monitor, u64::from(scrape) * 16).await;
        rejected.push(monitor.snapshot().rejected_samples - before);
        if rejected.ends_with(&[1, 1]) {
            break;
        }
        // Until it is time to ask again.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    pipe.end().await;
    assert!(rejected.ends_with(&[1, 1]), "{rejected:?}");
}

#[tokio::test]
async fn a_receiver_that_takes_nothing_is_not_asked_for_each_series() {
    let receiver = Receiver::start(always(Answer::status(422).saying("no"))).await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=3u32 {
        pipe.push(block_of(1, scrape, 64)).await;
        until(&monitor, |seen| seen.rejected_samples == u64::from(scrape) * 64).await;
    }
    pipe.end().await;
    let sizes: Vec<_> = receiver.recorded().iter().map(|one| one.samples.len()).collect();
    // Halves, then what is left as it is, and then it is believed.
    assert_eq!(sizes, [64, 32, 16, 8, 4, 2, 1, 1, 2, 4, 8, 16, 32, 64, 64]);
}

/// As when a label of a whole histogram is too long.
#[tokio::test]
async fn neighbours_that_are_poisoned_are_not_taken_for_a_receiver_that_takes_nothing() {
    let receiver =
        Receiver::start(Box::new(|request| match request.samples.iter().any(|(labels, _)| number(labels) < 5) {
            true => Answer::status(400),
            false => Answer::ok(),
        }))
        .await;
    let mut remote = remote("main", &receiver.url());
    // So long that none of them is asked alone again.
    remote.queue.max_backoff = Duration::from_secs(60);
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=2u32 {
        pipe.push(block_of(1, scrape, 64)).await;
        judged(&monitor, u64::from(scrape) * 64).await;
    }
    pipe.end().await;
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (2 * 59, 2 * 5));
    let sizes: Vec<_> = receiver.recorded().iter().map(|one| one.samples.len()).collect();
    assert_eq!(sizes[sizes.len() - 2..], [59, 5], "{sizes:?}");
}

#[tokio::test]
async fn what_was_written_in_part_is_not_sent_again() {
    let partly = Answer::status(400).header("x-prometheus-remote-write-samples-written", "19").saying(WORDS);
    let receiver = Receiver::start(script([partly])).await;
    let mut remote = remote("main", &receiver.url());
    remote.message = WriteFormat::V2;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block2_of(1, 1, 20)).await;
    pipe.end().await;
    assert_eq!(receiver.recorded().len(), 1);
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (19, 1));
}

#[tokio::test]
async fn what_was_written_of_a_request_counts_once_however_many_targets_are_in_it() {
    let partly = Answer::status(400).header("x-prometheus-remote-write-samples-written", "79").saying(WORDS);
    let receiver = Receiver::start(script([partly])).await;
    let mut remote = remote("main", &receiver.url());
    remote.message = WriteFormat::V2;
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    remote.queue.max_samples_per_send = 80;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=2 {
        for target in 1..=2 {
            pipe.push(block2_of(target, scrape, 20)).await;
        }
    }
    pipe.end().await;
    assert_eq!(receiver.recorded().len(), 1);
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (79, 1));
    assert_eq!(seen.last_refusal.map(|refusal| refusal.samples), Some(1));
}
