//! SPIFFE IDs: what is taken for one is spelled in one way only, and comes back as it was.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use meshscrape::model::{Acceptance, Match, Peer, SpiffeId, TrustDomain};

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    match SpiffeId::parse(text) {
        Ok(id) => {
            assert!(is_spiffe_id(text), "{text:?}");
            holds(&id, text);
        }
        Err(refused) => assert!(!is_spiffe_id(text) && !refused.to_string().is_empty(), "{text:?}"),
    }
    Corpus::Keep
});

fn holds(id: &SpiffeId, text: &str) {
    assert_eq!(id.to_string(), text);
    assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
    assert_eq!(TrustDomain::parse(id.trust_domain().as_str()).as_ref(), Ok(id.trust_domain()));
    if let Some(namespace) = id.namespace() {
        let account = id.path().rsplit('/').next().expect("a path has segments");
        assert_eq!(SpiffeId::of_service_account(id.trust_domain(), namespace, account).as_ref(), Ok(id));
    }
    let peer = Peer::exactly(id.clone());
    assert_eq!(peer.judge(id), Acceptance::Exact);
    let domain = TrustDomain::parse("elsewhere.example").expect("a trust domain");
    if *id.trust_domain() != domain && text.len() < 1024 {
        let other = id.in_domain(&domain);
        assert_eq!(SpiffeId::parse(other.as_str()).as_ref(), Ok(&other));
        assert_eq!(peer.judge(&other), Acceptance::Refused);
        let both = Peer::with_aliases(id.clone(), &[domain], Match::Exact);
        assert_eq!(both.judge(&other), Acceptance::Exact);
    }
}

/// The grammar of the specification, once more and in other words.
fn is_spiffe_id(text: &str) -> bool {
    let Some((domain, path)) = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else {
        return false;
    };
    let only = |text: &str, allowed: fn(&u8) -> bool| text.bytes().all(|byte| allowed(&byte) || b"._-".contains(&byte));
    text.len() <= 2048
        && (1..=255).contains(&domain.len())
        && only(domain, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && only(&path.replace('/', ""), u8::is_ascii_alphanumeric)
        && format!("/{path}/").split('/').skip(1).all(|segment| !matches!(segment, "." | ".."))
        && !format!("/{path}/").contains("//")
}
