//! TLS, and who answers.

use meshscrape::model::Reason;

use super::stage::{Mend, Row, Stage};
use crate::support::ca::{HOUR, LeafSpec, Name};
use crate::support::envoy::ListenerSpec;
use crate::support::mesh::CART;

pub(super) fn rows(stage: &mut Stage) -> Vec<Row> {
    let mut rows = unknown(stage);
    rows.extend(handshakes(stage));
    rows.extend(certificates(stage));
    rows
}

/// Nobody is asked, because it is not known who may answer, or as whom we ask.
fn unknown(stage: &mut Stage) -> Vec<Row> {
    let well = stage.job(stage.well);
    let twin = stage.pod("twin", &stage.cart());
    let (not_yet, nameless) = (stage.directory("not-yet"), stage.directory("nameless"));
    let expected = format!("{{certs_dir: '{}', spiffe: {{trust_domain: cluster.local}}}}", not_yet.path().display());
    nameless.write(&stage.ca.issue(&LeafSpec::named(vec![Name::dns("scraper.invalid")])), &[&stage.ca]);
    let own = |domain: &str| format!("{{certs_dir: '{}', spiffe: {{{domain}}}}}", nameless.path().display());
    let of_account =
        well.clone().unlabelled("__spiffe_id__").labelled("__meta_kubernetes_pod_service_account_name", "cart");
    let copied = "[{source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scheme], target_label: __scheme__}]";
    let annotated = well.clone().labelled("__meta_kubernetes_pod_annotation_prometheus_io_scheme", "http");
    vec![
        Row {
            reason: Reason::NoOwnCertificate,
            job: well.clone().with("tls_config", expected),
            asks: "the proxy writes the files only once its own certificate has been issued",
            mend: Mend::OurCertificate(not_yet),
        },
        Row::rewritten(
            Reason::IdentityUnknown,
            of_account.clone().with("tls_config", own("")),
            "set tls_config.spiffe.trust_domain",
            of_account.with("tls_config", own("trust_domain: cluster.local")),
        ),
        Row::rewritten(
            Reason::NoExpectedIdentity,
            well.clone().unlabelled("__spiffe_id__"),
            "give the target a __spiffe_id__ label",
            well.clone(),
        ),
        Row::rewritten(
            Reason::AmbiguousTarget,
            well.clone().and(twin),
            "give the two targets different labels, instance for example",
            well.clone().and(twin).labelled("instance", "twin"),
        ),
        Row::rewritten(
            Reason::PlaintextRefused,
            annotated.clone().with("relabel_configs", copied),
            "remove the rule that copies prometheus.io/scheme to __scheme__",
            annotated,
        ),
    ]
}

/// The handshake does not come to a certificate, or ends after it.
fn handshakes(stage: &mut Stage) -> Vec<Row> {
    let (cart, well) = (stage.cart(), stage.job(stage.well));
    let stats = |name: &str, stage: &Stage| ListenerSpec::stats(name, &cart, &[&stage.ca]);
    let plain = stage.listens(ListenerSpec::plain_stats("plaintext_server", &cart));
    let old = stage.replaced(stats("tls_handshake", stage).of_old_tls(), stats("tls_handshake", stage));
    let off = stage.later(stats("off", stage));
    let hop = stage.listens(ListenerSpec::permissive("closed_in_handshake", &cart, off));
    let captured = stage.replaced(
        ListenerSpec::capture("closed_after_handshake", &cart, &[&stage.ca], stage.well),
        stats("closed_after_handshake", stage),
    );
    let refusing = stage.rotating(Reason::ClientCertificateRejected, &cart, false);
    let row = |reason, address, asks, mend| Row { reason, job: stage.job(address), asks, mend };
    vec![
        Row::rewritten(Reason::PlaintextServer, well.clone().at(plain), "the secure ports are 15092 and 15091", well),
        row(Reason::TlsHandshake, old, "let it offer TLS 1.2 or 1.3", Mend::Anew),
        row(Reason::ClosedInHandshake, hop, "a secure port that is off", Mend::Anew),
        row(
            Reason::ClosedAfterHandshake,
            captured,
            "in the pod template, add 15091 and 15092 to traffic.sidecar.istio.io/excludeInboundPorts",
            Mend::Anew,
        ),
        row(
            Reason::ClientCertificateRejected,
            refusing,
            "our certificate does not chain to the peer's trust bundle",
            Mend::Roots,
        ),
    ]
}

/// The certificate is not that of who must answer.
fn certificates(stage: &mut Stage) -> Vec<Row> {
    let issue = |stage: &Stage, spec: LeafSpec| stage.ca.issue(&spec);
    let two = LeafSpec::named(vec![Name::uri(CART), Name::uri("spiffe://cluster.local/ns/shop/sa/x")]);
    let leaves = [
        (
            Reason::IdentityMismatch,
            stage.ca.leaf("spiffe://cluster.local/ns/shop/sa/till"),
            "the pod was replaced, its service account changed",
        ),
        (
            Reason::CertificateExpired,
            issue(stage, LeafSpec::of(CART).valid(-2 * HOUR, -HOUR)),
            "the peer's proxy no longer gets certificates",
        ),
        (
            Reason::CertificateNotYetValid,
            issue(stage, LeafSpec::of(CART).valid(HOUR, 2 * HOUR)),
            "one of the two clocks is wrong",
        ),
        (
            Reason::NoSpiffeId,
            issue(stage, LeafSpec::named(vec![Name::dns("cart.shop.svc")])),
            "this is not a mesh certificate",
        ),
        (Reason::InvalidSvid, issue(stage, two), "have the issuer make certificates of exactly one SPIFFE ID"),
    ];
    let mut rows = Vec::new();
    for (reason, leaf, asks) in leaves {
        let address = stage.rotating(reason, &leaf, true);
        rows.push(Row { reason, job: stage.job(address), asks, mend: Mend::Certificate(stage.cart()) });
    }
    let foreign = stage.pod("unknown_authority", &stage.other.leaf(CART));
    let behind = stage.own_certs("behind-a-rotation");
    rows.push(Row {
        reason: Reason::UnknownAuthority,
        job: super::job::Job::of_mesh(behind.path(), foreign),
        asks: "root-cert.pem lags behind a root rotation",
        mend: Mend::OurRoots(behind),
    });
    let (well, certs) = (stage.job(stage.well), stage.certs.path().display().to_string());
    let root = stage.path().join("root-alone.pem");
    std::fs::write(&root, stage.ca.pem()).expect("a file");
    let ordinary =
        format!("{{ca_file: '{}', cert_file: '{certs}/cert-chain.pem', key_file: '{certs}/key.pem'}}", root.display());
    rows.push(Row::rewritten(
        Reason::HostNameMismatch,
        well.clone().unlabelled("__spiffe_id__").with("tls_config", ordinary),
        "give the job tls_config.spiffe",
        well,
    ));
    rows
}
