//! Everything that there is to see, at one moment: what all views are made of.

use std::sync::Arc;
use std::time::SystemTime;

use super::findings::{self, Finding};
use crate::discover;
use crate::identity::IdentitySnapshot;
use crate::scrape::{PoolSnapshot, TargetSnapshot};
use crate::send::ReceiverSnapshot;
use crate::status::health::{Health, State};
use crate::status::{Configuration, Process, Sources};

/// The state of the agent.
pub(super) struct Look {
    pub(super) now: SystemTime,
    /// The jobs, by name.
    pub(super) pools: Vec<PoolSnapshot>,
    pub(super) identities: Vec<IdentitySnapshot>,
    pub(super) receivers: Vec<ReceiverSnapshot>,
    pub(super) discovery: Arc<discover::Snapshot>,
    pub(super) configuration: Configuration,
    pub(super) process: Arc<Process>,
    /// What is wrong, the worst first.
    pub(super) findings: Vec<Finding>,
}

/// How many targets are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) up: usize,
    pub(super) down: usize,
    pub(super) unknown: usize,
    /// Samples of their last scrapes that were kept.
    pub(super) samples: usize,
}

impl Look {
    /// Looks now.
    pub(super) fn at(sources: &Sources) -> Self {
        let mut pools = sources.scrape.snapshot();
        pools.sort_by(|a, b| a.pool.cmp(&b.pool));
        let mut look = Self {
            now: sources.process.clock.now(),
            pools,
            identities: (sources.identities)(),
            receivers: (sources.receivers)(),
            discovery: (sources.discovery)(),
            configuration: sources.configuration.borrow().clone(),
            process: Arc::clone(&sources.process),
            findings: Vec::new(),
        };
        look.findings = findings::of(&look);
        look
    }

    /// All targets with their jobs.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&PoolSnapshot, &TargetSnapshot)> {
        self.pools.iter().flat_map(|pool| pool.active.iter().map(move |target| (pool, target)))
    }

    /// The states of all of them.
    pub(super) fn tally(&self) -> Tally {
        tally(self.targets().map(|(_, target)| target))
    }
}

/// The states of these.
pub(super) fn tally<'a>(targets: impl Iterator<Item = &'a TargetSnapshot>) -> Tally {
    targets.fold(Tally::default(), |mut tally, target| {
        let health = Health::of(target);
        match health.state {
            State::Up => tally.up += 1,
            State::Down => tally.down += 1,
            State::Unknown => tally.unknown += 1,
        }
        tally.samples += health.last.map_or(0, |report| report.samples_kept);
        tally
    })
}

impl Tally {
    pub(super) fn all(&self) -> usize {
        self.up + self.down + self.unknown
    }
}
