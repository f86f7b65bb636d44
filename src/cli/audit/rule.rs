//! What an audit may find: one row a rule, with an ID that never changes its meaning.

use std::fmt;

use serde::Serialize;

/// How bad a finding is. Worse ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// To know, and perhaps as it is meant.
    Note,
    /// Metrics can be had by somebody who should not get them, or soon nobody gets them.
    Warning,
    /// The pod's metrics are not had in a verified way.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.pad(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

macro_rules! rules {
    ($($variant:ident, $id:literal, $name:literal, $severity:ident, $when:literal, $why:literal;)+) => {
        /// What may be found.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Rule {
            $(#[doc = $when] $variant,)+
        }

        impl Rule {
            /// Every rule, in the order of the table.
            pub(super) const ALL: &[Rule] = &[$(Rule::$variant,)+];

            /// What scripts go by.
            pub(super) fn id(self) -> &'static str {
                match self { $(Rule::$variant => $id,)+ }
            }

            /// The ID in words.
            pub(super) fn name(self) -> &'static str {
                match self { $(Rule::$variant => $name,)+ }
            }

            /// How bad it is.
            pub(super) fn severity(self) -> Severity {
                match self { $(Rule::$variant => Severity::$severity,)+ }
            }

            /// When it is found, in a sentence.
            pub(super) fn when(self) -> &'static str {
                match self { $(Rule::$variant => $when,)+ }
            }

            /// Why it matters, and what helps.
            pub(super) fn why(self) -> &'static str {
                match self { $(Rule::$variant => $why,)+ }
            }
        }
    };
}

impl Rule {
    /// Whether a pod on which nothing worse is found exposes its metrics in a verified way, and in no other.
    pub(super) fn leaves_secured(self) -> bool {
        matches!(self, Rule::ScrapedTwiceSecurely | Rule::LegacyListener)
    }
}

rules! {
    SecurePortsOff, "MS001", "secure-ports-off", Error,
        "The proxy opens no secure metrics port.",
        "Its metrics are to be had in plain text only, by anybody who reaches the pod. Set ENVOY_SECURE_MERGED_METRICS_PORT in proxyMetadata (for a Gateway of the Gateway API in a ProxyConfig), and name the port by prometheus.istio.io/secure-port.";
    NotAnnounced, "MS002", "not-announced", Warning,
        "A secure port is open, and no annotation names it.",
        "Scrapers find secure ports by their annotation. Istio's injector writes it for the merged port alone, and not on gateways and waypoints, which it does not inject.";
    BadAnnotation, "MS003", "bad-annotation", Error,
        "An annotation that should name a secure port does not.",
        "Scrapers either leave the pod out or are sent to a port that is none of Istio's.";
    AnnouncedNotOpen, "MS004", "announced-not-open", Error,
        "An annotation names a secure port that the proxy does not open, and nobody who is verified answers there.",
        "Every scrape of it fails. Open the port in proxyMetadata, and start the pod anew: a proxy reads its variables once.";
    ScrapedTwicePlainly, "MS005", "scraped-twice-plainly", Warning,
        "The prometheus.io annotations have the metrics scraped in plain text that are announced on a secure port.",
        "A scraper that follows both counts every series twice, and half of that is unverified. Drop pods with a secure port from the job that follows prometheus.io/scrape.";
    ScrapedTwiceSecurely, "MS006", "scraped-twice-securely", Note,
        "Both secure ports are announced.",
        "The merged port has Envoy's series, too, so jobs for both count them twice, as those of Istio's sample do. istio_sd_configs with port: envoy leaves such pods out.";
    PlaintextReachable, "MS007", "plaintext-reachable", Warning,
        "A plaintext port gave metrics to this process.",
        "Whoever reaches the pod reads them, unseen and unverified. Set METRICS_LOCALHOST_ACCESS_ONLY in proxyMetadata, which leaves the secure ports as they are.";
    PlaintextNotRestricted, "MS008", "plaintext-not-restricted", Note,
        "The proxy does not restrict its plaintext ports, and none of them was seen to answer.",
        "Something else may keep connections out, from here at least, or none was tried. METRICS_LOCALHOST_ACCESS_ONLY in proxyMetadata settles it.";
    StrictCapture, "MS009", "strict-capture", Error,
        "Inbound capture ends the TLS of a secure port, as it does under STRICT.",
        "The handshake succeeds and every scrape ends right after it. Take the secure ports out of inbound capture by traffic.sidecar.istio.io/excludeInboundPorts.";
    CaptureNotExcluded, "MS010", "capture-not-excluded", Note,
        "Inbound capture stands before a secure port, and the port was not seen to answer.",
        "Under PERMISSIVE it works, under STRICT no scrape does. Take the secure ports out of inbound capture by traffic.sidecar.istio.io/excludeInboundPorts.";
    WrongIdentity, "MS011", "wrong-identity", Error,
        "Whoever answers on a secure port is not the pod's own service account.",
        "Another workload or somebody else has the address, or its certificate is none of this mesh. meshscrape takes nothing from it; a scraper that skips verification believes it.";
    CertificateInvalid, "MS012", "certificate-invalid", Error,
        "The certificate of a secure port has expired, or is not valid yet.",
        "No client that verifies gets in. The proxy gets no new certificates, or a clock is wrong.";
    CertificateOverdue, "MS013", "certificate-overdue", Warning,
        "Less than a quarter of the life of a certificate is left.",
        "Istio renews at half of it, so renewal is failing. Look at the log of the pod's istio-proxy before it expires.";
    NoAnswer, "MS014", "no-answer", Error,
        "A secure port does not answer a scrape.",
        "The finding has the reason by which scrapes of it fail, and what to look at.";
    LegacyListener, "MS015", "legacy-listener", Note,
        "Port 15091 is announced, and the proxy does not open it: a listener from before Istio 1.31, if one is there.",
        "It depends on resources besides the pod, and under PERMISSIVE on the label __alpn__ of the target. Istio 1.31 opens secure ports natively.";
    SecurePortPlain, "MS016", "secure-port-plain", Error,
        "A port that is announced as secure gives metrics in plain text.",
        "Whoever reaches the pod reads them. A listener from before Istio 1.31 does so under PERMISSIVE: open the port natively, or set STRICT for it.";
    Ambient, "MS017", "ambient", Note,
        "The pod is in ambient mode, where a workload has no proxy.",
        "There is no secure port to open: its application's metrics are as secure as its own port is, and what the mesh knows of it the node's ztunnel and its waypoint tell.";
    NotAsked, "MS018", "not-asked", Note,
        "Not everything was asked of the pod or seen of it, and so not everything is known.",
        "The finding says what and why.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_and_names_are_unique_and_in_order() {
        let ids: Vec<_> = Rule::ALL.iter().map(|rule| rule.id()).collect();
        let expected: Vec<_> = (1..=Rule::ALL.len()).map(|number| format!("MS{number:03}")).collect();
        assert_eq!(ids, expected);
        let names: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
        for rule in Rule::ALL {
            assert!(rule.when().ends_with('.') && rule.why().ends_with('.'), "{}", rule.id());
        }
    }
}
