//! Where targets come from: the configuration itself, files, lists over HTTP, and Kubernetes, gathered into one snapshot
//! for scraping.
//!
//! ```text
//! static_configs ────────────────────────┐
//! file_sd_configs ───────▶ one task each ┤
//! http_sd_configs ───────▶ one task each ┼─▶ manager ─▶ label::judge ─▶ Arc<TargetSet> on a watch
//! kubernetes_sd_configs ─▶ one task each ┤
//! trust domains of the identities ───────┘
//! ```
//!
//! A source reports everything it knows, never a difference; the manager gathers bursts and hands on a whole set, only
//! if it differs from the one before. The first set goes out as soon as every source has answered once, and so does the
//! first one of another configuration: until then the old one stands. Nothing in this
//! room connects to a target or knows what becomes of one.

mod content;
mod files;
mod fixed;
mod http;
mod job;
mod kubernetes;
mod manager;
mod metrics;
mod waiting;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::model::{Candidate, TargetSet};

pub use kubernetes::client_error;
pub use manager::{Certificates, Wanted};
pub use metrics::Metrics;
pub use waiting::Waiting;

/// Running discovery. Who drops it does not stop it; cancellation does, and then the receivers see that nothing more
/// comes.
#[derive(Clone, Debug)]
pub struct Discovery {
    orders: mpsc::Sender<manager::Update>,
    targets: watch::Receiver<Arc<TargetSet>>,
    state: watch::Receiver<Arc<Snapshot>>,
}

/// How discovery is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether every source had answered once, so that what was not listed did not exist. It stays so: a source that another
    /// configuration brings is among the problems as long as it is silent.
    pub first_pass_done: bool,
    /// Targets found, before relabelling.
    pub discovered: usize,
    /// Sources that have not answered yet, or cannot be used as they are now; what they said before still holds.
    pub problems: Vec<Problem>,
    /// For too long nothing was heard of whether the pods of some job are still where they were.
    pub unconfirmed: bool,
    /// Pods that are known, and cannot be targets of any job yet.
    pub waiting: Waiting,
}

/// What is wrong with a source of targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The source: the path of a file, the URL of a list, a resource of the API server.
    pub source: String,
    /// What is wrong, safe to show.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.source, self.message)
    }
}

/// Candidates that one object of a source stands for: a file, a pod. Who sends the same `Arc` again says that nothing of
/// it has changed, and nothing is computed anew.
type Group = Arc<Vec<Candidate>>;

/// Everything that one source says now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answer {
    /// Its candidates, in a stable order.
    groups: Vec<Group>,
    /// What of it cannot be used.
    problems: Vec<Problem>,
    /// For too long it could not be asked whether this still holds; then, since when.
    unconfirmed: Option<Instant>,
    /// Pods that there are and that are no candidates yet.
    waiting: Waiting,
    /// All of it has been read once: what is not in it does not exist.
    complete: bool,
}

impl Discovery {
    /// The targets, always the whole set; the empty one until the first pass. It closes when discovery is cancelled.
    pub fn targets(&self) -> watch::Receiver<Arc<TargetSet>> {
        self.targets.clone()
    }

    /// Finds the targets of `jobs` from now on. What is equal to what was wanted before goes on: the same jobs, and the
    /// sources that some job still has. The first set with this `revision` comes when every new source has answered and the
    /// certificates of every new job have been read, or after five seconds.
    pub async fn adopt(&self, jobs: Vec<Wanted>, revision: u64) {
        // It fails where discovery has been cancelled: then nothing comes of it, as of anything else.
        let _ = self.orders.send(manager::Update::Jobs { jobs, revision }).await;
    }

    /// Whether every source had answered once.
    pub fn first_pass_done(&self) -> bool {
        self.state.borrow().first_pass_done
    }

    /// Waits until every source had answered once, or until discovery is cancelled.
    pub async fn first_pass(&self) {
        // An error says that nothing more comes.
        let _ = self.state.clone().wait_for(|state| state.first_pass_done).await;
    }

    /// How discovery is doing now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.state.borrow())
    }
}

/// Starts discovery of the targets of `jobs`. Runs until `cancel`. Must be called inside a runtime.
pub fn spawn(jobs: Vec<Wanted>, cancel: CancellationToken, clock: Clock, metrics: Metrics) -> Discovery {
    let (targets, targets_seen) = watch::channel(Arc::default());
    let (state, state_seen) = watch::channel(Arc::default());
    let (mut manager, orders) = manager::Manager::new(&cancel, clock, metrics, targets, state);
    manager.adopt(jobs, 0);
    manager.start(cancel);
    Discovery { orders, targets: targets_seen, state: state_seen }
}
