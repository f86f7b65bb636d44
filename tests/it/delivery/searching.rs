//! What it costs to find many series that a receiver does not want, and what it must not cost.

use std::sync::atomic::{AtomicBool, Ordering};

use super::narrowing::{a_minute_later, judged, number, rejecting};
use super::secrecy::capture;
use super::*;

#[tokio::test]
async fn many_series_at_fault_cost_nobody_else_a_sample_wherever_they_stand() {
    const SERIES: u64 = 330;
    let is_bad = |n: u32| n.is_multiple_of(3);
    let bad = (0..SERIES as u32).filter(|n| is_bad(*n)).count() as u64;
    // As many scrapes as come together, and as an outage leaves.
    for scrapes in [1, 5] {
        let receiver = rejecting(move |labels| is_bad(number(labels))).await;
        let mut remote = remote("main", &receiver.url());
        remote.queue.batch_send_deadline = Duration::from_secs(1);
        remote.queue.max_samples_per_send = (SERIES * scrapes) as usize;
        // The search may cost sixty times that.
        remote.queue.max_backoff = Duration::from_millis(500);
        let (log, _guard) = capture();
        let pipe = Pipe::to(vec![remote]);
        let mut asked = Vec::new();
        for round in 1..=2 {
            for scrape in 1..=scrapes {
                pipe.push(block_of(1, (round * 10 + scrape) as u32, SERIES as u32)).await;
            }
            let settled = round * scrapes;
            judged(&pipe.monitors[0], settled * SERIES).await;
            let seen = pipe.monitors[0].snapshot();
            let (good, bad) = (settled * (SERIES - bad), settled * bad);
            assert_eq!((seen.delivered_samples, seen.rejected_samples), (good, bad), "{scrapes} together");
            asked.push(receiver.recorded().len());
        }
        pipe.end().await;
        // What is good, what is bad, and whether a few of these are taken again.
        assert!(asked[1] - asked[0] <= 60, "{asked:?} requests: the second time it is known which they are");
        let named = log.text().matches("does not want this series").count();
        assert_eq!(named, 100, "the log is no place for all of {bad}");
    }
}

#[tokio::test]
async fn a_search_that_helps_nobody_ends() {
    for (status, at_most) in [(413, 200), (400, 600)] {
        // Whoever takes one request may take another.
        let mut count = 0;
        let receiver = Receiver::start(Box::new(move |_| {
            count += 1;
            if count == 4 { Answer::ok() } else { Answer::status(status) }
        }))
        .await;
        let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
        pipe.push(block_of(1, 1, 2000)).await;
        judged(&pipe.monitors[0], 2000).await;
        pipe.end().await;
        let requests = receiver.recorded().len();
        assert!(requests < at_most, "{requests} requests that were answered {status}");
    }
}

/// Whatever a search costs, what was not rejected itself is not dropped.
#[tokio::test]
async fn what_is_behind_many_series_at_fault_is_sent_however_the_search_for_them_ends() {
    // One scrape of which a third is at fault; two, of which the second has many series more.
    for (bad, from, scrapes) in [(100..400, 500, vec![1000]), (10..60, 82, vec![64, 164])] {
        let is_bad = bad.clone();
        let receiver = rejecting(move |labels| is_bad.contains(&number(labels))).await;
        let mut remote = remote("main", &receiver.url());
        remote.queue.batch_send_deadline = Duration::from_millis(500);
        let pipe = Pipe::to(vec![remote]);
        for (scrape, series) in (1..).zip(&scrapes) {
            pipe.push(block_of(1, scrape, *series)).await;
        }
        judged(&pipe.monitors[0], scrapes.iter().map(|series| u64::from(*series)).sum()).await;
        pipe.end().await;
        let taken = receiver.recorded().into_iter().filter(|one| one.was_taken()).flat_map(|one| one.samples);
        let behind = taken.filter(|(labels, _)| number(labels) >= from).count() as u32;
        let there = scrapes.iter().map(|series| series.saturating_sub(from)).sum::<u32>();
        assert_eq!(behind, there, "of {bad:?}");
    }
}

/// Some of each piece, so that nothing is taken for a while.
#[tokio::test]
async fn series_at_fault_that_come_first_cost_the_others_nothing_where_the_receiver_is_well() {
    let receiver =
        rejecting(|labels| labels.value("target") == "1" && (number(labels) == 0 || number(labels).is_power_of_two()))
            .await;
    // As many scrapes as come together.
    for scrapes in [1, 5] {
        let mut remote = remote("main", &receiver.url());
        remote.queue.batch_send_deadline = Duration::from_millis(500);
        remote.queue.max_samples_per_send = 1024 * scrapes as usize;
        let pipe = Pipe::to(vec![remote]);
        pipe.push(block_of(2, 1, 10)).await;
        judged(&pipe.monitors[0], 10).await;
        for scrape in 1..=scrapes {
            pipe.push(block_of(1, scrape, 1024)).await;
        }
        judged(&pipe.monitors[0], 10 + u64::from(scrapes) * 1024).await;
        assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 11 * u64::from(scrapes), "{scrapes} together");
        pipe.end().await;
    }
}

/// A series is at fault in target 1. While the receiver takes nothing, more seem to be.
#[tokio::test]
async fn what_seems_at_fault_while_a_receiver_takes_nothing_is_sent_again_as_soon_as_it_takes_something() {
    // Whether it took something within the minute, or not.
    for is_well in [true, false] {
        let down = Arc::new(AtomicBool::new(false));
        let is_down = Arc::clone(&down);
        let receiver = rejecting(move |labels| is_down.load(Ordering::SeqCst) || number(labels) == 45).await;
        let mut remote = remote("main", &receiver.url());
        // So long that none of those that are surely at fault is asked alone again.
        remote.queue.max_backoff = Duration::from_secs(60);
        let pipe = Pipe::to(vec![remote]);
        let settled = async |scrape: u32| {
            pipe.push(block_of(1, scrape, 100)).await;
            judged(&pipe.monitors[0], u64::from(scrape) * 100).await;
            pipe.monitors[0].snapshot().rejected_samples
        };
        settled(1).await;
        assert_eq!(settled(2).await, 2);
        if !is_well {
            a_minute_later().await;
        }
        down.store(true, Ordering::SeqCst);
        let asked = receiver.recorded().len();
        for (scrape, rejected) in [(3, 102), (4, 202)] {
            assert_eq!(settled(scrape).await, rejected);
        }
        assert!(receiver.recorded().len() - asked <= 100, "{} requests", receiver.recorded().len() - asked);
        down.store(false, Ordering::SeqCst);
        assert_eq!(settled(5).await, 203, "well: {is_well}");
        pipe.end().await;
    }
}

/// The same of many scrapes that come together, and whatever it says to them.
#[tokio::test]
async fn what_seems_at_fault_in_many_scrapes_is_sent_again_as_soon_as_a_receiver_takes_something() {
    for status in [400, 413] {
        let down = Arc::new(AtomicBool::new(false));
        let is_down = Arc::clone(&down);
        let receiver = Receiver::start(Box::new(move |request| {
            match request.samples.iter().any(|(labels, _)| number(labels) == 45) {
                _ if is_down.load(Ordering::SeqCst) => Answer::status(status),
                true => Answer::status(400),
                false => Answer::ok(),
            }
        }))
        .await;
        let mut remote = remote("main", &receiver.url());
        remote.queue.batch_send_deadline = Duration::from_millis(500);
        // So long that none of those that are surely at fault is asked alone again.
        remote.queue.max_backoff = Duration::from_secs(60);
        let pipe = Pipe::to(vec![remote]);
        pipe.push(block_of(1, 1, 100)).await;
        judged(&pipe.monitors[0], 100).await;
        down.store(true, Ordering::SeqCst);
        for scrape in 2..=9 {
            pipe.push(block_of(1, scrape, 100)).await;
        }
        judged(&pipe.monitors[0], 900).await;
        assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 801);
        down.store(false, Ordering::SeqCst);
        pipe.push(block_of(1, 10, 100)).await;
        judged(&pipe.monitors[0], 1000).await;
        assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 802, "after {status}");
        pipe.end().await;
    }
}

/// As when a label of the target itself is too long.
#[tokio::test]
async fn a_target_with_bad_series_only_is_no_reason_to_name_them_again_and_again() {
    let receiver = rejecting(|labels| labels.value("target") == "1").await;
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    let mut settled = 0;
    for scrape in 1..=15 {
        for (target, series) in [(2, 10), (1, 150)] {
            settled += u64::from(series);
            pipe.push(block_of(target, scrape, series)).await;
            judged(&pipe.monitors[0], settled).await;
        }
    }
    pipe.end().await;
    let text = log.text();
    let named: Vec<_> = text.lines().filter(|line| line.contains("does not want this series")).collect();
    let different: std::collections::HashSet<_> =
        named.iter().filter_map(|line| line.split("series=").nth(1)?.split(" samples=").next()).collect();
    assert_eq!((named.len(), different.len()), (100, 100));
    let last = receiver.recorded().iter().filter(|one| one.samples[0].1.value == 15.0).count();
    assert!(last <= 20, "{last} requests for a scrape of which all is known to be at fault");
}

/// As after an outage: a hundred scrapes of a target come together.
#[tokio::test]
async fn what_is_known_to_be_at_fault_in_a_hundred_scrapes_does_not_cost_minutes() {
    for bad in [1, 4] {
        let receiver = rejecting(move |labels| number(labels) < bad).await;
        let mut remote = remote("main", &receiver.url());
        remote.queue.batch_send_deadline = Duration::from_millis(500);
        remote.queue.max_backoff = Duration::from_secs(5);
        let pipe = Pipe::to(vec![remote]);
        pipe.push(block_of(1, 1, 20)).await;
        judged(&pipe.monitors[0], 20).await;
        a_minute_later().await;
        let before = receiver.recorded().len();
        for scrape in 2..=101 {
            pipe.push(block_of(1, scrape, 20)).await;
        }
        // If each of these were waited for as long as for a receiver in trouble, that would be ten minutes.
        judged(&pipe.monitors[0], 101 * 20).await;
        assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 101 * u64::from(bad));
        pipe.end().await;
        let asked = receiver.recorded().len() - before;
        assert!(asked <= 160, "{asked} requests for a hundred scrapes, {bad} at fault");
    }
}

/// Twenty scrapes of twenty series come together, and this is what is wrong with them, by scrape and series.
#[tokio::test]
async fn what_is_at_fault_in_some_scrapes_is_not_dropped_with_what_is_in_all() {
    type Bad = fn(u32, u32) -> bool;
    let cases: [(&str, Bad); 5] = [
        ("one series always, one in the first scrape", |scrape, n| n == 7 || scrape == 1 && n == 3),
        ("one always, another one in each", |scrape, n| n == 7 || scrape == n + 1),
        ("one always, four others in the first scrape", |scrape, n| n == 7 || scrape == 1 && (8..12).contains(&n)),
        ("one always, and all of two scrapes", |scrape, n| n == 0 || scrape <= 2),
        ("all of every third scrape", |scrape, n| n == 0 || scrape % 3 == 0),
    ];
    for (what, bad) in cases {
        let receiver = Receiver::start(Box::new(move |request| {
            let is_bad = |(labels, sample): &(Labels, Sample)| bad(sample.value as u32, number(labels));
            if request.samples.iter().any(is_bad) { Answer::status(400) } else { Answer::ok() }
        }))
        .await;
        let pipe = Pipe::to(vec![filling(&receiver.url(), 20 * 20)]);
        for scrape in 1..=20 {
            pipe.push(block_of(1, scrape, 20)).await;
        }
        judged(&pipe.monitors[0], 400).await;
        let all = (1..=20).flat_map(|scrape| (0..20).map(move |n| (scrape, n)));
        let expected = all.filter(|(scrape, n)| bad(*scrape, *n)).count() as u64;
        assert_eq!(pipe.monitors[0].snapshot().rejected_samples, expected, "{what}");
        pipe.end().await;
        println!("{what}: {} requests", receiver.recorded().len());
    }
}

/// Ten series are known to be at fault, and are so no more from the middle of what comes together.
#[tokio::test]
async fn what_is_taken_again_in_newer_scrapes_brings_all_others_with_it() {
    let receiver = Receiver::start(Box::new(|request| {
        let is_bad = |(labels, sample): &(Labels, Sample)| sample.value <= 3.0 && number(labels) < 10;
        if request.samples.iter().any(is_bad) { Answer::status(400) } else { Answer::ok() }
    }))
    .await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_millis(500);
    remote.queue.max_samples_per_send = 20 * 20;
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 20)).await;
    judged(&pipe.monitors[0], 20).await;
    a_minute_later().await;
    for scrape in 2..=20 {
        pipe.push(block_of(1, scrape, 20)).await;
    }
    judged(&pipe.monitors[0], 20 * 20).await;
    assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 3 * 10);
    pipe.end().await;
}

/// What a search costs is counted, and not how long a receiver is down meanwhile.
#[tokio::test]
async fn an_outage_in_the_middle_of_a_search_costs_nobody_a_sample() {
    let is_bad = |n: u32| n.is_multiple_of(5);
    let down = Arc::new(AtomicBool::new(false));
    let (mut rejected, is_down) = (0, Arc::clone(&down));
    let receiver = Receiver::start(Box::new(move |request| {
        // Once it goes by what it has cost.
        is_down.fetch_or(rejected == 150, Ordering::SeqCst);
        if is_down.load(Ordering::SeqCst) {
            rejected += 1;
            return Answer::status(503);
        }
        match request.samples.iter().any(|(labels, _)| is_bad(number(labels))) {
            true => {
                rejected += 1;
                Answer::status(400)
            }
            false => Answer::ok(),
        }
    }))
    .await;
    let mut remote = remote("main", &receiver.url());
    // The search may cost half a minute.
    remote.queue.max_backoff = Duration::from_millis(500);
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 330)).await;
    until(&pipe.monitors[0], |_| down.load(Ordering::SeqCst)).await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10 * 60)).await;
    tokio::time::resume();
    down.store(false, Ordering::SeqCst);
    judged(&pipe.monitors[0], 330).await;
    assert_eq!(pipe.monitors[0].snapshot().rejected_samples, 66);
    pipe.end().await;
}

/// As when most of what a receiver had too many series for is gone.
#[tokio::test]
async fn many_series_that_are_taken_again_are_forgiven_together() {
    let healed = Arc::new(AtomicBool::new(false));
    let is_healed = Arc::clone(&healed);
    let receiver = rejecting(move |labels| match is_healed.load(Ordering::SeqCst) {
        true => number(labels) >= 100 && number(labels).is_multiple_of(40),
        false => number(labels) >= 100,
    })
    .await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.max_backoff = Duration::from_millis(100);
    let pipe = Pipe::to(vec![remote]);
    let settled = async |scrape: u32| {
        pipe.push(block_of(1, scrape, 500)).await;
        judged(&pipe.monitors[0], u64::from(scrape) * 500).await;
        pipe.monitors[0].snapshot().rejected_samples
    };
    let mut before = settled(1).await;
    healed.store(true, Ordering::SeqCst);
    let mut rejected = Vec::new();
    for scrape in 2..=5 {
        // Until it is time to ask again.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let after = settled(scrape).await;
        rejected.push(after - before);
        before = after;
    }
    assert_eq!(rejected.last(), Some(&10), "{rejected:?}");
    pipe.end().await;
}

/// Series come and go: those that went have no turn.
#[tokio::test]
async fn series_that_are_gone_keep_none_from_being_taken_again() {
    let healed = Arc::new(AtomicBool::new(false));
    let is_healed = Arc::clone(&healed);
    let receiver = rejecting(move |labels| match is_healed.load(Ordering::SeqCst) {
        true => number(labels) == 45,
        false => number(labels) >= 40,
    })
    .await;
    let pipe = Pipe::to(vec![remote("main", &receiver.url())]);
    pipe.push(block_of(1, 1, 50)).await;
    judged(&pipe.monitors[0], 50).await;
    let (mut settled, mut rejected) = (50, Vec::new());
    for scrape in 2..=9 {
        healed.store(scrape > 5, Ordering::SeqCst);
        // Until it is time to ask again.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let before = pipe.monitors[0].snapshot().rejected_samples;
        settled += 46;
        pipe.push(block_of(1, scrape, 46)).await;
        judged(&pipe.monitors[0], settled).await;
        rejected.push(pipe.monitors[0].snapshot().rejected_samples - before);
    }
    assert_eq!(rejected.last(), Some(&1), "{rejected:?}");
    pipe.end().await;
}

/// While many series are searched for in several scrapes, the receiver answers something else once.
#[tokio::test]
async fn one_other_answer_in_the_middle_of_a_search_costs_one_scrape_at_most() {
    let (mut rejected, mut has_said) = (0, false);
    let receiver = Receiver::start(Box::new(move |request| {
        let is_one_scrape = request.samples.windows(2).all(|pair| pair[0].1.value == pair[1].1.value);
        if rejected > 100 && is_one_scrape && !has_said && request.samples.len() > 10 {
            has_said = true;
            return Answer::status(403);
        }
        match request.samples.iter().any(|(labels, _)| number(labels).is_multiple_of(5)) {
            true => {
                rejected += 1;
                Answer::status(400)
            }
            false => Answer::ok(),
        }
    }))
    .await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_millis(500);
    remote.queue.max_backoff = Duration::from_secs(5);
    let pipe = Pipe::to(vec![remote]);
    for scrape in 1..=5 {
        pipe.push(block_of(1, scrape, 300)).await;
    }
    judged(&pipe.monitors[0], 1500).await;
    pipe.end().await;
    assert_eq!(receiver.recorded().iter().filter(|one| one.status == Some(403)).count(), 1, "this was no test");
    let taken = receiver.recorded().into_iter().filter(|one| one.was_taken()).flat_map(|one| one.samples);
    let taken = taken.filter(|(_, sample)| sample.value >= 2.0).count();
    assert_eq!(taken, 4 * 240, "of all scrapes but the one that was answered so");
}
