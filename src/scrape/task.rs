//! The life of one target: beat, scrape, blocks, and the end.
//!
//! The task owns the target's connection and series, so nothing about a target is ever shared or locked but the small
//! status that people see. It ends in one of two ways: the target is gone, then everything it exposed gets a staleness
//! marker; or the process stops, then nothing does, because the next process goes on with the same series.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::merge::{MergeReader, MergeWatch};
use super::orders::Orders;
use super::past::Past;
use super::recent::{Beat, Recent};
use super::schedule::Schedule;
use super::{Budget, Exchange, Gather, Metrics, RequestHead, exchange, leaving};
use crate::clock::Clock;
use crate::connect::Client;
use crate::model::{Block, Failure, Metadata, Reason, ScrapeReport, Target, clean};
use crate::parse::Entry;
use crate::series::{Counts, Descriptions, Health, Pass, Table, blames_exposition};
use crate::telemetry::Repeated;

/// One reason of one target is logged this often at most.
const REPEAT_LOG: Duration = Duration::from_secs(600);

/// What people see of a target.
#[derive(Clone, Debug, Default)]
pub struct TargetStatus {
    /// The last scrape; `None` before the first.
    pub last: Option<ScrapeReport>,
    /// Scrapes that succeeded since the target is known.
    pub succeeded: u64,
    /// Scrapes that failed since the target is known.
    pub failed: u64,
    /// How many series are remembered.
    pub series: usize,
    /// How it describes its metric families, by their names.
    pub families: Arc<[Arc<Metadata>]>,
    /// How the last scrapes went.
    pub recent: Recent,
    /// What happened lately.
    pub past: Past,
}

/// A status that one task writes and anybody reads.
#[derive(Clone, Debug, Default)]
pub(super) struct StatusCell(Arc<Mutex<TargetStatus>>);

impl StatusCell {
    pub(super) fn read(&self) -> TargetStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The same without a copy.
    pub(super) fn look<T>(&self, look: impl FnOnce(&TargetStatus) -> T) -> T {
        look(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, change: impl FnOnce(&mut TargetStatus)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What holds for all targets of a job at the moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct JobState {
    /// Why none of them is scraped, such as for `target_limit`.
    pub(super) refusal: Option<Failure>,
    /// It is not known any more whether addresses still belong to their pods; then, since when.
    pub(super) unconfirmed: Option<std::time::Instant>,
}

/// Everything one target needs to run.
pub(super) struct TargetTask {
    /// The orders that it follows.
    pub(super) orders: Arc<Orders>,
    /// Or why the target may not be connected at all.
    pub(super) client: Result<Client, Failure>,
    pub(super) table: Table,
    pub(super) descriptions: Descriptions,
    pub(super) merges: MergeWatch,
    pub(super) blocks: mpsc::Sender<Block>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) budget: Budget,
    pub(super) status: StatusCell,
    /// What holds for the whole job.
    pub(super) state: watch::Receiver<JobState>,
    /// Whether its pod is terminating.
    pub(super) leaving: watch::Receiver<bool>,
    /// The target is gone.
    pub(super) gone: CancellationToken,
    /// The process stops.
    pub(super) stop: CancellationToken,
}

/// What a scrape is read into.
struct Gathered<'a, 't> {
    merge: &'a mut MergeReader,
    descriptions: &'a mut Descriptions,
    pass: &'a mut Pass<'t>,
}

impl Gather for Gathered<'_, '_> {
    fn take(&mut self, entry: &Entry<'_>) -> Result<(), Failure> {
        self.merge.take(entry);
        if let Some(family) = self.descriptions.take(entry) {
            self.pass.announce(family);
        }
        self.pass.take_entry(entry)
    }

    fn held_bytes(&self) -> u64 {
        self.pass.held_bytes()
    }
}

/// How an attempt ended.
struct Attempt {
    report: ScrapeReport,
    blocks: Vec<Block>,
}

impl TargetTask {
    /// Scrapes until the target is gone or the process stops. New `orders` hold from the next scrape on; only where somebody
    /// else is to answer, or is to prove it in another way, a scrape under way does not count and is made anew.
    pub(super) async fn run(mut self, mut orders: watch::Receiver<Arc<Orders>>) {
        let mut head = self.head();
        let mut schedule = self.schedule();
        let mut log = FailureLog::default();
        let mut before: Option<Instant> = None;
        let (gone, stop) = (self.gone.clone(), self.stop.clone());
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = gone.cancelled() => break,
                new = other(&mut orders, |_| true) => {
                    self.adopt(new, &mut head, &mut schedule);
                    continue;
                }
                () = self.wait(schedule.next()) => {}
            }
            let beat = schedule.clone();
            let (at_ms, began) = (schedule.begin(self.clock.now_ms()), Instant::now());
            let (known, mut later) = (Arc::clone(&self.orders), orders.clone());
            let attempt = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = gone.cancelled() => break,
                _ = other(&mut later, |new| !new.expect_the_same(&known)) => {
                    schedule = beat;
                    continue;
                }
                attempt = self.attempt(&head, at_ms) => attempt,
            };
            if let Some(before) = before.replace(began) {
                self.metrics.began(self.orders.target.interval, began - before);
            }
            log.tell(&self.orders.target, attempt.report.failure.as_ref(), attempt.report.lack.as_ref());
            self.metrics.gave(self.table.take_output());
            let (series, families) = (self.table.len(), self.descriptions.changed());
            self.status.write(|status| {
                let ok = attempt.report.failure.is_none();
                status.recent.push(Beat { duration: attempt.report.phases.total, ok });
                status.past.note(&attempt.report);
                match attempt.report.failure {
                    None => status.succeeded += 1,
                    Some(_) => status.failed += 1,
                }
                status.series = series;
                if let Some(families) = families {
                    status.families = families;
                }
                status.last = Some(attempt.report);
            });
            if !self.hand_on(attempt.blocks).await {
                return;
            }
        }
        let blocks = self.table.end(self.clock.now_ms());
        self.metrics.gave(self.table.take_output());
        self.hand_on(blocks).await;
    }

    fn head(&self) -> RequestHead {
        let Orders { target, job, .. } = &*self.orders;
        RequestHead::new(&job.config, target.timeout, target.histograms)
    }

    fn schedule(&self) -> Schedule {
        let target = &self.orders.target;
        Schedule::new(target.interval, target.id, self.orders.seed, self.clock.now_ms())
    }

    /// Follows other orders, with all that they leave as it is.
    fn adopt(&mut self, new: Arc<Orders>, head: &mut RequestHead, schedule: &mut Schedule) {
        let known = std::mem::replace(&mut self.orders, new);
        if !self.orders.keep_the_client(&known) {
            self.client = self.orders.client(&self.clock);
        }
        if !self.orders.keep_the_beat(&known) {
            *schedule = self.schedule();
        }
        let Orders { target, job, views, external, .. } = &*self.orders;
        self.table.adopt(&job.config, target, views, external);
        *head = self.head();
    }

    /// Waits for the beat; meanwhile a kept connection whose verification has ended is closed.
    async fn wait(&mut self, beat: Instant) {
        match &mut self.client {
            Ok(client) => {
                let _ = tokio::time::timeout_at(beat, client.keep_while_verified()).await;
            }
            Err(_) => tokio::time::sleep_until(beat).await,
        }
    }

    async fn attempt(&mut self, head: &RequestHead, at_ms: i64) -> Attempt {
        let target = Arc::clone(&self.orders.target);
        let job = Arc::clone(&self.orders.job.config);
        let started = self.clock.now();
        let clock = Instant::now();
        let deadline = clock + target.timeout;
        let mut pass = self.table.begin(at_ms);
        let mut merge = MergeReader::default();
        // Until the blocks are made of what was gathered.
        let mut share = self.budget.share();

        let state = self.state.borrow().clone();
        let (seen, outcome) = match (&mut self.client, state.refusal) {
            (_, Some(failure)) => (Exchange::default(), Err(failure)),
            (Err(failure), None) => (Exchange::default(), Err(failure.clone())),
            (Ok(client), None) => {
                client.only_known_peer(state.unconfirmed.filter(|_| target.pod.is_some()));
                let (address, path) = (&target.address, &*target.path_and_query);
                let gather = &mut Gathered { merge: &mut merge, descriptions: &mut self.descriptions, pass: &mut pass };
                exchange(client, address, path, head, deadline, gather, &mut share).await
            }
        };
        let outcome = outcome
            .and_then(|()| pass.check_limit())
            .map_err(|failure| if *self.leaving.borrow() { leaving::excuse(failure, seen.status) } else { failure });
        if let (Ok(()), Ok(client)) = (&outcome, &mut self.client) {
            client.remember_peer();
        }

        // An empty answer is a good one, and makes as little forgotten as a failure.
        self.descriptions.end_scrape(outcome.is_ok() && seen.body_bytes > 0);
        let counts = pass.counts();
        let body_bytes = match &outcome {
            Err(_) if seen.over_size && job.limits.body_size_limit > 0 => -1,
            Err(failure) if !blames_exposition(failure.reason) && failure.reason != Reason::ContentType => 0,
            _ => i64::try_from(seen.body_bytes).unwrap_or(i64::MAX),
        };
        let health = Health {
            duration: clock.elapsed(),
            timeout: target.timeout,
            sample_limit: job.limits.sample_limit,
            body_bytes,
        };
        let blocks = match &outcome {
            Ok(()) => pass.commit(&health),
            Err(failure) => pass.fail(failure, &health),
        };
        let partial = outcome.is_ok().then(|| self.merges.judge(&merge)).flatten();
        if let Some(partial) = &partial {
            self.metrics.merged_in_part(&job.job_name, &partial.parts);
        }
        match &outcome {
            Ok(()) => self.metrics.succeeded(&job.job_name, &counts, seen.peer.as_ref().is_none_or(|p| p.exact)),
            Err(failure) => self.metrics.failed(&job.job_name, failure.reason),
        }
        if seen.peer.is_some() && seen.phases.tls.is_some() {
            self.metrics.shook_hands(&job.job_name);
        }
        let lack = partial.map(|partial| partial.failure);
        Attempt { report: ScrapeReport { lack, ..report(started, seen, counts, outcome.err()) }, blocks }
    }

    /// Hands blocks to the spool; false once nobody takes them any more.
    async fn hand_on(&self, blocks: Vec<Block>) -> bool {
        for block in blocks {
            if self.blocks.send(block).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// The newest orders, once they are others than those that were seen last, and are of this kind.
async fn other(orders: &mut watch::Receiver<Arc<Orders>>, wanted: impl Fn(&Orders) -> bool) -> Arc<Orders> {
    loop {
        if orders.changed().await.is_err() {
            // Nobody gives orders any more: the process is stopping.
            return std::future::pending().await;
        }
        let new = Arc::clone(&orders.borrow_and_update());
        if wanted(&new) {
            return new;
        }
    }
}

fn report(started: std::time::SystemTime, seen: Exchange, counts: Counts, failure: Option<Failure>) -> ScrapeReport {
    // As in the synthetic series: of an answer that never came nothing is counted.
    let came = failure.as_ref().is_none_or(|failure| blames_exposition(failure.reason));
    let counts = if came { counts } else { Counts::default() };
    ScrapeReport {
        started,
        phases: seen.phases,
        samples: counts.scraped,
        samples_kept: counts.kept,
        forged: counts.forged,
        body_bytes: seen.body_bytes,
        peer: seen.peer,
        failure,
        lack: None,
    }
}

/// Says when a target begins to fail and when it is over; a reason that comes again, also in turn with others or with
/// successes, is said now and then only.
#[derive(Default)]
struct FailureLog {
    failing: Option<Reason>,
    said: HashMap<Reason, Repeated>,
    recoveries: Option<Repeated>,
}

impl FailureLog {
    fn tell(&mut self, target: &Target, failure: Option<&Failure>, lack: Option<&Failure>) {
        let (job, instance) = (&*target.pool, clean(target.labels.value("instance")));
        if let Some(lack) = lack
            && let Some(held_back) = self.may_say(lack.reason)
        {
            warn!(
                job,
                target = %instance,
                reason = %lack.reason,
                detail = lack.detail,
                hint = &*lack.hint(),
                held_back,
                "scraped, but answers lack something"
            );
        }
        let Some(failure) = failure else {
            let recoveries = self.recoveries.get_or_insert_with(|| Repeated::new(REPEAT_LOG));
            if let Some(reason) = self.failing.take()
                && let Some(held_back) = recoveries.speak()
            {
                info!(job, target = %instance, was = %reason, held_back, "scraped again");
            }
            return;
        };
        self.failing = Some(failure.reason);
        let Some(held_back) = self.may_say(failure.reason) else { return };
        if failure.reason == Reason::PodTerminating {
            info!(
                job,
                target = %instance,
                reason = %failure.reason,
                detail = failure.detail,
                hint = &*failure.hint(),
                held_back,
                "a terminating pod answers no more"
            );
        } else {
            warn!(
                job,
                target = %instance,
                reason = %failure.reason,
                detail = failure.detail,
                expected = failure.expected,
                presented = failure.presented,
                hint = &*failure.hint(),
                held_back,
                "scrape failed"
            );
        }
    }

    /// How often the reason was not said since it was last, unless it is not to be said now.
    fn may_say(&mut self, reason: Reason) -> Option<u64> {
        self.said.entry(reason).or_insert_with(|| Repeated::new(REPEAT_LOG)).speak()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::MutexGuard;

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;
    use crate::model::{Address, Alpn, HistogramReading, Labels, Scheme, TargetId, Tenants, Verification};

    /// Log lines as text.
    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Lines {
        fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.bytes().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Lines {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    #[tokio::test]
    async fn that_a_terminating_pod_is_gone_is_no_warning() {
        let target = Target {
            id: TargetId(0),
            pool: "j".into(),
            address: Address::parse("h:1").expect("an address"),
            scheme: Scheme::Https,
            path_and_query: "/metrics".into(),
            labels: [("instance", "h:1")].into_iter().collect(),
            tenants: Tenants::default(),
            discovered: Labels::new(),
            interval: REPEAT_LOG,
            timeout: REPEAT_LOG,
            histograms: HistogramReading::default(),
            verification: Verification::HostName,
            alpn: Alpn::default(),
            pod: None,
        };
        let said = |reason| {
            let lines = Lines::default();
            let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(lines.clone()).finish();
            let failure = Failure::new(reason, "nobody is there");
            tracing::subscriber::with_default(subscriber, || FailureLog::default().tell(&target, Some(&failure), None));
            String::from_utf8(lines.bytes().clone()).expect("text")
        };
        let line = said(Reason::PodTerminating);
        assert!(
            line.contains(" INFO ") && line.contains(" target=h:1 reason=pod_terminating detail=\"nobody is there\""),
            "{line}"
        );
        assert!(line.contains(&format!(" hint={:?} ", Reason::PodTerminating.hint())), "{line}");
        let line = said(Reason::ConnectRefused);
        assert!(line.contains(" WARN ") && line.contains(" target=h:1 reason=connect_refused "), "{line}");
    }
}
