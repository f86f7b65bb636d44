//! Who is refused, and why.
//!
//! Every test of this file must fail when the verifier's answer is forced to "yes"; `forced` holds that.

use proptest::prelude::*;
use rcgen::{ExtendedKeyUsagePurpose, KeyUsagePurpose};
use rustls::pki_types::CertificateDer;

use super::*;
use crate::support::ca::refused_leaves;

#[test]
fn each_wrong_leaf_is_refused_with_its_reason() {
    let mesh = Mesh::new();
    let mut wrong = Vec::new();
    for (name, leaf, reason) in refused_leaves(&mesh.ca, CART) {
        for versions in VERSIONS {
            let outcome = shake(mesh.handshake(&exactly(CART)), &leaf.server(&[&mesh.ca], versions));
            let failure = outcome.as_ref().err().and_then(|error| failure_of(error));
            let seen = failure.map(|failure| (failure.reason, failure.expected));
            if seen != Some((reason, Some(CART.to_owned()))) {
                wrong.push(format!("[{name}] {outcome:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not refused as they should be:\n{}", wrong.join("\n"));
}

#[test]
fn a_mismatch_shows_both_identities() {
    let mesh = Mesh::new();
    let other = "spiffe://cluster.local/ns/shop/sa/impostor";
    let failure = refusal(mesh.handshake(&exactly(CART)), &mesh.ca.leaf(other).server(&[&mesh.ca], VERSIONS[1]));
    assert_eq!(failure.detail, format!("expected {CART}, but {other} answered"));
    assert_eq!(failure.presented.as_deref(), Some(other));
}

/// The mesh may have two names. That is no reason to look for an impostor, and none to believe one.
#[test]
fn the_same_path_in_another_trust_domain_may_be_another_name_of_the_mesh() {
    let mesh = Mesh::new();
    for (path, is_namesake) in [("/ns/shop/sa/cart", true), ("/ns/shop/sa/impostor", false)] {
        let server = mesh.ca.leaf(&format!("spiffe://other.example{path}")).server(&[&mesh.ca], VERSIONS[1]);
        let failure = refusal(mesh.handshake(&exactly(CART)), &server);
        assert_eq!(failure.reason, Reason::IdentityMismatch, "{failure}");
        let hint = failure.hint();
        assert_eq!(hint.contains("trust_domain_aliases"), is_namesake, "{hint}");
    }
}

#[test]
fn what_another_ca_says_is_refused_and_marked_unverified() {
    let mesh = Mesh::new();
    // One with our root's name, as all self-signed Istio roots of a trust domain have it, and one with another name.
    for name in ["cluster.local", "another mesh"] {
        for versions in VERSIONS {
            let server = Ca::new(name).leaf(CART).server(&[&mesh.ca], versions);
            let failure = refusal(mesh.handshake(&exactly(CART)), &server);
            assert_eq!(failure.reason, Reason::UnknownAuthority, "{failure}");
            assert_eq!(failure.presented.as_deref(), Some(&*format!("{CART} (unverified)")));
        }
    }
    // Its certificate being expired as well is not what matters.
    let spec = LeafSpec::of(CART).valid(-2 * HOUR, -HOUR);
    let server = Ca::new("cluster.local").issue(&spec).server(&[&mesh.ca], VERSIONS[1]);
    assert_eq!(refusal(mesh.handshake(&exactly(CART)), &server).reason, Reason::UnknownAuthority);
}

#[test]
fn a_root_that_the_peer_sends_is_not_trusted() {
    let mesh = Mesh::new();
    let stranger = Ca::new("cluster.local");
    let mut leaf = stranger.leaf(CART);
    leaf.chain.push(stranger.certificate().clone());
    let failure = refusal(mesh.handshake(&exactly(CART)), &leaf.server(&[&mesh.ca], VERSIONS[1]));
    assert_eq!(failure.reason, Reason::UnknownAuthority);
}

#[test]
fn an_expected_identity_without_roots_is_refused() {
    let mesh = Mesh::new();
    let foreign = "spiffe://partner.example/ns/shop/sa/cart";
    let server = mesh.ca.leaf(foreign).server(&[&mesh.ca], VERSIONS[1]);
    assert_eq!(refusal(mesh.handshake(&exactly(foreign)), &server).reason, Reason::UnknownAuthority);
}

#[test]
fn no_session_is_resumed_past_the_verifier() {
    for versions in VERSIONS {
        let mesh = Mesh::new();
        let server = mesh.ca.leaf(CART).server(&[&mesh.ca], versions);
        let handshake = mesh.handshake(&exactly(CART));
        shake_with(handshake.config(), handshake.server_name(), &server).expect("the right pod");
        mesh.clock.shift(HOUR * 1000 + 2000);
        let again = shake_with(handshake.config(), handshake.server_name(), &server).expect_err("expired since");
        assert_eq!(failure_of(&again).expect("a refusal").reason, Reason::CertificateExpired);
    }
}

#[test]
fn a_leaf_is_judged_by_our_clock() {
    let mesh = Mesh::new();
    let server = mesh.ca.leaf(CART).server(&[&mesh.ca], VERSIONS[1]);
    let early = mesh.handshake(&exactly(CART));
    mesh.clock.shift(HOUR * 1000 + 2000);
    assert_eq!(refusal(early, &server).reason, Reason::CertificateExpired);
}

#[test]
fn an_anchor_that_expires_later_vouches_for_nobody() {
    let (ca, clock) = (Ca::new("cluster.local"), Clock::system());
    let short = Ca::valid("cluster.local", -HOUR, HOUR / 2);
    let dir = TempDir::new().expect("a directory");
    CertsDir::at(dir.path()).write(&ca.leaf(OURS), &[&ca, &short]);
    let (credentials, _) = identity::load(&settings(dir.path()), &clock);
    let server = short.leaf(CART).server(&[&ca], VERSIONS[1]);
    let verified = shake(handshake(&credentials, &exactly(CART), &clock), &server).expect("still valid");
    clock.shift(HOUR / 2 * 1000 + 2000);
    let failure = refusal(handshake(&credentials, &exactly(CART), &clock), &server);
    assert_eq!(failure.reason, Reason::UnknownAuthority, "{failure}");
    assert!(credentials.still_good(&verified, clock.now()).is_err());
}

#[test]
fn a_leaf_with_any_byte_changed_is_refused() {
    let mesh = Mesh::new();
    let good = mesh.ca.leaf(CART);
    let der = good.chain[0].to_vec();
    let mut leaf = good;
    for at in 0..der.len() {
        let mut changed = der.clone();
        changed[at] ^= 1 << (at % 8);
        leaf.chain[0] = CertificateDer::from(changed);
        let outcome = shake(mesh.handshake(&exactly(CART)), &leaf.server(&[&mesh.ca], VERSIONS[1]));
        let error = outcome.expect_err("the signature covers every byte");
        assert!(failure_of(&error).is_some(), "byte {at}: {error:?} is no refusal of ours");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Our CA made the leaf, whatever is in it: it is accepted exactly if it keeps every rule.
    #[test]
    fn accepted_means_that_every_rule_is_kept(spec in any_leaf()) {
        let mesh = Mesh::new();
        let [names] = spec.names.as_slice() else { unreachable!("one extension") };
        let uris: Vec<_> = names.iter().filter_map(|name| match name { Name::Uri(uri) => Some(uri), _ => None }).collect();
        let decodable = names.iter().all(|name| match name {
            Name::Uri(bytes) => std::str::from_utf8(bytes).is_ok(),
            Name::Dns(_) | Name::Ip(_) => true,
        });
        let keeps_the_rules = decodable
            && matches!(uris[..], [uri] if uri == CART.as_bytes())
            && !spec.is_ca
            && spec.from <= 0
            && spec.until > 0
            && spec.key_usages.contains(&KeyUsagePurpose::DigitalSignature)
            && !spec.key_usages.contains(&KeyUsagePurpose::KeyCertSign)
            && !spec.key_usages.contains(&KeyUsagePurpose::CrlSign)
            && (spec.extended_key_usages.is_empty()
                || spec.extended_key_usages.contains(&ExtendedKeyUsagePurpose::ServerAuth));
        let outcome = shake(mesh.handshake(&exactly(CART)), &mesh.ca.issue(&spec).server(&[&mesh.ca], VERSIONS[1]));
        prop_assert_eq!(outcome.is_ok(), keeps_the_rules, "{:?}", outcome);
    }
}

/// Leaves that are right more often than not, and wrong in any combination of ways.
fn any_leaf() -> impl Strategy<Value = LeafSpec> {
    let name = prop_oneof![
        6 => Just(Name::uri(CART)),
        1 => "spiffe://cluster.local/ns/shop/sa/car[a-z]{0,2}".prop_map(|uri| Name::uri(&uri)),
        2 => Just(Name::dns("cart.shop.svc")),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Name::Uri),
    ];
    let usages = [
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    let key_usages = prop_oneof![
        3 => Just(usages[..2].to_vec()),
        1 => proptest::sample::subsequence(usages.to_vec(), 0..=4),
    ];
    let purposes = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    (
        prop_oneof![3 => Just(vec![Name::uri(CART)]), 2 => proptest::collection::vec(name, 0..4)],
        prop_oneof![4 => Just((-HOUR, HOUR)), 1 => Just((-2 * HOUR, -HOUR)), 1 => Just((HOUR, 2 * HOUR))],
        key_usages,
        proptest::sample::subsequence(purposes, 0..=2),
        proptest::bool::weighted(0.1),
    )
        .prop_map(|(names, (from, until), key_usages, extended_key_usages, is_ca)| LeafSpec {
            key_usages,
            extended_key_usages,
            is_ca,
            ..LeafSpec::named(names).valid(from, until)
        })
}
