//! The form of an X.509-SVID: what a peer's leaf must look like before its identity is read at all.
//!
//! The library that verifies chains ignores key usage on leaves and skips names that it cannot decode, so a leaf with a
//! good URI and an undecodable one looks to it like a leaf with one URI. Here everything that SPIFFE's X509-SVID
//! specification asks of a leaf (sections 2, 4.3, 4.4 and 5.2) is required, and what cannot be read is refused.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::extensions::{GeneralName, SubjectAlternativeName};
use x509_parser::oid_registry::OID_X509_EXT_SUBJECT_ALT_NAME;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::certificate::{parse, system_time};
use crate::model::{SpiffeId, clean};

/// The longest URI that is looked at, in bytes (SPIFFE ID specification, section 2.3).
const MAX_URI_BYTES: usize = 2048;

/// Why a certificate is no SVID.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum SvidFault {
    /// It carries no URI: it belongs to no workload of any mesh.
    #[error("{0}")]
    NoUri(String),
    /// It is in a form that SPIFFE forbids, or that cannot be read.
    #[error("{0}")]
    Form(String),
}

/// What a peer is in the connection, which its certificate must allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It answers.
    Server,
    /// It asks.
    Client,
}

/// A leaf in the right form, and what it claims. The claim is worth nothing before the chain is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Svid {
    /// The one SPIFFE ID.
    pub(super) id: SpiffeId,
    /// From when the leaf is valid.
    pub(super) not_before: SystemTime,
    /// Until when.
    pub(super) not_after: SystemTime,
}

impl Svid {
    /// Reads the leaf of a peer in this role.
    pub(super) fn read(leaf: &CertificateDer<'_>, role: Role) -> Result<Self, SvidFault> {
        let certificate = parse(leaf).map_err(|error| invalid(format!("it cannot be read: {error}")))?;
        // Two extensions of one kind: which of them a reader believes is anybody's guess.
        certificate.extensions_map().map_err(|error| invalid(error.to_string()))?;
        let id = spiffe_id(&certificate)?;
        check_usage(&certificate, role)?;
        let validity = certificate.validity();
        Ok(Self { id, not_before: system_time(validity.not_before), not_after: system_time(validity.not_after) })
    }
}

/// The one SPIFFE ID among the names of a certificate.
pub(super) fn spiffe_id(certificate: &X509Certificate<'_>) -> Result<SpiffeId, SvidFault> {
    let san = certificate
        .get_extension_unique(&OID_X509_EXT_SUBJECT_ALT_NAME)
        .map_err(|_| invalid("it has more than one subject alternative name extension"))?
        .ok_or_else(|| nobody("it has no subject alternative names"))?;
    let names = match SubjectAlternativeName::from_der(san.value) {
        Ok(([], names)) => names.general_names,
        Ok(_) | Err(_) => return Err(invalid("its subject alternative names cannot be read")),
    };
    let mut uris = Vec::new();
    for name in &names {
        match name {
            GeneralName::URI(uri) => uris.push(*uri),
            GeneralName::Invalid(tag, _) => {
                let kind = if tag.0 == 6 { "a URI" } else { "a name" };
                return Err(invalid(format!("{kind} among its subject alternative names cannot be decoded")));
            }
            _ => {}
        }
    }
    match uris[..] {
        [] => Err(nobody(format!("its {} subject alternative name(s) are no URIs", names.len()))),
        [uri] if uri.len() > MAX_URI_BYTES => {
            Err(invalid(format!("its URI has {} bytes, at most {MAX_URI_BYTES} are allowed", uri.len())))
        }
        [uri] => SpiffeId::parse(uri)
            .map_err(|error| invalid(format!("its URI {:?} is not a SPIFFE ID: {error}", clean(uri)))),
        _ => Err(invalid(format!("it has {} URIs, a SPIFFE certificate has exactly one", uris.len()))),
    }
}

fn check_usage(certificate: &X509Certificate<'_>, role: Role) -> Result<(), SvidFault> {
    // A basic constraints extension that is there and cannot be read must not count as "not a CA".
    match certificate.basic_constraints() {
        Ok(Some(constraints)) if constraints.value.ca => return Err(invalid("it is a CA certificate")),
        Ok(Some(_)) => {}
        Ok(None) if !has_extension(certificate, x509_parser::oid_registry::OID_X509_EXT_BASIC_CONSTRAINTS) => {}
        Ok(None) | Err(_) => return Err(invalid("its basic constraints cannot be read")),
    }
    let usage = certificate
        .key_usage()
        .map_err(|_| invalid("its key usage cannot be read"))?
        .ok_or_else(|| invalid("it has no key usage, digitalSignature is required"))?
        .value;
    if !usage.digital_signature() {
        return Err(invalid("its key usage lacks digitalSignature"));
    }
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(invalid("its key usage allows it to sign certificates or revocation lists"));
    }
    let extended = certificate.extended_key_usage().map_err(|_| invalid("its extended key usage cannot be read"))?;
    match (extended, role) {
        (Some(extended), Role::Server) if !extended.value.server_auth => {
            Err(invalid("its extended key usage lacks serverAuth"))
        }
        (Some(extended), Role::Client) if !extended.value.client_auth => {
            Err(invalid("its extended key usage lacks clientAuth"))
        }
        _ => Ok(()),
    }
}

fn has_extension(certificate: &X509Certificate<'_>, oid: x509_parser::der_parser::Oid<'_>) -> bool {
    certificate.extensions().iter().any(|extension| extension.oid == oid)
}

fn invalid(fault: impl Into<String>) -> SvidFault {
    SvidFault::Form(fault.into())
}

fn nobody(fault: impl Into<String>) -> SvidFault {
    SvidFault::NoUri(fault.into())
}
