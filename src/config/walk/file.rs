//! The top of the file, `global`, and what must be unique over the whole file.

use std::sync::Arc;
use std::time::Duration;

use super::fields::{Fields, Item, Valued, read_bool, read_count};
use super::keys::nearest;
use super::scalar::{Scalar, is_variable};
use super::tables::{FILE, GLOBAL};
use super::tenant::Tenancy;
use super::unique::Unique;
use super::{Walk, jobs, receiver};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{Config, EscapingScheme, Global, ScrapeProtocol, units};
use crate::model::{Labels, clean};
use crate::relabel::NameScheme;
use crate::yaml::{Node, Pos};

const DEFAULT_INTERVAL: Duration = Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// The keys that `global` and every job have in common, as they hold for jobs that do not write them.
#[derive(Clone, Debug)]
pub(super) struct Inherited {
    pub(super) interval: Valued<Duration>,
    pub(super) timeout: Valued<Duration>,
    /// Where none are written, it depends on the job.
    pub(super) protocols: Option<Vec<ScrapeProtocol>>,
    pub(super) body_size_limit: Valued<u64>,
    /// In the order of [`COUNTED_LIMITS`].
    pub(super) limits: [Valued<u64>; COUNTED_LIMITS.len()],
    pub(super) names: Valued<NameScheme>,
    pub(super) escaping: Valued<EscapingScheme>,
    pub(super) extra_scrape_metrics: Valued<bool>,
    pub(super) native_histograms: Valued<bool>,
    pub(super) classic_too: Valued<bool>,
    pub(super) convert_classic: Valued<bool>,
}

/// The limits that are whole numbers.
pub(super) const COUNTED_LIMITS: [&str; 6] = [
    "sample_limit",
    "target_limit",
    "label_limit",
    "label_name_length_limit",
    "label_value_length_limit",
    "keep_dropped_targets",
];

impl Default for Inherited {
    fn default() -> Self {
        Self {
            interval: Valued::new(DEFAULT_INTERVAL, "1m"),
            timeout: Valued::new(DEFAULT_TIMEOUT, "10s"),
            protocols: None,
            body_size_limit: Valued::new(0, "0"),
            limits: COUNTED_LIMITS.map(|_| Valued::new(0, "0")),
            names: Valued::new(NameScheme::Utf8, "utf8"),
            escaping: Valued::new(EscapingScheme::AllowUtf8, EscapingScheme::AllowUtf8.as_str()),
            extra_scrape_metrics: Valued::new(false, "false"),
            native_histograms: Valued::new(false, "false"),
            classic_too: Valued::new(false, "false"),
            convert_classic: Valued::new(false, "false"),
        }
    }
}

impl Inherited {
    /// Reads these keys where `self` holds for those that are not written; shows what holds now.
    pub(super) fn read(&self, fields: &mut Fields<'_>) -> Inherited {
        let (interval, timeout) = self.times(fields);
        let names = fields.valued("metric_name_validation_scheme", self.names.clone(), read_names);
        let limit = |fields: &mut Fields<'_>, key, default: &Valued<u64>, read: fn(&str) -> Result<u64, Wrong>| {
            // 0 is "not written here" to Prometheus.
            let written = fields.scalar(key).and_then(|scalar| Some((fields.walk.read(&scalar, read)?, scalar)));
            let limit = match written {
                Some((value, scalar)) if value > 0 => Valued::new(value, scalar.raw),
                _ => default.clone(),
            };
            fields.show(key, Shown::Text(limit.shown.clone()));
            limit
        };
        let flag =
            |fields: &mut Fields<'_>, key, default: &Valued<bool>| fields.valued(key, default.clone(), read_bool);
        let native_histograms = flag(fields, "scrape_native_histograms", &self.native_histograms);
        Inherited {
            interval,
            timeout,
            protocols: self.protocols(fields, native_histograms.value),
            native_histograms,
            classic_too: flag(fields, "always_scrape_classic_histograms", &self.classic_too),
            convert_classic: flag(fields, "convert_classic_histograms_to_nhcb", &self.convert_classic),
            body_size_limit: limit(fields, "body_size_limit", &self.body_size_limit, units::size),
            limits: std::array::from_fn(|at| limit(fields, COUNTED_LIMITS[at], &self.limits[at], read_count)),
            escaping: self.escaping(fields, names.value),
            names,
            extra_scrape_metrics: flag(fields, "extra_scrape_metrics", &self.extra_scrape_metrics),
        }
    }

    fn times(&self, fields: &mut Fields<'_>) -> (Valued<Duration>, Valued<Duration>) {
        // 0 is "not written here" to Prometheus.
        let written = |key| {
            let scalar = fields.scalar(key)?;
            let value = fields.walk.read(&scalar, units::duration)?;
            (!value.is_zero()).then(|| Valued::new(value, scalar.raw))
        };
        let interval = written("scrape_interval").unwrap_or_else(|| self.interval.clone());
        let timeout = match written("scrape_timeout") {
            Some(timeout) => {
                if timeout.value > interval.value {
                    fields.wrong(
                        "scrape_timeout",
                        Wrong::new(
                            format!("{} is longer than the scrape_interval of {}", timeout.shown, interval.shown),
                            format!("write at most {}", interval.shown),
                        ),
                    );
                }
                timeout
            }
            None if self.timeout.value > interval.value => interval.clone(),
            None => self.timeout.clone(),
        };
        fields.show("scrape_interval", Shown::Text(interval.shown.clone()));
        fields.show("scrape_timeout", Shown::Text(timeout.shown.clone()));
        (interval, timeout)
    }

    /// What is asked for: native histograms come by protobuf only.
    pub(super) fn asked_for(&self) -> Vec<ScrapeProtocol> {
        asked_for(self.protocols.as_deref(), self.native_histograms.value)
    }

    fn protocols(&self, fields: &mut Fields<'_>, native_histograms: bool) -> Option<Vec<ScrapeProtocol>> {
        const KEY: &str = "scrape_protocols";
        let mut protocols = Vec::new();
        for scalar in fields.texts(KEY) {
            let Some(protocol) = fields.walk.read(&scalar, read_protocol) else { continue };
            if protocols.contains(&protocol) {
                let message = format!("{scalar} stands twice in the list");
                fields.walk.problem(scalar.pos, &scalar.key, Wrong::new(message, "remove one of the two"));
            } else {
                protocols.push(protocol);
            }
        }
        if fields.has(KEY) {
            if fields.is_empty_list(KEY) {
                fields.wrong(KEY, Wrong::new("the list is empty", "name at least one format, or remove it"));
            }
            return Some(protocols);
        }
        let asked_for = asked_for(self.protocols.as_deref(), native_histograms);
        let shown = asked_for.iter().map(|protocol| Shown::Text(protocol.as_str().to_owned()));
        fields.show(KEY, Shown::Seq(shown.collect()));
        self.protocols.clone()
    }

    /// Names of the legacy character set cannot be asked for unescaped: `underscores` is the default then.
    fn escaping(&self, fields: &mut Fields<'_>, names: NameScheme) -> Valued<EscapingScheme> {
        const KEY: &str = "metric_name_escaping_scheme";
        let legacy = names == NameScheme::Legacy;
        let default = match self.escaping.value {
            EscapingScheme::AllowUtf8 if legacy => {
                Valued::new(EscapingScheme::Underscores, EscapingScheme::Underscores.as_str())
            }
            _ => self.escaping.clone(),
        };
        let escaping = fields.valued(KEY, default, read_escaping);
        if legacy && escaping.value == EscapingScheme::AllowUtf8 {
            fields.wrong(
                KEY,
                Wrong::new(
                    "allow-utf-8 does not go with metric_name_validation_scheme: legacy",
                    "write underscores, dots or values",
                ),
            );
        }
        escaping
    }
}

fn asked_for(written: Option<&[ScrapeProtocol]>, native_histograms: bool) -> Vec<ScrapeProtocol> {
    match written {
        Some(protocols) => protocols.to_vec(),
        None if native_histograms => ScrapeProtocol::ALL.to_vec(),
        None => ScrapeProtocol::TEXT.to_vec(),
    }
}

pub(super) fn read(walk: &Walk<'_>, root: Option<&Node>) -> Config {
    let top = Pos { line: 1, column: 1 };
    let opened = root.and_then(|node| Fields::open(walk, &Item { node, path: String::new() }, &FILE));
    let mut fields = opened.unwrap_or_else(|| Fields::empty(walk, top, "", &FILE));

    let section = fields.section("global", &GLOBAL);
    let mut global_fields = section.unwrap_or_else(|| Fields::empty(walk, top, "global", &GLOBAL));
    let inherited = Inherited::default().read(&mut global_fields);
    let external_labels = external_labels(&mut global_fields, inherited.names.value);
    let global = Global {
        scrape_interval: inherited.interval.value,
        scrape_timeout: inherited.timeout.value,
        external_labels,
        require_identity: global_fields.flag("require_identity", false),
        scrape_memory_limit: scrape_memory_limit(&mut global_fields),
    };
    fields.show("global", global_fields.close());

    let mut receivers = Vec::new();
    let mut shown = Vec::new();
    let mut names = Unique::new("name");
    let mut tenancy = Tenancy::default();
    for item in fields.items("remote_write") {
        if let Some((receiver, name, effective)) = receiver::read(walk, &item, inherited.names.value, &mut tenancy) {
            names.check(walk, &receiver.name, &name);
            receivers.push(Arc::new(receiver));
            shown.push(effective);
        }
    }
    fields.show("remote_write", Shown::Seq(shown));

    let jobs = jobs::read(&mut fields, &global, &inherited, &tenancy);

    let effective = fields.close().to_yaml().into();
    Config { global, scrape_configs: jobs, remote_write: receivers, effective }
}

/// The least leaves room for some thousands of samples that a few targets send at one time.
fn scrape_memory_limit(fields: &mut Fields<'_>) -> u64 {
    const KEY: &str = "scrape_memory_limit";
    const LEAST: u64 = 8 << 20;
    let limit = fields.valued(KEY, Valued::new(128 << 20, "128MiB"), units::size).value;
    if limit < LEAST {
        fields.wrong(KEY, Wrong::new("a few good scrapes at one time could need more", "write at least 8MiB"));
    }
    limit
}

fn external_labels(fields: &mut Fields<'_>, names: NameScheme) -> Labels {
    const KEY: &str = "external_labels";
    let (labels, shown) = labels(fields, KEY, names, |label, value| {
        if label == "__name__" {
            return Err(Wrong::new("an external label cannot be the name of all metrics", "remove it"));
        }
        if let Some(wrong) = bare_dollar(&value.raw) {
            fields.walk.warning(value.pos, &value.key, wrong);
        }
        Ok(())
    });
    fields.show(KEY, shown);
    labels
}

/// What Prometheus would replace and we do not: `$NAME`, and `$$`, which stands for one `$` there.
fn bare_dollar(raw: &str) -> Option<Wrong> {
    let mut rest = raw;
    while let Some(at) = rest.find('$') {
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            if !after.starts_with('{') {
                return Some(Wrong::new("$$ is taken as it stands, where Prometheus would put one $", "write $"));
            }
            rest = after;
        }
        let name = &rest[..rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count()];
        if is_variable(name) {
            return Some(Wrong::new(
                format!("${name} is taken as it stands, where Prometheus would put an environment variable"),
                format!("write ${{{name}}} for the variable"),
            ));
        }
    }
    None
}

/// The labels behind `key`, each checked by `check` as well.
pub(super) fn labels<'w>(
    fields: &Fields<'w>,
    key: &'static str,
    names: NameScheme,
    check: impl Fn(&str, &Scalar<'w>) -> Result<(), Wrong>,
) -> (Labels, Shown) {
    let mut labels = Labels::new();
    let mut shown = Vec::new();
    for named in fields.names(key) {
        let path = &named.item.path;
        if !names.allows_label(named.name) {
            fields.walk.problem(named.pos, path, label_name_wrong(named.name, names));
        }
        // An empty value is no label.
        if named.item.node.value == crate::yaml::Value::Null {
            continue;
        }
        let Some(scalar) = fields.walk.scalar(&named.item) else { continue };
        if let Err(wrong) = check(named.name, &scalar) {
            fields.walk.problem(scalar.pos, path, wrong);
        }
        labels.set(named.name, &scalar.value);
        shown.push((named.name.to_owned(), Shown::Text(scalar.raw.to_string())));
    }
    (labels, Shown::Map(shown))
}

fn label_name_wrong(name: &str, names: NameScheme) -> Wrong {
    match names {
        NameScheme::Utf8 => Wrong::new("the name of a label is empty", "write a name"),
        NameScheme::Legacy => Wrong::new(
            format!("{:?} is no label name where metric_name_validation_scheme is legacy", clean(name)),
            "write letters, digits and underscores, no digit first",
        ),
    }
}

fn read_names(text: &str) -> Result<NameScheme, Wrong> {
    match text {
        "utf8" => Ok(NameScheme::Utf8),
        "legacy" => Ok(NameScheme::Legacy),
        _ => Err(one_of(text, &["utf8", "legacy"])),
    }
}

fn read_escaping(text: &str) -> Result<EscapingScheme, Wrong> {
    use EscapingScheme::{AllowUtf8, Dots, Underscores, Values};
    const ALL: [EscapingScheme; 4] = [AllowUtf8, Underscores, Dots, Values];
    let found = ALL.into_iter().find(|scheme| scheme.as_str() == text);
    found.ok_or_else(|| one_of(text, &ALL.map(EscapingScheme::as_str)))
}

pub(super) fn read_protocol(text: &str) -> Result<ScrapeProtocol, Wrong> {
    let found = ScrapeProtocol::ALL.into_iter().find(|protocol| protocol.as_str() == text);
    found.ok_or_else(|| one_of(text, &ScrapeProtocol::ALL.map(ScrapeProtocol::as_str)))
}

/// `text` is none of `words`.
pub(super) fn one_of(text: &str, words: &[&str]) -> Wrong {
    let message = format!("{:?} is none of {}", clean(text), words.join(", "));
    match nearest(text, words.iter().copied()) {
        Some(near) => Wrong::new(message, format!("write {near}")),
        None => Wrong::new(message, "write one of them"),
    }
}
