//! A look at certificate files for a person: everything that can be said about them, whether or not it is in order.
//!
//! [`load`](super::load()) keeps what is good and says what is missing; this says what is there. The same readers and
//! checks stand behind both.

use std::time::SystemTime;

use super::certificate::{CertificateFacts, parse};
use super::credentials::OwnIdentity;
use super::files::{Certificates, Content, FileSet};
use super::loader::{certified_key, own_certificate_untrusted};
use super::roots::Roots;
use super::svid::{Role, Svid, spiffe_id};
use crate::config::CertificateFiles;
use crate::model::SpiffeId;

/// What certificate files hold. The texts are safe to show.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The certificates of the chain file in its order, or why there are none; one that cannot be read is its fault.
    pub chain: Result<Vec<Result<CertificateFacts, String>>, String>,
    /// The same of the root file.
    pub roots: Result<Vec<Result<CertificateFacts, String>>, String>,
    /// What is broken behind the last certificate of either file.
    pub broken: Vec<String>,
    /// The SPIFFE ID of the leaf, or why it has none; absent without a readable leaf.
    pub id: Option<Result<SpiffeId, String>>,
    /// Why peers may refuse the leaf for its form; absent if they may not, or if it has no ID at all.
    pub form: Option<String>,
    /// Whether the key belongs to the leaf.
    pub key: Result<(), String>,
    /// Whether the chain leads to a root that is valid now; absent where there is nothing to check.
    pub verified: Option<Result<(), String>>,
}

/// Reads the files once, at `now`.
pub fn inspect(files: &CertificateFiles, now: SystemTime) -> Inspection {
    let set = FileSet::read(files);
    let mut broken = Vec::new();
    let (chain, roots) = (certificates(&set.chain, &mut broken), certificates(&set.root, &mut broken));
    let facts = |file: &Result<Certificates, String>| match file {
        Ok(file) => Ok(file.list.iter().map(CertificateFacts::read).collect()),
        Err(fault) => Err(fault.clone()),
    };
    let leaf = chain.as_ref().ok().and_then(|chain| chain.list.first());
    let id = leaf.map(|leaf| parse(leaf).and_then(|leaf| spiffe_id(&leaf).map_err(|fault| fault.to_string())));
    let form = match (leaf, &id) {
        (Some(leaf), Some(Ok(_))) => Svid::read(leaf, Role::Server).err().map(|fault| fault.to_string()),
        _ => None,
    };
    let key = certified_key(&set.chain, &set.key);
    let verified = match (&key, &roots) {
        (Ok(key), Ok(roots)) => {
            let (roots, _) = Roots::choose(&roots.list, now);
            let own = OwnIdentity { key: key.clone().into(), id: None, chain: Vec::new() };
            Some(own_certificate_untrusted(&own, &roots, now).map_or(Ok(()), Err))
        }
        _ => None,
    };
    Inspection { chain: facts(&chain), roots: facts(&roots), broken, id, form, key: key.map(|_| ()), verified }
}

fn certificates(file: &Content, broken: &mut Vec<String>) -> Result<Certificates, String> {
    let read = file.certificates().map_err(|error| error.to_string())?;
    broken.extend(read.broken.iter().map(ToString::to_string));
    Ok(read)
}
