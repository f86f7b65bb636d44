//! Where the time of one scrape goes, and the one deadline over all of it.
//!
//! The deadline is one timer from the first packet to the last byte of the body. When it fires, the stage that was under
//! way decides the reason, and the failure says how long the stages before it took.

use std::fmt::Write as _;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::model::{Failure, Phases, Reason};

/// What is being waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Resolve,
    Connect,
    Handshake,
    Answer,
    Body,
}

/// Measures one scrape and ends it.
#[derive(Debug)]
pub(super) struct Stopwatch {
    started: Instant,
    entered: Instant,
    stage: Stage,
    deadline: Pin<Box<Sleep>>,
    /// What has been measured so far.
    phases: Phases,
    /// Bytes of the body so far, transfer-decoded.
    body_bytes: u64,
}

impl Stopwatch {
    /// Starts now; the scrape must be over at `deadline`.
    pub(super) fn until(deadline: Instant) -> Self {
        let now = Instant::now();
        Self {
            started: now,
            entered: now,
            stage: Stage::Connect,
            deadline: Box::pin(sleep_until(deadline)),
            phases: Phases::default(),
            body_bytes: 0,
        }
    }

    /// The next stage begins. Name resolution counts as part of the connect phase.
    pub(super) fn enter(&mut self, stage: Stage) {
        if !(self.stage == Stage::Resolve && stage == Stage::Connect) {
            self.entered = Instant::now();
        }
        self.stage = stage;
    }

    /// The TCP connection stands.
    pub(super) fn connected(&mut self) {
        self.phases.connect = Some(self.entered.elapsed());
    }

    /// The handshake is done and verified.
    pub(super) fn shaken(&mut self) {
        self.phases.tls = Some(self.entered.elapsed());
    }

    /// The head of the answer is there; its body comes next.
    pub(super) fn answered(&mut self) {
        self.phases.first_byte = Some(self.entered.elapsed());
        self.enter(Stage::Body);
    }

    /// A piece of the body came.
    pub(super) fn count_body(&mut self, bytes: usize) {
        self.body_bytes += bytes as u64;
    }

    /// Bytes of the body so far.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The phases so far.
    pub(super) fn phases(&self) -> Phases {
        Phases { total: self.started.elapsed(), ..self.phases }
    }

    /// Ready once the deadline has passed. To be asked before anything that reads, as in [`Stopwatch::bounded`].
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.as_mut().poll(cx)
    }

    /// Waits for `work`, at most until the deadline. The deadline is asked first: work that always has something to do
    /// uses up what tokio allows a task in one turn, and a timer that is asked after that never says that it is time.
    pub(super) async fn bounded<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Failure> {
        let outcome = tokio::select! {
            biased;
            () = &mut self.deadline => None,
            done = work => Some(done),
        };
        outcome.ok_or_else(|| self.ran_out())
    }

    /// The failure of a scrape whose deadline has passed.
    pub(super) fn ran_out(&self) -> Failure {
        let (reason, what) = match self.stage {
            Stage::Resolve => (Reason::NameResolution, "the resolver did not answer".to_owned()),
            Stage::Connect => (Reason::ConnectTimeout, "no TCP connection".to_owned()),
            Stage::Handshake => (Reason::Timeout, "the TLS handshake did not finish".to_owned()),
            Stage::Answer => (Reason::Timeout, "no answer to the request".to_owned()),
            Stage::Body => (Reason::Timeout, format!("the body did not end, {} bytes of it came", self.body_bytes)),
        };
        let allowed = self.deadline.deadline().saturating_duration_since(self.started);
        // The deadline was set some microseconds before this watch was started.
        let allowed = Duration::from_secs_f64((allowed.as_secs_f64() * 1000.0).round() / 1000.0);
        let mut detail = format!("{what} within {allowed:?}");
        for (name, spent) in [
            ("connect", self.phases.connect),
            ("TLS handshake", self.phases.tls),
            ("first byte", self.phases.first_byte),
        ] {
            if let Some(spent) = spent {
                let _ = write!(detail, "; {name} took {}", in_ms(spent));
            }
        }
        Failure::new(reason, detail)
    }
}

fn in_ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_stage_under_way_decides_the_reason() {
        for (stage, reason, words) in [
            (Stage::Resolve, Reason::NameResolution, "resolver"),
            (Stage::Connect, Reason::ConnectTimeout, "TCP"),
            (Stage::Handshake, Reason::Timeout, "TLS handshake"),
            (Stage::Answer, Reason::Timeout, "no answer"),
            (Stage::Body, Reason::Timeout, "0 bytes"),
        ] {
            let mut watch = Stopwatch::until(Instant::now() + Duration::from_secs(10));
            watch.enter(stage);
            let failure = watch.bounded(std::future::pending::<()>()).await.expect_err("nothing ever comes");
            assert_eq!(failure.reason, reason);
            assert!(failure.detail.contains(words), "{failure}");
            assert!(failure.detail.contains("within 10s"), "{failure}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_message_says_where_the_time_went() {
        let mut watch = Stopwatch::until(Instant::now() + Duration::from_secs(1));
        watch.enter(Stage::Connect);
        tokio::time::advance(Duration::from_millis(200)).await;
        watch.connected();
        watch.enter(Stage::Handshake);
        tokio::time::advance(Duration::from_millis(300)).await;
        watch.shaken();
        watch.enter(Stage::Answer);
        let failure = watch.bounded(std::future::pending::<()>()).await.expect_err("nothing ever comes");
        assert_eq!(
            failure.detail,
            "no answer to the request within 1s; connect took 200.0 ms; TLS handshake took 300.0 ms"
        );
        assert_eq!(watch.phases().total, Duration::from_secs(1));
    }

    #[tokio::test]
    async fn work_without_end_does_not_outrun_the_deadline() {
        let mut watch = Stopwatch::until(Instant::now() + Duration::from_millis(50));
        let busy = async {
            loop {
                tokio::task::consume_budget().await;
            }
        };
        let failure = watch.bounded::<()>(busy).await.expect_err("it never ends");
        assert_eq!(failure.reason, Reason::ConnectTimeout);
    }

    #[tokio::test(start_paused = true)]
    async fn resolving_is_part_of_connecting() {
        let mut watch = Stopwatch::until(Instant::now() + Duration::from_secs(1));
        watch.enter(Stage::Resolve);
        tokio::time::advance(Duration::from_millis(100)).await;
        watch.enter(Stage::Connect);
        tokio::time::advance(Duration::from_millis(50)).await;
        watch.connected();
        assert_eq!(watch.phases().connect, Some(Duration::from_millis(150)));
    }
}
