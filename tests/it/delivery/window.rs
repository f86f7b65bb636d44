//! Several requests under way, and what they owe each other.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

/// Requests of one target each.
fn one_by_one(receiver: &Receiver) -> RemoteWrite {
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_samples_per_send = 5;
    remote
}

fn targets_of(samples: &[(Labels, Sample)]) -> Vec<u64> {
    let mut targets: Vec<u64> =
        samples.iter().map(|(labels, _)| labels.value("target").parse().expect("a number")).collect();
    targets.dedup();
    targets
}

#[tokio::test]
async fn a_request_without_an_answer_holds_back_no_other_target() {
    let receiver = Receiver::start(Box::new(|request| match targets_of(&request.samples)[..] {
        [1] => Answer::hang(),
        _ => Answer::ok(),
    }))
    .await;
    let pipe = Pipe::to(vec![one_by_one(&receiver)]);
    for scrape in 0..20 {
        for target in 1..=4 {
            pipe.push(block_of(target, scrape, 5)).await;
        }
    }
    let samples = receiver.samples(3 * 20 * 5).await;
    for target in 2..=4 {
        assert!(values_of(target, &samples).is_sorted(), "target {target}");
    }
    let of_1 = receiver.recorded().iter().filter(|one| targets_of(&one.samples) == [1]).count();
    assert_eq!(of_1, 1, "never two of one target");
    let monitor = pipe.monitors[0].clone();
    until(&monitor, |seen| seen.delivered_samples == 300).await;
    pipe.give_up.cancel();
    assert_eq!(pipe.end().await, [Undelivered { blocks: 20, samples: 100 }]);
}

#[tokio::test]
async fn one_request_after_the_other_if_configured_so() {
    let receiver = Receiver::start(always(Answer::hang())).await;
    let mut remote = one_by_one(&receiver);
    remote.queue.max_requests_in_flight = 1;
    remote.remote_timeout = Duration::from_secs(1);
    let pipe = Pipe::to(vec![remote]);
    for target in 1..=4 {
        pipe.push(block_of(target, 1, 5)).await;
    }
    receiver.requests(2).await;
    let retried = pipe.metric("prometheus_remote_storage_samples_retried_total");
    assert!(retried >= 5.0, "the first was given up before the second was sent: {retried}");
    pipe.give_up.cancel();
    pipe.end().await;
}

/// Every answer that a receiver in trouble has, at random, after a random time.
#[tokio::test]
async fn the_samples_of_each_target_arrive_in_order_whatever_becomes_of_requests() {
    for seed in 0..4 {
        let mut random = StdRng::seed_from_u64(seed);
        let receiver = Receiver::start(Box::new(move |_| {
            let answer = match random.random_range(0..12) {
                0 => Answer::status(500),
                1 => Answer::status(503).header("retry-after", "0"),
                2 => Answer::status(429),
                3 => Answer::cut(),
                4 => Answer::ok().cut_inside(),
                _ => Answer::ok(),
            };
            answer.after(Duration::from_millis(random.random_range(0..8)))
        }))
        .await;
        let pipe = Pipe::to(vec![one_by_one(&receiver)]);
        for scrape in 0..30 {
            for target in 0..8 {
                pipe.push(block_of(target, scrape, 1 + (target as u32 + scrape) % 5)).await;
            }
        }
        assert_eq!(pipe.end().await, [Undelivered::default()]);
        let recorded = receiver.recorded();
        let taken: Vec<_> = recorded.iter().filter(|one| one.was_taken()).flat_map(|one| one.samples.clone()).collect();
        for target in 0..8 {
            // Whatever it answered, it may have kept what it got; the same again is no harm.
            let mut each: Vec<_> = recorded.iter().map(|one| values_of(target, &one.samples)).collect();
            each.retain(|values| !values.is_empty());
            each.dedup();
            assert!(each.concat().is_sorted(), "seed {seed}, target {target}: {each:?}");
            let mut values = values_of(target, &taken);
            values.sort_by(f64::total_cmp);
            values.dedup();
            assert_eq!(values, (0..30).map(f64::from).collect::<Vec<_>>(), "seed {seed}, target {target}");
        }
    }
}

#[tokio::test]
async fn a_receiver_in_trouble_gets_one_request_at_a_time() {
    let receiver = Receiver::start(always(Answer::status(503))).await;
    let mut remote = one_by_one(&receiver);
    remote.queue.min_backoff = Duration::from_millis(20);
    let pipe = Pipe::to(vec![remote]);
    for target in 0..8 {
        pipe.push(block_of(target, 1, 5)).await;
    }
    let recorded = receiver.requests(12).await;
    for pair in recorded[4..].windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(20), "a pause between any two");
    }
    let tried: std::collections::HashSet<_> = recorded.iter().flat_map(|one| targets_of(&one.samples)).collect();
    assert!(tried.len() >= 2, "they take turns");
    pipe.give_up.cancel();
    pipe.end().await;
}

#[tokio::test]
async fn what_is_settled_of_a_lease_is_not_lost_with_the_rest() {
    let receiver = Receiver::start(Box::new(|request| match targets_of(&request.samples)[..] {
        [2] => Answer::hang(),
        [_] => Answer::ok(),
        _ => Answer::status(400),
    }))
    .await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_samples_per_send = 9;
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    let pipe = Pipe::to(vec![remote]);
    for target in 1..=3 {
        pipe.push(block_of(target, 1, 3)).await;
    }
    receiver.requests(3).await;
    pipe.give_up.cancel();
    assert_eq!(pipe.end().await, [Undelivered { blocks: 2, samples: 6 }], "the first was delivered");
}

#[tokio::test]
async fn as_many_requests_are_under_way_as_configured_and_no_more() {
    let receiver = Receiver::start(always(Answer::hang())).await;
    let mut remote = one_by_one(&receiver);
    remote.queue.max_requests_in_flight = 3;
    let pipe = Pipe::to(vec![remote]);
    for target in 0..30 {
        pipe.push(block_of(target, 1, 5)).await;
    }
    receiver.requests(3).await;
    // Another one would have come by then: nothing else is to be done.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(receiver.recorded().len(), 3);
    pipe.give_up.cancel();
    pipe.end().await;
}

#[tokio::test]
async fn a_receiver_gets_no_more_samples_a_second_than_it_is_to() {
    let receiver = Receiver::start(script([])).await;
    let mut remote = one_by_one(&receiver);
    remote.queue.max_samples_per_second = 100;
    let pipe = Pipe::to(vec![remote]);
    let began = tokio::time::Instant::now();
    for target in 0..21 {
        pipe.push(block_of(target, 1, 5)).await;
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let recorded = receiver.recorded();
    // Not from the arrival of the first one, which may have been late on its way.
    let took = recorded[20].at - began;
    assert!(took >= Duration::from_secs(1), "100 samples after the first request take a second: {took:?}");
    assert_eq!(receiver.samples(105).await.len(), 105);
}

#[tokio::test]
async fn nor_does_it_when_it_has_been_in_trouble() {
    let receiver = Receiver::start(script([Answer::status(503)])).await;
    let mut remote = one_by_one(&receiver);
    remote.queue.max_samples_per_second = 10;
    // By then all of them would have had their turn.
    (remote.queue.min_backoff, remote.queue.max_backoff) = (Duration::from_secs(2), Duration::from_secs(2));
    let pipe = Pipe::to(vec![remote]);
    for target in 0..4 {
        pipe.push(block_of(target, 1, 5)).await;
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let recorded = receiver.recorded();
    let took = recorded[4].at - recorded[1].at;
    // Half of it: the first one may have been late on its way.
    assert!(
        took >= Duration::from_millis(750),
        "15 samples after the first request take a second and a half: {took:?}"
    );
}
