//! From what is known of a pod to what is wrong with it: a pure function.
//!
//! What was seen goes before what the API server says; what was not asked is told as not asked, never as good.

use std::time::SystemTime;

use super::rule::Rule;
use crate::cli::exposure::{Announced, Facts, Kind, Opening, Role, Securely, Seen, Whereabouts, elsewhere};
use crate::cli::istio::{LOCALHOST_ONLY_VARIABLE, MERGED_PORT, PLAIN_ENVOY_PORT, PLAIN_MERGED_PORT};
use crate::model::{Failure, Reason, clean};

/// Something that is wrong, or to know. The texts are safe to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) rule: Rule,
    /// The port that it is about, if it is one.
    pub(super) port: Option<u16>,
    /// Why a scrape of it fails, if it does.
    pub(super) reason: Option<Reason>,
    /// What was found, in one sentence.
    pub(super) message: String,
    /// What to change, as a command where one is known.
    pub(super) fix: String,
}

/// What of a pod was asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Asked<'s> {
    /// All that can be.
    All(&'s Seen),
    /// Nothing, because nobody wanted to.
    Unwanted,
    /// Nothing, because the time was over.
    TooLate,
}

/// All findings on a pod, in the order of the rules.
pub(super) fn judge(facts: &Facts, asked: Asked<'_>, now: SystemTime) -> Vec<Finding> {
    let mut bench = Bench { facts, seen: None, now, found: Vec::new() };
    match (asked, facts.whereabouts) {
        (Asked::All(seen), _) => bench.seen = Some(seen),
        (Asked::Unwanted, _) => {}
        (Asked::TooLate, _) => {
            bench.not_asked("its ports, because the time limit was over", "raise --time-limit or --rate")
        }
    }
    match facts.role {
        Role::Ambient => bench.ambient(),
        Role::Ztunnel => bench.ztunnel(),
        Role::Sidecar | Role::Gateway | Role::Waypoint => {
            bench.openings();
            bench.announcements();
            bench.plaintext();
            bench.secure_ports();
        }
    }
    bench.found.sort_by_key(|finding| (finding.rule, finding.port));
    bench.found
}

struct Bench<'f> {
    facts: &'f Facts,
    seen: Option<&'f Seen>,
    now: SystemTime,
    found: Vec<Finding>,
}

impl Bench<'_> {
    fn find(&mut self, rule: Rule, port: Option<u16>, message: impl Into<String>, fix: impl Into<String>) {
        self.found.push(Finding { rule, port, reason: None, message: message.into(), fix: fix.into() });
    }

    fn find_failed(&mut self, rule: Rule, port: u16, failure: &Failure, message: String, fix: impl Into<String>) {
        let reason = Some(failure.reason);
        self.found.push(Finding { rule, port: Some(port), reason, message, fix: fix.into() });
    }

    fn not_asked(&mut self, what: &str, fix: &str) {
        self.find(Rule::NotAsked, None, format!("not asked: {what}"), fix);
    }

    fn ambient(&mut self) {
        let message = "the pod is in ambient mode: it has no proxy, so no secure metrics port";
        self.find(Rule::Ambient, None, message, "nothing to do, or move the workload to a sidecar");
    }

    fn ztunnel(&mut self) {
        let fix = "let only your scraper reach port 15020 of ztunnel, by a NetworkPolicy: it has no secure port";
        self.unseen();
        if !self.plain_answers(fix) {
            let message = "ztunnel has its metrics on port 15020 in plain text, and no secure port";
            self.find(Rule::PlaintextNotRestricted, None, message, fix);
        }
    }

    /// What the environment of the proxy says.
    fn openings(&mut self) {
        let facts = self.facts;
        let opened = facts.opened();
        for kind in Kind::BOTH.into_iter().filter(|kind| facts.opening(*kind) == Opening::Unknown) {
            let message = format!(
                "the value of {} stands elsewhere (valueFrom), so whether it opens a port is not known",
                kind.variable()
            );
            self.find(Rule::NotAsked, None, message, facts.source.writing_out(kind.variable()));
        }
        for (kind, port) in opened.iter().filter(|(_, port)| !facts.may_ask(*port)) {
            let message =
                format!("not asked: port {port}, which {} opens, is none of Istio's convention", kind.variable());
            let fix = format!(
                "give --port {port} to have it asked; whoever scrapes it must allow it, too: ports of istio_sd_configs, pod_ports of \
                 other jobs. Or write {}: \"{}\"",
                kind.variable(),
                kind.usual()
            );
            self.find(Rule::NotAsked, Some(*port), message, fix);
        }
        if facts.has_no_secure_port() {
            let kind = Kind::Merged;
            let fix = facts.source.opening(kind.annotation(), kind.variable(), kind.usual());
            self.find(Rule::SecurePortsOff, None, "no secure metrics port is open", fix);
        }
        if let (Some((kind, port)), true) = (opened.first(), facts.announced.is_empty()) {
            let message = format!("port {port} is open, and no annotation names it, so no scraper finds it");
            self.find(Rule::NotAnnounced, Some(*port), message, facts.source.annotating(kind.annotation(), *port));
        }
        if facts.whereabouts == Whereabouts::OnNode {
            let fix = facts.source.asking(MERGED_PORT);
            self.not_asked("its ports, because it uses the network of its node", &fix);
        }
        match (facts.whereabouts, &facts.misplaced) {
            (Whereabouts::Nowhere, Some(why)) => {
                self.not_asked(&format!("its ports, because {why}"), "if pods are really there, give --pod-cidr");
            }
            (Whereabouts::Nowhere, None) => {
                self.not_asked("its ports, because it has no address yet", "audit again when it runs");
            }
            (Whereabouts::At(_) | Whereabouts::OnNode, _) => {}
        }
    }

    /// What the annotations say.
    fn announcements(&mut self) {
        let facts = self.facts;
        for Announced { kind, text, port } in &facts.announced {
            match *port {
                None => {
                    let message = format!("the annotation {} is {:?}, and no port", kind.annotation(), clean(text));
                    self.find(Rule::BadAnnotation, None, message, self.correcting(*kind));
                }
                // That it is open, and not asked, was told already.
                Some(port) if !facts.may_ask(port) && facts.opens(port) => {}
                Some(port) if !facts.may_ask(port) && facts.is_vague() => {
                    let message = format!(
                        "not asked: port {port}, which {} names, is none of Istio's convention",
                        kind.annotation()
                    );
                    let fix = format!("give --port {port} if it is a secure port");
                    self.find(Rule::NotAsked, Some(port), message, fix);
                }
                Some(port) if !facts.may_ask(port) => {
                    let message = format!(
                        "the annotation {} names port {port}, which is no secure port of Istio, and the proxy does not open it",
                        kind.annotation()
                    );
                    self.find(Rule::BadAnnotation, None, message, self.correcting(*kind));
                }
                Some(port) if facts.may_be_legacy(port) => {
                    let message = format!(
                        "port {port} is announced, and the proxy does not open it: a listener from before Istio 1.31, if one is there"
                    );
                    let fix =
                        match self.seen.is_some_and(|seen| {
                            seen.secure.iter().any(|secure| secure.port == port && secure.wants_alpn)
                        }) {
                            true => "give the target the label __alpn__: istio-http/1.1, or open the port natively"
                                .to_owned(),
                            false => self.replacing_legacy(*kind),
                        };
                    self.find(Rule::LegacyListener, Some(port), message, fix);
                }
                // A listener that was verified is there, whatever the environment says.
                Some(port) if !facts.opens(port) && !facts.is_vague() && !self.is_verified(port) => {
                    let message = format!("{} names port {port}, and the proxy does not open it", kind.annotation());
                    // A port beside the convention is what its annotation says; 15091 is told as a legacy listener.
                    let own = if port == MERGED_PORT { Kind::Merged } else { *kind };
                    let fix = facts.source.opening(kind.annotation(), own.variable(), port);
                    self.find(Rule::AnnouncedNotOpen, Some(port), message, fix);
                }
                Some(_) => {}
            }
        }
        let named = facts.announced.iter().filter_map(|announced| announced.port);
        if named.filter(|port| facts.may_ask(*port) || facts.opens(*port)).count() > 1 {
            let fix = "scrape one of the two ports of a pod: a job for Envoy's own with istio_sd_configs leaves out pods with a merged one";
            self.find(
                Rule::ScrapedTwiceSecurely,
                None,
                "both secure ports are announced, and the merged one has Envoy's series, too",
                fix,
            );
        }
        let plain = facts.plainly_scraped.filter(|port| matches!(*port, PLAIN_MERGED_PORT | PLAIN_ENVOY_PORT));
        let asked = self.seen.and_then(|seen| seen.plain.iter().find(|one| Some(one.port) == plain));
        // Where nothing was seen, what the proxy is told counts.
        let closed = match asked {
            Some(one) if one.gives_metrics() => false,
            Some(one) if one.unseen().is_none() => true,
            _ => facts.restricted == Some(true),
        };
        if let (Some(port), false, false) = (plain, closed, facts.announced.is_empty()) {
            let message =
                format!("prometheus.io/scrape has port {port} scraped in plain text, besides the secure port");
            let fix = "in the job that follows prometheus.io/scrape: {action: drop, source_labels: [__meta_kubernetes_pod_annotationpresent_prometheus_istio_io_secure_port], regex: \"true\"}";
            self.find(Rule::ScrapedTwicePlainly, Some(port), message, fix);
        }
    }

    /// How a native port takes the place of a listener from before Istio 1.31 that `kind` announces.
    fn replacing_legacy(&self, kind: Kind) -> String {
        let native = Kind::Merged;
        let opening = self.facts.source.opening(native.annotation(), native.variable(), native.usual());
        match kind {
            Kind::Merged => opening,
            // Both announced would have the pod scraped twice.
            Kind::Envoy => format!("take the annotation {} away, and {opening}", kind.annotation()),
        }
    }

    /// How an annotation comes to name a port that is open.
    fn correcting(&self, kind: Kind) -> String {
        let opened = self.facts.opened();
        match opened.iter().find(|(open, _)| *open == kind) {
            Some((_, port)) => self.facts.source.annotating(kind.annotation(), *port),
            None if self.facts.is_vague() => self.facts.source.annotating(kind.annotation(), kind.usual()),
            None => self.facts.source.opening(kind.annotation(), kind.variable(), kind.usual()),
        }
    }

    /// Whether a secure port answered as the one that it must be.
    fn is_verified(&self, port: u16) -> bool {
        self.seen.is_some_and(|seen| seen.secure.iter().any(|secure| secure.port == port && secure.outcome.is_ok()))
    }

    /// Who else can read the metrics.
    fn plaintext(&mut self) {
        let facts = self.facts;
        self.unseen();
        let fix = facts.restricting();
        if self.plain_answers(&fix) {
            return;
        }
        match (facts.restricted, self.seen) {
            (Some(true), _) => {}
            (None, _) => {
                let message = format!(
                    "the value of {LOCALHOST_ONLY_VARIABLE} stands elsewhere (valueFrom), so whether the proxy restricts its \
                     plaintext ports is not known"
                );
                self.find(Rule::NotAsked, None, message, facts.source.writing_out(LOCALHOST_ONLY_VARIABLE));
            }
            (Some(false), Some(_)) => {
                let message =
                    "ports 15020 and 15090 gave no metrics to this process, but the proxy does not restrict them";
                self.find(Rule::PlaintextNotRestricted, None, message, fix);
            }
            (Some(false), None) => {
                let message = "the proxy does not restrict its plaintext ports 15020 and 15090";
                self.find(Rule::PlaintextNotRestricted, None, message, fix);
            }
        }
    }

    /// Plaintext ports of which it is not known what they give: that is not the same as nothing.
    fn unseen(&mut self) {
        let plain = self.seen.iter().flat_map(|seen| &seen.plain);
        let plain = plain.filter(|one| matches!(one.port, PLAIN_MERGED_PORT | PLAIN_ENVOY_PORT));
        let unseen: Vec<_> = plain.filter_map(|one| Some((one.port, one.unseen()?))).collect();
        for (port, why) in unseen {
            let message = format!("not seen: whether port {port} gives metrics in plain text: {why}");
            let fix = format!(
                "audit from a pod that may reach port {port}: a NetworkPolicy may keep this one from it, as that of the agents does"
            );
            self.find(Rule::NotAsked, Some(port), message, fix);
        }
    }

    /// Finds the ports that gave metrics in plain text; whether one of the plaintext ports did.
    fn plain_answers(&mut self, fix: &str) -> bool {
        let mut any = false;
        let seen = self.seen;
        for one in seen.iter().flat_map(|seen| &seen.plain).filter(|one| one.gives_metrics()) {
            let port = one.port;
            if matches!(port, PLAIN_MERGED_PORT | PLAIN_ENVOY_PORT) {
                any = true;
                let message = format!("port {port} gives metrics in plain text to whoever asks");
                self.find(Rule::PlaintextReachable, Some(port), message, fix);
            } else {
                let message =
                    format!("port {port} is announced as secure, and gives metrics in plain text to whoever asks");
                let fix = "set PeerAuthentication STRICT for this port, or open it natively with Istio 1.31";
                self.find(Rule::SecurePortPlain, Some(port), message, fix);
            }
        }
        any
    }

    fn secure_ports(&mut self) {
        let Some(seen) = self.seen else {
            let captured = self.facts.secure_ports().iter().copied().find(|port| self.facts.is_captured(*port));
            if let Some(port) = captured {
                let message =
                    format!("inbound capture stands before port {port}: under STRICT no scrape of it succeeds");
                self.find(Rule::CaptureNotExcluded, Some(port), message, self.facts.source.excluding(port));
            }
            return;
        };
        for secure in &seen.secure {
            self.secure_port(secure);
        }
    }

    fn secure_port(&mut self, Securely { port, outcome, .. }: &Securely) {
        let port = *port;
        match outcome {
            Ok(answered) => {
                if answered.status != 200 {
                    let detail = format!("the status is {}", answered.status);
                    let failure = Failure::new(Reason::HttpStatus, detail);
                    self.find_failed(Rule::NoAnswer, port, &failure, no_answer(port, &failure), failure.hint());
                }
                if self.now > answered.overdue_after {
                    let message = format!(
                        "less than a quarter of the life of the certificate of port {port} is left: its renewal is overdue"
                    );
                    let fix = "look at the log of its istio-proxy, which says why it gets no new certificate";
                    self.find(Rule::CertificateOverdue, Some(port), message, fix);
                }
            }
            Err(unanswered) => self.failed(port, &unanswered.failure),
        }
    }

    fn failed(&mut self, port: u16, failure: &Failure) {
        // Why nobody is there is said already; who is there is not. Inbound capture takes connections for a port that is off.
        let nobody = match failure.reason {
            Reason::ConnectRefused => true,
            Reason::ClosedInHandshake => self.facts.is_captured(port),
            _ => false,
        };
        if nobody
            && self.found.iter().any(|finding| finding.rule == Rule::AnnouncedNotOpen && finding.port == Some(port))
        {
            return;
        }
        let hint = elsewhere(failure).map_or(failure.hint(), Into::into);
        let (rule, message) = match failure.reason {
            Reason::IdentityMismatch | Reason::UnknownAuthority | Reason::NoSpiffeId | Reason::InvalidSvid => {
                (Rule::WrongIdentity, format!("whoever answers on port {port} is refused: {failure}"))
            }
            Reason::CertificateExpired | Reason::CertificateNotYetValid => {
                (Rule::CertificateInvalid, format!("the certificate of port {port} is refused: {failure}"))
            }
            Reason::ClosedAfterHandshake if self.facts.is_captured(port) => {
                let message = format!(
                    "port {port} closes every connection right after a good handshake: inbound capture ends its TLS, as under STRICT"
                );
                return self.find_failed(
                    Rule::StrictCapture,
                    port,
                    failure,
                    message,
                    self.facts.source.excluding(port),
                );
            }
            _ => (Rule::NoAnswer, no_answer(port, failure)),
        };
        self.find_failed(rule, port, failure, message, hint);
    }
}

fn no_answer(port: u16, failure: &Failure) -> String {
    format!("port {port} does not answer a scrape: {failure}")
}

#[cfg(test)]
mod tests;
