//! What becomes of requests that are too large for a receiver.

use std::sync::atomic::{AtomicBool, Ordering};

use super::narrowing::{a_minute_later, judged, number};
use super::*;

/// A receiver that takes so many samples at a time, and none of such series.
async fn small(most: usize, bad: impl Fn(&Labels) -> bool + Send + 'static) -> Receiver {
    Receiver::start(Box::new(move |request| match request.samples.len() {
        len if len > most => Answer::status(413),
        _ if request.samples.iter().any(|(labels, _)| bad(labels)) => Answer::status(400),
        _ => Answer::ok(),
    }))
    .await
}

#[tokio::test]
async fn who_says_too_large_gets_smaller_requests_from_then_on() {
    // About 80 bytes a sample.
    let receiver = Receiver::start(Box::new(|request| match request.samples.len() {
        0..=1500 => Answer::ok(),
        _ => Answer::status(413).saying("at most 1500"),
    }))
    .await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_samples_per_send = 4000;
    remote.queue.max_requests_in_flight = 1;
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    for scrape in 1..=10u32 {
        pipe.push(block_of(1, scrape, 4000)).await;
        until(&monitor, |seen| seen.delivered_samples == u64::from(scrape) * 4000).await;
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let too_large = receiver.recorded().iter().filter(|one| one.status == Some(413)).count();
    assert!((1..=2).contains(&too_large), "{too_large}: it has learned");
    let samples = receiver.samples(40_000).await;
    assert_eq!(samples.len(), 40_000);
    let mut by_series = std::collections::HashMap::<_, Vec<_>>::new();
    samples.iter().for_each(|(labels, sample)| by_series.entry(labels.clone()).or_default().push(sample.value));
    assert!(by_series.values().all(|values| values.is_sorted()));
}

/// Less than a request is ever made small for.
#[tokio::test]
async fn who_takes_only_a_few_at_a_time_has_all_in_the_end_however_much_had_gathered() {
    let receiver = Receiver::start(Box::new(|request| match request.samples.len() {
        0..=5 => Answer::ok(),
        _ => Answer::status(413).saying("at most 5"),
    }))
    .await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_millis(500);
    let pipe = Pipe::to(vec![remote]);
    for scrape in 1..=40u32 {
        pipe.push(block_of(1, scrape, 21)).await;
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let taken = receiver.samples(40 * 21).await;
    assert_eq!(taken.len(), 40 * 21);
    let refused = receiver.recorded().iter().filter(|one| one.status == Some(413)).count();
    assert!(refused > 150, "this was no test: {refused}");
}

#[tokio::test]
async fn who_takes_a_few_at_a_time_has_all_but_what_is_at_fault_however_much_that_is() {
    let is_bad = |n: u32| (1..=80).contains(&n);
    let receiver = small(5, move |labels| is_bad(number(labels))).await;
    let mut remote = remote("main", &receiver.url());
    // A search may cost sixty times that.
    remote.queue.max_backoff = Duration::from_secs(5);
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 281)).await;
    judged(&pipe.monitors[0], 281).await;
    let seen = pipe.monitors[0].snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (201, 80));
    pipe.end().await;
}

#[tokio::test]
async fn series_that_were_at_fault_are_not_dropped_for_being_too_many_at_a_time() {
    let healed = Arc::new(AtomicBool::new(false));
    let is_healed = Arc::clone(&healed);
    let receiver = small(5, move |labels| number(labels) < 30 && !is_healed.load(Ordering::SeqCst)).await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    pipe.push(block_of(1, 1, 50)).await;
    judged(&pipe.monitors[0], 50).await;
    assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 30);
    healed.store(true, Ordering::SeqCst);
    pipe.push(block_of(1, 2, 50)).await;
    judged(&pipe.monitors[0], 100).await;
    assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 30, "of the first scrape only");
    pipe.end().await;
}

/// That what is wanted was too much at a time says nothing of what is not.
#[tokio::test]
async fn a_series_at_fault_is_not_tried_in_each_scrape_for_the_size_of_the_others() {
    let receiver = small(200, |labels| number(labels) == 3).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_millis(500);
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 10)).await;
    judged(&pipe.monitors[0], 10).await;
    let before = receiver.recorded().len();
    for scrape in 2..=41 {
        pipe.push(block_of(1, scrape, 10)).await;
    }
    judged(&pipe.monitors[0], 410).await;
    let seen = pipe.monitors[0].snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (41 * 9, 41));
    pipe.end().await;
    let requests: Vec<_> = receiver.recorded()[before..].iter().map(|one| one.samples.len()).collect();
    assert!(requests.len() <= 12, "{requests:?}");
}

#[tokio::test]
async fn series_that_are_too_large_alone_cost_the_others_nothing() {
    // Wherever they stand: if they come first, nothing is taken for a while.
    for (large, most) in [(128..256, 100), (0..128, 100), (0..8, 5)] {
        let is_large = large.clone();
        let receiver = Receiver::start(Box::new(move |request| {
            let is_large = request.samples.iter().any(|(labels, _)| is_large.contains(&number(labels)));
            if is_large || request.samples.len() > most { Answer::status(413) } else { Answer::ok() }
        }))
        .await;
        let mut remote = remote("main", &receiver.url());
        // A search may cost sixty times that.
        remote.queue.max_backoff = Duration::from_millis(500);
        let pipe = Pipe::to(vec![remote]);
        let large = large.len() as u64;
        for scrape in 1..=2 {
            pipe.push(block_of(1, scrape, 1024)).await;
            judged(&pipe.monitors[0], u64::from(scrape) * 1024).await;
            assert_eq!(pipe.monitors[0].snapshot().rejected_samples, u64::from(scrape) * large);
        }
        pipe.end().await;
    }
}

#[tokio::test]
async fn who_calls_everything_too_large_is_not_asked_for_each_series() {
    let receiver = Receiver::start(always(Answer::status(413))).await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    let mut before = 0;
    for scrape in 1..=10 {
        pipe.push(block_of(1, scrape, 1024)).await;
        judged(&pipe.monitors[0], u64::from(scrape) * 1024).await;
        // Halves down to one series, another one, then the other halves as they are, and one series of the largest of these.
        let requests = receiver.recorded().len();
        assert!(requests - before <= 2 * 10 + 3, "{} requests for scrape {scrape}", requests - before);
        before = requests;
    }
    pipe.end().await;
}

/// A scrape of which nothing is taken says nothing of the size of the next.
#[tokio::test]
async fn who_takes_a_few_at_a_time_has_all_but_the_scrapes_that_are_at_fault() {
    for wrong in [1u32, 4] {
        let receiver = Receiver::start(Box::new(move |request| match request.samples.len() {
            6.. => Answer::status(413),
            _ if request.samples.iter().any(|(_, sample)| sample.value <= f64::from(wrong)) => Answer::status(400),
            _ => Answer::ok(),
        }))
        .await;
        let pipe = Pipe::to(vec![filling(&receiver.url(), 40 * 21)]);
        for scrape in 1..=40 {
            pipe.push(block_of(1, scrape, 21)).await;
        }
        judged(&pipe.monitors[0], 40 * 21).await;
        assert_eq!(pipe.monitors[0].snapshot().rejected_samples, u64::from(wrong) * 21);
        pipe.end().await;
    }
}

#[tokio::test]
async fn a_series_that_is_too_large_alone_is_remembered_also_if_it_comes_first() {
    let receiver = Receiver::start(Box::new(|request| {
        let is_large = request.samples.iter().any(|(labels, _)| number(labels) == 0);
        if is_large { Answer::status(413) } else { Answer::ok() }
    }))
    .await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    pipe.push(block_of(1, 1, 256)).await;
    judged(&pipe.monitors[0], 256).await;
    let before = receiver.recorded().len();
    pipe.push(block_of(1, 2, 256)).await;
    judged(&pipe.monitors[0], 2 * 256).await;
    assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 2);
    assert_eq!(receiver.recorded().len() - before, 2, "the others, and the one");
    pipe.end().await;
}

/// Half of the series are known to be at fault, and twenty scrapes come together.
#[tokio::test]
async fn what_is_at_fault_and_too_large_together_is_not_asked_for_each_series_in_each_scrape() {
    let receiver = small(60, |labels| number(labels) < 50).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_millis(500);
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 100)).await;
    judged(&pipe.monitors[0], 100).await;
    a_minute_later().await;
    let before = receiver.recorded().len();
    for scrape in 2..=21 {
        pipe.push(block_of(1, scrape, 100)).await;
    }
    judged(&pipe.monitors[0], 21 * 100).await;
    assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 21 * 50);
    pipe.end().await;
    let asked = receiver.recorded().len() - before;
    // One search, and for each other scrape a few; a hundred for each would be two thousand.
    assert!(asked <= 400, "{asked} requests for twenty scrapes");
}
