//! Directories in the spool that no queue uses: those of receivers that are configured no more, or in another way.
//!
//! What is in them is kept as long as it would be for a receiver that is down, in case theirs comes back; then, or if nothing
//! undelivered is in them, they are removed. Each is spoken of once.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use super::home::Home;
use super::log::{Log, LogLimits};
use super::storage::Storage;

/// Those that were spoken of.
pub(super) type Told = HashSet<String>;

/// Looks at all of them; may block. It is `now_ms`.
pub(super) fn look_after(home: &Home, max_age: Duration, now_ms: i64, told: &mut Told) {
    let Ok(entries) = std::fs::read_dir(home.spool()) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Not a link to one.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        match look_at(home, &name, max_age, now_ms, told) {
            // It is no stray.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                told.remove(&name);
            }
            Err(error) if told.insert(name.clone()) => {
                tracing::warn!(directory = %home.path_of(&name).display(), %error, "what an earlier receiver left cannot be looked at");
            }
            _ => {}
        }
    }
}

fn look_at(home: &Home, name: &str, max_age: Duration, now_ms: i64, told: &mut Told) -> io::Result<()> {
    let limits = LogLimits { segment_bytes: u64::MAX, max_bytes: u64::MAX, max_age };
    let mut log = Log::open(home.directory(name)?, limits, 0, false)?;
    let path = home.path_of(name);
    let (mut blocks, mut samples) = (0, 0);
    while log.overdue(0, now_ms).is_some()
        && let Some((_, dropped)) = log.drop_oldest()
    {
        blocks += dropped.blocks;
        samples += dropped.samples;
    }
    log.collect()?;
    log.save_done()?;
    let directory = path.display();
    if blocks > 0 {
        tracing::warn!(%directory, blocks, samples, "what was queued for a receiver that is configured no more is too old: it was dropped");
    }
    let pending = log.pending();
    if pending.blocks == 0 {
        let storage = log.into_storage();
        for (file, _) in storage.list()? {
            storage.remove(&file)?;
        }
        std::fs::remove_dir(&path)?;
        tracing::info!(%directory, "removed what a receiver that is configured no more has left; nothing was undelivered");
    } else if told.insert(name.to_owned()) {
        tracing::warn!(
            %directory,
            blocks = pending.blocks,
            samples = pending.samples,
            max_age_seconds = max_age.as_secs(),
            "samples are queued for a receiver that is configured no more: they are kept for max_age, in case it comes back \
             under the same name and URL"
        );
    }
    Ok(())
}
