//! `tls_config`: whom we believe, and what that rests on.
//!
//! A mapping `spiffe` makes a job or a receiver verify SPIFFE IDs. `insecure_skip_verify: true` never skips anything:
//! in a job with all three files of a mesh certificate (Istio's own sample) it means what `spiffe: {}` says, anywhere
//! else it means nothing. Either way it is warned of once.

use std::path::{Path, PathBuf};

use super::Section;
use super::fields::{Fields, Valued};
use super::file::one_of;
use super::tables::{DISCOVERY_TLS, JOB_SPIFFE, JOB_TLS, RECEIVER_SPIFFE, RECEIVER_TLS};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{
    CertificateFiles, ClientFiles, JobSecurity, OrdinaryTls, ReceiverSecurity, SpiffeJob, SpiffeReceiver, TlsVersion,
    preset,
};
use crate::model::{Match, SpiffeId, TrustDomain, clean};
use crate::yaml::Value;

/// The three files of a certificate, as they are written.
const FILES: [&str; 3] = ["ca_file", "cert_file", "key_file"];

/// Reads the `tls_config` of the job `fields`. With `istio_sd_configs` it verifies SPIFFE IDs, exactly, whatever is
/// written, and the certificates have their usual place.
pub(super) fn of_job(fields: &mut Fields<'_>, istio_sd: bool) -> JobSecurity {
    let written = fields.section("tls_config", &JOB_TLS);
    if written.is_none() && !istio_sd {
        return JobSecurity::Ordinary(OrdinaryTls::default());
    }
    let empty = || Fields::empty(fields.walk, fields.pos, &fields.path_of("tls_config"), &JOB_TLS);
    let mut tls = written.unwrap_or_else(empty);
    let written = open_spiffe(&tls, &JOB_SPIFFE);
    let skips = read_skip(&mut tls);
    let spiffe = if written.is_some() || istio_sd {
        warn_skip(&tls, skips, "this job verifies SPIFFE IDs", "remove it");
        Some(written.unwrap_or_else(|| Fields::empty(tls.walk, tls.pos, &tls.path_of("spiffe"), &JOB_SPIFFE)))
    } else if skips && FILES.iter().all(|key| tls.has(key)) {
        let what = "with ca_file, cert_file and key_file this job verifies SPIFFE IDs";
        warn_skip(&tls, skips, what, "write spiffe: {} in its place");
        Some(Fields::empty(tls.walk, tls.pos, &tls.path_of("spiffe"), &JOB_SPIFFE))
    } else {
        None
    };
    let security = if let Some(mut spiffe) = spiffe {
        let (trust_domain, aliases) = domains(&mut spiffe);
        let rule = spiffe.valued("match", Valued::new(Match::Exact, "exact"), read_match).value;
        if istio_sd && rule != Match::Exact {
            let message = "with istio_sd_configs each pod must answer as its own service account";
            spiffe.wrong("match", Wrong::new(message, "remove it"));
        }
        tls.show("spiffe", spiffe.close());
        let files = match istio_sd && !FILES.iter().chain(&["certs_dir"]).any(|key| tls.has(key)) {
            true => usual_files(&mut tls),
            false => mesh_files(&mut tls),
        };
        JobSecurity::Spiffe(SpiffeJob { files, trust_domain, aliases, rule })
    } else {
        warn_skip(
            &tls,
            skips,
            "chain and host name are verified",
            "remove it; for mesh certificates write certs_dir and spiffe: {}",
        );
        refuse_dir(&mut tls);
        JobSecurity::Ordinary(ordinary_tls(&mut tls))
    };
    fields.show("tls_config", tls.close());
    security
}

/// Reads the `tls_config` of the receiver `fields`.
pub(super) fn of_receiver(fields: &mut Fields<'_>) -> ReceiverSecurity {
    let Some(mut tls) = fields.section("tls_config", &RECEIVER_TLS) else {
        return ReceiverSecurity::Ordinary(OrdinaryTls::default());
    };
    let written = open_spiffe(&tls, &RECEIVER_SPIFFE);
    let skips = read_skip(&mut tls);
    let security = if let Some(mut spiffe) = written {
        let (trust_domain, aliases) = domains(&mut spiffe);
        let server_ids = server_ids(&mut spiffe, trust_domain.as_ref(), &aliases);
        tls.show("spiffe", spiffe.close());
        warn_skip(&tls, skips, "the receiver's SPIFFE ID is verified", "remove it");
        let files = mesh_files(&mut tls);
        ReceiverSecurity::Spiffe(SpiffeReceiver { files, trust_domain, aliases, server_ids })
    } else {
        let instead = "remove it; for a receiver in the mesh write spiffe with its server_ids";
        warn_skip(&tls, skips, "chain and host name are verified", instead);
        refuse_dir(&mut tls);
        ReceiverSecurity::Ordinary(ordinary_tls(&mut tls))
    };
    fields.show("tls_config", tls.close());
    security
}

/// Reads the `tls_config` of a server that is asked for targets; `None` if it says nothing but defaults.
pub(super) fn of_discovery(fields: &mut Fields<'_>) -> Option<OrdinaryTls> {
    let mut tls = fields.section("tls_config", &DISCOVERY_TLS)?;
    let skips = read_skip(&mut tls);
    warn_skip(&tls, skips, "chain and host name are verified", "remove it, and write the CA as ca_file");
    let ordinary = ordinary_tls(&mut tls);
    fields.show("tls_config", tls.close());
    Some(ordinary).filter(|tls| skips || *tls != OrdinaryTls::default())
}

/// The mapping `spiffe`. Written without a value it could be meant or forgotten, so it is refused, not passed over, and it
/// is no switch; what is wrong with it never makes the job an ordinary one.
fn open_spiffe<'w>(tls: &Fields<'w>, section: &'static Section) -> Option<Fields<'w>> {
    let item = tls.written("spiffe")?;
    let unfit = match item.node.value {
        Value::Null => Some("there is nothing behind this key"),
        Value::Scalar { .. } => Some("this is no switch, but a mapping"),
        Value::Sequence(_) | Value::Mapping(_) => None,
    };
    if let Some(unfit) = unfit {
        tls.walk.problem(item.node.pos, &item.path, Wrong::new(unfit, "write spiffe: {}, or remove it"));
    } else if let Some(fields) = Fields::open(tls.walk, &item, section) {
        return Some(fields);
    }
    Some(Fields::empty(tls.walk, item.node.pos, &item.path, section))
}

fn read_skip(tls: &mut Fields<'_>) -> bool {
    let scalar = tls.scalar("insecure_skip_verify");
    let skips = scalar.and_then(|scalar| tls.walk.read(&scalar, super::fields::read_bool)).unwrap_or(false);
    tls.show("insecure_skip_verify", Shown::Text("false".to_owned()));
    skips
}

fn warn_skip(tls: &Fields<'_>, skips: bool, what: &str, instead: &str) {
    if skips {
        tls.warn("insecure_skip_verify", Wrong::new(format!("nothing is skipped: {what}"), instead));
    }
}

/// Where `istio_sd_configs` looks for certificates unless the job says where.
fn usual_files(tls: &mut Fields<'_>) -> CertificateFiles {
    refuse_names(tls);
    tls.show("certs_dir", Shown::Text(preset::CERTS_DIR.to_owned()));
    CertificateFiles::in_dir(Path::new(preset::CERTS_DIR))
}

/// The files of a mesh identity: a directory, or all three by name. After a problem some empty ones stand in.
fn mesh_files(tls: &mut Fields<'_>) -> CertificateFiles {
    refuse_names(tls);
    let dir = path(tls, "certs_dir");
    let [root, chain, key] = FILES.map(|key| path(tls, key));
    match (dir, root, chain, key) {
        (Some(dir), None, None, None) => return CertificateFiles::in_dir(&dir),
        (None, Some(root), Some(chain), Some(key)) => return CertificateFiles { chain, key, root },
        (Some(_), ..) => {
            let extra = FILES.into_iter().find(|key| tls.has(key)).unwrap_or("ca_file");
            tls.wrong(extra, Wrong::new("certs_dir is written as well, and names this file", "remove one of the two"));
        }
        (None, ..) => {
            let missing: Vec<_> =
                FILES.into_iter().filter(|key| !tls.has(key)).map(|key| format!("no {key}")).collect();
            tls.walk.problem(
                tls.pos,
                &tls.path,
                Wrong::new(
                    format!(
                        "verifying SPIFFE IDs needs a certificate of our own and roots, but there is {}",
                        missing.join(" and ")
                    ),
                    "write certs_dir, or all of ca_file, cert_file, key_file",
                ),
            );
        }
    }
    CertificateFiles::in_dir(Path::new(""))
}

/// Keys that have no meaning where a SPIFFE ID is verified.
fn refuse_names(tls: &mut Fields<'_>) {
    for key in ["server_name", "min_version", "max_version"] {
        if let Some(scalar) = tls.text(key) {
            let message = "this has no meaning where the SPIFFE ID is verified, over TLS 1.2 or 1.3";
            tls.walk.problem(scalar.pos, &scalar.key, Wrong::new(message, "remove it"));
        }
    }
}

/// A directory of mesh certificates is of no use without a SPIFFE ID to verify.
fn refuse_dir(tls: &mut Fields<'_>) {
    if path(tls, "certs_dir").is_some() {
        tls.wrong(
            "certs_dir",
            Wrong::new(
                "a mesh certificate names no host, so certs_dir goes with spiffe only",
                "write spiffe: {} beside it, or ca_file, cert_file and key_file in its place",
            ),
        );
    }
}

fn ordinary_tls(tls: &mut Fields<'_>) -> OrdinaryTls {
    let [ca_file, cert, key] = FILES.map(|key| path(tls, key));
    let identity = match (cert, key) {
        (Some(chain), Some(key)) => Some(ClientFiles { chain, key }),
        (Some(_), None) => {
            tls.wrong("cert_file", Wrong::new("a certificate is of no use without its key", "write key_file, too"));
            None
        }
        (None, Some(_)) => {
            tls.wrong("key_file", Wrong::new("a key is of no use without its certificate", "write cert_file, too"));
            None
        }
        (None, None) => None,
    };
    let min_version = tls.parsed("min_version", read_version);
    let max_version = tls.parsed("max_version", read_version);
    if let (Some(min), Some(max)) = (min_version, max_version)
        && min > max
    {
        tls.wrong("max_version", Wrong::new("this is lower than min_version", "write TLS13, or remove it"));
    }
    let server_name = tls.parsed("server_name", |text| {
        if text.is_empty() { Err(Wrong::new("the name is empty", "remove it")) } else { Ok(text.to_owned()) }
    });
    OrdinaryTls { ca_file, identity, server_name, min_version, max_version }
}

fn path(tls: &mut Fields<'_>, key: &'static str) -> Option<PathBuf> {
    if tls.scalar(key)?.value.is_empty() {
        tls.wrong(key, Wrong::new("the path is empty", "write a path, or remove it"));
    }
    tls.path(key).filter(|path| path != Path::new(""))
}

fn domains(spiffe: &mut Fields<'_>) -> (Option<TrustDomain>, Vec<TrustDomain>) {
    let trust_domain = spiffe.parsed("trust_domain", read_trust_domain);
    let mut aliases = Vec::new();
    for scalar in spiffe.texts("trust_domain_aliases") {
        let Some(alias) = spiffe.walk.read(&scalar, read_trust_domain) else { continue };
        if Some(&alias) == trust_domain.as_ref() || aliases.contains(&alias) {
            let message = format!("{scalar} is named already");
            spiffe.walk.problem(scalar.pos, &scalar.key, Wrong::new(message, "remove it"));
        }
        aliases.push(alias);
    }
    if !spiffe.has("trust_domain_aliases") {
        spiffe.show("trust_domain_aliases", Shown::Seq(Vec::new()));
    }
    (trust_domain, aliases)
}

fn read_trust_domain(text: &str) -> Result<TrustDomain, Wrong> {
    TrustDomain::parse(text).map_err(|error| {
        let bare = text.strip_prefix("spiffe://").map(|rest| rest.split('/').next().unwrap_or_default());
        match bare.filter(|bare| TrustDomain::parse(bare).is_ok()) {
            Some(bare) => Wrong::new("a trust domain is written without spiffe:// and path", format!("write {bare}")),
            None => Wrong::new(
                format!("{:?} is not a trust domain: {error}", clean(text)),
                "write a name such as cluster.local",
            ),
        }
    })
}

fn read_match(text: &str) -> Result<Match, Wrong> {
    match text {
        "exact" => Ok(Match::Exact),
        "namespace" => Ok(Match::Namespace),
        "trust_domain" => Ok(Match::TrustDomain),
        _ => Err(one_of(text, &["exact", "namespace", "trust_domain"])),
    }
}

fn server_ids(spiffe: &mut Fields<'_>, domain: Option<&TrustDomain>, aliases: &[TrustDomain]) -> Vec<SpiffeId> {
    const KEY: &str = "server_ids";
    let mut ids = Vec::new();
    for scalar in spiffe.texts(KEY) {
        let Some(id) = spiffe.walk.read(&scalar, read_id) else { continue };
        if let Some(wrong) = foreign_domain(&id, domain, aliases) {
            spiffe.walk.problem(scalar.pos, &scalar.key, scalar.without_value(wrong));
        }
        ids.push(id);
    }
    if !spiffe.has(KEY) || spiffe.is_empty_list(KEY) {
        spiffe.wrong(
            KEY,
            Wrong::new(
                "nothing says which receiver may answer",
                "write its exact SPIFFE ID, such as server_ids: [spiffe://cluster.local/ns/monitoring/sa/prometheus]",
            ),
        );
    }
    ids
}

/// Reads a SPIFFE ID of a workload.
pub(super) fn read_id(text: &str) -> Result<SpiffeId, Wrong> {
    SpiffeId::parse(text).map_err(|error| {
        Wrong::new(
            format!("{:?} is not the SPIFFE ID of a workload: {error}", clean(text)),
            "write one such as spiffe://cluster.local/ns/shop/sa/cart",
        )
    })
}

/// What is wrong with an ID of a trust domain that no root is known for.
pub(super) fn foreign_domain(id: &SpiffeId, domain: Option<&TrustDomain>, aliases: &[TrustDomain]) -> Option<Wrong> {
    let domain = domain?;
    if id.trust_domain() == domain || aliases.contains(id.trust_domain()) {
        return None;
    }
    Some(Wrong::new(
        format!("{id} is of another trust domain than {domain}, so it could never be verified"),
        format!("write an ID of {domain}, or its domain under trust_domain_aliases"),
    ))
}

fn read_version(text: &str) -> Result<TlsVersion, Wrong> {
    match text {
        "TLS12" => Ok(TlsVersion::Tls12),
        "TLS13" => Ok(TlsVersion::Tls13),
        "TLS10" | "TLS11" => Err(Wrong::new(format!("{text} is not spoken: it is no longer safe"), "write TLS12")),
        _ => Err(one_of(text, &["TLS12", "TLS13"])),
    }
}
