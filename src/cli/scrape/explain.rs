//! A scrape explained: each step of it, what was done, what that proves, and at which one it ended.
//!
//! Everything is read from the report, so an agent's scrape is explained as one of our own.

use std::fmt::Write;

use serde_json::{Value, json};

use super::collect::Collector;
use super::report::{Report, Verified, duration, forwarded_of};
use crate::cli::style::{Paint, terminal_size, wrapped};
use crate::model::{ExitClass, Reason};

/// Where there is no terminal.
const WIDTH: usize = 110;
/// Where the sentences begin.
const INDENT: usize = 26;

/// The steps in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Expectation,
    Connection,
    Handshake,
    Answer,
    Exposition,
    Forwarding,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Done,
    Failed,
    NotReached,
}

struct Step {
    name: &'static str,
    state: State,
    says: String,
}

/// The report in steps, and the verdict with what its reason means.
pub(super) fn text(report: &Report, collector: &Collector, forwarded: bool, paint: Paint) -> String {
    let mut out = format!("{}\n", paint.bold(&report.url));
    for (name, value) in &report.about {
        let _ = writeln!(out, "  {name}: {value}");
    }
    let width = terminal_size().map_or(WIDTH, |(columns, _)| columns);
    for Step { name, state, says } in steps(report, collector, forwarded) {
        let mark = match state {
            State::Done => paint.good("ok  "),
            State::Failed => paint.bad("FAIL"),
            State::NotReached => "-   ".to_owned(),
        };
        let mut lines = wrapped(&says, width.saturating_sub(INDENT).max(20)).into_iter();
        let _ = writeln!(out, "  {mark}  {name:<16}  {}", lines.next().unwrap_or_default());
        for line in lines {
            let _ = writeln!(out, "{:INDENT$}{line}", "");
        }
    }
    report.write_verdict(collector, &mut out, paint);
    let lacks = || collector.lack().filter(|_| report.failure.is_none()).map(|lack| lack.reason);
    if let Some(reason) = reason(report).or_else(lacks) {
        let _ = writeln!(out, "{} {} Every reason is in docs/reasons.md.", paint.bold("what it means:"), reason.when());
    }
    out
}

/// The steps as JSON.
pub(super) fn json(report: &Report, collector: &Collector, forwarded: bool) -> Value {
    let step = |Step { name, state, says }| {
        let state = match state {
            State::Done => "ok",
            State::Failed => "failed",
            State::NotReached => "not_reached",
        };
        json!({ "step": name, "state": state, "says": says })
    };
    steps(report, collector, forwarded).into_iter().map(step).collect()
}

/// `forwarded` where the collector has what would be.
fn steps(report: &Report, collector: &Collector, forwarded: bool) -> Vec<Step> {
    let ended = ended(report);
    let step = |stage, name, says: String| {
        let state = match ended {
            Some(end) if end == stage => State::Failed,
            Some(end) if end < stage => State::NotReached,
            _ => State::Done,
        };
        let says = if state == State::NotReached { "not reached".to_owned() } else { says };
        Step { name, state, says }
    };
    let mut steps = vec![
        step(Stage::Expectation, "who must answer", expectation(report)),
        step(Stage::Connection, "connection", connection(report)),
    ];
    if report.verification != Verified::None {
        steps.push(step(Stage::Handshake, "TLS and identity", handshake(report)));
    }
    steps.push(step(Stage::Answer, "answer", answer(report)));
    steps.push(step(Stage::Exposition, "exposition", exposition(report, collector)));
    if forwarded {
        steps.push(step(
            Stage::Forwarding,
            "forwarding",
            format!(
                "{} after metric_relabel_configs; what receivers drop by write_relabel_configs is not played",
                forwarded_of(collector)
            ),
        ));
    }
    steps
}

fn expectation(Report { verification, expected_identity, .. }: &Report) -> String {
    let expected = expected_identity.as_deref().unwrap_or("nobody");
    match verification {
        Verified::Exact => format!("exactly {expected}: no certificate of another workload will do, whoever signed it"),
        Verified::Namespace | Verified::TrustDomain => format!(
            "{expected}: no exact identity was named, so another workload of it can pose as the target without being noticed"
        ),
        Verified::HostName => {
            "whoever has a certificate for this host name from an authority that this system trusts; \
                               mesh certificates carry no host names, and need --certs-dir"
                .to_owned()
        }
        Verified::None => "nobody is verified over http: whoever is on the way can answer".to_owned(),
        Verified::Refused => "nobody may answer for this target, so nothing was connected".to_owned(),
    }
}

fn connection(Report { phases, .. }: &Report) -> String {
    match phases.connect_ms {
        Some(_) => {
            format!("TCP in {}: something listens there, which says nothing about who", duration(phases.connect_ms))
        }
        None => "no TCP connection came about".to_owned(),
    }
}

fn handshake(Report { phases, peer, verification, .. }: &Report) -> String {
    let Some(peer) = peer else {
        return "the handshake ended without an identity that may answer; not a byte of HTTP was exchanged".to_owned();
    };
    let proof = match verification {
        Verified::HostName => "its certificate names this host and leads to an authority that this system trusts",
        Verified::Exact => {
            "it holds the key of a certificate that leads to our roots, is valid now, has the form of an X.509-SVID and \
             carries exactly the expected identity"
        }
        _ => {
            "it holds the key of a certificate that leads to our roots, is valid now and has the form of an X.509-SVID"
        }
    };
    let chain = peer.chain.join("; ");
    format!(
        "{} {} in {}: the peer is {}; {proof}. Chain: {chain}",
        peer.tls_version,
        peer.cipher,
        duration(phases.tls_ms),
        peer.identity
    )
}

fn answer(Report { phases, status, content_type, .. }: &Report) -> String {
    match status {
        Some(status) => format!(
            "status {status}, first byte after {}, {}",
            duration(phases.first_byte_ms),
            content_type.as_deref().unwrap_or("no content type")
        ),
        None => "no answer to the request came".to_owned(),
    }
}

fn exposition(report: &Report, collector: &Collector) -> String {
    let read = format!("{} bytes, {} samples", report.body_bytes, report.sample_count);
    let read = match &report.failure {
        Some(_) => format!("{read} before the fault; nothing of an answer counts before the whole of it is good"),
        None => format!("{read}, read to the end; every line is as its format wants it"),
    };
    match collector.left_out() {
        Some(left_out) => format!("{read}; {left_out}"),
        None => read,
    }
}

/// The step at which a scrape that failed ended.
fn ended(report: &Report) -> Option<Stage> {
    report.failure.as_ref()?;
    let reached = match (report.phases.connect_ms, &report.peer, report.status) {
        (None, ..) => Stage::Connection,
        (Some(_), None, None) if report.verification != Verified::None => Stage::Handshake,
        (Some(_), _, None) => Stage::Answer,
        (Some(_), _, Some(_)) => Stage::Exposition,
    };
    Some(match reason(report).map(Reason::class) {
        _ if report.verification == Verified::Refused => Stage::Expectation,
        Some(ExitClass::Usage) => Stage::Expectation,
        Some(ExitClass::Http) => Stage::Answer,
        // Our own certificate, or what it lacks, is found out before anybody is asked.
        Some(ExitClass::Identity) if report.phases.connect_ms.is_none() => Stage::Expectation,
        _ => reached,
    })
}

/// The reason of the failure, if it is one of ours: an agent may be newer.
fn reason(report: &Report) -> Option<Reason> {
    let failure = report.failure.as_ref()?;
    Reason::ALL.iter().copied().find(|reason| reason.name() == failure.reason)
}
