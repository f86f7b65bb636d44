//! A queue on disk against a plain model of it, through crashes and failing disks.
//!
//! The model knows which blocks are pending, which were acknowledged, and of both which must have survived what. It checks:
//! - the blocks of a target come in order, never in two leases at a time, and never one twice while the process lives; where
//!   the newest go first, those of the backlog are in order and those that go before it are;
//! - nothing is lost that was on disk, or is in memory, unless its record was damaged or a bound was hit, and then it is
//!   counted;
//! - nothing that was acknowledged comes back, unless a crash lost the acknowledgement;
//! - a lease is of one tenant, who is not refused; if he is, it is said that he is to give it up;
//! - memory and disk stay within their bounds, and the disk's thread comes to an end with what it does.

mod steps;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use prometheus_client::registry::Registry;
use proptest::prelude::*;

use super::disk::{Disk, DiskLimits, Ticks};
use super::memory::{Fault, Memory};
use super::queue::Queue;
use super::window::FIRST;
use super::*;
use crate::model::{TargetId, Tenant};
use steps::{RECORD, Step, all_full, block, step};

#[derive(Clone, Copy, Debug)]
struct Bounds {
    memory: u64,
    disk: u64,
}

/// So much that none of these sequences comes near.
const ROOMY: Bounds = Bounds { memory: 1 << 30, disk: 1 << 30 };

/// What is fresh is so for a shorter time.
const PASS: Duration = Duration::from_secs(11);

/// A process.
struct Process {
    queue: Arc<Queue>,
    outlet: Outlet,
    disk: Disk<Memory>,
    leases: Vec<Lease>,
    /// The last block of each target that came out of the backlog and of what goes before it, unless something went back.
    came: [HashMap<TargetId, i64>; 2],
    taken_in: u64,
    acknowledged: u64,
    began_with: Option<u64>,
}

struct Model {
    storage: Memory,
    newest_first: bool,
    /// How often it was read in this step.
    reads: Arc<AtomicU32>,
    refused: Refused,
    bounds: Bounds,
    /// The one that lives now.
    process: Process,
    pushed: i64,
    pending: BTreeSet<i64>,
    acknowledged: BTreeSet<i64>,
    /// Pending ones that a kill must not lose, and that the loss of power must not lose.
    written: BTreeSet<i64>,
    synced: BTreeSet<i64>,
    /// Acknowledged ones that must not come back after a kill, and after the loss of power.
    saved: BTreeSet<i64>,
    saved_durably: BTreeSet<i64>,
    /// Something that was to become durable did not, and counts for all who come later as if it were.
    was_forgotten: bool,
    /// Those that may be so, of earlier processes: nobody writes them again.
    forgotten: BTreeSet<i64>,
    /// How many blocks may be gone because of damage that this process can have found.
    may_lose: usize,
    /// How often the header and the first record of a segment were hit.
    heads_hit: HashMap<String, usize>,
    works: bool,
    /// How often time may pass: never so much in all that the patience with a disk ends.
    passes: u32,
}

impl Process {
    fn begin(storage: &Memory, bounds: Bounds, newest_first: bool) -> Self {
        let limits = DiskLimits { max_bytes: bounds.disk, max_age: Duration::from_secs(7200) };
        let settings = QueueSettings {
            name: "one".into(),
            labels: vec![("remote_name".into(), "one".into())],
            capacity_bytes: bounds.memory,
            disk: Some(DiskSettings { directory: "one".into(), limits, newest_first }),
        };
        let queue = Arc::new(Queue::new(settings, &Metrics::new(&mut Registry::default())));
        queue.ask(|window| window.set_front_bytes(8 * RECORD));
        let (outlet, place) = (Outlet::new(Arc::clone(&queue)), storage.clone());
        let mut log_limits = limits.of_log();
        log_limits.segment_bytes = 3 * RECORD;
        let disk = Disk::new(
            Arc::clone(&queue),
            (Box::new(move || Ok(place.clone())), "/".into()),
            log_limits,
            0,
            Ticks::from(0),
            false,
        );
        let (leases, came) = (Vec::new(), <_>::default());
        Self { queue, outlet, disk, leases, came, taken_in: 0, acknowledged: 0, began_with: None }
    }
}

impl Model {
    fn new(bounds: Bounds, newest_first: bool) -> Self {
        let (storage, reads) = (Memory::default(), Arc::new(AtomicU32::new(0)));
        storage.before_read({
            let reads = Arc::clone(&reads);
            move || assert!(reads.fetch_add(1, Ordering::Relaxed) < 5_000, "it reads without end")
        });
        let process = Process::begin(&storage, bounds, newest_first);
        Self {
            storage,
            newest_first,
            reads,
            refused: Refused::default(),
            bounds,
            process,
            pushed: 0,
            pending: BTreeSet::new(),
            acknowledged: BTreeSet::new(),
            written: BTreeSet::new(),
            synced: BTreeSet::new(),
            saved: BTreeSet::new(),
            saved_durably: BTreeSet::new(),
            was_forgotten: false,
            forgotten: BTreeSet::new(),
            may_lose: 0,
            heads_hit: HashMap::new(),
            works: true,
            passes: 4,
        }
    }

    fn is_roomy(&self) -> bool {
        self.bounds.disk == ROOMY.disk
    }

    fn work(&mut self, sync: bool) {
        self.process.disk.settle();
        if sync {
            self.process.disk.hurry();
            self.process.disk.settle();
        }
        if self.process.began_with.is_none() {
            let seen = self.process.outlet.snapshot();
            let known = seen.pending_blocks + seen.dropped_blocks + self.process.acknowledged;
            self.process.began_with = Some(known - self.process.taken_in);
        }
        if !self.works {
            return;
        }
        self.written = self.pending.clone();
        if sync {
            // What could not be synced and cannot be read is not written again.
            if self.storage.hides_nothing() {
                self.synced = self.pending.difference(&self.forgotten).copied().collect();
                self.was_forgotten = false;
            }
            self.saved = self.acknowledged.clone();
            self.saved_durably = self.acknowledged.clone();
        }
    }

    /// Another process begins. These must be there, these must not, of what was there and known.
    fn begin(
        &mut self,
        kept: BTreeSet<i64>,
        gone: BTreeSet<i64>,
        hidden: Option<(usize, u64)>,
    ) -> Result<(), TestCaseError> {
        self.storage.fail(None);
        self.storage.unhide();
        let there = self.found(hidden)?;
        self.process = Process::begin(&self.storage, self.bounds, self.newest_first);
        self.works = true;
        // It looks before anything comes in.
        self.process.disk.settle();
        let seen = self.process.outlet.snapshot();
        let found = seen.pending_blocks;
        prop_assert!(found == there.len() as u64 || !self.is_roomy(), "{found} of {there:?}");
        // Files whose end was not durable are there again, and may be too much.
        self.process.began_with = Some(found + seen.dropped_blocks);
        let returned: Vec<_> = there.intersection(&gone).collect();
        prop_assert!(returned.is_empty(), "acknowledged and here again: {returned:?}");
        let missing: Vec<_> = kept.difference(&there).collect();
        if self.is_roomy() {
            prop_assert!(missing.len() <= self.may_lose, "{missing:?} are lost, {} may be", self.may_lose);
        }
        prop_assert!(there.iter().all(|one| *one < self.pushed));
        self.may_lose = 0;
        self.acknowledged = self.acknowledged.difference(&there).copied().collect();
        // What is there was written, and what is done with is what was written down.
        self.saved = gone.clone();
        self.saved_durably = self.saved_durably.intersection(&self.acknowledged).copied().collect();
        self.written = there.clone();
        self.synced = self.synced.intersection(&there).copied().collect();
        if std::mem::take(&mut self.was_forgotten) {
            self.forgotten.extend(there.difference(&self.synced));
        }
        self.pending = there;
        Ok(())
    }

    /// All that a process finds on such a disk, in the order in which it delivers it; a part of a file may not be readable
    /// at first.
    fn found(&self, hidden: Option<(usize, u64)>) -> Result<BTreeSet<i64>, TestCaseError> {
        let storage = self.storage.copy();
        let names = storage.names(".log");
        let hidden = hidden.filter(|_| !names.is_empty()).map(|(file, from)| (&names[file % names.len()], from));
        if let Some((name, from)) = hidden {
            storage.hide(name, from);
        }
        let mut process = Process::begin(&storage, self.bounds, self.newest_first);
        let (mut there, mut came) = (BTreeSet::new(), HashMap::new());
        let mut idle = 0;
        for _ in 0..1_000 {
            process.disk.hurry();
            process.disk.settle();
            let limits = LeaseLimits { max_samples: 50, max_message_bytes: u64::MAX, linger: Duration::ZERO };
            let Some(Some(lease)) = process.outlet.lease(limits).now_or_never() else {
                idle += 1;
                if idle > 2 {
                    storage.unhide();
                }
                if idle > 6 {
                    break;
                }
                continue;
            };
            for block in lease.blocks() {
                let last = came.insert(block.target, block.min_ms);
                prop_assert!(last < Some(block.min_ms), "{} is out of order", block.min_ms);
                there.insert(block.min_ms);
            }
            lease.ack();
        }
        let seen = process.outlet.snapshot();
        prop_assert_eq!(seen.pending_blocks, 0, "only {:?} come of {:?}", there, seen);
        prop_assert!(seen.dropped_blocks == 0 || !self.is_roomy(), "only {there:?} come of {seen:?}");
        Ok(there)
    }

    fn apply(&mut self, step: Step) -> Result<(), TestCaseError> {
        self.reads.store(0, Ordering::Relaxed);
        match step {
            Step::Refuse(set, for_long) => {
                let names = ["a", "b", "c"].into_iter().enumerate().filter(|(bit, _)| set & (1 << bit) != 0);
                let tenants: HashSet<_> = names.filter_map(|(_, name)| Tenant::parse(name).ok()).collect();
                let overdue = if for_long { tenants.clone() } else { HashSet::new() };
                self.refused = Refused { tenants, overdue };
            }
            Step::Push(count) => {
                for _ in 0..count {
                    self.process.queue.push(block(self.pushed, 10));
                    self.pending.insert(self.pushed);
                    self.pushed += 1;
                    self.process.taken_in += 1;
                }
            }
            Step::Lease(blocks) => {
                let max_samples = u64::from(blocks) * 10;
                let limits = LeaseLimits { max_samples, max_message_bytes: u64::MAX, linger: Duration::ZERO };
                let lease = self.process.outlet.lease_except(limits, &self.refused).now_or_never();
                if let Some(Some(lease)) = lease {
                    let tenants: HashSet<_> = lease.blocks().map(|one| &one.tenant).collect();
                    prop_assert!(tenants.len() == 1, "{tenants:?} in one lease");
                    let is_in = |set: &HashSet<Tenant>| tenants.iter().copied().flatten().any(|one| set.contains(one));
                    prop_assert!(is_in(&self.refused.tenants) == lease.is_overdue());
                    prop_assert!(is_in(&self.refused.overdue) == lease.is_overdue());
                    let numbers: Vec<_> = lease.blocks().map(|block| block.min_ms).collect();
                    prop_assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
                    let first_fresh = self.process.queue.ask(|window| window.first_fresh());
                    let of_this_process = self.pushed - self.process.taken_in as i64;
                    let is_fresh = |number: &i64| {
                        first_fresh.is_some_and(|first| *number - of_this_process >= (first - FIRST) as i64)
                    };
                    let fresh = numbers.iter().filter(|number| is_fresh(number)).count();
                    prop_assert!(fresh == 0 || fresh == numbers.len(), "{fresh} of {numbers:?} are fresh");
                    for block in lease.blocks() {
                        let last = self.process.came[usize::from(fresh > 0)].insert(block.target, block.min_ms);
                        prop_assert!(last < Some(block.min_ms), "{} behind {last:?}", block.min_ms);
                    }
                    prop_assert!(numbers.iter().all(|one| self.pending.contains(one)), "{numbers:?}");
                    let out: BTreeSet<_> =
                        self.process.leases.iter().flat_map(Lease::blocks).map(|one| one.target.0).collect();
                    prop_assert!(
                        lease.blocks().all(|one| !out.contains(&one.target.0)),
                        "{numbers:?}; {out:?} are out"
                    );
                    self.process.leases.push(lease);
                }
            }
            Step::Ack(which) if !self.process.leases.is_empty() => {
                let lease = self.process.leases.swap_remove(which % self.process.leases.len());
                for block in lease.blocks() {
                    self.pending.remove(&block.min_ms);
                    self.written.remove(&block.min_ms);
                    self.synced.remove(&block.min_ms);
                    self.acknowledged.insert(block.min_ms);
                    self.process.acknowledged += 1;
                }
                lease.ack();
            }
            Step::GiveBack(which) if !self.process.leases.is_empty() => {
                let lease = self.process.leases.swap_remove(which % self.process.leases.len());
                for block in lease.blocks() {
                    for came in &mut self.process.came {
                        came.remove(&block.target);
                    }
                }
                drop(lease);
            }
            Step::Ack(_) | Step::GiveBack(_) => {}
            Step::Work => self.work(false),
            Step::Sync => self.work(true),
            Step::Kill => self.begin(self.written.clone(), self.saved.clone(), None)?,
            Step::KillHidden(file, from) => {
                self.begin(self.written.clone(), self.saved.clone(), Some((file, from)))?;
            }
            Step::Hide(file) => {
                let names = self.storage.names(".log");
                if !names.is_empty() {
                    self.storage.hide(&names[file % names.len()], 0);
                }
            }
            Step::PowerCut(luck) => {
                self.storage.lose_power(luck);
                self.begin(self.synced.clone(), self.saved_durably.clone(), None)?;
            }
            Step::Restart => {
                if !self.works {
                    return Ok(());
                }
                self.process.leases.clear();
                self.process.queue.close();
                let observer = self.process.outlet.observer();
                let fresh = Outlet::new(Arc::clone(&self.process.queue));
                drop(std::mem::replace(&mut self.process.outlet, fresh));
                let lost_before = observer().dropped_blocks;
                self.process.queue.ask(|_| ());
                self.work(true);
                prop_assert!(!self.is_roomy() || observer().dropped_blocks - lost_before <= self.may_lose as u64);
                self.begin(self.pending.clone(), self.acknowledged.clone(), None)?;
            }
            Step::Flip(file, bit) => {
                let names = self.storage.names(".log");
                if !names.is_empty() {
                    let name = &names[file % names.len()];
                    let (mut at, mut len) = (0, 0);
                    self.storage.change(name, |bytes| {
                        if !bytes.is_empty() {
                            let bit = bit % (bytes.len() * 8);
                            (at, len) = (bit / 8, bytes.len());
                            bytes[at] ^= 1 << (bit % 8);
                        }
                    });
                    self.damage(name, at, len);
                }
            }
            Step::Tear(bytes) => {
                if let Some(name) = self.storage.names(".log").last() {
                    let mut len = 0;
                    self.storage.change(name, |content| {
                        len = content.len().saturating_sub(bytes.into());
                        content.truncate(len);
                    });
                    self.damage(name, len, len);
                }
                self.begin(self.written.clone(), self.saved.clone(), None)?;
            }
            Step::Fail(fault) => {
                self.storage.fail(Some(fault));
                self.works = false;
                self.was_forgotten |= fault == Fault::Forgotten;
            }
            Step::Heal => {
                self.storage.fail(None);
                self.storage.unhide();
                self.works = true;
                self.process.disk.hurry();
            }
            Step::NewestFirst(newest_first) => {
                self.newest_first = newest_first;
                self.process.queue.ask(|window| window.set_newest_first(newest_first));
                self.process.came = <_>::default();
            }
            Step::Pass if self.passes > 0 => {
                self.passes -= 1;
                // The clock is set at once, whoever waits for it.
                let _ = tokio::time::advance(PASS).now_or_never();
            }
            Step::Pass => {}
        }
        self.check()
    }

    /// Damage of a segment with `len` bytes costs one block. But if its header and its first record are hit, all is lost.
    fn damage(&mut self, name: &str, at: usize, len: usize) {
        let record = record::len(&block(0, 0));
        self.may_lose += 1;
        if at < segment::HEADER as usize + record {
            let hits = self.heads_hit.entry(name.to_owned()).or_default();
            *hits += 1;
            if *hits > 1 {
                self.may_lose += len / record + 1;
            }
        }
    }

    fn check(&self) -> Result<(), TestCaseError> {
        let Process { outlet, taken_in, acknowledged, began_with, .. } = &self.process;
        let seen = outlet.snapshot();
        if let Some(began_with) = began_with {
            let known = seen.pending_blocks + seen.dropped_blocks + acknowledged;
            prop_assert_eq!(known, began_with + taken_in, "{:?}", seen);
        }
        prop_assert!(seen.waiting_bytes <= self.bounds.memory);
        if self.is_roomy() {
            prop_assert!(seen.dropped_blocks as usize <= self.may_lose, "{:?}", seen);
        }
        // A segment that is begun anew has a header.
        prop_assert!(self.storage.bytes() <= self.bounds.disk + RECORD, "{} bytes", self.storage.bytes());
        Ok(())
    }
}

fn run(bounds: Bounds, newest_first: bool, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let _entered = runtime.enter();
    let mut model = Model::new(bounds, newest_first);
    for step in steps {
        model.apply(step)?;
    }
    // Whatever was, in the end the rest comes out.
    model.apply(Step::Heal)?;
    model.apply(Step::Refuse(0, false))?;
    model.process.leases.clear();
    model.process.came = <_>::default();
    model.process.queue.close();
    for _ in 0..10_000 {
        model.apply(Step::Sync)?;
        model.apply(Step::Lease(20))?;
        model.apply(Step::Ack(0))?;
        if model.process.outlet.snapshot().pending_blocks == 0 {
            return Ok(());
        }
    }
    Err(TestCaseError::fail(format!("it does not run dry: {:?}", model.process.outlet.snapshot())))
}

/// The full number of sequences takes a while.
fn cases() -> ProptestConfig {
    let soak = std::env::var_os("MESHSCRAPE_SOAK").is_some();
    ProptestConfig::with_cases(if soak { 50_000 } else { 1_000 })
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn with_room_nothing_is_lost(newest_first in any::<bool>(), steps in proptest::collection::vec(step(), 0..60)) {
        run(ROOMY, newest_first, steps)?;
    }

    #[test]
    fn without_room_the_bounds_hold(
        steps in proptest::collection::vec(step(), 0..60),
        memory in 2..40u64,
        disk in 8..40u64,
        full in proptest::option::of(any::<bool>()),
        newest_first in any::<bool>(),
    ) {
        let begin = full.map(all_full).unwrap_or_default();
        run(Bounds { memory: memory * 1_000, disk: disk * RECORD }, newest_first, [begin, steps].concat())?;
    }
}
