//! What happened in one scrape, for a person or for a program: of this process, or as an agent tells of its own.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::collect::Collector;
use crate::cli::style::Paint;
use crate::model::{Failure, Labels, Match, Reason, Sample, Target, Verification, clean_to};
use crate::scrape::Exchange;

/// All that is known of one scrape. The names are those of an agent's live scrape, and of our JSON document.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    /// More lines for people: what the target is, by which way it was asked.
    #[serde(skip)]
    pub(super) about: Vec<(&'static str, String)>,
    pub(super) url: String,
    pub(super) verification: Verified,
    /// Who was to answer, in words.
    pub(super) expected_identity: Option<String>,
    pub(super) phases: Phases,
    pub(super) peer: Option<Peer>,
    pub(super) status: Option<u16>,
    pub(super) content_type: Option<String>,
    content_encoding: Option<String>,
    pub(super) body_bytes: u64,
    transferred_bytes: u64,
    pub(super) sample_count: usize,
    pub(super) failure: Option<Failed>,
}

/// How the one who answers is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Verified {
    Exact,
    Namespace,
    TrustDomain,
    HostName,
    None,
    Refused,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Phases {
    pub(super) connect_ms: Option<f64>,
    pub(super) tls_ms: Option<f64>,
    pub(super) first_byte_ms: Option<f64>,
    pub(super) total_ms: f64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Peer {
    pub(super) identity: String,
    pub(super) tls_version: String,
    pub(super) cipher: String,
    pub(super) chain: Vec<String>,
}

/// Why it failed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Failed {
    pub(super) reason: String,
    pub(super) detail: String,
    hint: String,
    expected: Option<String>,
    presented: Option<String>,
    refused_chain: Vec<String>,
    pub(super) exit_code: u8,
}

impl Report {
    /// The report of a scrape of this process.
    pub(super) fn of(target: &Target, seen: Exchange, failure: Option<Failure>, samples: usize) -> Self {
        let millis = |phase: Duration| phase.as_secs_f64() * 1000.0;
        let verification = match &target.verification {
            Verification::Spiffe(peer) => match peer.rule() {
                Match::Exact => Verified::Exact,
                Match::Namespace => Verified::Namespace,
                Match::TrustDomain => Verified::TrustDomain,
            },
            Verification::HostName => Verified::HostName,
            Verification::None => Verified::None,
            Verification::Refused(_) => Verified::Refused,
        };
        Self {
            about: Vec::new(),
            url: target.url(),
            verification,
            expected_identity: match &target.verification {
                Verification::Spiffe(peer) => Some(peer.to_string()),
                _ => None,
            },
            phases: Phases {
                connect_ms: seen.phases.connect.map(millis),
                tls_ms: seen.phases.tls.map(millis),
                first_byte_ms: seen.phases.first_byte.map(millis),
                total_ms: millis(seen.phases.total),
            },
            peer: seen.peer.map(|peer| Peer {
                identity: peer.identity,
                tls_version: peer.tls_version,
                cipher: peer.cipher,
                chain: peer.chain,
            }),
            status: seen.status,
            content_type: seen.content_type,
            content_encoding: seen.encoding,
            body_bytes: seen.body_bytes,
            transferred_bytes: seen.wire_bytes,
            sample_count: samples,
            failure: failure.map(|failure| Failed::of(failure, verification)),
        }
    }

    /// The same with every text made safe to show: an agent repeats what strangers said.
    pub(super) fn cleaned(mut self) -> Self {
        let own = |text: &mut String| *text = clean_to(text, 1024).into_owned();
        own(&mut self.url);
        for text in [&mut self.expected_identity, &mut self.content_type, &mut self.content_encoding] {
            text.iter_mut().for_each(own);
        }
        if let Some(peer) = &mut self.peer {
            [&mut peer.identity, &mut peer.tls_version, &mut peer.cipher].into_iter().for_each(own);
            peer.chain.iter_mut().for_each(own);
        }
        if let Some(failure) = &mut self.failure {
            [&mut failure.reason, &mut failure.detail, &mut failure.hint].into_iter().for_each(own);
            [&mut failure.expected, &mut failure.presented].into_iter().flatten().for_each(own);
            failure.refused_chain.iter_mut().for_each(own);
            // Whatever it says, it failed, and not for a reason that is ours.
            failure.exit_code = if (2..8).contains(&failure.exit_code) { failure.exit_code } else { 1 };
        }
        self
    }

    /// What the command exits with.
    pub(super) fn exit_code(&self) -> u8 {
        self.failure.as_ref().map_or(0, |failure| failure.exit_code)
    }

    /// The report as text: a line a phase, and the verdict last; `forwarded` where the collector has what would be.
    pub(super) fn text(&self, collector: &Collector, forwarded: bool, paint: Paint) -> String {
        let mut out = String::new();
        let phases = &self.phases;
        let _ = writeln!(out, "{}", paint.bold(&self.url));
        for (name, value) in &self.about {
            line(&mut out, name, value);
        }
        if phases.connect_ms.is_some() {
            line(&mut out, "connect", duration(phases.connect_ms));
        }
        if let Some(peer) = &self.peer {
            let tls = format!("{}  {} {}", duration(phases.tls_ms), peer.tls_version, peer.cipher);
            line(&mut out, "TLS", tls);
            for (at, certificate) in peer.chain.iter().enumerate() {
                line(&mut out, if at == 0 { "chain" } else { "" }, certificate.clone());
            }
            line(&mut out, "identity", self.identity(&peer.identity, paint));
        } else if phases.tls_ms.is_some() {
            line(&mut out, "TLS", duration(phases.tls_ms));
        }
        if self.status.is_some() && self.verification == Verified::None {
            line(&mut out, "identity", format!("{} (http)", paint.bold("nobody was verified")));
        }
        if phases.first_byte_ms.is_some() {
            line(&mut out, "first byte", duration(phases.first_byte_ms));
        }
        line(&mut out, "whole", duration(Some(phases.total_ms)));
        if let Some(status) = self.status {
            line(&mut out, "status", status.to_string());
            line(&mut out, "format", self.content_type.clone().unwrap_or_else(|| "no content type".to_owned()));
            let bytes = match &self.content_encoding {
                Some(encoding) => format!("{} ({} transferred, {encoding})", self.body_bytes, self.transferred_bytes),
                None => self.body_bytes.to_string(),
            };
            line(&mut out, "bytes", bytes);
            // Of a scrape that failed elsewhere there is nothing to count families in.
            let families = match (collector.families(), self.sample_count) {
                (0, 1..) => String::new(),
                (families, _) => format!(" in {families} families"),
            };
            line(&mut out, "samples", format!("{}{families}", self.sample_count));
            if forwarded && self.failure.is_none() {
                line(&mut out, "forwarded", forwarded_of(collector));
            }
        }
        self.write_verdict(collector, &mut out, paint);
        out
    }

    /// The end of the report: that it went well, or why not and what would help; also what is lacking of what went well.
    pub(super) fn write_verdict(&self, collector: &Collector, out: &mut String, paint: Paint) {
        match (&self.failure, collector.lack()) {
            (Some(failure), _) => failure.write(out, paint),
            (None, lack) => {
                let _ = writeln!(out, "{}", paint.good("scraped"));
                if let Some(lack) = lack {
                    write_reason(out, lack.reason.name(), &lack.detail, &lack.hint(), paint);
                }
            }
        }
    }

    fn identity(&self, presented: &str, paint: Paint) -> String {
        let expected = self.expected_identity.as_deref().unwrap_or("anybody");
        match self.verification {
            Verified::Exact => format!("{presented}  {}", paint.good("is exactly what was expected")),
            Verified::Namespace | Verified::TrustDomain => {
                format!("{presented}  {} ({expected} was accepted)", paint.bold("identity not pinned"))
            }
            Verified::HostName | Verified::None | Verified::Refused => {
                format!("{presented}  {} (verified by host name)", paint.bold("identity not pinned"))
            }
        }
    }

    /// The report as JSON, without samples. `lack` is what a scrape that succeeded lacks.
    pub(super) fn document(&self, collector: &Collector, lack: Option<&Failure>) -> io::Result<serde_json::Value> {
        let mut document = serde_json::to_value(self)?;
        document["ok"] = self.failure.is_none().into();
        document["identityPinned"] = (self.verification == Verified::Exact).into();
        document["familyCount"] = collector.families().into();
        document["leftOut"] = collector.left_out().into();
        document["lack"] = match lack.filter(|_| self.failure.is_none()) {
            Some(lack) => json!({ "reason": lack.reason.name(), "detail": lack.detail, "hint": lack.hint() }),
            None => serde_json::Value::Null,
        };
        for (name, value) in &self.about {
            document[*name] = value.as_str().into();
        }
        Ok(document)
    }

    /// Report and samples as one JSON document on standard output.
    pub(super) fn print_json(&self, collector: &Collector, steps: Option<serde_json::Value>) -> io::Result<()> {
        let (mut samples, mut dropped) = (Vec::new(), Vec::new());
        if self.failure.is_none() {
            samples.extend(collector.samples().map(json_sample));
            let shown = |series: &Labels| json_labels(series);
            dropped.extend(
                collector.dropped.iter().map(|dropped| json!({ "labels": shown(&dropped.series), "why": dropped.why })),
            );
        }
        let mut document = self.document(collector, collector.lack().as_ref())?;
        document["samples"] = samples.into();
        document["dropped"] = dropped.into();
        if let Some(steps) = steps {
            document["steps"] = steps;
        }
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &document)?;
        out.write_all(b"\n")
    }
}

impl Failed {
    fn of(failure: Failure, verification: Verified) -> Self {
        // Without certificates the command itself is more likely at fault than the target.
        let hint = match (verification, failure.reason) {
            (Verified::HostName, Reason::UnknownAuthority | Reason::HostNameMismatch) => {
                "no certificates were given, so the roots of this system were asked for a host name: \
                 mesh certificates need --certs-dir DIR"
                    .into()
            }
            _ => failure.hint(),
        };
        Self {
            reason: failure.reason.name().to_owned(),
            hint: hint.into_owned(),
            exit_code: failure.reason.class().code(),
            detail: failure.detail,
            expected: failure.expected,
            presented: failure.presented,
            refused_chain: failure.chain.into_vec(),
        }
    }

    fn write(&self, out: &mut String, paint: Paint) {
        for (at, certificate) in self.refused_chain.iter().enumerate() {
            line(out, if at == 0 { "refused" } else { "" }, certificate);
        }
        // The sentence below often names them already.
        let unsaid = |id: &&String| !self.detail.contains(id.as_str());
        if let Some(expected) = self.expected.as_ref().filter(unsaid) {
            line(out, "expected", expected);
        }
        if let Some(presented) = self.presented.as_ref().filter(unsaid) {
            line(out, "presented", presented);
        }
        write_reason(out, &self.reason, &self.detail, &self.hint, paint);
    }
}

/// What is wrong, and what to do about it.
fn write_reason(out: &mut String, reason: &str, detail: &str, hint: &str, paint: Paint) {
    let _ = writeln!(out, "{} {detail}", paint.bad(format!("{reason}:")));
    let _ = writeln!(out, "{} {hint}", paint.bold("hint:"));
}

/// Values are texts, as in Prometheus' API: JSON has no NaN and no infinity.
fn json_sample((labels, sample, own_time): (&Labels, Sample, bool)) -> serde_json::Value {
    let labels = json_labels(labels);
    let value = crate::parse::print::value(sample.value);
    match own_time {
        true => json!({ "labels": labels, "value": value, "timestampMs": sample.timestamp_ms }),
        false => json!({ "labels": labels, "value": value }),
    }
}

/// Labels as an object.
pub(super) fn json_labels(labels: &Labels) -> serde_json::Value {
    labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect::<serde_json::Map<_, _>>().into()
}

/// How much would be forwarded, and how much not.
pub(super) fn forwarded_of(collector: &Collector) -> String {
    let at_least = if collector.cut { "at least " } else { "" };
    match collector.dropped.len() {
        0 => format!("{at_least}{} series", collector.kept()),
        dropped => format!("{at_least}{} series, {dropped} dropped by relabelling", collector.kept()),
    }
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "  {name:<11} {value}");
}

pub(super) fn duration(ms: Option<f64>) -> String {
    match ms {
        Some(ms) => format!("{ms:.1} ms"),
        None => "not reached".to_owned(),
    }
}
