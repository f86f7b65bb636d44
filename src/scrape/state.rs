//! The state that targets are in now, as metrics: what an alert about targets is made of.
//!
//! Counters of failed scrapes say how often; these say how many targets, whatever their intervals. They are read off the
//! targets' statuses when somebody asks, so that a target that is gone is in none of them. Label values are job names and
//! the closed list of reasons.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;

use super::{Handle, TargetStatus};
use crate::clock::unix_ms;
use crate::model::{Reason, Target, Verification};

/// The states of all targets of a running [`Handle`].
pub(super) struct TargetStates(pub(super) Handle);

impl fmt::Debug for TargetStates {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TargetStates").finish_non_exhaustive()
    }
}

type Label<'a> = (&'static str, &'a str);
/// The series of a job: what tells each from the others, if there are others, and its value.
type Series = Vec<(Option<Label<'static>>, f64)>;

/// What is counted of one job.
#[derive(Default)]
struct Tally {
    up: usize,
    down: BTreeMap<Reason, usize>,
    unknown: usize,
    unverified: usize,
    /// The first end among the chains that peers showed at their last scrape.
    first_expiry: Option<SystemTime>,
}

impl Tally {
    fn add(&mut self, target: &Target, status: &TargetStatus) {
        if target.verification == Verification::None {
            self.unverified += 1;
        }
        let Some(last) = &status.last else {
            self.unknown += 1;
            return;
        };
        match &last.failure {
            None => self.up += 1,
            Some(failure) => *self.down.entry(failure.reason).or_default() += 1,
        }
        let expiry = last.peer.as_ref().map(|peer| peer.not_after);
        self.first_expiry = self.first_expiry.into_iter().chain(expiry).min();
    }
}

impl Collector for TargetStates {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let jobs: Vec<(Arc<str>, Tally)> = self.0.visit(Tally::add);

        let mut gauge = |name, help, unit: Option<Unit>, series: &dyn Fn(&Tally) -> Series| {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for (job, tally) in &jobs {
                for (label, value) in series(tally) {
                    let labels: Vec<Label> = [("job", &**job)].into_iter().chain(label).collect();
                    ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
                }
            }
            Ok::<_, fmt::Error>(())
        };
        gauge(
            "meshscrape_targets",
            "Targets of a job by health: up, down, or unknown before the first scrape",
            None,
            &|tally| {
                let health = |name, count| (Some(("health", name)), count as f64);
                vec![
                    health("up", tally.up),
                    health("down", tally.down.values().sum()),
                    health("unknown", tally.unknown),
                ]
            },
        )?;
        gauge(
            "meshscrape_targets_down",
            "Targets whose last scrape failed, by reason; a reason that none has is absent",
            None,
            &|tally| {
                let by_reason = tally.down.iter();
                by_reason.map(|(reason, count)| (Some(("reason", reason.name())), *count as f64)).collect()
            },
        )?;
        gauge(
            "meshscrape_targets_unverified",
            "Targets that are scraped in plain text, so that nobody is verified",
            None,
            &|tally| vec![(None, tally.unverified as f64)],
        )?;
        gauge(
            "meshscrape_peer_certificate_first_expiry_timestamp",
            "When the first certificate ends among the chains that the targets of a job last showed, since 1970; a kept connection has the one of its handshake",
            Some(Unit::Seconds),
            &|tally| tally.first_expiry.map(|expiry| (None, unix_ms(expiry) as f64 / 1000.0)).into_iter().collect(),
        )
    }
}
