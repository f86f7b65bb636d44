//! Asked to stop, the program stops scraping, delivers what it has, writes no staleness markers, and leaves with 0.

use std::process::Command;

use meshscrape::model::is_stale;
use tempfile::TempDir;

use crate::support::agent::eventually;
use crate::support::program::Program;
use crate::support::receiver::{Answer, Receiver, always};
use crate::support::tls_server::{Reply, Server, Talk};

/// A target that numbers its answers.
fn counting_target() -> Server {
    let count = std::sync::atomic::AtomicU64::new(0);
    Server::start(Talk::Plain(std::sync::Arc::new(move |_| {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        Reply::ok(&format!("answer_number {number}\n"))
    })))
}

fn start(dir: &TempDir, target: &Server, receiver: &Receiver, batch_deadline: &str, flush_deadline: &str) -> Program {
    let arguments = arguments(dir, target, receiver, batch_deadline, flush_deadline);
    Program::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn arguments(
    dir: &TempDir,
    target: &Server,
    receiver: &Receiver,
    batch_deadline: &str,
    flush_deadline: &str,
) -> Vec<String> {
    let config = format!(
        "scrape_configs:
- job_name: plain
  scrape_interval: 2s
  scrape_timeout: 2s
  static_configs: [{{targets: ['{}']}}]
remote_write:
- url: {}
  queue_config: {{batch_send_deadline: {batch_deadline}, min_backoff: 50ms}}
",
        target.address(),
        receiver.url(),
    );
    let file = dir.path().join("meshscrape.yaml");
    std::fs::write(&file, config).expect("a configuration");
    let file = file.to_str().expect("a path in UTF-8");
    let listeners = ["--listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"];
    let flush = ["--flush-deadline", flush_deadline];
    [&["run", "--config", file][..], &listeners, &flush].concat().into_iter().map(str::to_owned).collect()
}

async fn stops_cleanly(name: &str) {
    let dir = TempDir::new().expect("a directory");
    let target = counting_target();
    let receiver = Receiver::start(always(Answer::ok())).await;
    // Nothing would be sent for an hour: all that arrives was flushed at the end.
    let program = start(&dir, &target, &receiver, "1h", "30s");
    eventually("some scrapes", async || (target.requests().len() >= 3).then_some(())).await;
    program.signal(name);
    let output = program.end().await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));

    let samples: Vec<_> = receiver.recorded().into_iter().flat_map(|request| request.samples).collect();
    let of_target = samples.iter().filter(|(labels, _)| labels.value("__name__") == "answer_number");
    let numbers: Vec<f64> = of_target.map(|(_, sample)| sample.value).collect();
    let asked = target.requests().len();
    // The last request may have been cut off by the signal.
    assert!(numbers.len() == asked || numbers.len() + 1 == asked, "{asked} answers, stored {numbers:?}");
    assert!(numbers.len() >= 2 && numbers.iter().enumerate().all(|(at, number)| *number == (at + 1) as f64));
    assert!(!samples.iter().any(|(_, sample)| is_stale(sample.value)), "no markers: the next process goes on");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_flushes_and_leaves_with_0() {
    stops_cleanly("TERM").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigint_flushes_and_leaves_with_0() {
    stops_cleanly("INT").await;
}

/// As where the disk is full that it goes to, or nobody reads it any more.
#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_log_cannot_be_written_goes_on_and_ends_as_ever() {
    let dir = TempDir::new().expect("a directory");
    let target = counting_target();
    let receiver = Receiver::start(always(Answer::ok())).await;
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2>/dev/full", env!("CARGO_BIN_EXE_meshscrape")]);
    command.args(arguments(&dir, &target, &receiver, "1h", "30s"));
    let program = Program::spawn(command);
    eventually("some scrapes", async || (target.requests().len() >= 2).then_some(())).await;
    program.signal("TERM");
    assert_eq!(program.end().await.status.code(), Some(0));
    assert!(!receiver.recorded().is_empty(), "what was left is flushed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once() {
    let dir = TempDir::new().expect("a directory");
    let target = counting_target();
    let receiver = Receiver::start(always(Answer::status(503))).await;
    // Without the second signal it would outlast the patience of this test.
    let program = start(&dir, &target, &receiver, "100ms", "3600s");
    receiver.requests(2).await;
    program.signal("TERM");
    program.signal("INT");
    let output = program.end().await;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_delays_the_end_only_until_the_deadline() {
    let dir = TempDir::new().expect("a directory");
    let target = counting_target();
    let receiver = Receiver::start(always(Answer::status(503))).await;
    let program = start(&dir, &target, &receiver, "100ms", "1s");
    receiver.requests(2).await;
    program.signal("TERM");
    let output = program.end().await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
