//! The one task that gathers what all sources say and hands it on as a set of targets.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{info, warn};

use super::job::Job;
use super::kubernetes::Watches;
use super::{Answer, Metrics, Problem, Snapshot, Waiting, files, http};
use crate::clock::Clock;
use crate::config::{FileSd, HttpSd, JobSecurity, KubernetesAccess, KubernetesSd, ScrapeConfig};
use crate::label;
use crate::model::{TargetSet, TrustDomain};

/// How long changes are gathered before a set is made of them.
const GATHER: Duration = Duration::from_millis(100);
/// For how long the first set of a configuration waits for a source or for the certificates of a job, from when they began. A
/// file system that hangs must not hold back the targets of others, nor a list that has never come a reload.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);

/// A job, and its certificates as they become known; ordinary jobs have nothing that would have to be read.
pub type Wanted = (Arc<ScrapeConfig>, watch::Receiver<Certificates>);

/// What is known of the certificates of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Whether their files have been read, whatever was in them.
    pub read: bool,
    /// The trust domain of the job's identity.
    pub trust_domain: Option<TrustDomain>,
}

impl Certificates {
    /// Those that have been read, and that name this trust domain.
    pub fn read(trust_domain: Option<TrustDomain>) -> Self {
        Self { read: true, trust_domain }
    }
}

/// What is reported to the manager.
pub(super) enum Update {
    /// Everything that one source knows.
    Answer { source: usize, answer: Answer },
    /// What is known of the certificates of one job.
    Certificates { job: usize, certificates: Certificates },
    /// Other jobs from now on.
    Jobs { jobs: Vec<Wanted>, revision: u64 },
}

pub(super) struct Manager {
    jobs: Vec<Job>,
    sources: Vec<Running>,
    /// The number of the next source or job; none is used twice.
    next: usize,
    watches: Watches,
    updates: mpsc::Receiver<Update>,
    /// Kept, so that waiting for updates never ends just because no source is left.
    reports: mpsc::Sender<Update>,
    cancel: CancellationToken,
    clock: Clock,
    metrics: Metrics,
    targets: watch::Sender<Arc<TargetSet>>,
    state: watch::Sender<Arc<Snapshot>>,
    /// Which configuration the jobs are of.
    revision: u64,
    /// Whether all sources that there were at some time had answered.
    first_pass_done: bool,
}

/// A source whose task runs.
struct Running {
    number: usize,
    source: Source,
    /// Its last answer; `None` before the first.
    answer: Option<Answer>,
    /// Until when it is waited for.
    patience: Instant,
    /// Ends the task with it.
    _stop: DropGuard,
}

/// What runs as a task of its own. Jobs that write the same share one.
#[derive(Clone, PartialEq)]
enum Source {
    Files(FileSd),
    Http(HttpSd),
    /// `https_only`: a job that verifies identities expects whom the API server names, which is not known yet.
    Kubernetes {
        config: KubernetesSd,
        https_only: bool,
    },
}

impl Source {
    /// What people call it.
    fn name(&self) -> String {
        match self {
            Source::Files(files) => {
                files.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
            }
            Source::Http(list) => list.shown_url(),
            Source::Kubernetes { config, .. } => format!("kubernetes_sd_configs with role {}", config.role.as_str()),
        }
    }
}

impl Running {
    /// Whether nothing is known of it, not even why.
    fn silent(&self) -> bool {
        !self.complete() && self.answer.as_ref().is_none_or(|answer| answer.problems.is_empty())
    }

    fn complete(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.complete)
    }
}

fn sources_of(job: &ScrapeConfig) -> impl Iterator<Item = Source> {
    let verifies = matches!(job.security, JobSecurity::Spiffe(_));
    let files = job.file_sd_configs.iter().cloned().map(Source::Files);
    let kubernetes = job.kubernetes_sd_configs.iter().cloned().map(move |config| {
        // Only a kubeconfig can still turn out to name a server without https. Elsewhere it makes no difference, and must not
        // keep two jobs from sharing.
        let https_only = verifies && matches!(config.access, KubernetesAccess::Kubeconfig(_));
        Source::Kubernetes { config, https_only }
    });
    let http = job.http_sd_configs.iter().cloned().map(Source::Http);
    files.chain(http).chain(kubernetes)
}

impl Manager {
    /// Without jobs yet; and how to tell it of them.
    pub(super) fn new(
        cancel: &CancellationToken,
        clock: Clock,
        metrics: Metrics,
        targets: watch::Sender<Arc<TargetSet>>,
        state: watch::Sender<Arc<Snapshot>>,
    ) -> (Self, mpsc::Sender<Update>) {
        let (reports, updates) = mpsc::channel(64);
        let manager = Self {
            jobs: Vec::new(),
            sources: Vec::new(),
            next: 0,
            watches: Watches::new(clock.clone(), metrics.kubernetes.clone()),
            updates,
            reports: reports.clone(),
            cancel: cancel.clone(),
            clock,
            metrics,
            targets,
            state,
            revision: 0,
            first_pass_done: false,
        };
        (manager, reports)
    }

    /// Takes these jobs in place of those that were known. A job that is the same goes on as it was, and so does a source
    /// that some job still has.
    pub(super) fn adopt(&mut self, wanted: Vec<Wanted>, revision: u64) {
        let mut before = std::mem::take(&mut self.jobs);
        self.revision = revision;
        for (config, certificates) in wanted {
            let known = before.extract_if(.., |job| job.config == config).next();
            let job = match known {
                Some(job) => job,
                None => self.job(config, certificates),
            };
            self.jobs.push(job);
        }
        self.sources.retain(|source| self.jobs.iter().any(|job| job.sources.contains(&source.number)));
        let name = |job: &Job| Arc::clone(&job.config.job_name);
        for gone in before.iter().map(name).filter(|gone| !self.jobs.iter().any(|job| name(job) == *gone)) {
            self.metrics.forget(&gone);
        }
    }

    fn job(&mut self, config: Arc<ScrapeConfig>, mut certificates: watch::Receiver<Certificates>) -> Job {
        let number = self.number();
        let known = certificates.borrow_and_update().clone();
        let stop = self.cancel.child_token();
        tokio::spawn(follow_certificates(number, certificates, self.reports.clone(), stop.clone()));
        let sources = sources_of(&config).map(|source| self.source(source)).collect();
        let patience = Instant::now() + FIRST_ANSWERS;
        Job::new(number, config, known, patience, self.revision > 0, sources, stop.drop_guard())
    }

    /// The number of a source: one that runs, or a new one.
    fn source(&mut self, wanted: Source) -> usize {
        if let Some(known) = self.sources.iter().find(|known| known.source == wanted) {
            return known.number;
        }
        let number = self.number();
        let stop = self.cancel.child_token();
        let sender = self.reports.clone();
        let report = move |answer| {
            let sender = sender.clone();
            async move { sender.send(Update::Answer { source: number, answer }).await.is_ok() }
        };
        match wanted.clone() {
            Source::Files(files) => {
                tokio::spawn(files::run(files, self.metrics.clone(), stop.clone(), report));
            }
            Source::Http(http) => {
                tokio::spawn(http::run(http, self.clock.clone(), self.metrics.clone(), stop.clone(), report));
            }
            Source::Kubernetes { config, https_only } => self.watches.spawn(config, https_only, stop.clone(), report),
        }
        let patience = Instant::now() + FIRST_ANSWERS;
        self.sources.push(Running { number, source: wanted, answer: None, patience, _stop: stop.drop_guard() });
        number
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Runs until `cancel`.
    pub(super) fn start(mut self, cancel: CancellationToken) {
        tokio::spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.run() => {}
            }
        });
    }

    async fn run(&mut self) {
        loop {
            self.first_answers().await;
            let revision = self.revision;
            while self.revision == revision {
                self.publish();
                let Some(update) = self.updates.recv().await else { return };
                self.take(update);
                let end = Instant::now() + GATHER;
                while self.revision == revision
                    && let Ok(Some(update)) = tokio::time::timeout_at(end, self.updates.recv()).await
                {
                    self.take(update);
                }
            }
        }
    }

    /// Waits until all that the jobs need has been there once, but not for ever.
    async fn first_answers(&mut self) {
        while let Some(until) = self.awaited_until() {
            if let Ok(Some(update)) = tokio::time::timeout_at(until, self.updates.recv()).await {
                self.take(update);
            }
        }
        if !self.complete() {
            warn!("not every source of targets has answered yet, those that have are scraped");
        }
    }

    /// Until when something is waited for, if anything still is.
    fn awaited_until(&self) -> Option<Instant> {
        let sources = self.sources.iter().filter(|source| !source.complete()).map(|source| source.patience);
        let jobs = self.jobs.iter().filter_map(Job::awaited_until);
        sources.chain(jobs).max().filter(|until| *until > Instant::now())
    }

    fn take(&mut self, update: Update) {
        match update {
            Update::Answer { source, answer } => {
                // One that is gone may still have had something to say.
                let Some(known) = self.sources.iter_mut().find(|known| known.number == source) else { return };
                self.metrics.received();
                let differs = known
                    .answer
                    .as_ref()
                    .is_none_or(|known| known.groups != answer.groups || known.unconfirmed != answer.unconfirmed);
                known.answer = Some(answer);
                if differs {
                    self.jobs.iter_mut().filter(|job| job.sources.contains(&source)).for_each(|job| job.stale = true);
                }
            }
            Update::Certificates { job, certificates } => {
                self.jobs
                    .iter_mut()
                    .filter(|known| known.number == job)
                    .for_each(|known| known.learn(certificates.clone()));
            }
            Update::Jobs { jobs, revision } => self.adopt(jobs, revision),
        }
    }

    /// Whether every source has said all that it has to say.
    fn complete(&self) -> bool {
        self.sources.iter().all(Running::complete)
    }

    fn publish(&mut self) {
        for job in self.jobs.iter_mut().filter(|job| job.stale) {
            let answer_of = |number: &usize| {
                let source = self.sources.iter().find(|source| source.number == *number)?;
                source.answer.as_ref()
            };
            job.renew(&job.sources.iter().filter_map(answer_of).collect::<Vec<_>>(), &self.metrics);
        }
        let jobs = self.jobs.iter().map(|job| (Arc::clone(&job.config.job_name), job.targets.clone())).collect();
        let mut set = TargetSet { jobs, revision: self.revision };
        let answers = || self.sources.iter().filter_map(|source| source.answer.as_ref());
        let groups = answers().flat_map(|answer| &answer.groups);
        let pods = groups.flat_map(|group| group.iter()).filter_map(|candidate| candidate.pod.as_ref());
        label::settle(&mut set, self.jobs.iter().map(|job| &*job.config), pods);
        for (job, (_, targets)) in self.jobs.iter_mut().zip(&set.jobs) {
            job.log_errors(targets, &self.metrics);
        }
        let active = set.active().count();
        let mut changed = false;
        self.targets.send_if_modified(|current| {
            changed = current.jobs != set.jobs;
            let differs = changed || current.revision != set.revision;
            if differs {
                *current = Arc::new(set);
            }
            differs
        });
        if changed {
            self.metrics.published();
            info!(active, "the targets have changed");
        }
        self.first_pass_done |= self.complete();
        let silent = self.sources.iter().filter(|source| source.silent()).map(|source| Problem {
            source: source.source.name(),
            message: "it has not answered yet: its targets are not known".to_owned(),
        });
        let mut waiting = Waiting::default();
        answers().for_each(|answer| waiting.join(&answer.waiting));
        // After the targets: who sees that the first pass is done also sees what it found.
        let snapshot = Snapshot {
            first_pass_done: self.first_pass_done,
            discovered: self.jobs.iter().map(|job| job.discovered).sum(),
            unconfirmed: answers().any(|answer| answer.unconfirmed.is_some()),
            problems: answers().flat_map(|answer| answer.problems.iter().cloned()).chain(silent).collect(),
            waiting,
        };
        self.state.send_replace(Arc::new(snapshot));
    }
}

async fn follow_certificates(
    job: usize,
    mut certificates: watch::Receiver<Certificates>,
    updates: mpsc::Sender<Update>,
    cancel: CancellationToken,
) {
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            changed = certificates.changed() => if changed.is_err() { return },
        }
        let certificates = certificates.borrow_and_update().clone();
        if updates.send(Update::Certificates { job, certificates }).await.is_err() {
            return;
        }
    }
}
