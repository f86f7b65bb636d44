//! Expositions: what Prometheus was seen to accept and reject, an independent parser, and properties that hold for
//! any text.

mod cases;
mod oracle;
mod properties;
mod protobuf;

use meshscrape::model::{Histogram, Labels, MetricType};
use meshscrape::parse::{Entry, Format, ParseError, Parser, Step};

/// An entry that outlives its buffer, in a form that can be compared to the bit.
#[derive(Clone, Debug, PartialEq)]
enum Seen {
    Sample(Sample),
    Histogram(Result<Labels, String>, Histogram, Option<i64>),
    Type(String, MetricType),
    Help(String, String),
    Unit(String, String),
    Comment,
    Eof,
}

#[derive(Clone, Debug, PartialEq)]
struct Sample {
    /// `Err` with the name of a label given twice.
    labels: Result<Labels, String>,
    kind: MetricType,
    bits: u64,
    timestamp_ms: Option<i64>,
    exemplar: Option<(Labels, u64, Option<i64>)>,
}

/// All that a body gave.
#[derive(Clone, Debug, PartialEq)]
struct Outcome {
    entries: Vec<Seen>,
    error: Option<ParseError>,
    complete: bool,
}

impl Outcome {
    fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.entries.iter().filter_map(|entry| match entry {
            Seen::Sample(sample) => Some(sample),
            _ => None,
        })
    }
}

/// Parses a body that is there as a whole.
fn read(format: Format, body: &[u8]) -> Outcome {
    read_in_chunks(format, [body])
}

/// Parses a body that arrives in pieces, as a scrape does: what an entry leaves over stays in the buffer, and every piece
/// is parsed as far as it goes before the next one comes.
fn read_in_chunks<'b>(format: Format, chunks: impl IntoIterator<Item = &'b [u8]>) -> Outcome {
    let mut parser = Parser::new(format);
    let mut chunks = chunks.into_iter();
    let mut buffer = Vec::new();
    let mut entries = Vec::new();
    let mut at_end = false;
    let error = loop {
        match parser.next(&buffer, at_end) {
            Ok(Step::Entry(entry, taken)) => {
                assert!(taken > 0, "an entry that takes nothing would come for ever");
                entries.push(seen(&entry));
                buffer.drain(..taken);
            }
            Ok(Step::NeedMore) => {
                assert!(!at_end, "more is asked for where nothing more can come");
                match chunks.next() {
                    Some(chunk) => buffer.extend_from_slice(chunk),
                    None => at_end = true,
                }
            }
            Ok(Step::End) => {
                assert!(at_end && buffer.is_empty());
                break None;
            }
            Err(error) => break Some(error),
        }
    };
    Outcome { entries, error, complete: parser.is_complete() }
}

fn seen(entry: &Entry<'_>) -> Seen {
    match entry {
        Entry::Sample(sample) => Seen::Sample(Sample {
            labels: sample.labels().map_err(|twice| twice.name.to_string()),
            kind: sample.series.kind(),
            bits: sample.value.to_bits(),
            timestamp_ms: sample.timestamp_ms,
            exemplar: sample.exemplar.map(|exemplar| {
                let labels = exemplar.labels().unwrap_or_default();
                (labels, exemplar.value.to_bits(), exemplar.timestamp_ms)
            }),
        }),
        Entry::Histogram(entry) => {
            let labels = entry.series.labels().map_err(|twice| twice.name.to_string());
            Seen::Histogram(labels, entry.histogram.clone(), entry.timestamp_ms)
        }
        Entry::Type { family, kind } => Seen::Type(family.to_string(), *kind),
        Entry::Help { family, text } => Seen::Help(family.to_string(), text.to_string()),
        Entry::Unit { family, unit } => Seen::Unit(family.to_string(), (*unit).to_owned()),
        Entry::Comment => Seen::Comment,
        Entry::Eof => Seen::Eof,
    }
}

/// A capture of a real Envoy 1.40, every stat of three listeners.
fn envoy_capture() -> &'static str {
    include_str!("../fixtures/exposition/envoy-1.40-stats.prom")
}
