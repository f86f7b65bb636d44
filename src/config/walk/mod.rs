//! From a located tree to a checked configuration.
//!
//! One function per part of the file reads its keys, in any order, and goes on after a problem with the default in
//! place of the bad value, so that one run finds everything. [`Walk`] gathers what is found; [`Fields`](fields::Fields) is one mapping
//! with its known keys, and remembers what stands for each of them in the effective configuration. A configuration is
//! handed out only if no problem was found, so what stands in for a bad value never takes effect. The files of
//! `scrape_config_files` are walked like the main one, each by a [`Walk`] of its own.

mod auth;
mod fields;
mod file;
mod headers;
mod http_sd;
mod identity;
mod istio;
mod job;
mod jobs;
mod keys;
mod kubernetes;
mod oauth2;
mod proxy;
mod receiver;
mod relabel;
mod scalar;
mod tables;
mod tainted;
mod targets;
mod tenant;
mod tls;
mod unique;
mod urls;

use std::cell::{Cell, RefCell};
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
    /// Whether nothing is wrong but that there are receivers nobody can send to; then `config` is without them.
    pub(super) only_receivers: bool,
    /// The files of jobs, and the patterns that they were found by.
    pub(super) files: Vec<PathBuf>,
}

/// Walks the tree of `file`; `None` is an empty file, which is a valid one.
pub(super) fn walk(file: &Path, root: Option<&Node>, env: Env<'_>) -> Walked {
    let walk = Walk::new(file, env, None);
    let config = file::read(&walk, root);
    let files = walk.files.take();
    let unreachable = walk.unreachable.get();
    let Found { problems, warnings } = walk.end();
    let only_receivers = !problems.is_empty() && problems.len() == unreachable;
    Walked { config, problems, warnings, only_receivers, files }
}

/// What all parts of a walk through one file share.
struct Walk<'w> {
    file: &'w Path,
    env: Env<'w>,
    /// Whether this is a file of `scrape_config_files`, where no variables are replaced.
    included: Option<Included>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    /// How many of the problems are receivers with a URL of a scheme that is not ours.
    unreachable: Cell<usize>,
    /// What was found in the files of `scrape_config_files`, in their order.
    elsewhere: RefCell<Found>,
    /// Which files those are, and the patterns that they were found by.
    files: RefCell<Vec<PathBuf>>,
}

/// How a file of `scrape_config_files` is seen from the main file.
struct Included {
    /// Its directory, as the main file writes it; `None`: the same.
    dir: Option<String>,
}

/// Problems and warnings, file by file, in each in its order.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl<'w> Walk<'w> {
    fn new(file: &'w Path, env: Env<'w>, included: Option<Included>) -> Self {
        Self {
            file,
            env,
            included,
            problems: RefCell::default(),
            warnings: RefCell::default(),
            unreachable: Cell::default(),
            elsewhere: RefCell::default(),
            files: RefCell::default(),
        }
    }

    /// All that was found.
    fn end(self) -> Found {
        let sorted = |found: RefCell<Vec<Problem>>, elsewhere: Vec<Problem>| {
            let mut found = found.into_inner();
            found.sort_by_key(|problem| problem.pos);
            // What stands behind an anchor is read once for each alias.
            found.dedup();
            found.extend(elsewhere);
            found
        };
        let Found { problems, warnings } = self.elsewhere.into_inner();
        Found { problems: sorted(self.problems, problems), warnings: sorted(self.warnings, warnings) }
    }

    /// Takes what was found in a file of `scrape_config_files`.
    fn adopt(&self, found: Found) {
        let mut elsewhere = self.elsewhere.borrow_mut();
        elsewhere.problems.extend(found.problems);
        elsewhere.warnings.extend(found.warnings);
    }
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

    /// How the path that is written as `raw` would be written in the main file.
    fn shown_path(&self, raw: &str) -> String {
        match &self.included {
            Some(Included { dir: Some(dir) }) if !raw.starts_with('/') => format!("{dir}/{raw}"),
            _ => raw.to_owned(),
        }
    }
}
