//! The files of one log, behind the few operations that it needs.
//!
//! What always holds: only regular files are opened, no symbolic link is followed, and what is created belongs to this user
//! alone (directories 0700, files 0600). Nothing here waits for anything but the file system, so it is used from threads
//! that may wait. It does not know what is in the files.
//!
//! There are two of these: [`Directory`], and in tests one in memory that tears, flips, forgets and fails when told to.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::home::Claim;

/// Where the files of one log are.
pub(super) trait Storage: Send + 'static {
    /// An open file.
    type File: StoredFile;

    /// The names of all regular files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An empty file of this name, in place of the one that there may be.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    /// An existing file, for reading.
    fn open(&self, name: &str) -> io::Result<Self::File>;
    /// An existing file, for reading and writing.
    fn open_to_write(&self, name: &str) -> io::Result<Self::File>;
    /// Gives a file another name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Deletes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The list of names: to sync it makes durable which there are.
    fn names(&self) -> io::Result<Self::File>;
}

/// An open file. Clones are the same one.
pub(super) trait StoredFile: Clone + Send + Sync + 'static {
    /// How many bytes it has.
    fn len(&self) -> io::Result<u64>;
    /// Reads up to `buffer.len()` bytes from `offset` on; fewer only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes` at `offset`. If it fails, any part of them may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file off behind `len` bytes.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Makes durable what was written.
    fn sync(&self) -> io::Result<()>;
    /// Whether the file still has a name: what is written to one without is lost with this process.
    fn has_name(&self) -> io::Result<bool>;
}

/// A directory of the file system, which is made when the first file is.
pub(super) struct Directory {
    path: PathBuf,
    /// Says that nobody else uses it.
    _claim: Option<Claim>,
}

impl Directory {
    /// At this path; nothing is touched yet.
    pub(super) fn new(path: PathBuf, claim: Option<Claim>) -> Self {
        Self { path, _claim: claim }
    }

    fn open_with(&self, name: &str, options: &mut OpenOptions) -> io::Result<Opened> {
        // Non-blocking: to open a pipe must not hang.
        let options = options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let file = options.open(self.path.join(name))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is no regular file")));
        }
        Ok(Opened(Arc::new(file)))
    }
}

/// Whether it is certain that nothing is at this path.
pub(super) fn is_absent(path: &Path) -> bool {
    let absent = |error: io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    path.symlink_metadata().is_err_and(absent)
}

/// Whether it is the machine that lacks something, which says nothing of what was to be read.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

/// Makes a directory, and those above it that are missing, for this user alone.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The same, and whatever was there before is no link to elsewhere and open to nobody else.
pub(super) fn make_private_directory(path: &Path) -> io::Result<()> {
    make_directory(path)?;
    let metadata = path.symlink_metadata()?;
    if !metadata.is_dir() {
        let message = format!("{} is a link, and what it leads to is not ours", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        // Fails where it belongs to somebody else.
        std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(())
}

impl Storage for Directory {
    type File = Opened;

    fn list(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        let entries = match std::fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(&self.path)?;
                return Ok(found);
            }
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // That of the entry itself: a link is no regular file. One of which nothing can be told is opened, which tells.
            if entry.file_type().is_ok_and(|kind| !kind.is_file()) {
                continue;
            }
            found.push(name);
        }
        Ok(found)
    }

    fn create(&self, name: &str) -> io::Result<Opened> {
        let create = || self.open_with(name, OpenOptions::new().read(true).write(true).create(true).truncate(true));
        match create() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make_directory(&self.path)?;
                create()
            }
            created => created,
        }
    }

    fn open(&self, name: &str) -> io::Result<Opened> {
        self.open_with(name, OpenOptions::new().read(true))
    }

    fn open_to_write(&self, name: &str) -> io::Result<Opened> {
        self.open_with(name, OpenOptions::new().read(true).write(true))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn names(&self) -> io::Result<Opened> {
        Ok(Opened(Arc::new(File::open(&self.path)?)))
    }
}

/// A file of a [`Directory`].
#[derive(Clone)]
pub(super) struct Opened(Arc<File>);

impl StoredFile for Opened {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.0.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn has_name(&self) -> io::Result<bool> {
        Ok(self.0.metadata()?.nlink() > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn what_is_made_is_for_this_user_alone() {
        let home = tempfile::tempdir().expect("a directory");
        let path = home.path().join("spool/one");
        let directory = Directory::new(path.clone(), None);
        assert_eq!(directory.list().expect("it is made"), [""; 0]);
        directory.create("file").expect("a file").write_at(b"some", 0).expect("written");
        let mode = |path: &Path| path.metadata().expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&home.path().join("spool")), mode(&path), mode(&path.join("file"))), (0o700, 0o700, 0o600));
        assert_eq!(directory.list().expect("it can be read"), ["file"]);
        assert_eq!(directory.open("file").and_then(|file| file.len()).expect("it is there"), 4);
    }

    #[test]
    fn links_pipes_and_directories_are_no_files_of_a_log() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = Directory::new(home.path().to_owned(), None);
        std::fs::write(home.path().join("elsewhere"), "precious").expect("written");
        symlink(home.path().join("elsewhere"), home.path().join("link")).expect("a link");
        std::fs::create_dir(home.path().join("folder")).expect("a directory");
        let pipe = std::process::Command::new("mkfifo").arg(home.path().join("pipe")).status().expect("mkfifo");
        assert!(pipe.success());
        for name in ["link", "folder", "pipe"] {
            assert!(directory.open(name).is_err(), "{name} is read");
            assert!(directory.open_to_write(name).is_err(), "{name} is written");
            assert!(directory.create(name).is_err(), "{name} is emptied");
        }
        assert_eq!(std::fs::read_to_string(home.path().join("elsewhere")).expect("it is there"), "precious");
        assert_eq!(directory.list().expect("it can be read"), ["elsewhere"]);
    }

    #[test]
    fn a_file_knows_that_it_has_lost_its_name_and_one_is_made_where_the_directory_is_gone() {
        let home = tempfile::tempdir().expect("a directory");
        let directory = Directory::new(home.path().join("one"), None);
        let file = directory.create("file").expect("a file");
        assert!(file.has_name().expect("known"));
        std::fs::remove_dir_all(home.path().join("one")).expect("removed");
        assert!(!file.has_name().expect("known"));
        assert!(directory.create("other").expect("a file").has_name().expect("known"));
    }
}
