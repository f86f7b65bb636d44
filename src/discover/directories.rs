//! Watching directories for changes of the files in them.
//!
//! A file is replaced by renaming another one over it, or by swapping a symbolic link anywhere on the way to it, so
//! what is watched is never the file: it is its directory, the directory that it really lies in, and the directory of each
//! link on the way. A directory that does not exist is waited for in its nearest ancestor. Where the system gives no
//! watches, whoever reads the files must poll; that is counted, once for each directory.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;
use tracing::warn;

/// Device and inode: a directory made anew under its old name needs a new watch.
type DirectoryId = (u64, u64);

/// A set of watched directories.
pub(super) struct Directories {
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, DirectoryId>,
    /// Those that the system refused to watch, for saying so once.
    refused: BTreeMap<PathBuf, DirectoryId>,
    errors: Counter,
}

impl Directories {
    /// Watches nothing yet. `wake` is notified on each change in what will be watched; `errors` counts what cannot be.
    pub(super) fn new(wake: Arc<Notify>, errors: Counter) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(&event.kind)) {
                wake.notify_one();
            }
        });
        if let Err(error) = &watcher {
            warn!(%error, "files of targets cannot be watched and are read at their refresh_interval only");
            errors.inc();
        }
        Self { watcher: watcher.ok(), watched: BTreeMap::new(), refused: BTreeMap::new(), errors }
    }

    /// Watches everything on which the content of `paths` depends, and nothing else. To be called before reading them, so
    /// that no change falls between. It blocks on the file system.
    pub(super) fn follow<'p>(&mut self, paths: impl Iterator<Item = &'p Path>) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted = BTreeMap::new();
        for path in paths {
            want(&mut wanted, parent(path));
            if let Ok(real) = path.canonicalize() {
                want(&mut wanted, parent(&real));
            }
            for link in path.ancestors().filter(|part| part.is_symlink()) {
                want(&mut wanted, parent(link));
            }
        }
        for (gone, _) in self.watched.iter().filter(|(path, id)| wanted.get(*path) != Some(id)) {
            // A directory that was removed has taken its watch along.
            let _ = watcher.unwatch(gone);
        }
        let mut refused = BTreeMap::new();
        for (path, id) in &wanted {
            if self.watched.get(path) == Some(id) {
                continue;
            }
            if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                if self.refused.get(path) != Some(id) {
                    warn!(directory = %path.display(), %error, "cannot watch this directory for files of targets");
                    self.errors.inc();
                }
                refused.insert(path.clone(), *id);
            }
        }
        wanted.retain(|path, _| !refused.contains_key(path));
        self.watched = wanted;
        self.refused = refused;
    }
}

/// Adds `directory`, or its nearest ancestor that exists.
fn want(wanted: &mut BTreeMap<PathBuf, DirectoryId>, directory: &Path) {
    let found = directory.ancestors().map(|part| if part.as_os_str().is_empty() { Path::new(".") } else { part });
    let found = found.filter_map(|part| part.canonicalize().ok()).find(|real| real.is_dir());
    if let Some(real) = found
        && let Ok(metadata) = real.metadata()
    {
        wanted.insert(real, (metadata.dev(), metadata.ino()));
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Whether files may differ now. Opening and reading is no change (we do it ourselves), and neither are permissions.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        EventKind::Modify(ModifyKind::Metadata(_)) => false,
        _ => true,
    }
}
