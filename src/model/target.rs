//! From what discovery found to what is scraped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};

use super::{Address, Alpn, Failure, Labels, Peer, Pod, Tenants};

/// Something that discovery found, before relabelling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Candidate {
    /// All labels, `__address__` and `__meta_*` among them.
    pub labels: Labels,
    /// Where it came from: the config entry, the file and index, the pod.
    pub source: Arc<str>,
    /// The pod that it is, or that stands behind it.
    pub pod: Option<Arc<Pod>>,
}

/// The name of a target over its whole life: a hash of its labels and URL, stable over restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetId(pub u64);

impl fmt::Display for TargetId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", self.0)
    }
}

/// `http` or `https`; nothing else is ever dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// Plain text.
    Http,
    /// TLS.
    Https,
}

impl Scheme {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Http => "http",
            Scheme::Https => "https",
        }
    }

    /// The port that is dialled where the address names none.
    pub fn default_port(self) -> u16 {
        match self {
            Scheme::Http => 80,
            Scheme::Https => 443,
        }
    }
}

/// How the one who answers is verified. The kind follows from the job alone, never from a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verification {
    /// A SPIFFE job: exactly this peer may answer.
    Spiffe(Peer),
    /// An ordinary job over `https`: chain and host name.
    HostName,
    /// An ordinary job over `http`: nobody checks.
    None,
    /// A SPIFFE job in which nobody may answer for this target: it is listed, `up 0`, and never connected.
    Refused(Failure),
}

/// Which histograms are wanted of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HistogramReading {
    /// Native ones, as such.
    pub native: bool,
    /// The classic series of one that is native, too.
    pub classic_too: bool,
    /// Native ones with listed bounds, made of classic ones.
    pub convert: bool,
}

/// One thing to scrape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub id: TargetId,
    /// The scrape pool it belongs to (`job_name` of the config entry, whatever relabelling made of the `job` label).
    pub pool: Arc<str>,
    /// Where to connect.
    pub address: Address,
    /// `http` or `https`.
    pub scheme: Scheme,
    /// Path and query as they stand in the request line.
    pub path_and_query: Arc<str>,
    /// The labels that every series of it gets.
    pub labels: Labels,
    /// Whose its samples are, where receivers have tenants.
    pub tenants: Tenants,
    /// The labels before relabelling, for people.
    pub discovered: Labels,
    /// How often.
    pub interval: Duration,
    /// How long one scrape may take, connect to last byte.
    pub timeout: Duration,
    /// How its histograms are read.
    pub histograms: HistogramReading,
    /// Who may answer.
    pub verification: Verification,
    /// What is offered in the TLS greeting of a SPIFFE job.
    pub alpn: Alpn,
    /// The pod that it is, or that stands behind it.
    pub pod: Option<Arc<Pod>>,
}

impl Target {
    /// The name of its series as a whole: a hash of the labels that they get. It stays the same where the target is only
    /// reached in another way, and over restarts; targets that would write the same series have the same one. What goes
    /// out in order goes by it.
    pub fn series_id(&self) -> TargetId {
        let mut hash = Md5::new();
        for (name, value) in self.labels.iter() {
            for text in [name, value] {
                hash.update(text);
                // A byte that UTF-8 never contains.
                hash.update([0xff]);
            }
        }
        let digest: [u8; 16] = hash.finalize().into();
        let (first, _) = digest.split_at(8);
        TargetId(u64::from_be_bytes(first.try_into().expect("the first 8 of 16 bytes")))
    }

    /// Whether scraping goes on undisturbed where this target takes the place of `other`: it is the same pod, and all is
    /// equal but what discovery said before relabelling, which nothing but people looks at, and how the pod fares.
    pub fn continues(&self, other: &Target) -> bool {
        let Self {
            id,
            pool,
            address,
            scheme,
            path_and_query,
            labels,
            tenants,
            discovered: _,
            interval,
            timeout,
            histograms,
            verification,
            alpn,
            pod: _,
        } = self;
        *id == other.id
            && *pool == other.pool
            && *address == other.address
            && *scheme == other.scheme
            && *path_and_query == other.path_and_query
            && *labels == other.labels
            && *tenants == other.tenants
            && *interval == other.interval
            && *timeout == other.timeout
            && *histograms == other.histograms
            && *verification == other.verification
            && *alpn == other.alpn
            && self.pod_uid() == other.pod_uid()
    }

    /// Whether the series of this target are those of `other`, however it is reached now: the labels, the tenants and the
    /// pod are the same ones.
    pub fn succeeds(&self, other: &Target) -> bool {
        self.pool == other.pool
            && self.labels == other.labels
            && self.tenants.agree_with(&other.tenants)
            && self.pod_uid() == other.pod_uid()
    }

    fn pod_uid(&self) -> Option<&Arc<str>> {
        self.pod.as_ref().map(|pod| &pod.uid)
    }

    /// The URL as Prometheus' API shows it, query included; nothing is ever dialled by it.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme.as_str(), self.address, self.path_and_query)
    }

    /// The URL without its query, which may hold a token: for logs and messages.
    pub fn shown_url(&self) -> String {
        let path = self.path_and_query.split('?').next().unwrap_or_default();
        format!("{}://{}{path}", self.scheme.as_str(), self.address)
    }
}

/// Which kind of reason keeps a candidate from being scraped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropCause {
    /// A relabel rule drops it.
    Rule,
    /// No target can be made of what it says.
    Malformed,
    /// Its namespace has more targets than `namespace_target_limit`.
    Surplus,
    /// Its address is that of a newer pod.
    Superseded,
}

impl DropCause {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            DropCause::Rule => "dropped",
            DropCause::Malformed => "malformed",
            DropCause::Surplus => "surplus",
            DropCause::Superseded => "superseded",
        }
    }
}

/// A candidate that is not scraped, and why not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DroppedTarget {
    /// The labels before relabelling.
    pub discovered: Labels,
    /// Which kind of reason it is.
    pub cause: DropCause,
    /// The relabel rule of the job that dropped it, counted from 0.
    pub by_rule: Option<usize>,
    /// Where no rule did: what is wrong with it.
    pub error: Option<String>,
}

/// The targets of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobTargets {
    /// What is scraped, each target once.
    pub active: Vec<Arc<Target>>,
    /// What is not, as far as `keep_dropped_targets` lets it be remembered.
    pub dropped: Vec<Arc<DroppedTarget>>,
    /// How many are not, complete.
    pub dropped_count: usize,
    /// How many of them each relabel rule dropped, by its number counted from 0, complete.
    pub dropped_by_rule: BTreeMap<usize, usize>,
    /// How many of them their namespaces have too many of, complete.
    pub surplus: usize,
    /// For too long nothing was heard from whoever says which pods there are: an address may have changed hands
    /// unseen since then, so its pod is scraped only as long as it is surely the one that was scraped before.
    pub unconfirmed: Option<Instant>,
}

/// A snapshot of everything that is to be scraped: what discovery hands to scraping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetSet {
    /// By scrape pool, in the order of the config file; a job without targets is listed too.
    pub jobs: Vec<(Arc<str>, JobTargets)>,
    /// Which configuration it was made by, counted from 0.
    pub revision: u64,
}

impl TargetSet {
    /// All active targets of all jobs.
    pub fn active(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.jobs.iter().flat_map(|(_, job)| &job.active)
    }
}
