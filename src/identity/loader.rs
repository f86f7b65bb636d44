//! What becomes of files that were read: which part of them is good enough to be published.
//!
//! The rules, each of which keeps out one way to lose trust or to lose service:
//!
//! - own chain and key count only if they belong together and are valid now; else the last good ones stay;
//! - our own ID and trust domain are fixed by the first certificate; one that says otherwise is refused and shown;
//! - a root file with at least one valid CA replaces the roots at once, whatever our own certificate is worth then; that
//!   our chain no longer leads to them is shown and changes nothing;
//! - certificates are compared, not bytes: a file written anew with the same content is no change.
//!
//! No I/O and no waiting: [`watch`](super::watch()) brings the files and decides when.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::UnixTime;
use rustls::sign::CertifiedKey;
use webpki::{EndEntityCert, KeyUsage};

use super::certificate::{CertificateFacts, Fingerprint, parse, utc};
use super::credentials::{Credentials, OwnIdentity};
use super::files::{Content, FileSet, Mark};
use super::history::{History, Outcome, Reload};
use super::roots::Roots;
use super::svid::{SvidFault, spiffe_id};
use super::verify::crypto_provider;
use crate::config::{CertificateFiles, SpiffeJob, SpiffeReceiver};
use crate::model::{Failure, SpiffeId, TrustDomain};

/// Whose certificates, and for whom their roots vouch. Equal settings are one identity, watched once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdentitySettings {
    /// The files.
    pub files: CertificateFiles,
    /// The trust domain of the roots; `None`: that of our own certificate at its first load.
    pub trust_domain: Option<TrustDomain>,
    /// Other names of the same trust domain.
    pub aliases: Vec<TrustDomain>,
}

impl From<&SpiffeJob> for IdentitySettings {
    fn from(job: &SpiffeJob) -> Self {
        Self { files: job.files.clone(), trust_domain: job.trust_domain.clone(), aliases: job.aliases.clone() }
    }
}

impl From<&SpiffeReceiver> for IdentitySettings {
    fn from(receiver: &SpiffeReceiver) -> Self {
        Self {
            files: receiver.files.clone(),
            trust_domain: receiver.trust_domain.clone(),
            aliases: receiver.aliases.clone(),
        }
    }
}

/// The state of an identity, for people.
#[derive(Clone, Debug)]
pub struct IdentitySnapshot {
    /// Where it is read from.
    pub files: CertificateFiles,
    /// The generation of the published credentials.
    pub generation: u64,
    /// When that generation was published.
    pub changed_at: Option<SystemTime>,
    /// Our SPIFFE ID.
    pub id: Option<SpiffeId>,
    /// The trust domain for which the roots vouch.
    pub trust_domain: Option<TrustDomain>,
    /// Our certificates, leaf first; empty before the first load.
    pub own: Vec<CertificateFacts>,
    /// Why our own chain does not lead to the roots, if it does not: peers with the same roots refuse us then.
    pub own_certificate_untrusted: Option<String>,
    /// The roots.
    pub roots: Vec<CertificateFacts>,
    /// Why no handshake can be tried now.
    pub not_ready: Option<Failure>,
    /// What is wrong with the files as they are now, in sentences; what is good in them, or was last, is in use.
    pub problems: Vec<String>,
    /// How many times what was read has changed the credentials.
    pub changes: u64,
    /// How many times what was read was refused, in whole or in part.
    pub refusals: u64,
    /// What became of the last changes of the files, newest first.
    pub history: Vec<Reload>,
}

/// The certificate chain and key of two files, if they belong together. The error is a sentence.
pub(super) fn certified_key(chain: &Content, key: &Content) -> Result<CertifiedKey, String> {
    let certificates = chain.certificates().map_err(|error| error.to_string())?;
    if let Some(broken) = certificates.broken {
        return Err(broken.to_string());
    }
    let key = key.private_key().map_err(|error| error.to_string())?;
    let key = crypto_provider()
        .key_provider
        .load_private_key(key)
        .map_err(|error| format!("the private key cannot be used: {error}"))?;
    let certified = CertifiedKey::new(certificates.list, key);
    match certified.keys_match() {
        Ok(()) => Ok(certified),
        Err(rustls::Error::InconsistentKeys(_)) => Err("the private key does not belong to the certificate".to_owned()),
        Err(error) => Err(format!("the certificate cannot be used: {error}")),
    }
}

/// Why the chain of `own` does not lead to `roots` at `now`.
pub(super) fn own_certificate_untrusted(own: &OwnIdentity, roots: &Roots, now: SystemTime) -> Option<String> {
    let anchors = roots.valid_at(now);
    let time = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let (leaf, intermediates) = own.key.cert.split_first()?;
    let algorithms = crypto_provider().signature_verification_algorithms.all;
    let verified = EndEntityCert::try_from(leaf).and_then(|leaf| {
        leaf.verify_for_usage(algorithms, &anchors, intermediates, time, KeyUsage::client_auth(), None, None)
            .map(|_| ())
    });
    verified.err().map(|error| format!("our own certificate does not chain to the roots: {error}"))
}

/// What reading the files came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// There are new credentials to publish.
    pub(super) changed: bool,
    /// The files have been read for the first time, which is to be published as well.
    pub(super) first: bool,
    /// A file looks half written: it is worth reading again soon.
    pub(super) again_soon: bool,
}

/// Remembers what was good.
#[derive(Debug)]
pub(super) struct Loader {
    settings: IdentitySettings,
    published: Arc<Credentials>,
    changed_at: Option<SystemTime>,
    /// Fixed by the first certificate of our own.
    first_id: Option<Option<SpiffeId>>,
    marks: Option<[Mark; 3]>,
    own_problem: Option<String>,
    root_problem: Option<String>,
    notes: Vec<String>,
    changes: u64,
    refusals: u64,
    history: History,
}

impl Loader {
    pub(super) fn new(settings: IdentitySettings) -> Self {
        let published = Credentials {
            trust_domain: settings.trust_domain.clone(),
            aliases: settings.aliases.clone().into(),
            ..Credentials::default()
        };
        Self {
            settings,
            published: Arc::new(published),
            changed_at: None,
            first_id: None,
            marks: None,
            own_problem: None,
            root_problem: None,
            notes: Vec::new(),
            changes: 0,
            refusals: 0,
            history: History::default(),
        }
    }

    pub(super) fn credentials(&self) -> Arc<Credentials> {
        Arc::clone(&self.published)
    }

    /// What is wrong with the files as they are.
    pub(super) fn problems(&self) -> impl Iterator<Item = &String> {
        self.own_problem.iter().chain(&self.root_problem).chain(&self.notes)
    }

    /// Judges what was read at `now`.
    pub(super) fn take(&mut self, files: &FileSet, now: SystemTime) -> Step {
        let marks = [files.chain.mark(), files.key.mark(), files.root.mark()];
        let same_bytes = self.marks.as_ref() == Some(&marks);
        let same_root = self.marks.as_ref().is_some_and(|old| old[2] == marks[2]);
        if same_bytes && self.own_problem.is_none() && self.root_problem.is_none() {
            return Step::default();
        }
        self.marks = Some(marks);
        let first = !self.published.read;
        let mut next = Credentials { read: true, ..Credentials::clone(&self.published) };
        self.notes.clear();

        self.own_problem = self.take_own(files, now, &mut next).err();
        self.root_problem = self.take_roots(files, same_root, now, &mut next).err();
        let refused = self.own_problem.is_some() || self.root_problem.is_some();
        if refused && !same_bytes {
            self.refusals += 1;
            let why = self.own_problem.iter().chain(&self.root_problem).cloned().collect::<Vec<_>>().join("; ");
            self.history.refused(now, why);
        }

        let changed = differs(&next, &self.published);
        if changed {
            next.generation += 1;
            let outcome = Outcome::Taken {
                generation: next.generation,
                own: leafs(&next) != leafs(&self.published),
                roots: next.roots != self.published.roots,
            };
            self.history.taken(now, outcome);
            self.changes += 1;
            self.changed_at = Some(now);
        }
        if changed || first {
            self.published = Arc::new(next);
        }
        Step { changed, first, again_soon: refused && !same_bytes }
    }

    /// The state at `now`, for people.
    pub(super) fn snapshot(&self, now: SystemTime) -> IdentitySnapshot {
        let credentials = &self.published;
        let own = credentials.own();
        IdentitySnapshot {
            files: self.settings.files.clone(),
            generation: credentials.generation,
            changed_at: self.changed_at,
            id: own.and_then(|own| own.id.clone()),
            trust_domain: credentials.trust_domain.clone(),
            own: own.map(|own| own.chain.clone()).unwrap_or_default(),
            own_certificate_untrusted: own.and_then(|own| own_certificate_untrusted(own, &credentials.roots, now)),
            roots: credentials.roots.certificates().cloned().collect(),
            not_ready: credentials.ready(now).err(),
            problems: self.problems().cloned().collect(),
            changes: self.changes,
            refusals: self.refusals,
            history: self.history.events().cloned().collect(),
        }
    }

    fn take_own(&mut self, files: &FileSet, now: SystemTime, next: &mut Credentials) -> Result<(), String> {
        let key = certified_key(&files.chain, &files.key)?;
        let chain = key.cert.iter().map(CertificateFacts::read).collect::<Result<Vec<_>, _>>()?;
        let leaf = &chain[0];
        if !leaf.is_valid_at(now) {
            let (from, until) = (utc(leaf.not_before), utc(leaf.not_after));
            return Err(format!("our own certificate is valid from {from} to {until}, not now"));
        }
        let id = match spiffe_id(&parse(&key.cert[0])?) {
            Ok(id) => Some(id),
            Err(SvidFault::NoUri(_)) => None,
            Err(SvidFault::Form(fault)) => {
                self.notes
                    .push(format!("our own certificate is not in the form of an SVID, peers may refuse it: {fault}"));
                None
            }
        };
        if next.trust_domain.is_none() {
            let domain = id.as_ref().map(|id| id.trust_domain().clone());
            next.trust_domain = Some(domain.ok_or(
                "our own certificate carries no SPIFFE ID, so it names no trust domain: set tls_config.spiffe.trust_domain",
            )?);
        }
        match &self.first_id {
            Some(first) if *first != id => {
                let name = |id: &Option<SpiffeId>| id.as_ref().map_or("no SPIFFE ID".to_owned(), SpiffeId::to_string);
                return Err(format!(
                    "our own certificate now carries {}, at first it was {}: restart to accept that",
                    name(&id),
                    name(first)
                ));
            }
            Some(_) => {}
            None => self.first_id = Some(id.clone()),
        }
        next.own = Some(Arc::new(OwnIdentity { key: Arc::new(key), id, chain }));
        Ok(())
    }

    fn take_roots(
        &mut self,
        files: &FileSet,
        same_bytes: bool,
        now: SystemTime,
        next: &mut Credentials,
    ) -> Result<(), String> {
        let certificates = files.root.certificates().map_err(|error| error.to_string())?;
        if let Some(broken) = certificates.broken {
            // Somebody may be writing it. If it stays so, what can be read of it counts.
            if !same_bytes {
                return Err(broken.to_string());
            }
            self.notes.push(broken.to_string());
        }
        let (roots, left_out) = Roots::choose(&certificates.list, now);
        let path = self.settings.files.root.display();
        if !roots.any_valid_at(now) {
            let why = left_out.first().map_or_else(|| "none is valid yet".to_owned(), Clone::clone);
            return Err(format!("{path} holds no root that is valid now: {why}"));
        }
        self.notes.extend(left_out.into_iter().map(|fault| format!("{path}: {fault}")));
        next.roots = Arc::new(roots);
        Ok(())
    }
}

/// Whether connections made with one can be kept under the other.
fn differs(next: &Credentials, published: &Credentials) -> bool {
    leafs(next) != leafs(published) || next.roots != published.roots || next.trust_domain != published.trust_domain
}

/// What tells our own certificates from others.
fn leafs(credentials: &Credentials) -> Vec<Fingerprint> {
    credentials.own().into_iter().flat_map(|own| own.chain.iter().map(|facts| facts.fingerprint)).collect()
}
