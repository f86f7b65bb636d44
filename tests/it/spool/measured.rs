//! What a queue on disk costs: printed with `--nocapture`, and asserted where it does not hang on the machine.

use std::io::Write;

use bytes::Bytes;
use meshscrape::clock::Clock;
use meshscrape::model::{Block, Labels, Sample, TargetId, WriteFormat};
use meshscrape::spool::{DiskLimits, DiskSettings, Home, LeaseLimits, Metrics, Outlet, QueueSettings, Spool};
use meshscrape::wire::{compress, encode_labels, push_sample};
use prometheus_client::registry::Registry;

use super::*;

const SERIES: u32 = 2_000;

/// What a scrape of a proxy with so many series gives.
fn scrape(target: u64) -> Block {
    let mut message = Vec::new();
    for n in 0..SERIES {
        let labels: Labels = [
            ("__name__", "istio_requests_total"),
            ("job", "istio-secure-merged-metrics"),
            ("instance", &format!("10.0.{}.{}:15092", target / 256, target % 256)),
            ("destination_workload", &format!("workload-{}", n / 40)),
            ("response_code", ["200", "404", "503"][n as usize % 3]),
            ("series", &n.to_string()),
        ]
        .into_iter()
        .collect();
        push_sample(
            &mut message,
            &encode_labels(&labels),
            Sample { value: f64::from(n), timestamp_ms: 1_764_000_000_000 },
        );
    }
    Block {
        target: TargetId(target),
        receiver: 0,
        tenant: None,
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples: SERIES,
        min_ms: 0,
        max_ms: 0,
        raw_len: message.len() as u32,
        elements: Bytes::from(compress(&message).expect("a small message")),
    }
}

fn open(data: &Path) -> (Spool, Outlet) {
    let home = Home::take(data).expect("nobody has it");
    let spool = Spool::at(home, Clock::system(), Metrics::new(&mut Registry::default()));
    let limits = DiskLimits { max_bytes: 8 << 30, max_age: Duration::from_secs(7200) };
    let outlet = spool.open(
        0,
        QueueSettings {
            name: "one".to_owned(),
            labels: Vec::new(),
            capacity_bytes: 64 << 20,
            disk: Some(DiskSettings { directory: "one".to_owned(), limits, newest_first: false }),
        },
    );
    (spool, outlet)
}

/// Waits until all that was taken in is on disk.
async fn on_disk(outlet: &Outlet) {
    let written = || {
        let seen = outlet.snapshot();
        seen.kept_blocks == seen.pending_blocks
    };
    eventually("it is on disk", async || written().then_some(())).await;
}

async fn close(spool: Spool, outlet: Outlet) {
    spool.close(0);
    drop(outlet);
    spool.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_costs_disk_and_little_memory_and_is_read_faster_than_it_came() {
    let dir = TempDir::new().expect("a directory");
    let blocks = scale(500, 9_000);
    let scrapes: Vec<_> = (0..20).map(scrape).collect();
    let (spool, outlet) = open(dir.path());
    let began = Instant::now();
    for n in 0..blocks {
        spool.push(scrapes[n % scrapes.len()].clone());
        // As if it came from tasks that make blocks.
        if n % 50 == 49 {
            on_disk(&outlet).await;
        }
    }
    on_disk(&outlet).await;
    let written = began.elapsed();
    let seen = outlet.snapshot();
    assert_eq!((seen.pending_blocks, seen.dropped_blocks), (blocks as u64, 0));
    assert!(seen.waiting_bytes <= 5 << 20, "{} bytes wait in memory", seen.waiting_bytes);
    close(spool, outlet).await;

    let bytes: u64 = segments(dir.path()).iter().map(|file| file.metadata().expect("its length").len()).sum();
    let samples = blocks as u64 * u64::from(SERIES);
    let of_message: usize = (0..blocks).map(|n| scrapes[n % scrapes.len()].elements.len()).sum();
    // Not more than it is on the wire, but for the heads of records.
    assert!(bytes <= of_message as u64 + blocks as u64 * 80 + 4096);

    let began = Instant::now();
    let (spool, mut outlet) = open(dir.path());
    let limits = LeaseLimits { max_samples: 10_000, max_message_bytes: 16 << 20, linger: Duration::ZERO };
    let first = outlet.lease(limits).await.expect("a backlog");
    let opened = began.elapsed();
    let mut came = first.blocks().len();
    first.ack();
    let began = Instant::now();
    while came < blocks {
        let lease = outlet.lease(limits).await.expect("more of it");
        assert!(lease.blocks().all(|block| scrapes.contains(block)));
        came += lease.blocks().len();
        lease.ack();
    }
    let read = began.elapsed();
    close(spool, outlet).await;
    let mib = bytes >> 20;
    println!(
        "{samples} samples, {mib} MiB on disk, {:.1} bytes a sample; written in {written:.2?}, opened in {opened:.2?}, read and \
         acknowledged in {read:.2?}",
        bytes as f64 / samples as f64
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_is_written_without_waiting_for_anything() {
    let dir = TempDir::new().expect("a directory");
    let (spool, outlet) = open(dir.path());
    let block = scrape(1);
    spool.push(block.clone());
    on_disk(&outlet).await;
    let mut times = Vec::new();
    for _ in 0..scale(200, 5_000) {
        let began = Instant::now();
        spool.push(block.clone());
        while outlet.snapshot().kept_blocks != outlet.snapshot().pending_blocks {
            tokio::task::yield_now().await;
        }
        times.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("a block of {SERIES} samples is written within {}", percentiles(&mut times));
    let seen = outlet.snapshot();
    assert_eq!((seen.kept_blocks, seen.dropped_blocks), (seen.pending_blocks, 0));
    close(spool, outlet).await;

    // What it would be if each waited until it is synced, and what one second of 60,000 samples takes to be.
    let file = std::fs::File::create(dir.path().join("synced")).expect("a file");
    let time_of = |blocks: usize| {
        let began = Instant::now();
        for _ in 0..blocks {
            (&file).write_all(&block.elements).expect("written");
        }
        file.sync_data().expect("synced");
        began.elapsed()
    };
    let mut each: Vec<_> = (0..scale(50, 1_000)).map(|_| time_of(1)).collect();
    println!("written and synced within {}", percentiles(&mut each));
    let mut seconds: Vec<_> = (0..scale(10, 100)).map(|_| time_of(30)).collect();
    println!("30 of them, synced at once, within {}", percentiles(&mut seconds));
    let len = file.metadata().expect("its length").len();
    assert_eq!(len, ((each.len() + 30 * seconds.len()) * block.elements.len()) as u64);
}

fn percentiles(times: &mut [Duration]) -> String {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() - 1) * part / 1000];
    format!("{:.0?}; 99 %: {:.0?}; the slowest: {:.0?}", at(500), at(990), at(1000))
}

fn segments(data: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(data.join("spool/one")).expect("a directory");
    let mut files: Vec<_> = files.map(|file| file.expect("readable").path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "log"));
    files
}
