//! Targets in files: `file_sd_configs`.
//!
//! One task reads the files of one entry: at its start, on every change in their directories, and at every
//! `refresh_interval`. What always holds: a file that cannot be read or understood keeps the targets it had, and is
//! reported; a file that is gone has none.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::content::{self, ContentError, Format};
use super::{Answer, Group, Metrics, Problem};
use crate::config::{FileSd, matching_files};
use crate::model::{Candidate, clean};
use crate::watched::{self, Directories};

/// The largest file that is read: some hundred thousand targets.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The label that holds the path of the file.
const FILEPATH: &str = "__meta_filepath";

#[derive(Debug, Error)]
enum FileError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is not a regular file")]
    NotRegular,
    #[error("it has more than {} MiB; split it into several files", MAX_FILE_BYTES >> 20)]
    TooLarge,
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error(transparent)]
    Content(#[from] ContentError),
}

/// Reads the files of `config` until `cancel` or until `report` says that nobody listens, and reports each change of
/// what they say; the first report comes in any case.
pub(super) async fn run<R: Future<Output = bool>>(
    config: FileSd,
    metrics: Metrics,
    cancel: CancellationToken,
    report: impl Fn(Answer) -> R,
) {
    let (directories, changes) = watched::directories();
    let mut reader = Reader { patterns: config.files, directories, files: BTreeMap::new(), metrics };
    let mut last = None;
    loop {
        // The file system may hang, as network file systems do; the runtime's threads must not hang with it.
        let refreshed = tokio::task::spawn_blocking(move || {
            reader.refresh();
            reader
        });
        reader = tokio::select! {
            () = cancel.cancelled() => return,
            refreshed = refreshed => match refreshed {
                Ok(reader) => reader,
                // Only when the runtime itself ends: reading does not panic.
                Err(_) => return,
            },
        };
        let answer = reader.answer();
        if last.as_ref() != Some(&answer) {
            last = Some(answer.clone());
            if !report(answer).await {
                return;
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = changes.wait(config.refresh_interval) => {}
        }
    }
}

struct Reader {
    patterns: Vec<PathBuf>,
    directories: Directories,
    files: BTreeMap<PathBuf, File>,
    metrics: Metrics,
}

/// What is remembered of one file.
#[derive(Default)]
struct File {
    candidates: Group,
    /// Why its last reading failed.
    problem: Option<String>,
}

impl Reader {
    fn refresh(&mut self) {
        // Watched before it is listed, and again before it is read, so that no change falls between.
        follow(&mut self.directories, self.patterns.iter().chain(self.files.keys()), &self.metrics);
        let mut found = BTreeSet::new();
        for pattern in &self.patterns {
            match matching_files(pattern) {
                Ok(paths) => found.extend(paths),
                // The directory is there and cannot be listed: nothing is known of what is in it.
                Err(error) => {
                    warn!(pattern = %pattern.display(), %error, "cannot list files of targets");
                    self.metrics.file_read_errors.inc();
                    let known = self.files.keys().filter(|path| path.parent() == pattern.parent());
                    found.extend(known.cloned());
                }
            }
        }
        follow(&mut self.directories, self.patterns.iter().chain(&found), &self.metrics);
        let mut before = std::mem::take(&mut self.files);
        for path in found {
            let known = before.remove(&path);
            match read(&path, &self.metrics) {
                Ok(candidates) => {
                    if known.is_some_and(|known| known.problem.is_some()) {
                        info!(file = %path.display(), "a file of targets can be used again");
                    }
                    self.files.insert(path, File { candidates: Arc::new(candidates), problem: None });
                }
                Err(FileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
                    self.metrics.file_gone(&path.to_string_lossy());
                }
                Err(error) => {
                    self.metrics.file_read_errors.inc();
                    let mut file = known.unwrap_or_default();
                    let problem = clean(&error.to_string()).into_owned();
                    if file.problem.as_ref() != Some(&problem) {
                        warn!(
                            file = %path.display(),
                            error = problem,
                            kept = file.candidates.len(),
                            "a file of targets cannot be used, the targets it had are kept"
                        );
                    }
                    file.problem = Some(problem);
                    self.files.insert(path, file);
                }
            }
        }
        for gone in before.keys() {
            self.metrics.file_gone(&gone.to_string_lossy());
        }
    }

    fn answer(&self) -> Answer {
        let mut answer = Answer { complete: true, ..Answer::default() };
        for (path, file) in &self.files {
            answer.groups.push(Arc::clone(&file.candidates));
            answer.problems.extend(
                file.problem.iter().map(|why| Problem { source: path.display().to_string(), message: why.clone() }),
            );
        }
        answer
    }
}

/// Watches what `paths` depend on.
fn follow<'p>(directories: &mut Directories, paths: impl Iterator<Item = &'p PathBuf>, metrics: &Metrics) {
    for error in directories.follow(paths.map(PathBuf::as_path)) {
        warn!(%error, "changes of target files are found at their refresh_interval only");
        metrics.file_watcher_errors.inc();
    }
}

fn read(path: &Path, metrics: &Metrics) -> Result<Vec<Candidate>, FileError> {
    // Opened without waiting: a pipe would wait for somebody to write.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(FileError::NotRegular);
    }
    let modified = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    let text = String::from_utf8(bytes).map_err(|_| FileError::NotUtf8)?;
    let shown = path.to_string_lossy();
    let candidates = content::candidates_of((FILEPATH, &shown), format_of(path), &text)?;
    metrics.file_mtime(&shown, modified.unwrap_or_default().as_secs_f64());
    Ok(candidates)
}

/// What the name of a file says of its content.
fn format_of(path: &Path) -> Format {
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("json") => Format::Json,
        _ => Format::Yaml,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_the_format() {
        for (name, format) in
            [("a.json", Format::Json), ("a.JSON", Format::Json), ("a.yml", Format::Yaml), ("a.YAML", Format::Yaml)]
        {
            assert_eq!(format_of(Path::new(name)), format, "{name}");
        }
    }

    #[test]
    fn a_directory_with_the_name_of_a_file_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let metrics = Metrics::new(&mut prometheus_client::registry::Registry::default());
        let inside = directory.path().join("d.yml");
        std::fs::create_dir(&inside).expect("a directory");
        assert!(matches!(read(&inside, &metrics), Err(FileError::NotRegular)));
    }
}
