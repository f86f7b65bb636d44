//! What becomes of samples, written down: in the metrics, on the status page, in the log.

use std::time::Duration;

use http::StatusCode;

use super::complaints::Complaint;
use super::delivery::{Delivery, Rejection};
use super::kinds::Kinds;
use super::parts::{samples_of, tenant_of};
use super::progress::Refusal;
use super::verdict::Trouble;
use crate::model::{Block, Labels, Tenant, clean};
use crate::spool::Lease;
use crate::wire::WireError;

impl Delivery {
    /// The receiver has answered that it took what was `held`, of which it says that it wrote all but `unwritten`.
    pub(super) fn delivered(&self, blocks: &[Block], held: Kinds, unwritten: Kinds, attempt: u32) {
        self.metrics.failed.add(unwritten);
        let (samples, unwritten) = (held.points(), unwritten.points());
        self.finished(blocks);
        self.has_taken_of(tenant_of(blocks).cloned());
        let now = self.clock.now();
        let trouble = self.ledger.with(|progress| {
            progress.took(samples - unwritten);
            progress.rejected_samples += unwritten;
            progress.last_delivery = Some(now);
            progress.trouble.take()
        });
        if unwritten > 0
            && let Some(unsaid) = self.state().complaints.due(Complaint::Unwritten)
        {
            tracing::warn!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                samples,
                unwritten,
                unsaid,
                "the receiver took a request and says that it wrote fewer samples than are in it"
            );
        }
        if let Some((since, _)) = trouble {
            self.state().complaints.forget_troubles();
            tracing::info!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                attempts = attempt + 1,
                seconds = now.duration_since(since).unwrap_or_default().as_secs(),
                "the receiver takes samples again"
            );
        }
    }

    pub(super) fn say_not_known(&self, words: &str) {
        if let Some(unsaid) = self.state().complaints.due(Complaint::NotKnown) {
            tracing::warn!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                unsaid,
                words,
                "the receiver does not know remote write 2.0: it is sent 1.0 as long as the connection lasts and for a \
                 minute at least; if it is not to learn 2.0, write protobuf_message: prometheus.WriteRequest"
            );
        }
    }

    pub(super) fn drop_damaged(&self, blocks: &[Block], error: &WireError) {
        let samples = samples_of(blocks);
        self.finished(blocks);
        self.metrics.failed.add(Kinds::of(blocks));
        tracing::error!(receiver = self.remote.name, samples, %error, "BUG: blocks cannot be sent; they are dropped");
    }

    /// These blocks are not wanted; with a `series`, they are of that one, which is told for the first time.
    pub(super) fn drop_rejected(&self, blocks: &[Block], rejection: Rejection, series: Option<&Labels>) {
        let Rejection { status, words, written } = rejection;
        if samples_of(blocks) == 0 {
            return;
        }
        let unwritten = Kinds::of(blocks).without(written);
        let samples = unwritten.points();
        let written = samples_of(blocks) - samples;
        self.finished(blocks);
        self.metrics.failed.add(unwritten);
        if let Some(series) = series {
            tracing::error!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                status = status.as_u16(),
                series = %clean(&series.to_string()),
                samples,
                words,
                "the receiver does not want this series: its samples are dropped"
            );
        } else if let Some(unsaid) = self.state().complaints.due(Complaint::Rejected(status)) {
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
            progress.took(written);
            progress.rejected_samples += samples;
            progress.trouble = None;
            progress.last_refusal = Some(refusal);
        });
    }

    /// Nobody says whose they are at a receiver with tenants, or somebody at one without: they are for nobody.
    pub(super) fn drop_of_nobody(&self, lease: Lease) {
        let blocks: Vec<_> = lease.blocks().cloned().collect();
        let samples = samples_of(&blocks);
        self.metrics.failed.add(Kinds::of(&blocks));
        self.ledger.with(|progress| progress.rejected_samples += samples);
        tracing::error!(
            receiver = self.remote.name,
            samples,
            "BUG: it is not known whose blocks these are; they are dropped"
        );
        lease.ack();
    }

    /// The others can wait no longer for this tenant, whom the receiver refuses.
    pub(super) fn give_up(&self, lease: Lease) {
        let blocks: Vec<_> = lease.blocks().cloned().collect();
        let samples = samples_of(&blocks);
        let Some(tenant) = tenant_of(&blocks) else { return self.drop_of_nobody(lease) };
        let words = self.tenants.given_up(tenant);
        self.metrics.failed.add(Kinds::of(&blocks));
        if let Some(unsaid) = self.state().complaints.due(Complaint::GivenUp) {
            tracing::error!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                %tenant,
                samples,
                unsaid,
                words,
                "the receiver has refused this tenant for half an hour, and others wait behind it: some of its samples are dropped"
            );
        }
        let refusal = Refusal { at: self.clock.now(), status: StatusCode::TOO_MANY_REQUESTS.as_u16(), samples, words };
        self.ledger.with(|progress| {
            progress.rejected_samples += samples;
            progress.last_refusal = Some(refusal);
        });
        lease.ack();
    }

    /// The receiver refuses one of its tenants for now; the others go on.
    pub(super) fn complain_of(&self, tenant: &Tenant, trouble: &Trouble, attempt: u32, pause: Duration) {
        self.tenants.refuses(tenant, &trouble.detail);
        if let Some(unsaid) = self.state().complaints.due(Complaint::Refused) {
            tracing::warn!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                %tenant,
                detail = %trouble,
                attempts = attempt + 1,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                unsaid,
                "the receiver refuses the samples of a tenant for now; they are kept and sent again, and the others go on"
            );
        }
    }

    /// The requests of one tenant fail; the others go on.
    pub(super) fn complain_of_failing(&self, tenant: &Tenant, trouble: &Trouble, pause: Duration) {
        if let Some(unsaid) = self.state().complaints.due(Complaint::Failing) {
            tracing::warn!(
                receiver = self.remote.name,
                url = self.remote.shown_url(),
                %tenant,
                reason = trouble.kind.name(),
                detail = %trouble,
                pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                unsaid,
                "the samples of a tenant are not delivered; they are kept and sent again, and the others go on"
            );
        }
    }

    /// These blocks are settled, one way or the other.
    pub(super) fn finished(&self, blocks: &[Block]) {
        if let Some(newest_ms) = blocks.iter().map(|block| block.max_ms).max() {
            self.metrics.settled(newest_ms);
        }
    }

    pub(super) fn complain(&self, trouble: Trouble, attempt: u32, pause: Duration) {
        if let Some(unsaid) = self.state().complaints.due(Complaint::Trouble(trouble.kind)) {
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

    /// Drops and counts what is too old to be sent, which is done with in its lease, too; whether there was any.
    pub(super) fn drop_aged(&self, blocks: &mut Vec<Block>, lease: Option<&mut Lease>) -> bool {
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
        if let Some(old) = lease.and_then(|lease| lease.take_out(|block| block.max_ms < oldest_ms)) {
            old.ack();
        }
        self.metrics.too_old.add(Kinds::of(&old));
        self.ledger.with(|progress| progress.outlived(samples));
        if let Some(unsaid) = self.state().complaints.due(Complaint::TooOld) {
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
