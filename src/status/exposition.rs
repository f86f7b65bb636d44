//! The own metrics in the format that is asked for: OpenMetrics where `Accept` prefers it, else the older text format, which every
//! tool reads and Prometheus answers with, too.
//!
//! Both have the same series. The older one is made of OpenMetrics by changing the comments: a counter is called by the name
//! of its series there, and units and the end of the text are not told. That is all that differs in what the agent exposes:
//! counters, gauges and histograms, without timestamps and exemplars.

use std::fmt;

use axum::http::{HeaderMap, header};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

/// How metrics are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// OpenMetrics 1.0.0.
    OpenMetrics,
    /// The text format 0.0.4.
    Text,
}

impl Format {
    /// What a request prefers.
    pub(super) fn asked_for(headers: &HeaderMap) -> Self {
        let ranges = headers.get_all(header::ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
        let known = ranges.flat_map(|value| value.split(',')).filter_map(range);
        // Of those that are alike the first, so that a later one has to be better.
        let best = known.fold((Format::Text, 0.0), |best, next| if next.1 > best.1 { next } else { best });
        best.0
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// All metrics.
    ///
    /// # Errors
    /// If a metric cannot be written, which is a fault of the program.
    pub(super) fn write(self, registry: &Registry) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, registry)?;
        Ok(match self {
            Format::OpenMetrics => text,
            Format::Text => older(&text),
        })
    }
}

/// A format that is known and may be given, with how much it is wanted.
fn range(text: &str) -> Option<(Format, f64)> {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let (mut version, mut wanted) = ("", 1.0);
    for (name, value) in parts.filter_map(|part| part.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "version" => version = value.trim().trim_matches('"'),
            "q" => wanted = value.trim().parse().unwrap_or(0.0),
            _ => {}
        }
    }
    match (kind.as_str(), version) {
        ("application/openmetrics-text", "" | "1.0.0") => Some((Format::OpenMetrics, wanted)),
        ("text/plain", "" | "0.0.4") | ("text/*" | "*/*", _) => Some((Format::Text, wanted)),
        _ => None,
    }
}

/// The same in the older format.
fn older(openmetrics: &str) -> String {
    let mut text = String::with_capacity(openmetrics.len() + openmetrics.len() / 16);
    let mut help = None;
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map(|(_, help)| help);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap_or((rest, "untyped"));
            let suffix = if kind == "counter" { "_total" } else { "" };
            if let Some(help) = help.take() {
                text.extend(["# HELP ", name, suffix, " ", help, "\n"]);
            }
            text.extend(["# TYPE ", name, suffix, " ", kind, "\n"]);
        } else if !line.starts_with('#') {
            text.extend([line, "\n"]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::registry::Unit;

    use super::*;

    fn asked(accept: &[&'static str]) -> Format {
        let mut headers = HeaderMap::new();
        for value in accept {
            headers.append(header::ACCEPT, HeaderValue::from_static(value));
        }
        Format::asked_for(&headers)
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        for accept in [
            &["application/openmetrics-text"][..],
            &["Application/OpenMetrics-Text; Version=1.0.0; charset=utf-8"],
            &[
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            ],
            &[
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.9, application/openmetrics-text;q=0.5",
            ],
            &["text/plain;q=0.5", "application/openmetrics-text;q=0.6"],
        ] {
            assert_eq!(asked(accept), Format::OpenMetrics, "{accept:?}");
        }
        for accept in [
            &[][..],
            &[""],
            &["*/*"],
            &["text/plain"],
            &["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"],
            &["application/openmetrics-text;version=2.0.0"],
            &["application/openmetrics-text;q=0"],
            &["application/openmetrics-text;q=nonsense"],
            &["text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5"],
        ] {
            assert_eq!(asked(accept), Format::Text, "{accept:?}");
        }
    }

    #[test]
    fn the_older_format_has_the_same_series_by_the_names_that_they_have() {
        let mut registry = Registry::default();
        let (beans, fill): (Counter, Gauge) = <_>::default();
        beans.inc_by(3);
        let names = ["beans", "fill"];
        registry.register(names[0], "Beans, in bags", beans);
        registry.register_with_unit(names[1], "How full it is", Unit::Ratios, fill);
        assert_eq!(
            Format::Text.write(&registry).expect("a text"),
            "# HELP beans_total Beans, in bags.\n# TYPE beans_total counter\nbeans_total 3\n\
             # HELP fill_ratios How full it is.\n# TYPE fill_ratios gauge\nfill_ratios 0\n"
        );
        let openmetrics = Format::OpenMetrics.write(&registry).expect("a text");
        assert!(openmetrics.contains("# TYPE beans counter\nbeans_total 3\n"), "{openmetrics}");
        assert!(
            openmetrics.contains("# UNIT fill_ratios ratios\n") && openmetrics.ends_with("# EOF\n"),
            "{openmetrics}"
        );
    }
}
