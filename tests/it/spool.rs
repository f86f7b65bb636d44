//! The spool on disk: what was scraped survives kills, restarts, outages and full disks, and comes in order.
//!
//! With the real program as a process of its own. The target numbers its answers, so that nobody has to guess what was
//! finished; its own record of when it answered is the truth.

mod clock;
mod damaged;
mod drained;
mod flat;
mod full;
mod judged;
mod killed;
mod matrix;
mod measured;
mod newest;
mod numbered;
mod others;
mod reloaded;
mod rotated;
mod silent;
mod stepped;
mod stored;
mod tenants;
mod unequal;
mod version2;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use meshscrape::model::is_stale;
use numbered::{Losses, Numbered, finished_after, lost, not_in};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::agent::eventually;
use crate::support::program::Program;
use crate::support::receiver::{Answer, Receiver, Recorded, Rule};
use crate::support::scale;

/// A target, a receiver and a directory.
struct Stage {
    dir: TempDir,
    target: Numbered,
    interval: Duration,
    receiver: Receiver,
    up: Arc<AtomicBool>,
}

impl Stage {
    /// With a receiver that is down.
    async fn new() -> Self {
        // Enough series to fill a small disk before long. Where everything of a long run begins at once, a scrape takes its time.
        let interval = scale(Duration::from_millis(150), interval());
        Self { interval, ..Self::with(Numbered::start(200)).await }
    }

    /// With this target.
    async fn with(target: Numbered) -> Self {
        let (up, rule) = switched();
        let receiver = Receiver::start(rule).await;
        Self { dir: TempDir::new().expect("a directory"), target, interval: interval(), receiver, up }
    }

    fn config(&self) -> String {
        format!(
            "scrape_configs:
{}remote_write:
- url: {}?token=canary
  basic_auth: {{username: somebody, password: canary}}
  queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}
",
            self.target.job("plain", self.interval),
            self.receiver.url(),
        )
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The arguments of the program.
    fn arguments(&self, data: &Path) -> Vec<String> {
        arguments(self.dir.path(), data, &self.config())
    }

    fn start(&self) -> Program {
        start(self.dir.path(), &self.config())
    }

    fn answers(&self) -> usize {
        self.target.answers()
    }

    /// Waits for so many more answers.
    async fn scrapes(&self, more: usize) {
        self.target.scrapes(more).await;
    }

    /// The numbers of answers that were finished at `moment`, of those behind `before`.
    fn finished(&self, before: usize, moment: Instant) -> Vec<u64> {
        self.target.finished(before, moment)
    }

    fn receiver_is(&self, up: bool) {
        self.up.store(up, Ordering::SeqCst);
    }

    /// The numbers that the receiver took, in the order in which it did.
    fn taken(&self) -> Vec<u64> {
        taken(&self.receiver.recorded())
    }

    /// Waits until it has taken this number or a higher one.
    async fn takes(&self, number: usize) {
        let enough = |recorded: &[Recorded]| taken(recorded).iter().any(|one| *one >= number as u64);
        let patience = scale(Duration::from_secs(30), Duration::from_secs(300));
        self.receiver.until_within(patience, "it is delivered", enough).await;
    }

    /// The files of the only log.
    fn files(&self, ending: &str) -> Vec<PathBuf> {
        let Ok(logs) = std::fs::read_dir(self.data().join("spool")) else { return Vec::new() };
        let files = logs.flat_map(|log| std::fs::read_dir(log.expect("readable").path()).expect("a directory"));
        let mut files: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
        files.retain(|file| file.extension().is_some_and(|extension| extension == ending));
        files.sort_unstable();
        files
    }
}

/// The arguments of the program, whose configuration is put into `dir`.
fn arguments(dir: &Path, data: &Path, config: &str) -> Vec<String> {
    let file = dir.join("meshscrape.yaml");
    std::fs::write(&file, config).expect("a configuration");
    let path = |path: &Path| path.to_str().expect("a path in UTF-8").to_owned();
    let mut arguments = vec!["run".to_owned(), "--config".to_owned(), path(&file)];
    arguments.extend(["--data-dir".to_owned(), path(data)]);
    let rest = ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0", "--flush-deadline", "500ms"];
    arguments.extend(rest.map(str::to_owned));
    arguments
}

/// The program with this configuration, which is put into `dir`, and its queues in `data` there.
fn start(dir: &Path, config: &str) -> Program {
    let arguments = arguments(dir, &dir.join("data"), config);
    Program::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// How often targets are scraped: not so often that a scrape runs out of time on a machine that has much else to do.
fn interval() -> Duration {
    scale(Duration::from_millis(250), Duration::from_millis(500))
}

/// For how long a receiver is in trouble.
fn trouble() -> Duration {
    scale(Duration::from_secs(10), Duration::from_secs(600))
}

/// A receiver that takes what it gets while it is up. What it refuses it forgets: ten minutes of that, copied by whoever asks
/// for what came, would stop this process, and the target with it, for longer than a scrape may take.
fn switched() -> (Arc<AtomicBool>, Rule) {
    let up = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&up);
    let answer = move || if rule.load(Ordering::SeqCst) { Answer::ok() } else { Answer::status(503).forgetting() };
    (up, Box::new(move |_| answer()))
}

fn taken(recorded: &[Recorded]) -> Vec<u64> {
    let taken = recorded.iter().filter(|one| one.status.is_some_and(|status| (200..300).contains(&status)));
    let samples = taken.flat_map(|one| &one.samples);
    let numbers =
        samples.filter(|(labels, sample)| labels.value("__name__") == "answer_number" && !is_stale(sample.value));
    numbers.map(|(_, sample)| sample.value as u64).collect()
}

/// What came, each once, where it came first: in order, if nothing else is wrong.
fn first_times(taken: &[u64]) -> Vec<u64> {
    let mut seen = std::collections::BTreeSet::new();
    taken.iter().copied().filter(|number| seen.insert(*number)).collect()
}

/// Everything of `finished` came, and what came for the first time came in order.
fn assert_all_in_order(recorded: &[Recorded], finished: &[u64]) {
    let came = first_times(&taken(recorded));
    assert!(came.is_sorted(), "out of order: {came:?}");
    let lost = lost(finished, recorded);
    assert!(lost.is_empty(), "{lost:?} of {finished:?} are lost; {came:?} came");
}

/// What came of the stage came once, in order, and without a gap.
fn assert_without_gap(stage: &Stage) {
    let (came, recorded) = (stage.taken(), stage.receiver.recorded());
    assert!(came.is_sorted_by(|one, next| one < next), "{came:?}");
    let lost = lost(&(came[0]..=came[came.len() - 1]).collect::<Vec<_>>(), &recorded);
    assert!(lost.is_empty(), "{lost:?} are lost; {came:?} came");
}

/// How much the memory of the program may grow by whatever happens to a receiver or a disk.
const FLAT: u64 = 10 << 20;

/// How much it has grown at most since it was `before`; no more than it may.
fn grown(of: &str, program: &Program, before: u64) -> String {
    let peak = program.usage().peak;
    assert!(peak < before + FLAT, "{of}: {peak} bytes of memory at most, {before} before");
    format!("{:.1} MiB of memory before, {:.1} more at most", before as f64 / MIB, (peak - before) as f64 / MIB)
}

const MIB: f64 = 1_048_576.0;

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_outlives_the_process_that_is_asked_to_stop() {
    let stage = Stage::new().await;
    let first = stage.start();
    stage.scrapes(12).await;
    first.signal("TERM");
    let asked = Instant::now();
    let output = first.end().await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let last = stderr(&output).lines().last().unwrap_or_default().to_owned();
    assert!(last.contains("on disk for the next start") && last.contains("on_disk="), "{last}");
    let finished = stage.finished(0, asked);
    assert!(finished.len() >= 2, "{finished:?}");

    let second = stage.start();
    stage.receiver_is(true);
    stage.scrapes(3).await;
    stage.takes(stage.answers()).await;
    assert_all_in_order(&stage.receiver.recorded(), &finished);
    let came = stage.taken();
    assert_eq!(first_times(&came), came, "nothing was acknowledged before, so nothing comes twice");
    second.signal("TERM");
    let output = second.end().await;
    assert!(stderr(&output).lines().last().is_some_and(|last| last.contains("everything was delivered")));
    let third = stage.start();
    stage.scrapes(3).await;
    stage.takes(stage.answers()).await;
    drop(third);
    let came = stage.taken();
    assert_eq!(first_times(&came), came, "what was acknowledged does not come again");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_directory_is_for_one_process() {
    let stage = Stage::new().await;
    let first = stage.start();
    stage.scrapes(1).await;
    let output = stage.start().end().await;
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(said.contains("is in use by process") && said.contains("--data-dir"), "{said}");
    // The first one has noticed nothing.
    stage.receiver_is(true);
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    drop(first);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_disk_is_for_its_owner_and_holds_no_credentials() {
    use std::os::unix::fs::PermissionsExt;
    let stage = Stage::new().await;
    let program = stage.start();
    stage.scrapes(3).await;
    program.signal("TERM");
    program.end().await;
    let mut looked_at = 0;
    let mut left = vec![stage.data()];
    while let Some(path) = left.pop() {
        let metadata = path.symlink_metadata().expect("it is there");
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode, if metadata.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
        assert!(!path.to_string_lossy().contains("canary"), "{}", path.display());
        if metadata.is_dir() {
            left.extend(std::fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("readable").path()));
        } else {
            looked_at += 1;
            let bytes = std::fs::read(&path).expect("readable");
            assert!(!bytes.windows(6).any(|part| part == b"canary"), "{}", path.display());
        }
    }
    assert!(looked_at >= 3, "a lock, a segment and what is acknowledged");
}
