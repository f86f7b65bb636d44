//! What a receiver has already comes again after a kill, together with what is new; and it refuses what is older than what it
//! has, as Prometheus does.

use std::collections::HashMap;

use meshscrape::spool::{DiskLimits, Home};

use super::*;
use crate::support::receiver::Rule;

/// How many scrapes of each target there are.
const SCRAPES: u32 = 10;

/// The targets of which no receiver wants some series, and which these are.
type Poisoned = (&'static [u64], &'static [u32]);

const NOTHING: Poisoned = (&[], &[]);
const ALL: &[u64] = &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

/// With remote write 1.0, Prometheus refuses a request as a whole if any sample is older than the newest of its series. Of
/// the first target it has the scrapes up to `has`, of each further one some more.
fn strict(has: u32, poisoned: Poisoned) -> Rule {
    let mut newest: HashMap<Labels, f64> = HashMap::new();
    Box::new(move |request| {
        let target = |labels: &Labels| labels.value("target").parse::<u64>().expect("a number");
        let is_old = |(labels, sample): &(Labels, Sample)| {
            let first = f64::from(has) + target(labels) as f64;
            sample.value < newest.get(labels).copied().unwrap_or(first)
        };
        let n = |labels: &Labels| labels.value("n").parse::<u32>().expect("a number");
        let is_bad =
            |(labels, _): &(Labels, Sample)| poisoned.0.contains(&target(labels)) && poisoned.1.contains(&n(labels));
        if request.samples.iter().any(|one| is_old(one) || is_bad(one)) {
            return Answer::status(400).saying("out of order sample");
        }
        newest.extend(request.samples.iter().map(|(labels, sample)| (labels.clone(), sample.value)));
        Answer::ok()
    })
}

/// What is sent to a receiver with this rule by a process that finds it all on disk.
async fn sent_again(targets: u64, series: u32, rule: Rule) -> Receiver {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = async |registry: &mut Registry| {
        // Another test may just start a program, which has what is open here for a moment.
        let home = eventually("nobody has it", async || Home::take(dir.path()).ok()).await;
        Spool::at(home, Clock::system(), spool::Metrics::new(registry))
    };
    let limits = DiskLimits { max_bytes: 1 << 30, max_age: Duration::from_secs(3600) };
    let disk = DiskSettings { directory: "one".to_owned(), limits, newest_first: false };
    let queue =
        QueueSettings { name: "one".to_owned(), labels: Vec::new(), capacity_bytes: 1 << 20, disk: Some(disk.clone()) };
    let earlier = spool(&mut Registry::default()).await;
    let outlet = earlier.open(0, queue);
    for scrape in 1..=SCRAPES {
        for target in 0..targets {
            earlier.push(block_of(target, scrape, series));
        }
    }
    earlier.close(0);
    drop(outlet);
    earlier.finish().await;
    drop(earlier);

    let receiver = Receiver::start(rule).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    let mut registry = Registry::default();
    let spool = spool(&mut registry).await;
    let nobody = |_: &SpiffeReceiver| unreachable!("no receiver here is verified by SPIFFE ID");
    let pipe = Pipe::over(spool.clone(), Some(disk), registry, vec![remote], Clock::system(), nobody);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    spool.finish().await;
    receiver
}

async fn comes_again(targets: u64, series: u32, has: u32, poisoned: Poisoned) {
    let receiver = sent_again(targets, series, strict(has, poisoned)).await;
    let mut came: HashMap<Labels, Vec<f64>> = HashMap::new();
    for one in receiver.recorded().into_iter().filter(|one| one.was_taken()) {
        for (labels, sample) in one.samples {
            came.entry(labels).or_default().push(sample.value);
        }
    }
    let case = format!("{targets} targets of {series} series, {has} scrapes were there, {poisoned:?} is poisoned");
    for target in 0..targets {
        let had = has + target as u32;
        let new: Vec<_> = (had + 1..=SCRAPES).map(f64::from).collect();
        for n in 0..series {
            let labels = [("__name__", "probe"), ("target", &target.to_string()), ("n", &n.to_string())];
            let values = came.get(&labels.into_iter().collect()).map(Vec::as_slice).unwrap_or_default();
            if poisoned.0.contains(&target) && poisoned.1.contains(&n) {
                assert_eq!(values, [0.0; 0], "{case}");
            } else {
                // The newest of what is there may be sent again.
                let values = values.strip_prefix(&[f64::from(had)]).unwrap_or(values);
                assert_eq!(values, new, "{case}: {labels:?}");
            }
        }
    }
    println!("{case}: {} requests", receiver.recorded().len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_not_lost_with_what_the_receiver_has_already() {
    for has in [0, 2, 5, 8] {
        comes_again(1, 200, has, NOTHING).await;
        comes_again(3, 20, has.min(7), NOTHING).await;
        comes_again(1, 20, has, (&[0], &[7])).await;
        comes_again(3, 20, has.min(7), (&[1], &[7])).await;
        // One in each half.
        comes_again(1, 20, has, (&[0], &[7, 13])).await;
        comes_again(3, 20, has.min(7), (&[1], &[2, 18])).await;
    }
}

/// As when a label that all targets carry is too long.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_new_is_not_lost_where_each_of_many_targets_has_bad_series() {
    for has in [0, 2] {
        comes_again(12, 20, has, (ALL, &[7])).await;
        // One in each quarter.
        comes_again(12, 20, has, (ALL, &[2, 7, 12, 17])).await;
    }
}

/// It has all of the first scrapes of many targets, and one of these has a series that it does not want.
#[tokio::test(flavor = "multi_thread")]
async fn many_targets_of_which_a_receiver_has_something_cost_no_other_sample() {
    let mut newest: HashMap<Labels, f64> = HashMap::new();
    let rule: Rule = Box::new(move |request| {
        let is_old = |(labels, one): &(Labels, Sample)| one.value < newest.get(labels).copied().unwrap_or(3.0);
        let is_bad = |(labels, _): &(Labels, Sample)| labels.value("target") == "0" && labels.value("n") == "7";
        if request.samples.iter().any(|one| is_old(one) || is_bad(one)) {
            return Answer::status(400).saying("out of order sample");
        }
        newest.extend(request.samples.iter().map(|(labels, sample)| (labels.clone(), sample.value)));
        Answer::ok()
    });
    let receiver = sent_again(30, 20, rule).await;
    let requests = receiver.recorded();
    let taken = requests.iter().filter(|one| one.was_taken()).flat_map(|one| &one.samples);
    let mut came: HashMap<Labels, Vec<f64>> = HashMap::new();
    taken.for_each(|(labels, sample)| came.entry(labels.clone()).or_default().push(sample.value));
    assert_eq!(came.len(), 30 * 20 - 1);
    let new = Vec::from_iter((3..=SCRAPES).map(f64::from));
    assert!(came.values().all(|values| *values == new), "{came:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_rejects_everything_is_not_asked_for_each_series() {
    let rule: Rule = Box::new(|_| Answer::status(400).saying("no"));
    let requests = sent_again(12, 20, rule).await.recorded().len();
    // Each scrape alone, then three of its series, and each round together.
    assert!((480..=500).contains(&requests), "{requests} requests");
}

/// What is equal to the newest that it has a receiver takes again, as Prometheus does. Of the first scrape that is so of some
/// series only: of the others it has more.
#[tokio::test]
async fn what_is_taken_again_is_no_reason_to_ask_for_all_that_is_not() {
    let mut newest: HashMap<Labels, f64> = HashMap::new();
    let rule: Rule = Box::new(move |request| {
        let is_old = |(labels, one): &(Labels, Sample)| {
            let n = labels.value("n").parse::<u32>().expect("a number");
            one.value < newest.get(labels).copied().unwrap_or(if n < 20 { 1.0 } else { 2.0 })
        };
        if request.samples.iter().any(is_old) {
            return Answer::status(400).saying("out of order sample");
        }
        newest.extend(request.samples.iter().map(|(labels, sample)| (labels.clone(), sample.value)));
        Answer::ok()
    });
    let (log, _guard) = super::secrecy::capture();
    let receiver = sent_again(1, 200, rule).await;
    let requests = receiver.recorded();
    let mut came: HashMap<Labels, Vec<f64>> = HashMap::new();
    for (labels, sample) in requests.iter().filter(|one| one.was_taken()).flat_map(|one| &one.samples) {
        came.entry(labels.clone()).or_default().push(sample.value);
    }
    let new = Vec::from_iter((2..=SCRAPES).map(f64::from));
    assert_eq!(came.len(), 200);
    assert!(came.values().all(|values| values.ends_with(&new)), "{came:?}");
    assert!(came.values().any(|values| values[0] < 2.0), "nothing was taken again");
    assert!(requests.len() < 40, "{} requests", requests.len());
    assert!(!log.text().contains("does not want this series"), "{}", log.text());
}

/// A series that was at fault before is no more so than others are where the times of a scrape are wrong.
#[tokio::test]
async fn a_series_that_was_at_fault_does_not_lose_its_right_timestamps_with_wrong_ones() {
    let receiver = Receiver::start(Box::new(|request| {
        let is_bad = |(labels, sample): &(Labels, Sample)| match sample.value {
            1.0 => labels.value("n") == "3",
            value => value <= 3.0,
        };
        if request.samples.iter().any(is_bad) { Answer::status(400) } else { Answer::ok() }
    }))
    .await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_millis(500);
    let pipe = Pipe::to(vec![remote]);
    pipe.push(block_of(1, 1, 20)).await;
    until(&pipe.monitors[0], |seen| seen.delivered_samples + seen.rejected_samples == 20).await;
    for scrape in 2..=5 {
        pipe.push(block_of(1, scrape, 20)).await;
    }
    until(&pipe.monitors[0], |seen| seen.delivered_samples + seen.rejected_samples == 100).await;
    let seen = pipe.monitors[0].snapshot();
    assert_eq!((seen.delivered_samples, seen.rejected_samples), (19 + 2 * 20, 1 + 2 * 20));
    pipe.end().await;
}

/// As after an outage under which somebody set the clock: what came first is refused, what came later is not.
#[tokio::test]
async fn what_has_right_timestamps_is_not_lost_with_what_has_not() {
    for (targets, series) in [(1, 200), (3, 20)] {
        for (has, together) in [(5, SCRAPES), (7, 3)] {
            let receiver = Receiver::start(strict(has, NOTHING)).await;
            let mut remote = remote("main", &receiver.url());
            remote.queue.batch_send_deadline = Duration::from_secs(3600);
            remote.queue.max_requests_in_flight = 1;
            remote.queue.max_samples_per_send = targets as usize * series as usize * together as usize;
            let pipe = Pipe::to(vec![remote]);
            for scrape in 1..=SCRAPES {
                for target in 0..targets {
                    pipe.push(block_of(target, scrape, series)).await;
                }
            }
            assert_eq!(pipe.end().await, [Undelivered::default()]);
            let case = format!("{targets} targets of {series} series, {together} scrapes together");
            let taken = receiver.recorded().into_iter().filter(|one| one.was_taken());
            let mut came: HashMap<Labels, Vec<f64>> = HashMap::new();
            for (labels, sample) in taken.flat_map(|one| one.samples) {
                came.entry(labels).or_default().push(sample.value);
            }
            assert_eq!(came.len() as u64, targets * u64::from(series), "{case}");
            for (labels, values) in came {
                let first = has + labels.value("target").parse::<u32>().expect("a number");
                let new: Vec<_> = (first..=SCRAPES).map(f64::from).collect();
                assert_eq!(values, new, "{case}: {labels:?}");
            }
            println!("{case}: {} requests", receiver.recorded().len());
        }
    }
}
