//! From a located tree to a checked configuration.
//!
//! One function per part of the file reads its keys, in any order, and goes on after a problem with the default in
//! place of the bad value, so that one run finds everything. [`Walk`] gathers what is found; [`Fields`](fields::Fields) is one mapping
//! with its known keys, and remembers what stands for each of them in the effective configuration. A configuration is
//! handed out only if no problem was found, so what stands in for a bad value never takes effect.

mod auth;
mod fields;
mod file;
mod identity;
mod job;
mod keys;
mod receiver;
mod relabel;
mod scalar;
mod targets;
mod tls;

use std::cell::RefCell;
use std::path::{Path, PathBuf};

pub use keys::{Section, sections};

use super::problem::{Problem, Wrong};
use super::secret::PLACEHOLDER;
use super::{Config, Env};
use crate::yaml::{Node, Pos};
use scalar::Scalar;

/// What a walk found.
pub(super) struct Walked {
    pub(super) config: Config,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

/// Walks the tree of `file`; `None` is an empty file, which is a valid one.
pub(super) fn walk(file: &Path, root: Option<&Node>, env: Env<'_>) -> Walked {
    let walk = Walk { file, env, problems: RefCell::default(), warnings: RefCell::default() };
    let config = file::read(&walk, root);
    let sorted = |found: RefCell<Vec<Problem>>| {
        let mut found = found.into_inner();
        found.sort_by_key(|problem| problem.pos);
        // What stands behind an anchor is read once for each alias.
        found.dedup();
        found
    };
    Walked { config, problems: sorted(walk.problems), warnings: sorted(walk.warnings) }
}

/// What all parts of a walk share.
struct Walk<'w> {
    file: &'w Path,
    env: Env<'w>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

impl Walk<'_> {
    fn problem(&self, pos: Pos, key: &str, wrong: Wrong) {
        self.problems.borrow_mut().push(self.found(pos, key, wrong));
    }

    fn warning(&self, pos: Pos, key: &str, wrong: Wrong) {
        self.warnings.borrow_mut().push(self.found(pos, key, wrong));
    }

    fn found(&self, pos: Pos, key: &str, wrong: Wrong) -> Problem {
        Problem {
            file: self.file.to_owned(),
            pos: Some(pos),
            key: key.to_owned(),
            message: wrong.message,
            instead: wrong.instead,
        }
    }

    /// A path of the file: relative ones begin at the file's directory.
    fn path(&self, text: &str) -> PathBuf {
        self.file.parent().unwrap_or(Path::new("")).join(text)
    }
}
