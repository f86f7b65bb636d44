//! What a receiver does not want, and whom that costs.

use std::sync::atomic::{AtomicBool, Ordering};

use super::secrecy::capture;
use super::*;
use crate::support::receiver::{Recorded, Rule};

#[tokio::test]
async fn what_is_rejected_is_dropped_counted_and_shown_once() {
    let words = "out of bounds\x1b[31m\n\u{202e}series";
    let receiver = Receiver::start(script((0..3).map(|_| Answer::status(400).saying(words)))).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_samples_per_send = 5;
    remote.queue.split_rejected = false;
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..4 {
        pipe.push(block_of(1, scrape, 5)).await;
    }
    let monitor = pipe.monitors[0].clone();
    let samples = receiver.samples(5).await;
    assert_eq!(values_of(1, &samples), [3.0; 5], "rejected samples are not sent again, and those behind them are");
    assert_eq!(receiver.recorded().len(), 4);
    let seen = until(&monitor, |seen| seen.delivered_samples == 5).await;
    let refusal = seen.last_refusal.expect("there was one");
    assert_eq!((seen.rejected_samples, refusal.status, refusal.samples), (15, 400, 5));
    let cleaned = "out of bounds\\u{1b}[31m\\u{a}\\u{202e}series";
    assert_eq!(refusal.words, cleaned);
    assert_eq!(pipe.metric("prometheus_remote_storage_samples_failed_total"), 15.0);
    pipe.end().await;
    let said = log.text();
    let lines: Vec<_> = said.lines().filter(|line| line.contains("rejects samples for good")).collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("out of bounds") && lines[0].contains("status=400"), "{}", lines[0]);
    assert!(!said.contains('\u{1b}') && !said.contains('\u{202e}'));
}

#[tokio::test]
async fn what_is_not_taken_of_metadata_costs_no_sample() {
    let answers = [Answer::status(400).saying("no metadata here"), Answer::status(503), Answer::hang()];
    let receiver = Receiver::start(script(answers)).await;
    let mut remote = remote("main", &receiver.url());
    remote.metadata.send_interval = Duration::from_millis(300);
    remote.remote_timeout = Duration::from_secs(1);
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote]);
    let described = receiver.requests(4).await;
    for one in &described {
        let metadata = wire::decode(&one.body).expect("a request").metadata;
        assert_eq!(
            (&*metadata[0].metric_family_name, &*metadata[0].help, metadata[0].r#type),
            ("fill", "How full it is", 2)
        );
        assert_eq!(one.header("retry-attempt"), None, "it is told anew instead");
    }
    pipe.push(block_of(1, 1, 5)).await;
    receiver.samples(5).await;
    assert_eq!(pipe.metric("prometheus_remote_storage_metadata_failed_total"), 6.0);
    assert!(pipe.metric("prometheus_remote_storage_metadata_total") >= 8.0);
    assert_eq!(pipe.metric("prometheus_remote_storage_samples_failed_total"), 0.0);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let said = log.text();
    assert_eq!(said.matches("does not take metadata").count(), 1, "{said}");
    assert!(said.contains("no metadata here"), "{said}");
}

#[tokio::test]
async fn metadata_in_vain_is_one_request_and_not_all_of_them() {
    let receiver = Receiver::start(script([Answer::status(503)])).await;
    let mut remote = remote("main", &receiver.url());
    remote.metadata.send_interval = Duration::from_millis(300);
    remote.metadata.max_samples_per_send = 1;
    let pipe = Pipe::to(vec![remote]);
    let recorded = receiver.requests(3).await;
    let told = |number: usize| {
        let request = wire::decode(&recorded[number].body).expect("a request");
        request.metadata[0].metric_family_name.clone()
    };
    assert_eq!([told(0), told(1), told(2)], ["fill", "fill", "fullness"], "all is told anew");
    pipe.end().await;
}

/// Hangs on what tells of families, and takes samples.
fn deaf_to_metadata() -> Rule {
    Box::new(|asked| if asked.samples.is_empty() { Answer::hang() } else { Answer::ok() })
}

#[tokio::test]
async fn a_receiver_that_hangs_on_metadata_gets_samples_all_the_same() {
    let receiver = Receiver::start(deaf_to_metadata()).await;
    let mut remote = remote("main", &receiver.url());
    // What is told takes longer than the pause before it is told again.
    remote.metadata.send_interval = Duration::from_millis(10);
    remote.remote_timeout = Duration::from_millis(300);
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..5 {
        let told = receiver.recorded().iter().filter(|one| one.samples.is_empty()).count();
        receiver
            .until("metadata in vain", |seen| seen.iter().filter(|one| one.samples.is_empty()).count() > told)
            .await;
        pipe.push(block_of(1, scrape, 1)).await;
        assert_eq!(values_of(1, &receiver.samples(scrape as usize + 1).await).last(), Some(&f64::from(scrape)));
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
}

#[tokio::test]
async fn samples_go_between_two_requests_of_metadata() {
    let slow =
        |asked: &Recorded| Answer::ok().after(Duration::from_millis(if asked.samples.is_empty() { 300 } else { 0 }));
    let receiver = Receiver::start(Box::new(slow)).await;
    let mut remote = remote("main", &receiver.url());
    remote.metadata.send_interval = Duration::from_millis(300);
    remote.metadata.max_samples_per_send = 1;
    remote.queue.batch_send_deadline = Duration::ZERO;
    let pipe = Pipe::to(vec![remote]);
    receiver.requests(1).await;
    pipe.push(block_of(1, 1, 5)).await;
    let recorded = receiver.requests(3).await;
    let sizes: Vec<_> = recorded[..3].iter().map(|one| one.samples.len()).collect();
    assert_eq!(sizes, [0, 5, 0]);
    let family = &wire::decode(&recorded[2].body).expect("a request").metadata[0].metric_family_name;
    assert_eq!(family, "fullness", "the round goes on behind the samples");
    pipe.end().await;
}

#[tokio::test]
async fn metadata_and_samples_are_one_request_after_the_other_if_configured_so() {
    const TAKES: Duration = Duration::from_millis(30);
    let receiver = Receiver::start(always(Answer::ok().after(TAKES))).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_requests_in_flight = 1;
    remote.metadata.send_interval = Duration::from_millis(1);
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..20 {
        let seen = receiver.recorded().len();
        for target in 1..=3 {
            pipe.push(block_of(target, scrape, 1)).await;
        }
        receiver.requests(seen + 2).await;
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let recorded = receiver.recorded();
    let told = recorded.iter().filter(|one| one.samples.is_empty()).count();
    assert!(told >= 5 && recorded.len() - told >= 5, "{told} of {}", recorded.len());
    // At the end one of metadata may be cut off, behind which one of samples comes.
    let end = recorded.iter().rposition(|one| one.samples.is_empty()).expect("metadata came");
    assert!(recorded[..=end].windows(2).all(|pair| pair[1].at - pair[0].at >= TAKES), "two at a time");
    assert!(recorded[end + 1..].windows(2).all(|pair| pair[1].at - pair[0].at >= TAKES), "two at a time");
}

/// Waits until both families were told in vain.
async fn metadata_failed(pipe: &Pipe) {
    let failed = async || pipe.metric("prometheus_remote_storage_metadata_failed_total") == 2.0;
    eventually("they were told in vain", async || failed().await.then_some(())).await;
}

#[tokio::test]
async fn who_is_told_to_wait_with_metadata_waits_with_samples() {
    const PAUSE: Duration = Duration::from_secs(1);
    for answer in [Answer::status(429), Answer::status(503)] {
        let receiver = Receiver::start(script([answer.header("retry-after", "1")])).await;
        let mut remote = remote("main", &receiver.url());
        remote.metadata.send_interval = Duration::from_millis(50);
        let pipe = Pipe::to(vec![remote]);
        let monitor = pipe.monitors[0].clone();
        metadata_failed(&pipe).await;
        pipe.push(block_of(1, 1, 5)).await;
        until(&monitor, |seen| seen.delivered_samples == 5).await;
        let recorded = receiver.recorded();
        assert!(recorded[0].samples.is_empty());
        assert!(recorded[1].at - recorded[0].at >= PAUSE, "{:?}", recorded[1].at - recorded[0].at);
        pipe.end().await;
    }
}

/// Also where the request that is cut off has the only place there is.
#[tokio::test]
async fn metadata_does_not_take_the_time_of_a_shutdown() {
    for in_flight in [1, 4] {
        let receiver = Receiver::start(deaf_to_metadata()).await;
        let mut remote = remote("main", &receiver.url());
        remote.queue.max_requests_in_flight = in_flight;
        remote.metadata.send_interval = Duration::from_millis(10);
        remote.remote_timeout = Duration::from_secs(3600);
        let pipe = Pipe::to(vec![remote]);
        receiver.requests(1).await;
        pipe.push(block_of(1, 1, 5)).await;
        assert_eq!(pipe.end().await, [Undelivered::default()]);
        assert_eq!(receiver.recorded().len(), 2, "one of metadata, which was cut off, and one of samples");
        assert_eq!(receiver.samples(5).await.len(), 5);
    }
}

/// A request that waits for the receiver to come to its senses was not sent, and is not counted.
#[tokio::test]
async fn metadata_that_waits_at_a_shutdown_was_neither_sent_nor_refused() {
    let receiver = Receiver::start(script([Answer::status(503).header("retry-after", "3600")])).await;
    let mut remote = remote("main", &receiver.url());
    remote.metadata.send_interval = Duration::from_millis(1);
    let mut pipe = Pipe::to(vec![remote]);
    metadata_failed(&pipe).await;
    pipe.inlet = mpsc::channel(1).0;
    eventually("the sender has ended", async || pipe.running[0].is_finished().then_some(())).await;
    let counted =
        ["total", "failed_total"].map(|counter| pipe.metric(&format!("prometheus_remote_storage_metadata_{counter}")));
    assert_eq!(counted, [2.0, 2.0]);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
}

#[tokio::test]
async fn who_wants_no_metadata_gets_none() {
    let receiver = Receiver::start(script([])).await;
    let mut remote = remote("main", &receiver.url());
    remote.metadata.send_interval = Duration::from_millis(1);
    remote.metadata.send = false;
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..20 {
        pipe.push(block_of(1, scrape, 1)).await;
    }
    receiver.samples(20).await;
    pipe.end().await;
    assert!(receiver.recorded().iter().all(|one| !one.samples.is_empty()));
}

#[tokio::test]
async fn every_other_4xx_is_final_if_it_is_not_to_be_split() {
    for status in [401, 403, 404, 405, 413, 415, 422] {
        let receiver = Receiver::start(script([Answer::status(status)])).await;
        let mut remote = remote("main", &receiver.url());
        remote.queue.split_rejected = false;
        let pipe = Pipe::to(vec![remote]);
        let monitor = pipe.monitors[0].clone();
        pipe.push(block_of(1, 1, 2)).await;
        assert_eq!(pipe.end().await, [Undelivered::default()]);
        assert_eq!(receiver.recorded().len(), 1, "{status}");
        assert_eq!(monitor.snapshot().rejected_samples, 2, "{status}");
    }
}

#[tokio::test]
async fn slow_down_can_be_final_if_configured_so() {
    let receiver = Receiver::start(script([Answer::status(429).header("retry-after", "3600")])).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.retry_on_http_429 = false;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block_of(1, 1, 2)).await;
    pipe.end().await;
    assert_eq!(monitor.snapshot().rejected_samples, 2);
}

#[tokio::test]
async fn a_long_refusal_is_cut() {
    let receiver = Receiver::start(always(Answer::status(400).saying("no! ").endlessly())).await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block_of(1, 1, 1)).await;
    pipe.end().await;
    let words = monitor.snapshot().last_refusal.expect("there was one").words;
    assert!(words.starts_with("no! no!") && words.len() <= 1024 + '…'.len_utf8(), "{} bytes", words.len());
}

#[tokio::test]
async fn one_poisoned_target_costs_the_others_nothing() {
    let poisoned = "13";
    let receiver = Receiver::start(Box::new(move |request| {
        let is_bad = request.samples.iter().any(|(labels, _)| labels.get("target") == Some(poisoned));
        if is_bad { Answer::status(400).saying("invalid series") } else { Answer::ok() }
    }))
    .await;
    let mut remote = filling(&receiver.url(), 30);
    remote.queue.max_requests_in_flight = 1;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 0..3 {
        for target in 0..30 {
            pipe.push(block_of(target, scrape, 1)).await;
        }
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let samples = receiver.samples(87).await;
    for target in (0..30).filter(|target| target.to_string() != poisoned) {
        assert_eq!(values_of(target, &samples), [0.0, 1.0, 2.0], "target {target}");
    }
    assert_eq!(monitor.snapshot().rejected_samples, 3);
    // Together, one by one, and from then on the offender goes alone.
    let sizes: Vec<_> = receiver.recorded().iter().map(|one| one.samples.len()).collect();
    let expected: Vec<_> = [30].into_iter().chain(std::iter::repeat_n(1, 30)).chain([29, 1, 29, 1]).collect();
    assert_eq!(sizes, expected);
}

#[tokio::test]
async fn a_receiver_that_rejects_everything_is_not_asked_target_by_target_for_ever() {
    let receiver = Receiver::start(always(Answer::status(400))).await;
    let mut remote = filling(&receiver.url(), 10);
    remote.queue.max_requests_in_flight = 1;
    let pipe = Pipe::to(vec![remote]);
    for scrape in 0..5 {
        for target in 0..10 {
            pipe.push(block_of(target, scrape, 1)).await;
        }
    }
    pipe.end().await;
    let sizes: Vec<_> = receiver.recorded().iter().map(|one| one.samples.len()).collect();
    // From then on one of them is tried alone each time.
    let each = [10].into_iter().chain(std::iter::repeat_n(1, 10));
    let expected: Vec<_> = each.chain([10, 1, 10, 1, 10, 1, 10, 1]).collect();
    assert_eq!(sizes, expected);
}

/// Once it took nothing from anybody, whoever was at fault; now one target is in every request.
#[tokio::test]
async fn a_poisoned_target_costs_the_others_nothing_soon_after_the_receiver_rejected_everything() {
    let open = Arc::new(AtomicBool::new(false));
    let is_open = Arc::clone(&open);
    let receiver = Receiver::start(Box::new(move |request| {
        let is_bad = request.samples.iter().any(|(labels, _)| labels.get("target") == Some("1"));
        if is_bad || !is_open.load(Ordering::Relaxed) { Answer::status(400) } else { Answer::ok() }
    }))
    .await;
    let pipe = Pipe::to(vec![filling(&receiver.url(), 5)]);
    let monitor = pipe.monitors[0].clone();
    let scrape = async |number: u32| {
        for target in 0..5 {
            pipe.push(block_of(target, number, 1)).await;
        }
        let settled = 5 * u64::from(number);
        until(&monitor, |seen| seen.rejected_samples + seen.delivered_samples == settled).await;
    };
    scrape(1).await;
    scrape(2).await;
    assert_eq!(receiver.recorded().len(), 1 + 5 + 2, "of the second request one target is tried alone");
    open.store(true, Ordering::Relaxed);
    // It is the turn of the poisoned one, and then that of another one.
    scrape(3).await;
    scrape(4).await;
    assert_eq!(monitor.snapshot().delivered_samples, 4);
    pipe.end().await;
}

#[tokio::test]
async fn a_refusal_of_the_sender_is_not_tried_target_by_target() {
    let receiver = Receiver::start(script([Answer::status(401).saying("who are you?")])).await;
    let pipe = Pipe::to(vec![filling(&receiver.url(), 2)]);
    let monitor = pipe.monitors[0].clone();
    pipe.push(block_of(1, 1, 1)).await;
    pipe.push(block_of(2, 1, 1)).await;
    pipe.end().await;
    assert_eq!(receiver.recorded().len(), 1);
    assert_eq!(monitor.snapshot().rejected_samples, 2);
}
