//! Samples as exposition text, in either format.
//!
//! What is printed here, the parser of the same format reads back as the same sample, to the bit of the value. The
//! parser's only losses are those of the formats: every NaN is the same NaN, and an empty value is no label.

use std::fmt::Write;

use thiserror::Error;

use crate::model::{Counts, Histogram, Labels, MetricType, clean_to, is_legacy_label_name, is_legacy_metric_name};

use super::Format;
use super::error::Excerpt;
use super::number::{parse_value, seconds_to_ms, write_value};

/// Why a sample has no form in a format. Nothing was written then.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unprintable {
    /// No `__name__`.
    #[error("a series without a name cannot be printed")]
    NoName,
    /// A name that is empty or contains a zero byte.
    #[error("no format has a way to write the name {0}")]
    Name(Excerpt),
    /// Negative in the Prometheus format; in OpenMetrics, which counts seconds in a float, too far from 1970.
    #[error("the time {0} ms cannot be written in this format")]
    Timestamp(i64),
}

/// Writes one sample as a line.
pub fn sample(
    out: &mut String,
    format: Format,
    labels: &Labels,
    value: f64,
    timestamp_ms: Option<i64>,
) -> Result<(), Unprintable> {
    let name = labels.get("__name__").ok_or(Unprintable::NoName)?;
    let mut names = labels.iter().map(|(name, _)| name).chain([name]);
    if let Some(bad) = names.find(|name| name.is_empty() || name.contains('\0')) {
        return Err(Unprintable::Name(Excerpt::whole(bad.as_bytes())));
    }
    let time = timestamp_ms.map(|ms| timestamp(format, ms).ok_or(Unprintable::Timestamp(ms))).transpose()?;

    series(out, labels);
    out.push(' ');
    write_value(out, value);
    if let Some(time) = time {
        out.push(' ');
        out.push_str(&time);
    }
    out.push('\n');
    Ok(())
}

/// Writes a series as it stands before a value: `name{label="value"}`.
pub fn series(out: &mut String, labels: &Labels) {
    let name = labels.value("__name__");
    let bare = is_legacy_metric_name(name);
    if bare {
        out.push_str(name);
    }
    let mut separator = '{';
    if !bare {
        out.push(separator);
        push_quoted(out, name);
        separator = ',';
    }
    for (name, value) in labels.iter().filter(|(name, _)| *name != "__name__") {
        out.push(separator);
        separator = ',';
        if is_legacy_label_name(name) {
            out.push_str(name)
        } else {
            push_quoted(out, name)
        }
        out.push('=');
        push_quoted(out, value);
    }
    if separator == ',' {
        out.push('}');
    }
}

/// Writes what these formats cannot hold as a comment, for people.
pub fn histogram(out: &mut String, labels: &Labels, histogram: &Histogram) {
    let count = match &histogram.counts {
        Counts::Integer(tally) => tally.count as f64,
        Counts::Float(tally) => tally.count,
    };
    let shown = clean_to(&labels.to_string(), usize::MAX).into_owned();
    let (count, sum) = (value(count), value(histogram.sum));
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# native histogram {shown}: count {count}, sum {sum}, {} buckets", histogram.buckets());
}

/// A value as both formats write it: the shortest digits that read back as the same bits, `+Inf`, `-Inf`, `NaN`.
pub fn value(value: f64) -> String {
    let mut out = String::new();
    write_value(&mut out, value);
    out
}

/// Writes a TYPE line. The Prometheus format writes the types that only OpenMetrics has as `untyped`.
pub fn type_line(out: &mut String, format: Format, family: &str, kind: MetricType) {
    let word = match (format, kind) {
        (Format::OpenMetrics, kind) => kind.as_str(),
        (_, MetricType::Counter | MetricType::Gauge | MetricType::Histogram | MetricType::Summary) => kind.as_str(),
        _ => "untyped",
    };
    descriptor(out, "TYPE", family);
    out.push_str(word);
    out.push('\n');
}

/// Writes a HELP line.
pub fn help_line(out: &mut String, format: Format, family: &str, text: &str) {
    descriptor(out, "HELP", family);
    match format {
        Format::PrometheusText => push_escaped(out, text, &['\\', '\n']),
        Format::OpenMetrics => push_escaped(out, text, &['\\', '\n', '"']),
    }
    out.push('\n');
}

/// Ends a body: `# EOF` in OpenMetrics, nothing in the Prometheus format.
pub fn end(out: &mut String, format: Format) {
    if format == Format::OpenMetrics {
        out.push_str("# EOF\n");
    }
}

fn descriptor(out: &mut String, keyword: &str, family: &str) {
    out.push_str("# ");
    out.push_str(keyword);
    out.push(' ');
    if is_legacy_metric_name(family) {
        out.push_str(family)
    } else {
        push_quoted(out, family)
    }
    out.push(' ');
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text, &['\\', '\n', '"']);
    out.push('"');
}

fn push_escaped(out: &mut String, text: &str, escaped: &[char]) {
    let mut rest = text;
    while let Some(at) = rest.find(escaped) {
        out.push_str(&rest[..at]);
        out.push('\\');
        out.push(if rest.as_bytes()[at] == b'\n' { 'n' } else { rest.as_bytes()[at].into() });
        rest = &rest[at + 1..];
    }
    out.push_str(rest);
}

/// The time as `format` has it, or `None` if no text of it reads back as `ms`.
fn timestamp(format: Format, ms: i64) -> Option<String> {
    if format == Format::PrometheusText {
        return (ms >= 0).then(|| ms.to_string());
    }
    let mut text = String::new();
    let (seconds, rest) = (ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000);
    let sign = if ms < 0 { "-" } else { "" };
    // Readers cut the product of a float and 1000, so three digits may fall short by one: half a millisecond is added.
    for half in ["", "5"] {
        text.clear();
        let _ = match rest {
            0 => write!(text, "{sign}{seconds}"),
            _ => write!(text, "{sign}{seconds}.{rest:03}{half}"),
        };
        if parse_value(text.as_bytes()).ok().and_then(seconds_to_ms) == Some(ms) {
            return Some(text);
        }
    }
    None
}
