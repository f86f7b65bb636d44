//! Templates of replacements, `$1-${name}`, as Go expands them.
//!
//! `$` begins a group's name if the longest run of letters, digits and underscores after it is not empty, or if
//! `${…}` holds nothing but such a run; `$$` is a dollar; any other `$` stands for itself. A name of digits is a group's
//! number unless it has a leading zero. A group that does not exist or took no part expands to nothing. The `regex`
//! crate's own expansion differs in what it takes for malformed, so it is not used.

use std::sync::LazyLock;

use regex::{Captures, Regex};

use super::re2::Pattern;

/// What a name may consist of: Go's `IsLetter` and `IsDigit`, and the underscore.
static NAME: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{Nd}_]+").expect("a fixed pattern"));

/// Numbers from here on are taken as names.
const MAX_GROUP_NUMBER: u64 = 100_000_000;

/// A template, resolved against the groups of its pattern.
#[derive(Clone, Debug)]
pub(super) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(String),
    /// The first of these groups that took part in the match.
    Groups(Vec<usize>),
}

impl Template {
    /// Reads `text`, whose groups are those of `pattern`. Every text is a template.
    pub(super) fn new(text: &str, pattern: &Pattern) -> Self {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            literal.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                literal.push('$');
                rest = after;
            } else if let Some((name, after)) = name(rest) {
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Groups(groups(name, pattern)));
                rest = after;
            } else {
                literal.push('$');
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Self { parts }
    }

    /// The text if it depends on no match at all.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// Appends the expansion for one match.
    pub(super) fn expand(&self, captures: &Captures<'_>, out: &mut String) {
        for part in &self.parts {
            match part {
                Part::Literal(text) => out.push_str(text),
                Part::Groups(groups) => {
                    if let Some(group) = groups.iter().find_map(|&number| captures.get(number)) {
                        out.push_str(group.as_str());
                    }
                }
            }
        }
    }
}

/// The name after a `$` and what follows it.
fn name(rest: &str) -> Option<(&str, &str)> {
    let inside = rest.strip_prefix('{');
    let text = inside.unwrap_or(rest);
    let end = NAME.find(text)?.end();
    let (name, after) = text.split_at(end);
    match inside {
        Some(_) => after.strip_prefix('}').map(|after| (name, after)),
        None => Some((name, after)),
    }
}

fn groups(name: &str, pattern: &Pattern) -> Vec<usize> {
    let number = if name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0')) {
        name.parse::<u64>().ok().filter(|&number| number < MAX_GROUP_NUMBER)
    } else {
        None
    };
    match number {
        Some(number) => usize::try_from(number).ok().filter(|&number| number < pattern.groups()).into_iter().collect(),
        None => pattern.groups_named(name),
    }
}
