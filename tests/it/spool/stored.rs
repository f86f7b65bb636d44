//! Real receivers that are stopped for a while, and an agent that is killed before, under and after that: what they have
//! stored in the end.

use std::collections::BTreeSet;

use super::*;
use crate::support::prometheus::Prometheus;
use crate::support::stored::Stored;
use crate::support::victoria::Victoria;

/// How many targets: their samples share requests.
const TARGETS: usize = 3;

/// And so many series each, beside those that every target has.
const FILLERS: usize = 20;

/// The numbers of each series that must have them.
fn numbers(stored: &[Stored]) -> Vec<(String, BTreeSet<u64>)> {
    let of_an_answer = stored.iter().filter(|one| matches!(&*one.labels["__name__"], "answer_number" | "filler"));
    let numbers = |one: &Stored| {
        let values = one.samples.iter().map(|point| point.value).filter(|value| !value.is_nan());
        (format!("{:?}", one.labels), values.map(|value| value as u64).collect())
    };
    of_an_answer.map(numbers).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn real_receivers_have_every_finished_scrape_after_kills_and_silence() {
    let (mut of_1, mut of_2, mut victoria) = tokio::join!(Prometheus::start(), Prometheus::start(), Victoria::start());
    let targets: Vec<_> = (0..TARGETS).map(|_| Numbered::start(FILLERS)).collect();
    let mut config = "scrape_configs:\n".to_owned();
    for (at, target) in targets.iter().enumerate() {
        config.push_str(&target.job(&format!("target-{at}"), interval()));
    }
    config.push_str("remote_write:\n");
    for (url, message) in [
        (of_1.write_url(), "prometheus.WriteRequest"),
        (of_2.write_url(), "io.prometheus.write.v2.Request"),
        (victoria.write_url(), "prometheus.WriteRequest"),
    ] {
        config.push_str(&format!(
            "- url: {url}
  protobuf_message: {message}
  remote_timeout: 2s
  queue_config: {{batch_send_deadline: 50ms, min_backoff: 20ms, max_backoff: 100ms}}
"
        ));
    }
    let dir = TempDir::new().expect("a directory");
    let (kills, outage) = (scale(6, 100), scale(Duration::from_secs(1), Duration::from_secs(5)));
    let mut finished = vec![Vec::new(); TARGETS];
    for kill in 0..kills {
        let before: Vec<_> = targets.iter().map(Numbered::answers).collect();
        let program = start(dir.path(), &config);
        futures_util::future::join_all(targets.iter().map(|target| target.scrapes(scale(8, 5)))).await;
        // While they take what comes; while nothing comes from them; while they get what has waited.
        let stop = async |signal: &str, of_1: &mut Prometheus, of_2: &mut Prometheus, victoria: &mut Victoria| {
            tokio::join!(of_1.signal(signal), of_2.signal(signal), victoria.signal(signal));
        };
        if kill % 3 != 0 {
            stop("STOP", &mut of_1, &mut of_2, &mut victoria).await;
            tokio::time::sleep(outage).await;
        }
        if kill % 3 == 2 {
            stop("CONT", &mut of_1, &mut of_2, &mut victoria).await;
        }
        tokio::time::sleep(Duration::from_millis(37 * kill as u64 % 150)).await;
        program.signal("KILL");
        let killed = Instant::now();
        program.end().await;
        for ((target, finished), before) in targets.iter().zip(&mut finished).zip(before) {
            finished.extend(target.finished(before, killed));
        }
        stop("CONT", &mut of_1, &mut of_2, &mut victoria).await;
    }
    let _last = start(dir.path(), &config);
    futures_util::future::join_all(targets.iter().map(|target| target.scrapes(5))).await;
    let last: Vec<_> = targets.iter().map(|target| target.answers() as u64 - 1).collect();

    let (clock, mut any_lost) = (meshscrape::clock::Clock::system(), false);
    for name in ["Prometheus, 1.0", "Prometheus, 2.0", "VictoriaMetrics"] {
        for (at, finished) in finished.iter().enumerate() {
            let job = format!("target-{at}");
            let stored = async || match name {
                "Prometheus, 1.0" => of_1.raw(&[("job", &job)], 0, clock.now_ms() + 60_000).await,
                "Prometheus, 2.0" => of_2.raw(&[("job", &job)], 0, clock.now_ms() + 60_000).await,
                _ => victoria.raw(&format!("{{job=\"{job}\"}}")).await,
            };
            let stored = eventually("what is scraped now is stored", async || {
                let stored = numbers(&stored().await);
                let all = stored.len() == 1 + FILLERS;
                (all && stored.iter().all(|(_, numbers)| numbers.contains(&last[at]))).then_some(stored)
            })
            .await;
            assert!(finished.len() > 2 * kills, "{finished:?}: this was no test");
            let is_lost = |number: &&u64| stored.iter().any(|(_, numbers)| !numbers.contains(number));
            let lost: Vec<_> = finished.iter().filter(is_lost).collect();
            println!(
                "{kills} kills, {name}, {job}: {} of {} finished answers lost: {lost:?}",
                lost.len(),
                finished.len()
            );
            any_lost |= !lost.is_empty();
        }
    }
    assert!(!any_lost, "some were lost, as is told above");
}
