//! `static_configs` and `file_sd_configs`.

use std::time::Duration;

use super::fields::Fields;
use super::file;
use super::identity::SPIFFE_ID;
use super::keys::{FILE_SD, STATIC};
use super::tls::{foreign_domain, read_id};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{FileSd, JobSecurity, SpiffeJob, StaticConfig};
use crate::model::{Address, clean};
use crate::relabel::NameScheme;

const DEFAULT_REFRESH: Duration = Duration::from_secs(5 * 60);

/// What the rest of a job says about its targets.
pub(super) struct Job<'j> {
    pub(super) security: &'j JobSecurity,
    pub(super) names: NameScheme,
    /// Whether there are relabel rules, which may make an address of anything.
    pub(super) relabels: bool,
    /// Whether one of them writes the identity.
    pub(super) relabels_identity: bool,
}

/// Reads the `static_configs` of a job.
pub(super) fn statics(fields: &mut Fields<'_>, job: &Job<'_>) -> Vec<StaticConfig> {
    const KEY: &str = "static_configs";
    let mut groups = Vec::new();
    let mut shown = Vec::new();
    for item in fields.items(KEY) {
        let Some(mut group) = Fields::open(fields.walk, &item, &STATIC) else { continue };
        let targets = group.texts("targets");
        group.need("targets", "write targets: [host:port]");
        for target in targets.iter().filter(|_| !job.relabels) {
            group.walk.read(target, read_address);
        }
        let (labels, effective) = file::labels(&group, "labels", job.names, |name, value| match (name, job.security) {
            (SPIFFE_ID, JobSecurity::Spiffe(spiffe)) if !job.relabels_identity => {
                check_identity(&value.value, spiffe).map_err(|wrong| value.without_value(wrong))
            }
            (SPIFFE_ID, JobSecurity::Ordinary(_)) => Err(Wrong::new(
                "an identity is expected of these targets, but this job does not verify SPIFFE IDs",
                "write spiffe: {} under tls_config, or remove the label",
            )),
            _ => Ok(()),
        });
        if matches!(job.security, JobSecurity::Spiffe(_))
            && !job.relabels_identity
            && !labels.contains(SPIFFE_ID)
            && !targets.is_empty()
        {
            let message =
                format!("these targets have no {SPIFFE_ID}, so nobody may answer for them and they stay down");
            let instead = format!("write {SPIFFE_ID}: spiffe://… under labels");
            group.walk.warning(group.pos, &group.path, Wrong::new(message, instead));
        }
        group.show("labels", effective);
        shown.push(group.close());
        groups.push(StaticConfig {
            targets: targets.into_iter().map(|target| target.value.into_owned()).collect(),
            labels,
        });
    }
    fields.show(KEY, Shown::Seq(shown));
    groups
}

fn check_identity(text: &str, spiffe: &SpiffeJob) -> Result<(), Wrong> {
    let id = read_id(text)?;
    match foreign_domain(&id, spiffe.trust_domain.as_ref(), &spiffe.aliases) {
        Some(wrong) => Err(wrong),
        None => Ok(()),
    }
}

fn read_address(text: &str) -> Result<Address, Wrong> {
    Address::parse(text).map_err(|error| match text.split_once("://") {
        Some(_) => Wrong::new(
            format!("{:?} is a URL, not an address", clean(text)),
            "write host:port; scheme and path are keys of the job",
        ),
        None => Wrong::new(format!("{:?} is not an address: {error}", clean(text)), "write host:port"),
    })
}

/// Reads the `file_sd_configs` of a job.
pub(super) fn files(fields: &mut Fields<'_>) -> Vec<FileSd> {
    const KEY: &str = "file_sd_configs";
    let mut configs = Vec::new();
    let mut shown = Vec::new();
    for item in fields.items(KEY) {
        let Some(mut config) = Fields::open(fields.walk, &item, &FILE_SD) else { continue };
        let patterns = config.texts("files");
        config.need("files", "write files: [targets/*.yaml]");
        if config.is_empty_list("files") {
            config.wrong("files", Wrong::new("no file is named", "write files: [targets/*.yaml]"));
        }
        let mut files = Vec::new();
        for pattern in &patterns {
            config.walk.read(pattern, check_pattern);
            files.push(config.walk.path(&pattern.value));
        }
        let refresh_interval = config.some_duration("refresh_interval", DEFAULT_REFRESH);
        shown.push(config.close());
        configs.push(FileSd { files, refresh_interval });
    }
    fields.show(KEY, Shown::Seq(shown));
    configs
}

fn check_pattern(text: &str) -> Result<(), Wrong> {
    let shown = clean(text);
    if text.find('*').is_some_and(|at| text[at..].contains('/')) {
        return Err(Wrong::new(
            format!("{shown:?} has a * in a directory's name, where none is looked for"),
            "put the * into the last part of the path",
        ));
    }
    if let Some(c) = text.chars().find(|c| matches!(c, '?' | '[' | '\\')) {
        let message =
            format!("{shown:?} has a {c}, which Prometheus takes for a part of a pattern; here only * is one");
        return Err(Wrong::new(message, "write *, or name the files"));
    }
    let extension = text.rsplit_once('.').map(|(_, extension)| extension);
    if !extension.is_some_and(|extension| matches!(extension, "json" | "yml" | "yaml" | "JSON" | "YML" | "YAML")) {
        return Err(Wrong::new(format!("{shown:?} does not end in .json, .yml or .yaml"), "name such files"));
    }
    Ok(())
}
