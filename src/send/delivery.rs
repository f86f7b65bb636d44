//! From a lease to a final answer on each block of it.
//!
//! All leases of a receiver that are under way share this: the client, the pause that the receiver wants, the rate, and what
//! is known of what it does not take. A part of a lease is acknowledged as soon as it is settled, so that what ends meanwhile
//! leaves behind only what is not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until};

use super::apart::{AllRejected, Apart, Turns};
use super::backoff::Backoff;
use super::complaints::Complaints;
use super::demand::Work;
use super::earlier::Earlier;
use super::gate::{Gate, Pass};
use super::kinds::Kinds;
use super::message::{Messages, Request};
use super::metrics::ReceiverMetrics;
use super::parts::{by_format, by_target, by_tenant, bytes_of, samples_of, spans_targets, tenant_of};
use super::post::{Post, Sent};
use super::progress::Ledger;
use super::rate::Rate;
use super::sender::MAX_MESSAGE_BYTES;
use super::taken::Taken;
use super::tenants::Tenants;
use super::verdict::{Asked, Trouble, TroubleKind, Verdict};
use crate::clock::Clock;
use crate::config::RemoteWrite;
use crate::model::{Block, TargetId, Tenant};
use crate::spool::Lease;

/// How long a target whose samples were rejected alone travels alone, and requests stay as small as the receiver wanted.
pub(super) const APART_FOR: Duration = Duration::from_secs(10 * 60);

/// Requests are not made smaller than this, whatever the receiver says.
const MIN_MESSAGE_BYTES: u64 = 64 << 10;

/// What all requests to one receiver share.
pub(super) struct Delivery {
    pub(super) remote: Arc<RemoteWrite>,
    pub(super) post: Post,
    pub(super) gate: Gate,
    pub(super) tenants: Arc<Tenants>,
    /// As many as may be under way at a time.
    pub(super) requests: Semaphore,
    pub(super) rate: Rate,
    pub(super) backoff: Backoff,
    pub(super) clock: Clock,
    pub(super) metrics: ReceiverMetrics,
    pub(super) ledger: Ledger,
    pub(super) state: Mutex<State>,
}

/// What is known of the receiver.
pub(super) struct State {
    pub(super) messages: Messages,
    pub(super) complaints: Complaints,
    /// Targets whose samples were rejected while others were taken.
    pub(super) apart: HashMap<TargetId, Apart>,
    /// When the receiver last rejected each part alone, of which tenant: for a while it is not asked so again, as it may
    /// reject whatever it gets.
    pub(super) all_rejected: HashMap<Option<Tenant>, AllRejected>,
    /// When that was last looked through for what matters no more.
    pub(super) swept: Instant,
    pub(super) taken: Taken,
    pub(super) turns: Turns,
    /// What is known of the targets of which an earlier run left something.
    pub(super) earlier: Earlier,
    /// What was sent so far, and the time it took.
    pub(super) work: Work,
    /// What it said to be too large, in bytes before compression: half of that, and when.
    pub(super) too_large: Option<(u64, Instant)>,
}

/// Leave to send one request: of the receiver, and of the gate of its tenant.
pub(super) struct Passes<'g> {
    pub(super) receiver: Pass<'g>,
    tenant: Option<(&'g Gate, Pass<'g>)>,
}

/// Whether it is what the tenant does that the receiver does not want: Mimir so says that he sends too much.
fn is_about_tenant(trouble: TroubleKind) -> bool {
    trouble == TroubleKind::Status(StatusCode::TOO_MANY_REQUESTS)
}

/// What became of some blocks.
pub(super) enum Settled {
    Delivered,
    Rejected(Rejection),
    /// All were too old, or could not be sent; or the tenant is refused or his request has failed, and what there was a lease
    /// of is back in the queue.
    Nothing,
}

#[derive(Clone)]
pub(super) struct Rejection {
    pub(super) status: StatusCode,
    pub(super) words: String,
    /// What it wrote nevertheless, by its own count.
    pub(super) written: Kinds,
}

impl Rejection {
    /// Whether it may hang on what was sent rather than on who sends it where. Who wrote some of it has written all that it
    /// wants.
    pub(super) fn is_about_content(&self) -> bool {
        self.written.points() == 0
            && matches!(
                self.status,
                StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
            )
    }

    pub(super) fn is_about_size(&self) -> bool {
        self.status == StatusCode::PAYLOAD_TOO_LARGE
    }
}

impl State {
    pub(super) fn new(messages: Messages) -> Self {
        Self {
            messages,
            complaints: Complaints::default(),
            apart: HashMap::new(),
            all_rejected: HashMap::new(),
            swept: Instant::now(),
            taken: Taken::new(),
            turns: Turns::default(),
            earlier: Earlier::default(),
            work: Work::default(),
            too_large: None,
        }
    }
}

impl Delivery {
    /// Settles all blocks of a lease, in one request if the receiver likes them all. They are of one tenant, which nobody
    /// relies on here; he is known to have a lease from now on. If he is refused, they go back to the queue.
    pub(super) fn deliver(self: &Arc<Self>, lease: Lease) -> impl Future<Output = ()> + Send + use<> {
        let has_tenants = self.remote.tenant.is_some();
        let parts = by_tenant(lease).into_iter().map(|part| {
            let tenant = part.blocks().next().and_then(|block| block.tenant.clone());
            let bytes = part.blocks().map(|block| block.elements.len() as u64).sum();
            let presence = tenant.as_ref().map(|tenant| self.tenants.enter(tenant, bytes));
            (part, presence)
        });
        let (delivery, parts) = (Arc::clone(self), parts.collect::<Vec<_>>());
        async move {
            for (part, presence) in parts {
                match presence.is_some() == has_tenants {
                    true => delivery.deliver_of_one(part).await,
                    false => delivery.drop_of_nobody(part),
                }
            }
        }
    }

    /// Settles all blocks of one tenant.
    async fn deliver_of_one(&self, mut lease: Lease) {
        self.deliver_earlier(&mut lease).await;
        let alone = {
            let apart = &mut self.state().apart;
            apart.retain(|_, apart| apart.since.elapsed() < APART_FOR);
            lease.take_out(|block| apart.contains_key(&block.target))
        };
        let alone = alone.into_iter().flat_map(by_target);
        for part in [lease].into_iter().chain(alone).flat_map(by_format) {
            self.deliver_part(part).await;
        }
    }

    async fn deliver_part(&self, mut part: Lease) {
        let mut blocks: Vec<_> = part.blocks().cloned().collect();
        if tenant_of(&blocks).is_some_and(|tenant| self.tenants.gives_back(tenant)) {
            return;
        }
        if self.is_too_large(&blocks) || self.knows_offenders(&blocks) {
            for one in by_target(part) {
                self.narrow(one.blocks().cloned().collect(), None).await;
                one.ack();
            }
            return;
        }
        match self.settle(&mut blocks, Some(&mut part)).await {
            Settled::Delivered => self.forgive(&blocks),
            Settled::Rejected(rejection)
                if !self.may_split(&rejection, &blocks) && !self.has_waited(&rejection, &blocks) =>
            {
                return self.give_up_rejected(by_target(part), rejection).await;
            }
            Settled::Rejected(_) if spans_targets(&blocks) => return self.deliver_apart(by_target(part), false).await,
            Settled::Rejected(rejection) => {
                self.narrow(blocks, Some(rejection)).await;
            }
            Settled::Nothing => {}
        }
        part.ack();
    }

    /// The most bytes of a request, before compression.
    pub(super) fn max_message_bytes(&self) -> u64 {
        let mut state = self.state();
        state.too_large = state.too_large.filter(|(_, since)| since.elapsed() < APART_FOR);
        state.too_large.map_or(MAX_MESSAGE_BYTES, |(limit, _)| limit)
    }

    /// Whether the receiver has said that it does not take so much at a time.
    pub(super) fn is_too_large(&self, blocks: &[Block]) -> bool {
        let limit = self.max_message_bytes();
        self.remote.queue.split_rejected && limit < MAX_MESSAGE_BYTES && bytes_of(blocks) > limit
    }

    /// Tries until there is a final answer on `blocks`, from which what grows too old is taken out, and acknowledged if there
    /// is a `lease` of it. With a `lease`, they go back to the queue if the tenant is refused or his request fails; else they
    /// wait until it is tried again.
    pub(super) async fn settle(&self, blocks: &mut Vec<Block>, mut lease: Option<&mut Lease>) -> Settled {
        let mut pauses = self.backoff.pauses();
        let mut ready: Option<Request> = None;
        for attempt in 0u32.. {
            let tenant = tenant_of(blocks).cloned();
            if let (Some(tenant), Some(lease)) = (&tenant, &mut lease)
                && self.tenants.gives_back(tenant)
            {
                return self.give_back(tenant, blocks, lease);
            }
            let own_gate = tenant.as_ref().and_then(|tenant| self.tenants.gate_of(tenant));
            let own = tenant.as_ref().zip(own_gate.as_deref());
            let (permit, passes) =
                match (self.enter(samples_of(blocks), own, lease.is_some()).await, &tenant, &mut lease) {
                    (Some(entered), _, _) => entered,
                    (None, Some(tenant), Some(lease)) => return self.give_back(tenant, blocks, lease),
                    // Only who has a tenant and a lease gives back.
                    (None, _, _) => break,
                };
            let changed = self.drop_aged(blocks, lease.as_deref_mut());
            let Some(first) = blocks.first() else { break };
            let format = self.state().messages.format_for(first.format);
            let request = match ready.take().filter(|ready| !changed && ready.format == format) {
                Some(ready) => ready,
                None => match self.request(blocks) {
                    Ok(request) => request,
                    Err(error) => {
                        self.drop_damaged(blocks, &error);
                        break;
                    }
                },
            };
            if request.held.points() == 0 {
                self.state().messages.settled(&request);
                self.finished(blocks);
                break;
            }

            let held = request.held;
            self.metrics.sent.add(held);
            self.metrics.bytes.inc_by(request.body.len() as u64);
            let started = Instant::now();
            let asked = Asked { format: request.format, held };
            let sent = self.post.send(request.body.clone(), asked, attempt, first.tenant.as_ref()).await;
            drop(permit);
            let Sent { verdict, connection } = sent;
            let took = started.elapsed();
            self.metrics.duration.observe(took.as_secs_f64());
            {
                let mut state = self.state();
                state.messages.answered(connection);
                state.work.busy += took;
                state.work.samples += if matches!(verdict, Verdict::Delivered { .. }) { held.points() } else { 0 };
            }
            match verdict {
                Verdict::Delivered { unwritten } => {
                    self.answered(passes, tenant.as_ref(), true);
                    self.state().messages.settled(&request);
                    self.delivered(blocks, held, unwritten, attempt);
                    return Settled::Delivered;
                }
                Verdict::Rejected { status, words, written } => {
                    self.answered(passes, tenant.as_ref(), written.points() > 0);
                    let rejection = Rejection { status, words, written };
                    if rejection.is_about_size() {
                        let limit = (bytes_of(blocks) / 2).clamp(MIN_MESSAGE_BYTES, MAX_MESSAGE_BYTES);
                        self.state().too_large = Some((limit, Instant::now()));
                    }
                    return Settled::Rejected(rejection);
                }
                Verdict::NotKnown { words } => {
                    self.answered(passes, tenant.as_ref(), false);
                    self.state().messages.refused(connection);
                    self.metrics.retried.add(held);
                    self.say_not_known(&words);
                }
                Verdict::Retry { after, trouble } => {
                    self.metrics.retried.add(held);
                    // Its own pause, for it may fail for its own sake, that of the receiver, for all, and that of the tenant.
                    let own = pauses.next(after);
                    self.failed(passes, tenant.as_ref(), trouble, attempt, (own, after));
                    if let (Some(tenant), Some(lease)) = (&tenant, &mut lease) {
                        return self.give_back(tenant, blocks, lease);
                    }
                    tokio::time::sleep(own).await;
                }
            }
            ready = Some(request);
        }
        Settled::Nothing
    }

    /// Waits until a request with so many samples may be sent: for the gates, the number of requests, and last for the rate, of
    /// which so nothing is used up by who waits for another reason. `None` if the tenant is refused and it `gives_back`.
    pub(super) async fn enter<'g>(
        &'g self,
        samples: u64,
        own: Option<(&Tenant, &'g Gate)>,
        gives_back: bool,
    ) -> Option<(Option<SemaphorePermit<'g>>, Passes<'g>)> {
        loop {
            let tenant = match own {
                Some((tenant, gate)) if gives_back => match gate.try_enter() {
                    Some(pass) if !self.tenants.gives_back(tenant) => Some((gate, pass)),
                    _ => return None,
                },
                Some((_, gate)) => Some((gate, gate.enter().await)),
                None => None,
            };
            // Nobody closes it.
            let permit = self.requests.acquire().await.ok();
            let passes = Passes { receiver: self.gate.enter().await, tenant };
            let Err(until) = self.rate.take(samples) else { return Some((permit, passes)) };
            // Until then there may be trouble.
            drop((permit, passes));
            sleep_until(until).await;
        }
    }

    /// There is a final answer; whether the receiver took it.
    pub(super) fn answered(&self, passes: Passes<'_>, tenant: Option<&Tenant>, was_taken: bool) {
        self.gate.answered(passes.receiver);
        if let Some(tenant) = tenant {
            self.tenants.hears(tenant, was_taken);
        }
        if let Some((gate, pass)) = passes.tenant {
            gate.answered(pass);
        }
    }

    /// He has to wait: these blocks do so in the queue, and so does whatever else is under way for him.
    fn give_back(&self, tenant: &Tenant, blocks: &mut Vec<Block>, lease: &mut Lease) -> Settled {
        self.tenants.give_back(tenant);
        drop(lease.take_out(|_| true));
        blocks.clear();
        Settled::Nothing
    }

    /// The request is to be sent again. Whose trouble it is has a pause, the one that was asked for with `after` or a longer
    /// one: the tenant, and the receiver unless it is known to be well.
    fn failed(
        &self,
        passes: Passes<'_>,
        tenant: Option<&Tenant>,
        trouble: Trouble,
        attempt: u32,
        (own, after): (Duration, Option<Duration>),
    ) {
        let of_tenant = passes.tenant.map_or(Duration::ZERO, |(gate, pass)| gate.failed(pass, after));
        let pause = own.max(of_tenant);
        match tenant {
            Some(tenant) if is_about_tenant(trouble.kind) => {
                self.gate.answered(passes.receiver);
                self.complain_of(tenant, &trouble, attempt, pause);
            }
            // It says nothing of the receiver, neither good nor bad.
            Some(tenant) if self.fails_alone(tenant) => self.complain_of_failing(tenant, &trouble, pause),
            _ => {
                // What one is told to wait is not for others who were just taken.
                let after = after.filter(|_| tenant.is_none_or(|tenant| self.state().taken.besides(tenant).is_none()));
                let pause = pause.max(self.gate.failed(passes.receiver, after));
                self.complain(trouble, attempt, pause);
            }
        }
    }

    fn request(&self, blocks: &[Block]) -> Result<Request, crate::wire::WireError> {
        // Not under the lock: it may take its time.
        let messages = self.state().messages.clone();
        messages.request(blocks)
    }

    /// Nothing under this lock panics, so a poisoned state is a whole one.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
