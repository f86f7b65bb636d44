//! An exposition as text for a person: as the target exposes it, or as it would be forwarded, with what would not and why.
//!
//! What is told is bounded, whatever the target exposes, and ends with a whole line.

use std::fmt::Write;
use std::sync::Arc;

use crate::config::ScrapeConfig;
use crate::label::{Fate, SampleRules};
use crate::model::{Failure, Labels};
use crate::parse::{Entry, Format, Series, print};

/// How much text of an exposition is kept: a node's agent has little memory to spare.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// A series that would not be forwarded. Both texts are foreign.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedSeries {
    /// As it is exposed.
    pub series: String,
    /// The rule that drops it.
    pub why: String,
}

/// The entries of an exposition as text, as far as it may be kept.
#[derive(Default)]
pub(super) struct Transcript {
    pub(super) text: String,
    pub(super) dropped: Vec<DroppedSeries>,
    dropped_bytes: usize,
    pub(super) cut: bool,
    /// The job and the labels of the target, where what would be forwarded is told.
    forwarding: Option<(Arc<ScrapeConfig>, Labels)>,
}

impl Transcript {
    /// Tells what would be forwarded for a target with these labels.
    pub(super) fn of_forwarded(job: Arc<ScrapeConfig>, target_labels: Labels) -> Self {
        Self { forwarding: Some((job, target_labels)), ..Self::default() }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// What would fail the scrape of the job too.
    pub(super) fn take(&mut self, entry: &Entry<'_>) -> Result<(), Failure> {
        if self.cut {
            return Ok(());
        }
        let before = self.text.len();
        match entry {
            Entry::Type { family, kind } => print::type_line(&mut self.text, Format::PrometheusText, family, *kind),
            Entry::Help { family, text } => print::help_line(&mut self.text, Format::PrometheusText, family, text),
            Entry::Sample(sample) => {
                let (value, at) = (sample.value, sample.timestamp_ms);
                if let Some(labels) = self.told(&sample.series)?
                    // What the job takes and this format cannot hold, such as a time before 1970, is no failure.
                    && let Err(error) = print::sample(&mut self.text, Format::PrometheusText, &labels, value, at)
                {
                    // Writing to a String cannot fail.
                    let _ = writeln!(self.text, "# a sample that cannot be shown: {error}");
                }
            }
            Entry::Histogram(entry) => {
                if let Some(labels) = self.told(&entry.series)? {
                    print::histogram(&mut self.text, &labels, entry.histogram);
                }
            }
            _ => {}
        }
        if self.text.len() + self.dropped_bytes > MAX_TEXT_BYTES {
            self.text.truncate(before);
            self.cut = true;
        }
        Ok(())
    }

    /// What it takes to hold this.
    pub(super) fn held_bytes(&self) -> u64 {
        (self.text.capacity() + self.dropped_bytes) as u64
    }

    /// The labels under which a series is told; nothing if it cannot be, or would not be forwarded.
    fn told(&mut self, series: &Series<'_>) -> Result<Option<Labels>, Failure> {
        // A label given twice: whether that fails the scrape, the pass has judged.
        let Ok(labels) = series.labels() else { return Ok(None) };
        let Some((job, target_labels)) = &self.forwarding else { return Ok(Some(labels)) };
        let exposed = labels.clone();
        match SampleRules::of(job, target_labels).fate(labels, series.empty_labels())? {
            Fate::Stored(labels) => Ok(Some(labels)),
            Fate::Dropped(why) => {
                let mut series = String::new();
                print::series(&mut series, &exposed);
                self.dropped_bytes += series.len() + why.len() + size_of::<DroppedSeries>();
                self.dropped.push(DroppedSeries { series, why });
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Parser, Step};

    fn transcript_of(body: &str) -> Transcript {
        let (mut parser, mut transcript, mut rest) = (Parser::new(Format::OpenMetrics), Transcript::default(), body);
        while let Step::Entry(entry, taken) = parser.next(rest.as_bytes(), true).expect("it parses") {
            transcript.take(&entry).expect("nothing is forbidden");
            rest = &rest[taken..];
        }
        transcript
    }

    #[test]
    fn an_exposition_is_told_in_the_prometheus_format() {
        let told =
            transcript_of("# TYPE a counter\n# HELP a Beans.\na_total{x=\"1\"} 3\na_total{x=\"2\"} 3 -1\n# EOF\n");
        assert_eq!(
            told.text,
            "# TYPE a counter\n# HELP a Beans.\na_total{x=\"1\"} 3\n\
             # a sample that cannot be shown: the time -1000 ms cannot be written in this format\n"
        );
        assert!(!told.cut);
    }

    #[test]
    fn what_is_told_is_bounded_and_ends_with_a_whole_line() {
        let line = format!("a{{x=\"{}\"}} 1\n", "y".repeat(1 << 19));
        let told = transcript_of(&format!("{}# EOF\n", line.repeat(9)));
        assert!(told.cut);
        assert!(told.text == line.repeat(7), "{} bytes", told.text.len());
    }
}
