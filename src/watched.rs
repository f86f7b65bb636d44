//! Watched directories: when files may differ from what was read of them.
//!
//! A file is replaced by renaming another one over it, or by swapping a symbolic link anywhere on the way to it, so what
//! is watched is never the file: it is its directory, the directory that it really lies in, and the directory of each
//! link on the way. A directory that does not exist is waited for in its nearest ancestor.
//!
//! Two things always hold. Nobody depends on being told: a system may give no watches, a network file system reports
//! nothing, so whoever waits here names the time after which it reads anyway. And nobody is told too often: a flood of
//! events makes at most twenty readings a second, and yet a change is told 50 ms after it, or after the reading that it
//! fell into, at the latest.
//!
//! It knows inotify and nobody else: not what the files are, not what becomes of them, not who is to hear of an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use thiserror::Error;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long a change may go on before it is told: a file that is written in place changes several times, and files that
/// belong together come one after the other.
const SETTLE: Duration = Duration::from_millis(20);
/// The least time from one reading to the next.
const GAP: Duration = Duration::from_millis(50);

/// Why changes in a directory are not reported.
#[derive(Debug, Error)]
pub enum WatchError {
    /// The system gives no watches at all; its limits on inotify instances are low.
    #[error("no directory can be watched: {0}")]
    Nothing(notify::Error),
    /// This one directory cannot be watched.
    #[error("{path} cannot be watched: {1}", path = .0.display())]
    Directory(PathBuf, notify::Error),
}

/// A set of watched directories.
#[derive(Debug)]
pub struct Directories {
    watcher: Option<RecommendedWatcher>,
    /// Why there is no watcher, until it is told.
    untold: Option<WatchError>,
    watched: BTreeSet<PathBuf>,
    /// Those that the system refused to watch, for saying so once.
    refused: BTreeSet<PathBuf>,
}

/// Hears of changes in the directories that it was made with.
#[derive(Debug)]
pub struct Changes {
    wake: Arc<Notify>,
}

/// A set of directories, empty yet, and what hears of changes in them.
pub fn directories() -> (Directories, Changes) {
    let wake = Arc::new(Notify::new());
    let woken = Arc::clone(&wake);
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.map_or(true, |event| is_change(&event.kind)) {
            woken.notify_one();
        }
    });
    let (watcher, untold) = match watcher {
        Ok(watcher) => (Some(watcher), None),
        Err(error) => (None, Some(WatchError::Nothing(error))),
    };
    (Directories { watcher, untold, watched: BTreeSet::new(), refused: BTreeSet::new() }, Changes { wake })
}

impl Directories {
    /// Watches everything on which the content of `paths` depends, and nothing else. To be called before each reading of
    /// them, so that no change falls between. It blocks on the file system. What cannot be watched is returned, each once.
    #[must_use = "whoever polls instead should say so"]
    pub fn follow<'p>(&mut self, paths: impl IntoIterator<Item = &'p Path>) -> Vec<WatchError> {
        let Some(watcher) = &mut self.watcher else { return self.untold.take().into_iter().collect() };
        let mut wanted = BTreeSet::new();
        for path in paths {
            wanted.extend(nearest(parent(path)));
            if let Ok(real) = path.canonicalize() {
                wanted.extend(nearest(parent(&real)));
            }
            for link in path.ancestors().filter(|part| part.is_symlink()) {
                wanted.extend(nearest(parent(link)));
            }
        }
        for gone in self.watched.difference(&wanted) {
            // A directory that was removed has taken its watch along.
            let _ = watcher.unwatch(gone);
        }
        let mut told = Vec::new();
        let mut refused = BTreeSet::new();
        for directory in &wanted {
            // Also where it is watched: it may have been made anew under its old name, even with its old inode, and a
            // watch may have gone with the old one after this was asked for. If it is the same directory, nothing happens.
            if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
                refused.insert(directory.clone());
                if !self.refused.contains(directory) {
                    told.push(WatchError::Directory(directory.clone(), error));
                }
            }
        }
        wanted.retain(|directory| !refused.contains(directory));
        self.watched = wanted;
        self.refused = refused;
        told
    }
}

impl Changes {
    /// Waits until the files should be read again: after a change, or when `poll` has passed without one. To be called when
    /// a reading has ended; what changed since the last call counts, also during that reading.
    pub async fn wait(&self, poll: Duration) {
        let earliest = Instant::now() + GAP;
        tokio::select! {
            () = self.wake.notified() => tokio::time::sleep_until(earliest.max(Instant::now() + SETTLE)).await,
            () = tokio::time::sleep(poll) => {}
        }
    }
}

/// The directory, or its nearest ancestor that exists, by its real name.
fn nearest(directory: &Path) -> Option<PathBuf> {
    let parts = directory.ancestors().map(|part| if part.as_os_str().is_empty() { Path::new(".") } else { part });
    parts.filter_map(|part| part.canonicalize().ok()).find(|real| real.is_dir())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Whether files may differ now. Opening and reading is no change: whoever watches does it too.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[tokio::test(start_paused = true)]
    async fn a_flood_is_told_twenty_times_a_second() {
        let (_directories, changes) = directories();
        let start = Instant::now();
        for reading in 1..=20 {
            changes.wake.notify_one();
            changes.wait(HOUR).await;
            let expected = GAP * reading;
            assert!((expected..expected + GAP / 5).contains(&start.elapsed()), "{reading}: {:?}", start.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_change_is_told_when_it_has_settled() {
        let (_directories, changes) = directories();
        let mut waiting = Box::pin(changes.wait(HOUR));
        tokio::select! {
            () = &mut waiting => panic!("nothing has changed"),
            () = tokio::time::sleep(HOUR / 2) => changes.wake.notify_one(),
        }
        let changed = Instant::now();
        waiting.await;
        assert!((SETTLE..SETTLE * 2).contains(&changed.elapsed()), "{:?}", changed.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_change_the_files_are_polled() {
        let (_directories, changes) = directories();
        let start = Instant::now();
        changes.wait(HOUR).await;
        assert!((HOUR..HOUR + GAP).contains(&start.elapsed()), "{:?}", start.elapsed());
    }

    #[test]
    fn what_a_path_depends_on_is_watched_and_no_more() {
        let home = tempfile::tempdir().expect("a directory");
        let home = home.path().canonicalize().expect("a directory");
        let at = |name: &str| home.join(name);
        for name in ["one", "two/deep", "three"] {
            fs::create_dir_all(at(name)).expect("a directory");
        }
        fs::write(at("two/deep/file"), "").expect("a file");
        std::os::unix::fs::symlink("two/deep/file", at("link")).expect("a link");
        std::os::unix::fs::symlink("../two", at("one/two")).expect("a link");
        let (mut directories, _changes) = directories();
        // What is followed, and what is watched for it.
        for (path, expected) in [
            ("one/file", vec!["one"]),
            ("three/not/yet/file", vec!["three"]),
            ("link", vec!["", "two/deep"]),
            ("one/two/deep/file", vec!["one", "two/deep"]),
        ] {
            let refused = directories.follow([at(path).as_path()]);
            assert!(refused.is_empty(), "{path}: {refused:?}");
            let expected: BTreeSet<PathBuf> =
                expected.into_iter().map(|name| at(name).components().collect()).collect();
            assert_eq!(directories.watched, expected, "{path}");
        }
    }
}
