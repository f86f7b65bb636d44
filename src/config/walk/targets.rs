//! `static_configs` and `file_sd_configs`, and which addresses targets may have.

use std::time::Duration;

use super::fields::Fields;
use super::file;
use super::identity::SPIFFE_ID;
use super::scalar::Scalar;
use super::tables::{FILE_SD, STATIC};
use super::tls::{foreign_domain, read_id};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{FileSd, JobSecurity, SpiffeJob, StaticConfig, pattern};
use crate::model::{Address, Cidr, clean};
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

/// Reads a list of ports, and how it is shown; where there is none, `default`.
pub(super) fn ports(fields: &Fields<'_>, key: &'static str, default: &[u16]) -> (Vec<u16>, Shown) {
    if !fields.has(key) {
        let shown = default.iter().map(|port| Shown::Text(port.to_string())).collect();
        return (default.to_vec(), Shown::Seq(shown));
    }
    let texts: Vec<_> = fields.items(key).iter().filter_map(|item| fields.walk.scalar(item)).collect();
    let ports = once(fields, &texts, |text| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse()
            .ok()
            .filter(|port| digits && *port > 0)
            .ok_or_else(|| Wrong::new(format!("{:?} is not a port", clean(text)), "write a number from 1 to 65535"))
    });
    (ports, Shown::Seq(texts.iter().map(|text| Shown::Text(text.raw.to_string())).collect()))
}

/// Reads a list of ranges of addresses.
pub(super) fn cidrs(fields: &mut Fields<'_>, key: &'static str) -> Vec<Cidr> {
    let texts = fields.texts(key);
    if !fields.has(key) {
        fields.show(key, Shown::Seq(Vec::new()));
    }
    once(fields, &texts, |text| {
        let wrong = |error| format!("{:?} is no range of addresses: {error}", clean(text));
        text.parse().map_err(|error| Wrong::new(wrong(error), "write one such as 10.0.0.0/8"))
    })
}

/// The values of a list, of which each stands there once.
fn once<T: PartialEq>(fields: &Fields<'_>, texts: &[Scalar<'_>], read: impl Fn(&str) -> Result<T, Wrong>) -> Vec<T> {
    let mut values: Vec<T> = Vec::new();
    for scalar in texts {
        let Some(value) = fields.walk.read(scalar, &read) else { continue };
        if values.contains(&value) {
            let message = format!("{scalar} stands twice in the list");
            fields.walk.problem(scalar.pos, &scalar.key, Wrong::new(message, "remove one of the two"));
        }
        values.push(value);
    }
    values
}

/// Reads the `file_sd_configs` of a job.
pub(super) fn files(fields: &mut Fields<'_>) -> Vec<FileSd> {
    const KEY: &str = "file_sd_configs";
    let mut configs = Vec::new();
    let mut shown = Vec::new();
    for item in fields.items(KEY) {
        let Some(mut config) = Fields::open(fields.walk, &item, &FILE_SD) else { continue };
        let patterns: Vec<_> = config.items("files").iter().filter_map(|item| config.walk.scalar(item)).collect();
        let shown_patterns = patterns.iter().map(|pattern| Shown::Text(config.walk.shown_path(&pattern.raw)));
        let shown_patterns = Shown::Seq(shown_patterns.collect());
        config.show("files", shown_patterns);
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
    pattern::check(text)?;
    let extension = text.rsplit_once('.').map(|(_, extension)| extension);
    if !extension.is_some_and(|extension| matches!(extension, "json" | "yml" | "yaml" | "JSON" | "YML" | "YAML")) {
        return Err(Wrong::new(format!("{:?} does not end in .json, .yml or .yaml", clean(text)), "name such files"));
    }
    Ok(())
}
