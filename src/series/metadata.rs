//! How targets describe their metric families, remembered once for all targets that say the same.
//!
//! A [`Catalogue`] is the process's; each target has its [`Descriptions`], which point into it. What always holds: what no
//! target says any more is in no list, and what is kept of it is bounded in number and in bytes; a family that vanishes from
//! its target stays known for ten scrapes, as in Prometheus; what one target may have remembered is bounded.

use std::collections::HashSet;
use std::hash::BuildHasher;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::model::{Metadata, MetricType};
use crate::parse::Entry;

/// How many scrapes later a family that vanished is forgotten.
const KEPT_SCRAPES: u64 = 10;
/// What is remembered of one target's families, in bytes: what goes beyond it is not.
const MAX_BYTES: usize = 1 << 20;
/// What a description takes besides its texts, about.
const OWN_BYTES: usize = 160;
/// The catalogue is looked through for what nobody says any more when it has at least so many entries.
const SWEEP_AT_LEAST: usize = 1024;
/// Or at least so many bytes: a few descriptions can be large.
const SWEEP_AT_LEAST_BYTES: usize = 4 << 20;

/// Every description that any target gives.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(Arc<Mutex<Entries>>);

#[derive(Debug, Default)]
struct Entries {
    known: HashSet<Arc<Metadata>>,
    /// What is known, in bytes.
    bytes: usize,
    /// How many entries there were after the last sweep.
    swept: usize,
    /// How many bytes there were after the last sweep.
    swept_bytes: usize,
}

impl Catalogue {
    /// What the targets say now, each description once, by the names of the families.
    pub fn list(&self) -> Vec<Arc<Metadata>> {
        let mut list: Vec<_> = {
            let mut entries = self.entries();
            entries.sweep();
            entries.known.iter().cloned().collect()
        };
        list.sort_by(|one, other| (&one.family, &one.help).cmp(&(&other.family, &other.help)));
        list
    }

    /// The entry that is equal to `metadata`.
    fn entry(&self, metadata: Metadata) -> Arc<Metadata> {
        let mut entries = self.entries();
        if let Some(known) = entries.known.get(&metadata) {
            return Arc::clone(known);
        }
        let bytes = bytes_of(&metadata);
        if entries.known.len() >= SWEEP_AT_LEAST.max(2 * entries.swept)
            || entries.bytes + bytes > SWEEP_AT_LEAST_BYTES.max(2 * entries.swept_bytes)
        {
            entries.sweep();
        }
        let new = Arc::new(metadata);
        entries.known.insert(Arc::clone(&new));
        entries.bytes += bytes;
        new
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    /// Forgets what only the catalogue itself holds.
    fn sweep(&mut self) {
        self.known.retain(|metadata| Arc::strong_count(metadata) > 1);
        self.swept = self.known.len();
        self.swept_bytes = self.known.iter().map(|metadata| bytes_of(metadata)).sum();
        self.bytes = self.swept_bytes;
    }
}

/// What one target says of its families.
#[derive(Debug)]
pub struct Descriptions {
    catalogue: Catalogue,
    hasher: RandomState,
    known: HashTable<Described>,
    /// The number of the scrape that runs.
    scrape: u64,
    /// What is remembered, in bytes.
    bytes: usize,
    /// Whether it has changed since it was listed.
    changed: bool,
}

#[derive(Debug)]
struct Described {
    metadata: Arc<Metadata>,
    /// The scrape that described it last.
    seen: u64,
}

impl Descriptions {
    /// None yet.
    pub fn new(catalogue: &Catalogue) -> Self {
        Self {
            catalogue: catalogue.clone(),
            hasher: RandomState::default(),
            known: HashTable::new(),
            scrape: 1,
            bytes: 0,
            changed: false,
        }
    }

    /// Takes what an entry says of a family; samples say nothing. Gives all that is known of the family by now, unless there
    /// is no room to remember it.
    pub fn take(&mut self, entry: &Entry<'_>) -> Option<&Arc<Metadata>> {
        let family = match entry {
            Entry::Type { family, kind } => {
                self.describe(family, |known| known.kind == *kind, |new| new.kind = *kind);
                family
            }
            Entry::Help { family, text } => {
                self.describe(family, |known| &*known.help == text.as_ref(), |new| new.help = text.as_ref().into());
                family
            }
            Entry::Unit { family, unit } => {
                self.describe(family, |known| &*known.unit == *unit, |new| new.unit = (*unit).into());
                family
            }
            Entry::Sample(_) | Entry::Histogram(_) | Entry::Comment | Entry::Eof => return None,
        };
        let hash = self.hasher.hash_one(&**family);
        let known = self.known.find(hash, |known| &*known.metadata.family == family.as_ref());
        known.map(|known| &known.metadata)
    }

    /// Ends a scrape. As in Prometheus, one that failed or brought nothing at all makes nothing forgotten.
    pub fn end_scrape(&mut self, told: bool) {
        if told {
            let (scrape, bytes, changed) = (self.scrape, &mut self.bytes, &mut self.changed);
            self.known.retain(|known| {
                let kept = scrape - known.seen <= KEPT_SCRAPES;
                *bytes -= if kept { 0 } else { bytes_of(&known.metadata) };
                *changed |= !kept;
                kept
            });
        }
        self.scrape += 1;
    }

    /// All that is known, by the names of the families, if it is not what it was when this was asked last.
    pub fn changed(&mut self) -> Option<Arc<[Arc<Metadata>]>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut list: Vec<_> = self.known.iter().map(|known| Arc::clone(&known.metadata)).collect();
        list.sort_by(|one, other| one.family.cmp(&other.family));
        Some(list.into())
    }

    fn describe(&mut self, family: &str, says_so: impl Fn(&Metadata) -> bool, say: impl FnOnce(&mut Metadata)) {
        let hash = self.hasher.hash_one(family);
        let known = self.known.find_mut(hash, |known| &*known.metadata.family == family);
        let mut metadata = match known {
            Some(known) => {
                known.seen = self.scrape;
                if says_so(&known.metadata) {
                    return;
                }
                Metadata::clone(&known.metadata)
            }
            None => Metadata {
                family: family.into(),
                kind: MetricType::Unknown,
                help: Arc::default(),
                unit: Arc::default(),
            },
        };
        say(&mut metadata);
        let known = self.known.find_mut(hash, |known| &*known.metadata.family == family);
        let before = known.as_ref().map_or(0, |known| bytes_of(&known.metadata));
        let bytes = self.bytes - before + bytes_of(&metadata);
        if bytes > MAX_BYTES {
            return;
        }
        self.bytes = bytes;
        self.changed = true;
        let metadata = self.catalogue.entry(metadata);
        match known {
            Some(known) => known.metadata = metadata,
            None => {
                let new = Described { metadata, seen: self.scrape };
                let hasher = &self.hasher;
                self.known.insert_unique(hash, new, |known| hasher.hash_one(&*known.metadata.family));
            }
        }
    }
}

/// What remembering it costs, about.
pub(super) fn bytes_of(metadata: &Metadata) -> usize {
    OWN_BYTES + metadata.family.len() + metadata.help.len() + metadata.unit.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn help<'a>(family: &'a str, text: &'a str) -> Entry<'a> {
        Entry::Help { family: family.into(), text: text.into() }
    }

    fn kind(family: &str, kind: MetricType) -> Entry<'_> {
        Entry::Type { family: family.into(), kind }
    }

    /// Family, type, help and unit of all that is known.
    fn listed(catalogue: &Catalogue) -> Vec<String> {
        let line = |known: &Arc<Metadata>| {
            let Metadata { family, kind, help, unit } = &**known;
            format!("{family} {} {help:?} {unit:?}", kind.as_str())
        };
        catalogue.list().iter().map(line).collect()
    }

    #[test]
    fn what_several_targets_say_alike_is_listed_once_and_as_long_as_one_says_it() {
        let catalogue = Catalogue::default();
        let [mut one, mut other] = [Descriptions::new(&catalogue), Descriptions::new(&catalogue)];
        for target in [&mut one, &mut other] {
            target.take(&kind("fill", MetricType::Gauge));
            target.take(&help("fill", "How full it is"));
            target.take(&Entry::Unit { family: "fill".into(), unit: "ratio" });
        }
        other.take(&help("ok", "All is well"));
        assert_eq!(listed(&catalogue), [r#"fill gauge "How full it is" "ratio""#, r#"ok unknown "All is well" """#]);
        drop(other);
        assert_eq!(listed(&catalogue), [r#"fill gauge "How full it is" "ratio""#]);
        one.take(&kind("fill", MetricType::Counter));
        assert_eq!(listed(&catalogue), [r#"fill counter "How full it is" "ratio""#]);
        drop(one);
        assert_eq!(listed(&catalogue), [""; 0]);
    }

    #[test]
    fn a_family_that_vanished_is_known_for_ten_good_scrapes() {
        let catalogue = Catalogue::default();
        let mut target = Descriptions::new(&catalogue);
        target.take(&help("a", "x"));
        target.end_scrape(true);
        for _ in 0..100 {
            target.end_scrape(false);
        }
        assert_eq!(listed(&catalogue).len(), 1, "scrapes that fail make nothing forgotten");
        drop(target);

        let mut target = Descriptions::new(&catalogue);
        target.take(&help("b", "x"));
        for scrape in 1..=KEPT_SCRAPES + 1 {
            assert_eq!(listed(&catalogue).len(), 1, "before the end of scrape {scrape}");
            target.end_scrape(true);
        }
        assert_eq!(listed(&catalogue).len(), 1, "ten scrapes behind the one that described it");
        target.end_scrape(true);
        assert_eq!(listed(&catalogue), [""; 0]);
        assert_eq!(target.bytes, 0);
    }

    #[test]
    fn what_a_target_may_have_remembered_is_bounded() {
        let catalogue = Catalogue::default();
        let mut target = Descriptions::new(&catalogue);
        let long = "x".repeat(MAX_BYTES / 4);
        for family in ["a", "b", "c", "d", "e"] {
            target.take(&help(family, &long));
        }
        assert_eq!(catalogue.list().len(), 3);
        // It can say something shorter, and then there is room again.
        target.take(&help("a", "short"));
        target.take(&help("e", &long));
        assert_eq!(catalogue.list().len(), 4);

        let mut target = Descriptions::new(&catalogue);
        for number in 0..100_000 {
            target.take(&kind(&format!("f{number}"), MetricType::Gauge));
        }
        assert!(target.bytes <= MAX_BYTES && target.known.len() < MAX_BYTES / OWN_BYTES);
    }

    #[test]
    fn what_nobody_says_any_more_does_not_pile_up() {
        let catalogue = Catalogue::default();
        let mut target = Descriptions::new(&catalogue);
        for number in 0..10 * SWEEP_AT_LEAST {
            target.take(&help("a", &number.to_string()));
        }
        assert!(catalogue.entries().known.len() <= 2 * SWEEP_AT_LEAST);
    }

    #[test]
    fn what_nobody_says_any_more_takes_few_bytes_however_large_it_was() {
        let held = |catalogue: &Catalogue| -> usize {
            let entries = catalogue.entries();
            let bytes = entries.known.iter().map(|known| known.help.len()).sum();
            assert!(entries.bytes >= bytes);
            bytes
        };
        let catalogue = Catalogue::default();
        let long = "x".repeat(MAX_BYTES - 1024);
        let mut changing = Descriptions::new(&catalogue);
        for scrape in 0..100 {
            changing.take(&help("a", &format!("{scrape} {long}")));
            changing.end_scrape(true);
            assert!(held(&catalogue) <= SWEEP_AT_LEAST_BYTES, "scrape {scrape}: {}", held(&catalogue));
        }
        // Beside much that is said and stays, as much again may wait for the next sweep.
        let mut others: Vec<_> = (0..8).map(|_| Descriptions::new(&catalogue)).collect();
        for (number, other) in others.iter_mut().enumerate() {
            other.take(&help("b", &format!("{number} {long}")));
        }
        for scrape in 0..100 {
            changing.take(&help("a", &format!("{scrape} {long}")));
            assert!(held(&catalogue) <= 2 * 10 * MAX_BYTES, "scrape {scrape}: {}", held(&catalogue));
        }
        drop((changing, others));
        assert_eq!((listed(&catalogue).len(), catalogue.entries().bytes), (0, 0));
    }
}
