//! Lists of relabel rules.
//!
//! `regex`, `replacement` and `target_label` are taken literally: `${1}` there is a group of the regex, never an
//! environment variable.

use super::fields::{Fields, Item};
use super::file::one_of;
use super::scalar::is_variable;
use super::tables::RELABEL;
use super::{Walk, fields};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::relabel::{Action, DEFAULT_REGEX, DEFAULT_REPLACEMENT, DEFAULT_SEPARATOR, NameScheme, Rule, RuleSpec};
use crate::yaml::Pos;

/// A rule and where its parts stand.
pub(super) struct LocatedRule {
    pub(super) rule: Rule,
    pub(super) path: String,
    pub(super) pos: Pos,
    /// Of each source label, and how it is written: its name in the rule can be the value of a variable.
    pub(super) sources: Vec<(Pos, String)>,
    pub(super) target_label: Pos,
}

/// Reads the rules behind `key`.
pub(super) fn read(fields: &mut Fields<'_>, key: &'static str, names: NameScheme) -> Vec<Rule> {
    let (rules, shown) = read_located(fields, key, names);
    fields.show(key, Shown::Seq(shown));
    rules.into_iter().map(|located| located.rule).collect()
}

/// As [`read`], with the place of each rule; the caller shows them.
pub(super) fn read_located(
    fields: &Fields<'_>,
    key: &'static str,
    names: NameScheme,
) -> (Vec<LocatedRule>, Vec<Shown>) {
    fields.items(key).iter().filter_map(|item| read_rule(fields.walk, item, names)).unzip()
}

/// A rule of `istio_sd_configs`, which stands at `pos` and `path` of the file, and how it would be written.
pub(super) fn of_preset(spec: RuleSpec, names: NameScheme, pos: Pos, path: &str) -> (LocatedRule, Shown) {
    let text = |text: &str| Shown::Text(text.to_owned());
    let mut pairs = Vec::new();
    if !spec.source_labels.is_empty() {
        pairs.push(("source_labels", Shown::Seq(spec.source_labels.iter().map(|source| text(source)).collect())));
    }
    for (key, value) in
        [("regex", &spec.regex), ("target_label", &spec.target_label), ("replacement", &spec.replacement)]
    {
        pairs.extend(value.iter().map(|value| (key, text(value))));
    }
    pairs.push(("action", text(spec.action.as_str())));
    let sources = spec.source_labels.iter().map(|source| (pos, source.clone())).collect();
    let rule = Rule::new(spec, names).expect("BUG: a rule of the preset does not compile");
    let located = LocatedRule { rule, path: path.to_owned(), pos, sources, target_label: pos };
    (located, Shown::Map(pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}

fn read_rule<'w>(walk: &'w Walk<'w>, item: &Item<'w>, names: NameScheme) -> Option<(LocatedRule, Shown)> {
    let mut fields = Fields::open(walk, item, &RELABEL)?;
    let sources = fields.texts("source_labels");
    let action = fields.text("action");
    let action = match &action {
        None if fields.has("action") => None,
        None => {
            fields.show("action", Shown::Text(Action::default().as_str().to_owned()));
            Some(Action::default())
        }
        Some(scalar) => {
            walk.read(scalar, |text| Action::parse(text).ok_or_else(|| one_of(text, &Action::ALL.map(Action::as_str))))
        }
    };
    let (modulus, target_label) = (fields.parsed("modulus", fields::read_count), literal(&mut fields, "target_label"));
    let unread = (fields.has("modulus") && modulus.is_none()) || (fields.has("target_label") && target_label.is_none());
    let spec = RuleSpec {
        source_labels: sources.iter().map(|source| source.value.clone().into_owned()).collect(),
        // A default that is written out is the same rule as one that is not.
        separator: fields
            .text("separator")
            .map(|separator| separator.value.into_owned())
            .filter(|text| text != DEFAULT_SEPARATOR),
        regex: literal(&mut fields, "regex").filter(|text| text != DEFAULT_REGEX),
        modulus: modulus.filter(|modulus| *modulus != 0),
        target_label,
        replacement: literal(&mut fields, "replacement").filter(|text| text != DEFAULT_REPLACEMENT),
        // Without a known action nothing can be said about the other keys.
        action: action?,
    };
    warn_of_variables(&fields, &spec);
    if unread {
        // What is written wrongly is not lacking as well.
        return None;
    }
    match Rule::new(spec, names) {
        Ok(rule) => {
            let (path, pos, target_label) = (fields.path.clone(), fields.pos, fields.pos_of("target_label"));
            let sources = sources.iter().map(|source| (source.pos, source.raw.to_string())).collect();
            Some((LocatedRule { rule, path, pos, sources, target_label }, fields.close()))
        }
        Err(error) => {
            fields.wrong(error.key, Wrong::only(error.message));
            None
        }
    }
}

fn literal(fields: &mut Fields<'_>, key: &'static str) -> Option<String> {
    let text = fields.walk.text(&fields.get(key)?)?.to_owned();
    fields.show(key, Shown::Text(text.clone()));
    Some(text)
}

/// Warns where `${NAME}` looks like an environment variable and can be nothing else.
fn warn_of_variables(fields: &Fields<'_>, spec: &RuleSpec) {
    let regex = spec.regex.as_deref().unwrap_or_default();
    let is_group = |name: &str| regex.contains(&format!("?P<{name}>")) || regex.contains(&format!("?<{name}>"));
    for (key, text) in
        [("regex", &spec.regex), ("target_label", &spec.target_label), ("replacement", &spec.replacement)]
    {
        let Some(text) = text else { continue };
        let names = text.split("${").skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
        if let Some(name) = names.into_iter().find(|name| is_variable(name) && !is_group(name)) {
            let instead = match key {
                "regex" => "write the value itself, or \\$\\{ for the two characters",
                _ => "write the value itself, or name a group of the regex",
            };
            let message = format!("${{{name}}} is not replaced by an environment variable in {key}");
            fields.warn(key, Wrong::new(message, instead));
        }
    }
}
