//! What the task of a target is told, at its start and again when discovery or the configuration say something else.

use std::sync::Arc;

use super::Job;
use crate::clock::Clock;
use crate::connect::Client;
use crate::model::{Failure, Labels, Target};
use crate::series::{Table, View};

/// What to scrape, and how.
pub(super) struct Orders {
    pub(super) target: Arc<Target>,
    pub(super) job: Job,
    pub(super) views: Arc<[View]>,
    pub(super) external: Arc<Labels>,
    /// Tells the phases of this agent from those of others.
    pub(super) seed: u64,
}

impl Orders {
    /// The client that these orders ask for, or why the target may not be connected.
    pub(super) fn client(&self, clock: &Clock) -> Result<Client, Failure> {
        Client::for_target(&self.target, &self.job.config, self.job.credentials.clone(), self.job.tokens.clone(), clock)
    }

    /// A memory of no scrape yet.
    pub(super) fn table(&self) -> Table {
        Table::new(Arc::clone(&self.job.config), &self.target, Arc::clone(&self.views), &self.external)
    }

    /// Whether nothing is to be done differently.
    pub(super) fn say_the_same(&self, other: &Self) -> bool {
        self.target.continues(&other.target)
            && Arc::ptr_eq(&self.job.config, &other.job.config)
            && Arc::ptr_eq(&self.views, &other.views)
            && self.external == other.external
    }

    /// Whether it is the same one who may answer, proved in the same way.
    pub(super) fn expect_the_same(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.target, &other.target);
        ours.address == theirs.address
            && ours.scheme == theirs.scheme
            && ours.verification == theirs.verification
            && ours.alpn == theirs.alpn
            && (Arc::ptr_eq(&self.job.config, &other.job.config)
                || self.job.config.security == other.job.config.security)
    }

    /// Whether the client of the other orders, and its connection, will do.
    pub(super) fn keep_the_client(&self, other: &Self) -> bool {
        self.expect_the_same(other)
            && self.target.timeout == other.target.timeout
            && self.job.config.keeps_client_of(&other.job.config)
    }

    /// Whether the beat goes on, also of a target that is reached in another way: a beat of its new name would leave a gap.
    pub(super) fn keep_the_beat(&self, other: &Self) -> bool {
        self.target.interval == other.target.interval
    }
}
