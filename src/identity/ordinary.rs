//! TLS as usual, for receivers and for jobs that do not verify SPIFFE IDs: chain and host name, by rustls' own verifier.
//!
//! Here too nothing ever skips verification, and sessions are not resumed. The files are read when a configuration is
//! made; whoever holds it makes a new one when they may have changed.

use std::sync::Arc;

use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};
use rustls_platform_verifier::Verifier as PlatformVerifier;

use super::files::{Content, FileError};
use super::loader::certified_key;
use super::verify::{Now, crypto_provider};
use crate::clock::Clock;
use crate::config::{OrdinaryTls, TlsVersion};
use crate::model::{Failure, Reason};

const OWN_FILES: &str = "see to cert_file and key_file of tls_config: both must be there, readable by this process, in PEM form, and \
                         belong together";

/// A configuration without ALPN; the caller sets it. The host name is that of `settings.server_name` or of the address,
/// and is the caller's to pass to rustls. Reads files: not for an async thread where the file system may be slow.
///
/// Unusable roots are `unknown_authority`, an unusable certificate of our own is `no_own_certificate`.
pub fn ordinary_tls_config(settings: &OrdinaryTls, clock: &Clock) -> Result<ClientConfig, Failure> {
    let provider = crypto_provider();
    let builder = ClientConfig::builder_with_details(Arc::clone(&provider), Arc::new(Now(clock.clone())))
        .with_protocol_versions(&versions(settings))
        .map_err(|error| Failure::new(Reason::TlsHandshake, format!("TLS cannot be set up: {error}")))?;
    let no_roots = |error: String| Failure::new(Reason::UnknownAuthority, error);
    let builder = match &settings.ca_file {
        Some(path) => {
            let roots =
                Content::read(path).certificates().and_then(whole).map_err(|error| no_roots(error.to_string()))?;
            let mut store = RootCertStore::empty();
            for certificate in roots {
                store.add(certificate).map_err(|error| no_roots(format!("{}: {error}", path.display())))?;
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider).build();
            builder.with_webpki_verifier(verifier.map_err(|error| no_roots(format!("{}: {error}", path.display())))?)
        }
        None => {
            let verifier = PlatformVerifier::new(provider)
                .map_err(|error| no_roots(format!("the system's roots cannot be used: {error}; set ca_file")))?;
            // "Dangerous" is rustls' word for any verifier but its own; this one checks chain and host name.
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        }
    };
    let mut config = match &settings.identity {
        Some(files) => {
            let key = certified_key(&Content::read(&files.chain), &Content::read(&files.key))
                .map_err(|error| Failure::new(Reason::NoOwnCertificate, error).mended_by(OWN_FILES))?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    Ok(config)
}

fn versions(settings: &OrdinaryTls) -> Vec<&'static SupportedProtocolVersion> {
    let lowest = settings.min_version.unwrap_or(TlsVersion::Tls12);
    let highest = settings.max_version.unwrap_or(TlsVersion::Tls13);
    let all = [(TlsVersion::Tls13, &version::TLS13), (TlsVersion::Tls12, &version::TLS12)];
    all.into_iter().filter(|(version, _)| (lowest..=highest).contains(version)).map(|(_, known)| known).collect()
}

fn whole(
    certificates: super::files::Certificates,
) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>, FileError> {
    match certificates.broken {
        Some(broken) => Err(broken),
        None => Ok(certificates.list),
    }
}
