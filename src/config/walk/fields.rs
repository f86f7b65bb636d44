//! One mapping of the file with its known keys.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use super::keys::{Absent, Section, Treatment};
use super::scalar::{self, Scalar};
use super::{PLACEHOLDER, Walk};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{Secret, units};
use crate::model::clean;
use crate::yaml::{Node, Pos, Value};

/// A value and how it is shown in the effective configuration.
#[derive(Clone, Debug)]
pub(super) struct Valued<T> {
    pub(super) value: T,
    pub(super) shown: String,
}

impl<T> Valued<T> {
    pub(super) fn new(value: T, shown: impl Into<String>) -> Self {
        Self { value, shown: shown.into() }
    }
}

/// A node and its path from the top of the file.
#[derive(Clone, Debug)]
pub(super) struct Item<'w> {
    pub(super) node: &'w Node,
    pub(super) path: String,
}

/// A key that the user chose, and what stands behind it.
#[derive(Clone, Debug)]
pub(super) struct Named<'w> {
    pub(super) name: &'w str,
    pub(super) pos: Pos,
    pub(super) item: Item<'w>,
}

/// A mapping whose keys have all been checked to be known, each once.
pub(super) struct Fields<'w> {
    pub(super) walk: &'w Walk<'w>,
    pub(super) path: String,
    pub(super) pos: Pos,
    section: &'static Section,
    entries: HashMap<&'w str, &'w Node>,
    /// Refused keys, and known ones that were probably meant by unknown ones: they are not said to be missing as well.
    meant: Vec<&'static str>,
    shown: Vec<(&'static str, Shown)>,
}

impl<'w> Fields<'w> {
    /// Takes `item` for a mapping of the kind `section`; reports what is wrong with its keys.
    pub(super) fn open(walk: &'w Walk<'w>, item: &Item<'w>, section: &'static Section) -> Option<Self> {
        let mut fields = Self::empty(walk, item.node.pos, &item.path, section);
        for named in walk.names(item)? {
            if section.keys.contains(&named.name) {
                fields.entries.insert(named.name, named.item.node);
            } else {
                fields.refuse_key(&named);
            }
        }
        Some(fields)
    }

    /// A mapping that is not there: all its keys have their defaults.
    pub(super) fn empty(walk: &'w Walk<'w>, pos: Pos, path: &str, section: &'static Section) -> Self {
        Self {
            walk,
            path: path.to_owned(),
            pos,
            section,
            entries: HashMap::new(),
            meant: Vec::new(),
            shown: Vec::new(),
        }
    }

    fn refuse_key(&mut self, named: &Named<'w>) {
        let path = &named.item.path;
        let Some(Absent { key, what, treatment }) = self.section.absent.iter().find(|absent| absent.key == named.name)
        else {
            self.meant.extend(self.section.nearest(named.name));
            let wrong = Wrong {
                message: format!("there is no such key in {}", self.section.name),
                instead: self.section.suggest(named.name),
            };
            return self.walk.problem(named.pos, path, wrong);
        };
        let off = is_off(&named.item.node.value);
        if !off {
            self.meant.push(key);
        }
        match treatment {
            Treatment::Refused => self.walk.problem(named.pos, path, Wrong::new(*what, "remove it")),
            Treatment::RefusedUnlessOff if !off => {
                let message = format!("Prometheus has this key, this version of meshscrape has not: {what}");
                self.walk.problem(named.pos, path, Wrong::new(message, self.section.instead_of(named.name)));
            }
            Treatment::Planned if !off => {
                let message = format!("this version of meshscrape does not have this key yet: {what}");
                self.walk.problem(named.pos, path, Wrong::new(message, self.section.instead_of(named.name)));
            }
            Treatment::IgnoredUnlessOff if !off => {
                self.walk.warning(named.pos, path, Wrong::only(format!("this is ignored: {what}")));
            }
            Treatment::RefusedUnlessOff | Treatment::Planned | Treatment::IgnoredUnlessOff | Treatment::Passed => {}
        }
    }

    /// What stands behind `key`, if anything does; `null` is nothing, as in Prometheus.
    pub(super) fn get(&self, key: &'static str) -> Option<Item<'w>> {
        self.written(key).filter(|item| item.node.value != Value::Null)
    }

    /// As [`Fields::get`], but a written `null` counts.
    pub(super) fn written(&self, key: &'static str) -> Option<Item<'w>> {
        debug_assert!(self.section.keys.contains(&key), "BUG: {key} is not in the table of {}", self.section.name);
        self.entries.get(key).map(|node| Item { node, path: self.path_of(key) })
    }

    pub(super) fn has(&self, key: &'static str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn path_of(&self, key: &str) -> String {
        path_of(&self.path, key)
    }

    /// Where the value of `key` stands, or the mapping if it is not written.
    pub(super) fn pos_of(&self, key: &'static str) -> Pos {
        self.get(key).map_or(self.pos, |item| item.node.pos)
    }

    pub(super) fn wrong(&self, key: &'static str, wrong: Wrong) {
        self.walk.problem(self.pos_of(key), &self.path_of(key), wrong);
    }

    pub(super) fn warn(&self, key: &'static str, wrong: Wrong) {
        self.walk.warning(self.pos_of(key), &self.path_of(key), wrong);
    }

    /// `key` must be written; says so if it is not.
    pub(super) fn need(&self, key: &'static str, instead: &str) {
        if self.has(key) || self.meant.contains(&key) {
            return;
        }
        let (pos, message) = match self.written(key) {
            Some(item) => (item.node.pos, "there is nothing behind this key"),
            None => (self.pos, "this key is missing"),
        };
        self.walk.problem(pos, &self.path_of(key), Wrong::new(message, instead));
    }

    /// Whether any such key is written, if only one that is refused.
    pub(super) fn mentions(&self, such: impl Fn(&str) -> bool) -> bool {
        let written = self.entries.iter().filter(|(_, node)| node.value != Value::Null).map(|(key, _)| *key);
        written.chain(self.meant.iter().copied()).any(such)
    }

    /// Whether the list behind `key` is written and has no items.
    pub(super) fn is_empty_list(&self, key: &'static str) -> bool {
        self.get(key).is_some_and(|item| matches!(&item.node.value, Value::Sequence(items) if items.is_empty()))
    }

    /// Says what stands for `key` in the effective configuration.
    pub(super) fn show(&mut self, key: &'static str, shown: Shown) {
        self.shown.push((key, shown));
    }

    /// The effective mapping, in the order of the section's table.
    pub(super) fn close(mut self) -> Shown {
        let keys = self.section.keys;
        self.shown.sort_by_key(|(key, _)| keys.iter().position(|known| known == key));
        Shown::Map(self.shown.into_iter().map(|(key, shown)| (key.to_owned(), shown)).collect())
    }

    /// A text, with variables replaced; not shown.
    pub(super) fn scalar(&self, key: &'static str) -> Option<Scalar<'w>> {
        self.walk.scalar(&self.get(key)?)
    }

    /// A text without a default.
    pub(super) fn text(&mut self, key: &'static str) -> Option<Scalar<'w>> {
        let scalar = self.scalar(key)?;
        self.show(key, Shown::Text(scalar.raw.to_string()));
        Some(scalar)
    }

    /// A path; relative ones begin at the directory of the file.
    pub(super) fn path(&mut self, key: &'static str) -> Option<PathBuf> {
        let scalar = self.scalar(key)?;
        self.show(key, Shown::Text(self.walk.shown_path(&scalar.raw)));
        Some(self.walk.path(&scalar.value))
    }

    /// A text that has a meaning, without a default.
    pub(super) fn parsed<T>(&mut self, key: &'static str, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        let scalar = self.text(key)?;
        self.walk.read(&scalar, read)
    }

    /// What a text means, without a default; not shown.
    pub(super) fn meaning<T>(&self, key: &'static str, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        self.walk.read(&self.scalar(key)?, read)
    }

    /// A text that has a meaning.
    pub(super) fn valued<T>(
        &mut self,
        key: &'static str,
        default: Valued<T>,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Valued<T> {
        let scalar = self.scalar(key);
        let read = scalar.as_ref().and_then(|scalar| self.walk.read(scalar, read));
        let valued = match (scalar, read) {
            (Some(scalar), Some(value)) => Valued::new(value, scalar.raw),
            _ => default,
        };
        self.show(key, Shown::Text(valued.shown.clone()));
        valued
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.valued(key, Valued::new(default, default.to_string()), read_bool).value
    }

    /// A switch that is off unless written; shown if it is on.
    pub(super) fn switched_on(&mut self, key: &'static str) -> bool {
        let Some(scalar) = self.scalar(key) else { return false };
        let on = self.walk.read(&scalar, read_bool).unwrap_or(false);
        if on {
            self.show(key, Shown::Text(scalar.raw.into_owned()));
        }
        on
    }

    pub(super) fn count(&mut self, key: &'static str, default: u64) -> u64 {
        self.valued(key, Valued::new(default, default.to_string()), read_count).value
    }

    pub(super) fn duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let default = Valued::new(default, units::format_duration(default));
        self.valued(key, default, units::duration).value
    }

    /// A duration that must be more than nothing.
    pub(super) fn some_duration(&mut self, key: &'static str, default: Duration) -> Duration {
        let duration = self.duration(key, default);
        if duration.is_zero() {
            let shown = units::format_duration(default);
            self.wrong(
                key,
                Wrong::new("this must be more than 0", format!("write {shown}, the default, or remove it")),
            );
        }
        duration
    }

    /// A text that must never be shown.
    pub(super) fn secret(&mut self, key: &'static str) -> Option<Secret> {
        let scalar = self.scalar(key)?;
        self.show(key, Shown::Text(self.walk.hide(&scalar)));
        Some(Secret::new(scalar.value))
    }

    /// A mapping of the kind `section` behind `key`.
    pub(super) fn section(&self, key: &'static str, section: &'static Section) -> Option<Fields<'w>> {
        Fields::open(self.walk, &self.get(key)?, section)
    }

    /// As [`Fields::section`]; one that is not written has all its defaults.
    pub(super) fn section_or_defaults(&self, key: &'static str, section: &'static Section) -> Fields<'w> {
        let written = self.section(key, section);
        written.unwrap_or_else(|| Fields::empty(self.walk, self.pos, &self.path_of(key), section))
    }

    /// The items of the list behind `key`; empty if there is none.
    pub(super) fn items(&self, key: &'static str) -> Vec<Item<'w>> {
        self.get(key).map(|item| self.walk.items(&item)).unwrap_or_default()
    }

    /// The texts of the list behind `key`; shown if the list is written.
    pub(super) fn texts(&mut self, key: &'static str) -> Vec<Scalar<'w>> {
        let texts: Vec<_> = self.items(key).iter().filter_map(|item| self.walk.scalar(item)).collect();
        if self.has(key) {
            self.show(key, Shown::Seq(texts.iter().map(|text| Shown::Text(text.raw.to_string())).collect()));
        }
        texts
    }

    /// The keys and values of the mapping behind `key`, whose keys are the user's own names.
    pub(super) fn names(&self, key: &'static str) -> Vec<Named<'w>> {
        self.get(key).and_then(|item| self.walk.names(&item)).unwrap_or_default()
    }
}

impl<'w> Walk<'w> {
    /// The text of `item` with variables replaced; in files where none are, they stand for themselves.
    pub(super) fn scalar(&self, item: &Item<'w>) -> Option<Scalar<'w>> {
        let text = self.text(item)?;
        let written = |raw, value| Scalar { pos: item.node.pos, key: item.path.clone(), raw, value };
        if self.included.is_some() {
            if text.contains("${") {
                // Not quoted: it may be a part of a password.
                let message = "\"${\" begins an environment variable in the main file only, here it stands for itself";
                self.warning(item.node.pos, &item.path, Wrong::new(message, "write this job into the main file"));
            }
            return Some(written(scalar::escape(text), Cow::Borrowed(text)));
        }
        match scalar::expand(text, self.env) {
            Ok(value) => Some(written(Cow::Borrowed(text), value)),
            Err(wrong) => {
                self.problem(item.node.pos, &item.path, wrong);
                None
            }
        }
    }

    /// The text of `item` as it stands.
    pub(super) fn text(&self, item: &Item<'w>) -> Option<&'w str> {
        let Value::Scalar { text, .. } = &item.node.value else {
            self.unexpected(item, SCALAR);
            return None;
        };
        Some(text)
    }

    /// What the text means; a problem does not show the value of a variable.
    pub(super) fn read<T>(&self, scalar: &Scalar<'w>, read: impl FnOnce(&str) -> Result<T, Wrong>) -> Option<T> {
        match read(&scalar.value) {
            Ok(value) => Some(value),
            Err(wrong) => {
                self.problem(scalar.pos, &scalar.key, scalar.without_value(wrong));
                None
            }
        }
    }

    /// The items of a list, without those that are `null`, which are problems.
    pub(super) fn items(&self, item: &Item<'w>) -> Vec<Item<'w>> {
        let Value::Sequence(nodes) = &item.node.value else {
            self.unexpected(item, LIST);
            return Vec::new();
        };
        let items = nodes.iter().enumerate().map(|(at, node)| Item { node, path: format!("{}[{at}]", item.path) });
        let (empty, items): (Vec<_>, Vec<_>) = items.partition(|item| item.node.value == Value::Null);
        for item in empty {
            self.problem(item.node.pos, &item.path, Wrong::new("this item of the list is empty", "remove it"));
        }
        items
    }

    /// The keys and values of a mapping; keys that stand twice, are no texts or have swallowed their value are problems.
    pub(super) fn names(&self, item: &Item<'w>) -> Option<Vec<Named<'w>>> {
        let Value::Mapping(pairs) = &item.node.value else {
            self.unexpected(item, "a mapping of keys and values");
            return None;
        };
        let mut named: Vec<Named<'w>> = Vec::new();
        let mut seen: HashMap<&str, Pos> = HashMap::new();
        for (key, node) in pairs {
            let Value::Scalar { text: name, .. } = &key.value else {
                let message = format!("a key is a single word, this is {}", key.value.kind());
                self.problem(key.pos, &item.path, Wrong::new(message, "write key: value"));
                continue;
            };
            // `{password:x}` is one word without a value; what follows the colon is not shown, it could be a secret.
            if let (Value::Scalar { quoted: false, .. }, Some((head, _)), Value::Null) =
                (&key.value, name.split_once(':'), &node.value)
            {
                let wrong = Wrong::new("a blank is missing behind the ':'", "write key: value");
                self.problem(key.pos, &path_of(&item.path, head), wrong);
                continue;
            }
            let path = path_of(&item.path, name);
            match seen.insert(name, key.pos) {
                Some(first) => {
                    let message = format!("this key stands twice here, first in line {}", first.line);
                    self.problem(key.pos, &path, Wrong::new(message, "remove one of the two"));
                }
                None => named.push(Named { name, pos: key.pos, item: Item { node, path } }),
            }
        }
        Some(named)
    }

    /// How a secret is shown: as a placeholder, unless it is a mere reference.
    pub(super) fn hide(&self, scalar: &Scalar<'w>) -> String {
        if scalar.raw == PLACEHOLDER {
            self.warning(
                scalar.pos,
                &scalar.key,
                Wrong::new(
                    format!("{PLACEHOLDER} is what --print shows in place of a secret, and is taken for the secret"),
                    "write the secret, ${NAME}, or a file",
                ),
            );
        }
        if scalar::is_reference(&scalar.raw) { scalar.raw.to_string() } else { PLACEHOLDER.to_owned() }
    }

    fn unexpected(&self, item: &Item<'w>, expected: &str) {
        let value = &item.node.value;
        let message = format!("{expected} is expected here, this is {}", value.kind());
        let instead = match (expected, value) {
            (LIST, Value::Mapping(_)) => "write a dash before its first key",
            (LIST, _) => "write it in brackets: [value]",
            (SCALAR, _) => "write one value",
            _ => "write key: value in the lines below",
        };
        self.problem(item.node.pos, &item.path, Wrong::new(message, instead));
    }
}

const LIST: &str = "a list";
const SCALAR: &str = "a single value";

/// The path of `key` below `path`; a key that is no plain word stands in quotes.
fn path_of(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let key = if plain { key.to_owned() } else { format!("{:?}", clean(key)) };
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// The words that Go's YAML takes for booleans.
pub(super) fn read_bool(text: &str) -> Result<bool, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "y" => Ok(true),
        "false" | "no" | "off" | "n" => Ok(false),
        _ => Err(Wrong::new(format!("{:?} is neither true nor false", clean(text)), "write true or false")),
    }
}

pub(super) fn read_count(text: &str) -> Result<u64, Wrong> {
    let refused = |instead: &str| Wrong::new(format!("{:?} is not a whole number", clean(text)), instead.to_owned());
    if text.starts_with('-') {
        return Err(Wrong::new(format!("{:?} is negative", clean(text)), "write a whole number, 0 or more"));
    }
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused("write digits only"));
    }
    // To Prometheus' YAML these are octal digits.
    if text.len() > 1 && text.starts_with('0') {
        return Err(refused("write it without the 0 in front"));
    }
    text.parse().map_err(|_| refused("write at most 18446744073709551615"))
}

/// Whether a value switches off what we do not do, so that nothing is lost by not knowing it.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Scalar { text, .. } => matches!(text.as_str(), "" | "0" | "0s") || read_bool(text) == Ok(false),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(pairs) => pairs.iter().all(|(_, value)| is_off(&value.value)),
    }
}
