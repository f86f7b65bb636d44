//! One scrape of an active target apart from its beat, for a person who wants to see it.
//!
//! It is the scrape that the target's task would make: the same job, client, limits and checks. It is nothing more: who
//! asks names a target and can change nothing about it; the connection is its own and gone afterwards; the task's
//! connection, series, status and counters are not touched, and nothing is forwarded. One at a time, so that whoever may
//! ask cannot turn the agent into a load on others.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tracing::info;

use super::task::JobState;
use super::{Budget, Exchange, Gather, Job, RequestHead, exchange};
use crate::clock::Clock;
use crate::connect::Client;
use crate::model::{Failure, Labels, Target, clean};
use crate::parse::{Entry, Format, print};
use crate::series::{Counts, Pass, Table};

/// No probe takes longer, whatever the timeout of the target.
pub const MAX_PROBE_TIME: Duration = Duration::from_secs(60);
/// How much text of an exposition is kept: a node's agent has little memory to spare.
const MAX_TEXT_BYTES: usize = 4 << 20;

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
    /// What the target exposes, in the Prometheus text format, its own text uncleaned; empty if the probe failed.
    pub text: String,
    /// Whether there was more than may be kept.
    pub text_cut: bool,
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

    /// Scrapes `target` of `job` once, unless another probe is under way; `state` is how the whole job is.
    pub(super) async fn probe(&self, job: &Job, state: JobState, target: Arc<Target>) -> Result<Probe, ProbeError> {
        let _turn = self.turn.try_acquire().map_err(|_| ProbeError::Busy)?;
        info!(job = &*target.pool, target = %clean(target.labels.value("instance")), "live scrape");
        let started = self.clock.now();
        let JobState { refusal, unconfirmed } = state;
        let mut transcript = Transcript::default();
        let (seen, counts, outcome) = match refusal {
            Some(failure) => (Exchange::default(), Counts::default(), Err(failure)),
            None => self.scrape(job, &target, unconfirmed, &mut transcript).await,
        };
        let good = outcome.is_ok();
        Ok(Probe {
            target,
            started,
            seen,
            samples: counts.scraped,
            samples_kept: counts.kept,
            failure: outcome.err(),
            // Of a response that did not prove good nothing counts.
            text: if good { transcript.text } else { String::new() },
            text_cut: good && transcript.cut,
        })
    }

    async fn scrape(
        &self,
        job: &Job,
        target: &Target,
        unconfirmed: Option<std::time::Instant>,
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
        // A table of its own, for nobody: it judges names and limits as the task's does at its first scrape.
        let mut table = Table::new(Arc::clone(&job.config), target, Arc::default(), &Labels::new());
        let mut pass = table.begin(self.clock.now_ms());
        let deadline = Instant::now() + timeout;
        let gather = &mut Gathered { pass: &mut pass, transcript };
        let mut share = self.budget.share();
        let (address, path) = (&target.address, &*target.path_and_query);
        let (mut seen, outcome) = exchange(&mut client, address, path, &head, deadline, gather, &mut share).await;
        seen.hide(client.secrets());
        let outcome = outcome.and_then(|()| pass.check_limit());
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
        self.transcript.take(entry);
        Ok(())
    }

    fn held_bytes(&self) -> u64 {
        self.pass.held_bytes() + self.transcript.text.capacity() as u64
    }
}

/// The entries of an exposition as text, as far as it may be kept.
#[derive(Default)]
struct Transcript {
    text: String,
    cut: bool,
}

impl Transcript {
    fn take(&mut self, entry: &Entry<'_>) {
        if self.cut {
            return;
        }
        let before = self.text.len();
        let out = &mut self.text;
        match entry {
            Entry::Type { family, kind } => print::type_line(out, Format::PrometheusText, family, *kind),
            Entry::Help { family, text } => print::help_line(out, Format::PrometheusText, family, text),
            Entry::Sample(sample) => {
                // What the job takes and this format cannot hold, such as a time before 1970, is no failure.
                if let Ok(labels) = sample.labels()
                    && let Err(error) =
                        print::sample(out, Format::PrometheusText, &labels, sample.value, sample.timestamp_ms)
                {
                    // Writing to a String cannot fail.
                    let _ = writeln!(out, "# a sample that cannot be shown: {error}");
                }
            }
            Entry::Histogram(entry) => {
                if let Ok(labels) = entry.series.labels() {
                    print::histogram(out, &labels, entry.histogram);
                }
            }
            _ => {}
        }
        if out.len() > MAX_TEXT_BYTES {
            out.truncate(before);
            self.cut = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Parser, Step};

    fn transcript_of(body: &str) -> Transcript {
        let (mut parser, mut transcript, mut rest) = (Parser::new(Format::OpenMetrics), Transcript::default(), body);
        while let Step::Entry(entry, taken) = parser.next(rest.as_bytes(), true).expect("it parses") {
            transcript.take(&entry);
            rest = &rest[taken..];
        }
        transcript
    }

    #[test]
    fn an_exposition_is_told_in_the_prometheus_format() {
        let told =
            transcript_of("# TYPE a counter\n# HELP a Beans.\na_total{x=\"1\"} 3\na_total{x=\"2\"} 3 -1\n# EOF\n");
        assert_eq!(
            told.text,
            "# TYPE a counter\n# HELP a Beans.\na_total{x=\"1\"} 3\n\
             # a sample that cannot be shown: the time -1000 ms cannot be written in this format\n"
        );
        assert!(!told.cut);
    }

    #[test]
    fn what_is_told_is_bounded_and_ends_with_a_whole_line() {
        let line = format!("a{{x=\"{}\"}} 1\n", "y".repeat(1 << 19));
        let told = transcript_of(&format!("{}# EOF\n", line.repeat(9)));
        assert!(told.cut);
        assert!(told.text == line.repeat(7), "{} bytes", told.text.len());
    }
}
