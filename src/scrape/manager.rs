//! Follows the target set and the configuration: ends what is gone, tells the rest what has changed, then starts what is
//! new.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::merge::MergeWatch;
use super::orders::Orders;
use super::probe::{Prober, Wanted};
use super::state::TargetStates;
use super::task::{JobState, StatusCell, TargetTask};
use super::{Budget, Metrics, Probe, ProbeError, TargetStatus, schedule};
use crate::clock::Clock;
use crate::config::ScrapeConfig;
use crate::connect::CredentialsFeed;
use crate::model::{
    Block, DropCause, DroppedTarget, Failure, JobTargets, Labels, Reason, Target, TargetId, TargetSet, clean,
};
use crate::series::{Catalogue, Descriptions, Table, View};
use crate::telemetry::Repeated;
use crate::token::Tokens;

/// That targets belong to no tenant is said at most this often.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// One scrape config and what its connections are verified with.
#[derive(Clone)]
pub struct Job {
    /// The entry of the configuration.
    pub config: Arc<ScrapeConfig>,
    /// The certificates of a job that verifies SPIFFE IDs.
    pub credentials: Option<CredentialsFeed>,
    /// The tokens of a job with `oauth2`.
    pub tokens: Option<Tokens>,
}

/// What a configuration says of scraping. What is the same in the next one is the same `Arc` there.
#[derive(Clone)]
pub struct Setup {
    /// Which configuration it is, counted from 0: it holds for the target sets with this number.
    pub revision: u64,
    /// All jobs, by name.
    pub jobs: Vec<Job>,
    /// How receivers see series.
    pub views: Arc<[View]>,
    /// The external labels.
    pub external: Arc<Labels>,
    /// How many bytes all scrapes under way may hold together.
    pub memory_limit: u64,
}

/// What scraping needs from the rest of the agent.
pub struct Context {
    /// Where blocks go.
    pub blocks: mpsc::Sender<Block>,
    /// Wall time.
    pub clock: Clock,
    /// This host's name: tells the phases of this agent from those of others.
    pub host: String,
    /// Counters.
    pub metrics: Metrics,
    /// Where targets describe their metric families.
    pub catalogue: Catalogue,
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
    /// How many of them each relabel rule dropped, by its number counted from 0, complete.
    pub dropped_by_rule: BTreeMap<usize, usize>,
    /// How many of them their namespaces have too many of, complete.
    pub surplus: usize,
}

impl PoolSnapshot {
    /// How many are not scraped for this kind of reason, complete.
    pub fn left_out(&self, cause: DropCause) -> usize {
        match cause {
            DropCause::Rule => self.dropped_by_rule.values().sum(),
            DropCause::Surplus => self.surplus,
            // All of them are remembered.
            DropCause::Malformed | DropCause::Superseded => {
                self.dropped.iter().filter(|dropped| dropped.cause == cause).count()
            }
        }
    }
}

/// A target and how it fares.
#[derive(Clone, Debug)]
pub struct TargetSnapshot {
    /// The target.
    pub target: Arc<Target>,
    /// How it fares.
    pub status: TargetStatus,
}

/// A look at the running scrapers. It changes nothing about them but by [`Handle::adopt`].
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Mutex<Shared>>,
    prober: Arc<Prober>,
    setups: watch::Sender<Arc<Setup>>,
    in_force: watch::Receiver<u64>,
}

/// What is scraped now. All of it is of one configuration.
#[derive(Default)]
struct Shared {
    set: Arc<TargetSet>,
    pools: HashMap<Arc<str>, Pool>,
    statuses: HashMap<TargetId, StatusCell>,
}

/// A job, and what holds for all of its targets now.
#[derive(Clone)]
struct Pool {
    job: Job,
    state: watch::Sender<JobState>,
}

impl Handle {
    /// What runs now, by job in the order of the config file.
    pub fn snapshot(&self) -> Vec<PoolSnapshot> {
        let shared = lock(&self.shared);
        let snapshot = |target: &Arc<Target>| TargetSnapshot {
            target: Arc::clone(target),
            status: shared.statuses.get(&target.id).map(StatusCell::read).unwrap_or_default(),
        };
        let pool = |(pool, job): &(Arc<str>, JobTargets)| {
            Some(PoolSnapshot {
                pool: Arc::clone(pool),
                config: Arc::clone(&shared.pools.get(pool)?.job.config),
                active: job.active.iter().map(snapshot).collect(),
                dropped: job.dropped.clone(),
                dropped_count: job.dropped_count,
                dropped_by_rule: job.dropped_by_rule.clone(),
                surplus: job.surplus,
            })
        };
        shared.set.jobs.iter().filter_map(pool).collect()
    }

    /// Registers the metrics of the state that targets are in.
    pub fn register_metrics(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(TargetStates(self.clone())));
    }

    /// Shows each job with every one of its targets to `see`, a target with its status.
    pub(super) fn visit<T: Default>(&self, see: impl Fn(&mut T, &Target, &TargetStatus)) -> Vec<(Arc<str>, T)> {
        let shared = lock(&self.shared);
        let job = |(name, targets): &(Arc<str>, JobTargets)| {
            let mut seen = T::default();
            for target in &targets.active {
                match shared.statuses.get(&target.id) {
                    Some(status) => status.look(|status| see(&mut seen, target, status)),
                    None => see(&mut seen, target, &TargetStatus::default()),
                }
            }
            (Arc::clone(name), seen)
        };
        shared.set.jobs.iter().map(job).collect()
    }

    /// Scrapes an active target once, apart from its beat; see [`Probe`].
    ///
    /// # Errors
    /// If no active target is called `id`, or another probe is under way. That the scrape fails is no error.
    pub async fn probe(&self, id: TargetId, wanted: Wanted) -> Result<Probe, ProbeError> {
        let active = {
            let shared = lock(&self.shared);
            let target = shared.set.active().find(|target| target.id == id).cloned();
            target.and_then(|target| Some((shared.pools.get(&target.pool)?.clone(), target)))
        };
        let (Pool { job, state }, target) = active.ok_or(ProbeError::UnknownTarget)?;
        let state = state.borrow().clone();
        let setup = Arc::clone(&self.setups.borrow());
        let table = Table::new(Arc::clone(&job.config), &target, Arc::clone(&setup.views), &setup.external);
        self.prober.probe(&job, state, target, table, wanted).await
    }

    /// Scrapes by another configuration as soon as the targets that it leads to are known.
    pub fn adopt(&self, setup: Setup) {
        self.setups.send_replace(Arc::new(setup));
    }

    /// Waits until scraping follows this configuration, or a later one, or has ended.
    pub async fn in_force(&self, revision: u64) {
        // An error says that scraping has ended.
        let _ = self.in_force.clone().wait_for(|followed| *followed >= revision).await;
    }
}

/// Starts scraping whatever `targets` names, until `stop` is cancelled; the join handle ends when every target's task has
/// ended.
pub fn spawn(
    context: Context,
    setup: Setup,
    targets: watch::Receiver<Arc<TargetSet>>,
    stop: CancellationToken,
) -> (Handle, JoinHandle<()>) {
    let shared = Arc::new(Mutex::new(Shared::default()));
    let budget = Budget::new(setup.memory_limit, context.metrics.held_bytes());
    let prober = Arc::new(Prober::new(context.clock.clone(), budget.clone()));
    let setup = Arc::new(setup);
    let (setups, setups_seen) = watch::channel(Arc::clone(&setup));
    let (followed, in_force) = watch::channel(setup.revision);
    let manager = Manager {
        pools: HashMap::new(),
        running: HashMap::new(),
        shared: Arc::clone(&shared),
        context,
        budget,
        setup,
        setups: setups_seen,
        followed,
        stop,
        without_tenant: Repeated::new(SAY_EVERY),
    };
    (Handle { shared, prober, setups, in_force }, tokio::spawn(manager.run(targets)))
}

struct Manager {
    context: Context,
    budget: Budget,
    /// The configuration that is followed.
    setup: Arc<Setup>,
    setups: watch::Receiver<Arc<Setup>>,
    followed: watch::Sender<u64>,
    pools: HashMap<Arc<str>, Pool>,
    running: HashMap<TargetId, Running>,
    shared: Arc<Mutex<Shared>>,
    stop: CancellationToken,
    /// How often it was said that a target belongs to no tenant.
    without_tenant: Repeated,
}

struct Running {
    /// What its task was told last.
    orders: watch::Sender<Arc<Orders>>,
    /// Whether its pod is terminating, for its task.
    leaving: watch::Sender<bool>,
    gone: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn target(&self) -> Arc<Target> {
        Arc::clone(&self.orders.borrow().target)
    }
}

impl Manager {
    async fn run(mut self, mut targets: watch::Receiver<Arc<TargetSet>>) {
        loop {
            let set = Arc::clone(&targets.borrow_and_update());
            let setup = Arc::clone(&self.setups.borrow());
            // Else the targets are still those of the configuration before, and their next set is awaited.
            if set.revision == setup.revision {
                self.setup = setup;
                self.budget.set_limit(self.setup.memory_limit);
                self.follow(set).await;
                self.followed.send_replace(self.setup.revision);
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                changed = targets.changed() => if changed.is_err() {
                    // Discovery has ended; what is known goes on until the process stops, and nobody needs to wait for more.
                    self.followed.send_replace(u64::MAX);
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
        self.hand_over(&set);
        self.end_those_gone(&set).await;
        self.renew_pools();
        for (name, targets) in &set.jobs {
            let Some(pool) = self.pools.get(name).cloned() else {
                error!(job = &**name, "BUG: discovery names a job that the configuration does not have");
                continue;
            };
            let began = Instant::now();
            self.judge(&pool, targets);
            for target in &targets.active {
                self.tell_of_tenants(target);
                let orders = self.orders(&pool, target);
                match self.running.get(&target.id) {
                    Some(running) => {
                        running.leaving.send_if_modified(|known| {
                            let leaving = is_leaving(target);
                            std::mem::replace(known, leaving) != leaving
                        });
                        running.orders.send_if_modified(|known| {
                            let differs = !known.say_the_same(&orders);
                            *known = orders;
                            differs
                        });
                    }
                    None => self.start(orders, &pool),
                }
            }
            self.context.metrics.synced(name, began.elapsed());
        }
        let mut shared = lock(&self.shared);
        shared.pools.clone_from(&self.pools);
        shared.set = set;
    }

    /// A target that is only reached in another way, so that it has another name, goes on with what is remembered of it.
    fn hand_over(&mut self, set: &TargetSet) {
        let wanted: HashMap<_, _> = set.active().map(|target| (target.id, target)).collect();
        let stays = |running: &Running| {
            wanted.get(&running.target().id).is_some_and(|target| target.succeeds(&running.target()))
        };
        let leaving = self.running.iter().filter(|(_, running)| !stays(running));
        let mut leaving: HashMap<_, _> = leaving
            .map(|(id, running)| {
                let target = running.target();
                ((Arc::clone(&target.pool), target.labels.clone()), *id)
            })
            .collect();
        if leaving.is_empty() {
            return;
        }
        for target in set.active().filter(|target| !self.running.contains_key(&target.id)).collect::<Vec<_>>() {
            let Some(id) = leaving.remove(&(Arc::clone(&target.pool), target.labels.clone())) else { continue };
            if let Some(running) = self.running.remove(&id) {
                if target.succeeds(&running.target()) {
                    self.running.insert(target.id, running);
                    let statuses = &mut lock(&self.shared).statuses;
                    let status = statuses.remove(&id);
                    statuses.extend(status.map(|status| (target.id, status)));
                } else {
                    self.running.insert(id, running);
                }
            }
        }
    }

    /// A target with another pod behind it has ended, too: it is not the same one.
    async fn end_those_gone(&mut self, set: &TargetSet) {
        let wanted: HashMap<_, _> = set.active().map(|target| (target.id, target)).collect();
        let gone: Vec<_> = self
            .running
            .extract_if(|id, running| wanted.get(id).is_none_or(|target| !target.succeeds(&running.target())))
            .collect();
        for (_, running) in &gone {
            running.gone.cancel();
        }
        for (id, running) in gone {
            join(running.task).await;
            lock(&self.shared).statuses.remove(&id);
        }
    }

    /// The pools of the configuration that is followed; one that goes on keeps its state.
    fn renew_pools(&mut self) {
        let mut before = std::mem::take(&mut self.pools);
        for job in &self.setup.jobs {
            let state = before.remove(&job.config.job_name).map(|pool| pool.state).unwrap_or_default();
            self.pools.insert(Arc::clone(&job.config.job_name), Pool { job: job.clone(), state });
        }
        before.keys().for_each(|gone| self.context.metrics.forget(gone));
    }

    /// Tells the tasks of a job what holds for all of them. Those whose pod has been replaced have ended before, so that
    /// none of them is told that its pod is certain again.
    fn judge(&self, pool: &Pool, targets: &JobTargets) {
        let config = &pool.job.config;
        self.context.metrics.pool(&config.job_name, targets.active.len());
        let limit = config.limits.target_limit;
        let over = limit > 0 && targets.active.len() as u64 > limit;
        if over {
            self.context.metrics.over_target_limit();
        }
        let refusal = over.then(|| {
            let detail = format!("target_limit exceeded (number of targets: {}, limit: {limit})", targets.active.len());
            Failure::new(Reason::TargetLimit, detail)
        });
        let new = JobState { refusal, unconfirmed: targets.unconfirmed };
        pool.state.send_if_modified(|current| std::mem::replace(current, new.clone()) != new);
    }

    /// Says that a target which is new, or is asked anew whose it is, belongs to no tenant of a receiver.
    fn tell_of_tenants(&mut self, target: &Target) {
        let known = self.running.get(&target.id).map(Running::target);
        for (rule, tenant) in target.tenants.iter() {
            let Err(why) = tenant else { continue };
            let is_known = known.as_ref().is_some_and(|known| known.tenants.iter().any(|(other, _)| other == rule));
            if !is_known && let Some(held_back) = self.without_tenant.speak() {
                warn!(
                    job = &*target.pool,
                    target = %clean(target.labels.value("instance")),
                    template = rule.template(),
                    %why,
                    held_back,
                    "a target belongs to no tenant: its samples are not sent to receivers with this template"
                );
            }
        }
    }

    fn orders(&self, pool: &Pool, target: &Arc<Target>) -> Arc<Orders> {
        Arc::new(Orders {
            target: Arc::clone(target),
            job: pool.job.clone(),
            views: Arc::clone(&self.setup.views),
            external: Arc::clone(&self.setup.external),
            seed: schedule::seed(&self.context.host, &self.setup.external),
        })
    }

    fn start(&mut self, orders: Arc<Orders>, pool: &Pool) {
        let target = Arc::clone(&orders.target);
        let status = StatusCell::default();
        let gone = CancellationToken::new();
        let leaving = watch::Sender::new(is_leaving(&target));
        let task = TargetTask {
            client: orders.client(&self.context.clock),
            table: orders.table(),
            descriptions: Descriptions::new(&self.context.catalogue),
            merges: MergeWatch::default(),
            blocks: self.context.blocks.clone(),
            clock: self.context.clock.clone(),
            metrics: self.context.metrics.clone(),
            budget: self.budget.clone(),
            status: status.clone(),
            state: pool.state.subscribe(),
            leaving: leaving.subscribe(),
            gone: gone.clone(),
            stop: self.stop.clone(),
            orders: Arc::clone(&orders),
        };
        let orders = watch::Sender::new(orders);
        let task = tokio::spawn(task.run(orders.subscribe()));
        info!(job = &*target.pool, target = %clean(target.labels.value("instance")), "scraping");
        self.running.insert(target.id, Running { orders, leaving, gone, task });
        lock(&self.shared).statuses.insert(target.id, status);
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn is_leaving(target: &Target) -> bool {
    target.pod.as_ref().is_some_and(|pod| pod.terminating)
}

async fn join(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        error!(%error, "BUG: the task of a target ended abnormally");
    }
}
