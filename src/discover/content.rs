//! What a list of targets says: groups, each with `targets` and `labels`, as JSON or as YAML.
//!
//! A list is taken whole or not at all: an unknown field, a wrong type or a `null` in it refuses it, so that a typing
//! error cannot silently remove targets. Nothing in it is expanded; a `${NAME}` is text.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use serde::Deserialize;
use thiserror::Error;

use super::fixed;
use crate::model::{Candidate, Labels};
use crate::yaml::{self, Node, Pos, Value, YamlError};

/// How much memory the targets of one list may take, about. The labels of a group stand in it once and belong to each of
/// its targets, so a small list could come to any size.
const MAX_MEMORY: usize = 256 << 20;
/// What a target takes besides its labels.
const TARGET_BYTES: usize = 1024;
/// How many labels a group may have.
const MAX_LABELS: usize = 1000;

/// Why a list says nothing that can be used.
#[derive(Debug, PartialEq, Eq, Error)]
pub(super) enum ContentError {
    /// Not JSON, or not JSON of the expected shape; the parser's words have line and column in them.
    #[error("{0}")]
    Json(String),
    /// Not YAML.
    #[error(transparent)]
    Yaml(#[from] YamlError),
    /// Over [`MAX_MEMORY`].
    #[error("its targets with their labels take more than {} MiB; split it up", MAX_MEMORY >> 20)]
    TooLarge,
    /// Over [`MAX_LABELS`].
    #[error("a group has {0} labels, at most {MAX_LABELS} are allowed")]
    TooManyLabels(usize),
    /// YAML of another shape than expected.
    #[error("line {}, column {}: {message}", pos.line, pos.column)]
    Shape {
        /// Where.
        pos: Pos,
        /// What is wrong, and what is expected.
        message: String,
    },
}

/// One group of targets.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    #[serde(default)]
    targets: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<BTreeMap<String, Option<String>>>,
}

/// The formats of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Yaml,
}

/// The candidates of a list. `origin` names the label that says where the list comes from, with its value.
pub(super) fn candidates_of(origin: (&str, &str), format: Format, text: &str) -> Result<Vec<Candidate>, ContentError> {
    let groups = match format {
        Format::Json => from_json(text)?,
        Format::Yaml => from_yaml(text)?,
    };
    let (name, place) = origin;
    let mut candidates = Vec::new();
    let mut memory: usize = 0;
    for (index, group) in groups.into_iter().enumerate() {
        let pairs = group.labels.into_iter().flatten();
        let mut labels: Labels = pairs.map(|(name, value)| (name, value.unwrap_or_default())).collect();
        labels.set(name, place);
        if labels.len() > MAX_LABELS {
            return Err(ContentError::TooManyLabels(labels.len()));
        }
        let of_one = TARGET_BYTES + labels.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        memory = memory.saturating_add(of_one.saturating_mul(group.targets.as_ref().map_or(0, Vec::len)));
        if memory > MAX_MEMORY {
            return Err(ContentError::TooLarge);
        }
        let source: Arc<str> = format!("{place}:{index}").into();
        candidates.extend(group.targets.iter().flatten().map(|target| fixed::candidate(target, &labels, &source)));
    }
    Ok(candidates)
}

fn from_json(text: &str) -> Result<Vec<Group>, ContentError> {
    let groups: Option<Vec<Group>> =
        serde_json::from_str(text).map_err(|error| ContentError::Json(error.to_string()))?;
    let groups = groups.unwrap_or_default();
    match groups.iter().flat_map(|group| group.labels.iter().flatten()).any(|(name, _)| name.is_empty()) {
        true => Err(ContentError::Json("a label name is empty".to_owned())),
        false => Ok(groups),
    }
}

fn from_yaml(text: &str) -> Result<Vec<Group>, ContentError> {
    match yaml::parse(text)? {
        None => Ok(Vec::new()),
        Some(root) => items(&root, "a list of groups, each with targets and labels")?.iter().map(group).collect(),
    }
}

fn group(node: &Node) -> Result<Group, ContentError> {
    let mut group = Group::default();
    for (key, name, value) in entries(node, "a group with targets and labels")? {
        match (name, &value.value) {
            ("targets" | "labels", Value::Null) => {}
            ("targets", _) => {
                let targets = items(value, "a list of addresses")?;
                let targets = targets.iter().map(|target| Ok(scalar(target, "an address")?.to_owned()));
                group.targets = Some(targets.collect::<Result<_, ContentError>>()?);
            }
            ("labels", _) => {
                let mut labels = BTreeMap::new();
                for (key, name, value) in entries(value, "a mapping of label names to values")? {
                    if name.is_empty() {
                        return Err(shape(key, "a label name is empty".to_owned()));
                    }
                    let text = match value.value {
                        Value::Null => None,
                        _ => Some(scalar(value, "the value of a label")?.to_owned()),
                    };
                    labels.insert(name.to_owned(), text);
                }
                group.labels = Some(labels);
            }
            (other, _) => {
                return Err(shape(key, format!("{other:?} is not known here: a group has targets and labels")));
            }
        }
    }
    Ok(group)
}

fn items<'n>(node: &'n Node, expected: &str) -> Result<&'n [Node], ContentError> {
    match &node.value {
        Value::Sequence(items) => Ok(items),
        _ => Err(unexpected(node, expected)),
    }
}

/// The entries of a mapping: key, its text, value. A key that stands twice is an error.
fn entries<'n>(node: &'n Node, expected: &str) -> Result<Vec<(&'n Node, &'n str, &'n Node)>, ContentError> {
    let Value::Mapping(pairs) = &node.value else { return Err(unexpected(node, expected)) };
    let mut entries: Vec<(&Node, &str, &Node)> = Vec::with_capacity(pairs.len());
    let mut known = HashSet::new();
    for (key, value) in pairs {
        let name = scalar(key, "a name")?;
        if !known.insert(name) {
            return Err(shape(key, format!("{name:?} stands here for the second time")));
        }
        entries.push((key, name, value));
    }
    Ok(entries)
}

fn scalar<'n>(node: &'n Node, expected: &str) -> Result<&'n str, ContentError> {
    match &node.value {
        Value::Scalar { text, .. } => Ok(text),
        _ => Err(unexpected(node, expected)),
    }
}

fn unexpected(node: &Node, expected: &str) -> ContentError {
    shape(node, format!("{} stands where {expected} is expected", node.value.kind()))
}

fn shape(node: &Node, message: String) -> ContentError {
    ContentError::Shape { pos: node.pos, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<String>, String> {
        let format = if name.ends_with("json") { Format::Json } else { Format::Yaml };
        let candidates = candidates_of(("__meta_filepath", name), format, text).map_err(|error| error.to_string())?;
        Ok(candidates.iter().map(|found| format!("{} {}", found.source, found.labels)).collect())
    }

    #[test]
    fn both_formats_say_the_same() {
        let expected = [
            r#"t:0 {__address__="a:1", __meta_filepath="t", env="prod", n="1.50"}"#,
            r#"t:0 {__address__="b:1", __meta_filepath="t", env="prod", n="1.50"}"#,
            r#"t:1 {__address__="c", __meta_filepath="t"}"#,
        ];
        let yaml = "- targets: [a:1, 'b:1']\n  labels: {env: prod, n: 1.50, none: ~, __meta_filepath: forged}\n- targets: [c]\n- {}\n";
        let json = r#"[{"targets": ["a:1", "b:1"], "labels": {"env": "prod", "n": "1.50", "none": null,
            "__meta_filepath": "forged"}}, {"targets": ["c"], "labels": null}, {}]"#;
        for (name, text) in [("t.yml", yaml), ("t.json", json)] {
            let found: Vec<String> = read(name, text).expect(name).iter().map(|line| line.replace(name, "t")).collect();
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn nothing_is_expanded() {
        let found = read("t.yml", "- targets: ['${SECRET}:1', $1]\n").expect("valid");
        assert!(found[0].contains(r#"__address__="${SECRET}:1""#) && found[1].contains(r#"__address__="$1""#));
    }

    #[test]
    fn json_escapes_of_every_kind_are_read() {
        let found =
            read("t.json", "[{\"targets\":[\"a\"],\n\t\"labels\":{\"k\":\"\\ud83d\\ude00\\/\"}}]").expect("valid");
        assert!(found[0].contains("k=\"😀/\""), "{found:?}");
    }

    #[test]
    fn empty_files_hold_no_targets() {
        for (name, text) in [
            ("t.yml", ""),
            ("t.yml", "# nothing\n"),
            ("t.yml", "[]"),
            ("t.json", "[]"),
            ("t.json", " [ ] "),
            ("t.json", "null"),
        ] {
            assert_eq!(read(name, text), Ok(vec![]), "{name} {text:?}");
        }
    }

    #[test]
    fn everything_else_is_refused_with_its_place() {
        for (name, text, part) in [
            ("t.yml", "targets: [a]", "line 1, column 1: a mapping stands where a list of groups"),
            ("t.yml", "- targets: [a]\n- ~\n", "line 2, column 3: nothing stands where a group"),
            ("t.yml", "- targets: a\n", "line 1, column 12: a single value stands where a list of addresses"),
            ("t.yml", "- targets: [a, [b]]\n", "line 1, column 16: a list stands where an address"),
            ("t.yml", "- targets: [~]\n", "nothing stands where an address"),
            ("t.yml", "- labels: {a: {}}\n", "a mapping stands where the value of a label"),
            ("t.yml", "- labels: {'': x}\n", "a label name is empty"),
            ("t.yml", "- target: [a]\n", "line 1, column 3: \"target\" is not known here"),
            ("t.yml", "- labels: {a: 1, a: 2}\n", "\"a\" stands here for the second time"),
            ("t.yml", "- targets: [a\n", "this is not YAML"),
            ("t.json", "", "line 1 column 0"),
            ("t.json", "[{\"target\": []}]", "unknown field `target`"),
            ("t.json", "[null]", "null"),
            ("t.json", "{}", "line 1"),
            ("t.json", "[{\"labels\": {\"a\": 1}}]", "line 1 column 19"),
            ("t.json", "[{\"labels\": {\"\": \"1\"}}]", "a label name is empty"),
            ("t.json", "[] x", "line 1 column 4"),
        ] {
            let error = read(name, text).expect_err(text);
            assert!(error.contains(part), "{name} {text:?}: {error}");
        }
    }
}
