//! Protobuf exposition: a stream of `io.prometheus.client.MetricFamily` messages, each behind its length.
//!
//! ```text
//! body   = *( varint(length) family )
//! family = name 1, help 2, type 3, *( metric 4 ), unit 5        in any order, so that a family is read when it is whole
//! ```
//!
//! A [`FamilyParser`] takes one family at a time from the front of a buffer that the caller fills as the body arrives.
//! A [`Family`] then gives the entries that the text formats have for the same metrics: of a histogram `_count`, `_sum`
//! and a `_bucket` for each bound up to `+Inf`, of a summary a series for each quantile; a native histogram is one entry.
//! What always holds: the memory for one family is bounded by [`MAX_FAMILY_BYTES`] and, while a metric is decoded, a
//! multiple of [`MAX_METRIC_BYTES`], whatever lengths are claimed; the work for a body by [`MAX_SERIES_BYTES`]; every NaN
//! comes out as the one ordinary NaN.
//!
//! A series has no text here, so its key is made of what its labels are made of: names, values, and the bits of the
//! bound, because to write a bound out as text costs more than all the rest.

mod error;
mod family;
mod fields;
mod message;
mod native;
mod series;

pub use error::{Problem, ProtobufError};
pub use family::Family;
pub(super) use message::LabelPair;
pub(super) use series::Composed;

use fields::Varint;

/// How many bytes one metric family may have.
pub const MAX_FAMILY_BYTES: usize = 32 << 20;

/// How many bytes one metric of a family may have: it is held decoded, where an empty bucket, two
/// bytes here, takes forty times as many.
pub const MAX_METRIC_BYTES: usize = 1 << 20;

/// How many bytes the names and labels of all series of a body may come to: a metric has its labels once, and each of its
/// buckets and quantiles is a series with all of them. As text they would be in the body, which is no longer than this.
pub const MAX_SERIES_BYTES: u64 = 256 << 20;

/// The longest length of a message: five bytes, as in Prometheus.
const MAX_LENGTH_BYTES: usize = 5;

/// How native histograms are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NativeHistograms {
    /// Whether they are; if not, a histogram gives its classic series only, be it native or not.
    pub read: bool,
    /// Whether one that is both native and classic gives its classic series, too.
    pub classic_too: bool,
}

/// What [`FamilyParser::next`] found at the front of its input.
#[derive(Debug)]
pub enum FamilyStep<'a> {
    /// A family, and how many bytes it took: the next call must be given the input behind them.
    Family(Box<Family<'a>>, usize),
    /// The input ends inside a family. The next call must be given the same bytes with more behind them.
    NeedMore,
    /// The body has ended as it should.
    End,
}

/// A parser of one body.
#[derive(Clone, Debug)]
pub struct FamilyParser {
    /// How many bytes of the body have been taken.
    taken: u64,
    /// The key of the series at hand; kept for its room.
    key: Vec<u8>,
    /// What the names and labels of the series have come to, in bytes.
    series_bytes: u64,
    native: NativeHistograms,
}

impl FamilyParser {
    /// A parser at the beginning of a body.
    pub fn new(native: NativeHistograms) -> Self {
        Self { taken: 0, key: Vec::new(), series_bytes: 0, native }
    }

    /// Takes the next family from the front of `input`, which must begin where the last one ended. `at_end` says that no
    /// byte follows `input`.
    ///
    /// After an error the body is lost, and this parser must not be asked again.
    pub fn next<'a>(&'a mut self, input: &'a [u8], at_end: bool) -> Result<FamilyStep<'a>, ProtobufError> {
        if input.is_empty() {
            return Ok(if at_end { FamilyStep::End } else { FamilyStep::NeedMore });
        }
        let byte = self.taken;
        let wrong = |problem| Err(ProtobufError { byte, problem });
        let (length, from) = match fields::varint(input) {
            Varint::Whole { value, length } if length <= MAX_LENGTH_BYTES => (value, length),
            Varint::Cut if input.len() < MAX_LENGTH_BYTES && !at_end => return Ok(FamilyStep::NeedMore),
            Varint::Cut if input.len() < MAX_LENGTH_BYTES => return wrong(Problem::Cut { missing: 1 }),
            _ => return wrong(Problem::Varint),
        };
        let Some(size) = usize::try_from(length).ok().filter(|size| *size <= MAX_FAMILY_BYTES) else {
            return wrong(Problem::FamilyTooLong { length });
        };
        let end = from + size;
        let Some(message) = input.get(from..end) else {
            let missing = (end - input.len()) as u64;
            return if at_end { wrong(Problem::Cut { missing }) } else { Ok(FamilyStep::NeedMore) };
        };
        self.taken += end as u64;
        let family = Family::read(message, byte + from as u64, self.native, &mut self.key, &mut self.series_bytes)?;
        Ok(FamilyStep::Family(Box::new(family), end))
    }
}
