//! What a receiver has already comes again after a kill, together with what is new; and it refuses what is older than what it
//! has, as Prometheus does.

use std::collections::HashMap;

use meshscrape::spool::{DiskLimits, Home};

use super::*;
use crate::support::receiver::Rule;

/// How many scrapes of each target there are.
const SCRAPES: u32 = 10;

/// The target whose series 7 no receiver wants, if there is one.
type Poisoned = Option<u64>;

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
        let is_bad = |(labels, _): &(Labels, Sample)| Some(target(labels)) == poisoned && labels.value("n") == "7";
        if request.samples.iter().any(|one| is_old(one) || is_bad(one)) {
            return Answer::status(400).saying("out of order sample");
        }
        newest.extend(request.samples.iter().map(|(labels, sample)| (labels.clone(), sample.value)));
        Answer::ok()
    })
}

async fn comes_again(targets: u64, series: u32, has: u32, poisoned: Poisoned) {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = |registry: &mut Registry| {
        let home = Home::take(dir.path()).expect("nobody has it");
        Spool::at(home, Clock::system(), spool::Metrics::new(registry))
    };
    let limits = DiskLimits { max_bytes: 1 << 30, max_age: Duration::from_secs(3600) };
    let disk = DiskSettings { directory: "one".to_owned(), limits };
    let queue =
        QueueSettings { name: "one".to_owned(), labels: Vec::new(), capacity_bytes: 1 << 20, disk: Some(disk.clone()) };
    let earlier = spool(&mut Registry::default());
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

    let receiver = Receiver::start(strict(has, poisoned)).await;
    let mut remote = remote("main", &receiver.url());
    remote.queue.batch_send_deadline = Duration::from_secs(3600);
    let mut registry = Registry::default();
    let spool = spool(&mut registry);
    let nobody = |_: &SpiffeReceiver| unreachable!("no receiver here is verified by SPIFFE ID");
    let pipe = Pipe::over(spool.clone(), Some(disk), registry, vec![remote], Clock::system(), nobody);
    assert_eq!(pipe.end().await, [Undelivered::default()]);
    spool.finish().await;

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
            if poisoned == Some(target) && n == 7 {
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
        comes_again(1, 200, has, None).await;
        comes_again(3, 20, has.min(7), None).await;
        comes_again(1, 20, has, Some(0)).await;
        comes_again(3, 20, has.min(7), Some(1)).await;
    }
}

/// As after an outage under which somebody set the clock: what came first is refused, what came later is not.
#[tokio::test]
async fn what_has_right_timestamps_is_not_lost_with_what_has_not() {
    for (targets, series) in [(1, 200), (3, 20)] {
        for (has, together) in [(5, SCRAPES), (7, 3)] {
            let receiver = Receiver::start(strict(has, None)).await;
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
