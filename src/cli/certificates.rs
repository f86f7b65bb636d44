//! Our certificates of a mesh, for commands that ask pods themselves.
//!
//! They are read and checked as an agent does it; a command that may outlive a rotation follows them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::Clock;
use crate::config::CertificateFiles;
use crate::connect::CredentialsFeed;
use crate::identity::{self, IdentitySettings};
use crate::model::{TrustDomain, clean_to};

/// How long it may take to read them again.
const PATIENCE: Duration = Duration::from_secs(5);
/// How much is shown of what is to be said of them.
const SHOWN_BYTES: usize = 1024;
/// Where the certificates are in the manifests: of Istio's agent, and as cert-manager's csi-driver-spiffe mounts them.
const USUAL_DIRS: [&str; 2] = ["/etc/istio-certs", "/var/run/secrets/spiffe.io"];
/// What is said of these where neither is there.
pub(super) const NOWHERE: &str = "neither /etc/istio-certs nor /var/run/secrets/spiffe.io is there";

/// What is said where neither our certificate nor anybody else names a trust domain.
pub(super) const NO_TRUST_DOMAIN: &str =
    "our certificate carries no SPIFFE ID, so the trust domain of the pods is not known: give --trust-domain";

/// Our certificates, and in what trust domain they are used.
pub(super) struct Ours {
    pub(super) files: CertificateFiles,
    pub(super) credentials: CredentialsFeed,
    /// The one that was asked for, else that of our own certificate.
    pub(super) trust_domain: Option<TrustDomain>,
    /// What is to be said of the files, though they can be used, in sentences that are safe to show.
    pub(super) remarks: Vec<String>,
}

/// For as long as it lives the certificates are followed.
pub(super) struct Following {
    _stop: DropGuard,
}

impl Ours {
    /// Reads the certificates in `dir`; `aliases` are other names of the trust domain. As in an agent, what can be used is used,
    /// whatever else is to be said of it. The error is a sentence.
    pub(super) fn load(
        dir: &Path,
        trust_domain: Option<TrustDomain>,
        aliases: Vec<TrustDomain>,
    ) -> Result<Self, String> {
        let files = files_in(dir);
        let settings = IdentitySettings { files: files.clone(), trust_domain, aliases };
        let (credentials, snapshot) = identity::load(&settings, &Clock::system());
        let mut remarks = snapshot.problems.iter().map(|problem| clean_to(problem, SHOWN_BYTES).into_owned());
        if let Some(failure) = snapshot.not_ready {
            let problem = remarks.next().unwrap_or(failure.detail);
            return Err(format!("{problem}; run `meshscrape check certs {}`", dir.display()));
        }
        let remarks = remarks.collect();
        let trust_domain = credentials.trust_domain().cloned();
        Ok(Self { files, credentials: watch::channel(credentials).1, trust_domain, remarks })
    }

    /// The same certificates, from now on as they rotate.
    pub(super) async fn followed(mut self) -> (Self, Following) {
        let aliases = self.credentials.borrow().aliases().to_vec();
        let settings = IdentitySettings { files: self.files.clone(), trust_domain: self.trust_domain.clone(), aliases };
        let (clock, stop) = (Clock::system(), CancellationToken::new());
        let mut feed = identity::watch(settings, &clock, stop.clone()).credentials();
        let read = feed.wait_for(|credentials| credentials.ready(clock.now()).is_ok());
        let is_read = matches!(timeout(PATIENCE, read).await, Ok(Ok(_)));
        // They were good a moment ago. If they are not any more, what was read then counts, as it does in an agent.
        if is_read {
            self.credentials = feed;
        }
        (self, Following { _stop: stop.drop_guard() })
    }
}

/// Where our certificates are: where somebody says, or where the manifests put them.
pub(super) fn dir(named: Option<&Path>) -> Option<PathBuf> {
    named.or_else(|| first(&USUAL_DIRS.map(Path::new))).map(Path::to_owned)
}

/// The first of these directories that has certificates; where none has, the first that is there.
fn first<'d>(dirs: &[&'d Path]) -> Option<&'d Path> {
    let is_filled = |dir: &&&Path| is_there(&files_in(dir));
    dirs.iter().find(is_filled).or_else(|| dirs.iter().find(|dir| dir.is_dir())).copied()
}

/// The files in a directory, by the names that they have there: those of Istio's agent, or, if nothing has one of these,
/// those that cert-manager's csi-driver-spiffe mounts.
pub(super) fn files_in(dir: &Path) -> CertificateFiles {
    let istio = CertificateFiles::in_dir(dir);
    let mounted = CertificateFiles { chain: dir.join("tls.crt"), key: dir.join("tls.key"), root: dir.join("ca.crt") };
    if is_there(&mounted) && !is_there(&istio) { mounted } else { istio }
}

/// Whether any of the files is.
fn is_there(files: &CertificateFiles) -> bool {
    [&files.chain, &files.key, &files.root].iter().any(|file| file.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_directory_does_not_hide_one_with_certificates() {
        let both = tempfile::TempDir::new().expect("a directory");
        let [istio, mounted] = ["istio", "mounted"].map(|name| both.path().join(name));
        let found = || first(&[&istio, &mounted]).map(Path::to_owned);
        assert_eq!(found(), None);
        std::fs::create_dir(&mounted).expect("created");
        assert_eq!(found().as_ref(), Some(&mounted));
        std::fs::create_dir(&istio).expect("created");
        assert_eq!(found().as_ref(), Some(&istio), "neither has any");
        std::fs::write(mounted.join("ca.crt"), "").expect("written");
        assert_eq!(found().as_ref(), Some(&mounted), "one that is not complete is the one that is meant");
        std::fs::write(istio.join("key.pem"), "").expect("written");
        assert_eq!(found().as_ref(), Some(&istio));
    }
}
