//! Files of targets that somebody made to stop discovery: each is refused or read in time, and the others go on.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use meshscrape::clock::Clock;
use meshscrape::config;
use meshscrape::discover::{self, Certificates, Metrics};
use meshscrape::model::TargetSet;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Far more than any of this takes, and far less than what is not bounded would.
const PATIENCE: Duration = Duration::from_secs(30);

fn addresses(set: &TargetSet) -> Vec<String> {
    set.active().map(|target| target.address.to_string()).collect()
}

/// Puts `make` to a file of targets that was good before, beside one that stays good.
async fn put(name: &str, make: impl FnOnce(&Path)) -> Vec<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let (bad, good) = (dir.path().join(name), dir.path().join("good.yml"));
    std::fs::write(&good, "- targets: [good:1]\n").expect("a file");
    make(&bad);
    let text =
        format!("scrape_configs: [{{job_name: j, file_sd_configs: [{{files: ['{name}']}}, {{files: [good.yml]}}]}}]");
    let loaded = config::parse(&dir.path().join("meshscrape.yaml"), &text, &|_| None);
    let job = Arc::clone(&loaded.config.expect("a good configuration").scrape_configs[0]);
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let jobs = vec![(job, watch::channel(Certificates::read(None)).1)];
    let discovery = discover::spawn(jobs, cancel, Clock::system(), Metrics::new(&mut Registry::default()));
    let waited = tokio::time::timeout(PATIENCE, async {
        while !discovery.first_pass_done() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{name} holds discovery"));
    assert!(addresses(&discovery.targets().borrow()).contains(&"good:1".to_owned()), "{name}");
    discovery.snapshot().problems.iter().map(|problem| problem.message.clone()).collect()
}

async fn written(name: &str, text: &str) -> Vec<String> {
    put(name, |path| std::fs::write(path, text).expect("a file")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_made_to_take_for_ever_or_all_memory() {
    let keys = |count: usize, prefix: &str| -> String { (0..count).map(|at| format!("{prefix}{at}: x,")).collect() };
    let many = "a:1,".repeat(300_000);
    for (name, text, words) in [
        ("labels.yml", format!("- labels: {{{}}}\n", keys(100_000, "k")), "has 100001 labels"),
        (
            "merged.yml",
            format!("- labels: {{<<: {{{}}}, {}}}\n", keys(50_000, "m"), keys(50_000, "k")),
            "has 100001 labels",
        ),
        ("targets.yml", format!("- targets: [{many}]\n"), "more than 256 MiB"),
        (
            "product.yml",
            format!("- targets: [{}]\n  labels: {{big: {}}}\n", "a:1,".repeat(10_000), "x".repeat(100_000)),
            "more than 256 MiB",
        ),
        (
            "groups.json",
            format!("[{}{{}}]", format!("{{\"targets\":[{}\"a\"]}},", "\"a:1\",".repeat(999)).repeat(300)),
            "more than 256 MiB",
        ),
        ("deep.yml", "[".repeat(1 << 20), "nest deeper"),
        ("deep.json", "[".repeat(1 << 20), "invalid type"),
        (
            "bomb.yml",
            "- &a [x,x,x,x,x,x,x,x,x]\n".to_owned() + &"- &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\n".repeat(20_000),
            "aliases multiply",
        ),
        ("one-line.yml", "x".repeat(1 << 20), "a single value"),
    ] {
        let problems = written(name, &text).await;
        assert!(problems.concat().contains(words), "{name}: {problems:?}");
    }
}

#[tokio::test]
async fn what_is_no_file_is_not_waited_for() {
    let fifo = |path: &Path| assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
    let zeros = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).expect("a link");
    let circle = |path: &Path| std::os::unix::fs::symlink(path, path).expect("a link");
    assert!(put("fifo.yml", fifo).await.concat().contains("not a regular file"));
    assert!(put("zeros.yml", zeros).await.concat().contains("not a regular file"));
    assert!(!put("circle.yml", circle).await.is_empty());
}
