//! A target that numbers its answers, and what becomes of them.
//!
//! Its own record of when it gave each is the truth. Every series of an answer has the number of the answer as its value, so
//! that whoever looks at what came sees what is missing, of which series, and what came twice or late.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::{first_times, taken};
use crate::support::agent::eventually;
use crate::support::receiver::Recorded;
use crate::support::scale;
use crate::support::tls_server::{Reply, Script, Server, Talk};
use meshscrape::model::{Address, is_stale};

/// How long before an event an answer must have been given to count as finished. The promise is 100 ms, which holds as long as
/// the machine lets the program run. An ordinary run must not hang on that: with 27 processes for 2 processors, a kill now
/// and then cut off what was answered 100 ms before.
pub(super) fn finished_after() -> Duration {
    scale(Duration::from_millis(1000), Duration::from_millis(100))
}

/// The target.
pub(super) struct Numbered {
    server: Server,
    /// When each answer was given; they are numbered from 1.
    answered: Arc<Mutex<Vec<Instant>>>,
}

impl Numbered {
    /// With so many series beside `answer_number`.
    pub(super) fn start(fillers: usize) -> Self {
        Self::with(fillers, 0, Server::start)
    }

    /// The same, each with so much in a label that nothing makes smaller.
    pub(super) fn bulky(fillers: usize, bytes: usize) -> Self {
        Self::with(fillers, bytes, Server::start)
    }

    /// The same behind a socket that listens somewhere.
    pub(super) fn on(listener: TcpListener, fillers: usize) -> Self {
        Self::with(fillers, 0, |talk| Server::on(listener, talk))
    }

    fn with(fillers: usize, bytes: usize, serve: impl FnOnce(Talk) -> Server) -> Self {
        let answered = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&answered);
        let bulk = || (0..bytes).map(|_| char::from(rand::random_range(b'!'..=b'Z'))).filter(|c| *c != '"').collect();
        let bulk: Vec<String> = (0..fillers).map(|_| bulk()).collect();
        let answer: Script = Arc::new(move |_| {
            let number = {
                let mut record = record.lock().expect("no panic while it is held");
                record.push(Instant::now());
                record.len()
            };
            let series = bulk.iter().enumerate();
            let rest: String =
                series.map(|(n, bulk)| format!("filler{{n=\"{n}\",bulk=\"{bulk}\"}} {number}\n")).collect();
            Reply::ok(&format!("answer_number {number}\n{rest}"))
        });
        Self { server: serve(Talk::Plain(answer)), answered }
    }

    /// Where it is.
    pub(super) fn address(&self) -> Address {
        self.server.address()
    }

    /// A job that scrapes it so often.
    pub(super) fn job(&self, name: &str, interval: Duration) -> String {
        let (address, ms) = (self.server.address(), interval.as_millis());
        format!(
            "- {{job_name: {name}, scrape_interval: {ms}ms, scrape_timeout: {ms}ms, static_configs: [{{targets: ['{address}']}}]}}\n"
        )
    }

    /// How many it has given.
    pub(super) fn answers(&self) -> usize {
        self.record().len()
    }

    /// Waits for so many more.
    pub(super) async fn scrapes(&self, more: usize) {
        let enough = self.answers() + more;
        eventually("more scrapes", async || (self.answers() >= enough).then_some(())).await;
    }

    /// The numbers of the answers behind `before` that were finished at `moment`.
    pub(super) fn finished(&self, before: usize, moment: Instant) -> Vec<u64> {
        let record = self.record();
        let numbered = (1..).zip(record.iter()).skip(before);
        numbered.filter(|(_, at)| **at + finished_after() <= moment).map(|(number, _)| number).collect()
    }

    /// How many were given before `moment`.
    pub(super) fn finished_before(&self, moment: Instant) -> usize {
        self.record().iter().filter(|at| **at < moment).count()
    }

    fn record(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.answered.lock().expect("no panic while it is held")
    }
}

/// Those of `finished` that were not taken. An answer that the program gave up, because it had run out of time, was no scrape.
pub(super) fn lost(finished: &[u64], recorded: &[Recorded]) -> Vec<u64> {
    not_in(finished, recorded.iter().filter(|one| one.was_taken()))
}

/// The same of those that are in none of these requests.
pub(super) fn not_in<'r>(finished: &[u64], requests: impl Iterator<Item = &'r Recorded>) -> Vec<u64> {
    let (mut came, mut failed) = (BTreeMap::new(), BTreeSet::new());
    for (labels, sample) in requests.flat_map(|one| &one.samples) {
        match labels.value("__name__") {
            "answer_number" if !is_stale(sample.value) => _ = came.insert(sample.value as u64, sample.timestamp_ms),
            "up" if sample.value == 0.0 => _ = failed.insert(sample.timestamp_ms),
            _ => {}
        }
    }
    without_given_up(finished, &came, failed)
}

/// Those of `finished` that are not among those that `came`, each at its time, and were not given up either. In the place of
/// an answer that was given up an `up` of 0 came: it excuses one answer, and only if it stands between what came before and
/// behind that one. What was lost on its way has lost its `up` as well. If more than a few were given up, that is no accident.
fn without_given_up(finished: &[u64], came: &BTreeMap<u64, i64>, mut failed: BTreeSet<i64>) -> Vec<u64> {
    let mut most = (finished.len() / 10).max(2);
    let mut gave_up = |number: u64| {
        let before = came.range(..number).next_back().map(|(_, at)| *at);
        let behind = came.range(number..).next().map(|(_, at)| *at);
        let between =
            |at: &&i64| before.is_none_or(|before| before < **at) && behind.is_none_or(|behind| **at < behind);
        let at = failed.iter().find(between).copied().filter(|_| most > 0);
        most -= usize::from(at.is_some());
        at.is_some_and(|at| failed.remove(&at))
    };
    finished.iter().copied().filter(|number| !came.contains_key(number) && !gave_up(*number)).collect()
}

#[test]
fn only_what_failed_in_its_place_excuses_an_answer() {
    let came = BTreeMap::from([(1, 100), (3, 300), (6, 600)]);
    for (failed, lost) in [
        (vec![], [2, 4, 5].as_slice()),
        (vec![200], &[4, 5]),
        (vec![200, 400], &[5]),
        (vec![200, 500], &[5]),
        // More than a few.
        (vec![200, 400, 500], &[5]),
        // At other times, and two in one place.
        (vec![50, 100, 300, 700], &[2, 4, 5]),
        (vec![200, 250], &[4, 5]),
    ] {
        assert_eq!(without_given_up(&[1, 2, 3, 4, 5, 6], &came, failed.iter().copied().collect()), lost, "{failed:?}");
    }
}

/// What became of finished answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    pub(super) finished: usize,
    /// Which, so that whoever wonders why can look for what was done with them.
    pub(super) lost: Vec<u64>,
    pub(super) twice: usize,
    pub(super) out_of_order: usize,
}

impl Losses {
    /// Of these, if that is what a receiver has recorded.
    pub(super) fn of(finished: &[u64], recorded: &[Recorded]) -> Self {
        let came = taken(recorded);
        let once = first_times(&came);
        Self {
            finished: finished.len(),
            lost: lost(finished, recorded),
            twice: came.len() - once.len(),
            out_of_order: once.windows(2).filter(|two| two[1] < two[0]).count(),
        }
    }

    /// Nothing is lost or out of order, of as many as make a test.
    pub(super) fn assert_none(&self, of: &str) {
        assert!(self.finished > 3, "{of}: {self}: this was no test");
        assert!(self.lost.is_empty() && self.out_of_order == 0, "{of}: {self}");
    }
}

impl fmt::Display for Losses {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { finished, lost, twice, out_of_order } = self;
        write!(out, "{} of {finished} lost, {twice} twice, {out_of_order} out of order", lost.len())?;
        if lost.is_empty() { Ok(()) } else { write!(out, "; lost are {lost:?}") }
    }
}
