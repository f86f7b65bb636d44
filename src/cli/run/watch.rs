//! Watching the configuration: has it read again when it says something else.
//!
//! What counts is what the files say, not that they were touched: another comment is no other configuration, and a file
//! that cannot be used is told once and not at every look at it. Looked at are the file and the files of jobs that it
//! names; a certificate or token that is replaced is seen by those who use it.

use std::path::PathBuf;
use std::time::Duration;

use tracing::{info, warn};

use super::load;
use crate::config::Loaded;
use crate::lifecycle::Reload;
use crate::watched::{self, Directories};

/// How often the files are read where no change is seen.
const POLL: Duration = Duration::from_secs(30);

struct Watcher {
    file: PathBuf,
    directories: Directories,
    /// What the files said last.
    known: Loaded,
}

/// Asks for a reload whenever `file` comes to something else than `known`, or than it came to last.
pub(super) async fn follow(file: PathBuf, known: Loaded, reload: Reload) {
    let (directories, changes) = watched::directories();
    let mut watcher = Watcher { file, directories, known };
    loop {
        // The file system may hang, and the runtime's threads must not hang with it.
        let read = tokio::task::spawn_blocking(move || {
            let changed = watcher.read();
            (watcher, changed)
        });
        let Ok((back, changed)) = read.await else { return };
        watcher = back;
        if changed {
            info!(file = %watcher.file.display(), "the configuration has changed, reading it again");
            // The outcome is in the log already.
            let _ = reload.ask().await;
            // It may name other files now, which are not watched yet.
            continue;
        }
        changes.wait(POLL).await;
    }
}

impl Watcher {
    /// Whether the files say something else than they did.
    fn read(&mut self) -> bool {
        // Watched before they are read, so that no change falls between.
        for error in self.directories.follow(self.known.files.iter().map(PathBuf::as_path)) {
            warn!(%error, "changes of the configuration are found by polling only");
        }
        let found = load(&self.file);
        let changed = found.config != self.known.config;
        self.known = found;
        changed
    }
}
