//! What holds for a directory of certificates, whatever lies there.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, UNIX_EPOCH};

use meshscrape::clock::Clock;
use meshscrape::config::CertificateFiles;
use meshscrape::identity::{IdentitySettings, inspect, load};
use tempfile::TempDir;

static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| TempDir::new().expect("a directory"));
static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::system);

/// Reads these three files as the agent and as `check certs` do; panics if they do not keep their promises.
pub fn check(chain: &[u8], key: &[u8], roots: &[u8]) {
    let files = CertificateFiles::in_dir(DIRECTORY.path());
    for (file, bytes) in [(&files.chain, chain), (&files.key, key), (&files.root, roots)] {
        fs::write(file, bytes).expect("the file is written");
    }
    let settings = IdentitySettings { files, trust_domain: None, aliases: Vec::new() };
    let (credentials, snapshot) = load(&settings, &CLOCK);
    let ready = credentials.ready(CLOCK.now());
    assert_eq!(ready.is_ok(), snapshot.not_ready.is_none());
    assert!(ready.is_ok() || !snapshot.problems.is_empty(), "who is not ready says why");
    assert!(ready.is_err() || !(snapshot.own.is_empty() || snapshot.roots.is_empty()), "{snapshot:?}");
    let seen = inspect(&settings.files, CLOCK.now());
    assert!(seen.key.is_err() || seen.chain.is_ok(), "a key belongs to a certificate");
    let facts = snapshot.own.iter().chain(&snapshot.roots);
    let said = facts.flat_map(|facts| facts.uris.iter().chain([&facts.subject, &facts.issuer]));
    for words in snapshot.problems.iter().chain(seen.key.as_ref().err()).chain(said) {
        assert!(!words.contains(char::is_control), "{words:?}");
    }
    let far = UNIX_EPOCH + Duration::from_secs(32_503_680_000);
    assert!(credentials.ready(far).is_err() || ready.is_ok(), "time makes nothing good");
}
