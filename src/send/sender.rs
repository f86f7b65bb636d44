//! The task of one receiver.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::client::Clients;
use super::complaints::{Complaint, Complaints};
use super::describe::{Describer, Description, MetadataSource};
use super::error::SendError;
use super::message::{Messages, Request};
use super::metrics::{Metrics, ReceiverMetrics};
use super::parts::{by_format, by_target, samples_of, spans_targets};
use super::post::{self, Post};
use super::progress::{Ledger, Monitor, Refusal};
use super::verdict::{Asked, Trouble, Verdict};
use crate::clock::Clock;
use crate::config::{RemoteWrite, SpiffeReceiver};
use crate::identity::Credentials;
use crate::model::{Block, TargetId, WriteFormat};
use crate::spool::{LeaseLimits, Outlet};
use crate::wire::WireError;

/// The most bytes of one request before compression; half of what VictoriaMetrics takes by default, and Mimir takes
/// more.
pub(super) const MAX_MESSAGE_BYTES: u64 = 16 << 20;

/// How long a target whose samples were rejected alone travels alone.
const APART_FOR: Duration = Duration::from_secs(10 * 60);

/// How long no request is sent again target by target after that helped nobody. Not for ever: a receiver that came to its
/// senses may still get a bad target in each request, and would never take one as a whole.
const TOGETHER_FOR: Duration = Duration::from_secs(60);

/// What a sender left behind when its time was up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Undelivered {
    /// Blocks.
    pub blocks: u64,
    /// Samples in them.
    pub samples: u64,
}

/// A receiver that can be sent to.
pub struct Prepared {
    remote: Arc<RemoteWrite>,
    backoff: Backoff,
    headers: HeaderMap,
}

/// Sends what comes out of one queue to one receiver.
pub struct Sender {
    remote: Arc<RemoteWrite>,
    outlet: Outlet,
    post: Post,
    messages: Messages,
    backoff: Backoff,
    clock: Clock,
    metrics: ReceiverMetrics,
    ledger: Ledger,
    monitor: Monitor,
    complaints: Complaints,
    describer: Describer,
    /// Targets whose samples were rejected while others were taken, and when.
    apart: HashMap<TargetId, Instant>,
    /// When the receiver last rejected each target alone: for a while it is not asked so again, as it may reject whatever
    /// it gets.
    all_rejected: Option<Instant>,
    /// What of the lease in hand is already settled.
    settled: Undelivered,
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
    /// be without a certificate, then blocks wait. `metadata` is what the receiver is told of metric families, and
    /// `listed_bounds` counts histograms that it cannot be sent.
    pub fn sender(
        self,
        outlet: Outlet,
        credentials: impl FnOnce(&SpiffeReceiver) -> watch::Receiver<Arc<Credentials>>,
        clock: Clock,
        metrics: &Metrics,
        metadata: MetadataSource,
        listed_bounds: Counter,
    ) -> Sender {
        let Self { remote, backoff, headers } = self;
        let clients = Clients::new(Arc::clone(&remote), credentials, clock.clone());
        let post = Post::new(Arc::clone(&remote), headers, clients, clock.clone());
        let ledger = Ledger::default();
        Sender {
            monitor: Monitor::new(&remote, ledger.clone(), &outlet, clock.clone()),
            metrics: metrics.of(&remote),
            complaints: Complaints::default(),
            describer: Describer::new(&remote, metadata),
            messages: Messages::new(remote.message, listed_bounds),
            apart: HashMap::new(),
            all_rejected: None,
            settled: Undelivered::default(),
            remote,
            outlet,
            post,
            backoff,
            clock,
            ledger,
        }
    }
}

impl Sender {
    /// A window on this sender, for the status page.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// Sends until the spool is closed and empty, or until `give_up` is cancelled: then a request in flight is cut off,
    /// and what is left is counted, said, and returned.
    pub async fn run(mut self, give_up: CancellationToken) -> Undelivered {
        tokio::select! {
            biased;
            () = self.deliver_everything() => return Undelivered::default(),
            () = give_up.cancelled() => {}
        }
        if self.outlet.is_superseded() {
            return Undelivered::default();
        }
        // The lease in hand has returned to the queue with what is settled of it.
        let queue = self.outlet.snapshot();
        if queue.kept_samples > 0 {
            tracing::info!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                blocks = queue.kept_blocks,
                samples = queue.kept_samples,
                "time to deliver is up: these samples stay on disk"
            );
        }
        let left = Undelivered {
            blocks: queue.pending_blocks.saturating_sub(queue.kept_blocks + self.settled.blocks),
            samples: queue.pending_samples.saturating_sub(queue.kept_samples + self.settled.samples),
        };
        if left.samples > 0 {
            self.metrics.failed.inc_by(left.samples);
            tracing::warn!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                blocks = left.blocks,
                samples = left.samples,
                "time to deliver is up: these samples are lost"
            );
        }
        left
    }

    async fn deliver_everything(&mut self) {
        let queue = &self.remote.queue;
        let limits = LeaseLimits {
            max_samples: queue.max_samples_per_send as u64,
            max_message_bytes: MAX_MESSAGE_BYTES,
            linger: queue.batch_send_deadline,
        };
        let closed = self.outlet.closed();
        loop {
            // One request at a time: samples that wait meanwhile come before the next one.
            if self.describer.is_due() && !closed.is_cancelled() {
                self.describe(&closed).await;
            }
            let lease = tokio::select! {
                biased;
                lease = self.outlet.lease(limits) => lease,
                () = self.describer.due(), if !closed.is_cancelled() => continue,
            };
            let Some(lease) = lease else { return };
            self.deliver(lease.blocks().collect()).await;
            lease.ack();
            self.settled = Undelivered::default();
        }
    }

    /// Tells what some metric families are, once. Without an answer that counts the round is over. Once the queue is
    /// `closed`, all time that is left is for samples.
    async fn describe(&mut self, closed: &CancellationToken) {
        let Description { body, families } = match self.describer.request() {
            Ok(Some(description)) => description,
            Ok(None) => return self.describer.end_round(),
            Err(error) => {
                tracing::error!(%error, "BUG: metadata cannot be written");
                return self.describer.end_round();
            }
        };
        self.metrics.metadata.inc_by(families);
        self.metrics.metadata_bytes.inc_by(body.len() as u64);
        // Only 1.0 tells of families in requests of their own.
        let asked = Asked { format: WriteFormat::V1, samples: 0 };
        let verdict = tokio::select! {
            biased;
            () = closed.cancelled() => None,
            verdict = self.post.send(body, asked, 0) => Some(verdict),
        };
        let Some(verdict) = verdict else {
            self.post.hang_up();
            self.metrics.metadata_failed.inc_by(families);
            return self.describer.end_round();
        };
        let refused = match verdict {
            Verdict::Delivered { .. } => None,
            Verdict::Rejected { status, words, .. } => Some((status.as_str().to_owned(), words, true)),
            Verdict::NotKnown { words } => Some((StatusCode::UNSUPPORTED_MEDIA_TYPE.as_str().to_owned(), words, true)),
            Verdict::Retry { trouble, .. } => Some((trouble.kind.name().to_owned(), trouble.to_string(), false)),
        };
        let go_on = refused.as_ref().is_none_or(|(_, _, go_on)| *go_on);
        if let Some((reason, detail, _)) = refused {
            self.metrics.metadata_failed.inc_by(families);
            if let Some(unsaid) = self.complaints.due(Complaint::Metadata) {
                tracing::warn!(
                    receiver = self.remote.name,
                    url = self.remote.shown_url(),
                    reason,
                    detail,
                    unsaid,
                    "the receiver does not take metadata; it is told again after send_interval"
                );
            }
        }
        if !go_on || self.describer.all_told() {
            self.describer.end_round();
        }
    }

    /// Settles all `blocks`, in one request if the receiver likes them all.
    async fn deliver(&mut self, blocks: Vec<&Block>) {
        self.apart.retain(|_, since| since.elapsed() < APART_FOR);
        let (alone, together): (Vec<_>, Vec<_>) =
            blocks.into_iter().partition(|block| self.apart.contains_key(&block.target));
        for mut part in [together].into_iter().chain(by_target(alone)).flat_map(by_format) {
            match self.settle(&mut part).await {
                Settled::Delivered => self.forgive(&part),
                Settled::Rejected(rejection)
                    if self.may_split() && rejection.is_about_content() && spans_targets(&part) =>
                {
                    self.deliver_apart(part).await;
                }
                Settled::Rejected(rejection) => self.drop_rejected(&part, rejection),
                Settled::Nothing => {}
            }
        }
    }

    /// The receiver has rejected these blocks together: one of the targets may be at fault.
    async fn deliver_apart(&mut self, blocks: Vec<&Block>) {
        let (mut any_delivered, mut offenders) = (false, Vec::new());
        for mut part in by_target(blocks) {
            match self.settle(&mut part).await {
                Settled::Delivered => any_delivered = true,
                Settled::Rejected(rejection) => {
                    offenders.extend(part.first().map(|block| block.target));
                    self.drop_rejected(&part, rejection);
                }
                Settled::Nothing => {}
            }
        }
        if any_delivered {
            self.apart.extend(offenders.into_iter().map(|target| (target, Instant::now())));
        } else if !offenders.is_empty() {
            self.all_rejected = Some(Instant::now());
        }
    }

    /// Whether sending target by target may help.
    fn may_split(&self) -> bool {
        self.all_rejected.is_none_or(|since| since.elapsed() >= TOGETHER_FOR)
    }

    /// Tries until there is a final answer on `blocks`, from which what grows too old is taken out.
    async fn settle(&mut self, blocks: &mut Vec<&Block>) -> Settled {
        let mut pauses = self.backoff.pauses();
        let mut ready: Option<Request> = None;
        for attempt in 0u32.. {
            let changed = self.drop_aged(blocks);
            let Some(first) = blocks.first() else { break };
            let format = self.messages.format_for(first.format);
            let request = match ready.take().filter(|ready| !changed && ready.format == format) {
                Some(ready) => ready,
                None => match self.messages.request(blocks) {
                    Ok(request) => request,
                    Err(error) => return self.drop_damaged(blocks, &error),
                },
            };
            if request.samples == 0 {
                self.messages.settled(&request);
                self.finished(blocks);
                break;
            }

            let samples = request.samples;
            self.metrics.samples.inc_by(samples);
            self.metrics.bytes.inc_by(request.body.len() as u64);
            let started = Instant::now();
            let verdict = self.post.send(request.body.clone(), Asked { format, samples }, attempt).await;
            self.metrics.duration.observe(started.elapsed().as_secs_f64());
            self.messages.answered(self.post.connection());
            match verdict {
                Verdict::Delivered { unwritten } => {
                    self.messages.settled(&request);
                    self.delivered(blocks, samples, unwritten, attempt);
                    return Settled::Delivered;
                }
                Verdict::Rejected { status, words, written } => {
                    return Settled::Rejected(Rejection { status, words, written });
                }
                Verdict::NotKnown { words } => {
                    self.messages.refused(self.post.connection());
                    self.metrics.retried.inc_by(samples);
                    self.say_not_known(&words);
                }
                Verdict::Retry { after, trouble } => {
                    let pause = pauses.next(after);
                    self.metrics.retried.inc_by(samples);
                    self.complain(trouble, attempt, pause);
                    tokio::time::sleep(pause).await;
                }
            }
            ready = Some(request);
        }
        Settled::Nothing
    }

    /// The receiver has answered that it took `samples`, of which it says that it wrote all but `unwritten`.
    fn delivered(&mut self, blocks: &[&Block], samples: u64, unwritten: u64, attempt: u32) {
        self.finished(blocks);
        self.all_rejected = None;
        let now = self.clock.now();
        let trouble = self.ledger.with(|progress| {
            progress.delivered_samples += samples - unwritten;
            progress.rejected_samples += unwritten;
            progress.last_delivery = Some(now);
            progress.trouble.take()
        });
        if unwritten > 0 {
            self.metrics.failed.inc_by(unwritten);
            if let Some(unsaid) = self.complaints.due(Complaint::Unwritten) {
                tracing::warn!(
                    receiver = self.remote.name,
                    url = self.remote.shown_url(),
                    samples,
                    unwritten,
                    unsaid,
                    "the receiver took a request and says that it wrote fewer samples than are in it"
                );
            }
        }
        if let Some((since, _)) = trouble {
            self.complaints.forget_troubles();
            tracing::info!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                attempts = attempt + 1,
                seconds = now.duration_since(since).unwrap_or_default().as_secs(),
                "the receiver takes samples again"
            );
        }
    }

    fn say_not_known(&mut self, words: &str) {
        if let Some(unsaid) = self.complaints.due(Complaint::NotKnown) {
            tracing::warn!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                unsaid,
                words,
                "the receiver does not know remote write 2.0: it is sent 1.0 as long as the connection lasts; if it is not \
                 to learn 2.0, write protobuf_message: prometheus.WriteRequest"
            );
        }
    }

    fn drop_damaged(&mut self, blocks: &[&Block], error: &WireError) -> Settled {
        let samples = samples_of(blocks);
        self.finished(blocks);
        self.metrics.failed.inc_by(samples);
        tracing::error!(receiver = self.remote.name, samples, %error, "BUG: blocks cannot be sent; they are dropped");
        Settled::Nothing
    }

    fn drop_rejected(&mut self, blocks: &[&Block], rejection: Rejection) {
        let Rejection { status, words, written } = rejection;
        let written = written.min(samples_of(blocks));
        let samples = samples_of(blocks) - written;
        self.finished(blocks);
        self.metrics.failed.inc_by(samples);
        if let Some(unsaid) = self.complaints.due(Complaint::Rejected(status)) {
            tracing::error!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                status = status.as_u16(),
                samples,
                unsaid,
                words,
                "the receiver rejects samples for good: they are dropped"
            );
        }
        let refusal = Refusal { at: self.clock.now(), status: status.as_u16(), samples, words };
        self.ledger.with(|progress| {
            progress.delivered_samples += written;
            progress.rejected_samples += samples;
            progress.trouble = None;
            progress.last_refusal = Some(refusal);
        });
    }

    /// These blocks are settled, one way or the other.
    fn finished(&mut self, blocks: &[&Block]) {
        self.settled.blocks += blocks.len() as u64;
        self.settled.samples += samples_of(blocks);
        if let Some(newest_ms) = blocks.iter().map(|block| block.max_ms).max() {
            self.metrics.settled(newest_ms);
        }
    }

    fn complain(&mut self, trouble: Trouble, attempt: u32, pause: Duration) {
        if let Some(unsaid) = self.complaints.due(Complaint::Trouble(trouble.kind)) {
            tracing::warn!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                reason = trouble.kind.name(),
                detail = %trouble,
                attempts = attempt + 1,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                unsaid,
                "samples are not delivered; they are kept and sent again"
            );
        }
        let now = self.clock.now();
        self.ledger.with(|progress| {
            let since = progress.trouble.as_ref().map_or(now, |(since, _)| *since);
            progress.trouble = Some((since, trouble));
        });
    }

    /// Whoever is delivered alone may travel with the others again.
    fn forgive(&mut self, part: &[&Block]) {
        for block in part {
            self.apart.remove(&block.target);
        }
    }

    /// Drops and counts what is too old to be sent; whether there was any.
    fn drop_aged(&mut self, blocks: &mut Vec<&Block>) -> bool {
        let limit = self.remote.queue.sample_age_limit;
        if limit.is_zero() {
            return false;
        }
        let oldest_ms = self.clock.now_ms().saturating_sub(i64::try_from(limit.as_millis()).unwrap_or(i64::MAX));
        let old: Vec<_> = blocks.extract_if(.., |block| block.max_ms < oldest_ms).collect();
        if old.is_empty() {
            return false;
        }
        let samples = samples_of(&old);
        self.settled.blocks += old.len() as u64;
        self.settled.samples += samples;
        self.metrics.too_old.inc_by(samples);
        self.ledger.with(|progress| progress.too_old_samples += samples);
        if let Some(unsaid) = self.complaints.due(Complaint::TooOld) {
            tracing::warn!(
                receiver = self.remote.name,
                samples,
                unsaid,
                limit_seconds = limit.as_secs(),
                "samples are older than sample_age_limit: they are dropped"
            );
        }
        true
    }
}

/// What became of some blocks.
enum Settled {
    Delivered,
    Rejected(Rejection),
    /// All were too old.
    Nothing,
}

struct Rejection {
    status: StatusCode,
    words: String,
    /// How many samples it wrote nevertheless, by its own count.
    written: u64,
}

impl Rejection {
    /// Whether it may hang on what was sent rather than on who sends it where.
    fn is_about_content(&self) -> bool {
        matches!(
            self.status,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
        )
    }
}
