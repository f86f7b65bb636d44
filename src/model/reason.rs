//! The closed list of reasons for which a scrape fails, or lacks something: one table of name, exit class, meaning and hint.
//!
//! A reason is used alike in the metric, the log, the API, the page and the command's exit code. It is never a label of
//! `up`. A new way to fail gets a row here first.

use std::fmt;

/// The exit code of `meshscrape scrape` for a class of failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitClass {
    /// 0: the scrape succeeded all the same.
    Scraped,
    /// 2: the command or the configuration asks for something that cannot be done.
    Usage,
    /// 3: no TCP connection.
    Connect,
    /// 4: TLS or identity.
    Identity,
    /// 5: HTTP.
    Http,
    /// 6: the exposition, or a limit on it.
    Exposition,
    /// 7: time ran out.
    Timeout,
}

impl ExitClass {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            ExitClass::Scraped => 0,
            ExitClass::Usage => 2,
            ExitClass::Connect => 3,
            ExitClass::Identity => 4,
            ExitClass::Http => 5,
            ExitClass::Exposition => 6,
            ExitClass::Timeout => 7,
        }
    }
}

/// Declares the enum and its table together, so that no reason can lack a row.
macro_rules! reasons {
    ($($(#[doc = $when:literal])+ $variant:ident, $name:literal, $class:ident, $hint:literal;)+) => {
        /// Why a scrape failed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $($(#[doc = $when])+ $variant,)+
        }

        impl Reason {
            /// Every reason, in the order of the table.
            pub const ALL: &[Reason] = &[$(Reason::$variant,)+];

            /// The name: the value of the metric's `reason` label, in logs, in the API.
            pub fn name(self) -> &'static str {
                match self { $(Reason::$variant => $name,)+ }
            }

            /// The class by which `meshscrape scrape` exits.
            pub fn class(self) -> ExitClass {
                match self { $(Reason::$variant => ExitClass::$class,)+ }
            }

            /// When it happens, in a sentence.
            pub fn when(self) -> &'static str {
                match self { $(Reason::$variant => concat!($($when),+).trim_ascii(),)+ }
            }

            /// What to look at or to change.
            pub fn hint(self) -> &'static str {
                match self { $(Reason::$variant => $hint,)+ }
            }
        }
    };
}

reasons! {
    /// The host name of the target does not resolve.
    NameResolution, "name_resolution", Connect,
        "check the host name; pods are best addressed by IP";
    /// Nothing listens on the port.
    ConnectRefused, "connect_refused", Connect,
        "check address and port; if it is a secure port of Istio, it is off or the proxy has not received its certificates yet: see ENVOY_SECURE_METRICS_PORT and ENVOY_SECURE_MERGED_METRICS_PORT in the environment of the pod's istio-proxy";
    /// No TCP connection within the scrape timeout.
    ConnectTimeout, "connect_timeout", Connect,
        "packets are dropped on the way: a NetworkPolicy, a wrong IP, or a pod of another network";
    /// The connection could not be made for another reason, such as no route.
    ConnectFailed, "connect_failed", Connect,
        "check the address, and the route from this node to the pod; the message has the error of the system";
    /// The pod is being deleted and answers no more; the detail says how it did not.
    PodTerminating, "pod_terminating", Connect,
        "nothing to do: the target goes when the pod is gone; if it stays for long, look at the pod's finalizers and its node";

    /// No usable certificate of our own: not there yet, half written, or expired.
    NoOwnCertificate, "no_own_certificate", Identity,
        "run `meshscrape check certs DIR`, which says what is missing; the proxy writes the files only once its own certificate has been issued";
    /// The expected identity is not known yet, because our own certificate, which names the trust domain, is not loaded.
    IdentityUnknown, "identity_unknown", Identity,
        "run `meshscrape check certs DIR`: until our own certificate is there, wait; if it is and carries no SPIFFE ID, set tls_config.spiffe.trust_domain";
    /// The target has no well-formed expected identity, so nobody may answer for it.
    NoExpectedIdentity, "no_expected_identity", Identity,
        "give the target a __spiffe_id__ label; pod discovery sets it from the service account";
    /// Another target has the same labels, and another address or identity: one would write the other's series.
    AmbiguousTarget, "ambiguous_target", Identity,
        "give the two targets different labels, instance for example, or keep one of them by relabel_configs";
    /// The target asks for plain HTTP in a job that verifies identities.
    PlaintextRefused, "plaintext_refused", Identity,
        "jobs with spiffe scrape https only: remove the rule that copies prometheus.io/scheme to __scheme__";
    /// The peer answered the TLS greeting with something that is not TLS.
    PlaintextServer, "plaintext_server", Identity,
        "the port speaks plain text: 15020 and 15090 do, the secure ports are 15092 and 15091";
    /// The TLS handshake failed for a reason not listed apart.
    TlsHandshake, "tls_handshake", Identity,
        "the message has the words of the TLS library, or the alert that the peer sent: after handshake_failure or protocol_version let it offer TLS 1.2 or 1.3 with a cipher suite of today; after words about a message that cannot be read name another port, for no TLS server has this one";
    /// The peer closed or reset the connection inside the handshake.
    ClosedInHandshake, "closed_in_handshake", Identity,
        "on a pod with a sidecar this is how a secure port that is off looks; or the proxy has no certificate yet";
    /// The peer refused our client certificate.
    ClientCertificateRejected, "client_certificate_rejected", Identity,
        "our certificate does not chain to the peer's trust bundle, or has expired: run `meshscrape check certs DIR`";
    /// The connection ended after a good handshake and before the first byte of the answer.
    ClosedAfterHandshake, "closed_after_handshake", Identity,
        "if it happens every time, a STRICT mesh captures the port: in the pod template, add 15091 and 15092 to traffic.sidecar.istio.io/excludeInboundPorts beside what stands there (where includeInboundPorts lists ports, take them off that list instead), and start the pods anew, for a running one does not change; if it happens now and then, the peer may have refused our certificate";
    /// The certificate is valid and belongs to somebody else.
    IdentityMismatch, "identity_mismatch", Identity,
        "another workload answers on this address: the pod was replaced, its service account changed, or somebody poses as it";
    /// The peer's certificate does not chain to the roots of its trust domain.
    UnknownAuthority, "unknown_authority", Identity,
        "the peer belongs to another mesh, or root-cert.pem lags behind a root rotation: compare with `meshscrape check certs DIR`";
    /// The peer's certificate has expired.
    CertificateExpired, "certificate_expired", Identity,
        "the peer's proxy no longer gets certificates: look at its istio-proxy log; or this node's clock is wrong";
    /// The peer's certificate is not valid yet.
    CertificateNotYetValid, "certificate_not_yet_valid", Identity,
        "one of the two clocks is wrong";
    /// The peer's certificate carries no SPIFFE ID.
    NoSpiffeId, "no_spiffe_id", Identity,
        "this is not a mesh certificate: another TLS server listens on this port";
    /// The certificate chains, but is not in the form of an X.509-SVID: two URIs, an unreadable name, a CA as leaf, wrong key usage.
    InvalidSvid, "invalid_svid", Identity,
        "SPIFFE forbids this certificate, whatever else it says: have the issuer make certificates of exactly one SPIFFE ID, with digitalSignature, and none of a CA";
    /// The certificate does not name the host, in a job that verifies host names.
    HostNameMismatch, "host_name_mismatch", Identity,
        "mesh certificates carry no host names: give the job tls_config.spiffe, or set server_name";
    /// The API server has been silent for so long that the address may have changed hands unseen, and the peer did not show the key that this pod had.
    DiscoveryStale, "discovery_stale", Identity,
        "nothing is wrong with the pod: the agent's log and readiness say why the API server does not answer; it ends by itself once pods are known again";
    /// What verified the connection ended while the answer was read: roots, our certificate, or the peer's validity.
    VerificationEnded, "verification_ended", Identity,
        "the next scrape makes a new connection; nothing to do unless it repeats";

    /// A file with credentials for the target cannot be read, or holds what no header can carry, or no OAuth 2 token came.
    CredentialsUnreadable, "credentials_unreadable", Usage,
        "check the files named in the job's basic_auth, authorization, oauth2 or http_headers: they must exist and be readable by this process; and that oauth2.token_url answers in time and knows this client";

    /// The answer redirects to another place, or further than is followed.
    RedirectRefused, "redirect_refused", Http,
        "a verified scrape never leaves its peer: fix __metrics_path__ (prometheus.io/path)";
    /// The status is not 200.
    HttpStatus, "http_status", Http,
        "404 means a path that the port does not route: 15092 serves /stats/prometheus and /metrics, 15091 only /stats/prometheus; 503 and 504 come from the proxy when the application behind it does not answer";
    /// The answer is not HTTP, or breaks off inside its framing.
    HttpProtocol, "http_protocol", Http,
        "if it happens every time, another protocol speaks on this port: name that of the metrics; if the message says that the answer broke off, look at the log of the target";

    /// The content type is missing or not one that can be read.
    ContentType, "content_type", Exposition,
        "set fallback_scrape_protocol if the target cannot name its format";
    /// The body cannot be decompressed.
    Encoding, "encoding", Exposition,
        "set enable_compression: false for this job to see whether compression is at fault";
    /// The body ends inside a line or without `# EOF`, though the transfer ended well.
    Truncated, "truncated", Exposition,
        "Istio's agent cuts its answer when the application does not answer in time: look at the application's metrics port, raise scrape_timeout";
    /// The body is larger than body_size_limit or the ceiling that always stands.
    BodyTooLarge, "body_too_large", Exposition,
        "raise body_size_limit, or have the proxy export fewer statistics";
    /// Istio's agent left the part of the application, of Envoy or of its own out of merged answers; the scrape itself succeeded, and `up` is 1.
    PartialMerge, "partial_merge", Scraped,
        "look at the port and path that the pod's prometheus.io annotations name, and at the log of its istio-proxy, which says why a part could not be read";
    /// A line cannot be read.
    Parse, "parse", Exposition,
        "the line and column are in the message: the target writes what its format does not allow";
    /// A sample without a name, a name that the job's validation scheme forbids, or a label given twice.
    InvalidSample, "invalid_sample", Exposition,
        "look at the exposition and at metric_relabel_configs";
    /// More samples than sample_limit.
    SampleLimit, "sample_limit", Exposition,
        "raise sample_limit (set it, where there is none), or drop series with metric_relabel_configs";
    /// A native histogram has more buckets than native_histogram_bucket_limit, or all of them have more than are held.
    BucketLimit, "bucket_limit", Exposition,
        "raise native_histogram_bucket_limit, or drop the histogram with metric_relabel_configs";
    /// More series that were not there before than one scrape may add to memory.
    TooManyNewSeries, "too_many_new_series", Exposition,
        "a label of this target takes ever new values: drop it by a labeldrop rule of metric_relabel_configs, or the metrics that have it by a drop rule";
    /// All scrapes under way together held more memory than scrape_memory_limit, and this one held the most.
    MemoryBudget, "memory_budget", Exposition,
        "raise global.scrape_memory_limit together with the memory of the agent, or have the target expose less; sample_limit or body_size_limit for this job only makes sure that it fails, and no other one";
    /// A sample with too many or too long labels.
    LabelLimit, "label_limit", Exposition,
        "raise label_limit, label_name_length_limit or label_value_length_limit, whichever the message names";
    /// More targets in the job than target_limit.
    TargetLimit, "target_limit", Exposition,
        "raise target_limit, or keep fewer targets with relabel_configs";

    /// The scrape timeout ran out after the connection was made.
    Timeout, "timeout", Timeout,
        "the phases in the message say where the time went; raise scrape_timeout or look at the pod";
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_can_be_label_values() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
    }

    #[test]
    fn every_row_says_something() {
        for reason in Reason::ALL {
            assert!(reason.when().ends_with('.'), "{reason}: {}", reason.when());
            assert!(reason.hint().len() > 20, "{reason}");
        }
    }
}
