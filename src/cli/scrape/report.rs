//! What happened in one scrape, for a person or for a program.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use serde_json::json;

use super::collect::Collector;
use crate::cli::style::Paint;
use crate::model::{Failure, Reason, Target, Verification};
use crate::scrape::Exchange;

/// All that is known of one scrape.
pub(super) struct Report<'a> {
    pub(super) target: &'a Target,
    pub(super) pinned: bool,
    pub(super) seen: &'a Exchange,
    pub(super) outcome: Option<&'a Failure>,
}

impl Report<'_> {
    /// The report as text: a line a phase, and the verdict last.
    pub(super) fn text(&self, collector: &Collector, paint: Paint) -> String {
        let mut out = String::new();
        let seen = self.seen;
        let _ = writeln!(out, "{}", paint.bold(self.target.url()));
        if seen.phases.connect.is_some() {
            line(&mut out, "connect", duration(seen.phases.connect));
        }
        if let Some(peer) = &seen.peer {
            let tls = format!("{}  {} {}", duration(seen.phases.tls), peer.tls_version, peer.cipher);
            line(&mut out, "TLS", tls);
            for (at, certificate) in peer.chain.iter().enumerate() {
                line(&mut out, if at == 0 { "chain" } else { "" }, certificate.clone());
            }
            line(&mut out, "identity", self.identity(&peer.identity, paint));
        } else if seen.phases.tls.is_some() {
            line(&mut out, "TLS", duration(seen.phases.tls));
        }
        if seen.status.is_some() && matches!(self.target.verification, Verification::None) {
            line(&mut out, "identity", format!("{} (http)", paint.bold("nobody was verified")));
        }
        if seen.phases.first_byte.is_some() {
            line(&mut out, "first byte", duration(seen.phases.first_byte));
        }
        line(&mut out, "whole", duration(Some(seen.phases.total)));
        if let Some(status) = seen.status {
            line(&mut out, "status", status.to_string());
            line(&mut out, "format", seen.content_type.clone().unwrap_or_else(|| "no content type".to_owned()));
            let bytes = match &seen.encoding {
                Some(encoding) => format!("{} ({} transferred, {encoding})", seen.body_bytes, seen.wire_bytes),
                None => seen.body_bytes.to_string(),
            };
            line(&mut out, "bytes", bytes);
            line(&mut out, "samples", format!("{} in {} families", collector.samples, collector.families()));
        }
        match self.outcome {
            None => {
                let _ = writeln!(out, "{}", paint.good("scraped"));
            }
            Some(failure) => {
                for (at, certificate) in failure.chain.iter().enumerate() {
                    line(&mut out, if at == 0 { "refused" } else { "" }, certificate);
                }
                // The sentence below often names them already.
                let unsaid = |id: &&String| !failure.detail.contains(id.as_str());
                if let Some(expected) = failure.expected.as_ref().filter(unsaid) {
                    line(&mut out, "expected", expected);
                }
                if let Some(presented) = failure.presented.as_ref().filter(unsaid) {
                    line(&mut out, "presented", presented);
                }
                let _ = writeln!(out, "{} {}", paint.bad(format!("{}:", failure.reason)), failure.detail);
                let _ = writeln!(out, "{} {}", paint.bold("hint:"), self.hint(failure));
            }
        }
        out
    }

    /// The hint of the reason, unless the command itself is more likely at fault.
    fn hint(&self, failure: &Failure) -> Cow<'static, str> {
        match (&self.target.verification, failure.reason) {
            (Verification::HostName, Reason::UnknownAuthority | Reason::HostNameMismatch) => Cow::Borrowed(
                "no certificates were given, so the roots of this system were asked for a host name: \
                     mesh certificates need --certs-dir DIR",
            ),
            _ => failure.hint(),
        }
    }

    fn identity(&self, presented: &str, paint: Paint) -> String {
        match &self.target.verification {
            Verification::Spiffe(_) if self.pinned => {
                format!("{presented}  {}", paint.good("is exactly what was expected"))
            }
            Verification::Spiffe(peer) => {
                let wanted = peer.expected().trust_domain();
                format!("{presented}  {} (any workload of {wanted} was accepted)", paint.bold("identity not pinned"))
            }
            _ => format!("{presented}  {} (verified by host name)", paint.bold("identity not pinned")),
        }
    }

    /// Report and samples as one JSON document on standard output.
    pub(super) fn print_json(&self, collector: &Collector) -> io::Result<()> {
        let seen = self.seen;
        let millis = |phase: Option<Duration>| phase.map(|phase| phase.as_secs_f64() * 1000.0);
        let samples: Vec<_> = match self.outcome {
            Some(_) => Vec::new(),
            None => collector.samples().map(json_sample).collect(),
        };
        let document = json!({
            "url": self.target.url(),
            "ok": self.outcome.is_none(),
            "identityPinned": matches!(self.target.verification, Verification::Spiffe(_)) && self.pinned,
            "phases": {
                "connectMs": millis(seen.phases.connect),
                "tlsMs": millis(seen.phases.tls),
                "firstByteMs": millis(seen.phases.first_byte),
                "totalMs": millis(Some(seen.phases.total)),
            },
            "peer": seen.peer.as_ref().map(|peer| json!({
                "identity": peer.identity,
                "tlsVersion": peer.tls_version,
                "cipher": peer.cipher,
                "chain": peer.chain,
            })),
            "status": seen.status,
            "contentType": seen.content_type,
            "contentEncoding": seen.encoding,
            "bodyBytes": seen.body_bytes,
            "transferredBytes": seen.wire_bytes,
            "sampleCount": collector.samples,
            "familyCount": collector.families(),
            "failure": self.outcome.map(|failure| json!({
                "reason": failure.reason.name(),
                "detail": failure.detail,
                "hint": self.hint(failure),
                "expected": failure.expected,
                "presented": failure.presented,
                "refusedChain": failure.chain,
                "exitCode": failure.reason.class().code(),
            })),
            "samples": samples,
        });
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &document)?;
        out.write_all(b"\n")
    }
}

/// Values are texts, as in Prometheus' API: JSON has no NaN and no infinity.
fn json_sample((labels, sample, own_time): (&crate::model::Labels, crate::model::Sample, bool)) -> serde_json::Value {
    let labels: serde_json::Map<_, _> = labels.iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let value = crate::parse::print::value(sample.value);
    match own_time {
        true => json!({ "labels": labels, "value": value, "timestampMs": sample.timestamp_ms }),
        false => json!({ "labels": labels, "value": value }),
    }
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _ = writeln!(out, "  {name:<11} {value}");
}

fn duration(phase: Option<Duration>) -> String {
    match phase {
        Some(phase) => format!("{:.1} ms", phase.as_secs_f64() * 1000.0),
        None => "not reached".to_owned(),
    }
}
