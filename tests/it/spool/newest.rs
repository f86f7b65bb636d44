//! A receiver that takes samples in any order, and is to get the newest first after an outage.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::support::prometheus::Prometheus;
use crate::support::stored::Stored;
use crate::support::victoria::Victoria;

/// A busy machine takes longer than the 300 ms over each request.
const LONG: Duration = Duration::from_secs(120);

/// How many answers may have been given behind one that comes at once.
const AT_ONCE: usize = 8;

/// A receiver that is down, or takes one request of a target in so long that little more goes out than comes in, and yet not
/// longer, on a busy machine, than until the next answer.
fn slow(up: &Arc<AtomicBool>) -> Rule {
    let up = Arc::clone(up);
    let taken = || Answer::ok().after(Duration::from_millis(300));
    Box::new(move |_| if up.load(Ordering::SeqCst) { taken() } else { Answer::status(503) })
}

/// With so little memory that a backlog is on disk before long, and one scrape in each request.
fn config(target: &Numbered, receiver: &Receiver) -> String {
    let interval = Duration::from_millis(500);
    format!(
        "scrape_configs:
{}remote_write:
- url: {}
  queue_config:
    {{catch_up: newest_first, max_memory: 1MiB, max_samples_per_send: 210,
      batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}
",
        target.job("plain", interval),
        receiver.url(),
    )
}

/// What of this is up to the number `last`, in its order.
fn up_to(came: &[u64], last: u64) -> Vec<u64> {
    came.iter().copied().filter(|number| *number <= last).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_outage_what_comes_in_goes_at_once_and_the_backlog_beside_it_also_after_a_kill() {
    let target = Numbered::bulky(200, 200);
    let up = Arc::new(AtomicBool::new(false));
    let receiver = Receiver::start(slow(&up)).await;
    let (dir, config) = (TempDir::new().expect("a directory"), config(&target, &receiver));
    let program = start(dir.path(), &config);
    target.scrapes(26).await;
    let outage = target.answers() as u64;
    up.store(true, Ordering::SeqCst);
    // A quarter of a MiB is fresh, which is about five answers; the others wait, of which half is sent.
    let backlog = outage - 8;
    let half = move |recorded: &[Recorded]| up_to(&first_times(&taken(recorded)), backlog).len() as u64 > backlog / 2;
    receiver.until_within(LONG, "half of the backlog", half).await;
    program.signal("KILL");
    let killed = Instant::now();
    program.end().await;
    let (until_kill, finished) = (receiver.recorded().len(), target.finished(0, killed));

    let second = start(dir.path(), &config);
    let all = |recorded: &[Recorded]| lost(&finished, recorded).is_empty();
    let recorded = receiver.until_within(LONG, "everything that was finished", all).await;
    drop(second);

    let came = first_times(&taken(&recorded));
    assert_ne!(up_to(&came, backlog), came, "nothing but the backlog came: {came:?}");
    assert!(up_to(&came, backlog).is_sorted(), "the backlog is out of order: {came:?}");
    // What was scraped since the receiver is back, once what was fresh before has gone.
    let (mut at_once, mut worst, mut beside) = (0, 0, 0);
    let last_of_backlog = came.iter().rposition(|number| *number <= backlog).expect("it came");
    let arrived: BTreeMap<u64, Instant> = recorded.iter().rev().flat_map(numbers_at).collect();
    let lives = |number: u64| number > outage + 8 && arrived[&number] < killed || number > finished.len() as u64 + 10;
    for number in came[..last_of_backlog].iter().copied() {
        if lives(number) {
            let answers = target.finished_before(arrived[&number]);
            worst = worst.max(answers - number as usize);
            at_once += 1;
        } else if number <= backlog && at_once > 0 {
            beside += 1;
        }
    }
    println!(
        "{at_once} came before the end of the backlog, at most {worst} answers late; {beside} of the backlog beside them"
    );
    assert!(at_once > 3 && beside > 3, "this was no test: {came:?}");
    assert!(worst < AT_ONCE, "one came when {worst} more were answered: {came:?}");

    // What comes twice was under way, or acknowledged so shortly before that nobody had written that down.
    let unwritten = finished_after() + Duration::from_millis(100);
    let before: BTreeMap<u64, Instant> = recorded[..until_kill].iter().rev().flat_map(numbers_at).collect();
    let again = recorded[until_kill..].iter().flat_map(numbers_at).filter_map(|(number, _)| before.get(&number));
    let unexplained: Vec<_> = again.filter(|at| **at + unwritten < killed).collect();
    assert!(unexplained.is_empty(), "{unexplained:?} come again after {killed:?}: {came:?}");
}

/// What a request brought, if it was taken, and when it came.
fn numbers_at(request: &Recorded) -> Vec<(u64, Instant)> {
    taken(std::slice::from_ref(request)).into_iter().map(|number| (number, request.at)).collect()
}

/// How many targets: their samples share requests.
const TARGETS: usize = 3;

/// And so many series each, beside those that every target has.
const FILLERS: usize = 20;

/// The numbers of each series that must have them.
fn numbers(stored: &[Stored]) -> Vec<BTreeSet<u64>> {
    let of_an_answer = stored.iter().filter(|one| matches!(&*one.labels["__name__"], "answer_number" | "filler"));
    let numbers = |one: &Stored| {
        let values = one.samples.iter().map(|point| point.value).filter(|value| !value.is_nan());
        values.map(|value| value as u64).collect()
    };
    of_an_answer.map(numbers).collect()
}

/// Each of these receivers is sent twice as many samples a second as are scraped, the newest first.
fn config_of_all(targets: &[Numbered], receivers: &[(String, &str)]) -> String {
    let jobs = targets.iter().enumerate().map(|(at, target)| target.job(&format!("target-{at}"), interval()));
    let receivers = receivers.iter().map(|(url, message)| {
        format!(
            "- url: {url}
  protobuf_message: {message}
  remote_timeout: 2s
  queue_config:
    {{catch_up: newest_first, max_samples_per_second: 600, max_samples_per_send: 60,
      batch_send_deadline: 50ms, min_backoff: 20ms, max_backoff: 100ms}}
"
        )
    });
    format!("scrape_configs:\n{}remote_write:\n{}", jobs.collect::<String>(), receivers.collect::<String>())
}

#[tokio::test(flavor = "multi_thread")]
async fn real_receivers_that_take_any_order_have_everything_in_the_end() {
    let any_order = "storage: {tsdb: {out_of_order_time_window: 10m}}\n";
    let (mut of_1, mut of_2, mut victoria) =
        tokio::join!(Prometheus::with_config(any_order), Prometheus::with_config(any_order), Victoria::start());
    let targets: Vec<_> = (0..TARGETS).map(|_| Numbered::start(FILLERS)).collect();
    let config = config_of_all(
        &targets,
        &[
            (of_1.write_url(), "prometheus.WriteRequest"),
            (of_2.write_url(), "io.prometheus.write.v2.Request"),
            (victoria.write_url(), "prometheus.WriteRequest"),
        ],
    );
    let dir = TempDir::new().expect("a directory");
    let mut finished = vec![BTreeSet::new(); TARGETS];
    // The second time while the backlog of the first is sent.
    for stopped in [Duration::from_secs(5), Duration::from_secs(1)] {
        let before: Vec<_> = targets.iter().map(Numbered::answers).collect();
        let program = start(dir.path(), &config);
        futures_util::future::join_all(targets.iter().map(|target| target.scrapes(5))).await;
        tokio::join!(of_1.signal("STOP"), of_2.signal("STOP"), victoria.signal("STOP"));
        tokio::time::sleep(stopped).await;
        program.signal("KILL");
        let killed = Instant::now();
        program.end().await;
        for ((target, finished), before) in targets.iter().zip(&mut finished).zip(before) {
            finished.extend(target.finished(before, killed));
        }
        tokio::join!(of_1.signal("CONT"), of_2.signal("CONT"), victoria.signal("CONT"));
    }
    let _last = start(dir.path(), &config);

    let clock = meshscrape::clock::Clock::system();
    for name in ["Prometheus, 1.0", "Prometheus, 2.0", "VictoriaMetrics"] {
        for (at, finished) in finished.iter().enumerate() {
            assert!(finished.len() > 10, "{finished:?}: this was no test");
            let job = format!("target-{at}");
            eventually(&format!("{name} has all of {job}"), async || {
                let stored = match name {
                    "Prometheus, 1.0" => of_1.raw(&[("job", &job)], 0, clock.now_ms() + 60_000).await,
                    "Prometheus, 2.0" => of_2.raw(&[("job", &job)], 0, clock.now_ms() + 60_000).await,
                    _ => victoria.raw(&format!("{{job=\"{job}\"}}")).await,
                };
                let stored = numbers(&stored);
                let all = stored.len() == 1 + FILLERS && stored.iter().all(|numbers| numbers.is_superset(finished));
                all.then_some(())
            })
            .await;
        }
    }
    for (name, prometheus) in [("1.0", &of_1), ("2.0", &of_2)] {
        let late = prometheus.metric("prometheus_tsdb_head_out_of_order_samples_appended_total").await;
        println!("{name}: {late} samples were older than the newest of their series");
        assert!(late > 100.0, "{name}: {late} came late: this was no test");
    }
}

/// As Prometheus is unless it is told otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_takes_nothing_older_refuses_the_backlog_which_is_counted_and_said() {
    let mut prometheus = Prometheus::start().await;
    let targets: Vec<_> = (0..TARGETS).map(|_| Numbered::start(FILLERS)).collect();
    let config = config_of_all(&targets, &[(prometheus.write_url(), "prometheus.WriteRequest")]);
    let dir = TempDir::new().expect("a directory");
    let first = start(dir.path(), &config);
    targets[0].scrapes(5).await;
    prometheus.signal("STOP").await;
    targets[0].scrapes(12).await;
    first.signal("KILL");
    first.end().await;

    let (before, second) = (targets[0].answers() as u64, start(dir.path(), &config));
    // Else all of the backlog may have been taken before anything newer was there.
    targets[0].scrapes(3).await;
    prometheus.signal("CONT").await;
    let clock = meshscrape::clock::Clock::system();
    let stored = eventually("what comes in is stored", async || {
        let stored = numbers(&prometheus.raw(&[("job", "target-0")], 0, clock.now_ms() + 60_000).await);
        let all = stored.len() == 1 + FILLERS && stored.iter().all(|one| one.last().is_some_and(|n| *n > before + 8));
        all.then_some(stored)
    })
    .await;
    let refused = (1..before).filter(|number| stored.iter().any(|one| !one.contains(number))).count();
    assert!(refused > 5, "this was no test: {stored:?}");
    assert!(second.metric("prometheus_remote_storage_samples_failed_total").await > 0.0);
    let said = second.said();
    assert!(said.contains("out of order sample"), "{said}");
}
