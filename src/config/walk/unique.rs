//! Names that may be given once, over all files.

use std::collections::HashMap;
use std::path::PathBuf;

use super::Walk;
use crate::config::problem::Wrong;
use crate::yaml::Pos;

/// Where a name stands, or what has none.
pub(super) struct Place {
    pub(super) pos: Pos,
    pub(super) key: String,
    /// The name as it may be shown; `None` if it was made up from the block.
    pub(super) shown: Option<String>,
}

/// The names that were given, and where.
pub(super) struct Unique {
    key: &'static str,
    first: HashMap<String, (PathBuf, usize)>,
}

impl Unique {
    pub(super) fn new(key: &'static str) -> Self {
        Self { key, first: HashMap::new() }
    }

    /// Says so if `name`, which stands at `place` of the file of `walk`, was given before.
    pub(super) fn check(&mut self, walk: &Walk<'_>, name: &str, place: &Place) {
        let here = (walk.file.to_owned(), place.pos.line);
        let Some((file, line)) = self.first.get(name) else {
            self.first.insert(name.to_owned(), here);
            return;
        };
        let first = if *file == here.0 { format!("line {line}") } else { format!("line {line} of {}", file.display()) };
        let key = self.key;
        let wrong = match &place.shown {
            Some(shown) => Wrong::new(
                format!("{shown} is already the {key} in {first}"),
                format!("write a {key} that no other has"),
            ),
            None => Wrong::new(
                format!("this says the same as the block in {first}"),
                format!("remove one of the two, or give each a {key}"),
            ),
        };
        walk.problem(place.pos, &place.key, wrong);
    }
}
