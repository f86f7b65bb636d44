//! What is asked, and what comes for an answer.

use std::sync::Arc;

use meshscrape::model::Reason;

use super::job::Job;
use super::stage::{Mend, Row, Stage};
use crate::support::envoy::ListenerSpec;
use crate::support::tls_server::{Asked, Reply, Server, Talk, Then, always};

pub(super) fn rows(stage: &mut Stage) -> Vec<Row> {
    let (cart, well) = (stage.cart(), stage.job(stage.well));
    let open = stage.keep(Server::start(Talk::Plain(always(Reply::ok("beans 1\n")))));
    let password = stage.path().join("password");
    let asking = format!("{{username: me, password_file: '{}'}}", password.display());
    let moved = |asked: &Asked| match asked.path() {
        "/stats/prometheus" => Reply::ok("beans 1\n"),
        _ => Reply::redirect(302, "https://elsewhere.invalid/stats/prometheus"),
    };
    let moved = stage.application(Reason::RedirectRefused, Arc::new(moved));
    let stats = ListenerSpec::stats("http_status", &cart, &[&stage.ca]);
    let stats = stage.listens(stats);
    let stats = stage.job(stats);
    let mail = stage.keep(Server::start(Talk::Babble(b"220 mail.example ESMTP\r\n".to_vec())));
    let mail = stage.listens(ListenerSpec::capture("http_protocol", &cart, &[&stage.ca], mail));
    let slow = |asked: &Asked| if seconds(asked) > 4.0 { Reply::ok("beans 1\n") } else { Reply::raw("", Then::Hang) };
    let slow = stage.application(Reason::Timeout, Arc::new(slow));
    vec![
        Row {
            reason: Reason::CredentialsUnreadable,
            job: Job::plain(open).with("basic_auth", asking),
            asks: "they must exist and be readable by this process",
            mend: Mend::File(password, b"open sesame".to_vec()),
        },
        Row::rewritten(
            Reason::RedirectRefused,
            moved.clone().with("metrics_path", "/metrics"),
            "fix __metrics_path__",
            moved,
        ),
        Row::rewritten(
            Reason::HttpStatus,
            stats.clone().with("metrics_path", "/metrics"),
            "15091 only /stats/prometheus",
            stats,
        ),
        Row::rewritten(
            Reason::HttpProtocol,
            well.clone().at(mail),
            "another protocol speaks on this port: name that of the metrics",
            well,
        ),
        Row::rewritten(
            Reason::Timeout,
            slow.clone(),
            "raise scrape_timeout",
            slow.with("scrape_timeout", "5s").with("scrape_interval", "5s"),
        ),
    ]
}

/// How long the answer may take, as the request says.
pub(super) fn seconds(asked: &Asked) -> f64 {
    let text = asked.header("x-prometheus-scrape-timeout-seconds").expect("it is said");
    text.parse().expect("a number")
}
