//! Relabelling: Prometheus's rules, applied to one label set.
//!
//! A [`Rule`] that exists is usable: its regex is compiled, its keys fit its action. Applying rules is pure, cannot
//! fail and cannot panic, and leaves [`Labels`] as they always are: sorted, unique, without empty values. The semantics
//! are those of Prometheus 3.14, down to Go's regular expressions (`re2.rs`), Go's templates (`template.rs`) and Go's
//! letter case. The room knows nothing of targets, series or YAML: who calls decides what the labels mean, and config
//! adds file, line and column to a [`RuleError`].

mod case;
mod re2;
mod selector;
mod shown;
mod template;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::sync::{Arc, LazyLock};

use md5::{Digest, Md5};
use regex::Regex;
use thiserror::Error;

use crate::model::{Labels, is_legacy_label_name};

pub use re2::Pattern;
pub use selector::Selector;
use template::Template;

/// The default of `separator`.
pub const DEFAULT_SEPARATOR: &str = ";";
/// The default of `regex`.
pub const DEFAULT_REGEX: &str = "(.*)";
/// The default of `replacement`.
pub const DEFAULT_REPLACEMENT: &str = "$1";

/// What a rule does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Action {
    /// Sets a label from the match of its sources.
    #[default]
    Replace,
    /// Drops what does not match.
    Keep,
    /// Drops what matches.
    Drop,
    /// Drops what differs from the target label.
    KeepEqual,
    /// Drops what equals the target label.
    DropEqual,
    /// Sets a label to a hash of its sources, modulo a number.
    HashMod,
    /// Copies labels to new names.
    LabelMap,
    /// Removes the labels whose name matches.
    LabelDrop,
    /// Removes the labels whose name does not match.
    LabelKeep,
    /// Sets a label to its sources in lower case.
    Lowercase,
    /// Sets a label to its sources in upper case.
    Uppercase,
}

impl Action {
    /// Every action.
    pub const ALL: [Action; 11] = [
        Action::Replace,
        Action::Keep,
        Action::Drop,
        Action::KeepEqual,
        Action::DropEqual,
        Action::HashMod,
        Action::LabelMap,
        Action::LabelDrop,
        Action::LabelKeep,
        Action::Lowercase,
        Action::Uppercase,
    ];

    /// Reads the word of an `action` key, in any case.
    pub fn parse(text: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.as_str().eq_ignore_ascii_case(text))
    }

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Replace => "replace",
            Action::Keep => "keep",
            Action::Drop => "drop",
            Action::KeepEqual => "keepequal",
            Action::DropEqual => "dropequal",
            Action::HashMod => "hashmod",
            Action::LabelMap => "labelmap",
            Action::LabelDrop => "labeldrop",
            Action::LabelKeep => "labelkeep",
            Action::Lowercase => "lowercase",
            Action::Uppercase => "uppercase",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Which names are valid: `metric_name_validation_scheme`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NameScheme {
    /// Any text that is not empty.
    #[default]
    Utf8,
    /// `[a-zA-Z_][a-zA-Z0-9_]*`, in metric names also `:`.
    Legacy,
}

impl NameScheme {
    /// Whether `name` can be a label's name.
    pub fn allows_label(self, name: &str) -> bool {
        match self {
            NameScheme::Utf8 => !name.is_empty(),
            NameScheme::Legacy => is_legacy_label_name(name),
        }
    }

    /// Whether `template` can become a label's name once its groups are filled in.
    fn allows_label_template(self, template: &str) -> bool {
        static LEGACY: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"^(?:(?:[a-zA-Z_]|\$(?:\{[0-9A-Za-z_]+\}|[0-9A-Za-z_]+))+[0-9A-Za-z_]*)+$")
                .expect("a fixed pattern")
        });
        match self {
            NameScheme::Utf8 => !template.is_empty(),
            NameScheme::Legacy => LEGACY.is_match(template),
        }
    }
}

/// A rule as it is written: one entry of `relabel_configs`. A key that is not given is `None` or empty; an explicitly
/// empty `regex`, `separator` or `replacement` is `Some("")` and means something else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RuleSpec {
    /// The labels whose values, joined, are looked at.
    pub source_labels: Vec<String>,
    /// What joins them; `;` by default.
    pub separator: Option<String>,
    /// What the joined value, or a label's name, must match as a whole; `(.*)` by default.
    pub regex: Option<String>,
    /// What `hashmod` divides by.
    pub modulus: Option<u64>,
    /// The label that is set or compared.
    pub target_label: Option<String>,
    /// What it is set to; `$1` by default.
    pub replacement: Option<String>,
    /// What is done.
    pub action: Action,
}

/// Why a rule cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{key}: {message}")]
pub struct RuleError {
    /// The key at fault, as it is written in the file; it may be absent there.
    pub key: &'static str,
    /// What is wrong and what is expected, in words.
    pub message: String,
}

impl RuleError {
    fn new(key: &'static str, message: impl Into<String>) -> Self {
        Self { key, message: message.into() }
    }
}

/// A rule, checked and compiled.
#[derive(Clone, Debug)]
pub struct Rule {
    spec: RuleSpec,
    names: NameScheme,
    step: Step,
}

/// What remains of a rule once its action is known.
#[derive(Clone, Debug)]
enum Step {
    Replace { pattern: Pattern, target: Template, replacement: Template },
    Keep(Pattern),
    Drop(Pattern),
    KeepEqual(Box<str>),
    DropEqual(Box<str>),
    HashMod { modulus: NonZeroU64, target: Box<str> },
    LabelMap { pattern: Pattern, replacement: Template },
    LabelDrop(Pattern),
    LabelKeep(Pattern),
    Lowercase(Box<str>),
    Uppercase(Box<str>),
}

/// Two rules are equal if they are written equally: then they do the same.
impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.spec == other.spec && self.names == other.names
    }
}

impl Eq for Rule {}

impl Rule {
    /// Checks that the keys fit the action, and compiles.
    pub fn new(spec: RuleSpec, names: NameScheme) -> Result<Rule, RuleError> {
        check_keys(&spec)?;
        let step = compile(&spec, names)?;
        Ok(Rule { spec, names, step })
    }

    /// The rule as it was written.
    pub fn spec(&self) -> &RuleSpec {
        &self.spec
    }

    /// Applies this one rule; false if it drops what the labels belong to. Who wants to show relabelling step by step
    /// calls this rule by rule and compares.
    pub fn apply(&self, labels: &mut Labels) -> bool {
        match &self.step {
            Step::Keep(pattern) => return pattern.is_match(&self.value(labels)),
            Step::Drop(pattern) => return !pattern.is_match(&self.value(labels)),
            Step::KeepEqual(target) => return *self.value(labels) == *labels.value(target),
            Step::DropEqual(target) => return *self.value(labels) != *labels.value(target),
            Step::Replace { pattern, target, replacement } => {
                if let Some((name, value)) = self.replaced(labels, pattern, target, replacement) {
                    labels.set(&name, &value);
                }
            }
            Step::HashMod { modulus, target } => {
                let value = hash(&self.value(labels)) % modulus.get();
                labels.set(target, &value.to_string());
            }
            Step::LabelMap { pattern, replacement } => map_names(labels, pattern, replacement),
            Step::LabelDrop(pattern) => labels.retain(|name, _| !pattern.is_match(name)),
            Step::LabelKeep(pattern) => labels.retain(|name, _| pattern.is_match(name)),
            Step::Lowercase(target) => {
                let value = case::lower(&self.value(labels));
                labels.set(target, &value);
            }
            Step::Uppercase(target) => {
                let value = case::upper(&self.value(labels));
                labels.set(target, &value);
            }
        }
        true
    }

    /// The values of the source labels, joined; an absent label counts as empty.
    fn value<'l>(&self, labels: &'l Labels) -> Cow<'l, str> {
        match self.spec.source_labels.as_slice() {
            [] => Cow::Borrowed(""),
            [one] => Cow::Borrowed(labels.value(one)),
            many => {
                let values: Vec<&str> = many.iter().map(|name| labels.value(name)).collect();
                Cow::Owned(values.join(self.spec.separator.as_deref().unwrap_or(DEFAULT_SEPARATOR)))
            }
        }
    }

    /// The label that a `replace` sets, with an empty value if it removes it; `None` if it changes nothing.
    fn replaced(
        &self,
        labels: &Labels,
        pattern: &Pattern,
        target: &Template,
        replacement: &Template,
    ) -> Option<(String, String)> {
        let source = self.value(labels);
        let (mut name, mut value) = (String::new(), String::new());
        if let (Some(fixed_name), Some(fixed_value)) = (target.fixed(), replacement.fixed()) {
            if !pattern.is_match(&source) {
                return None;
            }
            name.push_str(fixed_name);
            value.push_str(fixed_value);
        } else {
            let captures = pattern.captures(&source)?;
            target.expand(&captures, &mut name);
            replacement.expand(&captures, &mut value);
        }
        self.names.allows_label(&name).then_some((name, value))
    }
}

/// Applies the rules in order; false as soon as one drops what the labels belong to.
pub fn apply(rules: &[Rule], labels: &mut Labels) -> bool {
    rules.iter().all(|rule| rule.apply(labels))
}

/// The part of MD5 that `hashmod` takes: the last eight bytes, big endian.
fn hash(text: &str) -> u64 {
    let digest: [u8; 16] = Md5::digest(text).into();
    let (_, last) = digest.split_at(8);
    u64::from_be_bytes(last.try_into().expect("16 bytes without 8 are 8"))
}

/// `labelmap`: every label whose name matches is copied to the name that the template makes of it. Labels made here are
/// not looked at again. Where two make the same name, the last in the order of names wins; Prometheus leaves that open.
/// An empty name cannot be one, and is skipped.
fn map_names(labels: &mut Labels, pattern: &Pattern, replacement: &Template) {
    let mut made = Vec::new();
    for (name, value) in labels.iter_shared() {
        if pattern.is_match(name) {
            let new = replace_all(name, pattern, replacement);
            if !new.is_empty() {
                made.push((new, Arc::clone(value)));
            }
        }
    }
    for (name, value) in made {
        labels.set_shared(name.into(), value);
    }
}

/// `name` with each match expanded. An anchored pattern matches once and whole, but not every pattern stays anchored.
fn replace_all(name: &str, pattern: &Pattern, replacement: &Template) -> String {
    let mut out = String::new();
    let mut end = 0;
    for captures in pattern.all_captures(name) {
        let whole = captures.get_match();
        out.push_str(&name[end..whole.start()]);
        replacement.expand(&captures, &mut out);
        end = whole.end();
    }
    out.push_str(&name[end..]);
    out
}

/// Which keys an action needs, and which would be without effect and are therefore refused, as Prometheus does.
fn check_keys(spec: &RuleSpec) -> Result<(), RuleError> {
    use Action::*;
    let action = spec.action;
    if spec.source_labels.iter().any(String::is_empty) {
        return Err(RuleError::new("source_labels", "a label name is empty"));
    }
    if action == HashMod && spec.modulus.unwrap_or(0) == 0 {
        return Err(RuleError::new("modulus", "hashmod needs modulus, a number of at least 1"));
    }
    if matches!(action, Replace | HashMod | Lowercase | Uppercase | KeepEqual | DropEqual)
        && spec.target_label.as_deref().unwrap_or("").is_empty()
    {
        return Err(RuleError::new(
            "target_label",
            format!("{action} needs target_label, the label it sets or compares"),
        ));
    }
    let regex = given(&spec.regex, DEFAULT_REGEX);
    let separator = given(&spec.separator, DEFAULT_SEPARATOR);
    let replacement = given(&spec.replacement, DEFAULT_REPLACEMENT);
    let modulus = spec.modulus.unwrap_or(0) != 0;
    let target = given(&spec.target_label, "");
    let useless: &[(&'static str, bool)] = match action {
        Lowercase | Uppercase => &[("replacement", replacement)],
        KeepEqual | DropEqual => {
            &[("regex", regex), ("separator", separator), ("modulus", modulus), ("replacement", replacement)]
        }
        LabelDrop | LabelKeep => &[
            ("source_labels", !spec.source_labels.is_empty()),
            ("target_label", target),
            ("separator", separator),
            ("modulus", modulus),
            ("replacement", replacement),
        ],
        _ => &[],
    };
    match useless.iter().find(|(_, given)| *given) {
        None => Ok(()),
        Some((key, _)) => {
            let takes = match action {
                KeepEqual | DropEqual => "it takes only source_labels and target_label",
                LabelDrop | LabelKeep => "it takes only regex, which is matched against the names of labels",
                _ => "it takes only source_labels, separator and target_label",
            };
            Err(RuleError::new(key, format!("{action} does not use {key}: {takes}")))
        }
    }
}

/// Whether a key says anything but its default.
fn given(key: &Option<String>, default: &str) -> bool {
    key.as_deref().is_some_and(|text| text != default)
}

fn compile(spec: &RuleSpec, names: NameScheme) -> Result<Step, RuleError> {
    let pattern = || {
        let text = spec.regex.as_deref().unwrap_or(DEFAULT_REGEX);
        Pattern::new(text)
            .map_err(|why| RuleError::new("regex", format!("{text:?} is not a regular expression: {why}")))
    };
    let replacement = spec.replacement.as_deref().unwrap_or(DEFAULT_REPLACEMENT);
    let target = spec.target_label.as_deref().unwrap_or("");
    let fixed_target = || -> Result<Box<str>, RuleError> {
        if names.allows_label(target) { Ok(target.into()) } else { Err(bad_name("target_label", target, names)) }
    };
    Ok(match spec.action {
        Action::Replace => {
            if !names.allows_label_template(target) {
                return Err(bad_name("target_label", target, names));
            }
            let pattern = pattern()?;
            let (target, replacement) = (Template::new(target, &pattern), Template::new(replacement, &pattern));
            Step::Replace { pattern, target, replacement }
        }
        Action::LabelMap => {
            if !names.allows_label_template(replacement) {
                return Err(bad_name("replacement", replacement, names));
            }
            let pattern = pattern()?;
            let replacement = Template::new(replacement, &pattern);
            Step::LabelMap { pattern, replacement }
        }
        Action::HashMod => {
            let modulus = spec.modulus.and_then(NonZeroU64::new);
            let modulus = modulus.ok_or_else(|| RuleError::new("modulus", "it must be at least 1"))?;
            Step::HashMod { modulus, target: fixed_target()? }
        }
        Action::Keep => Step::Keep(pattern()?),
        Action::Drop => Step::Drop(pattern()?),
        Action::LabelDrop => Step::LabelDrop(pattern()?),
        Action::LabelKeep => Step::LabelKeep(pattern()?),
        Action::KeepEqual => Step::KeepEqual(fixed_target()?),
        Action::DropEqual => Step::DropEqual(fixed_target()?),
        Action::Lowercase => Step::Lowercase(fixed_target()?),
        Action::Uppercase => Step::Uppercase(fixed_target()?),
    })
}

fn bad_name(key: &'static str, text: &str, names: NameScheme) -> RuleError {
    let expected = match names {
        NameScheme::Utf8 => "a label name is not empty",
        NameScheme::Legacy => {
            "under the legacy scheme a label name consists of a-z, A-Z, 0-9 and '_' and does not begin with a digit"
        }
    };
    RuleError::new(key, format!("{text:?} is not a label name: {expected}"))
}
