//! Making durable what was written, on another thread, so that no write waits for it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::time::Instant;

use super::Disk;
use crate::spool::log::{NotSynced, Unsynced};
use crate::spool::storage::Storage;

/// What another thread is syncing.
pub(super) struct Syncing<F> {
    thread: JoinHandle<Result<(), NotSynced>>,
    files: Arc<Unsynced<F>>,
}

impl<S: Storage> Disk<S> {
    /// Has synced what was written; with `wait`, until all of it was tried once.
    ///
    /// # Errors
    /// The first of those that there were: what fails by itself keeps nothing else from being synced.
    pub(super) fn sync(&mut self, wait: bool) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        let have_names = log.check_names();
        if let Ok(false) = have_names {
            tracing::error!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                "somebody has deleted files of the queue on disk; what comes from now on is written anew"
            );
        }
        let mut outcome = have_names.map(drop);
        if let Some(Syncing { thread, files }) = self.syncing.take_if(|syncing| wait || syncing.thread.is_finished()) {
            let abnormal = |_| Err(files.failed(io::Error::other("BUG: syncing ended abnormally")));
            let synced = thread.join().unwrap_or_else(abnormal);
            outcome = outcome.and(synced.map_err(|failed| log.are_not_synced(failed)));
        }
        // What was written is synced also where what is done cannot be written.
        outcome = outcome.and(self.save(Instant::now()));
        let Some(log) = &mut self.log else { return outcome };
        // The disk is slower than we are: the next time.
        if self.syncing.is_some() {
            return outcome;
        }
        for _ in 0..if wait { log.parts_to_sync() } else { 1 } {
            let (files, opened) = log.take_unsynced();
            let files = Arc::new(files);
            outcome = outcome.and(opened);
            if files.is_empty() {
                continue;
            }
            let synced = if self.sync_apart && !wait {
                let (thread, theirs) = (std::thread::Builder::new().name("spool-sync".to_owned()), Arc::clone(&files));
                let begun = thread.spawn(move || theirs.sync()).map_err(|error| files.failed(error));
                begun.map(|thread| self.syncing = Some(Syncing { thread, files }))
            } else {
                files.sync()
            };
            outcome = outcome.and(synced.map_err(|failed| log.are_not_synced(failed)));
        }
        outcome
    }
}
