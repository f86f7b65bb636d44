//! The identities of all jobs and receivers: one watcher for each distinct set of files, however many use it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::Clock;
use crate::config::{Config, JobSecurity, ReceiverSecurity, ScrapeConfig};
use crate::connect::CredentialsFeed;
use crate::discover::Certificates;
use crate::identity::{self, Credentials, Identity, IdentitySettings, IdentitySnapshot};

/// Those that run. Clones are the same.
#[derive(Clone)]
pub(super) struct Identities {
    list: Arc<Mutex<Vec<Watched>>>,
    /// What is watched whatever the configuration says.
    pinned: Arc<Mutex<Vec<IdentitySettings>>>,
    clock: Clock,
    stop: CancellationToken,
}

struct Watched {
    settings: IdentitySettings,
    identity: Identity,
    /// Ends its watcher with it.
    _stop: DropGuard,
}

impl Identities {
    /// None yet; their watchers end with `stop`.
    pub(super) fn new(clock: Clock, stop: CancellationToken) -> Self {
        Self { list: Arc::default(), pinned: Arc::default(), clock, stop }
    }

    /// The certificates of a job that verifies SPIFFE IDs.
    pub(super) fn of_job(&self, job: &ScrapeConfig) -> Option<CredentialsFeed> {
        match &job.security {
            JobSecurity::Ordinary(_) => None,
            JobSecurity::Spiffe(spiffe) => Some(self.feed(spiffe.into())),
        }
    }

    /// The certificates of an identity, whose watcher is started if there is none yet.
    pub(super) fn feed(&self, settings: IdentitySettings) -> CredentialsFeed {
        let mut list = self.lock();
        if let Some(watched) = list.iter().find(|watched| watched.settings == settings) {
            return watched.identity.credentials();
        }
        let stop = self.stop.child_token();
        let identity = identity::watch(settings.clone(), &self.clock, stop.clone());
        let feed = identity.credentials();
        list.push(Watched { settings, identity, _stop: stop.drop_guard() });
        feed
    }

    /// The certificates of an identity that no configuration takes away.
    pub(super) fn pin(&self, settings: IdentitySettings) -> CredentialsFeed {
        self.pinned().push(settings.clone());
        self.feed(settings)
    }

    /// Ends the watchers that `config` does not need.
    pub(super) fn keep_those_of(&self, config: &Config) {
        let of_jobs = config.scrape_configs.iter().filter_map(|job| match &job.security {
            JobSecurity::Ordinary(_) => None,
            JobSecurity::Spiffe(spiffe) => Some(IdentitySettings::from(spiffe)),
        });
        let of_receivers = config.remote_write.iter().filter_map(|receiver| match &receiver.security {
            ReceiverSecurity::Ordinary(_) => None,
            ReceiverSecurity::Spiffe(spiffe) => Some(IdentitySettings::from(spiffe)),
        });
        let used: Vec<_> = of_jobs.chain(of_receivers).chain(self.pinned().iter().cloned()).collect();
        self.lock().retain(|watched| used.contains(&watched.settings));
    }

    /// The state of each now.
    pub(super) fn snapshots(&self) -> Vec<IdentitySnapshot> {
        self.lock().iter().map(|watched| watched.identity.snapshot()).collect()
    }

    /// What keeps each of them from being of use, in a few words.
    pub(super) fn missing(&self) -> Vec<String> {
        let list = self.lock();
        let missing = list.iter().filter_map(|watched| {
            let failure = watched.identity.current().ready(self.clock.now()).err()?;
            Some(format!("{} ({})", failure.detail, watched.settings.files.chain.display()))
        });
        missing.collect()
    }

    fn pinned(&self) -> MutexGuard<'_, Vec<IdentitySettings>> {
        self.pinned.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What discovery is to know of the certificates of a job, as it becomes known.
pub(super) fn for_discovery(credentials: Option<&CredentialsFeed>) -> watch::Receiver<Certificates> {
    let Some(mut credentials) = credentials.cloned() else {
        return watch::channel(Certificates::read(None)).1;
    };
    let told = |now: &Credentials| Certificates { read: now.is_read(), trust_domain: now.trust_domain().cloned() };
    let known = told(&credentials.borrow_and_update());
    let (sender, receiver) = watch::channel(known);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                changed = credentials.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            let known = told(&credentials.borrow_and_update());
            sender.send_if_modified(|current| std::mem::replace(current, known.clone()) != known);
        }
    });
    receiver
}
