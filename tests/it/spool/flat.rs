//! What waits is on disk, not in memory, however much it is.

use super::*;

fn on_disk(data: &Path) -> u64 {
    let Ok(logs) = std::fs::read_dir(data.join("spool")) else { return 0 };
    let files = logs.flat_map(|log| std::fs::read_dir(log.expect("readable").path()).expect("a directory"));
    files.map(|file| file.expect("readable").metadata().map_or(0, |metadata| metadata.len())).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_stays_flat_while_the_queue_on_disk_grows_and_drains() {
    let (warm, full) = scale((12 << 20, 64 << 20), (64 << 20, 384 << 20));
    let dir = TempDir::new().expect("a directory");
    // Two thirds of a MiB each time.
    let target = Numbered::bulky(1000, 640);
    let (up, rule) = switched();
    let mut rule = rule;
    let receiver = Receiver::start(Box::new(move |request| rule(request).forgetting())).await;
    let config = format!(
        "scrape_configs:
{}remote_write:
- url: {}
  queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms, max_disk: 4GiB}}
",
        target.job("plain", scale(Duration::from_millis(200), Duration::from_secs(1))),
        receiver.url(),
    );
    let program = start(dir.path(), &config);
    let patience = scale(Duration::from_secs(120), Duration::from_secs(3600));
    let grown = async |bytes: u64| {
        let deadline = Instant::now() + patience;
        let mut most = 0;
        while on_disk(&dir.path().join("data")) < bytes {
            assert!(Instant::now() < deadline, "the queue does not grow to {bytes} bytes");
            tokio::time::sleep(Duration::from_millis(50)).await;
            most = most.max(program.usage().resident);
        }
        most
    };
    let began = Instant::now();
    let before = grown(warm).await;
    let while_growing = grown(full).await;
    let grew_in = began.elapsed();
    up.store(true, Ordering::SeqCst);
    let mut while_draining = 0;
    let deadline = Instant::now() + patience;
    while on_disk(&dir.path().join("data")) > warm {
        assert!(Instant::now() < deadline, "it does not drain");
        tokio::time::sleep(Duration::from_millis(50)).await;
        while_draining = while_draining.max(program.usage().resident);
    }
    drop(program);
    let mib = |bytes: u64| bytes as f64 / MIB;
    println!(
        "{:.0} MiB on disk in {grew_in:.0?}: {:.1} MiB of memory at {:.0} MiB, at most {:.1} until then, {:.1} while it drained",
        mib(full),
        mib(before),
        mib(warm),
        mib(while_growing),
        mib(while_draining),
    );
    assert!(while_growing < before + FLAT, "{while_growing} bytes while the queue grew, {before} before");
    assert!(while_draining < before + FLAT, "{while_draining} bytes while it drained, {before} before");
}
