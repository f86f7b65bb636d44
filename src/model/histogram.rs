//! A native histogram: counts in buckets whose bounds follow from a schema, or are listed.
//!
//! Buckets are kept as they travel, in runs (*spans*) with gaps between them; of an integer histogram each bucket says
//! how much it differs from the one before. What a target sends is not to be trusted: [`Histogram::settle`] checks it and
//! brings it into the one form that equal histograms share, and nothing is stored before.

use thiserror::Error;

/// The finest resolution: each power of two has 2^8 buckets.
pub const MAX_SCHEMA: i32 = 8;
/// The coarsest resolution.
pub const MIN_SCHEMA: i32 = -4;
/// The schema of listed bounds.
pub const CUSTOM_SCHEMA: i32 = -53;
/// Finer resolutions than [`MAX_SCHEMA`], up to this one, are known and are reduced.
const MAX_KNOWN_SCHEMA: i32 = 52;

/// What was observed up to a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Histogram {
    /// `n` of the growth 2^(2^-n) from bound to bound, or [`CUSTOM_SCHEMA`].
    pub schema: i32,
    /// The width of the bucket around zero.
    pub zero_threshold: f64,
    /// The sum of all observations.
    pub sum: f64,
    /// Whether counts may go down.
    pub gauge: bool,
    /// How often something was observed.
    pub counts: Counts,
    /// With [`CUSTOM_SCHEMA`], the upper bounds of all buckets but the last, which has none.
    pub custom_values: Vec<f64>,
}

/// The counts of a histogram, all of them whole numbers, or none of them needs to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Counts {
    /// Each bucket as its difference from the one before.
    Integer(Tally<u64, i64>),
    /// Each bucket as it is.
    Float(Tally<f64, f64>),
}

/// Counts with numbers of one kind.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally<C, B> {
    /// All observations.
    pub count: C,
    /// Those in the bucket around zero.
    pub zero_count: C,
    /// Those below it.
    pub negative: Buckets<B>,
    /// Those above it.
    pub positive: Buckets<B>,
}

/// Buckets of one side.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Buckets<B> {
    /// Which buckets there are.
    pub spans: Vec<Span>,
    /// Their counts, without the gaps.
    pub counts: Vec<B>,
}

/// A run of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The gap before it; of the first one, its index.
    pub offset: i32,
    /// How many buckets.
    pub length: u32,
}

/// Why a histogram cannot be stored.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum HistogramError {
    /// No schema that anybody knows.
    #[error("the schema {0} is neither {MIN_SCHEMA} to {MAX_SCHEMA} nor {CUSTOM_SCHEMA}")]
    Schema(i32),
    /// As many buckets as spans say there must be.
    #[error("the spans have {spans} buckets and {buckets} are given")]
    Spans {
        /// Buckets by the spans.
        spans: u64,
        /// Buckets.
        buckets: usize,
    },
    /// A span that goes back, or too far.
    #[error("the spans do not go from low buckets to high ones")]
    Order,
    /// Less than nothing was observed.
    #[error("a count is negative or too large")]
    Count,
    /// The buckets do not add up.
    #[error("the buckets have {buckets} observations and the histogram has {count}")]
    Sum {
        /// In the buckets.
        buckets: u64,
        /// In all.
        count: u64,
    },
    /// Listed bounds that are not finite, or not in order.
    #[error("the bounds are not finite numbers in increasing order")]
    Bounds,
    /// A bucket behind the last bound.
    #[error("there are buckets for which no bound is listed")]
    BoundMissing,
    /// What a histogram with listed bounds has not.
    #[error("a histogram with listed bounds has no negative buckets and no bucket around zero")]
    CustomParts,
    /// More buckets than allowed, at the coarsest resolution.
    #[error("{buckets} buckets are left at the coarsest resolution, and {limit} are allowed")]
    TooManyBuckets {
        /// What is left.
        buckets: usize,
        /// What is allowed.
        limit: usize,
    },
}

impl Histogram {
    /// Checks it, and leaves out buckets where nothing was observed. `max_schema` is the finest resolution that is wanted,
    /// `bucket_limit` how many buckets there may be; where there are more, neighbours are merged.
    pub fn settle(&mut self, max_schema: i32, bucket_limit: Option<usize>) -> Result<(), HistogramError> {
        let schema = match self.schema {
            CUSTOM_SCHEMA => CUSTOM_SCHEMA,
            schema @ MIN_SCHEMA..=MAX_KNOWN_SCHEMA => schema,
            schema => return Err(HistogramError::Schema(schema)),
        };
        self.check_custom()?;
        let custom_values = self.custom_values.len();
        let not_a_number = self.sum.is_nan();
        self.schema = match &mut self.counts {
            Counts::Integer(tally) => {
                let mut sides = Sides::of(tally)?;
                sides.check(schema, custom_values)?;
                let buckets = sides.total().and_then(|sum| u64::try_from(sum).ok()).ok_or(HistogramError::Count)?;
                let buckets = buckets.checked_add(tally.zero_count).ok_or(HistogramError::Count)?;
                // What is not a number falls into no bucket, but is counted.
                if buckets > tally.count || (buckets < tally.count && !not_a_number) {
                    return Err(HistogramError::Sum { buckets, count: tally.count });
                }
                let schema = sides.reduce(schema, max_schema, bucket_limit, gap_of(schema))?;
                sides.write(tally, gap_of(schema));
                schema
            }
            Counts::Float(tally) => {
                let mut sides = Sides::of(tally)?;
                sides.check(schema, custom_values)?;
                if tally.count < 0.0 || tally.zero_count < 0.0 {
                    return Err(HistogramError::Count);
                }
                let schema = sides.reduce(schema, max_schema, bucket_limit, 0)?;
                sides.write(tally, 0);
                schema
            }
        };
        Ok(())
    }

    /// How many buckets it lists.
    pub fn buckets(&self) -> usize {
        match &self.counts {
            Counts::Integer(tally) => tally.negative.counts.len() + tally.positive.counts.len(),
            Counts::Float(tally) => tally.negative.counts.len() + tally.positive.counts.len(),
        }
    }

    fn check_custom(&self) -> Result<(), HistogramError> {
        if self.schema != CUSTOM_SCHEMA {
            return if self.custom_values.is_empty() { Ok(()) } else { Err(HistogramError::Bounds) };
        }
        let finite = self.custom_values.iter().all(|bound| !bound.is_nan() && *bound != f64::INFINITY);
        if !finite || !self.custom_values.is_sorted_by(|one, other| one < other) {
            return Err(HistogramError::Bounds);
        }
        let zero = match &self.counts {
            Counts::Integer(tally) => tally.zero_count == 0,
            Counts::Float(tally) => tally.zero_count == 0.0,
        };
        if zero && self.zero_threshold == 0.0 { Ok(()) } else { Err(HistogramError::CustomParts) }
    }
}

/// As Prometheus does, a gap of up to two buckets between listed bounds is filled: it costs less than a span.
fn gap_of(schema: i32) -> i64 {
    if schema == CUSTOM_SCHEMA { 2 } else { 0 }
}

/// A count in a bucket, in whichever way it is written.
trait Count: Copy + PartialOrd + Default {
    /// The count, if it is written behind a bucket with the count `before`.
    fn read(self, before: Self) -> Option<Self>;
    /// How it is written behind a bucket with the count `before`.
    fn written(self, before: Self) -> Self;
    fn plus(self, other: Self) -> Option<Self>;
}

impl Count for i64 {
    fn read(self, before: i64) -> Option<i64> {
        before.checked_add(self)
    }

    fn written(self, before: i64) -> i64 {
        self - before
    }

    fn plus(self, other: i64) -> Option<i64> {
        self.checked_add(other)
    }
}

impl Count for f64 {
    fn read(self, _before: f64) -> Option<f64> {
        Some(self)
    }

    fn written(self, _before: f64) -> f64 {
        self
    }

    fn plus(self, other: f64) -> Option<f64> {
        Some(self + other)
    }
}

/// The buckets that are not empty, each with its index, in order.
struct Sides<B> {
    negative: Vec<(i64, B)>,
    positive: Vec<(i64, B)>,
}

impl<B: Count> Sides<B> {
    fn of<C>(tally: &Tally<C, B>) -> Result<Self, HistogramError> {
        Ok(Self { negative: unfold(&tally.negative)?, positive: unfold(&tally.positive)? })
    }

    fn check(&self, schema: i32, custom_values: usize) -> Result<(), HistogramError> {
        if schema != CUSTOM_SCHEMA {
            return Ok(());
        }
        if !self.negative.is_empty() {
            return Err(HistogramError::CustomParts);
        }
        match (self.positive.first(), self.positive.last()) {
            (Some((first, _)), _) if *first < 0 => Err(HistogramError::Order),
            (_, Some((last, _))) if *last > custom_values as i64 => Err(HistogramError::BoundMissing),
            _ => Ok(()),
        }
    }

    fn total(&self) -> Option<B> {
        let mut counts = self.negative.iter().chain(&self.positive);
        counts.try_fold(B::default(), |sum, (_, count)| sum.plus(*count))
    }

    /// Merges neighbours until the resolution is not finer than `max_schema` and the limit is kept.
    fn reduce(&mut self, schema: i32, max_schema: i32, limit: Option<usize>, gap: i64) -> Result<i32, HistogramError> {
        let limit = limit.unwrap_or(usize::MAX);
        let reducible = schema != CUSTOM_SCHEMA;
        let mut reached = schema;
        if reducible && schema > max_schema {
            self.merge(schema - max_schema)?;
            reached = max_schema;
        }
        loop {
            let buckets = listed(&self.negative, gap) + listed(&self.positive, gap);
            if buckets <= limit {
                return Ok(reached);
            }
            if !reducible || reached <= MIN_SCHEMA {
                return Err(HistogramError::TooManyBuckets { buckets, limit });
            }
            self.merge(1)?;
            reached -= 1;
        }
    }

    fn merge(&mut self, steps: i32) -> Result<(), HistogramError> {
        for side in [&mut self.negative, &mut self.positive] {
            let mut merged: Vec<(i64, B)> = Vec::with_capacity(side.len());
            for &(index, count) in side.iter() {
                // The bound of bucket i of the coarse schema is that of bucket i·2^steps of the fine one. No index of a
                // bucket has more than 32 bits.
                let index = ((index - 1) >> steps.min(40)) + 1;
                match merged.last_mut().filter(|(last, _)| *last == index) {
                    Some((_, sum)) => *sum = sum.plus(count).ok_or(HistogramError::Count)?,
                    None => merged.push((index, count)),
                }
            }
            *side = merged;
        }
        Ok(())
    }

    fn write<C>(self, tally: &mut Tally<C, B>, gap: i64) {
        tally.negative = fold(&self.negative, gap);
        tally.positive = fold(&self.positive, gap);
    }
}

fn unfold<B: Count>(buckets: &Buckets<B>) -> Result<Vec<(i64, B)>, HistogramError> {
    let spans = buckets.spans.iter().map(|span| u64::from(span.length)).sum::<u64>();
    if spans != buckets.counts.len() as u64 {
        return Err(HistogramError::Spans { spans, buckets: buckets.counts.len() });
    }
    let mut unfolded: Vec<(i64, B)> = Vec::with_capacity(buckets.counts.len());
    let mut counts = buckets.counts.iter();
    let (mut index, mut before) = (0i64, B::default());
    for span in &buckets.spans {
        index += i64::from(span.offset);
        for written in counts.by_ref().take(span.length as usize) {
            let count = written.read(before).ok_or(HistogramError::Count)?;
            // As in Prometheus, what is no number at all is none below zero.
            if count < B::default() {
                return Err(HistogramError::Count);
            }
            before = count;
            if count != B::default() {
                let in_order = unfolded.last().is_none_or(|(last, _)| *last < index);
                if !in_order || i32::try_from(index).is_err() {
                    return Err(HistogramError::Order);
                }
                unfolded.push((index, count));
            }
            index += 1;
        }
    }
    Ok(unfolded)
}

/// How many buckets there are with gaps filled.
fn listed<B>(buckets: &[(i64, B)], gap: i64) -> usize {
    let gaps = buckets.windows(2).map(|pair| pair[1].0 - pair[0].0 - 1);
    buckets.len() + gaps.filter(|empty| *empty <= gap).sum::<i64>() as usize
}

/// Spans of what is not empty; gaps of at most `gap` buckets are filled.
fn fold<B: Count>(buckets: &[(i64, B)], gap: i64) -> Buckets<B> {
    let mut folded = Buckets { spans: Vec::<Span>::new(), counts: Vec::with_capacity(buckets.len()) };
    let (mut next, mut before) = (0, B::default());
    for &(index, count) in buckets {
        let empty = index - next;
        match folded.spans.last_mut() {
            Some(span) if empty <= gap => {
                for _ in 0..empty {
                    folded.counts.push(B::default().written(before));
                    before = B::default();
                }
                span.length += empty as u32 + 1;
            }
            // Indices have 32 bits, and so have gaps between them but for the very ends.
            _ => folded.spans.push(Span { offset: i32::try_from(empty).unwrap_or(i32::MAX), length: 1 }),
        }
        folded.counts.push(count.written(before));
        (next, before) = (index + 1, count);
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spans(pairs: &[(i32, u32)]) -> Vec<Span> {
        pairs.iter().map(|&(offset, length)| Span { offset, length }).collect()
    }

    fn integer(schema: i32, at: &[(i32, u32)], deltas: &[i64]) -> Histogram {
        let positive = Buckets { spans: spans(at), counts: deltas.to_vec() };
        let absolute = deltas.iter().scan(0i64, |sum, delta| {
            *sum = sum.wrapping_add(*delta);
            Some(*sum)
        });
        let count = absolute.fold(0i64, i64::wrapping_add) as u64;
        Histogram {
            schema,
            zero_threshold: 0.0,
            sum: 1.0,
            gauge: false,
            counts: Counts::Integer(Tally { count, positive, ..Tally::default() }),
            custom_values: Vec::new(),
        }
    }

    fn float(at: &[(i32, u32)], counts: &[f64]) -> Histogram {
        let positive = Buckets { spans: spans(at), counts: counts.to_vec() };
        Histogram { counts: Counts::Float(Tally { positive, ..Tally::default() }), ..integer(0, &[], &[]) }
    }

    /// Schema, spans and counts once it is settled.
    fn settled(mut histogram: Histogram, max_schema: i32, limit: Option<usize>) -> (i32, Vec<(i32, u32)>, Vec<f64>) {
        histogram.settle(max_schema, limit).expect("good");
        let (spans, counts) = match histogram.counts {
            Counts::Integer(tally) => {
                (tally.positive.spans, tally.positive.counts.iter().map(|count| *count as f64).collect())
            }
            Counts::Float(tally) => (tally.positive.spans, tally.positive.counts),
        };
        (histogram.schema, spans.iter().map(|span| (span.offset, span.length)).collect(), counts)
    }

    #[test]
    fn empty_buckets_are_left_out_and_spans_that_touch_are_one() {
        let histogram = integer(0, &[(-2, 2), (0, 0), (1, 1), (0, 2)], &[1, 1, -2, 3, 0]);
        assert_eq!(settled(histogram, 8, None), (0, vec![(-2, 2), (2, 2)], vec![1.0, 1.0, 1.0, 0.0]));
        let histogram = float(&[(3, 4)], &[0.0, 1.5, 0.0, 2.0]);
        assert_eq!(settled(histogram, 8, None), (0, vec![(4, 1), (1, 1)], vec![1.5, 2.0]));
        assert_eq!(settled(integer(0, &[(5, 0)], &[]), 8, None), (0, vec![], vec![]));
    }

    #[test]
    fn neighbours_are_merged_to_a_coarser_schema() {
        let fine = || integer(2, &[(-3, 4), (2, 2)], &[1, 0, 0, 0, 0, 0]);
        assert_eq!(settled(fine(), 1, None), (1, vec![(-1, 2), (1, 1)], vec![2.0, 0.0, 0.0]));
        assert_eq!(settled(fine(), 8, Some(3)), (1, vec![(-1, 2), (1, 1)], vec![2.0, 0.0, 0.0]));
        assert_eq!(settled(fine(), 8, Some(2)), (0, vec![(0, 2)], vec![4.0, -2.0]));
        assert_eq!(settled(integer(52, &[(1, 1)], &[3]), 8, None), (8, vec![(1, 1)], vec![3.0]));
        let mut wide = integer(-4, &[(0, 3)], &[1, 0, 0]);
        assert_eq!(wide.settle(8, Some(2)), Err(HistogramError::TooManyBuckets { buckets: 3, limit: 2 }));
    }

    #[test]
    fn small_gaps_between_listed_bounds_are_filled() {
        let custom = |deltas: &[i64]| Histogram {
            custom_values: (1..deltas.len()).map(|bound| bound as f64).collect(),
            ..integer(CUSTOM_SCHEMA, &[(0, deltas.len() as u32)], deltas)
        };
        let filled = settled(custom(&[0, 1, -1, 0, 2, -2, 0]), 8, None);
        assert_eq!(filled, (CUSTOM_SCHEMA, vec![(1, 4)], vec![1.0, -1.0, 0.0, 2.0]));
        let split = settled(custom(&[1, -1, 0, 0, 2]), 8, None);
        assert_eq!(split, (CUSTOM_SCHEMA, vec![(0, 1), (3, 1)], vec![1.0, 1.0]));
    }

    #[track_caller]
    fn refused(mut histogram: Histogram, error: HistogramError) {
        assert_eq!(histogram.settle(8, None), Err(error));
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        refused(integer(-5, &[], &[]), HistogramError::Schema(-5));
        refused(integer(53, &[], &[]), HistogramError::Schema(53));
        refused(
            integer(0, &[(0, u32::MAX), (0, u32::MAX)], &[1]),
            HistogramError::Spans { spans: 8_589_934_590, buckets: 1 },
        );
        refused(integer(0, &[(0, 1), (-1, 1)], &[1, 0]), HistogramError::Order);
        refused(integer(0, &[(i32::MAX, 2)], &[1, 0]), HistogramError::Order);
        refused(integer(0, &[(0, 2)], &[1, -2]), HistogramError::Count);
        refused(integer(0, &[(0, 2)], &[i64::MAX, 1]), HistogramError::Count);
        refused(integer(0, &[(0, 3)], &[i64::MAX, 0, 0]), HistogramError::Count);
        refused(float(&[(0, 1)], &[-0.5]), HistogramError::Count);
        let mut less = integer(0, &[(0, 1)], &[3]);
        less.counts = Counts::Integer(Tally {
            count: 2,
            positive: Buckets { spans: spans(&[(0, 1)]), counts: vec![3] },
            ..Tally::default()
        });
        refused(less, HistogramError::Sum { buckets: 3, count: 2 });
    }

    #[test]
    fn what_is_not_a_number_is_in_no_bucket() {
        let mut histogram = integer(0, &[(0, 1)], &[3]);
        let Counts::Integer(tally) = &mut histogram.counts else { panic!("integer") };
        tally.count = 5;
        refused(histogram.clone(), HistogramError::Sum { buckets: 3, count: 5 });
        histogram.sum = f64::NAN;
        assert_eq!(histogram.settle(8, None), Ok(()));
    }

    #[test]
    fn listed_bounds_are_checked() {
        let custom =
            |bounds: &[f64]| Histogram { custom_values: bounds.to_vec(), ..integer(CUSTOM_SCHEMA, &[(0, 2)], &[1, 0]) };
        assert_eq!(custom(&[f64::NEG_INFINITY]).settle(8, None), Ok(()));
        refused(custom(&[]), HistogramError::BoundMissing);
        refused(custom(&[1.0, 1.0]), HistogramError::Bounds);
        refused(custom(&[f64::NAN]), HistogramError::Bounds);
        refused(custom(&[f64::INFINITY]), HistogramError::Bounds);
        refused(Histogram { zero_threshold: 0.1, ..custom(&[1.0]) }, HistogramError::CustomParts);
        refused(Histogram { custom_values: vec![1.0], ..integer(0, &[], &[]) }, HistogramError::Bounds);
        let mut below = custom(&[1.0]);
        let Counts::Integer(tally) = &mut below.counts else { panic!("integer") };
        tally.negative = Buckets { spans: spans(&[(0, 1)]), counts: vec![0] };
        assert_eq!(below.clone().settle(8, None), Ok(()), "nothing is in it");
        let mut before = custom(&[1.0]);
        let Counts::Integer(tally) = &mut before.counts else { panic!("integer") };
        tally.positive.spans = spans(&[(-1, 2)]);
        refused(before, HistogramError::Order);
    }
}
