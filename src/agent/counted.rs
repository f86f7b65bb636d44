//! What is counted of receivers: it is there as long as somebody has their name and URL, and gone with the last one.
//!
//! Several can have both the same: one that has changed, and the one that still delivers what came before. What always
//! holds: counters of a receiver that runs are never taken away, and of one that has ended none is left, so that
//! configurations that come and go do not fill `/metrics`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::config::RemoteWrite;
use crate::{send, series, spool};

/// What tells one from another.
type LabelSet = Vec<(String, String)>;

/// The metrics of all receivers, and how many have each name and URL. Clones are the same.
#[derive(Clone)]
pub(super) struct Counted {
    pub(super) send: send::Metrics,
    pub(super) series: series::Metrics,
    pub(super) spool: spool::Metrics,
    holders: Arc<Mutex<HashMap<LabelSet, usize>>>,
}

impl Counted {
    /// Of nobody yet.
    pub(super) fn new(send: send::Metrics, series: series::Metrics, spool: spool::Metrics) -> Self {
        Self { send, series, spool, holders: Arc::default() }
    }

    /// A receiver begins. To be said before anything of it is counted.
    pub(super) fn hold(&self, remote: &RemoteWrite) {
        self.change(remote, |holders| holders + 1);
    }

    /// It has ended, and nothing more of it will be counted.
    pub(super) fn release(&self, remote: &RemoteWrite) {
        self.change(remote, |holders| holders.saturating_sub(1));
    }

    /// All of it under the lock: a receiver that begins meanwhile must not lose what was just made for it.
    fn change(&self, remote: &RemoteWrite, change: impl FnOnce(usize) -> usize) {
        let labels = send::labels(remote);
        let mut holders = self.holders.lock().unwrap_or_else(PoisonError::into_inner);
        let left = change(holders.get(&labels).copied().unwrap_or_default());
        if left > 0 {
            holders.insert(labels, left);
            return;
        }
        self.send.remove(remote);
        self.series.remove(remote);
        self.spool.remove(&labels);
        holders.remove(&labels);
    }
}
