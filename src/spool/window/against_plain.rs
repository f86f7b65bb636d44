//! What leases get, against a plain way to say it that looks at all that waits.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use proptest::prelude::*;

use super::fresh::FRESH_FOR;
use super::*;
use crate::model::{TargetId, Tenant, WriteFormat};
use crate::spool::log::Batch;

const LINGER: Duration = Duration::from_secs(5);
const ELEMENTS: usize = 1_000;

#[derive(Clone, Debug)]
enum Step {
    /// Of this tenant, if it is one, and target; with so many samples.
    Push(u8, u64, u32),
    /// With so many samples and bytes, while those tenants are refused whose bit is set.
    Take(u64, u64, u8),
    Forget(usize),
    GiveBack(usize),
    Pass(Duration),
    Write,
    Read,
    /// The newest go first from now on, or the oldest.
    NewestFirst(bool),
    Scattered(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => (0..4u8, 0..8u64, 1..20u32).prop_map(|(of, target, samples)| Step::Push(of, target, samples)),
        8 => (1..60u64, 1..40u64, 0..8u8).prop_map(|(samples, bytes, refused)| Step::Take(samples, bytes, refused)),
        3 => any::<usize>().prop_map(Step::Forget),
        2 => any::<usize>().prop_map(Step::GiveBack),
        2 => prop_oneof![Just(LINGER / 2), Just(FRESH_FOR)].prop_map(Step::Pass),
        3 => Just(Step::Write),
        2 => Just(Step::Read),
        1 => prop_oneof![3 => Just(true), 1 => Just(false)].prop_map(Step::NewestFirst),
        1 => prop_oneof![1 => Just(true), 3 => Just(false)].prop_map(Step::Scattered),
    ];
    proptest::collection::vec(step, 0..120)
}

fn tenant(of: u8) -> Option<Tenant> {
    Tenant::parse(&format!("t{of}")).ok().filter(|_| of > 0)
}

fn block((of, target, samples): (u8, u64, u32)) -> Block {
    Block {
        target: TargetId(target),
        receiver: 0,
        tenant: tenant(of),
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples,
        min_ms: 0,
        max_ms: 0,
        raw_len: samples % 7,
        elements: Bytes::from(vec![0; ELEMENTS]),
    }
}

/// Whether anything that is written has been fresh for too long.
fn has_too_old(window: &Window) -> bool {
    let Some(disk) = window.disk.as_ref().filter(|_| window.fresh.is_some()) else { return false };
    let is_old = |one: &Waiting| one.arrived.is_none_or(|arrived| arrived.elapsed() >= LINGER + FRESH_FOR);
    window.waiting.range(window.reach..disk.written_to).any(|(_, one)| is_old(one))
}

/// What a lease has to get, and how many bytes wait for those that are refused.
fn plainly(window: &Window, out: &[Vec<Waiting>], limits: LeaseLimits, refused: &Refused) -> (Vec<u64>, u64) {
    let newest_first = window.fresh.is_some();
    let end = if newest_first { window.reach } else { window.gap().map_or(u64::MAX, |gap| gap.start) };
    let is_refused = |one: &Waiting| one.block.tenant.as_ref().is_some_and(|tenant| refused.tenants.contains(tenant));
    let (there, fresh): (Vec<_>, Vec<_>) = window.waiting.values().partition(|one| one.number < end);
    let refused_bytes = there.iter().filter(|one| is_refused(one)).map(|one| one.bytes()).sum();
    let is_held = window.disk.as_ref().is_some_and(|disk| disk.is_scattered);
    let is_last = window.closed || window.gap().is_some() || newest_first;
    let there = first_of(there, out, limits, is_refused, is_last);
    let fresh = match newest_first {
        true => first_of(fresh, out, limits, is_refused, window.closed),
        false => Vec::new(),
    };
    let (first, second) = if is_held { (there, fresh) } else { (fresh, there) };
    let expected = if first.is_empty() { second } else { first };
    (expected, refused_bytes)
}

/// What of these a lease has to get.
fn first_of(
    there: Vec<&Waiting>,
    out: &[Vec<Waiting>],
    limits: LeaseLimits,
    is_refused: impl Fn(&Waiting) -> bool,
    is_last: bool,
) -> Vec<u64> {
    let out: HashSet<_> = out.iter().flatten().map(|one| one.block.target).collect();
    let mut lanes: Vec<Vec<&Waiting>> = Vec::new();
    for one in there.into_iter().filter(|one| !is_refused(one) && !out.contains(&one.block.target)) {
        match lanes.iter_mut().find(|lane| lane[0].block.tenant == one.block.tenant) {
            Some(lane) => lane.push(one),
            None => lanes.push(vec![one]),
        }
    }
    let is_due = |lane: &&Vec<&Waiting>| {
        let arrived = lane[0].arrived;
        arrived.is_none_or(|arrived| arrived + limits.linger <= Instant::now())
    };
    let sum_of = |lane: &[&Waiting]| {
        let mut sum = Sum::default();
        lane.iter().for_each(|one| sum.add(one));
        sum
    };
    let due = lanes.first().filter(is_due);
    let full = lanes.iter().find(|lane| sum_of(lane).reaches(limits));
    let last = lanes.first().filter(|_| is_last);
    let lane = due.or(full).or(last).map(Vec::as_slice).unwrap_or_default();
    let fits = |len: &usize| !sum_of(&lane[..len - 1]).reaches(limits) && !sum_of(&lane[..*len]).exceeds(limits);
    let fitting = (1..=lane.len()).take_while(|len| *len == 1 || fits(len)).last();
    lane[..fitting.unwrap_or(0)].iter().map(|one| one.number).collect()
}

/// Each block is in one place, and what is known of them is so.
fn check(
    window: &Window,
    out: &[Vec<Waiting>],
    written: &BTreeMap<u64, Block>,
    done: &HashSet<u64>,
) -> Result<(), TestCaseError> {
    let mut sum = Sum::default();
    window.waiting.values().for_each(|one| sum.add(one));
    prop_assert_eq!((sum.count, sum.bytes), (window.sum.count, window.sum.bytes));
    prop_assert!(sum.bytes <= window.capacity_bytes);
    let leased: HashSet<_> = out.iter().flatten().map(|one| one.block.target).collect();
    let there = window.waiting.range(..window.reach).map(|(_, one)| one);
    let unready = there.filter(|one| leased.contains(&one.block.target)).map(Waiting::bytes).sum::<u64>();
    prop_assert_eq!(unready, window.lanes.unready_bytes(&HashSet::new()));
    let out: HashSet<_> = out.iter().flatten().map(|one| one.number).collect();
    let (mut stored, gap) = (0, window.gap().unwrap_or(0..0));
    if !gap.is_empty() {
        stored =
            written.range(gap.clone()).filter(|(number, _)| !out.contains(number) && !done.contains(number)).count();
    }
    prop_assert_eq!(stored as u64, window.disk.as_ref().map_or(0, |disk| disk.stored.blocks));
    prop_assert!(window.waiting.keys().all(|number| !gap.contains(number) && !out.contains(number)));
    let known = window.waiting.len() + stored + out.len() + done.len();
    prop_assert_eq!(known as u64 + window.dropped(Lost::Memory).blocks, window.next - FIRST);
    if let (Some(fresh), Some(disk)) = (&window.fresh, &window.disk) {
        prop_assert!(window.reach <= disk.written_to);
        let bytes: u64 = window.waiting.range(window.reach..).map(|(_, one)| one.bytes()).sum();
        prop_assert_eq!(bytes, fresh.bytes);
        let most_bytes = (4 * window.front_bytes).min(window.capacity_bytes / 4);
        let all_written = window.waiting.range(window.reach..disk.written_to);
        prop_assert!(bytes <= most_bytes || all_written.count() == 0);
    }
    Ok(())
}

fn run(steps: Vec<Step>, with_disk: bool, newest_first: bool, front: u64) -> Result<(), TestCaseError> {
    let mut done = HashSet::new();
    let mut window = Window::new(40 * (ELEMENTS as u64 + 150), with_disk);
    window.set_front_bytes(front * (ELEMENTS as u64 + 150));
    window.opened(FIRST, Count::default(), None);
    window.set_newest_first(newest_first);
    let (mut out, mut written): (Vec<Vec<Waiting>>, BTreeMap<u64, Block>) = <_>::default();
    for step in steps {
        match step {
            Step::Push(of, target, samples) => window.push(block((of, target, samples))),
            Step::Take(max_samples, max_message_bytes, refused) => {
                let limits = LeaseLimits { max_samples, max_message_bytes, linger: LINGER };
                let tenants = (1..4u8).filter(|of| refused & (1 << (of - 1)) != 0).filter_map(tenant).collect();
                let refused = Refused { tenants, overdue: HashSet::new() };
                // What is too old may go to the front or into the gap: what a lease gets then is not said here.
                let was_old = has_too_old(&window);
                let (expected, refused_bytes) = plainly(&window, &out, limits, &refused);
                let taken = match window.take(limits, &refused) {
                    Take::Blocks(blocks) => blocks,
                    _ => Vec::new(),
                };
                prop_assert!(!has_too_old(&window), "fresh up to {}", window.reach);
                if !was_old {
                    prop_assert_eq!(taken.iter().map(|one| one.number).collect::<Vec<_>>(), expected);
                    prop_assert_eq!(window.refused_bytes, refused_bytes);
                }
                out.extend(Some(taken).filter(|taken| !taken.is_empty()));
            }
            Step::Forget(which) if !out.is_empty() => {
                let blocks = out.swap_remove(which % out.len());
                done.extend(blocks.iter().map(|one| one.number));
                window.forget(&blocks);
            }
            Step::GiveBack(which) if !out.is_empty() => window.give_back(out.swap_remove(which % out.len())),
            Step::Forget(_) | Step::GiveBack(_) => {}
            // The clock is set at once, whoever waits for it.
            Step::Pass(by) => drop(tokio::time::advance(by).now_or_never()),
            Step::Write => {
                let batch = window.next_to_write(10 * ELEMENTS as u64);
                if let Some((last, _)) = batch.last().cloned() {
                    written.extend(batch);
                    window.wrote(last + 1);
                }
            }
            Step::Read => {
                if let Some((range, wanted)) = window.next_to_read() {
                    let (from, some) = (range.start, wanted.div_ceil(ELEMENTS as u64) as usize);
                    let blocks: Vec<_> = written.range(range).take(some).map(|(at, one)| (*at, one.clone())).collect();
                    let next = blocks.last().map_or(from, |(last, _)| last + 1);
                    window.has_read(from, Batch { blocks, next, ..Batch::default() }, Lost::Damage);
                }
            }
            Step::NewestFirst(newest_first) => window.set_newest_first(newest_first),
            Step::Scattered(is_scattered) => window.set_scattered(is_scattered),
        }
        check(&window, &out, &written, &done)?;
    }
    // Nothing is known any more of what is gone.
    out.into_iter().for_each(|blocks| window.give_back(blocks));
    for number in window.waiting.keys().copied().collect::<Vec<_>>() {
        window.take_away(number);
    }
    prop_assert!(window.lanes.is_empty());
    prop_assert!(window.fresh.is_none_or(|fresh| fresh.lanes.is_empty() && fresh.bytes == 0));
    Ok(())
}

proptest! {
    #[test]
    fn a_lease_gets_what_a_plain_look_at_all_that_waits_would_give_it(
        steps in steps(),
        with_disk in any::<bool>(),
        newest_first in any::<bool>(),
        front in 2..20u64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
        runtime.block_on(async { run(steps, with_disk, newest_first, front) })?;
    }
}
