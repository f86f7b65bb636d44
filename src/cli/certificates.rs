//! Our certificates of a mesh, for commands that ask pods themselves.
//!
//! They are read once and checked as an agent checks them; a command does not outlive a rotation.

use std::path::{Path, PathBuf};

use tokio::sync::watch;

use crate::clock::Clock;
use crate::config::CertificateFiles;
use crate::connect::CredentialsFeed;
use crate::identity::{self, IdentitySettings};
use crate::model::TrustDomain;

/// Where the certificates are in the manifests, used if it is there.
pub(super) const DEFAULT_CERTS_DIR: &str = "/etc/istio-certs";

/// What is said where neither our certificate nor anybody else names a trust domain.
pub(super) const NO_TRUST_DOMAIN: &str =
    "our certificate carries no SPIFFE ID, so the trust domain of the pods is not known: give --trust-domain";

/// Our certificates, and in what trust domain they are used.
pub(super) struct Ours {
    pub(super) files: CertificateFiles,
    pub(super) credentials: CredentialsFeed,
    /// The one that was asked for, else that of our own certificate.
    pub(super) trust_domain: Option<TrustDomain>,
}

impl Ours {
    /// Reads the certificates in `dir`; `aliases` are other names of the trust domain. The error is a sentence.
    pub(super) fn load(
        dir: &Path,
        trust_domain: Option<TrustDomain>,
        aliases: Vec<TrustDomain>,
    ) -> Result<Self, String> {
        let files = CertificateFiles::in_dir(dir);
        let settings = IdentitySettings { files: files.clone(), trust_domain, aliases };
        let (credentials, snapshot) = identity::load(&settings, &Clock::system());
        if let Some(problem) = snapshot.problems.first() {
            return Err(format!("{problem}; run `meshscrape check certs {}`", dir.display()));
        }
        let trust_domain = credentials.trust_domain().cloned();
        Ok(Self { files, credentials: watch::channel(credentials).1, trust_domain })
    }
}

/// Where our certificates are: where somebody says, or where the manifests put them.
pub(super) fn dir(named: Option<&Path>) -> Option<PathBuf> {
    named.map(Path::to_owned).or_else(|| Some(PathBuf::from(DEFAULT_CERTS_DIR)).filter(|dir| dir.is_dir()))
}
