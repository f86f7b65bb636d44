//! How the one who answers is verified. The kind is fixed here, by the file, and by nothing else.
//!
//! There is no value that means "do not verify": a job that verifies SPIFFE IDs is [`JobSecurity::Spiffe`], everything
//! else over `https` verifies chain and host name, and what is not verified is plain `http` written in the job.

use std::path::{Path, PathBuf};

use crate::model::{Match, SpiffeId, TrustDomain};

/// How the targets of a job are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobSecurity {
    /// By SPIFFE ID, over `https` only; a target without a well-formed `__spiffe_id__` is never connected.
    Spiffe(SpiffeJob),
    /// By chain and host name over `https`; over `http` not at all.
    Ordinary(OrdinaryTls),
}

/// `tls_config.spiffe` of a scrape job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeJob {
    /// Our certificate and the roots that peers must chain to.
    pub files: CertificateFiles,
    /// The trust domain that the roots belong to; `None`: that of our own certificate at its first load.
    pub trust_domain: Option<TrustDomain>,
    /// Other names of the same trust domain: the same roots vouch for them.
    pub aliases: Vec<TrustDomain>,
    /// How much of the expected identity must agree.
    pub rule: Match,
}

/// The files of a mesh identity. Equal values are one identity, watched once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertificateFiles {
    /// The certificate chain, leaf first.
    pub chain: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
    /// The roots.
    pub root: PathBuf,
}

impl CertificateFiles {
    /// The files of a directory that Istio's agent writes (`OUTPUT_CERTS`).
    pub fn in_dir(dir: &Path) -> Self {
        Self { chain: dir.join("cert-chain.pem"), key: dir.join("key.pem"), root: dir.join("root-cert.pem") }
    }
}

/// TLS as usual: chain and host name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OrdinaryTls {
    /// The roots; `None`: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Our certificate, if the server wants one.
    pub identity: Option<ClientFiles>,
    /// The name that is checked and sent; `None`: the host of the address.
    pub server_name: Option<String>,
    /// The lowest version that is spoken; `None`: TLS 1.2.
    pub min_version: Option<TlsVersion>,
    /// The highest version that is spoken; `None`: TLS 1.3.
    pub max_version: Option<TlsVersion>,
}

/// A client certificate for ordinary TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientFiles {
    /// The certificate chain, leaf first.
    pub chain: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
}

/// A version of TLS; older ones are not spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    /// TLS 1.2
    Tls12,
    /// TLS 1.3
    Tls13,
}

/// `tls_config.spiffe` of a receiver: it has no target label, so the file names who may answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpiffeReceiver {
    /// Our certificate and the roots that the receiver must chain to.
    pub files: CertificateFiles,
    /// The trust domain that the roots belong to; `None`: that of our own certificate at its first load.
    pub trust_domain: Option<TrustDomain>,
    /// Other names of the same trust domain.
    pub aliases: Vec<TrustDomain>,
    /// Who may answer, exactly; never empty.
    pub server_ids: Vec<SpiffeId>,
}
