//! What holds for a body in either text format.

use std::collections::HashMap;
use std::convert::Infallible;

use meshscrape::model::{Labels, MAX_SCHEMA, normalise_nan};
use meshscrape::parse::{
    Converter, DuplicateLabel, Entry, Exposition, Format, ParseError, Parser, SampleEntry, SeriesKey, Step, print,
};

/// Reads `body` at once and in pieces; panics if anything is not as the parser promises.
pub fn check(format: Format, body: &[u8]) {
    let whole = read(format, body, body.len().max(1), |sample| settles(format, sample));
    let pieces = read(format, body, 1 + body.len() % 13, |_| {});
    assert_eq!(whole, pieces, "the same bytes give the same entries however they are cut");
    for classic_too in [false, true] {
        converted(format, body, classic_too);
    }
    if let Some(error) = &whole.error {
        is_in(body, error);
    }
}

/// Its classic histograms as native ones: each of them can be stored, whatever the lines say.
fn converted(format: Format, body: &[u8], classic_too: bool) {
    let mut parser = Parser::new(format);
    let mut converter = Converter::new(Exposition::Text(format), classic_too);
    let mut each = |entry: &Entry<'_>| -> Result<(), Infallible> {
        if let Entry::Histogram(entry) = entry {
            entry.series.labels().expect("labels given once");
            let mut histogram = entry.histogram.clone();
            histogram.settle(MAX_SCHEMA, None).expect("a histogram that can be stored");
        }
        Ok(())
    };
    let mut rest = body;
    while let Ok(Step::Entry(entry, taken)) = parser.next(rest, true) {
        let Ok(()) = converter.take(&entry, &mut each);
        rest = &rest[taken..];
    }
    let Ok(()) = converter.end(&mut each);
}

/// All that a body gave.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// In words, to be compared.
    entries: Vec<String>,
    error: Option<ParseError>,
    complete: bool,
}

fn read(format: Format, body: &[u8], piece: usize, each: impl Fn(&SampleEntry<'_>)) -> Outcome {
    let mut parser = Parser::new(format);
    let mut entries = Vec::new();
    let mut keys: HashMap<SeriesKey<'_>, Result<Labels, DuplicateLabel>> = HashMap::new();
    let (mut from, mut until) = (0, 0);
    let error = loop {
        match parser.next(&body[from..until], until == body.len()) {
            Ok(Step::Entry(entry, taken)) => {
                assert!(taken > 0, "an entry that takes nothing would come for ever");
                from += taken;
                entries.push(format!("{entry:?}"));
                if let Entry::Sample(sample) = &entry {
                    each(sample);
                    let labels = sample.labels();
                    assert_eq!(keys.entry(sample.series.key()).or_insert_with(|| labels.clone()), &labels);
                }
            }
            Ok(Step::NeedMore) => {
                assert!(until < body.len(), "more is asked for where nothing more can come");
                until = (until + piece).min(body.len());
            }
            Ok(Step::End) => {
                assert!(from == body.len());
                break None;
            }
            Err(error) => break Some(error),
        }
    };
    Outcome { entries, error, complete: parser.is_complete() }
}

/// The error names a place of the body, in words that are short and can be shown.
fn is_in(body: &[u8], error: &ParseError) {
    let line = body.split(|byte| *byte == b'\n').nth(error.line - 1).expect("the line is there");
    assert!((1..=line.len() + 1).contains(&error.column), "{error}");
    let words = error.to_string();
    assert!(words.len() < 400 && !words.contains(char::is_control), "{words:?}");
}

/// A sample that can be printed is read back as it was.
fn settles(format: Format, sample: &SampleEntry<'_>) {
    assert_eq!(sample.value.to_bits(), normalise_nan(sample.value).to_bits(), "no target forges a staleness marker");
    if let Some(exemplar) = &sample.exemplar {
        // A label given twice is the caller's to judge.
        let _ = exemplar.labels();
    }
    let Ok(labels) = sample.labels() else { return };
    assert!(labels.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{labels}");
    assert_eq!(labels, first_labels(sample), "of labels given once, these are the first");
    let mut line = String::new();
    if print::sample(&mut line, format, &labels, sample.value, sample.timestamp_ms).is_err() {
        return;
    }
    print::end(&mut line, format);
    let mut parser = Parser::new(format);
    match parser.next(line.as_bytes(), true) {
        Ok(Step::Entry(Entry::Sample(again), _)) => {
            assert_eq!(again.labels(), Ok(labels), "{line}");
            assert_eq!(again.value.to_bits(), sample.value.to_bits(), "{line}");
            assert_eq!(again.timestamp_ms, sample.timestamp_ms, "{line}");
        }
        other => panic!("{line:?} was printed, and gives {other:?}"),
    }
}

/// The first labels, without those that are somewhere empty: such a label is absent.
fn first_labels(sample: &SampleEntry<'_>) -> Labels {
    let mut labels = sample.series.first_labels();
    for name in sample.series.empty_labels().filter(|name| name != "__name__") {
        labels.remove(&name);
    }
    labels
}
