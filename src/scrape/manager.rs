//! Follows the target set: ends what is gone, then starts what is new.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::probe::Prober;
use super::task::{JobState, StatusCell, TargetTask};
use super::{Metrics, Probe, ProbeError, TargetStatus, schedule};
use crate::clock::Clock;
use crate::config::ScrapeConfig;
use crate::connect::{Client, CredentialsFeed};
use crate::model::{Block, DroppedTarget, Failure, JobTargets, Labels, Reason, Target, TargetId, TargetSet};
use crate::series::{Table, View};

/// One scrape config and what its connections are verified with.
#[derive(Clone)]
pub struct Job {
    /// The entry of the configuration.
    pub config: Arc<ScrapeConfig>,
    /// The certificates of a job that verifies SPIFFE IDs.
    pub credentials: Option<CredentialsFeed>,
}

/// What scraping needs from the rest of the agent.
pub struct Context {
    /// All jobs, by name.
    pub jobs: Vec<Job>,
    /// How receivers see series.
    pub views: Arc<[View]>,
    /// The external labels.
    pub external: Labels,
    /// Where blocks go.
    pub blocks: mpsc::Sender<Block>,
    /// Wall time.
    pub clock: Clock,
    /// This host's name: tells the phases of this agent from those of others.
    pub host: String,
    /// Counters.
    pub metrics: Metrics,
}

/// What people see of a job.
#[derive(Clone, Debug)]
pub struct PoolSnapshot {
    /// The job's name.
    pub pool: Arc<str>,
    /// Its entry of the configuration.
    pub config: Arc<ScrapeConfig>,
    /// Its targets.
    pub active: Vec<TargetSnapshot>,
    /// What is not scraped, as far as it is remembered.
    pub dropped: Vec<Arc<DroppedTarget>>,
    /// How many are not scraped, complete.
    pub dropped_count: usize,
}

/// A target and how it fares.
#[derive(Clone, Debug)]
pub struct TargetSnapshot {
    /// The target.
    pub target: Arc<Target>,
    /// How it fares.
    pub status: TargetStatus,
}

/// A look at the running scrapers. It changes nothing about them.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Mutex<Shared>>,
    prober: Arc<Prober>,
}

#[derive(Default)]
struct Shared {
    set: Arc<TargetSet>,
    statuses: HashMap<TargetId, StatusCell>,
}

impl Handle {
    /// What runs now, by job in the order of the config file.
    pub fn snapshot(&self) -> Vec<PoolSnapshot> {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = |target: &Arc<Target>| TargetSnapshot {
            target: Arc::clone(target),
            status: shared.statuses.get(&target.id).map(StatusCell::read).unwrap_or_default(),
        };
        let pool = |(pool, job): &(Arc<str>, JobTargets)| {
            Some(PoolSnapshot {
                pool: Arc::clone(pool),
                config: Arc::clone(&self.prober.job(pool)?.config),
                active: job.active.iter().map(snapshot).collect(),
                dropped: job.dropped.clone(),
                dropped_count: job.dropped_count,
            })
        };
        shared.set.jobs.iter().filter_map(pool).collect()
    }

    /// Scrapes an active target once, apart from its beat; see [`Probe`].
    ///
    /// # Errors
    /// If no active target is called `id`, or another probe is under way. That the scrape fails is no error.
    pub async fn probe(&self, id: TargetId) -> Result<Probe, ProbeError> {
        let active = {
            let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
            shared.set.active().find(|target| target.id == id).cloned()
        };
        self.prober.probe(active.ok_or(ProbeError::UnknownTarget)?).await
    }
}

/// Starts scraping whatever `targets` names, until `stop` is cancelled; the join handle ends when every target's task has
/// ended.
pub fn spawn(
    context: Context,
    targets: watch::Receiver<Arc<TargetSet>>,
    stop: CancellationToken,
) -> (Handle, JoinHandle<()>) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let states: HashMap<Arc<str>, watch::Sender<JobState>> =
        context.jobs.iter().map(|job| (Arc::clone(&job.config.job_name), watch::Sender::default())).collect();
    let jobs = context.jobs.iter().map(|job| (job.clone(), states[&job.config.job_name].subscribe())).collect();
    let prober = Arc::new(Prober::new(jobs, context.clock.clone()));
    let manager = Manager {
        seed: schedule::seed(&context.host, &context.external),
        states,
        running: HashMap::new(),
        shared: Arc::clone(&shared),
        context,
        stop,
    };
    (Handle { shared, prober }, tokio::spawn(manager.run(targets)))
}

struct Manager {
    context: Context,
    seed: u64,
    /// What holds for each job now, for the tasks of its targets.
    states: HashMap<Arc<str>, watch::Sender<JobState>>,
    running: HashMap<TargetId, Running>,
    shared: Arc<Mutex<Shared>>,
    stop: CancellationToken,
}

struct Running {
    target: Arc<Target>,
    /// Whether its pod is terminating, for its task.
    leaving: watch::Sender<bool>,
    gone: CancellationToken,
    task: JoinHandle<()>,
}

impl Manager {
    async fn run(mut self, mut targets: watch::Receiver<Arc<TargetSet>>) {
        loop {
            let set = Arc::clone(&targets.borrow_and_update());
            self.follow(set).await;
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = targets.changed() => if changed.is_err() {
                    // Discovery has ended; what is known goes on until the process stops.
                    self.stop.cancelled().await;
                    break;
                },
            }
        }
        for (_, running) in self.running.drain() {
            join(running.task).await;
        }
    }

    async fn follow(&mut self, set: Arc<TargetSet>) {
        self.end_those_gone(&set).await;
        for (pool, job) in &set.jobs {
            self.judge(pool, job);
            let known = self.context.jobs.iter().position(|known| known.config.job_name == *pool);
            let Some(at) = known else {
                error!(job = &**pool, "BUG: discovery names a job that the configuration does not have");
                continue;
            };
            for target in &job.active {
                match self.running.get(&target.id) {
                    Some(running) => {
                        running.leaving.send_if_modified(|known| {
                            let leaving = is_leaving(target);
                            std::mem::replace(known, leaving) != leaving
                        });
                    }
                    None => self.start(at, target),
                }
            }
        }
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).set = set;
    }

    /// A target that changed in any way has ended, too: it is not the same one.
    async fn end_those_gone(&mut self, set: &TargetSet) {
        let wanted: HashMap<_, _> = set.active().map(|target| (target.id, target)).collect();
        let gone: Vec<_> = self
            .running
            .extract_if(|id, running| wanted.get(id).is_none_or(|target| !target.continues(&running.target)))
            .collect();
        for (_, running) in &gone {
            running.gone.cancel();
        }
        for (id, running) in gone {
            join(running.task).await;
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).statuses.remove(&id);
        }
    }

    /// Tells the tasks of a job what holds for all of them. Those whose pod has been replaced have ended before, so that
    /// none of them is told that its pod is certain again.
    fn judge(&self, pool: &Arc<str>, job: &JobTargets) {
        self.context.metrics.pool(pool, job.active.len());
        let Some(known) = self.context.jobs.iter().find(|known| known.config.job_name == *pool) else { return };
        let limit = known.config.limits.target_limit;
        let over = limit > 0 && job.active.len() as u64 > limit;
        if over {
            self.context.metrics.over_target_limit();
        }
        let refusal = over.then(|| {
            let detail = format!("target_limit exceeded (number of targets: {}, limit: {limit})", job.active.len());
            Failure::new(Reason::TargetLimit, detail)
        });
        if let Some(state) = self.states.get(pool) {
            let new = JobState { refusal, unconfirmed: job.unconfirmed };
            state.send_if_modified(|current| std::mem::replace(current, new.clone()) != new);
        }
    }

    fn start(&mut self, job: usize, target: &Arc<Target>) {
        let Job { config, credentials } = &self.context.jobs[job];
        let client = Client::for_target(target, config, credentials.clone(), &self.context.clock);
        let status = StatusCell::default();
        let gone = CancellationToken::new();
        let leaving = watch::Sender::new(is_leaving(target));
        let task = TargetTask {
            target: Arc::clone(target),
            job: Arc::clone(config),
            client,
            table: Table::new(Arc::clone(config), target, Arc::clone(&self.context.views), &self.context.external),
            blocks: self.context.blocks.clone(),
            clock: self.context.clock.clone(),
            seed: self.seed,
            metrics: self.context.metrics.clone(),
            status: status.clone(),
            state: self.states[&config.job_name].subscribe(),
            leaving: leaving.subscribe(),
            gone: gone.clone(),
            stop: self.stop.clone(),
        };
        let task = tokio::spawn(task.run());
        info!(job = &*config.job_name, target = %crate::model::clean(target.labels.value("instance")), "scraping");
        self.running.insert(target.id, Running { target: Arc::clone(target), leaving, gone, task });
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).statuses.insert(target.id, status);
    }
}

fn is_leaving(target: &Target) -> bool {
    target.pod.as_ref().is_some_and(|pod| pod.terminating)
}

async fn join(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        error!(%error, "BUG: the task of a target ended abnormally");
    }
}
