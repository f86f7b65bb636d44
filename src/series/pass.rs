//! One scrape's walk over the table of its target.

use super::table::{Ending, FUTURE_MS, Found, SeriesIndex};
use super::{Health, Table, synthetic};
use crate::model::{Block, Failure, Reason, Sample};
use crate::parse::SampleEntry;

/// The most samples of one scrape where `sample_limit` is off: they are held until the whole response proved good.
const MAX_SAMPLES: u64 = 2_000_000;

/// What a pass has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sample lines.
    pub scraped: usize,
    /// Sample lines left after relabelling, repeated ones included.
    pub kept: usize,
    /// Samples whose series text the table had not known, or had never seen with a sample that counts.
    pub added: usize,
    /// Samples dropped because their series already had one in this scrape.
    pub duplicates: usize,
    /// Samples dropped because their series already has a newer or equally old one.
    pub out_of_order: usize,
    /// Samples dropped because they lie more than ten minutes ahead.
    pub out_of_bounds: usize,
    /// Samples dropped because they claimed to be a synthetic series.
    pub forged: usize,
}

/// One scrape in progress. Dropping it without [`commit`](Pass::commit) or [`fail`](Pass::fail) writes nothing and
/// changes nothing of what has been exposed.
pub struct Pass<'a> {
    table: &'a mut Table,
    at_ms: i64,
    samples: Vec<(SeriesIndex, Sample)>,
    counts: Counts,
    over_limit: bool,
}

impl Table {
    /// Begins a scrape whose samples get the time `at_ms` (milliseconds since the Unix epoch) unless they bring their
    /// own.
    pub fn begin(&mut self, at_ms: i64) -> Pass<'_> {
        self.begin_pass();
        Pass { table: self, at_ms, samples: Vec::new(), counts: Counts::default(), over_limit: false }
    }
}

impl Pass<'_> {
    /// Takes one sample line.
    ///
    /// # Errors
    /// A failure ends the scrape: the caller hands it to [`Pass::fail`].
    pub fn add(&mut self, entry: &SampleEntry<'_>) -> Result<(), Failure> {
        self.counts.scraped += 1;
        let full = self.samples.len() as u64 >= self.limit();
        let (index, new) = match self.table.find(entry, !full)? {
            Found::Kept { index, new } => (index, new),
            Found::Dropped => return Ok(()),
            Found::Forged => {
                self.counts.forged += 1;
                return Ok(());
            }
            Found::Full => {
                self.counts.kept += 1;
                self.over_limit = true;
                return Ok(());
            }
        };
        self.counts.kept += 1;

        let explicit = entry.timestamp_ms.filter(|_| self.table.job.honor_timestamps);
        let timestamp_ms = explicit.unwrap_or(self.at_ms);
        let track = explicit.is_none() || self.table.job.track_timestamps_staleness;
        let pass = self.table.pass;
        let series = self.table.series_mut(index);
        if explicit.is_none() && series.sampled == pass {
            self.counts.duplicates += 1;
            return Ok(());
        }
        if full {
            self.over_limit = true;
            return Ok(());
        }
        if track {
            series.tracked = pass;
        }
        if timestamp_ms > self.at_ms.saturating_add(FUTURE_MS) {
            self.counts.out_of_bounds += 1;
            return Ok(());
        }
        let newest = if series.pending == pass { series.pending_ms } else { series.newest_ms(self.at_ms) };
        if timestamp_ms <= newest {
            self.counts.out_of_order += 1;
            return Ok(());
        }
        if explicit.is_none() {
            series.sampled = pass;
        }
        self.counts.added += usize::from(new || series.pending == 0);
        series.pending = pass;
        series.pending_ms = timestamp_ms;
        self.samples.push((index, Sample { value: entry.value, timestamp_ms }));
        Ok(())
    }

    /// What has been seen so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the samples may be committed: `sample_limit` is judged when all lines have been counted.
    pub fn check_limit(&self) -> Result<(), Failure> {
        if !self.over_limit {
            return Ok(());
        }
        let limit = self.limit();
        let detail = match self.table.job.limits.sample_limit {
            0 => format!("more than {limit} samples, the ceiling that stands without sample_limit"),
            _ => format!("sample limit exceeded (samples: {}, limit: {limit})", self.counts.kept),
        };
        Err(Failure::new(Reason::SampleLimit, detail))
    }

    /// Ends a scrape that succeeded: its samples, a marker for each series that it no longer exposes, `up 1`.
    pub fn commit(self, health: &Health) -> Vec<Block> {
        let own = synthetic::values(true, &self.counts, health);
        let ending = Ending { samples: &self.samples, reached: true, own, at_ms: self.at_ms };
        let blocks = self.table.finish(&ending);
        // As in Prometheus, a body of no bytes ends all series, and they are not new when they come back.
        if health.body_bytes > 0 {
            self.table.forget_unseen();
        }
        blocks
    }

    /// Ends a scrape that failed: none of its samples, `up 0`, and a marker for each series of the scrape before. As in
    /// Prometheus, an exposition that is at fault itself counts as far as it was read: its lines are in the synthetic
    /// series, and what it had reached gets no marker. Any other failure is an answer that never came.
    pub fn fail(self, failure: &Failure, health: &Health) -> Vec<Block> {
        let reached = blames_exposition(failure.reason);
        let counts = if reached { self.counts } else { Counts::default() };
        let own = synthetic::values(false, &counts, health);
        let blocks = self.table.finish(&Ending { samples: &[], reached, own, at_ms: self.at_ms });
        self.table.forget_excess();
        blocks
    }

    fn limit(&self) -> u64 {
        match self.table.job.limits.sample_limit {
            0 => MAX_SAMPLES,
            limit => limit,
        }
    }
}

/// Whether the fault lies in a line of the exposition, or in their number.
pub fn blames_exposition(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::Parse | Reason::InvalidSample | Reason::LabelLimit | Reason::SampleLimit | Reason::TooManyNewSeries
    )
}
