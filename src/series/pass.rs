//! One scrape's walk over the table of its target.

use std::sync::Arc;

use super::exemplar::{Exemplars, Occasion};
use super::table::{Ending, FUTURE_MS, Found, Point, SeriesIndex};
use super::{Health, Table, synthetic};
use crate::model::{Block, Exemplar, Failure, HistogramError, Metadata, Reason, Sample};
use crate::parse::{self, HistogramEntry, SampleEntry};

/// The most samples of one scrape where `sample_limit` is off: they are held until the whole response proved good.
const MAX_SAMPLES: u64 = 2_000_000;

/// The most buckets of all native histograms of one scrape: eight bytes each, held as samples are.
const MAX_BUCKETS: usize = 8_000_000;

/// What helps where the ceiling is reached.
const FEWER_HISTOGRAMS: &str = "native_histogram_bucket_limit cannot raise this ceiling: drop histograms by metric_relabel_configs, or \
                                merge their buckets by native_histogram_min_bucket_factor";
/// What a histogram takes besides its buckets, in buckets.
const BUCKETS_OF_NONE: usize = 40;

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
    /// Samples all of whose exemplars were dropped because their series has a newer one.
    pub exemplars_out_of_order: usize,
    /// Samples dropped because they claimed to be a synthetic series.
    pub forged: usize,
}

/// One scrape in progress. Dropping it without [`commit`](Pass::commit) or [`fail`](Pass::fail) writes nothing and
/// changes nothing of what has been exposed.
pub struct Pass<'a> {
    table: &'a mut Table,
    at_ms: i64,
    points: Vec<(SeriesIndex, Point)>,
    /// Since when some of them count, each with the number of its point.
    starts: Vec<(usize, i64)>,
    exemplars: Exemplars,
    /// What the family is that was announced last.
    announced: Option<Arc<Metadata>>,
    counts: Counts,
    over_limit: bool,
    /// Of all histograms, about as many as they take memory for.
    buckets: usize,
    over_buckets: bool,
}

/// Where a sample belongs.
struct Place {
    index: SeriesIndex,
    /// Whether the table had not known this way of writing the series.
    new: bool,
    /// Whether this scrape wrote the series so before.
    again: bool,
    /// The time that it brings and that counts.
    explicit_ms: Option<i64>,
}

impl Table {
    /// Begins a scrape whose samples get the time `at_ms` (milliseconds since the Unix epoch) unless they bring their
    /// own.
    pub fn begin(&mut self, at_ms: i64) -> Pass<'_> {
        self.begin_pass();
        Pass {
            table: self,
            at_ms,
            points: Vec::new(),
            starts: Vec::new(),
            exemplars: Exemplars::default(),
            announced: None,
            counts: Counts::default(),
            over_limit: false,
            buckets: 0,
            over_buckets: false,
        }
    }
}

impl Pass<'_> {
    /// Takes an entry of an exposition, if it is one that is stored.
    ///
    /// # Errors
    /// A failure ends the scrape: the caller hands it to [`Pass::fail`].
    pub fn take_entry(&mut self, entry: &parse::Entry<'_>) -> Result<(), Failure> {
        match entry {
            parse::Entry::Sample(sample) => self.add(sample),
            parse::Entry::Histogram(histogram) => self.add_histogram(histogram),
            _ => Ok(()),
        }
    }

    /// About how many bytes are held for this scrape: its points, and the series that it was the first to see.
    pub fn held_bytes(&self) -> u64 {
        let points = self.points.capacity() * size_of::<(SeriesIndex, Point)>();
        let buckets = self.buckets * size_of::<u64>();
        let starts = self.starts.capacity() * size_of::<(usize, i64)>();
        (points + starts + buckets + self.exemplars.bytes() + self.table.new_bytes()) as u64
    }

    /// Takes what is known of a metric family, before its samples.
    pub fn announce(&mut self, family: &Arc<Metadata>) {
        if self.table.wants_metadata() {
            self.announced = Some(Arc::clone(family));
        }
    }

    /// Takes one sample.
    ///
    /// # Errors
    /// A failure ends the scrape: the caller hands it to [`Pass::fail`].
    pub fn add(&mut self, entry: &SampleEntry<'_>) -> Result<(), Failure> {
        if let Some(place) = self.place(&entry.series, entry.timestamp_ms)? {
            self.counts.kept += 1;
            self.describe(place.index, &entry.series);
            if let Some(timestamp_ms) = self.take(&place) {
                let sample = Sample { value: entry.value, timestamp_ms };
                self.begun(entry.start_ms, timestamp_ms);
                if let Some(exemplar) = entry.exemplar.filter(|_| self.table.wants_exemplars()) {
                    self.exemplify(exemplar.to_model().into_iter().collect(), place.index, timestamp_ms);
                }
                self.points.push((place.index, Point::Float(sample)));
            }
        }
        Ok(())
    }

    /// Takes one native histogram.
    ///
    /// # Errors
    /// As [`Pass::add`]; also where the histogram is none.
    pub fn add_histogram(&mut self, entry: &HistogramEntry<'_>) -> Result<(), Failure> {
        let Some(place) = self.place(&entry.series, entry.timestamp_ms)? else { return Ok(()) };
        // As in Prometheus, what is repeated is not looked at, and may be anything.
        if self.is_repeated(&place) {
            self.counts.kept += 1;
            self.counts.duplicates += 1;
            return Ok(());
        }
        let histograms = &self.table.job.histograms;
        let limit = Some(histograms.bucket_limit).filter(|limit| *limit > 0);
        let limit = limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let mut histogram = Box::new(entry.histogram.clone());
        let fits = match histogram.settle(histograms.max_schema(), limit) {
            Ok(()) => true,
            Err(HistogramError::TooManyBuckets { .. }) => false,
            Err(error) => {
                let detail = format!("a native histogram cannot be stored: {error}");
                return Err(Failure::new(Reason::InvalidSample, detail));
            }
        };
        self.counts.kept += 1;
        self.buckets += histogram.buckets() + histogram.custom_values.len() + BUCKETS_OF_NONE;
        if !fits || self.buckets > MAX_BUCKETS {
            self.over_buckets = true;
            return Ok(());
        }
        self.describe(place.index, &entry.series);
        if let Some(timestamp_ms) = self.take(&place) {
            if !entry.exemplars.is_empty() && self.table.wants_exemplars() {
                self.exemplify(entry.exemplars.to_vec(), place.index, timestamp_ms);
            }
            self.begun(entry.start_ms, timestamp_ms);
            self.points.push((place.index, Point::Histogram { histogram, timestamp_ms }));
        }
        Ok(())
    }

    /// Remembers what a series is, if it is one of the family that was announced last.
    fn describe(&mut self, index: SeriesIndex, exposed: &parse::Series<'_>) {
        let Some(family) = &self.announced else { return };
        let known = &mut self.table.series_mut(index).metadata;
        if known.as_ref() != Some(family) && family.describes(&exposed.name()) {
            // What it was before may be what there has to be room for.
            *known = None;
            self.table.series_mut(index).metadata = self.table.described.copy_of(family);
        }
    }

    /// Takes the exemplars of the point that is about to be stored.
    fn exemplify(&mut self, exemplars: Vec<Exemplar>, series: SeriesIndex, timestamp_ms: i64) {
        let occasion = Occasion { point: self.points.len(), series, timestamp_ms, at_ms: self.at_ms };
        let known = self.table.series_mut(series).exemplar.as_deref().copied();
        if !self.exemplars.take(exemplars, occasion, known, &self.table.hasher) {
            self.counts.exemplars_out_of_order += 1;
        }
    }

    /// Remembers since when the point counts that is about to be stored, if that can be and a receiver has a place for it.
    fn begun(&mut self, start_ms: Option<i64>, timestamp_ms: i64) {
        let start_ms = start_ms.filter(|start_ms| (1..timestamp_ms).contains(start_ms));
        if let Some(start_ms) = start_ms.filter(|_| self.table.wants_starts()) {
            self.starts.push((self.points.len(), start_ms));
        }
    }

    /// Finds out which series it is, and when; `None` if it is not kept.
    fn place(&mut self, series: &parse::Series<'_>, timestamp_ms: Option<i64>) -> Result<Option<Place>, Failure> {
        self.counts.scraped += 1;
        let full = self.points.len() as u64 >= self.limit();
        let explicit_ms = timestamp_ms.filter(|_| self.table.job.honor_timestamps);
        match self.table.find(series, !full)? {
            Found::Kept { index, new, again } => Ok(Some(Place { index, new, again, explicit_ms })),
            Found::Dropped => Ok(None),
            Found::Forged => {
                self.counts.forged += 1;
                Ok(None)
            }
            Found::Full => {
                self.counts.kept += 1;
                self.over_limit = true;
                Ok(None)
            }
        }
    }

    /// Whether the series has a sample at the time of this scrape already. As in Prometheus, a text that stood there with a time
    /// of its own does not count once more without one.
    fn is_repeated(&mut self, place: &Place) -> bool {
        let pass = self.table.pass;
        place.explicit_ms.is_none() && (self.table.series_mut(place.index).sampled == pass || place.again)
    }

    /// Judges what has come; its time if it is to be stored.
    fn take(&mut self, place: &Place) -> Option<i64> {
        if self.is_repeated(place) {
            self.counts.duplicates += 1;
            return None;
        }
        let full = self.points.len() as u64 >= self.limit();
        let pass = self.table.pass;
        let explicit = place.explicit_ms.is_some();
        let timestamp_ms = place.explicit_ms.unwrap_or(self.at_ms);
        let track = !explicit || self.table.job.track_timestamps_staleness;
        if full {
            self.over_limit = true;
            return None;
        }
        let series = self.table.series_mut(place.index);
        if track {
            series.tracked = pass;
        }
        if timestamp_ms > self.at_ms.saturating_add(FUTURE_MS) {
            self.counts.out_of_bounds += 1;
            return None;
        }
        let newest = if series.pending == pass { series.pending_ms } else { series.newest_ms(self.at_ms) };
        if timestamp_ms <= newest {
            self.counts.out_of_order += 1;
            return None;
        }
        if !explicit {
            series.sampled = pass;
        }
        // As in Prometheus, nothing is added behind what went over a limit.
        let within = !self.over_limit && !self.over_buckets;
        self.counts.added += usize::from(within && (place.new || series.pending == 0));
        series.pending = pass;
        series.pending_ms = timestamp_ms;
        Some(timestamp_ms)
    }

    /// What has been seen so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether the samples may be committed: limits on their number are judged when all have been counted.
    pub fn check_limit(&self) -> Result<(), Failure> {
        if !self.over_limit {
            return self.check_buckets();
        }
        let limit = self.limit();
        let detail = match self.table.job.limits.sample_limit {
            0 => format!("more than {limit} samples, the ceiling that stands without sample_limit"),
            _ => format!("sample limit exceeded (samples: {}, limit: {limit})", self.counts.kept),
        };
        Err(Failure::new(Reason::SampleLimit, detail))
    }

    fn check_buckets(&self) -> Result<(), Failure> {
        if !self.over_buckets {
            return Ok(());
        }
        match self.table.job.histograms.bucket_limit {
            limit if limit > 0 && self.buckets <= MAX_BUCKETS => {
                Err(Failure::new(Reason::BucketLimit, format!("histogram bucket limit exceeded (limit: {limit})")))
            }
            _ => {
                let detail = format!(
                    "the native histograms of one scrape have about {MAX_BUCKETS} buckets, the ceiling that stands"
                );
                Err(Failure::new(Reason::BucketLimit, detail).mended_by(FEWER_HISTOGRAMS))
            }
        }
    }

    /// Ends a scrape that succeeded: its samples, a marker for each series that it no longer exposes, `up 1`.
    pub fn commit(self, health: &Health) -> Vec<Block> {
        let own = synthetic::values(true, &self.counts, health);
        let Self { table, points, starts, exemplars, at_ms, .. } = self;
        let ending = Ending { points: &points, starts: &starts, exemplars: &exemplars, reached: true, own, at_ms };
        let blocks = table.finish(&ending);
        // As in Prometheus, a body of no bytes ends all series, and they are not new when they come back.
        if health.body_bytes > 0 {
            table.forget_unseen();
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
        let exemplars = &Exemplars::default();
        let blocks =
            self.table.finish(&Ending { points: &[], starts: &[], exemplars, reached, own, at_ms: self.at_ms });
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
        Reason::Parse
            | Reason::InvalidSample
            | Reason::LabelLimit
            | Reason::SampleLimit
            | Reason::BucketLimit
            | Reason::TooManyNewSeries
    )
}
