//! The receivers: which of them run, and what becomes of one that the next configuration lacks or has otherwise.
//!
//! Each has a number, which blocks carry and which stays with its place: the URL without its query, the tenant, and the
//! user or the client of `oauth2`. What always holds: a receiver that has not changed is not touched; what was queued
//! for one that is gone, or that has changed, is delivered as it was configured, within the flush deadline, and else
//! counted as lost, and its counters go when that is done; one begins when whoever was sent to the same URL has ended,
//! so that samples stay in order.
//!
//! With a data directory nothing is lost so: what was queued for one that has changed is sent as the new configuration says,
//! and what was queued for one that is gone stays on disk for a while, in case it comes back. Whose a directory is, is said
//! by [`send::spool_name`]; of receivers that it cannot tell apart only the first has that name, and the others add their own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::counted::Counted;
use super::identities::Identities;
use crate::clock::Clock;
use crate::config::{CatchUp, RemoteWrite};
use crate::send::{self, HistogramsDropped, MetadataSource, Monitor, Prepared, SendError, Undelivered};
use crate::series::{self, View};
use crate::spool::{DiskLimits, DiskSettings, QueueSettings, QueueSnapshot, Spool};

/// All receivers, and the way to them.
pub(super) struct Receivers {
    spool: Spool,
    metrics: Counted,
    clock: Clock,
    identities: Identities,
    /// Cancelled when time to deliver is up.
    give_up: CancellationToken,
    flush_deadline: Duration,
    metadata: MetadataSource,
    /// In the order of the configuration.
    running: Vec<Running>,
    /// Those that are gone, as long as they deliver what they have.
    leaving: Vec<Leaving>,
    next_number: usize,
    /// Windows on those that run, in the order in which they began.
    monitors: watch::Sender<Vec<Monitor>>,
}

struct Running {
    number: usize,
    remote: Arc<RemoteWrite>,
    /// Of its queue, if that is on disk.
    directory: Option<String>,
    queue: Observer,
    monitor: Monitor,
    task: JoinHandle<Undelivered>,
    give_up: CancellationToken,
    /// Cancelled by the end of the task.
    ended: CancellationToken,
}

/// Tells what is in a queue.
type Observer = Box<dyn Fn() -> QueueSnapshot + Send + Sync>;

struct Leaving {
    remote: Arc<RemoteWrite>,
    directory: Option<String>,
    task: JoinHandle<Undelivered>,
    give_up: CancellationToken,
    /// Cancelled by the end of the task.
    ended: CancellationToken,
}

/// Whether what is for one is for the other as well: blocks that are made while a reload is under way go to who has the
/// number, and must not come to another tenant.
fn same_place(one: &RemoteWrite, other: &RemoteWrite) -> bool {
    send::spool_name(one) == send::spool_name(other)
}

/// The way from the receivers that run to those of another configuration.
pub(super) struct Plan(Vec<Step>);

enum Step {
    /// The receiver with this number goes on.
    Keep(usize),
    /// A receiver begins, in place of the one with this number or as a new one.
    Begin { prepared: Prepared, instead_of: Option<usize> },
}

impl Receivers {
    /// None yet. `give_up` ends delivery.
    pub(super) fn new(
        spool: Spool,
        metrics: Counted,
        clock: Clock,
        identities: Identities,
        give_up: CancellationToken,
        flush_deadline: Duration,
        metadata: MetadataSource,
    ) -> Self {
        Self {
            spool,
            metrics,
            clock,
            identities,
            give_up,
            flush_deadline,
            metadata,
            running: Vec::new(),
            leaving: Vec::new(),
            next_number: 0,
            monitors: watch::Sender::default(),
        }
    }

    /// How those that run are doing, for people.
    pub(super) fn monitors(&self) -> watch::Receiver<Vec<Monitor>> {
        self.monitors.subscribe()
    }

    /// How to come to `wanted`. Nothing is changed yet, and nothing fails once there is a plan.
    pub(super) fn plan(&self, wanted: &[Arc<RemoteWrite>]) -> Result<Plan, SendError> {
        let mut left: Vec<&Running> = self.running.iter().collect();
        let mut take = |which: &dyn Fn(&RemoteWrite) -> bool| {
            let at = left.iter().position(|running| which(&running.remote))?;
            Some(left.remove(at).number)
        };
        // Who is the same is found first, so that nobody takes his place.
        let kept: Vec<_> = wanted.iter().map(|remote| take(&|known| known == &**remote)).collect();
        let namesakes: Vec<_> = wanted
            .iter()
            .zip(&kept)
            .map(|(remote, kept)| match kept {
                Some(_) => None,
                None => take(&|known| same_place(known, remote) && known.name == remote.name),
            })
            .collect();
        let steps = wanted.iter().zip(kept).zip(namesakes).map(|((remote, kept), namesake)| {
            Ok(match kept {
                Some(number) => Step::Keep(number),
                None => Step::Begin {
                    prepared: Prepared::new(Arc::clone(remote))?,
                    instead_of: namesake.or_else(|| take(&|known| same_place(known, remote))),
                },
            })
        });
        Ok(Plan(steps.collect::<Result<_, _>>()?))
    }

    /// Goes on as planned; the plan must be one for the receivers that run now.
    pub(super) fn follow(&mut self, Plan(steps): Plan) {
        self.leaving.retain(|gone| !gone.task.is_finished());
        let mut before = std::mem::take(&mut self.running);
        let mut named = |number: usize| before.extract_if(.., |running| running.number == number).next();
        let mut begin = Vec::new();
        for step in steps {
            match step {
                Step::Keep(number) => self.running.extend(named(number)),
                Step::Begin { prepared, instead_of } => begin.push((prepared, instead_of.and_then(&mut named))),
            }
        }
        for gone in before {
            self.spool.close(gone.number);
            self.end(gone);
        }
        // Who has a directory keeps it, and whoever is new finds another.
        begin.sort_by_key(|(_, predecessor): &(_, Option<Running>)| predecessor.is_none());
        for (prepared, predecessor) in begin {
            self.begin(prepared, predecessor);
        }
        self.monitors.send_replace(self.running.iter().map(|running| running.monitor.clone()).collect());
        if self.running.is_empty() {
            warn!("no remote_write is configured: targets are scraped and nothing is forwarded");
        }
    }

    fn begin(&mut self, prepared: Prepared, predecessor: Option<Running>) {
        let number = predecessor.as_ref().map_or(self.next_number, |known| known.number);
        self.next_number = self.next_number.max(number + 1);
        let remote = Arc::clone(prepared.remote());
        self.metrics.hold(&remote);
        let before = predecessor.as_ref().filter(|known| same_place(&known.remote, &remote));
        let directory = self.spool.is_on_disk().then(|| {
            let its_own = before.and_then(|known| known.directory.clone());
            its_own.unwrap_or_else(|| self.directory_for(&remote))
        });
        if directory.is_none() && remote.queue.catch_up == CatchUp::NewestFirst {
            warn!(
                queue = remote.name,
                "catch_up: newest_first has no effect without a queue on disk: give --data-dir, or take it out"
            );
        }
        let settings = QueueSettings {
            name: remote.name.clone(),
            labels: send::labels(&remote),
            capacity_bytes: remote.queue.max_memory,
            disk: directory.clone().map(|directory| DiskSettings {
                directory,
                limits: DiskLimits { max_bytes: remote.queue.max_disk, max_age: remote.queue.max_disk_age },
                newest_first: remote.queue.catch_up == CatchUp::NewestFirst,
            }),
        };
        let outlet = self.spool.open(number, settings);
        if let Some(known) = predecessor {
            self.end(known);
        }
        // Whoever had the directory has nothing more to deliver.
        let same_directory = self.leaving.iter().filter(|gone| directory.is_some() && gone.directory == directory);
        same_directory.for_each(|gone| gone.give_up.cancel());
        // Not only the predecessor: a receiver may come back while it is still sent what was queued before it went.
        let same_place = self.leaving.iter().filter(|gone| gone.remote.url == remote.url);
        let before: Vec<_> = same_place.map(|gone| gone.ended.clone()).collect();
        let credentials = |spiffe: &_| self.identities.feed(std::convert::Into::into(spiffe));
        let queue = Box::new(outlet.observer());
        let sender = prepared.sender(
            outlet,
            credentials,
            self.clock.clone(),
            &self.metrics.send,
            Arc::clone(&self.metadata),
            HistogramsDropped {
                listed_bounds: self.metrics.series.listed_bounds(&remote),
                too_old: self.metrics.series.too_old(&remote),
            },
        );
        let monitor = sender.monitor();
        let (give_up, ended) = (self.give_up.child_token(), CancellationToken::new());
        let (given_up, end) = (give_up.clone(), ended.clone().drop_guard());
        let task = tokio::spawn(async move {
            let _end = end;
            for one in before {
                // Not for ever, even if it is told to give up: whoever is before ends then, too.
                one.cancelled().await;
            }
            sender.run(given_up).await
        });
        self.running.push(Running { number, remote, directory, queue, monitor, task, give_up, ended });
    }

    /// The directory of a receiver that begins: none that is in use by one that runs. One of several for the same place has
    /// the directory that bears its name, if there is one: what is in it was queued for this one.
    fn directory_for(&self, remote: &RemoteWrite) -> String {
        let taken = |name: &str| self.running.iter().any(|running| running.directory.as_deref() == Some(name));
        let (of_place, own) = (send::spool_name(remote), send::spool_name_of_twin(remote));
        if taken(&of_place) || (self.spool.has(&own) && !taken(&own)) { own } else { of_place }
    }

    /// Lets a receiver whose queue is closed deliver what it has, for as long as that may take.
    fn end(&mut self, gone: Running) {
        let Running { remote, directory, task, give_up, ended, .. } = gone;
        info!(
            receiver = remote.name,
            url = remote.shown_url(),
            "the receiver is gone; delivering what is queued for it"
        );
        self.metrics.send.forget(&remote);
        let (deadline, end) = (self.flush_deadline, ended.clone());
        let (metrics, gone) = (self.metrics.clone(), Arc::clone(&remote));
        self.leaving.push(Leaving { remote, directory, task, give_up: give_up.clone(), ended });
        tokio::spawn(async move {
            if tokio::time::timeout(deadline, end.cancelled()).await.is_err() {
                give_up.cancel();
                end.cancelled().await;
            }
            metrics.release(&gone);
        });
    }

    /// How the receivers see a series; what is in `before` keeps its order.
    pub(super) fn views(&self, before: &[View]) -> Vec<View> {
        let numbered = self.running.iter().map(|running| (running.number, &*running.remote));
        series::views_of(numbered, before, &self.metrics.series)
    }

    /// Waits until all has been delivered, given up or left on disk: how many samples are lost, and how many wait on disk.
    pub(super) async fn join(self) -> (u64, u64) {
        let mut undelivered = 0;
        let leaving = self.leaving.into_iter().map(|gone| gone.task);
        let (running, queues): (Vec<_>, Vec<_>) = self.running.into_iter().map(|one| (one.task, one.queue)).unzip();
        for task in leaving.chain(running) {
            match task.await {
                Ok(left) => undelivered += left.samples,
                Err(error) => warn!(%error, "BUG: sending ended abnormally"),
            }
        }
        undelivered += self.spool.finish().await.samples;
        (undelivered, queues.into_iter().map(|queue| queue().kept_samples).sum())
    }
}
