//! Following the files: when to read them again.
//!
//! The files are read when something changes in their directories, and every half second anyway: a change is live within
//! a second even where the system reports none. They are read on a thread of their own, because what others leave hanging
//! in the runtime's pool of blocking threads (names that do not resolve, file systems that do not answer) must not hold
//! back a root's withdrawal. Nothing ends this but its cancellation; what cannot be read is shown and tried again.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::sync::{oneshot, watch as channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::credentials::Credentials;
use super::files::FileSet;
use super::loader::{IdentitySettings, IdentitySnapshot, Loader};
use crate::clock::Clock;
use crate::config::CertificateFiles;
use crate::watched::{self, Changes};

/// How often the files are read when nothing seems to happen.
const POLL: Duration = Duration::from_millis(500);
/// How long after a set that looked half written.
const RETRY: Duration = Duration::from_millis(50);

/// How long a problem with the files must last before it is told.
const LASTING: Duration = Duration::from_secs(1);

/// A live identity. Clones share it; its task ends with the token it was given.
#[derive(Clone, Debug)]
pub struct Identity {
    receiver: channel::Receiver<Arc<Credentials>>,
    loader: Arc<Mutex<Loader>>,
    clock: Clock,
}

impl Identity {
    /// The credentials as they change; at first those of generation 0, which can do nothing. That the files
    /// have been read is a change, too, even if nothing of them can be used.
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

/// What has been told of the files.
struct Said {
    /// The problems that were told last.
    told: Vec<String>,
    /// The problems that were seen last, and since when.
    seen: Vec<String>,
    since: Instant,
}

struct Follower {
    loader: Arc<Mutex<Loader>>,
    sender: channel::Sender<Arc<Credentials>>,
    clock: Clock,
}

impl Follower {
    async fn follow(self, files: CertificateFiles) {
        let mut said = Said { told: Vec::new(), seen: Vec::new(), since: Instant::now() };
        loop {
            match Reader::start(&files) {
                Ok((reader, changes)) => {
                    while let Some(set) = reader.read().await {
                        let again_soon = self.take(&set, &mut said);
                        changes.wait(if again_soon { RETRY } else { POLL }).await;
                    }
                }
                Err(error) => tracing::error!(%error, "certificate files are not read: no thread can be started"),
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Publishes what is good in `set`, and logs what is new to say.
    fn take(&self, set: &FileSet, said: &mut Said) -> bool {
        let mut loader = lock(&self.loader);
        let step = loader.take(set, self.clock.now());
        let problems: Vec<String> = loader.problems().cloned().collect();
        if problems != said.seen {
            said.seen.clone_from(&problems);
            said.since = Instant::now();
        }
        // Between two renames of one rotation a set is half written: that is nobody's news unless it lasts.
        let lasts = problems.is_empty() || said.since.elapsed() >= LASTING;
        if problems != said.told && lasts {
            let used = match loader.credentials().ready(self.clock.now()) {
                Ok(()) => "what is good in them, or was last, stays in use",
                Err(_) => "there is nothing to use in their place",
            };
            for problem in problems.iter().filter(|problem| !said.told.contains(problem)) {
                tracing::warn!(problem, "certificates cannot be used as they are; {used}");
            }
            if problems.is_empty() {
                tracing::info!("certificate files are good again");
            }
            said.told = problems;
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
        }
        if step.changed || step.first {
            self.sender.send_replace(loader.credentials());
        }
        step.again_soon
    }
}

/// The thread that reads the files. It ends when this is dropped, and no sooner than the file system lets go of it.
struct Reader {
    requests: mpsc::Sender<oneshot::Sender<FileSet>>,
}

impl Reader {
    fn start(files: &CertificateFiles) -> std::io::Result<(Self, Changes)> {
        let (requests, asked) = mpsc::channel::<oneshot::Sender<FileSet>>();
        let (mut directories, changes) = watched::directories();
        let files = files.clone();
        std::thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            for answer in asked {
                // Watching comes before reading, so that no change falls between the two.
                for error in directories.follow([&files.chain, &files.key, &files.root].map(PathBuf::as_path)) {
                    tracing::warn!(%error, "changes of certificate files are found by polling only");
                }
                // Whoever asked may have been cancelled.
                let _ = answer.send(FileSet::read(&files));
            }
        })?;
        Ok((Self { requests }, changes))
    }

    /// Reads the files; `None` if the thread has died.
    async fn read(&self) -> Option<FileSet> {
        let (answer, set) = oneshot::channel();
        self.requests.send(answer).ok()?;
        set.await.ok()
    }
}

fn lock(loader: &Mutex<Loader>) -> MutexGuard<'_, Loader> {
    loader.lock().unwrap_or_else(PoisonError::into_inner)
}
