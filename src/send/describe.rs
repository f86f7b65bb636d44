//! What metric families are, told to a receiver every so often, in requests of their own.
//!
//! With remote write 2.0 there is nothing to do here: each series says itself what it is. A receiver with tenants is told
//! nothing by 1.0: what one tenant's families are called is not for another.
//!
//! It is best effort: the samples are what counts. A request is sent once: it takes a place among those of samples, waits
//! with them for a receiver in trouble, and if it fails they wait, too. What it could not tell waits for the next time, when
//! everything is told anew. The pause before that begins when all is told or given up:
//! a receiver that takes longer than the pause would else be told of families all the time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::delivery::Delivery;
use super::kinds::Kinds;
use super::sender::MAX_MESSAGE_BYTES;
use super::verdict::{Asked, Verdict};
use crate::config::RemoteWrite;
use crate::model::{Metadata, WriteFormat};
use crate::wire::{self, WireError};

/// What is known of metric families now, each description once.
pub type MetadataSource = Arc<dyn Fn() -> Vec<Arc<Metadata>> + Send + Sync>;

/// Knows when the families are to be told, and makes the requests.
pub(super) struct Describer {
    /// Whether anything is ever told.
    tells: bool,
    interval: Duration,
    /// The most families of one request.
    at_once: u64,
    source: MetadataSource,
    /// When a round begins in which all is told.
    next: Instant,
    /// What of the round under way is not told yet.
    left: VecDeque<Description>,
}

/// A request, and how many families it tells of.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) body: Bytes,
    pub(super) families: u64,
}

impl Describer {
    /// All is told for the first time when one interval has passed.
    pub(super) fn new(remote: &RemoteWrite, source: MetadataSource) -> Self {
        let config = remote.metadata;
        Self {
            // Nobody says whose families these are.
            tells: config.send && remote.message == WriteFormat::V1 && remote.tenant.is_none(),
            interval: config.send_interval,
            at_once: config.max_samples_per_send as u64,
            source,
            next: Instant::now() + config.send_interval,
            left: VecDeque::new(),
        }
    }

    /// Waits until it is time to tell something; for ever if nothing is ever told.
    pub(super) async fn due(&self) {
        match self.tells {
            true if self.left.is_empty() => tokio::time::sleep_until(self.next).await,
            true => {}
            false => std::future::pending().await,
        }
    }

    /// The next request of the round under way, or the first of a new one; `None` if there is nothing to tell of.
    pub(super) fn request(&mut self) -> Result<Option<Description>, WireError> {
        if self.left.is_empty() {
            self.left = self.requests()?.into();
        }
        Ok(self.left.pop_front())
    }

    /// Whether all is told.
    pub(super) fn all_told(&self) -> bool {
        self.left.is_empty()
    }

    /// What is not told yet is given up. The pause before the next round begins.
    pub(super) fn end_round(&mut self) {
        self.left.clear();
        self.next = Instant::now() + self.interval;
    }

    /// The requests that tell what is known now.
    fn requests(&self) -> Result<Vec<Description>, WireError> {
        let known = (self.source)();
        let mut requests = Vec::new();
        let (mut message, mut families) = (Vec::new(), 0);
        for metadata in &known {
            let from = message.len();
            wire::push_metadata(&mut message, metadata);
            if families > 0 && message.len() as u64 > MAX_MESSAGE_BYTES {
                let last = message.split_off(from);
                requests.push(Description::of(&std::mem::replace(&mut message, last), families)?);
                families = 0;
            }
            families += 1;
            if families == self.at_once {
                requests.push(Description::of(&std::mem::take(&mut message), families)?);
                families = 0;
            }
        }
        if families > 0 {
            requests.push(Description::of(&message, families)?);
        }
        Ok(requests)
    }
}

/// What came of a request that tells of families.
pub(super) enum Told {
    /// It was answered, or it failed.
    Answered(Verdict),
    /// It was cut off, or not sent any more.
    CutOff,
}

impl Delivery {
    /// Tells what some families are, once it may be sent, unless the queue is `closed` before that is done: all time that is
    /// left then is for samples.
    pub(super) async fn tell(&self, description: Description, closed: CancellationToken) -> Told {
        let Description { body, families } = description;
        // Without samples it takes nothing of the rate.
        let entered = tokio::select! {
            biased;
            () = closed.cancelled() => None,
            entered = self.enter(0, None, false) => entered,
        };
        let Some((permit, passes)) = entered else { return Told::CutOff };
        self.metrics.metadata.inc_by(families);
        self.metrics.metadata_bytes.inc_by(body.len() as u64);
        // Only 1.0 tells of families in requests of their own.
        let asked = Asked { format: WriteFormat::V1, held: Kinds::default() };
        let sent = tokio::select! {
            biased;
            () = closed.cancelled() => None,
            sent = self.post.send(body, asked, 0, None) => Some(sent),
        };
        drop(permit);
        let Some(sent) = sent else {
            self.metrics.metadata_failed.inc_by(families);
            self.post.hang_up().await;
            return Told::CutOff;
        };
        match &sent.verdict {
            Verdict::Delivered { .. } => self.answered(passes, None, false),
            Verdict::Rejected { .. } | Verdict::NotKnown { .. } => {
                self.answered(passes, None, false);
                self.metrics.metadata_failed.inc_by(families);
            }
            Verdict::Retry { after, .. } => {
                self.gate.failed(passes.receiver, *after);
                self.metrics.metadata_failed.inc_by(families);
            }
        }
        Told::Answered(sent.verdict)
    }
}

impl Description {
    fn of(message: &[u8], families: u64) -> Result<Self, WireError> {
        Ok(Self { body: wire::pack(message)?.into(), families })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::MetricType;

    fn is_due(describer: &Describer) -> bool {
        use futures_util::FutureExt;
        describer.due().now_or_never().is_some()
    }

    fn describer(families: usize, help: &str, at_once: u64) -> Describer {
        let known: Vec<_> = (0..families)
            .map(|number| {
                Arc::new(Metadata {
                    family: format!("f{number}").into(),
                    kind: MetricType::Gauge,
                    help: help.into(),
                    unit: Arc::default(),
                })
            })
            .collect();
        let interval = Duration::from_secs(60);
        let source: MetadataSource = Arc::new(move || known.clone());
        Describer { tells: true, interval, at_once, source, next: Instant::now() + interval, left: VecDeque::new() }
    }

    /// How many families each request holds, as a reader finds them.
    fn sizes(describer: &mut Describer) -> Vec<usize> {
        let requests = describer.requests().expect("requests");
        let read = |request: &Description| {
            let families = wire::decode(&request.body).expect("a request").metadata.len();
            assert_eq!(families as u64, request.families);
            families
        };
        requests.iter().map(read).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_holds_so_many_families_and_bytes_at_most() {
        assert_eq!(sizes(&mut describer(0, "x", 2)), [0; 0], "no request tells of nothing");
        assert_eq!(sizes(&mut describer(4, "x", 2)), [2, 2]);
        assert_eq!(sizes(&mut describer(5, "x", 2)), [2, 2, 1]);
        assert_eq!(sizes(&mut describer(5, &"x".repeat(6 << 20), 2000)), [2, 2, 1]);
        assert_eq!(sizes(&mut describer(2, &"x".repeat(17 << 20), 2000)), [1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_time_is_an_interval_after_the_start() {
        let mut describer = describer(1, "x", 10);
        let begun = Instant::now();
        assert!(!is_due(&describer));
        describer.due().await;
        assert!(is_due(&describer));
        assert_eq!(begun.elapsed().as_secs(), 60);
        assert_eq!(sizes(&mut describer), [1]);
        describer.end_round();
        describer.due().await;
        assert_eq!(begun.elapsed().as_secs(), 120);
        describer.tells = false;
        assert!(tokio::time::timeout(Duration::from_secs(3600), describer.due()).await.is_err(), "never told");
    }

    #[tokio::test(start_paused = true)]
    async fn the_pause_begins_when_all_is_told_or_given_up() {
        let mut describer = describer(3, "x", 1);
        describer.due().await;
        let mut told = 0;
        while describer.request().expect("written").is_some() {
            // The receiver takes longer than the pause.
            tokio::time::sleep(Duration::from_secs(100)).await;
            told += 1;
            if describer.all_told() {
                break;
            }
            assert!(is_due(&describer), "the round goes on");
        }
        assert_eq!(told, 3);
        describer.end_round();
        let ended = Instant::now();
        assert!(!is_due(&describer));
        describer.due().await;
        assert_eq!(ended.elapsed().as_secs(), 60);

        assert!(describer.request().expect("written").is_some());
        describer.end_round();
        assert!(!is_due(&describer), "given up: told anew after a pause");
    }
}
