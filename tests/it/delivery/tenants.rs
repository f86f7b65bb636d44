//! Receivers with several tenants: whose samples a request says to have, and what one refused tenant costs the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};

use meshscrape::config::TenantHeader;
use meshscrape::model::{Tenant, TenantRule};

use super::secrecy::capture;
use super::*;
use crate::support::receiver::{Recorded, confirming};

const HEADER: &str = "x-scope-orgid";

/// A receiver's configuration with tenants.
fn with_tenants(url: &str) -> RemoteWrite {
    let rule = TenantRule::new("{namespace}", None).expect("a template");
    let tenant = Some(TenantHeader { name: HEADER.parse().expect("a name"), rule });
    RemoteWrite { tenant, ..remote("main", url) }
}

fn tenant(name: &str) -> Option<Tenant> {
    Some(Tenant::parse(name).expect("a tenant"))
}

/// The blocks of target `number` belong to this one.
fn owner(target: u64) -> String {
    format!("tenant-{}", target % 3)
}

/// The tenant of a request, with the targets that it has samples of.
fn whose(request: &Recorded) -> (String, BTreeSet<u64>) {
    let targets = request.samples.iter().map(|(labels, _)| labels.value("target").parse().expect("a number"));
    (request.header(HEADER).expect("a tenant").to_owned(), targets.collect())
}

#[tokio::test]
async fn no_request_has_samples_of_two_tenants() {
    for message in [WriteFormat::V1, WriteFormat::V2] {
        let receiver = Receiver::start(confirming()).await;
        let mut remote = RemoteWrite { message, ..with_tenants(&receiver.url()) };
        remote.queue.batch_send_deadline = Duration::from_secs(3600);
        remote.queue.max_samples_per_send = 12;
        let pipe = Pipe::to(vec![remote]);
        for scrape in 0..10 {
            for target in 0..9 {
                let block = match message {
                    WriteFormat::V1 => block_of(target, scrape, 2),
                    WriteFormat::V2 => block2_of(target, scrape, 2),
                };
                pipe.push(Block { tenant: tenant(&owner(target)), ..block }).await;
            }
        }
        assert_eq!(pipe.end().await, [Undelivered::default()]);
        let recorded = receiver.recorded();
        for request in &recorded {
            let (name, targets) = whose(request);
            assert!(targets.iter().all(|target| owner(*target) == name), "{name}: {targets:?}");
            assert!(request.samples.len() <= 12);
        }
        assert!(recorded.iter().any(|request| whose(request).1.len() > 1), "targets of one tenant share requests");
        let samples = receiver.samples(180).await;
        for target in 0..9 {
            let expected: Vec<_> = (0..10).flat_map(|scrape| [f64::from(scrape); 2]).collect();
            assert_eq!(values_of(target, &samples), expected);
        }
    }
}

/// It is tried whether he takes one of his targets again, and he is refused for now: nothing is known of the others.
#[tokio::test]
async fn nothing_is_given_up_because_its_tenant_is_refused_as_one_target_is_tried() {
    let mut asked = 0;
    let receiver = Receiver::start(Box::new(move |request| {
        if whose(request).1.iter().any(|target| *target < 3) {
            return Answer::status(400);
        }
        asked += 1;
        match asked {
            1 => Answer::status(400),
            2 => Answer::status(429),
            _ => Answer::ok(),
        }
    }))
    .await;
    let mut remote = with_tenants(&receiver.url());
    remote.queue.max_samples_per_send = 16;
    remote.queue.max_requests_in_flight = 1;
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    for (pair, settled) in [([1, 2], 16), ([3, 4], 32)] {
        for target in pair {
            pipe.push(Block { tenant: tenant("shop"), ..block_of(target, 1, 8) }).await;
        }
        until(&monitor, |seen| seen.delivered_samples + seen.rejected_samples == settled).await;
    }
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (16, 16));
}

/// One of his targets fails while each of several is tried alone, of which the others are rejected. One is searched in
/// vain: that says nothing of the other, which has a good series.
#[tokio::test]
async fn nothing_is_given_up_because_another_target_of_its_tenant_fails_as_each_is_tried() {
    let mut failed = false;
    let receiver = Receiver::start(Box::new(move |request| {
        let is_bad = |labels: &Labels| match labels.value("target") {
            "1" => true,
            "2" => labels.value("n") == "0",
            _ => false,
        };
        match request.samples.iter().any(|(labels, _)| is_bad(labels)) {
            true => Answer::status(400),
            false if whose(request).1.contains(&3) && !std::mem::replace(&mut failed, true) => Answer::status(503),
            false => Answer::ok(),
        }
    }))
    .await;
    let mut remote = with_tenants(&receiver.url());
    remote.queue.max_samples_per_send = 12;
    remote.queue.max_requests_in_flight = 1;
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    for target in [1, 2, 3] {
        pipe.push(Block { tenant: tenant("shop"), ..block_of(target, 1, 4) }).await;
    }
    receiver.until("the first request", |recorded| !recorded.is_empty()).await;
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (4 + 3, 4 + 1));
}

/// He was just answered 200, so that his requests begin to fail anew.
#[tokio::test]
async fn what_a_tenant_is_told_to_wait_holds_up_no_other_who_was_just_taken() {
    let mut asked = 0;
    let receiver = Receiver::start(Box::new(move |request| {
        asked += u32::from(request.header(HEADER) == Some("ill"));
        match request.header(HEADER) {
            Some("ill") if asked > 1 => Answer::status(503).header("retry-after", "60"),
            _ => Answer::ok(),
        }
    }))
    .await;
    let pipe = Pipe::to(vec![with_tenants(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    for (scrape, taken) in [(1, 10), (2, 15)] {
        for (target, name) in [(1, "well"), (2, "ill")] {
            pipe.push(Block { tenant: tenant(name), ..block_of(target, scrape, 5) }).await;
        }
        until(&monitor, |seen| seen.delivered_samples == taken).await;
    }
    receiver.until("he fails", |recorded| recorded.iter().any(|request| request.status == Some(503))).await;
    for scrape in 3..8 {
        pipe.push(Block { tenant: tenant("well"), ..block_of(1, scrape, 5) }).await;
        until(&monitor, |seen| seen.delivered_samples == 5 * (u64::from(scrape) + 1)).await;
    }
    pipe.give_up.cancel();
    pipe.end().await;
}

#[tokio::test]
async fn refused_tenants_hold_up_no_other_and_get_everything_in_order_later() {
    let open = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&open);
    let receiver = Receiver::start(Box::new(move |request| match request.header(HEADER) {
        Some("good") => Answer::ok(),
        _ if rule.load(Ordering::SeqCst) => Answer::ok(),
        _ => Answer::status(429).saying("over the limit"),
    }))
    .await;
    let mut remote = with_tenants(&receiver.url());
    remote.queue.max_samples_per_send = 5;
    remote.queue.max_requests_in_flight = 4;
    let (log, _guard) = capture();
    let pipe = Pipe::to(vec![remote]);
    let monitor = pipe.monitors[0].clone();
    // More refused ones than there are requests at a time, each with several targets.
    let refused: Vec<_> = (1..=6).map(|number| format!("refused-{number}")).collect();
    for scrape in 0..20 {
        for (number, name) in refused.iter().enumerate() {
            for target in 0..3 {
                let block = block_of(10 * (number as u64 + 1) + target, scrape, 5);
                pipe.push(Block { tenant: tenant(name), ..block }).await;
            }
        }
        pipe.push(Block { tenant: tenant("good"), ..block_of(1, scrape, 5) }).await;
    }
    let came = receiver.samples(20 * 5).await;
    let expected: Vec<_> = (0..20).flat_map(|scrape| [f64::from(scrape); 5]).collect();
    assert_eq!(values_of(1, &came), expected, "as if the others were not there");
    let seen = until(&monitor, |seen| seen.delivered_samples == 100).await;
    assert_eq!(seen.trouble, None, "the receiver is well");
    assert_eq!((seen.queue.pending_samples, seen.rejected_samples), (20 * 18 * 5, 0));
    let said = log.text();
    let line = said.lines().find(|line| line.contains("refuses the samples of a tenant")).expect("it is said");
    assert!(line.contains("tenant=refused-") && line.contains("over the limit"), "{line}");
    assert!(!said.contains("the receiver takes samples again"), "{said}");

    open.store(true, Ordering::SeqCst);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let taken = receiver.samples(20 * 19 * 5).await;
    for target in (1..=6).flat_map(|number| (0..3).map(move |target| 10 * number + target)) {
        assert_eq!(values_of(target, &taken), expected, "target {target}");
    }
}

/// As those of a Mimir whose parts that hold this one's samples are down: that is no reason to wait for the others.
#[tokio::test]
async fn a_tenant_whose_requests_fail_holds_up_no_other_and_gets_everything_in_order_later() {
    for failure in [|| Answer::status(500), Answer::hang] {
        let open = Arc::new(AtomicBool::new(false));
        let rule = Arc::clone(&open);
        let receiver = Receiver::start(Box::new(move |request| match request.header(HEADER) {
            Some("well") => Answer::ok(),
            _ if rule.load(Ordering::SeqCst) => Answer::ok(),
            _ => failure(),
        }))
        .await;
        let mut remote = with_tenants(&receiver.url());
        remote.remote_timeout = Duration::from_secs(3);
        remote.queue.max_samples_per_send = 5;
        remote.queue.max_requests_in_flight = 4;
        let pipe = Pipe::to(vec![remote]);
        let monitor = pipe.monitors[0].clone();
        for scrape in 0..20 {
            for target in 0..6 {
                pipe.push(Block { tenant: tenant("ill"), ..block_of(10 + target, scrape, 5) }).await;
            }
            if scrape == 0 {
                receiver.requests(4).await;
            }
            pipe.push(Block { tenant: tenant("well"), ..block_of(1, scrape, 5) }).await;
        }
        let seen = until(&monitor, |seen| seen.delivered_samples == 20 * 5).await;
        assert_eq!((seen.queue.pending_samples, seen.rejected_samples), (20 * 6 * 5, 0));
        open.store(true, Ordering::SeqCst);
        assert_eq!(pipe.end().await, [Undelivered::default()]);
        let taken = receiver.samples(20 * 7 * 5).await;
        let expected: Vec<_> = (0..20).flat_map(|scrape| [f64::from(scrape); 5]).collect();
        for target in [1, 10, 11, 12, 13, 14, 15] {
            assert_eq!(values_of(target, &taken), expected, "target {target}");
        }
    }
}

#[tokio::test]
async fn many_refused_tenants_hold_up_no_other_and_no_more_requests_are_under_way_than_there_may_be() {
    const AT_ONCE: usize = 3;
    let hangs = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&hangs);
    let receiver = Receiver::start(Box::new(move |request| match request.header(HEADER) {
        _ if rule.load(Ordering::SeqCst) => Answer::hang(),
        Some("good") => Answer::ok(),
        _ => Answer::status(429),
    }))
    .await;
    let mut remote = with_tenants(&receiver.url());
    remote.queue.max_samples_per_send = 5;
    remote.queue.max_requests_in_flight = AT_ONCE;
    (remote.queue.min_backoff, remote.queue.max_backoff) = (Duration::from_millis(50), Duration::from_millis(100));
    let pipe = Pipe::to(vec![remote]);
    for number in 0..40 {
        pipe.push(Block { tenant: tenant(&format!("refused-{number}")), ..block_of(number, 1, 5) }).await;
    }
    let all_are_refused = |recorded: &[Recorded]| {
        let tenants: BTreeSet<_> = recorded.iter().map(|request| whose(request).0).collect();
        tenants.len() == 40
    };
    receiver.until("each of them", all_are_refused).await;
    for scrape in 0..10 {
        pipe.push(Block { tenant: tenant("good"), ..block_of(99, scrape, 5) }).await;
    }
    receiver.samples(50).await;
    hangs.store(true, Ordering::SeqCst);
    let hung = |recorded: &[Recorded]| recorded.iter().filter(|request| request.status.is_none()).count();
    receiver.until("as many as there may be", |recorded| hung(recorded) == AT_ONCE).await;
    // The pauses of all are over by then.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(hung(&receiver.recorded()), AT_ONCE);
    pipe.give_up.cancel();
    pipe.end().await;
}

#[tokio::test]
async fn tenants_that_are_refused_while_a_bad_series_is_looked_for_hold_up_no_other() {
    let open = Arc::new(AtomicBool::new(false));
    let (rule, mut known) = (Arc::clone(&open), BTreeSet::new());
    let receiver = Receiver::start(Box::new(move |request| {
        let tenant = request.header(HEADER).expect("a tenant").to_owned();
        let is_bad = request.samples.iter().any(|(labels, _)| labels.value("n") == "1");
        match tenant == "good" || !known.insert(tenant) {
            _ if request.header(HEADER) == Some("good") => Answer::ok(),
            true if !rule.load(Ordering::SeqCst) => Answer::status(429),
            _ if is_bad => Answer::status(400).saying("invalid series"),
            _ => Answer::ok(),
        }
    }))
    .await;
    let pipe = Pipe::to(vec![with_tenants(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    for number in 0..40 {
        pipe.push(Block { tenant: tenant(&format!("bad-{number}")), ..block_of(number, 1, 5) }).await;
    }
    let all_are_refused = |recorded: &[Recorded]| {
        let refused = recorded.iter().filter(|request| request.status == Some(429));
        refused.map(|request| whose(request).0).collect::<BTreeSet<_>>().len() == 40
    };
    receiver.until("each of them is refused", all_are_refused).await;
    for scrape in 0..10 {
        pipe.push(Block { tenant: tenant("good"), ..block_of(99, scrape, 5) }).await;
        until(&monitor, |seen| seen.delivered_samples == 5 * (u64::from(scrape) + 1)).await;
    }
    assert_eq!(monitor.snapshot().rejected_samples, 0);
    open.store(true, Ordering::SeqCst);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    let seen = monitor.snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (50 + 40 * 4, 40), "each loses its one series");
}

#[tokio::test]
async fn a_refused_tenant_is_asked_one_request_at_a_time() {
    let receiver = Receiver::start(always(Answer::status(429))).await;
    let mut remote = with_tenants(&receiver.url());
    remote.queue.max_samples_per_send = 5;
    remote.queue.min_backoff = Duration::from_millis(20);
    let pipe = Pipe::to(vec![remote]);
    for target in 0..8 {
        pipe.push(Block { tenant: tenant("shop"), ..block_of(target, 1, 5) }).await;
    }
    let recorded = receiver.requests(12).await;
    for pair in recorded[4..].windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(20), "a pause between any two");
    }
    let tried: BTreeSet<_> = recorded.iter().flat_map(|one| whose(one).1).collect();
    assert!(tried.len() <= 4, "nothing more is taken out for him: {tried:?}");
    pipe.give_up.cancel();
    pipe.end().await;
}

#[tokio::test]
async fn what_one_tenant_sends_badly_costs_no_other() {
    // Mimir answers 400 to one whose series are too many.
    let receiver = Receiver::start(Box::new(|request| match request.header(HEADER) {
        Some("bad") => Answer::status(400).saying("too many series"),
        _ if request.samples.iter().any(|(labels, _)| labels.value("n") == "1") => Answer::status(400),
        _ => Answer::ok(),
    }))
    .await;
    let pipe = Pipe::to(vec![with_tenants(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    for target in 0..4 {
        pipe.push(Block { tenant: tenant("bad"), ..block_of(target, 1, 4) }).await;
    }
    until(&monitor, |seen| seen.rejected_samples == 16).await;
    pipe.push(Block { tenant: tenant("good"), ..block_of(9, 1, 4) }).await;
    // That all of the other's is rejected says nothing of this one: his one bad series is looked for.
    until(&monitor, |seen| seen.delivered_samples == 3 && seen.rejected_samples == 17).await;
    pipe.end().await;
}

#[tokio::test]
async fn what_is_nobodys_is_sent_to_nobody() {
    let receiver = Receiver::start(script([])).await;
    let other = Receiver::start(script([])).await;
    let pipe = Pipe::to(vec![with_tenants(&receiver.url()), remote("plain", &other.url())]);
    pipe.push(block_of(1, 1, 3)).await;
    pipe.push(Block { receiver: 1, tenant: tenant("shop"), ..block_of(1, 1, 3) }).await;
    for monitor in pipe.monitors.clone() {
        let seen = until(&monitor, |seen| seen.rejected_samples == 3).await;
        assert_eq!(seen.delivered_samples, 0);
    }
    pipe.end().await;
    assert!(receiver.recorded().is_empty() && other.recorded().is_empty());
}

#[tokio::test]
async fn what_families_are_is_told_to_no_tenant() {
    let receiver = Receiver::start(script([])).await;
    let plain = Receiver::start(script([])).await;
    let interval = MetadataConfig { send_interval: Duration::from_millis(1), ..MetadataConfig::default() };
    let with = RemoteWrite { metadata: interval, ..with_tenants(&receiver.url()) };
    let without = RemoteWrite { metadata: interval, ..remote("plain", &plain.url()) };
    let pipe = Pipe::to(vec![with, without]);
    // Those who are told have been told several times by then.
    plain.requests(5).await;
    assert!(receiver.recorded().is_empty());
    pipe.end().await;
}

#[tokio::test]
async fn the_counts_of_metrics_do_not_grow_with_tenants() {
    let receiver = Receiver::start(script([])).await;
    let pipe = Pipe::to(vec![with_tenants(&receiver.url())]);
    let monitor = pipe.monitors[0].clone();
    let lines = |text: &str| text.lines().filter(|line| !line.contains("_bucket")).count();
    let before = lines(&pipe.metrics());
    for number in 0..50 {
        pipe.push(Block { tenant: tenant(&format!("t{number}")), ..block_of(number, 1, 1) }).await;
    }
    until(&monitor, |seen| seen.delivered_samples == 50).await;
    let mut each = BTreeMap::new();
    receiver.recorded().iter().for_each(|one| *each.entry(whose(one).0).or_insert(0) += one.samples.len());
    assert!(each.len() == 50 && each.values().all(|samples| *samples == 1), "{each:?}");
    assert_eq!(lines(&pipe.metrics()), before);
    pipe.end().await;
}
