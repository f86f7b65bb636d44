//! A disk in memory, for tests: it fails, tears, flips and forgets when told to.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use super::storage::{Storage, StoredFile};

/// What does not work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// No space: what would make a file longer is written by half.
    Full,
    /// The same, and nothing can be cut off.
    Uncuttable,
    /// Nothing can be changed.
    ReadOnly,
    /// No file can be deleted or get another name.
    Undeletable,
    /// The same of the first file by name only.
    FirstUndeletable,
    /// Everything fails.
    Broken,
    /// No more files can be opened.
    NoFiles,
    /// Nothing becomes durable.
    Unsyncable,
    /// The same, and what was to become durable counts from then on as if it were, as on Linux.
    Forgotten,
}

/// What is done before a file is read or synced.
type Hook = Box<dyn FnMut() + Send>;

/// Clones are the same disk.
#[derive(Clone, Default)]
pub(super) struct Memory {
    disk: Arc<Mutex<Disk>>,
    before_read: Arc<Mutex<Option<Hook>>>,
    before_sync: Arc<Mutex<Option<Hook>>>,
}

#[derive(Clone, Default)]
struct Disk {
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    files: HashMap<u64, Content>,
    next_file: u64,
    fault: Option<Fault>,
    /// Files that cannot be read from this byte on.
    unreadable: HashMap<u64, u64>,
    /// The one that cannot be made durable.
    unsyncable: Option<u64>,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    /// What was written since the last sync.
    dirty: Vec<Range<usize>>,
}

/// What is written at once, or not.
const PAGE: usize = 4096;

/// Whether that page is the newer one after so much luck, which is so for `luck` in 256 of them.
fn is_lucky(page: usize, luck: u8) -> bool {
    let mixed =
        (page as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(luck).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (mixed.wrapping_mul(0xc4ce_b9fe_1a85_ec53) >> 56) as u8 <= luck && luck > 0
}

/// The file that is the list of names.
const NAMES: u64 = u64::MAX;

/// A file of it.
#[derive(Clone)]
pub(super) struct Handle {
    disk: Memory,
    id: u64,
}

impl Memory {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().expect("no test panics here")
    }

    /// Somebody else does this whenever a file is about to be read.
    pub(super) fn before_read(&self, hook: impl FnMut() + Send + 'static) {
        *self.before_read.lock().expect("no test panics here") = Some(Box::new(hook));
    }

    /// The same when a file is about to be synced.
    pub(super) fn before_sync(&self, hook: impl FnMut() + Send + 'static) {
        *self.before_sync.lock().expect("no test panics here") = Some(Box::new(hook));
    }

    /// From now on this does not work, or everything does.
    pub(super) fn fail(&self, fault: Option<Fault>) {
        self.disk().fault = fault;
    }

    /// Another disk with the same on it.
    pub(super) fn copy(&self) -> Self {
        let disk = self.disk();
        let disk = Disk { unreadable: HashMap::new(), unsyncable: None, ..disk.clone() };
        Self { disk: Arc::new(Mutex::new(disk)), ..Self::default() }
    }

    /// The file with this name cannot be read from this byte on.
    pub(super) fn hide(&self, name: &str, from: u64) {
        let mut disk = self.disk();
        let id = disk.names[name];
        disk.unreadable.insert(id, from);
    }

    /// The file with this name cannot be made durable.
    pub(super) fn keep_from_durable(&self, name: &str) {
        let mut disk = self.disk();
        disk.unsyncable = Some(disk.names[name]);
    }

    /// Whether all files can be read.
    pub(super) fn hides_nothing(&self) -> bool {
        self.disk().unreadable.is_empty()
    }

    /// All can be read.
    pub(super) fn unhide(&self) {
        self.disk().unreadable.clear();
    }

    /// The machine loses its power: of what was not synced only a part is there, `luck` in 256 of it. Of what was written in
    /// place that is some of the pages, each by itself.
    pub(super) fn lose_power(&self, luck: u8) {
        let mut disk = self.disk();
        disk.names = disk.durable_names.clone();
        for content in disk.files.values_mut() {
            let (kept, now) = (content.durable.len(), content.bytes.len());
            if now < kept {
                if luck < 128 {
                    content.bytes = content.durable.clone();
                }
                continue;
            }
            content.bytes.truncate(kept + (now - kept) * usize::from(luck) / 256);
            let pages = content.bytes.chunks_mut(PAGE).zip(content.durable.chunks(PAGE));
            for (page, durable) in pages.enumerate().filter_map(|(at, page)| (!is_lucky(at, luck)).then_some(page)) {
                page[..durable.len()].copy_from_slice(durable);
            }
        }
    }

    /// The names of files that end so, in order.
    pub(super) fn names(&self, suffix: &str) -> Vec<String> {
        self.disk().names.keys().filter(|name| name.ends_with(suffix)).cloned().collect()
    }

    /// How many hold it or one of its files.
    pub(super) fn holders(&self) -> usize {
        Arc::strong_count(&self.disk)
    }

    /// How many bytes the files have.
    pub(super) fn bytes(&self) -> u64 {
        let disk = self.disk();
        disk.names.iter().filter(|(name, _)| name.contains('.')).map(|(_, id)| disk.files[id].bytes.len() as u64).sum()
    }

    /// Does something to the bytes of a file.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let id = disk.names[name];
        let content = disk.files.get_mut(&id).expect("a file with a name");
        change(&mut content.bytes);
        content.durable = content.bytes.clone();
        content.dirty.clear();
    }
}

impl Disk {
    fn may_read(&self) -> io::Result<()> {
        match self.fault {
            Some(Fault::Broken) => Err(io::Error::from_raw_os_error(libc::EIO)),
            _ => Ok(()),
        }
    }

    fn may_open(&self) -> io::Result<()> {
        self.may_read()?;
        match self.fault {
            Some(Fault::NoFiles) => Err(io::Error::from_raw_os_error(libc::EMFILE)),
            _ => Ok(()),
        }
    }

    fn may_change(&self) -> io::Result<()> {
        self.may_read()?;
        match self.fault {
            Some(Fault::ReadOnly) => Err(io::Error::from_raw_os_error(libc::EROFS)),
            _ => Ok(()),
        }
    }

    fn may_delete(&self, name: &str) -> io::Result<()> {
        self.may_change()?;
        let is_first = self.names.keys().next().is_some_and(|first| first == name);
        match self.fault {
            Some(Fault::FirstUndeletable) if is_first => Err(io::Error::from_raw_os_error(libc::EPERM)),
            Some(Fault::Undeletable) => Err(io::Error::from_raw_os_error(libc::EPERM)),
            _ => Ok(()),
        }
    }

    fn id(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Storage for Memory {
    type File = Handle;

    fn list(&self) -> io::Result<Vec<String>> {
        let disk = self.disk();
        disk.may_open()?;
        Ok(disk.names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<Handle> {
        let mut disk = self.disk();
        disk.may_open()?;
        disk.may_change()?;
        let id = disk.next_file;
        disk.next_file += 1;
        disk.names.insert(name.to_owned(), id);
        disk.files.insert(id, Content::default());
        Ok(Handle { disk: self.clone(), id })
    }

    fn open(&self, name: &str) -> io::Result<Handle> {
        let disk = self.disk();
        disk.may_open()?;
        Ok(Handle { disk: self.clone(), id: disk.id(name)? })
    }

    fn open_to_write(&self, name: &str) -> io::Result<Handle> {
        let disk = self.disk();
        disk.may_open()?;
        disk.may_change()?;
        Ok(Handle { disk: self.clone(), id: disk.id(name)? })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.may_delete(from)?;
        let id = disk.id(from)?;
        disk.names.remove(from);
        disk.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.may_delete(name)?;
        disk.id(name)?;
        disk.names.remove(name);
        Ok(())
    }

    fn names(&self) -> io::Result<Handle> {
        self.disk().may_open()?;
        Ok(Handle { disk: self.clone(), id: NAMES })
    }
}

impl StoredFile for Handle {
    fn len(&self) -> io::Result<u64> {
        let disk = self.disk.disk();
        disk.may_read()?;
        Ok(disk.files[&self.id].bytes.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if let Some(hook) = &mut *self.disk.before_read.lock().expect("no test panics here") {
            hook();
        }
        let disk = self.disk.disk();
        disk.may_read()?;
        let bytes = &disk.files[&self.id].bytes;
        let from = (offset as usize).min(bytes.len());
        let read = buffer.len().min(bytes.len() - from);
        if disk.unreadable.get(&self.id).is_some_and(|limit| offset + read as u64 > *limit) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        buffer[..read].copy_from_slice(&bytes[from..from + read]);
        Ok(read)
    }

    fn write_at(&self, new: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.may_change()?;
        let full = matches!(disk.fault, Some(Fault::Full | Fault::Uncuttable));
        let Content { bytes, dirty, .. } = disk.files.get_mut(&self.id).expect("an open file");
        let (from, end) = (offset as usize, offset as usize + new.len());
        dirty.push(from..end);
        if end > bytes.len() && full {
            bytes.truncate(from);
            bytes.extend_from_slice(&new[..new.len() / 2]);
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        bytes.resize(bytes.len().max(end), 0);
        bytes[from..end].copy_from_slice(new);
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let mut disk = self.disk.disk();
        disk.may_change()?;
        if disk.fault == Some(Fault::Uncuttable) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        disk.files.get_mut(&self.id).expect("an open file").bytes.truncate(len as usize);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        if let Some(hook) = &mut *self.disk.before_sync.lock().expect("no test panics here") {
            hook();
        }
        let mut disk = self.disk.disk();
        disk.may_change()?;
        if disk.fault == Some(Fault::Unsyncable) || disk.unsyncable == Some(self.id) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        if self.id == NAMES {
            disk.durable_names = disk.names.clone();
            return Ok(());
        }
        let is_forgotten = disk.fault == Some(Fault::Forgotten);
        let Content { bytes, durable, dirty } = disk.files.get_mut(&self.id).expect("an open file");
        if is_forgotten {
            dirty.clear();
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        durable.resize(bytes.len(), 0);
        for range in dirty.drain(..).map(|range| range.start.min(bytes.len())..range.end.min(bytes.len())) {
            durable[range.clone()].copy_from_slice(&bytes[range]);
        }
        Ok(())
    }

    fn has_name(&self) -> io::Result<bool> {
        let disk = self.disk.disk();
        disk.may_read()?;
        Ok(disk.names.values().any(|id| *id == self.id))
    }
}
