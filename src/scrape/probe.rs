//! One scrape of an active target apart from its beat, for a person who wants to see it.
//!
//! It is the scrape that the target's task would make if it had not seen the target before: the same job, client, limits
//! and checks. It is nothing more: who
//! asks names a target and can change nothing about it; the connection is its own and gone afterwards; the task's
//! connection, series, status and counters are not touched, and nothing is forwarded. One at a time, so that whoever may
//! ask cannot turn the agent into a load on others.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::info;

use super::manager::is_leaving;
use super::task::JobState;
use super::transcript::{DroppedSeries, Transcript};
use super::{Budget, Exchange, Gather, Job, RequestHead, exchange, leaving};
use crate::clock::Clock;
use crate::connect::Client;
use crate::model::{Failure, Target, clean};
use crate::parse::Entry;
use crate::series::{Counts, Pass, Table};

/// No probe takes longer, whatever the timeout of the target.
pub const MAX_PROBE_TIME: Duration = Duration::from_secs(60);

/// What a probe found.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The target as it was when the probe began.
    pub target: Arc<Target>,
    /// When it began.
    pub started: SystemTime,
    /// How far the exchange came.
    pub seen: Exchange,
    /// Sample lines in the exposition.
    pub samples: usize,
    /// Samples that relabelling would leave.
    pub samples_kept: usize,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// What the target exposes, or where that was asked for what would be forwarded of it, in the Prometheus text format,
    /// its own text uncleaned; empty if the probe failed.
    pub text: String,
    /// Where what would be forwarded was asked for: the series that would not, each with the reason.
    pub dropped: Vec<DroppedSeries>,
    /// Whether there was more of either than may be kept.
    pub text_cut: bool,
}

/// What of an exposition is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// As the target exposes it.
    Exposed,
    /// As it would be forwarded: with the labels of the target, after `metric_relabel_configs`.
    Forwarded,
}

/// Why there is no probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProbeError {
    /// The target is not, or no longer, active.
    #[error("no active target has this id; it may have changed: ask /api/v1/targets again")]
    UnknownTarget,
    /// Another probe is under way.
    #[error("another live scrape is under way: try again in a moment")]
    Busy,
}

/// Makes probes, one at a time.
pub(super) struct Prober {
    clock: Clock,
    budget: Budget,
    turn: Semaphore,
}

impl Prober {
    pub(super) fn new(clock: Clock, budget: Budget) -> Self {
        Self { clock, budget, turn: Semaphore::new(1) }
    }

    /// Scrapes `target` of `job` once, unless another probe is under way; `state` is how the whole job is. `table` is a new
    /// one, as the task of the target would begin with: it judges names and limits, and what it makes goes nowhere.
    pub(super) async fn probe(
        &self,
        job: &Job,
        state: JobState,
        target: Arc<Target>,
        table: Table,
        wanted: Wanted,
    ) -> Result<Probe, ProbeError> {
        let _turn = self.turn.try_acquire().map_err(|_| ProbeError::Busy)?;
        info!(job = &*target.pool, target = %clean(target.labels.value("instance")), "live scrape");
        let started = self.clock.now();
        let JobState { refusal, unconfirmed } = state;
        let mut transcript = match wanted {
            Wanted::Exposed => Transcript::default(),
            Wanted::Forwarded => Transcript::of_forwarded(Arc::clone(&job.config), target.labels.clone()),
        };
        let (seen, counts, outcome) = match refusal {
            Some(failure) => (Exchange::default(), Counts::default(), Err(failure)),
            None => self.scrape(job, &target, unconfirmed, table, &mut transcript).await,
        };
        // Of a response that did not prove good nothing counts.
        let told = if outcome.is_ok() { transcript } else { Transcript::default() };
        Ok(Probe {
            target,
            started,
            seen,
            samples: counts.scraped,
            samples_kept: counts.kept,
            failure: outcome.err(),
            text: told.text,
            dropped: told.dropped,
            text_cut: told.cut,
        })
    }

    async fn scrape(
        &self,
        job: &Job,
        target: &Target,
        unconfirmed: Option<std::time::Instant>,
        mut table: Table,
        transcript: &mut Transcript,
    ) -> (Exchange, Counts, Result<(), Failure>) {
        let mut client =
            match Client::for_target(target, &job.config, job.credentials.clone(), job.tokens.clone(), &self.clock) {
                Ok(client) => client,
                Err(failure) => return (Exchange::default(), Counts::default(), Err(failure)),
            };
        // A probe has not seen the pod before, so of an uncertain one it learns nothing: not even whose text it would show.
        client.only_known_peer(unconfirmed.filter(|_| target.pod.is_some()));
        let timeout = target.timeout.min(MAX_PROBE_TIME);
        let head = RequestHead::new(&job.config, timeout, target.histograms);
        let mut pass = table.begin(self.clock.now_ms());
        let deadline = Instant::now() + timeout;
        let gather = &mut Gathered { pass: &mut pass, transcript };
        let mut share = self.budget.share();
        let (address, path) = (&target.address, &*target.path_and_query);
        let (mut seen, outcome) = exchange(&mut client, address, path, &head, deadline, gather, &mut share).await;
        seen.hide(client.secrets());
        let outcome = outcome
            .and_then(|()| pass.check_limit())
            .map_err(|failure| if is_leaving(target) { leaving::excuse(failure, seen.status) } else { failure });
        (seen, pass.counts(), outcome)
    }
}

/// What a probe is read into.
struct Gathered<'a, 't> {
    pass: &'a mut Pass<'t>,
    transcript: &'a mut Transcript,
}

impl Gather for Gathered<'_, '_> {
    fn take(&mut self, entry: &Entry<'_>) -> Result<(), Failure> {
        self.pass.take_entry(entry)?;
        self.transcript.take(entry)
    }

    fn held_bytes(&self) -> u64 {
        self.pass.held_bytes() + self.transcript.held_bytes()
    }
}
