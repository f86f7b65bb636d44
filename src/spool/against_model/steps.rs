//! What is done to a queue and its model, and with which blocks.

use bytes::Bytes;
use proptest::prelude::*;

use crate::model::{Block, TargetId, Tenant, WriteFormat};
use crate::spool::memory::Fault;

/// What a block of the test takes on disk, about.
pub(super) const RECORD: u64 = 200;

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Push(u8),
    Lease(u8),
    /// The receiver refuses those tenants from now on whose bit is set; for long: some of theirs may be given up.
    Refuse(u8, bool),
    Ack(usize),
    GiveBack(usize),
    /// The disk's thread does what is due.
    Work,
    /// It saves and syncs as well.
    Sync,
    /// The process is killed, and another one begins.
    Kill,
    /// The same, and one of its files cannot be read from some byte on for a while.
    KillHidden(usize, u64),
    /// A file cannot be read, until all is well again.
    Hide(usize),
    /// The machine loses its power with so much luck, and another process begins.
    PowerCut(u8),
    /// The process ends in order, and another one begins.
    Restart,
    /// A bit of a segment flips.
    Flip(usize, usize),
    /// The process is killed, and of the last segment some bytes are missing.
    Tear(u8),
    Fail(Fault),
    Heal,
    /// The newest go first from now on, or the oldest.
    NewestFirst(bool),
    /// So much time that nothing is fresh any more.
    Pass,
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (1..8u8).prop_map(Step::Push),
        8 => (1..30u8).prop_map(Step::Lease),
        2 => (0..8u8, any::<bool>()).prop_map(|(set, for_long)| Step::Refuse(set, for_long)),
        6 => any::<usize>().prop_map(Step::Ack),
        2 => any::<usize>().prop_map(Step::GiveBack),
        10 => Just(Step::Work),
        3 => Just(Step::Sync),
        2 => Just(Step::Kill),
        1 => (any::<usize>(), 0..4 * RECORD).prop_map(|(file, from)| Step::KillHidden(file, from)),
        1 => any::<usize>().prop_map(Step::Hide),
        1 => any::<u8>().prop_map(Step::PowerCut),
        1 => Just(Step::Restart),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(file, bit)| Step::Flip(file, bit)),
        1 => (1..60u8).prop_map(Step::Tear),
        1 => prop_oneof![Just(Fault::Full), Just(Fault::Uncuttable), Just(Fault::ReadOnly), Just(Fault::Broken), Just(Fault::NoFiles), Just(Fault::Undeletable), Just(Fault::FirstUndeletable), Just(Fault::Unsyncable), Just(Fault::Forgotten)].prop_map(Step::Fail),
        2 => Just(Step::Heal),
        1 => any::<bool>().prop_map(Step::NewestFirst),
        2 => Just(Step::Pass),
    ]
}

/// The disk is full of what is of refused tenants, and the memory of what it does not take; `for_long`: some of theirs may be
/// given up.
pub(super) fn all_full(for_long: bool) -> Vec<Step> {
    let written = [Step::Push(7), Step::Work, Step::Lease(1)].repeat(6);
    let begin = [
        &[Step::Refuse(if for_long { 3 } else { 7 }, for_long)],
        &written[..],
        &[Step::Fail(Fault::Full)],
        &vec![Step::Push(7); 20],
    ]
    .concat();
    [begin, vec![Step::Lease(1), Step::Work]].concat()
}

/// Several blocks of each of some targets are under way, in no regular order.
fn target_of(number: i64) -> TargetId {
    TargetId(number.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61)
}

/// Each of the three has some of the targets, and nobody the rest.
fn tenant_of(target: TargetId) -> Option<Tenant> {
    let name = ["a", "b", "c"].get(target.0 as usize % 4)?;
    Tenant::parse(name).ok()
}

pub(super) fn block(number: i64, samples: u32) -> Block {
    Block {
        target: target_of(number),
        receiver: 0,
        tenant: tenant_of(target_of(number)),
        histograms: 0,
        exemplars: 0,
        format: WriteFormat::V1,
        samples,
        min_ms: number,
        max_ms: number,
        raw_len: 100,
        elements: Bytes::from(vec![number as u8; 120]),
    }
}
