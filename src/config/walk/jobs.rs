//! All jobs: those of `scrape_configs`, and behind them those of the files that `scrape_config_files` names.
//!
//! Such a file holds `scrape_configs` and nothing else, inherits `global` of the main file, and no variable is replaced in
//! it: who may write a job may not read the environment. Relative paths in it begin at its own directory. It is read by
//! a walk of its own, so that every problem names its file; a file is read once, and the main file is none of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fields::{Fields, Item};
use super::file::Inherited;
use super::scalar::{self, Scalar};
use super::tables::FILE_OF_JOBS;
use super::tenant::Tenancy;
use super::unique::Unique;
use super::{Included, Walk, job};
use crate::config::problem::Wrong;
use crate::config::shown::Shown;
use crate::config::{Global, ScrapeConfig, load, pattern};
use crate::model::clean;

const FILES: &str = "scrape_config_files";

/// Reads the jobs of the main file, `fields`, and of the files that it names.
pub(super) fn read(
    fields: &mut Fields<'_>,
    global: &Global,
    inherited: &Inherited,
    tenancy: &Tenancy,
) -> Vec<Arc<ScrapeConfig>> {
    let mut jobs =
        Jobs { global, inherited, tenancy, names: Unique::new("job_name"), found: Vec::new(), shown: Vec::new() };
    jobs.take(fields);
    for file in files(fields) {
        jobs.include(fields.walk, file);
    }
    fields.show("scrape_configs", Shown::Seq(jobs.shown));
    jobs.found
}

struct Jobs<'g> {
    global: &'g Global,
    inherited: &'g Inherited,
    tenancy: &'g Tenancy,
    names: Unique,
    found: Vec<Arc<ScrapeConfig>>,
    shown: Vec<Shown>,
}

impl Jobs<'_> {
    fn take(&mut self, fields: &Fields<'_>) {
        for item in fields.items("scrape_configs") {
            if let Some((job, name, effective)) =
                job::read(fields.walk, &item, self.global, self.inherited, self.tenancy)
            {
                self.names.check(fields.walk, &job.job_name, &name);
                self.found.push(Arc::new(job));
                self.shown.push(effective);
            }
        }
    }

    fn include(&mut self, main: &Walk<'_>, file: File) {
        let walk = Walk::new(&file.path, main.env, Some(Included { dir: file.dir }));
        match load::read(&file.path).and_then(|text| load::tree(&file.path, &text)) {
            Ok(None) => {}
            Ok(Some(root)) => {
                let item = Item { node: &root, path: String::new() };
                if let Some(fields) = Fields::open(&walk, &item, &FILE_OF_JOBS) {
                    self.take(&fields);
                }
            }
            Err(problem) => walk.problems.borrow_mut().push(problem),
        }
        main.adopt(walk.end());
    }
}

/// A file of jobs.
struct File {
    path: PathBuf,
    /// Its directory, as the main file writes it; `None`: that of the main file.
    dir: Option<String>,
}

/// The files that the patterns of the main file name, in the order of the patterns and of their names.
fn files(fields: &Fields<'_>) -> Vec<File> {
    let walk = fields.walk;
    let mut files = Vec::new();
    // The real path of each file, and how the pattern that found it is written.
    let mut known = vec![(real(walk.file), None)];
    for item in fields.items(FILES) {
        let Some(written) = walk.scalar(&item) else { continue };
        let Some(dir) = directory(walk, &written) else { continue };
        let Some(paths) = matching(walk, &written) else { continue };
        if paths.is_empty() {
            let message = format!("{written} finds no file");
            walk.warning(written.pos, &written.key, Wrong::new(message, "check the path, or remove it"));
        }
        for path in paths {
            match known.iter().find(|(other, _)| *other == real(&path)) {
                None => {
                    known.push((real(&path), Some(written.to_string())));
                    files.push(File { path, dir: dir.clone() });
                }
                Some((_, None)) => {
                    let message = "this finds the file that it stands in";
                    walk.problem(written.pos, &written.key, Wrong::new(message, "put the other files elsewhere"));
                }
                Some((_, Some(pattern))) => {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    let message = format!("this finds {:?}, which {pattern} finds already", clean(&name));
                    walk.problem(written.pos, &written.key, Wrong::new(message, "let each file be found once"));
                }
            }
        }
    }
    files
}

/// The directory of a pattern as it is written, so that it can be shown; no answer if that cannot be said.
fn directory(walk: &Walk<'_>, written: &Scalar<'_>) -> Option<Option<String>> {
    let (dir, name) = written.raw.rsplit_once('/').map_or((None, &*written.raw), |(dir, name)| (Some(dir), name));
    if scalar::expand(name, walk.env).is_ok_and(|name| name.contains('/')) {
        let message = "a variable in the last part of this path holds a directory, too";
        walk.problem(written.pos, &written.key, Wrong::new(message, "write the directory before it"));
        return None;
    }
    Some(dir.map(str::to_owned))
}

/// The files that one pattern names, if it is one; a file without a `*` that does not exist is none.
fn matching(walk: &Walk<'_>, written: &Scalar<'_>) -> Option<Vec<PathBuf>> {
    walk.read(written, pattern::check)?;
    let pattern = walk.path(&written.value);
    let found = pattern::matching_files(&pattern);
    walk.files.borrow_mut().push(pattern);
    match found {
        Ok(paths) => {
            let paths: Vec<_> = paths.into_iter().filter(|path| path.symlink_metadata().is_ok()).collect();
            walk.files.borrow_mut().extend(paths.iter().cloned());
            Some(paths)
        }
        Err(error) => {
            let message = format!("the directory of {written} cannot be listed: {error}");
            walk.problem(written.pos, &written.key, Wrong::only(message));
            None
        }
    }
}

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
