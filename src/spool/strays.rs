//! Directories in the spool that no queue uses: those of receivers that are configured no more, or in another way.
//!
//! What is in them is kept as long as it would be for a receiver that is down, in case theirs comes back: as its log says, and
//! counted from when this process saw it first since a receiver had it, by a clock that does not step. Then, or if nothing
//! undelivered is in them, they are removed. Each is spoken of once. A directory that is not one of ours is left alone, and so
//! is every file in ours that no log makes; one that cannot be read whole is looked at again the next time.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::home::Home;
use super::log::{Log, LogLimits, is_aside, is_of_a_log, kept_for};
use super::storage::Storage;

/// How long a log is kept that does not say for how long it was to be.
const UNKNOWN_AGE: Duration = Duration::from_secs(2 * 60 * 60);

/// Those that were seen.
pub(super) type Known = HashMap<String, Seen>;

/// What is known of one.
pub(super) struct Seen {
    /// When it was first.
    since: Instant,
    /// Whether it was spoken of.
    told: bool,
    /// How long what is undelivered in it is kept: until then it need not be read again.
    kept_for: Option<Duration>,
}

/// Looks at all but those in use; may block.
pub(super) fn look_after(home: &Home, in_use: &HashSet<String>, now: Instant, known: &mut Known) {
    // Should the receiver of one go again, that is news.
    known.retain(|name, _| !in_use.contains(name));
    let Ok(entries) = std::fs::read_dir(home.spool()) else { return };
    for entry in entries.flatten() {
        let Ok(name) = entry.file_name().into_string() else { continue };
        // Not a link to one.
        if in_use.contains(&name) || !entry.file_type().is_ok_and(|kind| kind.is_dir()) || !holds_a_log(&entry.path()) {
            continue;
        }
        let seen = known.entry(name.clone()).or_insert(Seen { since: now, told: false, kept_for: None });
        let age = now.saturating_duration_since(seen.since);
        if seen.kept_for.is_some_and(|kept_for| age <= kept_for) {
            continue;
        }
        match look_at(home, &name, age, seen) {
            // Somebody has just begun to use it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) if !std::mem::replace(&mut seen.told, true) => {
                tracing::warn!(directory = %home.path_of(&name).display(), %error, "what an earlier receiver left cannot be looked at");
            }
            _ => {}
        }
    }
}

/// Whether anything in this directory is of a log.
fn holds_a_log(path: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(path) else { return false };
    let names: Vec<_> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.iter().any(|name| is_of_a_log(name))
}

fn look_at(home: &Home, name: &str, age: Duration, seen: &mut Seen) -> io::Result<()> {
    let storage = home.directory(name)?;
    let max_age = kept_for(&storage)?.unwrap_or(UNKNOWN_AGE);
    let limits = LogLimits { segment_bytes: u64::MAX, max_bytes: u64::MAX, max_age };
    let mut log = Log::open(storage, limits, 0, false)?;
    let path = home.path_of(name);
    let directory = path.display();
    if age > max_age {
        let (mut blocks, mut samples) = (0, 0);
        while let Some((_, dropped)) = log.drop_oldest() {
            blocks += dropped.blocks;
            samples += dropped.samples;
        }
        if blocks > 0 {
            tracing::warn!(%directory, blocks, samples, "what was queued for a receiver that is configured no more is too old: it was dropped");
        }
    }
    log.collect(0)?;
    log.save_done()?;
    let pending = log.pending();
    if pending.blocks == 0 {
        let storage = log.into_storage();
        let files = storage.list()?;
        // What was set aside is kept for a look at it, as long as what is whole would be.
        if age <= max_age && files.iter().any(|file| is_aside(file)) {
            return Ok(());
        }
        for file in files.iter().filter(|file| is_of_a_log(file)) {
            storage.remove(file)?;
        }
        match std::fs::remove_dir(&path) {
            // Somebody else keeps something there.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => return Ok(()),
            removed => removed?,
        }
        tracing::info!(%directory, "removed what a receiver that is configured no more has left; nothing was undelivered");
        return Ok(());
    }
    seen.kept_for = Some(max_age);
    if !std::mem::replace(&mut seen.told, true) {
        tracing::warn!(
            %directory,
            blocks = pending.blocks,
            samples = pending.samples,
            max_age_seconds = max_age.as_secs(),
            "samples are queued for a receiver that is configured no more: they are kept for max_disk_age, in case it \
             comes back under the same URL, tenant, and user or client_id"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{Block, TargetId, WriteFormat};
    use crate::spool::count::Count;

    const AGE: Duration = Duration::from_secs(60);

    /// A log that holds a block which arrived at 0 ms.
    fn leave(home: &Home, name: &str, done: bool) {
        let limits = LogLimits { segment_bytes: 1_000, max_bytes: 1_000, max_age: AGE };
        let mut log = Log::open(home.directory(name).expect("it is free"), limits, 0, false).expect("it opens");
        let block = Block {
            target: TargetId(1),
            receiver: 0,
            tenant: None,
            format: WriteFormat::V1,
            samples: 1,
            histograms: 0,
            exemplars: 0,
            min_ms: 0,
            max_ms: 0,
            raw_len: 0,
            elements: Bytes::new(),
        };
        log.append(&[(0, block)], 0).expect("written");
        if done {
            log.finish(0, Count { blocks: 1, samples: 1, ..Count::default() });
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
        let (began, mut known) = (Instant::now(), Known::default());
        let mut left = |now_ms| {
            look_after(&home, &in_use, began + Duration::from_millis(now_ms), &mut known);
            let mut names: Vec<_> = std::fs::read_dir(home.spool())
                .expect("a directory")
                .map(|entry| entry.expect("readable").file_name().into_string().expect("a name"))
                .collect();
            names.sort_unstable();
            names
        };
        assert_eq!(left(0), ["configured", "undelivered"]);
        assert_eq!(left(60_000), ["configured", "undelivered"]);
        assert_eq!(left(60_001), ["configured"]);
    }

    #[test]
    fn what_is_undelivered_is_not_read_again_before_it_is_too_old() {
        let dir = tempfile::tempdir().expect("a directory");
        let home = Home::take(dir.path()).expect("nobody has it");
        leave(&home, "undelivered", false);
        let (began, mut known) = (Instant::now(), Known::default());
        let mut is_left = |seconds| {
            look_after(&home, &HashSet::new(), began + Duration::from_secs(seconds), &mut known);
            home.path_of("undelivered").is_dir()
        };
        assert!(is_left(0));
        let segment = home.path_of("undelivered").join(format!("{:016x}.log", 0));
        std::fs::remove_file(segment).expect("it was there");
        assert!(is_left(60), "it would have been found to be empty");
        assert!(!is_left(61));
    }

    #[test]
    fn what_no_log_has_made_is_left_alone() {
        let parent = tempfile::tempdir().expect("a directory");
        let home = Home::take(parent.path()).expect("ours");
        // As in /var, which somebody gives as a data directory.
        let mail = home.path_of("mail");
        std::fs::create_dir_all(&mail).expect("a directory");
        std::fs::write(mail.join("root"), "a letter").expect("written");
        leave(&home, "old", true);
        std::fs::write(home.path_of("old").join("notes"), "kept").expect("written");
        look_after(&home, &HashSet::new(), Instant::now(), &mut Known::new());
        assert_eq!(std::fs::read_dir(&mail).expect("it is there").count(), 1, "and nothing is added");
        let left: Vec<_> = std::fs::read_dir(home.path_of("old")).expect("it is there").flatten().collect();
        assert_eq!(left.iter().map(|entry| entry.file_name()).collect::<Vec<_>>(), ["notes"]);
    }

    #[test]
    fn a_link_to_elsewhere_is_no_directory_of_ours() {
        let (parent, elsewhere) = (tempfile::tempdir().expect("one"), tempfile::tempdir().expect("another"));
        let home = Home::take(parent.path()).expect("ours");
        std::fs::create_dir(home.spool()).expect("a directory");
        std::os::unix::fs::symlink(elsewhere.path(), home.path_of("one")).expect("a link");
        assert!(home.directory("one").is_err());
        std::fs::remove_dir(home.spool()).unwrap_or_default();
        let linked = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(elsewhere.path(), linked.path().join("spool")).expect("a link");
        let home = Home::take(linked.path()).expect("ours");
        assert!(home.directory("two").is_err());
        assert_eq!(std::fs::read_dir(elsewhere.path()).expect("it is there").count(), 0);
    }
}
