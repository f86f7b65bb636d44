//! Whether Istio's agent left parts out of its merged answers: a target can be up with everything of its application missing.
//!
//! The agent answers 200 with what it has, and counts what it left out in metrics of its own, which lead the next answer.
//! Only that leading part is read: what follows comes from the proxy and the application, and the latter could write
//! the agent's names. The agent writes its metrics in the order of their names, so the count of all answers
//! (`istio_agent_scrapes_total`) comes behind that of the failures, and ends what is read.

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

use crate::model::{Failure, Labels, Reason};
use crate::parse::{Entry, SampleEntry};

/// What all names of the agent's own metrics begin with.
const AGENT: &str = "istio_agent_";
const FAILURES: &str = "istio_agent_scrape_failures_total";
const ANSWERS: &str = "istio_agent_scrapes_total";
/// The agent has about a hundred series; what has more and still no count of answers is none.
const MOST_SERIES: usize = 2000;

/// Who contributes to a merged answer.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub(super) enum Part {
    Agent,
    Envoy,
    Application,
}

impl Part {
    pub(super) const ALL: [Part; 3] = [Part::Agent, Part::Envoy, Part::Application];

    /// As the agent's label `type` has it.
    fn name(self) -> &'static str {
        match self {
            Part::Agent => "agent",
            Part::Envoy => "envoy",
            Part::Application => "application",
        }
    }
}

impl EncodeLabelValue for Part {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        EncodeLabelValue::encode(&self.name(), encoder)
    }
}

/// What the agent has counted since it started: answers, and parts that it left out of those before the last one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MergeCounts {
    answers: f64,
    /// By part, in the order of [`Part::ALL`].
    left_out: [f64; 3],
}

/// Parts that were left out of answers between two scrapes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PartialMerge {
    pub(super) parts: Vec<Part>,
    /// In words, with a hint.
    pub(super) failure: Failure,
}

impl MergeCounts {
    /// What is missing since `before`. Where a count fell, the agent began again, and with it every count at zero.
    fn since(&self, before: &Self) -> Option<PartialMerge> {
        let fell =
            self.answers < before.answers || self.left_out.iter().zip(before.left_out).any(|(now, then)| *now < then);
        let before = if fell { &Self::default() } else { before };
        let answers = self.answers - before.answers;
        let mut parts = Vec::new();
        let mut words = Vec::new();
        for (part, (now, before)) in Part::ALL.into_iter().zip(self.left_out.into_iter().zip(before.left_out)) {
            let left_out = now - before;
            if left_out > 0.0 {
                parts.push(part);
                words.push(format!("{left_out} without the part of {}", whose(part)));
            }
        }
        let detail = format!("since the scrape before, the agent gave {answers} merged answers, {}", words.join(", "));
        (!parts.is_empty()).then(|| PartialMerge { parts, failure: Failure::new(Reason::PartialMerge, detail) })
    }

    /// What was left out since `before`, an earlier answer, as what a scrape that succeeded lacks; `None` if nothing was.
    pub fn lacked_since(&self, before: &Self) -> Option<Failure> {
        self.since(before).map(|partial| partial.failure)
    }

    /// What was left out since the agent started, for somebody who has one answer only; `None` if nothing was.
    pub fn told(&self) -> Option<String> {
        let parts = Part::ALL.into_iter().zip(self.left_out).filter(|(_, left_out)| *left_out > 0.0);
        let words: Vec<_> = parts.map(|(part, n)| format!("{n} without the part of {}", whose(part))).collect();
        let all = self.answers;
        (!words.is_empty()).then(|| format!("of {all} answers so far, {}", words.join(", ")))
    }
}

fn whose(part: Part) -> &'static str {
    match part {
        Part::Agent => "the agent itself",
        Part::Envoy => "Envoy",
        Part::Application => "the application",
    }
}

/// Reads the agent's leading part of one exposition.
#[derive(Debug, Default)]
pub struct MergeReader {
    counts: MergeCounts,
    seen: usize,
    state: State,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    Leading,
    /// The agent's counts are known.
    Known,
    /// There is no agent's part, or none that counts answers.
    Absent,
}

impl MergeReader {
    /// Takes the entries of an exposition in their order.
    pub fn take(&mut self, entry: &Entry<'_>) {
        if let Entry::Sample(sample) = entry
            && self.state == State::Leading
        {
            self.state = self.leading(sample);
        }
    }

    fn leading(&mut self, sample: &SampleEntry<'_>) -> State {
        self.seen += 1;
        let Ok(labels) = sample.labels() else { return State::Absent };
        match labels.value("__name__") {
            ANSWERS if is_count(sample.value) => {
                self.counts.answers = sample.value;
                State::Known
            }
            ANSWERS => State::Absent,
            FAILURES => {
                self.failures(&labels, sample.value);
                State::Leading
            }
            name if name.starts_with(AGENT) && self.seen < MOST_SERIES => State::Leading,
            _ => State::Absent,
        }
    }

    fn failures(&mut self, labels: &Labels, value: f64) {
        let part = Part::ALL.iter().position(|part| part.name() == labels.value("type"));
        if let Some(at) = part.filter(|_| is_count(value)) {
            self.counts.left_out[at] = value;
        }
    }

    /// What was read, if the exposition is a merged one.
    pub fn counts(&self) -> Option<MergeCounts> {
        (self.state == State::Known).then_some(self.counts)
    }
}

/// Whether something can have been counted so; what is larger would only be long to read.
fn is_count(value: f64) -> bool {
    (0.0..=1e15).contains(&value) && value.fract() == 0.0
}

/// Compares the successful scrapes of one target.
#[derive(Debug, Default)]
pub(super) struct MergeWatch {
    before: Option<MergeCounts>,
}

impl MergeWatch {
    /// What the scrapes since the one before lacked, as this one tells. Of the first one nothing can be said.
    pub(super) fn judge(&mut self, reader: &MergeReader) -> Option<PartialMerge> {
        let now = reader.counts()?;
        let before = self.before.replace(now)?;
        now.since(&before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::{Format, Parser, Step};

    fn read(body: &str) -> MergeReader {
        let (mut parser, mut reader, mut rest) = (Parser::new(Format::PrometheusText), MergeReader::default(), body);
        while let Step::Entry(entry, taken) = parser.next(rest.as_bytes(), true).expect("it parses") {
            reader.take(&entry);
            rest = &rest[taken..];
        }
        reader
    }

    fn body(failures: &str, answers: &str) -> String {
        format!(
            "# TYPE istio_agent_go_goroutines gauge\nistio_agent_go_goroutines 50\n{failures}\
             istio_agent_scrapes_total {answers}\nistio_agent_startup_duration_seconds 1\nenvoy_server_live{{}} 1\n"
        )
    }

    fn of_application(failures: u64) -> String {
        format!("istio_agent_scrape_failures_total{{type=\"application\"}} {failures}\n")
    }

    /// What each of the bodies tells.
    fn told(bodies: &[String]) -> Vec<String> {
        let mut watch = MergeWatch::default();
        let told = bodies.iter().map(|body| watch.judge(&read(body)));
        told.map(|found| found.map(|found| found.failure.detail).unwrap_or_default()).collect()
    }

    #[test]
    fn what_was_left_out_between_two_scrapes_is_told() {
        let both = format!("{}istio_agent_scrape_failures_total{{type=\"envoy\"}} 1\n", of_application(4));
        let bodies = [body("", "1"), body("", "2"), body(&of_application(1), "3"), body(&of_application(1), "4")];
        let last = body(&both, "8");
        let one = "since the scrape before, the agent gave 1 merged answers, 1 without the part of the application";
        let many = "since the scrape before, the agent gave 4 merged answers, 1 without the part of Envoy, 3 without the \
                    part of the application";
        assert_eq!(told(&[&bodies[..], &[last]].concat()), ["", "", one, "", many]);
    }

    #[test]
    fn the_first_scrape_tells_nothing_and_an_agent_that_started_anew_counts_from_zero() {
        let bodies = [body(&of_application(7), "9"), body(&of_application(2), "3"), body("", "1")];
        let anew = "since the scrape before, the agent gave 3 merged answers, 2 without the part of the application";
        assert_eq!(told(&bodies), ["", anew, ""]);
        // As many parts were left out by now as before it started anew.
        let bodies = [body(&of_application(2), "100"), body(&of_application(2), "3")];
        assert_eq!(told(&bodies), ["", anew]);
    }

    #[test]
    fn who_is_no_agent_says_nothing() {
        let app = of_application(9);
        for (why, second) in [
            ("behind another name", format!("app 1\n{}", body(&app, "2"))),
            ("behind the agent's part", format!("{}{app}", body("", "2"))),
            ("directly behind the count", format!("istio_agent_scrapes_total 2\n{app}")),
            ("without a count of answers", app.clone()),
            ("a part that nobody knows", body("istio_agent_scrape_failures_total{type=\"x\"} 9\n", "2")),
            ("no count", body(&app.replace('9', "NaN"), "2")),
            ("more than can be counted", body(&app.replace('9', "1e300"), "2")),
            ("a fraction", body(&app.replace('9', "5e-324"), "2")),
            ("below zero", body(&app.replace('9', "-9"), "2")),
            ("an answer without number", body(&app, "+Inf")),
        ] {
            assert_eq!(told(&[body("", "1"), second]), ["", ""], "{why}");
        }
    }

    #[test]
    fn of_one_answer_the_totals_are_told() {
        let counts = read(&body(&of_application(2), "9")).counts().expect("an agent");
        assert_eq!(counts.told().as_deref(), Some("of 9 answers so far, 2 without the part of the application"));
        assert_eq!(read(&body("", "9")).counts().expect("an agent").told(), None);
        assert!(read("app 1\n").counts().is_none());
    }
}
