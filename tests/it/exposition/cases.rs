//! The case tables: inputs with what Prometheus makes of them, in `tests/fixtures/exposition/*.cases`, whose heads
//! describe the notation.

use std::collections::BTreeMap;

use meshscrape::model::{Labels, MetricType, normal_nan};
use meshscrape::parse::{Exposition, Format};

use super::{Outcome, Sample, Seen, read, read_in_chunks};

#[test]
fn prometheus_text_as_prometheus_reads_it() {
    let cases = parse_cases(include_str!("../../fixtures/exposition/text.cases"));
    assert_eq!(cases.len(), 161, "cases were lost");
    check_all(&cases, "text/plain; version=0.0.4");
}

#[test]
fn openmetrics_as_prometheus_reads_it() {
    let cases = parse_cases(include_str!("../../fixtures/exposition/openmetrics.cases"));
    assert_eq!(cases.len(), 74, "cases were lost");
    check_all(&cases, "application/openmetrics-text; version=1.0.0; charset=utf-8");
}

#[test]
fn what_the_tables_leave_open() {
    let cases = parse_cases(include_str!("../../fixtures/exposition/more.cases"));
    assert_eq!(cases.len(), 65, "cases were lost");
    check_all(&cases, "text/plain");
}

#[derive(Debug, Default)]
struct Case {
    id: String,
    content_type: Option<String>,
    body: Vec<u8>,
    entries: Vec<Seen>,
    /// Line, column, and words of the message; or 0, 0 where the content type is refused.
    rejected: Option<(usize, usize, String)>,
}

fn check_all(cases: &[Case], content_type: &str) {
    let wrong: Vec<String> = cases.iter().filter_map(|case| check(case, content_type).err()).collect();
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

fn check(case: &Case, default_content_type: &str) -> Result<(), String> {
    let differs = |what: &str, seen: String| Err(format!("{}: {what}, but {seen}", case.id));
    if case.body.is_empty() {
        // A body of no bytes is no matter for a content type; both formats take it.
        for format in [Format::PrometheusText, Format::OpenMetrics] {
            assert_eq!(read(format, b""), Outcome { entries: Vec::new(), error: None, complete: true }, "{}", case.id);
        }
        return Ok(());
    }
    let content_type = case.content_type.as_deref().unwrap_or(default_content_type);
    let format = match (Exposition::of_content_type(content_type), &case.rejected) {
        (Ok(Exposition::Text(format)), _) => format,
        (Ok(Exposition::Protobuf), _) => return differs("it should be text", "protobuf is".to_owned()),
        (Err(error), Some((0, 0, words))) if error.to_string().contains(words) => return Ok(()),
        (Err(error), _) => return differs("the content type should be taken", error.to_string()),
    };
    let outcome = read(format, &case.body);
    let bytewise = read_in_chunks(format, case.body.chunks(1));
    if bytewise != outcome {
        return differs("byte by byte it should be the same", format!("{outcome:?} became {bytewise:?}"));
    }
    match (&outcome.error, &case.rejected) {
        (None, None) => {}
        (Some(error), Some((line, column, words)))
            if (error.line, error.column) == (*line, *column) && error.to_string().contains(words) => {}
        (error, rejected) => return differs(&format!("{rejected:?} should be its error"), format!("{error:?}")),
    }
    if format == Format::OpenMetrics && outcome.error.is_none() && outcome.entries.last() != Some(&Seen::Eof) {
        return differs("its last entry should be the end", format!("{:?} came", outcome.entries));
    }
    let says_something = |entry: &&Seen| !matches!(entry, Seen::Comment | Seen::Eof);
    // The type that a sample carries has no mark of its own: it shows in `le` and `quantile`.
    let entries: Vec<Seen> = outcome.entries.iter().filter(says_something).cloned().map(without_kind).collect();
    if entries != case.entries {
        return differs(&format!("{:?} should come", case.entries), format!("{entries:?} came"));
    }
    Ok(())
}

fn without_kind(entry: Seen) -> Seen {
    match entry {
        Seen::Sample(sample) => Seen::Sample(Sample { kind: MetricType::Unknown, ..sample }),
        other => other,
    }
}

fn parse_cases(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        if mark == "==" {
            cases.push(Case { id: rest.to_owned(), ..Case::default() });
            continue;
        }
        let case = cases.last_mut().expect("a case begins with ==");
        match mark {
            "content-type" => case.content_type = Some(rest.to_owned()),
            "|" | "/" => {
                push_bytes(&mut case.body, rest);
                case.body.extend((mark == "|").then_some(b'\n'));
            }
            ">" => case.entries.push(Seen::Sample(parse_sample(rest))),
            "type" => {
                let (family, word) = rest.split_once(' ').expect(line);
                case.entries.push(Seen::Type(family.to_owned(), parse_type(word)));
            }
            "help" => {
                let (family, text) = rest.split_once(' ').expect(line);
                let mut name = Vec::new();
                push_bytes(&mut name, family);
                let name = String::from_utf8(name).expect(line);
                case.entries.push(Seen::Help(name, serde_json::from_str(text).expect(line)));
            }
            "unit" => {
                let (family, unit) = rest.split_once(' ').unwrap_or((rest, ""));
                case.entries.push(Seen::Unit(family.to_owned(), unit.to_owned()));
            }
            "!" => {
                let (place, words) = rest.split_once(' ').expect(line);
                let (line_number, column) = place.split_once(':').expect(line);
                let number = |text: &str| text.parse().expect(line);
                case.rejected = Some((number(line_number), number(column), words.to_owned()));
            }
            _ => panic!("{line:?} is no line of a case"),
        }
    }
    cases
}

/// Bytes that would not show stand as `⟦hex⟧`.
fn push_bytes(body: &mut Vec<u8>, mut text: &str) {
    while let Some((before, rest)) = text.split_once('⟦') {
        let (byte, after) = rest.split_once('⟧').expect("⟦ is closed");
        body.extend_from_slice(before.as_bytes());
        body.push(u8::from_str_radix(byte, 16).expect("two hexadecimal digits"));
        text = after;
    }
    body.extend_from_slice(text.as_bytes());
}

/// `value labels [@ms] [exemplar value labels [@ms]]`, or `value duplicate name`.
fn parse_sample(text: &str) -> Sample {
    let (sample, exemplar) = match text.split_once(" exemplar ") {
        Some((sample, exemplar)) => (sample, Some(exemplar)),
        None => (text, None),
    };
    let (bits, labels, timestamp_ms) = parse_value_and_labels(sample);
    let exemplar = exemplar.map(|text| {
        let (bits, labels, timestamp_ms) = parse_value_and_labels(text);
        (labels.expect("an exemplar without duplicates"), bits, timestamp_ms)
    });
    Sample { labels, kind: MetricType::Unknown, bits, timestamp_ms, exemplar }
}

fn parse_value_and_labels(text: &str) -> (u64, Result<Labels, String>, Option<i64>) {
    let (value, rest) = text.split_once(' ').expect(text);
    let value = match value {
        "NaN" => normal_nan(),
        number => number.parse().expect(text),
    };
    if let Some(name) = rest.strip_prefix("duplicate ") {
        return (value.to_bits(), Err(format!("{name:?}")), None);
    }
    let (labels, timestamp_ms) = match rest.rsplit_once(" @") {
        Some((labels, ms)) => (labels, Some(ms.parse().expect(text))),
        None => (rest, None),
    };
    let labels: BTreeMap<String, String> = serde_json::from_str(labels).expect(text);
    (value.to_bits(), Ok(labels.into_iter().collect()), timestamp_ms)
}

fn parse_type(word: &str) -> MetricType {
    let all = [
        MetricType::Unknown,
        MetricType::Counter,
        MetricType::Gauge,
        MetricType::Histogram,
        MetricType::GaugeHistogram,
        MetricType::Summary,
        MetricType::Info,
        MetricType::StateSet,
    ];
    all.into_iter().find(|kind| kind.as_str() == word).expect(word)
}
