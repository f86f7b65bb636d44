//! What comes over an agent from outside, killed processes and full disks, as the rules in a real Prometheus see it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

use super::watcher::Watcher;
use crate::support::agent::eventually;
use crate::support::loopback;
use crate::support::namespaces::SmallDisk;
use crate::support::program::Program;
use crate::support::receiver::{Answer, Receiver};
use crate::support::tls_server::{Reply, Server, Talk, always};

const RESTARTING: &str = "MeshscrapeRestarting";
const DISK_FILLING: &str = "MeshscrapeSpoolDiskFilling";
const DISK_FAILING: &str = "MeshscrapeSpoolDiskFailing";
const FILLING: &str = "MeshscrapeSpoolFilling";

/// The alerts that have a cause here.
pub(super) const ALERTS: &[&str] = &[RESTARTING, DISK_FILLING, DISK_FAILING, FILLING];

/// Adds the arguments of an agent that listens there, its configuration in `dir` and its queues in `data`, and starts it.
fn start(mut command: Command, dir: &Path, data: &Path, listen: SocketAddr, config: &str) -> Program {
    let file = dir.join("meshscrape.yaml");
    std::fs::write(&file, config).expect("a configuration");
    command.args(["run", "--listen", &listen.to_string(), "--api-listen", "127.0.0.1:0", "--config"]).arg(file);
    command.arg("--data-dir").arg(data);
    Program::spawn(command)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_again_and_again_is_told_of() {
    let dir = TempDir::new().expect("a directory");
    // As a pod's, the address stays.
    let listen = SocketAddr::from((loopback(), 9464));
    let watcher = Watcher::of(&[listen]).await;
    let once_more = || {
        let program = Command::new(env!("CARGO_BIN_EXE_meshscrape"));
        start(program, dir.path(), &dir.path().join("data"), listen, "scrape_configs: []")
    };
    for killed in 0..3 {
        let program = once_more();
        let seen = format!("up == 1 and changes(process_start_time_seconds[30m]) == {killed}");
        eventually("its start is seen", async || watcher.holds(&seen).await.then_some(())).await;
        let raised = watcher.raised().await;
        assert!(!raised.contains(&(listen.to_string(), RESTARTING.to_owned())), "after {killed}: {raised:?}");
        // As the kernel does to whoever takes too much memory.
        program.signal("KILL");
        program.end().await;
    }
    let last = once_more();
    watcher.until(listen, &[RESTARTING], true).await;
    drop(last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_and_then_fails_and_the_memory_that_fills_for_it_are_told_of() {
    let dir = TempDir::new().expect("a directory");
    let disk = SmallDisk::at(&dir.path().join("small"), 24);
    let server = Server::start(Talk::Plain(always(Reply::ok(&bulky()))));
    let up = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&up);
    let answer = move |_: &_| if rule.load(Ordering::SeqCst) { Answer::ok() } else { Answer::status(503) };
    let receiver = Receiver::start(Box::new(answer)).await;
    // Ten targets, so that each has a second for its answer.
    let ten_times: Vec<_> = (0..10)
        .map(|number| format!("{{targets: ['{}'], labels: {{number: '{number}'}}}}", server.address()))
        .collect();
    let config = format!(
        "
scrape_configs:
- job_name: bulky
  scrape_interval: 1s
  scrape_timeout: 1s
  static_configs: [{}]
remote_write:
- url: {}
  queue_config: {{max_disk: 16MiB, max_memory: 12MiB, min_backoff: 1s, max_backoff: 1s}}
",
        ten_times.join(", "),
        receiver.url(),
    );
    let mut command = disk.inside();
    command.arg(env!("CARGO_BIN_EXE_meshscrape"));
    let listen = SocketAddr::from((loopback(), 9464));
    let program = start(command, dir.path(), &dir.path().join("small/data"), listen, &config);
    let watcher = Watcher::of(&[listen]).await;

    watcher.until(listen, &[DISK_FILLING], true).await;
    let raised = watcher.raised().await;
    for alert in [DISK_FAILING, FILLING] {
        assert!(!raised.contains(&(listen.to_string(), alert.to_owned())), "the disk takes all: {raised:?}");
    }
    // The rest of the disk is somebody else's.
    let filler = disk.outside().join("filler");
    let full = std::fs::write(&filler, vec![1; 26 << 20]).expect_err("it is not that large");
    assert_eq!(full.kind(), ErrorKind::StorageFull);
    watcher.until(listen, &[DISK_FAILING, FILLING], true).await;

    std::fs::remove_file(&filler).expect("removed");
    up.store(true, Ordering::SeqCst);
    watcher.until(listen, &[DISK_FILLING, DISK_FAILING, FILLING], false).await;
    drop(program);
}

/// An answer that takes 200 KiB of a disk each time: nothing makes its labels smaller.
fn bulky() -> String {
    let letters = || (0..1000).map(|_| char::from(rand::random_range(b'#'..=b'Z'))).collect::<String>();
    (0..200).map(|number| format!("bulky{{number=\"{number}\",letters=\"{}\"}} 1\n", letters())).collect()
}
