//! YAML (and so JSON) as a tree in which every node knows its place.
//!
//! Only shape and place: a scalar is the text that was written, and whether it means a number, a duration or a secret is
//! for the one who asked for it. What always holds for a tree that exists: its depth, its number of nodes and the nodes
//! that aliases multiplied are bounded, so an "alias bomb" is an error and not a lack of memory; aliases and merge keys
//! (`<<`) are resolved; tags are those of YAML's own types or none. A key that stands twice is kept twice, in order: the
//! reader of the tree reports it with both places. Only the first document counts, as in Prometheus.
//!
//! This module must not know what the text is about, nor where it came from.

use std::collections::{HashMap, HashSet};
use std::fmt;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Tag};
use thiserror::Error;

#[cfg(test)]
mod tests;
mod words;

/// How deep collections may nest.
const MAX_DEPTH: usize = 64;
/// How many nodes a document may write: a file of some ten thousand targets stays far below.
const MAX_NODES: usize = 1_000_000;
/// How many nodes aliases may add.
const MAX_ALIASED_NODES: usize = 100_000;

/// A place in a text; both numbers begin at 1, the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pos {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    /// Where it begins: for an alias the alias itself, for nodes below it the place where they are written.
    pub pos: Pos,
    /// The value.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other scalar.
    Scalar {
        /// The text as it was written, without quotes and with escapes and line folding resolved.
        text: String,
        /// Whether it was quoted (or a block scalar, or tagged `!!str`), and so can be nothing but text.
        quoted: bool,
    },
    /// A list.
    Sequence(Vec<Node>),
    /// Keys and values in the order of the text; a key may stand twice.
    Mapping(Vec<(Node, Node)>),
}

impl Value {
    /// What it is, for a message: "a list", "a mapping", …
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }
}

/// Why a text is no YAML that we read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {}, column {}: {message}", pos.line, pos.column)]
pub struct YamlError {
    /// Where.
    pub pos: Pos,
    /// What is wrong.
    pub message: String,
}

/// Reads the first document of `text`; `None` if there is nothing in it.
pub fn parse(text: &str) -> Result<Option<Node>, YamlError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let end = end(text);
    // The parser notices the end of the text at the beginning of one more line.
    let place = |marker: &Marker| Pos { line: marker.line(), column: marker.col() + 1 }.min(end);
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| words::refused(text, error.info(), place(error.marker())))?;
        if matches!(event, Event::DocumentEnd | Event::StreamEnd) {
            break;
        }
        builder.take(event, place(&span.start))?;
    }
    Ok(builder.root.filter(|root| root.value != Value::Null))
}

/// The place behind the last character.
fn end(text: &str) -> Pos {
    let (before, last) = lines(text).enumerate().last().unwrap_or_default();
    Pos { line: before + 1, column: last.chars().count() + 1 }
}

/// The lines as YAML counts them, without their ends: a lone carriage return is one, too.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(['\n', '\r']) else { return rest.take() };
        let (line, behind) = text.split_at(at);
        rest = behind.strip_prefix("\r\n").or(behind.get(1..));
        Some(line)
    })
}

/// Makes a tree of the parser's events, without recursion.
#[derive(Default)]
struct Builder {
    /// The collections that are open, outermost first.
    open: Vec<Open>,
    root: Option<Node>,
    /// What each anchor names, by the parser's number for it; an anchor still open is not in here.
    anchors: HashMap<usize, Node>,
    nodes: usize,
    aliased: usize,
}

struct Open {
    pos: Pos,
    anchor: usize,
    mapping: bool,
    /// Items of a list; keys and values in turn of a mapping.
    items: Vec<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, pos: Pos) -> Result<(), YamlError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(text.into_owned(), style, tag.as_deref(), pos)?;
                self.close(Node { pos, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => self.open(false, "seq", anchor, tag.as_deref(), pos),
            Event::MappingStart(anchor, tag) => self.open(true, "map", anchor, tag.as_deref(), pos),
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                let value = if open.mapping { mapping(open.items)? } else { Value::Sequence(open.items) };
                self.close(Node { pos: open.pos, value }, open.anchor)
            }
            Event::Alias(anchor) => self.alias(anchor, pos),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn open(
        &mut self,
        mapping: bool,
        own_tag: &str,
        anchor: usize,
        tag: Option<&Tag>,
        pos: Pos,
    ) -> Result<(), YamlError> {
        if tag.is_some_and(|tag| !(tag.is_yaml_core_schema() && tag.suffix == own_tag)) {
            return Err(unfit_tag(pos));
        }
        if self.open.len() == MAX_DEPTH {
            return Err(YamlError { pos, message: too_deep() });
        }
        self.open.push(Open { pos, anchor, mapping, items: Vec::new() });
        Ok(())
    }

    /// A node is complete: it goes into the collection around it.
    fn close(&mut self, node: Node, anchor: usize) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return error(node.pos, format_args!("the document has more than {MAX_NODES} values"));
        }
        if anchor > 0 {
            self.count_aliased(&node)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, pos: Pos) -> Result<(), YamlError> {
        let Some(named) = self.anchors.get(&anchor) else {
            return error(pos, format_args!("this alias stands inside of what it names"));
        };
        let node = Node { pos, value: named.value.clone() };
        self.count_aliased(&node)?;
        if self.open.len() + depth(&node) > MAX_DEPTH {
            return error(pos, format_args!("with this alias, values nest deeper than {MAX_DEPTH} levels"));
        }
        self.close(node, 0)
    }

    /// Counts the nodes of a copy, an anchor's or an alias'.
    fn count_aliased(&mut self, node: &Node) -> Result<(), YamlError> {
        self.aliased += count(node);
        if self.aliased > MAX_ALIASED_NODES {
            return error(
                node.pos,
                format_args!("aliases multiply the document to more than {MAX_ALIASED_NODES} values"),
            );
        }
        Ok(())
    }
}

fn scalar(text: String, style: ScalarStyle, tag: Option<&Tag>, pos: Pos) -> Result<Value, YamlError> {
    let plain = style == ScalarStyle::Plain;
    let is_null = matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL");
    let Some(tag) = tag else {
        return Ok(if plain && is_null { Value::Null } else { Value::Scalar { text, quoted: !plain } });
    };
    match (tag.is_yaml_core_schema(), tag.suffix.as_str()) {
        (true, "str") => Ok(Value::Scalar { text, quoted: true }),
        (true, "null") if is_null => Ok(Value::Null),
        (true, "int" | "float" | "bool") => Ok(Value::Scalar { text, quoted: false }),
        // The lone "!" says "not by its looks": text.
        (false, "!") if tag.handle.is_empty() => Ok(Value::Scalar { text, quoted: true }),
        _ => Err(unfit_tag(pos)),
    }
}

/// Pairs up keys and values, and puts the content of merge keys (`<<`) after the keys that stand here themselves.
fn mapping(items: Vec<Node>) -> Result<Value, YamlError> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut merged = Vec::new();
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        if matches!(&key.value, Value::Scalar { text, quoted: false } if text == "<<") {
            merged.push(value);
        } else {
            pairs.push((key, value));
        }
    }
    if merged.is_empty() {
        return Ok(Value::Mapping(pairs));
    }
    let mut known: HashSet<Value> = pairs.iter().map(|(key, _)| key.value.clone()).collect();
    for node in merged {
        let parts = match node.value {
            Value::Sequence(parts) => parts,
            value => vec![Node { pos: node.pos, value }],
        };
        for part in parts {
            let Value::Mapping(others) = part.value else {
                return error(
                    part.pos,
                    format_args!("\"<<\" takes a mapping or a list of mappings, this is {}", part.value.kind()),
                );
            };
            for (key, value) in others {
                if known.insert(key.value.clone()) {
                    pairs.push((key, value));
                }
            }
        }
    }
    Ok(Value::Mapping(pairs))
}

fn children(node: &Node) -> Vec<&Node> {
    match &node.value {
        Value::Null | Value::Scalar { .. } => Vec::new(),
        Value::Sequence(items) => items.iter().collect(),
        Value::Mapping(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).collect(),
    }
}

fn count(node: &Node) -> usize {
    1 + children(node).into_iter().map(count).sum::<usize>()
}

/// How many levels of collections `node` has.
fn depth(node: &Node) -> usize {
    match node.value {
        Value::Null | Value::Scalar { .. } => 0,
        _ => 1 + children(node).into_iter().map(depth).max().unwrap_or(0),
    }
}

fn too_deep() -> String {
    format!("lists and mappings nest deeper than {MAX_DEPTH} levels")
}

/// The tag is not quoted: a password may begin with "!".
fn unfit_tag(pos: Pos) -> YamlError {
    let message = "this tag does not fit here; remove it, or put a value that begins with ! in quotes".to_owned();
    YamlError { pos, message }
}

fn error<T>(pos: Pos, message: fmt::Arguments<'_>) -> Result<T, YamlError> {
    Err(YamlError { pos, message: message.to_string() })
}
