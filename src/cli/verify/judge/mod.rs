//! From the answers to verdicts: a pure function. What a check could not find out is `not asked`, never `ok`.

use std::net::SocketAddr;

use serde::Serialize;

use super::gather::{Agent, Evidence, SecurePort};
use crate::cli::agent_api::ActiveTarget;
use crate::cli::exposure::{Facts, Kind, Opening, Plainly, elsewhere};
use crate::cli::istio::{ENVOY_PORT, LOCALHOST_ONLY_VARIABLE, PLAIN_ENVOY_PORT};
use crate::cli::scrape::target_of;
use crate::connect::{Answered, PlainAnswer, Unanswered};
use crate::model::{Acceptance, Failure, Match, Peer, Reason, SpiffeId, clean, clean_to};

/// One check and how it went. The texts are safe to show.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Step {
    /// What scripts go by, together with the port.
    pub(super) id: &'static str,
    pub(super) port: Option<u16>,
    pub(super) check: String,
    pub(super) verdict: Verdict,
    pub(super) seen: String,
    /// What to do where it failed.
    pub(super) next: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verdict {
    Ok,
    Failed,
    /// The pod is not meant to.
    NotApplicable,
    /// It could not be found out.
    NotAsked,
}

/// What all checks come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing failed, and a secure port answered over mTLS.
    Verified,
    /// A check failed.
    Failed,
    /// Nothing failed, but no secure port was asked: that proves nothing.
    Unproven,
}

impl Outcome {
    pub(super) fn of(steps: &[Step]) -> Self {
        if steps.iter().any(|step| step.verdict == Verdict::Failed) {
            return Self::Failed;
        }
        match steps.iter().any(|step| step.id == MTLS && step.verdict == Verdict::Ok) {
            true => Self::Verified,
            false => Self::Unproven,
        }
    }
}

/// The check without which a pod is not verified.
const MTLS: &str = "mtls";

/// What a proxy in between does, our own among them, looks the same as a pod that gives nothing.
const CLOSED_ON_THE_WAY: &str = "closed without a byte: something on the way keeps us out";

/// Verdict, what was seen, and what to do.
type Found = (Verdict, String, Option<String>);

/// Every check, in the order of the task: each secure port, its target, the plaintext ports.
pub(super) fn judge(facts: &Facts, expected: &Peer, evidence: &Evidence) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |id, port, check: String, (verdict, seen, next): Found| {
        steps.push(Step { id, port, check, verdict, seen, next });
    };
    for (kind, port) in ports(facts, evidence) {
        let Some(secure) = evidence.secure.iter().find(|secure| secure.scrape.port == port) else {
            add("listener", Some(port), format!("{port} speaks TLS"), absent(facts, kind));
            continue;
        };
        add("listener", Some(port), format!("{port} speaks TLS"), listener(facts, secure));
        add("identity", Some(port), format!("{port} is who it must be"), identity(facts, secure));
        add(MTLS, Some(port), format!("{port} answers 200 over mTLS"), mtls(facts, secure));
        add("plain_refused", Some(port), format!("{port} refuses plain HTTP"), plain_refused(secure));
        add(
            "anonymous_refused",
            Some(port),
            format!("{port} refuses whoever shows no certificate"),
            anonymous_refused(secure),
        );
        add("target", Some(port), format!("{port} is up in its job"), target(facts, kind, port, expected, evidence));
    }
    add(
        "plain",
        Some(PLAIN_ENVOY_PORT),
        format!("{PLAIN_ENVOY_PORT} speaks plain text"),
        plain(facts, &evidence.plain_envoy),
    );
    for plain in [&evidence.plain_merged, &evidence.plain_envoy] {
        add("plain_closed", Some(plain.port), format!("{} is closed to others", plain.port), closed(facts, plain));
    }
    steps
}

fn ok(seen: impl Into<String>) -> Found {
    (Verdict::Ok, seen.into(), None)
}

fn failed(seen: impl Into<String>, next: impl Into<String>) -> Found {
    (Verdict::Failed, seen.into(), Some(next.into()))
}

fn of_failure(facts: &Facts, port: u16, failure: &Failure) -> Found {
    // Of a pod that is captured the cause is known.
    let next = match failure.reason {
        Reason::ClosedAfterHandshake if facts.is_captured(port) => facts.source.excluding(port).into(),
        _ => elsewhere(failure).map_or(failure.hint(), Into::into),
    };
    failed(failure.to_string(), next)
}

fn not_asked(why: impl Into<String>) -> Found {
    (Verdict::NotAsked, why.into(), None)
}

fn not_applicable(why: impl Into<String>) -> Found {
    (Verdict::NotApplicable, why.into(), None)
}

/// The secure ports that have checks: those of the two kinds, where the proxy opens them or by convention, and whatever
/// else was asked.
fn ports(facts: &Facts, evidence: &Evidence) -> Vec<(Kind, u16)> {
    let mut ports: Vec<_> = Kind::BOTH
        .into_iter()
        .map(|kind| match facts.opening(kind) {
            Opening::On(port) => (kind, port),
            Opening::Off | Opening::Unknown => (kind, kind.usual()),
        })
        .collect();
    for asked in evidence.secure.iter().map(|secure| secure.scrape.port) {
        if ports.iter().all(|(_, port)| *port != asked) {
            ports.push((if asked == ENVOY_PORT { Kind::Envoy } else { Kind::Merged }, asked));
        }
    }
    ports
}

/// A secure port that was not asked. A pod needs one of the two.
fn absent(facts: &Facts, kind: Kind) -> Found {
    let variable = kind.variable();
    match facts.opening(kind) {
        Opening::On(port) => not_asked(format!(
            "{variable} opens it, which is none of Istio's convention: give --port {port} to have it asked"
        )),
        Opening::Unknown => {
            not_asked(format!("the value of {variable} stands elsewhere (valueFrom), and no annotation names the port"))
        }
        Opening::Off if facts.has_no_secure_port() && kind == Kind::Merged => {
            failed("no secure metrics port is open", facts.source.opening(kind.annotation(), variable, kind.usual()))
        }
        Opening::Off => not_applicable(format!("the proxy does not open it ({variable})")),
    }
}

fn listener(facts: &Facts, SecurePort { scrape, .. }: &SecurePort) -> Found {
    match &scrape.outcome {
        Ok(Answered { peer, .. }) | Err(Unanswered { peer: Some(peer), .. }) => {
            ok(format!("{} {}", peer.tls_version, peer.cipher))
        }
        Err(Unanswered { failure, .. }) if is_before_tls(failure.reason) => of_failure(facts, scrape.port, failure),
        Err(_) => ok("TLS"),
    }
}

/// Whether what failed so, of whom nobody was verified, failed before anybody could see a certificate.
fn is_before_tls(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConnectRefused
            | Reason::ConnectTimeout
            | Reason::ConnectFailed
            | Reason::PlaintextServer
            | Reason::ClosedInHandshake
            | Reason::TlsHandshake
            | Reason::Timeout
    )
}

fn identity(facts: &Facts, SecurePort { scrape, .. }: &SecurePort) -> Found {
    match &scrape.outcome {
        Ok(Answered { peer, .. }) | Err(Unanswered { peer: Some(peer), .. }) => ok(peer.identity.clone()),
        Err(Unanswered { failure, .. }) => match failure.reason {
            Reason::IdentityMismatch
            | Reason::UnknownAuthority
            | Reason::NoSpiffeId
            | Reason::InvalidSvid
            | Reason::CertificateExpired
            | Reason::CertificateNotYetValid => of_failure(facts, scrape.port, failure),
            reason => not_asked(format!("no certificate came to be verified ({reason})")),
        },
    }
}

fn mtls(facts: &Facts, SecurePort { scrape, .. }: &SecurePort) -> Found {
    match &scrape.outcome {
        Ok(answered) if answered.status == 200 && scrape.wants_alpn => ok(
            "200, once istio-http/1.1 was offered: a listener from before Istio 1.31, whose target wants the label __alpn__",
        ),
        Ok(answered) if answered.status == 200 => ok("200"),
        Ok(answered) => failed(format!("the status is {}", answered.status), Reason::HttpStatus.hint()),
        Err(unanswered) => of_failure(facts, scrape.port, &unanswered.failure),
    }
}

fn plain_refused(SecurePort { scrape, plain, .. }: &SecurePort) -> Found {
    // Who refuses everybody refuses nothing in particular: a port that is off, or something on the way.
    let nobody = match &scrape.outcome {
        Err(Unanswered { failure, peer: None }) if is_before_tls(failure.reason) => Some(failure.reason),
        _ => None,
    };
    match (&plain.outcome, nobody) {
        (Ok(PlainAnswer::Closed), Some(reason)) => not_asked(format!("closed without a byte, as TLS is ({reason})")),
        (Ok(PlainAnswer::Status(503)), Some(reason)) => not_asked(format!("503, and no TLS either ({reason})")),
        (Ok(PlainAnswer::Closed), None) => ok("closed without a byte"),
        (Ok(PlainAnswer::NotHttp), _) => ok("an answer that is not HTTP"),
        // The text of Istio's task: the hop passes it on to a port that takes TLS only.
        (Ok(PlainAnswer::Status(503)), None) => ok("503 from inbound capture, which finds a port that takes TLS only"),
        (Ok(PlainAnswer::Status(200)), _) => failed(
            "it answers 200 in plain text",
            "whoever reaches the pod reads it: set PeerAuthentication STRICT for this port, or open it natively with Istio 1.31",
        ),
        (Ok(PlainAnswer::Status(status)), _) => failed(
            format!("it answers {status} in plain text"),
            "it gave no metrics, but a secure port of Istio's says nothing in plain HTTP: look at what listens there",
        ),
        (Err(failure), _) => not_asked(failure.to_string()),
    }
}

fn anonymous_refused(SecurePort { scrape, anonymous, .. }: &SecurePort) -> Found {
    if let Err(unanswered) = &scrape.outcome {
        return not_asked(format!("who shows one is not let in either ({})", unanswered.failure.reason));
    }
    match anonymous {
        Ok(answered) => failed(
            format!("it answers {} to a client that shows no certificate", answered.status),
            "this is no secure port of Istio's, which asks for a certificate of the mesh: look at what listens there",
        ),
        Err(failure) => match failure.reason {
            Reason::ClientCertificateRejected
            | Reason::TlsHandshake
            | Reason::ClosedInHandshake
            | Reason::ClosedAfterHandshake => ok(failure.detail.clone()),
            _ => not_asked(failure.to_string()),
        },
    }
}

fn target(facts: &Facts, kind: Kind, port: u16, expected: &Peer, evidence: &Evidence) -> Found {
    let announced = facts.announced.iter().any(|announced| announced.port == Some(port));
    let by_merged = kind == Kind::Envoy
        && facts
            .announced
            .iter()
            .any(|other| other.kind == Kind::Merged && other.port.is_some_and(|other| other != port));
    if !announced && !by_merged {
        let next = facts.source.annotating(kind.annotation(), port);
        return failed("no annotation names the port, so no job finds it", next);
    }
    let (targets, named) = match &evidence.agent {
        Agent::Told { targets, named } => (targets, *named),
        Agent::Silent(why) => {
            return failed(why.clone(), asking_the_agent(facts));
        }
        Agent::Absent(why) => return not_asked(format!("{why}; give --agent")),
    };
    match target_of(targets, &facts.namespace, &facts.name, port) {
        Ok(target) => {
            let found = up(target, &format!("https://{}/", SocketAddr::new(evidence.ip, port)), expected);
            match found {
                // As where we are closed ourselves.
                (Verdict::Failed, seen, _) if is_down_by_capture(target, facts, port) => {
                    failed(seen, facts.source.excluding(port))
                }
                found => found,
            }
        }
        Err(missing) if missing.unheard_of && !named => {
            let node = clean(&facts.node);
            not_asked(format!(
                "the agent here has never heard of the pod: ask that of node {node}, in its pod or by --agent"
            ))
        }
        Err(_) if by_merged => not_applicable("the merged port has the same series, so its job takes that one"),
        Err(missing) => failed(missing.why, missing.hint.unwrap_or_else(|| "see meshscrape targets".to_owned())),
    }
}

/// How the agent is reached that scrapes the pod, where none is on this machine.
fn asking_the_agent(facts: &Facts) -> String {
    format!(
        "is an agent running there? From elsewhere, forward the port of the agent's pod on node {}, `kubectl port-forward \
         -n NAMESPACE AGENT_POD 9465`, and verify again while that runs, with --agent http://127.0.0.1:9465",
        clean(&facts.node)
    )
}

fn is_down_by_capture(target: &ActiveTarget, facts: &Facts, port: u16) -> bool {
    target.health == "down" && target.reason == Reason::ClosedAfterHandshake.name() && facts.is_captured(port)
}

fn up(target: &ActiveTarget, place: &str, expected: &Peer) -> Found {
    let shown = |text: &str| clean_to(text, 512).into_owned();
    let at = format!("{} in job {}", shown(&target.scrape_url), clean(&target.scrape_pool));
    if !target.scrape_url.starts_with(place) {
        return failed(
            format!("{at} is not at {place}"),
            "look at the rules of the job that write __address__ and __scheme__",
        );
    }
    // Other scrapers verify nobody, and tell nothing of it.
    if !target.expected_identity.is_empty() {
        let seen = format!("{at} expects {}", shown(&target.expected_identity));
        match accepts(target, expected) {
            Some(true) => {}
            Some(false) => return failed(seen, "look at the rules of the job that write __spiffe_id__"),
            None => return not_asked(format!("{seen}, and the agent does not tell which identities those are")),
        }
    }
    match target.health.as_str() {
        "up" => ok(at),
        "down" => {
            let why = if target.last_error.is_empty() { &target.reason } else { &target.last_error };
            let hint = if target.hint.is_empty() { "see meshscrape targets" } else { &target.hint };
            failed(format!("{at} is down: {}", clean_to(why, 1024)), shown(hint))
        }
        _ => failed(format!("{at} has not been scraped yet"), "verify again after a scrape interval"),
    }
}

/// Whether the job of the target lets the pod answer, by the rule that the agent tells; an agent of before tells none, only the
/// one ID. `None` where what it tells cannot be read.
fn accepts(target: &ActiveTarget, expected: &Peer) -> Option<bool> {
    let (rule, ids) = match (target.identity_match.as_str(), target.accepted_identities.as_slice()) {
        ("", []) => (Match::Exact, std::slice::from_ref(&target.expected_identity)),
        (word, ids) => (Match::ALL.into_iter().find(|rule| rule.word() == word)?, ids),
    };
    let ids: Vec<SpiffeId> = ids.iter().map(|id| SpiffeId::parse(id).ok()).collect::<Option<_>>()?;
    let accepted = ids
        .into_iter()
        .map(|id| Peer::with_aliases(id, &[], rule))
        .any(|peer| expected.accepted().iter().any(|own| peer.judge(own) != Acceptance::Refused));
    Some(accepted)
}

fn plain(facts: &Facts, plain: &Plainly) -> Found {
    match &plain.outcome {
        _ if facts.restricted == Some(true) => not_applicable(format!("{LOCALHOST_ONLY_VARIABLE} is set")),
        Ok(PlainAnswer::Status(200)) => ok("200 in plain text"),
        Ok(PlainAnswer::Status(_) | PlainAnswer::NotHttp) if facts.restricted.is_none() => not_asked(hidden()),
        Ok(PlainAnswer::Status(status)) => {
            failed(format!("the status is {status}"), "look at what listens there, and at ENVOY_PROMETHEUS_PORT")
        }
        Ok(PlainAnswer::NotHttp) => {
            failed("an answer that is not HTTP", "look at what listens there, and at ENVOY_PROMETHEUS_PORT")
        }
        Ok(PlainAnswer::Closed) => not_asked(CLOSED_ON_THE_WAY),
        Err(failure) => not_asked(failure.to_string()),
    }
}

/// Why it is not known what the proxy is to do with its plaintext ports.
fn hidden() -> String {
    format!("the value of {LOCALHOST_ONLY_VARIABLE} stands elsewhere (valueFrom)")
}

/// Only a hardened pod closes its plaintext ports.
fn closed(facts: &Facts, plain: &Plainly) -> Found {
    if facts.restricted == Some(false) {
        return not_applicable(format!("{LOCALHOST_ONLY_VARIABLE} is not set"));
    }
    match &plain.outcome {
        Ok(PlainAnswer::Status(403)) => ok("403"),
        Ok(PlainAnswer::Status(_) | PlainAnswer::NotHttp) if facts.restricted.is_none() => not_asked(hidden()),
        Ok(PlainAnswer::Status(status)) => failed(format!("it answers {status}"), facts.restricting()),
        Ok(PlainAnswer::NotHttp) => failed("an answer that is not HTTP", "look at what listens there"),
        Ok(PlainAnswer::Closed) => not_asked(CLOSED_ON_THE_WAY),
        Err(failure) if failure.reason == Reason::ConnectRefused => ok("refused"),
        Err(failure) => not_asked(failure.to_string()),
    }
}

#[cfg(test)]
mod tests;
