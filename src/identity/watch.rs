//! Following the files: when to read them again.
//!
//! Istio's agent renames new files over old ones and Kubernetes swaps a symbolic link, so it is directories that are
//! watched, with inotify, and every half second the files are read anyway: a change is live within a second even where
//! inotify says nothing. Nothing ends this task but its cancellation; what cannot be read is shown and tried again.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch as channel};
use tokio_util::sync::CancellationToken;

use super::credentials::Credentials;
use super::files::FileSet;
use super::loader::{IdentitySettings, IdentitySnapshot, Loader};
use crate::clock::Clock;
use crate::config::CertificateFiles;

/// How often the files are read when nothing seems to happen.
const POLL: Duration = Duration::from_millis(500);
/// How long after an event they are read: the three files of a rotation come one after the other.
const SETTLE: Duration = Duration::from_millis(10);
/// How long after a set that looked half written.
const RETRY: Duration = Duration::from_millis(50);

/// A live identity. Clones share it; its task ends with the token it was given.
#[derive(Clone, Debug)]
pub struct Identity {
    receiver: channel::Receiver<Arc<Credentials>>,
    loader: Arc<Mutex<Loader>>,
    clock: Clock,
}

impl Identity {
    /// The credentials as they change; at first those of generation 0, which can do nothing.
    pub fn credentials(&self) -> channel::Receiver<Arc<Credentials>> {
        self.receiver.clone()
    }

    /// The credentials now.
    pub fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.receiver.borrow())
    }

    /// The state now, for people.
    pub fn snapshot(&self) -> IdentitySnapshot {
        lock(&self.loader).snapshot(self.clock.now())
    }
}

/// Starts to follow an identity, inside a tokio runtime. Files that are missing are waited for.
pub fn watch(settings: IdentitySettings, clock: &Clock, cancel: CancellationToken) -> Identity {
    let files = settings.files.clone();
    let loader = Loader::new(settings);
    let (sender, receiver) = channel::channel(loader.credentials());
    let identity = Identity { receiver, loader: Arc::new(Mutex::new(loader)), clock: clock.clone() };
    let follower = Follower { loader: Arc::clone(&identity.loader), sender, clock: clock.clone() };
    tokio::spawn(async move { cancel.run_until_cancelled(follower.follow(files)).await });
    identity
}

/// Reads the files of an identity once, for commands that do not stay; what is missing is said by the snapshot.
pub fn load(settings: &IdentitySettings, clock: &Clock) -> (Arc<Credentials>, IdentitySnapshot) {
    let mut loader = Loader::new(settings.clone());
    let now = clock.now();
    loader.take(&FileSet::read(&settings.files), now);
    (loader.credentials(), loader.snapshot(now))
}

struct Follower {
    loader: Arc<Mutex<Loader>>,
    sender: channel::Sender<Arc<Credentials>>,
    clock: Clock,
}

impl Follower {
    async fn follow(self, files: CertificateFiles) {
        let wake = Arc::new(Notify::new());
        let mut directories = Directories::new(Arc::clone(&wake));
        let mut said = Vec::new();
        loop {
            let files = files.clone();
            let read = tokio::task::spawn_blocking(move || {
                // Watching comes before reading, so that no change falls between the two.
                directories.follow(&files);
                (FileSet::read(&files), directories)
            });
            let Ok((set, back)) = read.await else { return };
            directories = back;
            let again_soon = self.take(&set, &mut said);
            tokio::select! {
                () = wake.notified() => tokio::time::sleep(SETTLE).await,
                () = tokio::time::sleep(if again_soon { RETRY } else { POLL }) => {}
            }
        }
    }

    /// Publishes what is good in `set`, and logs what is new to say.
    fn take(&self, set: &FileSet, said: &mut Vec<String>) -> bool {
        let mut loader = lock(&self.loader);
        let step = loader.take(set, self.clock.now());
        let problems: Vec<String> = loader.problems().cloned().collect();
        // A set that looks half written gets its second look before anybody is told.
        if problems != *said && !step.again_soon {
            for problem in problems.iter().filter(|problem| !said.contains(problem)) {
                tracing::warn!(problem, "certificate files");
            }
            if problems.is_empty() {
                tracing::info!("certificate files are good again");
            }
            *said = problems;
        }
        if step.changed {
            let snapshot = loader.snapshot(self.clock.now());
            tracing::info!(
                generation = snapshot.generation,
                id = snapshot.id.as_ref().map(tracing::field::display),
                trust_domain = snapshot.trust_domain.as_ref().map(tracing::field::display),
                roots = snapshot.roots.len(),
                "certificates loaded"
            );
            if let Some(problem) = snapshot.own_certificate_untrusted {
                tracing::warn!(problem, "peers may refuse us");
            }
            self.sender.send_replace(loader.credentials());
        }
        step.again_soon
    }
}

/// The watched directories: those the files lie in, and where one of them is reached through a symbolic link, also the
/// directory of the link.
struct Directories {
    /// Absent where the system gives no watcher; polling remains.
    watcher: Option<RecommendedWatcher>,
    /// With device and inode: a directory made anew under its old name needs a new watch.
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl Directories {
    fn new(wake: Arc<Notify>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(&event.kind)) {
                wake.notify_one();
            }
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "certificate directories cannot be watched and are polled only");
        }
        Self { watcher: watcher.ok(), watched: BTreeMap::new() }
    }

    fn follow(&mut self, files: &CertificateFiles) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted = BTreeMap::new();
        for file in [&files.chain, &files.key, &files.root] {
            let Some(directory) = file.parent() else { continue };
            let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
            want(&mut wanted, directory);
            if directory.is_symlink()
                && let Some(parent) = directory.parent()
            {
                want(&mut wanted, parent);
            }
        }
        if wanted == self.watched {
            return;
        }
        for gone in self.watched.keys() {
            // A directory that was removed has taken its watch along.
            let _ = watcher.unwatch(gone);
        }
        wanted.retain(|directory, _| watcher.watch(directory, RecursiveMode::NonRecursive).is_ok());
        self.watched = wanted;
    }
}

fn want(wanted: &mut BTreeMap<PathBuf, (u64, u64)>, directory: &Path) {
    if let Ok(real) = directory.canonicalize()
        && let Ok(metadata) = real.metadata()
    {
        wanted.insert(real, (metadata.dev(), metadata.ino()));
    }
}

/// Reading, our own included, is reported too and is no change.
fn is_change(kind: &EventKind) -> bool {
    match kind {
        EventKind::Access(access) => matches!(access, AccessKind::Close(AccessMode::Write)),
        _ => true,
    }
}

fn lock(loader: &Mutex<Loader>) -> MutexGuard<'_, Loader> {
    loader.lock().unwrap_or_else(PoisonError::into_inner)
}
