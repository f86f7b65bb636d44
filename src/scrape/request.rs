//! What a scrape asks for: the headers of every request of a job.

use std::borrow::Cow;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue, USER_AGENT};

use crate::config::{EscapingScheme, ScrapeConfig, ScrapeProtocol};
use crate::model::HistogramReading;
use crate::parse::protobuf::NativeHistograms;
use crate::parse::{Exposition, Format};

/// The most that Istio's agent may be promised: Envoy's route to it gives up after 15 s.
const AGENT_TIMEOUT: Duration = Duration::from_secs(14);

const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");

/// What every request of a job looks like, and how its answers are read.
#[derive(Clone, Debug)]
pub struct RequestHead {
    pub(super) headers: HeaderMap,
    pub(super) fallback: Option<Exposition>,
    pub(super) require_complete: bool,
    pub(super) body_limit: u64,
    pub(super) native: NativeHistograms,
    pub(super) convert: bool,
}

impl RequestHead {
    /// The head of requests of `job` with this scrape timeout, where these histograms are wanted.
    pub fn new(job: &ScrapeConfig, timeout: Duration, histograms: HistogramReading) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("meshscrape/", env!("CARGO_PKG_VERSION"))));
        let accept = accept(&job.scrape_protocols, job.escaping);
        headers.insert(ACCEPT, HeaderValue::try_from(accept).expect("media ranges are ASCII"));
        let encoding = if job.enable_compression { "gzip" } else { "identity" };
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(encoding));
        // Istio's agent answers with what it has when this time is over; it must be over before our own deadline.
        let promised = if job.require_complete { timeout.mul_f64(0.9).min(AGENT_TIMEOUT) } else { timeout };
        let promised = format!("{}", promised.as_secs_f64());
        headers.insert(SCRAPE_TIMEOUT, HeaderValue::try_from(promised).expect("a number is ASCII"));
        Self {
            headers,
            fallback: job.fallback_scrape_protocol.map(format_of),
            require_complete: job.require_complete,
            body_limit: job.limits.body_size_limit,
            native: NativeHistograms { read: histograms.native, classic_too: histograms.classic_too },
            convert: histograms.convert,
        }
    }
}

/// The `Accept` header for these protocols: weights count down from 0.6 whatever the number of entries, `*/*` is last.
fn accept(protocols: &[ScrapeProtocol], escaping: EscapingScheme) -> String {
    let escaping = escaping.as_str();
    let mut ranges = String::new();
    let mut weight = 6;
    for protocol in protocols {
        let range = match protocol {
            ScrapeProtocol::PrometheusProto => Cow::Borrowed(
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited",
            ),
            ScrapeProtocol::PrometheusText004 => Cow::Borrowed("text/plain;version=0.0.4"),
            ScrapeProtocol::PrometheusText100 => format!("text/plain;version=1.0.0;escaping={escaping}").into(),
            ScrapeProtocol::OpenMetricsText001 => "application/openmetrics-text;version=0.0.1".into(),
            ScrapeProtocol::OpenMetricsText100 => {
                format!("application/openmetrics-text;version=1.0.0;escaping={escaping}").into()
            }
        };
        ranges.push_str(&format!("{range};q=0.{weight},"));
        weight -= 1;
    }
    ranges.push_str(&format!("*/*;q=0.{weight}"));
    ranges
}

fn format_of(protocol: ScrapeProtocol) -> Exposition {
    match protocol {
        ScrapeProtocol::PrometheusText004 | ScrapeProtocol::PrometheusText100 => {
            Exposition::Text(Format::PrometheusText)
        }
        ScrapeProtocol::OpenMetricsText001 | ScrapeProtocol::OpenMetricsText100 => {
            Exposition::Text(Format::OpenMetrics)
        }
        ScrapeProtocol::PrometheusProto => Exposition::Protobuf,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_count_down_from_six() {
        use ScrapeProtocol::*;
        assert_eq!(
            accept(
                &[OpenMetricsText100, OpenMetricsText001, PrometheusText100, PrometheusText004],
                EscapingScheme::AllowUtf8
            ),
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
        );
        assert_eq!(
            accept(
                &[PrometheusProto, OpenMetricsText100, OpenMetricsText001, PrometheusText100, PrometheusText004],
                EscapingScheme::AllowUtf8
            ),
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
             application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
        );
        assert_eq!(accept(&[PrometheusText004], EscapingScheme::AllowUtf8), "text/plain;version=0.0.4;q=0.6,*/*;q=0.5");
    }
}
