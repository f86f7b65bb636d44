//! What to look at first when a peer does not talk to us, or we not to it.
//!
//! Of an ordinary server whose chain ends nowhere: whose CA is wanted. Of a mesh port that does not answer: whether the
//! application protocols of the greeting were those that it wants.
//!
//! One annotation leads to two kinds of listeners that want the opposite. A native secure port (Istio 1.31) wants to be
//! offered nothing: where inbound capture stands before it, an Istio protocol has the TLS ended there. A listener that a
//! `Sidecar` resource made on the same port (before 1.31) matches Istio's protocols only, under PERMISSIVE. The port does
//! not tell which it is, so the failure names both.
//!
//! What it must not know: the certificates, the files and what was sent; it judges by the reason alone.

use crate::model::{Address, Alpn, Failure, Reason, Scheme};

/// The port by which legacy listeners are annotated.
const LEGACY_PORT: u16 = 15091;

const OFFER: &str = "if the port is a legacy one (a Sidecar resource, Istio before 1.31) under PERMISSIVE, it wants the \
                     target label __alpn__: istio-http/1.1";
const OFFER_NOTHING: &str = "the target has the label __alpn__: only legacy listeners (a Sidecar resource, Istio before \
                             1.31) want it, a native secure port must not get one";

const ITS_CA: &str = "ca_file must name the CA that signed this server's certificate (without ca_file the system's \
                      count); a kubelet signs its own unless it has serverTLSBootstrap: true and its request is approved";

const THE_PROXY: &str = "the message says how the proxy (proxy_url, proxy_from_environment) failed: check its address and the route to it, let it \
                         allow this host and port, give it the password that it wants in proxy_url, or except the host by \
                         no_proxy";

/// Adds whose word is wanted where chain and host name are verified.
pub(super) fn add_to_ordinary(failure: Failure) -> Failure {
    if failure.reason == Reason::UnknownAuthority { failure.advising(ITS_CA) } else { failure }
}

/// Adds that a proxy stands between, where no connection came about: the one that was tried was to it.
pub(super) fn add_to_proxied(failure: Failure) -> Failure {
    let unconnected = matches!(
        failure.reason,
        Reason::ConnectFailed | Reason::ConnectRefused | Reason::ConnectTimeout | Reason::NameResolution
    );
    if unconnected { failure.mended_by(THE_PROXY) } else { failure }
}

/// Adds what the failure may have to do with the protocols that were offered.
pub(super) fn add(failure: Failure, offered: &Alpn, address: &Address) -> Failure {
    let closed = matches!(
        failure.reason,
        Reason::ClosedInHandshake
            | Reason::ClosedAfterHandshake
            | Reason::ClientCertificateRejected
            | Reason::PlaintextServer
    );
    if !offered.is_empty() {
        // A server that knows none of the protocols may also say so, in an alert.
        let refused = closed || failure.reason == Reason::TlsHandshake;
        return if refused { failure.advising(OFFER_NOTHING) } else { failure };
    }
    let port = address.port().unwrap_or(Scheme::Https.default_port());
    if closed && port == LEGACY_PORT { failure.advising(OFFER) } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(reason: Reason, offered: &str, address: &str) -> String {
        let (offered, address) = (Alpn::parse(offered).expect(offered), Address::parse(address).expect(address));
        add(Failure::new(reason, "x"), &offered, &address).hint().into_owned()
    }

    const CLOSED: [Reason; 4] = [
        Reason::ClosedInHandshake,
        Reason::ClosedAfterHandshake,
        Reason::ClientCertificateRejected,
        Reason::PlaintextServer,
    ];

    #[test]
    fn a_legacy_listener_wants_the_label_and_the_hint_names_it() {
        for reason in CLOSED {
            let said = hint(reason, "", "10.0.0.7:15091");
            assert!(said.contains("__alpn__: istio-http/1.1") && said.contains("before 1.31"), "{said}");
            assert!(said.ends_with(reason.hint()), "what else it may be stays: {said}");
            assert_eq!(hint(reason, "", "10.0.0.7:15092"), reason.hint(), "nothing legacy is there");
        }
    }

    #[test]
    fn a_native_port_must_not_get_the_label_and_the_hint_says_so() {
        for reason in CLOSED.into_iter().chain([Reason::TlsHandshake]) {
            for port in [15091, 15092] {
                let said = hint(reason, "istio-http/1.1", &format!("10.0.0.7:{port}"));
                assert!(said.contains("__alpn__") && said.contains("must not get one"), "{said}");
                assert!(said.ends_with(reason.hint()), "{said}");
            }
        }
    }

    #[test]
    fn where_a_chain_ends_nowhere_the_hint_says_whose_certificate_is_wanted() {
        let said = |reason| add_to_ordinary(Failure::new(reason, "x")).hint().into_owned();
        let unknown = said(Reason::UnknownAuthority);
        assert!(unknown.contains("ca_file must name the CA") && unknown.contains("serverTLSBootstrap"), "{unknown}");
        assert_eq!(said(Reason::HostNameMismatch), Reason::HostNameMismatch.hint());
    }

    #[test]
    fn where_a_proxy_makes_no_connection_it_is_the_proxy_that_is_to_be_mended() {
        let said = |reason| add_to_proxied(Failure::new(reason, "x")).hint().into_owned();
        for reason in [Reason::ConnectFailed, Reason::ConnectRefused, Reason::ConnectTimeout, Reason::NameResolution] {
            let failed = said(reason);
            assert!(failed.contains("no_proxy") && failed.contains("its address"), "{failed}");
            assert!(!failed.contains("pod") && !failed.contains("ENVOY_SECURE"), "{failed}");
        }
        assert_eq!(said(Reason::Timeout), Reason::Timeout.hint());
    }

    #[test]
    fn what_has_another_cause_keeps_its_hint() {
        for reason in [Reason::IdentityMismatch, Reason::ConnectRefused, Reason::HttpStatus, Reason::Timeout] {
            assert_eq!(hint(reason, "istio-http/1.1", "10.0.0.7:15091"), reason.hint());
            assert_eq!(hint(reason, "", "10.0.0.7:15091"), reason.hint());
        }
        assert_eq!(hint(Reason::TlsHandshake, "", "10.0.0.7:15091"), Reason::TlsHandshake.hint());
    }
}
