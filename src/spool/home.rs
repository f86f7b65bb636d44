//! The data directory: held by one process at a time, with a directory for each receiver in it.
//!
//! ```text
//! <data directory>/
//!   lock               held while a process uses the directory; its number is inside, for people
//!   spool/
//!     <receiver>/      a log (log.rs)
//! ```
//! What always holds: no file of a log is touched without the lock; a directory that cannot be used now is tried again and
//! keeps nobody from starting, but one that another process holds does. The names of receivers' directories are made by
//! whoever knows receivers.

use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

use super::storage::{Directory, make_directory, make_private_directory};

/// Why a data directory is not ours.
#[derive(Debug, Error)]
pub enum HomeError {
    /// Another process holds it.
    #[error("the data directory {} is in use{}; give each process its own with --data-dir", .dir.display(), .holder.map_or_else(String::new, |pid| format!(" by process {pid}")))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Who holds it, if that can be told.
        holder: Option<u32>,
    },
}

/// A data directory. Clones are the same one.
#[derive(Clone)]
pub struct Home(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    /// Held as long as it is open.
    lock: Mutex<Option<File>>,
    /// The logs that are in use within this process.
    claimed: Mutex<HashSet<String>>,
}

/// The right to use one log, until it is dropped.
pub(super) struct Claim {
    home: Home,
    name: String,
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.home.claimed().remove(&self.name);
    }
}

impl Home {
    /// Takes the directory, which is made if it is missing. One that cannot be used is taken when it can, by
    /// whoever needs it.
    ///
    /// # Errors
    /// If another process has it.
    pub fn take(dir: &Path) -> Result<Self, HomeError> {
        let home = Self(Arc::new(Inner { dir: dir.to_owned(), lock: Mutex::default(), claimed: Mutex::default() }));
        match home.hold() {
            Ok(()) => Ok(home),
            Err(Hold::Taken(holder)) => Err(HomeError::InUse { dir: dir.to_owned(), holder }),
            Err(Hold::Failed(error)) => {
                tracing::error!(
                    dir = %dir.display(),
                    %error,
                    "the data directory cannot be used: what is queued is kept in memory, and lost with this process, until it can"
                );
                Ok(home)
            }
        }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Where the log with this name is, or would be.
    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        self.spool().join(name)
    }

    pub(super) fn spool(&self) -> PathBuf {
        self.0.dir.join("spool")
    }

    /// The directory of the log with this name, for one user at a time.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if somebody within this process uses it, else what keeps it from being used at all.
    pub(super) fn directory(&self, name: &str) -> io::Result<Directory> {
        self.hold().map_err(|hold| match hold {
            Hold::Failed(error) => error,
            Hold::Taken(holder) => io::Error::other(format!(
                "another process has the data directory{}",
                holder.map_or_else(String::new, |pid| format!(": {pid}"))
            )),
        })?;
        if !self.claimed().insert(name.to_owned()) {
            return Err(io::Error::new(io::ErrorKind::WouldBlock, "this process uses it already"));
        }
        let claim = Claim { home: self.clone(), name: name.to_owned() };
        make_private_directory(&self.spool())?;
        make_private_directory(&self.path_of(name))?;
        Ok(Directory::new(self.path_of(name), Some(claim)))
    }

    fn claimed(&self) -> MutexGuard<'_, HashSet<String>> {
        self.0.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self) -> Result<(), Hold> {
        let mut lock = self.0.lock.lock().unwrap_or_else(PoisonError::into_inner);
        if lock.is_none() {
            *lock = Some(lock_in(&self.0.dir)?);
        }
        Ok(())
    }
}

enum Hold {
    /// By this process, if that can be told.
    Taken(Option<u32>),
    Failed(io::Error),
}

fn lock_in(dir: &Path) -> Result<File, Hold> {
    make_directory(dir).map_err(Hold::Failed)?;
    let path = dir.join("lock");
    let open = |options: &mut OpenOptions| {
        options.read(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(&path)
    };
    let mut file = match open(OpenOptions::new().write(true).create(true).truncate(false)) {
        // What can be read can be locked, and what lies there be delivered.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => open(&mut OpenOptions::new()),
        opened => opened,
    }
    .map_err(Hold::Failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(Hold::Failed(error)),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            let _ = file.take(32).read_to_string(&mut text);
            return Err(Hold::Taken(text.trim().parse().ok()));
        }
    }
    // Only for people: without it the lock holds as well.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_by_one_at_a_time() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("data");
        let home = Home::take(&dir).expect("nobody has it");
        let Err(error) = Home::take(&dir) else { panic!("two have it") };
        let expected = format!(
            "the data directory {} is in use by process {}; give each process its own with --data-dir",
            dir.display(),
            std::process::id()
        );
        assert_eq!(error.to_string(), expected);
        drop(home);
        Home::take(&dir).map(|_| ()).expect("nobody has it any more");
    }

    #[test]
    fn a_directory_that_cannot_be_used_is_taken_when_it_can() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("data");
        std::fs::write(&dir, "in the way").expect("written");
        let home = Home::take(&dir).expect("it keeps nobody from starting");
        assert!(home.directory("one").is_err());
        std::fs::remove_file(&dir).expect("removed");
        let one = home.directory("one").expect("it can be used now");
        let again = || home.directory("one").map(|_| ()).map_err(|error| error.kind());
        assert_eq!(again(), Err(io::ErrorKind::WouldBlock), "by one user at a time");
        drop(one);
        again().expect("it is free again");
        assert!(Home::take(&dir).is_err(), "and is held");
    }
}
