//! The task of one receiver: keeps as many requests under way as it may, those that tell of metric families included.

use std::sync::{Arc, Mutex};

use http::{HeaderMap, StatusCode};
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::client::Clients;
use super::complaints::Complaint;
use super::delivery::{Delivery, State};
use super::demand::{Demand, EVERY};
use super::describe::{Describer, MetadataSource, Told};
use super::error::SendError;
use super::gate::Gate;
use super::kinds::Kinds;
use super::message::Messages;
use super::metrics::{HistogramsDropped, Metrics};
use super::post::{self, Post};
use super::progress::{Ledger, Monitor};
use super::rate::Rate;
use super::tenants::Tenants;
use super::verdict::Verdict;
use crate::clock::Clock;
use crate::config::{RemoteWrite, SpiffeReceiver};
use crate::identity::Credentials;
use crate::spool::{LeaseLimits, Outlet, Undelivered};

/// The most bytes of one request before compression; half of what VictoriaMetrics takes by default, and Mimir takes
/// more.
pub(super) const MAX_MESSAGE_BYTES: u64 = 16 << 20;

/// A receiver that can be sent to.
pub struct Prepared {
    remote: Arc<RemoteWrite>,
    backoff: Backoff,
    headers: HeaderMap,
}

/// Sends what comes out of one queue to one receiver.
pub struct Sender {
    outlet: Outlet,
    pub(super) delivery: Arc<Delivery>,
    monitor: Monitor,
    describer: Describer,
}

/// What has ended of what was under way.
enum Ended {
    /// A lease is settled.
    Lease,
    /// A request that tells of metric families is.
    Telling(Told),
}

impl Prepared {
    /// Checks what of a receiver's entry no file can be checked for.
    pub fn new(remote: Arc<RemoteWrite>) -> Result<Self, SendError> {
        let receiver = || remote.name.clone();
        let backoff = Backoff::new(remote.queue.min_backoff, remote.queue.max_backoff)
            .map_err(|source| SendError::Backoff { receiver: receiver(), source })?;
        let headers =
            post::extra_headers(&remote).map_err(|header| SendError::Header { receiver: receiver(), header })?;
        Ok(Self { remote, backoff, headers })
    }

    /// The receiver's entry of the configuration.
    pub fn remote(&self) -> &Arc<RemoteWrite> {
        &self.remote
    }

    /// A sender from `outlet`. `credentials` is asked only if the receiver is verified by SPIFFE ID; the channel may still
    /// be without a certificate, then blocks wait. `metadata` is what the receiver is told of metric families, and `dropped`
    /// counts histograms that it is not sent.
    pub fn sender(
        self,
        outlet: Outlet,
        credentials: impl FnOnce(&SpiffeReceiver) -> watch::Receiver<Arc<Credentials>>,
        clock: Clock,
        metrics: &Metrics,
        metadata: MetadataSource,
        dropped: HistogramsDropped,
    ) -> Sender {
        let Self { remote, backoff, headers } = self;
        let clients = Clients::new(Arc::clone(&remote), credentials, clock.clone());
        let post = Post::new(Arc::clone(&remote), headers, clients, clock.clone());
        let ledger = Ledger::default();
        Sender {
            monitor: Monitor::new(&remote, ledger.clone(), &outlet, clock.clone()),
            describer: Describer::new(&remote, metadata),
            delivery: Arc::new(Delivery {
                metrics: metrics.of(&remote, dropped.too_old),
                gate: Gate::new(backoff),
                tenants: Arc::new(Tenants::new(backoff, remote.queue.max_memory / 4)),
                requests: Semaphore::new(remote.queue.max_requests_in_flight.min(Semaphore::MAX_PERMITS)),
                rate: Rate::new(remote.queue.max_samples_per_second),
                state: Mutex::new(State::new(Messages::new(remote.message, dropped.listed_bounds))),
                remote,
                post,
                backoff,
                clock,
                ledger,
            }),
            outlet,
        }
    }
}

impl Sender {
    /// A window on this sender, for the status page.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// Sends until the spool is closed and empty, or until `give_up` is cancelled: then requests in flight are cut off, and
    /// what is left is counted, said, and returned; unless the queue is on disk, which has its own end.
    pub async fn run(mut self, give_up: CancellationToken) -> Undelivered {
        let mut under_way = JoinSet::new();
        tokio::select! {
            biased;
            () = self.deliver_everything(&mut under_way) => return Undelivered::default(),
            () = give_up.cancelled() => {}
        }
        // What is not settled of the leases returns to the queue.
        under_way.shutdown().await;
        let queue = self.outlet.snapshot();
        if self.outlet.is_superseded() || queue.pending_samples == 0 {
            return Undelivered::default();
        }
        let Delivery { remote, metrics, .. } = &*self.delivery;
        let left = Undelivered { blocks: queue.pending_blocks, samples: queue.pending_samples };
        if self.outlet.is_on_disk() {
            tracing::info!(
                receiver = remote.name,
                url = remote.shown_url(),
                blocks = left.blocks,
                samples = left.samples,
                "time to deliver is up: these samples are left to the disk"
            );
            // What it does not take is not known before it has tried.
            return Undelivered::default();
        }
        metrics.failed.add(Kinds::pending(&queue));
        tracing::warn!(
            receiver = remote.name,
            url = remote.shown_url(),
            blocks = left.blocks,
            samples = left.samples,
            "time to deliver is up: these samples are lost"
        );
        left
    }

    async fn deliver_everything(&mut self, under_way: &mut JoinSet<Ended>) {
        let closed = self.outlet.closed();
        let most = self.delivery.remote.queue.max_requests_in_flight;
        // The request that tells of metric families, while there is one.
        let mut telling: Option<AbortHandle> = None;
        let mut is_over = false;
        let mut demand = Demand::default();
        let mut estimate = tokio::time::interval_at(Instant::now() + EVERY, EVERY);
        loop {
            let leases = under_way.len() - usize::from(telling.is_some());
            self.delivery.metrics.show_in_flight(leases);
            let aside = self.delivery.tenants.aside();
            let (refused, again) = self.delivery.tenants.refused();
            if is_over && under_way.is_empty() {
                return;
            }
            let limits = self.limits();
            tokio::select! {
                biased;
                Some(ended) = under_way.join_next() => match ended {
                    Ok(Ended::Lease) => {}
                    Ok(Ended::Telling(told)) => {
                        telling = None;
                        self.told(told);
                    }
                    Err(error) => {
                        telling = telling.filter(|request| request.id() != error.id());
                        if !error.is_cancelled() {
                            tracing::error!(%error, "BUG: a request ended abnormally");
                        }
                    }
                },
                () = self.delivery.tenants.changed.notified() => {}
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
                _ = estimate.tick() => {
                    let work = self.delivery.state().work;
                    if let Some(desired) = demand.estimate(work, self.outlet.snapshot().pending_samples) {
                        self.delivery.metrics.show_desired(desired);
                    }
                }
                lease = self.outlet.lease_except(limits, &refused),
                    if leases.saturating_sub(aside) < most && !is_over => match lease {
                    Some(lease) if lease.is_overdue() => self.delivery.give_up(lease),
                    Some(lease) => {
                        let delivered = self.delivery.deliver(lease);
                        under_way.spawn(async move {
                            delivered.await;
                            Ended::Lease
                        });
                    }
                    None => is_over = true,
                },
                // While there are samples, these find out when a receiver in trouble is well again.
                () = self.describer.due(),
                    if telling.is_none()
                        && !closed.is_cancelled()
                        && (under_way.is_empty() || self.delivery.gate.is_open()) =>
                {
                    telling = self.describe(under_way, closed.clone());
                }
            }
        }
    }

    fn limits(&self) -> LeaseLimits {
        let queue = &self.delivery.remote.queue;
        LeaseLimits {
            max_samples: queue.max_samples_per_send as u64,
            max_message_bytes: self.delivery.max_message_bytes(),
            linger: queue.batch_send_deadline,
        }
    }

    /// Begins to tell what some metric families are, once.
    fn describe(&mut self, under_way: &mut JoinSet<Ended>, closed: CancellationToken) -> Option<AbortHandle> {
        let description = match self.describer.request() {
            Ok(Some(description)) => description,
            Ok(None) => {
                self.describer.end_round();
                return None;
            }
            Err(error) => {
                tracing::error!(%error, "BUG: metadata cannot be written");
                self.describer.end_round();
                return None;
            }
        };
        let delivery = Arc::clone(&self.delivery);
        Some(under_way.spawn(async move { Ended::Telling(delivery.tell(description, closed).await) }))
    }

    /// Without an answer that counts the round is over.
    fn told(&mut self, told: Told) {
        let Told::Answered(verdict) = told else { return self.describer.end_round() };
        let refused = match verdict {
            Verdict::Delivered { .. } => None,
            Verdict::Rejected { status, words, .. } => Some((status.as_str().to_owned(), words, true)),
            Verdict::NotKnown { words } => Some((StatusCode::UNSUPPORTED_MEDIA_TYPE.as_str().to_owned(), words, true)),
            Verdict::Retry { trouble, .. } => Some((trouble.kind.name().to_owned(), trouble.to_string(), false)),
        };
        let go_on = refused.as_ref().is_none_or(|(_, _, go_on)| *go_on);
        if let Some((reason, detail, _)) = refused {
            let Delivery { remote, gate, .. } = &*self.delivery;
            let until = gate.closed_until().unwrap_or_else(Instant::now);
            let pause = until.saturating_duration_since(Instant::now());
            if let Some(unsaid) = self.delivery.state().complaints.due(Complaint::Metadata) {
                tracing::warn!(
                    receiver = remote.name,
                    url = remote.shown_url(),
                    reason,
                    detail,
                    pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    unsaid,
                    "the receiver does not take metadata; it is told again after send_interval"
                );
            }
        }
        if !go_on || self.describer.all_told() {
            self.describer.end_round();
        }
    }
}
