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

/// Looks at all but those in use; may block. It is `now_ms`.
pub(super) fn look_after(home: &Home, in_use: &HashSet<String>, max_age: Duration, now_ms: i64, told: &mut Told) {
    let Ok(entries) = std::fs::read_dir(home.spool()) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Not a link to one.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if in_use.contains(&name) {
            // Should its receiver go again, that is news.
            told.remove(&name);
            continue;
        }
        match look_at(home, &name, max_age, now_ms, told) {
            // Somebody has just begun to use it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Block, TargetId, WriteFormat};

    const AGE: Duration = Duration::from_secs(60);

    /// A log that holds a block which arrived at 0 ms.
    fn leave(home: &Home, name: &str, done: bool) {
        let limits = LogLimits { segment_bytes: 1_000, max_bytes: 1_000, max_age: AGE };
        let mut log = Log::open(home.directory(name).expect("it is free"), limits, 0, false).expect("it opens");
        let (format, elements) = (WriteFormat::V1, Bytes::new());
        let block =
            Block { target: TargetId(1), receiver: 0, format, samples: 1, min_ms: 0, max_ms: 0, raw_len: 0, elements };
        log.append(&[(0, block)], 0).expect("written");
        if done {
            log.finish(0, 1);
            log.save_done().expect("written");
        }
    }

    #[test]
    fn what_is_undelivered_is_kept_until_it_is_too_old_and_the_rest_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::take(dir.path()).expect("nobody has it");
        for (name, done) in [("delivered", true), ("undelivered", false), ("configured", true)] {
            leave(&home, name, done);
        }
        let in_use = HashSet::from(["configured".to_owned()]);
        let left = |now_ms| {
            look_after(&home, &in_use, AGE, now_ms, &mut Told::default());
            let mut names: Vec<_> = std::fs::read_dir(home.spool())
                .expect("a directory")
                .map(|entry| entry.expect("readable").file_name().into_string().expect("a name"))
                .collect();
            names.sort_unstable();
            names
        };
        assert_eq!(left(60_000), ["configured", "undelivered"]);
        assert_eq!(left(60_001), ["configured"]);
    }
}
