//! One job: what its sources say, judged, as targets.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::DropGuard;
use tracing::warn;

use super::{Answer, Certificates, Group, Metrics, fixed};
use crate::config::{JobSecurity, ScrapeConfig};
use crate::label::{self, Judged};
use crate::model::{DropCause, JobTargets, clean};

/// How many errors about targets of a job one pass writes to the log.
const LOGGED_ERRORS: usize = 10;

pub(super) struct Job {
    /// Tells it from others that may have its name later.
    pub(super) number: usize,
    pub(super) config: Arc<ScrapeConfig>,
    certificates: Certificates,
    /// Until when they are waited for.
    patience: Instant,
    /// Whether it has come in place of others, which know whom to expect.
    replaces: bool,
    fixed: Group,
    /// Its sources, by their numbers; jobs with equal entries share one.
    pub(super) sources: Vec<usize>,
    /// What became of each group, by its address; for the trust domain that is known now.
    judged: HashMap<usize, (Group, Vec<Judged>)>,
    /// Whether something changed since `targets` was made.
    pub(super) stale: bool,
    pub(super) targets: JobTargets,
    pub(super) discovered: usize,
    /// What was wrong with its targets at the last pass, so that each is logged once.
    errors: BTreeSet<String>,
    /// Ends the task that follows its certificates.
    _stop: DropGuard,
}

impl Job {
    /// A job of which nothing is known but what it says itself. `stop` ends what follows its certificates.
    pub(super) fn new(
        number: usize,
        config: Arc<ScrapeConfig>,
        certificates: Certificates,
        patience: Instant,
        replaces: bool,
        sources: Vec<usize>,
        stop: DropGuard,
    ) -> Self {
        Self {
            number,
            fixed: Arc::new(fixed::candidates_of(&config)),
            judged: HashMap::new(),
            certificates,
            patience,
            replaces,
            sources,
            config,
            stale: true,
            targets: JobTargets::default(),
            discovered: 0,
            errors: BTreeSet::new(),
            _stop: stop,
        }
    }

    /// Until when its certificates are waited for, if they are: a scrape before they have been read fails for nothing. One that
    /// comes in place of others is to know whom to expect, too.
    pub(super) fn awaited_until(&self) -> Option<Instant> {
        let verifies = matches!(self.config.security, JobSecurity::Spiffe(_));
        let knows_whom = !verifies || self.certificates.trust_domain.is_some();
        let waits = !self.certificates.read || self.replaces && !knows_whom;
        waits.then_some(self.patience)
    }

    /// This is known of its certificates now.
    pub(super) fn learn(&mut self, certificates: Certificates) {
        if self.certificates.trust_domain != certificates.trust_domain {
            self.judged.clear();
            self.stale = true;
        }
        self.certificates = certificates;
    }

    /// Makes its targets of what it says itself and of these answers of its sources.
    pub(super) fn renew(&mut self, answers: &[&Answer], metrics: &Metrics) {
        let groups: Vec<Group> =
            std::iter::once(&self.fixed).chain(answers.iter().flat_map(|answer| &answer.groups)).cloned().collect();
        self.judge(&groups);
        let judged = groups.iter().flat_map(|group| &self.judged[&address(group)].1);
        self.targets = label::assemble(&self.config, judged);
        self.targets.unconfirmed = answers.iter().filter_map(|answer| answer.unconfirmed).min();
        metrics.unconfirmed(&self.config.job_name, self.targets.unconfirmed.is_some());
        self.discovered = groups.iter().map(|group| group.len()).sum();
        self.stale = false;
        metrics.discovered(&self.config.job_name, self.discovered);
    }

    /// Judges the groups that are new and forgets those that are gone: in a large cluster a pass costs what has changed.
    fn judge(&mut self, groups: &[Group]) {
        let mut known = std::mem::take(&mut self.judged);
        for group in groups {
            let judged = known.remove(&address(group)).unwrap_or_else(|| {
                let judge = |candidate| label::judge(&self.config, candidate, self.certificates.trust_domain.as_ref());
                (Arc::clone(group), group.iter().map(judge).collect())
            });
            self.judged.insert(address(group), judged);
        }
    }

    /// Says what is wrong with targets, each once while it is so. `targets` are those of the settled set.
    pub(super) fn log_errors(&mut self, targets: &JobTargets, metrics: &Metrics) {
        let unfit = targets.dropped.iter().filter_map(|target| target.error.as_ref());
        metrics.failed(&self.config.job_name, unfit.clone().count());
        let malformed = targets.dropped.iter().filter(|target| target.cause == DropCause::Malformed).count();
        metrics.left_out(&self.config.job_name, malformed, targets.surplus);
        let errors: BTreeSet<String> = unfit.cloned().collect();
        for error in errors.difference(&self.errors).take(LOGGED_ERRORS) {
            warn!(job = &*self.config.job_name, error = %clean(error), "creating a target failed");
        }
        self.errors = errors;
    }
}

/// What a group is known by. It is unique while the group is held.
fn address(group: &Group) -> usize {
    Arc::as_ptr(group).addr()
}
