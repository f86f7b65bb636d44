//! A clock of the machine that is wrong.

use bytes::Bytes;
use meshscrape::clock::Clock;
use meshscrape::model::{Block, TargetId, WriteFormat};
use meshscrape::spool::{DiskLimits, DiskSettings, Home, LeaseLimits, Metrics, QueueSettings, Spool};
use prometheus_client::registry::Registry;

use super::*;

const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;

/// As of a node that finds out what time it is after the agent has started, one way or the other.
#[tokio::test(flavor = "multi_thread")]
async fn no_backlog_is_too_old_because_the_clock_was_wrong() {
    let dir = TempDir::new().expect("a directory");
    let mut pushed = 0;
    for shift in [-10 * YEAR_MS, 0, 10 * YEAR_MS, 0] {
        let clock = Clock::system();
        clock.shift(shift);
        // Whatever another test starts holds a copy of the lock until it has become another program.
        let home = eventually("nobody has it", async || Home::take(dir.path()).ok()).await;
        let spool = Spool::at(home, clock, Metrics::new(&mut Registry::default()));
        let limits = DiskLimits { max_bytes: 1 << 30, max_age: Duration::from_secs(60) };
        let disk = Some(DiskSettings { directory: "one".to_owned(), limits, newest_first: false });
        let settings = QueueSettings { name: "one".to_owned(), labels: Vec::new(), capacity_bytes: 1 << 20, disk };
        let mut outlet = spool.open(0, settings);
        for _ in 0..5 {
            spool.push(Block {
                target: TargetId(1),
                receiver: 0,
                tenant: None,
                format: WriteFormat::V1,
                samples: 1,
                histograms: 0,
                exemplars: 0,
                min_ms: pushed,
                max_ms: pushed,
                raw_len: 8,
                elements: Bytes::from_static(b"anything"),
            });
            pushed += 1;
        }
        let limits = LeaseLimits { max_samples: 1_000, max_message_bytes: 1 << 20, linger: Duration::ZERO };
        // What was there comes first, and what is new with it or behind it.
        let lease = eventually("all are in a lease", async || {
            let lease = outlet.lease(limits).await.expect("it is open");
            // As long as it is not all of them, they return to their places.
            let are_all = lease.blocks().len() == pushed as usize;
            are_all.then_some(lease)
        })
        .await;
        let numbers: Vec<_> = lease.blocks().map(|block| block.min_ms).collect();
        assert_eq!(numbers, Vec::from_iter(0..pushed), "{shift}");
        assert_eq!(outlet.snapshot().dropped_blocks, 0);
        eventually("it is on disk", async || {
            let seen = outlet.snapshot();
            (seen.kept_blocks == seen.pending_blocks).then_some(())
        })
        .await;
        drop(lease);
        spool.close(0);
        drop(outlet);
        assert_eq!(spool.finish().await.samples, 0);
    }
}
