//! Making durable what was written, on another thread, so that no write waits for it.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::Disk;
use crate::spool::log::{NotSynced, Unsynced};
use crate::spool::storage::Storage;

/// What another thread is syncing.
pub(super) struct Syncing<F> {
    thread: JoinHandle<Result<(), NotSynced>>,
    files: Arc<Unsynced<F>>,
}

impl<S: Storage> Disk<S> {
    /// Has synced what was written; with `wait`, until it is.
    pub(super) fn sync(&mut self, wait: bool) -> io::Result<()> {
        let Some(log) = &mut self.log else { return Ok(()) };
        if !log.check_name()? {
            tracing::error!(
                queue = self.queue.name(),
                directory = %self.shown_place.display(),
                "somebody has deleted files of the queue on disk; what comes from now on is written anew"
            );
        }
        // Samples are synced also where what is done cannot be written.
        let saved = log.save_done();
        self.save_due = None;
        if let Some(Syncing { thread, files }) = self.syncing.take_if(|syncing| wait || syncing.thread.is_finished()) {
            let abnormal = |_| Err(files.failed(io::Error::other("BUG: syncing ended abnormally")));
            thread.join().unwrap_or_else(abnormal).map_err(|failed| log.are_not_synced(failed))?;
        }
        // The disk is slower than we are: the next time.
        if self.syncing.is_some() {
            return saved;
        }
        loop {
            let files = Arc::new(log.take_unsynced()?);
            if files.is_empty() {
                return saved;
            }
            if self.sync_apart && !wait {
                let (thread, theirs) = (std::thread::Builder::new().name("spool-sync".to_owned()), Arc::clone(&files));
                let syncing = thread.spawn(move || theirs.sync());
                let syncing = syncing.map_err(|error| log.are_not_synced(files.failed(error)))?;
                self.syncing = Some(Syncing { thread: syncing, files });
                return saved;
            }
            files.sync().map_err(|failed| log.are_not_synced(failed))?;
            if !(wait && log.has_unsynced()) {
                return saved;
            }
        }
    }
}
