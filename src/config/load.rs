//! From a file to a [`Config`], or to everything that is wrong with it.

use std::path::{Path, PathBuf};

use super::Config;
use super::problem::{Problem, Wrong};
use super::walk::{Walked, walk};
use crate::yaml;

/// Where environment variables are looked up; `None` is "not set".
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The outcome of loading a file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, or every problem, file by file and in each in its order; then never empty.
    pub config: Result<Config, Vec<Problem>>,
    /// If all that is wrong are receivers with a URL that is neither `http` nor `https`, the configuration without them: an
    /// agent that starts can do the rest of its work. Else, and if nothing is wrong, `None`.
    pub without_unreachable: Option<Config>,
    /// What is accepted, but probably not what was meant; in the same order.
    pub warnings: Vec<Problem>,
    /// What the outcome depends on: the file, the files of jobs that were found, and the patterns that they were found by.
    pub files: Vec<PathBuf>,
}

/// Reads and checks `file` and the files of jobs that it names. Nothing else is opened, and no socket.
pub fn load(file: &Path, env: Env<'_>) -> Loaded {
    match text_of(file) {
        Ok(text) => parse(file, &text, env),
        Err(problem) => refused(file, problem),
    }
}

/// Checks `text` as the content of `file`, whose directory relative paths begin at.
pub fn parse(file: &Path, text: &str, env: Env<'_>) -> Loaded {
    let root = match tree(file, text) {
        Ok(root) => root,
        Err(problem) => return refused(file, problem),
    };
    let Walked { config, problems, warnings, only_receivers, mut files } = walk(file, root.as_ref(), env);
    files.push(file.to_owned());
    let without_unreachable = only_receivers.then(|| config.clone());
    let config = if problems.is_empty() { Ok(config) } else { Err(problems) };
    Loaded { config, without_unreachable, warnings, files }
}

fn refused(file: &Path, problem: Problem) -> Loaded {
    let config = Err(vec![problem]);
    Loaded { config, without_unreachable: None, warnings: Vec::new(), files: vec![file.to_owned()] }
}

/// The text of a regular file.
pub(super) fn read(file: &Path) -> Result<String, Problem> {
    match file.metadata() {
        Ok(found) if !found.is_file() => {
            Err(problem(file, None, Wrong::new("this is no regular file", "name files only")))
        }
        _ => text_of(file),
    }
}

/// The tree of a file's text; `None` if there is nothing in it.
pub(super) fn tree(file: &Path, text: &str) -> Result<Option<yaml::Node>, Problem> {
    yaml::parse(text).map_err(|error| problem(file, Some(error.pos), Wrong::only(error.message)))
}

fn text_of(file: &Path) -> Result<String, Problem> {
    let bytes = std::fs::read(file)
        .map_err(|error| problem(file, None, Wrong::only(format!("the file cannot be read: {error}"))))?;
    String::from_utf8(bytes).map_err(|error| {
        let text = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
        let (line, last) = text.split('\n').enumerate().last().unwrap_or_default();
        let pos = yaml::Pos { line: line + 1, column: last.chars().count() + 1 };
        problem(file, Some(pos), Wrong::new("this is not UTF-8 text", "save the file as UTF-8"))
    })
}

fn problem(file: &Path, pos: Option<yaml::Pos>, wrong: Wrong) -> Problem {
    let Wrong { message, instead } = wrong;
    Problem { file: file.to_owned(), pos, key: String::new(), message, instead }
}
