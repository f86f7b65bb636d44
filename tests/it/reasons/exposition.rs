//! What the answer says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use meshscrape::model::Reason;
use tokio::sync::watch;

use super::http::seconds;
use super::stage::{Mend, Row, Stage, ill, typed};
use crate::support::tls_server::{Asked, Reply, Script};

pub(super) fn rows(stage: &mut Stage) -> Vec<Row> {
    let nameless = |_: &Asked| Reply::with("200 OK", &[], "beans 1\n");
    let nameless = stage.application(Reason::ContentType, Arc::new(nameless));
    let broken = |asked: &Asked| match asked.header("accept-encoding") {
        Some("gzip") => typed("text/plain\r\nContent-Encoding: gzip", b"beans 1\n"),
        _ => Reply::ok("beans 1\n"),
    };
    let broken = stage.application(Reason::Encoding, Arc::new(broken));
    // As Istio's agent, which is told how long it has and gives what has come by then.
    let cut = |asked: &Asked| Reply::ok(if seconds(asked) > 4.0 { "beans 1\ncups 2\n" } else { "beans 1\ncu" });
    let cut = stage.application(Reason::Truncated, Arc::new(cut)).with("require_complete", "true");
    let (script, merged) = merged();
    let partial = stage.application(Reason::PartialMerge, script);
    let (script, mended) = ill(Reply::ok("beans 1\ncups two\n"));
    let unreadable = stage.application(Reason::Parse, script);
    let named = stage.application(Reason::InvalidSample, Arc::new(|_| Reply::ok("beans 1\n")));
    vec![
        Row::rewritten(
            Reason::ContentType,
            nameless.clone(),
            "set fallback_scrape_protocol",
            nameless.with("fallback_scrape_protocol", "PrometheusText0.0.4"),
        ),
        Row::rewritten(
            Reason::Encoding,
            broken.clone(),
            "set enable_compression: false for this job",
            broken.with("enable_compression", "false"),
        ),
        Row::rewritten(
            Reason::Truncated,
            cut.clone(),
            "raise scrape_timeout",
            cut.with("scrape_timeout", "5s").with("scrape_interval", "5s"),
        ),
        Row {
            reason: Reason::PartialMerge,
            job: partial,
            asks: "look at the port and path that the pod's prometheus.io annotations name",
            mend: Mend::Application(merged),
        },
        Row {
            reason: Reason::Parse,
            job: unreadable,
            asks: "the line and column are in the message",
            mend: Mend::Application(mended),
        },
        Row::rewritten(
            Reason::InvalidSample,
            named.clone().with("metric_relabel_configs", "[{action: labeldrop, regex: __name__}]"),
            "look at the exposition and at metric_relabel_configs",
            named,
        ),
    ]
}

/// Istio's agent whose application answers it once it is found where the annotations say. It counts what it left out of the
/// answers before.
fn merged() -> (Script, watch::Sender<bool>) {
    let (sender, found) = watch::channel(false);
    let (answers, failures) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let script = move |_: &Asked| {
        let failed = failures.fetch_add(usize::from(!*found.borrow()), Ordering::Relaxed);
        let answered = answers.fetch_add(1, Ordering::Relaxed);
        let of_application = match failed {
            0 => String::new(),
            failed => format!("istio_agent_scrape_failures_total{{type=\"application\"}} {failed}\n"),
        };
        Reply::ok(&format!("{of_application}istio_agent_scrapes_total {answered}\nenvoy_server_live 1\n"))
    };
    (Arc::new(script), sender)
}
