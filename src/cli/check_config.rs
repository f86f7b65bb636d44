//! `meshscrape check config`: everything that is wrong with configuration files, before they are used.
//!
//! Each finding is one line, `file:line:column: key: what is wrong; what to write instead`, on the error output;
//! warnings say `warning:` before the key. The standard output says which files are good, or with `--print` shows the
//! effective configuration. No socket is opened, and no file but those named and those that they name for more jobs.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::config::{Config, Loaded, Problem, load};

/// Checks `files` and says what was found; the exit code is 0 if all can be used and 1 if not.
///
/// # Errors
/// If the findings cannot be written.
pub(super) fn run(files: &[PathBuf], print: bool, out: &mut impl Write, err: &mut impl Write) -> io::Result<u8> {
    let env = |name: &str| std::env::var(name).ok();
    let mut code = 0;
    for file in files {
        let loaded = load(file, &env);
        for warning in &loaded.warnings {
            writeln!(err, "{}", as_warning(warning))?;
        }
        match loaded.config {
            Ok(config) if print => show(file, &config, files.len() > 1, out)?,
            Ok(config) => writeln!(out, "{}: good, {}", file.display(), summary(&config))?,
            Err(problems) => {
                code = 1;
                for problem in &problems {
                    writeln!(err, "{problem}")?;
                }
                writeln!(err, "{}: {}", file.display(), counted(problems.len(), "problem"))?;
            }
        }
    }
    Ok(code)
}

/// Checks `files` and writes what was found as one JSON document; the exit code is that of [`run`].
///
/// # Errors
/// If it cannot be written.
pub(super) fn json(files: &[PathBuf], out: &mut impl Write) -> io::Result<u8> {
    let env = |name: &str| std::env::var(name).ok();
    let files: Vec<_> = files.iter().map(|file| CheckedFile::of(file, load(file, &env))).collect();
    let document = Document { ok: files.iter().all(|file| file.ok), files };
    serde_json::to_writer_pretty(&mut *out, &document)?;
    out.write_all(b"\n")?;
    Ok(if document.ok { 0 } else { 1 })
}

/// What was found, for programs.
#[derive(Serialize)]
struct Document {
    ok: bool,
    files: Vec<CheckedFile>,
}

#[derive(Serialize)]
struct CheckedFile {
    file: String,
    ok: bool,
    /// The names of its jobs and receivers; none if it cannot be used.
    jobs: Vec<String>,
    receivers: Vec<String>,
    problems: Vec<Finding>,
    warnings: Vec<Finding>,
}

#[derive(Serialize)]
struct Finding {
    /// The file that is at fault: this one, or one that it names.
    file: String,
    line: Option<usize>,
    column: Option<usize>,
    key: String,
    message: String,
    instead: Option<String>,
}

impl CheckedFile {
    fn of(file: &Path, loaded: Loaded) -> Self {
        let (config, problems) = match loaded.config {
            Ok(config) => (Some(config), Vec::new()),
            Err(problems) => (None, problems),
        };
        let jobs = config.iter().flat_map(|config| &config.scrape_configs).map(|job| job.job_name.to_string());
        let receivers = config.iter().flat_map(|config| &config.remote_write).map(|receiver| receiver.name.clone());
        Self {
            file: file.display().to_string(),
            ok: config.is_some(),
            jobs: jobs.collect(),
            receivers: receivers.collect(),
            problems: problems.into_iter().map(Finding::of).collect(),
            warnings: loaded.warnings.into_iter().map(Finding::of).collect(),
        }
    }
}

impl Finding {
    fn of(problem: Problem) -> Self {
        let Problem { file, pos, key, message, instead } = problem;
        Self {
            file: file.display().to_string(),
            line: pos.map(|pos| pos.line),
            column: pos.map(|pos| pos.column),
            key,
            message,
            instead,
        }
    }
}

/// The same line, with a word that says that the file can be used.
fn as_warning(warning: &Problem) -> Problem {
    let key = if warning.key.is_empty() { "warning".to_owned() } else { format!("warning: {}", warning.key) };
    Problem { key, ..warning.clone() }
}

fn show(file: &Path, config: &Config, several: bool, out: &mut impl Write) -> io::Result<()> {
    if several {
        writeln!(out, "---\n# {}", file.display())?;
    }
    out.write_all(config.effective.as_bytes())
}

fn summary(config: &Config) -> String {
    let jobs = counted(config.scrape_configs.len(), "job");
    let receivers = counted(config.remote_write.len(), "receiver");
    format!("{jobs}, {receivers}")
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("1 {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `run` says of one file with this content: code, standard output, error output, with `FILE` for its path.
    fn checked(content: &str, print: bool) -> (u8, String, String) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("c.yaml");
        std::fs::write(&file, content).expect("write");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(std::slice::from_ref(&file), print, &mut out, &mut err).expect("written to memory");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8").replace(file.to_str().expect("UTF-8"), "FILE");
        (code, text(out), text(err))
    }

    #[test]
    fn a_good_file_says_what_it_holds() {
        let (code, out, err) = checked("remote_write: [{url: 'https://prom/api/v1/write'}]\nrule_files: [x]\n", false);
        assert_eq!((code, out.as_str()), (0, "FILE: good, no jobs, 1 receiver\n"));
        assert!(err.starts_with("FILE:2:1: warning: rule_files: this is ignored: "), "{err}");
    }

    #[test]
    fn every_problem_is_a_line_and_the_code_is_1() {
        let (code, out, err) = checked("globl: {}\nscrape_configs: [{}]\n", true);
        assert_eq!((code, out.as_str()), (1, ""));
        let lines: Vec<_> = err.lines().collect();
        assert!(lines.contains(&"FILE:1:1: globl: there is no such key in the file; write global"));
        assert!(
            lines.iter().any(|line| line.starts_with("FILE:2:18: scrape_configs[0].job_name: this key is missing"))
        );
        assert_eq!(lines.last(), Some(&"FILE: 2 problems"));
    }

    #[test]
    fn print_shows_the_effective_file() {
        let (code, out, err) = checked("", true);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.starts_with("global:\n  scrape_interval: 1m\n  scrape_timeout: 10s\n"), "{out}");
    }

    #[test]
    fn programs_get_places_and_words_apart() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (good, bad) = (dir.path().join("good.yaml"), dir.path().join("bad.yaml"));
        std::fs::write(&good, "scrape_configs: [{job_name: a}]\nrule_files: [x]\n").expect("written");
        std::fs::write(&bad, "globl: {}\n").expect("written");
        let checked = |files: &[PathBuf]| {
            let mut out = Vec::new();
            let code = json(files, &mut out).expect("written to memory");
            (code, serde_json::from_slice::<serde_json::Value>(&out).expect("JSON"))
        };
        let (code, document) = checked(&[good.clone(), bad]);
        assert_eq!((code, &document["ok"]), (1, &false.into()));
        let [good_file, bad_file] = [&document["files"][0], &document["files"][1]];
        assert_eq!((&good_file["ok"], &good_file["jobs"][0]), (&true.into(), &"a".into()));
        let warnings = good_file["warnings"].as_array().expect("a list");
        assert!(warnings.iter().any(|one| one["key"] == "rule_files" && one["line"] == 2), "{warnings:?}");
        let problem = &bad_file["problems"][0];
        assert_eq!((&problem["line"], &problem["column"], &problem["key"]), (&1.into(), &1.into(), &"globl".into()));
        assert_eq!(problem["instead"], "write global");
        let (code, document) = checked(&[good]);
        assert_eq!((code, &document["ok"]), (0, &true.into()));
    }

    #[test]
    fn a_file_that_is_not_there() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run(&["no/such/file.yaml".into()], false, &mut out, &mut err).expect("written to memory");
        assert_eq!((code, out.as_slice()), (1, b"".as_slice()));
        assert!(String::from_utf8_lossy(&err).starts_with("no/such/file.yaml: the file cannot be read: "));
    }
}
