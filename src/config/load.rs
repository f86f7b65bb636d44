//! From a file to a [`Config`], or to everything that is wrong with it.

use std::path::Path;

use super::Config;
use super::problem::{Problem, Wrong};
use super::walk::{Walked, walk};
use crate::yaml;

/// Where environment variables are looked up; `None` is "not set".
pub type Env<'e> = &'e dyn Fn(&str) -> Option<String>;

/// The outcome of loading a file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The configuration, or every problem in the order of the file; then never empty.
    pub config: Result<Config, Vec<Problem>>,
    /// What is accepted, but probably not what was meant; in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks `file`. Nothing else is opened, and no socket.
pub fn load(file: &Path, env: Env<'_>) -> Loaded {
    match std::fs::read(file) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => parse(file, &text, env),
            Err(error) => {
                let text = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
                let (line, last) = text.split('\n').enumerate().last().unwrap_or_default();
                let pos = yaml::Pos { line: line + 1, column: last.chars().count() + 1 };
                refused(file, Some(pos), Wrong::new("this is not UTF-8 text", "save the file as UTF-8"))
            }
        },
        Err(error) => refused(file, None, Wrong::only(format!("the file cannot be read: {error}"))),
    }
}

/// Checks `text` as the content of `file`, whose directory relative paths begin at.
pub fn parse(file: &Path, text: &str, env: Env<'_>) -> Loaded {
    let root = match yaml::parse(text) {
        Ok(root) => root,
        Err(error) => return refused(file, Some(error.pos), Wrong::only(error.message)),
    };
    let Walked { config, problems, warnings } = walk(file, root.as_ref(), env);
    Loaded { config: if problems.is_empty() { Ok(config) } else { Err(problems) }, warnings }
}

fn refused(file: &Path, pos: Option<yaml::Pos>, wrong: Wrong) -> Loaded {
    let Wrong { message, instead } = wrong;
    let problem = Problem { file: file.to_owned(), pos, key: String::new(), message, instead };
    Loaded { config: Err(vec![problem]), warnings: Vec::new() }
}
