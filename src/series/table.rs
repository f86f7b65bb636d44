//! The memory of one target between scrapes.
//!
//! Two maps lead to one list of series. *Lines* are the series as exposed, remembered by a keyed 64-bit hash of their
//! keys and the length of these, not by the text: a million samples a minute are looked up here. *Labels* are the label sets as they are
//! written, external labels included, because two texts can mean one series. Both hashes are keyed per process, so a
//! target cannot construct collisions.
//!
//! What always holds: a series that the last finished pass exposed and this one does not gets exactly one staleness
//! marker; while a series is remembered, nothing is written of it that is older than its last sample or marker, unless
//! that one was made by a clock far ahead; a pass that is dropped before its end has changed nothing of that; entries
//! that the last successful pass did not see are forgotten with it; what one pass may add is bounded.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::block::{BlockBuilder, PointRef, Written};
use super::exemplar::Exemplars;
use super::known::{Described, Series};
use super::output::Output;
use super::{View, synthetic};
use crate::config::{JobSecurity, ScrapeConfig};
use crate::label::SampleRules;
use crate::model::{
    Block, Failure, Histogram, Labels, Reason, Sample, Target, TargetId, Tenants, WriteFormat, stale_nan,
};
use crate::parse;
use crate::wire::v2::Dictionary;

/// What one scrape may add to the memory of its target, in bytes: a target that exposes other series each time must
/// not take the process with it.
const MAX_NEW_BYTES: usize = 64 * 1024 * 1024;
/// How much more than twice what the last good scrape left may be remembered of failing ones.
const SPARE_BYTES: usize = 1024 * 1024;
/// A timestamp this far ahead of the scrape was made by a clock that was wrong, or by a target that lies.
pub(super) const FUTURE_MS: i64 = 10 * 60 * 1000;

/// The memory of one target.
pub struct Table {
    pub(super) job: Arc<ScrapeConfig>,
    pub(super) target: TargetId,
    pub(super) target_labels: Labels,
    /// Whose its samples are.
    pub(super) tenants: Tenants,
    pub(super) external: Labels,
    pub(super) views: Arc<[View]>,
    pub(super) hasher: RandomState,
    pub(super) lines: HashTable<Line>,
    pub(super) by_labels: HashTable<(u64, SeriesIndex)>,
    pub(super) series: Vec<Option<Series>>,
    pub(super) free: Vec<SeriesIndex>,
    pub(super) synthetic: Vec<Series>,
    /// The texts of all series, for views of remote write 2.0.
    pub(super) dictionary: Dictionary,
    /// What its series are.
    pub(super) described: Described,
    /// The number of the pass that runs or ran last; 0 before the first.
    pub(super) pass: u64,
    /// The number of the last pass that came to its end.
    pub(super) finished: u64,
    /// What the running pass has added, in bytes.
    new_bytes: usize,
    /// What is remembered, in bytes.
    pub(super) bytes: usize,
    /// What was remembered after the last successful pass.
    good_bytes: usize,
    /// What was written and not told of yet.
    output: Output,
}

/// A series that is to be written, with what it has at one time.
struct Told<'a> {
    series: &'a Series,
    point: PointRef<'a>,
    /// Since when it counts, if that is known.
    start_ms: Option<i64>,
    /// Encoded, each with the number of the point.
    exemplars: &'a [(usize, Box<[u8]>)],
}

impl<'a> Told<'a> {
    fn sample(series: &'a Series, value: f64, timestamp_ms: i64) -> Self {
        Self { series, point: PointRef::Float(Sample { value, timestamp_ms }), start_ms: None, exemplars: &[] }
    }
}

/// Where a series stands in the list.
pub(super) type SeriesIndex = u32;

/// A series text that has been seen.
pub(super) struct Line {
    hash: u64,
    length: u32,
    /// The series it means; `None` if relabelling drops it.
    outcome: Option<SeriesIndex>,
    /// The pass that saw it first.
    born: u64,
    /// The pass that saw it last.
    seen: u64,
}

/// What a line turned out to be.
pub(super) enum Found {
    /// A series that is kept; `new` if the table had not known this text of it, `again` if this pass met the text before.
    Kept { index: SeriesIndex, new: bool, again: bool },
    /// Relabelling drops it.
    Dropped,
    /// It claims to be one of the synthetic series.
    Forged,
    /// It would be kept, but is new and may not be added.
    Full,
}

/// What a series has at one time.
pub(super) enum Point {
    Float(Sample),
    Histogram { histogram: Box<Histogram>, timestamp_ms: i64 },
}

impl Point {
    fn timestamp_ms(&self) -> i64 {
        match self {
            Point::Float(sample) => sample.timestamp_ms,
            Point::Histogram { timestamp_ms, .. } => *timestamp_ms,
        }
    }

    fn as_ref(&self) -> PointRef<'_> {
        match self {
            Point::Float(sample) => PointRef::Float(*sample),
            Point::Histogram { histogram, timestamp_ms } => PointRef::Histogram(histogram, *timestamp_ms),
        }
    }
}

/// What a pass that ends leaves behind.
pub(super) struct Ending<'a> {
    /// What is stored of it.
    pub(super) points: &'a [(SeriesIndex, Point)],
    /// Since when some of these count, each with the number of its point, in that order.
    pub(super) starts: &'a [(usize, i64)],
    /// The exemplars of these.
    pub(super) exemplars: &'a Exemplars,
    /// Whether the series that it had reached count as exposed.
    pub(super) reached: bool,
    /// The values of the synthetic series.
    pub(super) own: [f64; 8],
    /// The time of the scrape.
    pub(super) at_ms: i64,
}

impl Table {
    /// An empty table for `target` of `job`, whose samples go to `views`. `external` are the external labels, which
    /// count as target labels in jobs that protect them.
    pub fn new(job: Arc<ScrapeConfig>, target: &Target, views: Arc<[View]>, external: &Labels) -> Self {
        let hasher = RandomState::default();
        let mut dictionary = Dictionary::default();
        let synthetic = synthetic_labels(&job, target, external).zip(&*synthetic::METADATA);
        let synthetic = synthetic.map(|(labels, metadata)| {
            let series = Series::new(&labels, hasher.hash_one(&labels), &views, &mut dictionary, 0);
            Series { metadata: Some(Arc::clone(metadata)), ..series }
        });
        let synthetic = synthetic.collect();
        let target_labels = target_labels(&job, target, external);
        Self {
            job,
            target: target.series_id(),
            target_labels,
            tenants: target.tenants.clone(),
            external: external.clone(),
            views,
            hasher,
            lines: HashTable::new(),
            by_labels: HashTable::new(),
            series: Vec::new(),
            free: Vec::new(),
            synthetic,
            dictionary,
            described: Described::default(),
            pass: 0,
            finished: 0,
            new_bytes: 0,
            bytes: 0,
            good_bytes: 0,
            output: Output::default(),
        }
    }

    /// What was written since this was asked last.
    pub fn take_output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// How many series are remembered.
    pub fn len(&self) -> usize {
        self.series.len() - self.free.len()
    }

    /// Whether no series is remembered.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The markers that end everything this target exposed: it is no longer scraped. A pass that was dropped before its
    /// end does not count.
    pub fn end(&mut self, at_ms: i64) -> Vec<Block> {
        let finished = self.finished;
        if finished == 0 {
            return Vec::new();
        }
        let exposed = self.series.iter().flatten().filter(|series| series.exposed == finished);
        let ending = exposed.chain(&self.synthetic).filter(|series| series.newest_ms(at_ms) < at_ms);
        let (blocks, output) = self.encode(ending.map(|series| Told::sample(series, stale_nan(), at_ms)));
        self.output += output;
        self.finished = 0;
        blocks
    }

    pub(super) fn begin_pass(&mut self) {
        self.pass += 1;
        self.new_bytes = 0;
    }

    /// What the running pass has added, in bytes.
    pub(super) fn new_bytes(&self) -> usize {
        self.new_bytes
    }

    pub(super) fn series_mut(&mut self, index: SeriesIndex) -> &mut Series {
        self.series[index as usize].as_mut().expect("a line leads only to a series that is remembered")
    }

    /// Looks a series up as it was exposed, and makes it known if it is new.
    pub(super) fn find(&mut self, exposed: &parse::Series<'_>, may_add: bool) -> Result<Found, Failure> {
        let key = exposed.key();
        let hash = self.hasher.hash_one(key);
        let length = u32::try_from(key.as_bytes().len()).unwrap_or(u32::MAX);
        let pass = self.pass;
        if let Some(line) = self.lines.find_mut(hash, |line| line.hash == hash && line.length == length) {
            let repeated = std::mem::replace(&mut line.seen, pass) == pass;
            let known = line.born != pass;
            let Some(index) = line.outcome else { return Ok(Found::Dropped) };
            let views = self.views.len();
            let series = self.series_mut(index);
            series.seen = pass;
            if series.encoded.len() < views
                && let Some(labels) = self.stored(exposed)?
            {
                self.complete(index, &completed(&labels, &self.external))?;
            }
            // As in Prometheus, a text is remembered from its first sample that was taken.
            let again = repeated && (known || self.series_mut(index).pending == pass);
            return Ok(Found::Kept { index, new: false, again });
        }

        let found = match &self.stored(exposed)? {
            None => Found::Dropped,
            Some(labels) => self.intern(labels, may_add)?,
        };
        let outcome = match found {
            Found::Kept { index, .. } => Some(index),
            Found::Dropped => None,
            // Not remembered: these are judged anew each time.
            Found::Forged | Found::Full => return Ok(found),
        };
        self.charge(size_of::<Line>())?;
        let line = Line { hash, length, outcome, born: pass, seen: pass };
        self.lines.insert_unique(hash, line, |line| line.hash);
        Ok(found)
    }

    /// The labels that a series is stored under, without the external ones; `None` if relabelling drops it.
    fn stored(&self, exposed: &parse::Series<'_>) -> Result<Option<Labels>, Failure> {
        let rules = SampleRules {
            target_labels: &self.target_labels,
            honor_labels: self.job.honor_labels,
            relabel: &self.job.metric_relabel,
            names: self.job.names,
            limits: &self.job.limits,
        };
        match exposed.labels() {
            Ok(scraped) => rules.stored(scraped, exposed.empty_labels()),
            // As in Prometheus, what relabelling drops does not come to where a label given twice is an error.
            Err(error) => match rules.stored(exposed.first_labels(), exposed.empty_labels()) {
                Ok(None) => Ok(None),
                _ => Err(Failure::new(Reason::InvalidSample, error.to_string())),
            },
        }
    }

    /// Encodes a series, `written` with its external labels, for the views that it is not encoded for.
    fn complete(&mut self, index: SeriesIndex, written: &Labels) -> Result<(), Failure> {
        let views = Arc::clone(&self.views);
        let known = std::mem::take(&mut self.series_mut(index).encoded);
        let texts_before = self.dictionary.bytes();
        let missing: Vec<_> =
            views[known.len()..].iter().map(|view| view.encode(written, &mut self.dictionary)).collect();
        let bytes: usize = missing.iter().flatten().map(|labels| labels.len()).sum();
        self.series_mut(index).encoded = known.into_iter().chain(missing).collect();
        self.charge(bytes + self.dictionary.bytes() - texts_before)
    }

    /// Counts what is about to be remembered.
    fn charge(&mut self, bytes: usize) -> Result<(), Failure> {
        self.new_bytes += bytes;
        self.bytes += bytes;
        if self.new_bytes <= MAX_NEW_BYTES {
            return Ok(());
        }
        let detail = format!("one scrape added more than {MAX_NEW_BYTES} bytes of series that were not there before");
        Err(Failure::new(Reason::TooManyNewSeries, detail))
    }

    /// The series with these labels, remembered from now on.
    fn intern(&mut self, labels: &Labels, may_add: bool) -> Result<Found, Failure> {
        let written = completed(labels, &self.external);
        let hash = self.hasher.hash_one(&written);
        if self.synthetic.iter().any(|own| own.labels_hash == hash) {
            return Ok(Found::Forged);
        }
        let pass = self.pass;
        if let Some(&(_, index)) = self.by_labels.find(hash, |(own, _)| *own == hash) {
            let views = self.views.len();
            let series = self.series_mut(index);
            series.seen = pass;
            if series.encoded.len() < views {
                self.complete(index, &written)?;
            }
            return Ok(Found::Kept { index, new: true, again: false });
        }
        if !may_add {
            return Ok(Found::Full);
        }
        let texts_before = self.dictionary.bytes();
        let series = Series::new(&written, hash, &self.views, &mut self.dictionary, pass);
        self.charge(series.bytes() + self.dictionary.bytes() - texts_before)?;
        Ok(Found::Kept { index: self.remember(series), new: true, again: false })
    }

    pub(super) fn remember(&mut self, series: Series) -> SeriesIndex {
        let hash = series.labels_hash;
        let index = match self.free.pop() {
            Some(index) => {
                self.series[index as usize] = Some(series);
                index
            }
            None => {
                self.series.push(Some(series));
                u32::try_from(self.series.len() - 1).expect("a body of at most 256 MiB has fewer series")
            }
        };
        self.by_labels.insert_unique(hash, (hash, index), |(own, _)| *own);
        index
    }

    /// The blocks of a pass that ends: its samples, the markers of what it no longer exposes, the synthetic series.
    pub(super) fn finish(&mut self, ending: &Ending<'_>) -> Vec<Block> {
        let (before, pass, at_ms) = (self.finished, self.pass, ending.at_ms);
        for (index, point) in ending.points {
            let series = self.series_mut(*index);
            series.committed_ms = series.newest_ms(at_ms).max(point.timestamp_ms());
        }
        for (index, newest) in &ending.exemplars.newest {
            self.series_mut(*index).exemplar = Some(Box::new(*newest));
        }
        if ending.reached {
            for series in self.series.iter_mut().flatten().filter(|series| series.tracked == pass) {
                series.exposed = pass;
            }
        }
        let (mut starts, mut exemplars) = (ending.starts, &*ending.exemplars.encoded);
        let exposed = ending.points.iter().enumerate().map(|(number, (index, point))| {
            let series = self.series[*index as usize].as_ref();
            let own;
            (own, exemplars) = exemplars.split_at(exemplars.partition_point(|(other, _)| *other <= number));
            let start_ms =
                starts.split_first().filter(|((other, _), _)| *other == number).map(|((_, start_ms), rest)| {
                    starts = rest;
                    *start_ms
                });
            let series = series.expect("samples of this pass have a series");
            Told { series, point: point.as_ref(), start_ms, exemplars: own }
        });
        // As Prometheus writes it, the end of a series of histograms is a sample, too.
        let ends = |series: &Series| before > 0 && series.exposed == before && series.newest_ms(at_ms) < at_ms;
        let gone = self.series.iter().flatten().filter(|series| ends(series));
        // Nor is `up` written into the past where the clock was set back: a receiver would refuse the whole request.
        let own = self.synthetic.iter().zip(ending.own).filter(|(series, _)| series.newest_ms(at_ms) < at_ms);
        let own = own.map(|(series, value)| Told::sample(series, value, at_ms));
        let gone = gone.map(|series| Told::sample(series, stale_nan(), at_ms));
        let (blocks, output) = self.encode(exposed.chain(gone).chain(own));
        self.output += output;
        for series in self.series.iter_mut().flatten().filter(|series| ends(series)) {
            series.committed_ms = at_ms;
        }
        for series in &mut self.synthetic {
            series.committed_ms = series.newest_ms(at_ms).max(at_ms);
        }
        self.finished = pass;
        blocks
    }

    /// Forgets every line and series that this pass did not see, after a pass that succeeded.
    pub(super) fn forget_unseen(&mut self) {
        let pass = self.pass;
        self.forget(|_, seen| seen == pass);
        self.good_bytes = self.bytes;
    }

    /// After a pass that failed, forgets what it was the first to see, but only if what is remembered has grown out of
    /// proportion: else series would count as new again when the target recovers.
    pub(super) fn forget_excess(&mut self) {
        let pass = self.pass;
        if self.bytes > self.good_bytes.saturating_mul(2).saturating_add(SPARE_BYTES) {
            self.forget(|born, _| born != pass);
        }
    }

    /// Keeps lines and series for which `keep(born, seen)` says so, and counts anew what they take.
    fn forget(&mut self, keep: impl Fn(u64, u64) -> bool) {
        let mut bytes = 0;
        let (series, free) = (&mut self.series, &mut self.free);
        self.by_labels.retain(|&mut (_, index)| {
            let slot = &mut series[index as usize];
            match slot.as_ref().filter(|series| keep(series.born, series.seen)) {
                Some(series) => bytes += series.bytes(),
                None => {
                    *slot = None;
                    free.push(index);
                }
            }
            slot.is_some()
        });
        self.lines.retain(|line| {
            let leads_somewhere = line.outcome.is_none_or(|index| series[index as usize].is_some());
            let kept = keep(line.born, line.seen) && leads_somewhere;
            bytes += if kept { size_of::<Line>() } else { 0 };
            kept
        });
        if self.dictionary.has_grown() {
            let all = self.series.iter().flatten().chain(&self.synthetic);
            let encoded = all.flat_map(|series| series.encoded.iter().zip(&*self.views));
            let of_2 = encoded.filter(|(_, view)| view.format == WriteFormat::V2);
            self.dictionary.sweep(of_2.filter_map(|(labels, _)| labels.as_deref()));
        }
        self.bytes = bytes + self.dictionary.bytes();
    }

    /// Whether any receiver wants exemplars.
    pub(super) fn wants_exemplars(&self) -> bool {
        self.views.iter().any(|view| view.exemplars)
    }

    /// Whether any receiver is told since when a series counts.
    pub(super) fn wants_starts(&self) -> bool {
        self.views.iter().any(|view| view.format == WriteFormat::V2)
    }

    /// Whether any receiver is told with each series what it is.
    pub(super) fn wants_metadata(&self) -> bool {
        self.views.iter().any(|view| view.metadata)
    }

    fn encode<'s>(&self, points: impl Iterator<Item = Told<'s>>) -> (Vec<Block>, Output) {
        let mut output = Output::default();
        let builder = |view| BlockBuilder::new(view, self.target, &self.tenants, &self.dictionary);
        let mut builders: Vec<_> = self.views.iter().map(builder).collect();
        for Told { series, point, start_ms, exemplars } in points {
            match point {
                PointRef::Float(_) => output.samples += 1,
                PointRef::Histogram(..) => output.histograms += 1,
            }
            output.exemplars += exemplars.len() as u64;
            for (builder, encoded) in builders.iter_mut().zip(&series.encoded) {
                if let Some(labels) = encoded {
                    builder.push(Written { labels, metadata: series.metadata.as_ref(), point, start_ms, exemplars });
                }
            }
        }
        (builders.into_iter().flat_map(BlockBuilder::finish).collect(), output)
    }
}

/// The labels that every series of `target` gets before metric relabelling.
pub(super) fn target_labels(job: &ScrapeConfig, target: &Target, external: &Labels) -> Labels {
    let protected = matches!(job.security, JobSecurity::Spiffe(_)) && job.protect_external_labels;
    if protected { completed(&target.labels, external) } else { target.labels.clone() }
}

/// The labels of the synthetic series that are written for `target`, external ones included.
pub(super) fn synthetic_labels(job: &ScrapeConfig, target: &Target, external: &Labels) -> impl Iterator<Item = Labels> {
    let written = if job.extra_scrape_metrics { synthetic::NAMES.len() } else { synthetic::STANDARD };
    let labels = completed(&target.labels, external);
    synthetic::NAMES[..written].iter().map(move |name| {
        let mut labels = labels.clone();
        labels.set("__name__", name);
        labels
    })
}

/// `labels`, and those of `external` whose names are still free.
fn completed(labels: &Labels, external: &Labels) -> Labels {
    let mut labels = labels.clone();
    for (name, value) in external.iter_shared() {
        if !labels.contains(name) {
            labels.set_shared(Arc::clone(name), Arc::clone(value));
        }
    }
    labels
}
