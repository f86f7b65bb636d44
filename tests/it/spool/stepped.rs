//! Somebody sets the clock: an hour forward, an hour back, under way and while the program is not there.
//!
//! What is scraped while the clock is wrong has wrong timestamps, and nobody can know better: a receiver that wants neither the
//! future nor the past refuses it, which is counted. Nothing else is lost by it, and nothing of that in the queue.

use std::process::Command;

use super::*;
use crate::support::process::find;
use crate::support::prometheus::Prometheus;
use crate::support::stored::Stored;

const HOUR_MS: i64 = 3_600_000;

/// A clock that only one program has.
struct Watch(PathBuf);

impl Watch {
    fn at(dir: &Path) -> Self {
        let watch = Self(dir.join("offset"));
        watch.set("+0");
        watch
    }

    /// That many seconds beside the right time, from now on.
    fn set(&self, offset: &str) {
        let new = self.0.with_extension("new");
        std::fs::write(&new, offset).expect("written");
        std::fs::rename(new, &self.0).expect("renamed");
    }

    /// The program with this clock.
    fn start(&self, dir: &Path, config: &str) -> Program {
        let mut command = Command::new(env!("CARGO_BIN_EXE_meshscrape"));
        command.args(arguments(dir, &dir.join("data"), config));
        // Only what tells the time of day, and what it tells now.
        command.env("LD_PRELOAD", find("libfaketime")).env("FAKETIME_TIMESTAMP_FILE", &self.0);
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("NO_FAKE_STAT", "1");
        Program::spawn(command)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_forward_and_back_costs_the_queue_nothing() {
    let stage = Stage::with(Numbered::start(5)).await;
    let watch = Watch::at(stage.dir.path());
    let length = scale(Duration::from_millis(800), Duration::from_secs(50));
    let mut finished = Vec::new();
    let (mut set_to, mut steps) = ("+0", 0);
    // What the clock says when the program starts, and then.
    for offsets in
        [["+0", "+3600", "+0", "-3600"], ["+3600", "+0", "-3600", "+3600"], ["-3600", "+3600", "-3600", "+0"]]
    {
        steps += usize::from(std::mem::replace(&mut set_to, offsets[0]) != offsets[0]);
        watch.set(offsets[0]);
        let before = stage.answers();
        let program = watch.start(stage.dir.path(), &stage.config());
        for offset in offsets {
            steps += usize::from(std::mem::replace(&mut set_to, offset) != offset);
            watch.set(offset);
            stage.scrapes(2).await;
            tokio::time::sleep(length).await;
        }
        program.signal("KILL");
        finished.extend(stage.finished(before, Instant::now()));
        program.end().await;
    }
    let _last = watch.start(stage.dir.path(), &stage.config());
    stage.receiver_is(true);
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    let recorded = stage.receiver.recorded();
    let losses = Losses::of(&finished, &recorded);
    println!("{steps} steps of the clock by an hour or two, with kill -9 between them: {losses}");
    losses.assert_none("steps of the clock");
    assert_eq!(losses.twice, 0);
    let now = meshscrape::clock::Clock::system().now_ms();
    let at = |offset: i64| {
        let around = now + offset - HOUR_MS / 2..now + offset + HOUR_MS / 2;
        recorded.iter().flat_map(|one| &one.samples).any(|(_, sample)| around.contains(&sample.timestamp_ms))
    };
    assert!(at(-HOUR_MS) && at(0) && at(HOUR_MS), "its clock did not follow: this was no test");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_loses_what_has_wrong_timestamps_and_nothing_else() {
    let dir = TempDir::new().expect("a directory");
    let (of_1, of_2) = tokio::join!(Prometheus::start(), Prometheus::start());
    let target = Numbered::start(5);
    let config = format!(
        "scrape_configs:
{}remote_write:
- {{url: {}, queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}}}
- url: {}
  protobuf_message: io.prometheus.write.v2.Request
  queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}
",
        target.job("plain", interval()),
        of_1.write_url(),
        of_2.write_url(),
    );
    let watch = Watch::at(dir.path());
    let program = watch.start(dir.path(), &config);
    let length = scale(Duration::from_millis(800), Duration::from_secs(120));
    let mut right = Vec::new();
    for offset in ["+0", "+3600", "+0", "-3600", "+0"] {
        watch.set(offset);
        target.scrapes(1).await;
        let from = target.answers() as u64 + 1;
        target.scrapes(2).await;
        tokio::time::sleep(length).await;
        if offset == "+0" {
            // Its last one may have begun too late for it.
            right.extend(from..target.answers() as u64);
        }
    }
    let last = *right.last().expect("some");
    let clock = meshscrape::clock::Clock::system();
    for (name, prometheus) in [("1.0", &of_1), ("2.0", &of_2)] {
        let stored: Vec<Stored> = eventually("what is scraped now is stored", async || {
            let stored = prometheus.raw(&[("job", "plain")], 0, clock.now_ms() + 2 * HOUR_MS).await;
            let is_there = |one: &Stored| one.samples.iter().any(|point| point.value == last as f64);
            let mut fillers = stored.iter().filter(|one| one.labels["__name__"] == "filler");
            (fillers.clone().count() == 5 && fillers.all(is_there)).then_some(stored)
        })
        .await;
        let mut wrong = 0;
        for one in stored.iter().filter(|one| matches!(&*one.labels["__name__"], "answer_number" | "filler")) {
            let lost: Vec<_> =
                right.iter().filter(|number| !one.samples.iter().any(|point| point.value == **number as f64)).collect();
            assert!(lost.is_empty(), "{name}, {:?}: {lost:?} of {right:?} are lost", one.labels);
            wrong += one.samples.iter().filter(|point| !right.contains(&(point.value as u64))).count();
        }
        println!(
            "remote write {name}: 0 of {} answers with right timestamps lost; {wrong} samples of others stored",
            right.len()
        );
    }
    let refused = program.metric("prometheus_remote_storage_samples_failed_total").await;
    let answers = target.answers();
    println!(
        "of {answers} answers {} had right timestamps; {refused} samples were refused, and said to be",
        right.len()
    );
    let newest = program.metric("prometheus_remote_storage_queue_highest_timestamp_seconds").await / 2.0;
    let fast = (clock.now_ms() + HOUR_MS / 2) as f64 / 1000.0;
    assert!(newest > fast, "its clock did not follow: this was no test");
    assert!(refused > 0.0, "nothing was refused: this was no test");
}
