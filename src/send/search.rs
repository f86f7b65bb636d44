//! Which series of a target a receiver does not want.
//!
//! ```text
//! several scrapes, rejected ─▶ the older half ─▶ … ─▶ one scrape ─▶ the newer ones without what was found in it
//!
//! one scrape, rejected ─▶ first half  ─┬─ taken
//!                    └──▶ second half ─┴─ rejected ─▶ its halves ─▶ … ─▶ one series: dropped, named, remembered
//! ```
//! Halves of a scrape have different series, and halves of several scrapes different times, so that the samples of one series
//! stay in order. They go one after the other, with the pauses of the backoff after rejections, which begin anew with each
//! scrape, and whenever something was taken or a series was found.
//!
//! It may be another thing than series: once some of a scrape were rejected and nothing was taken, what is left of it is tried
//! as it is, and it ends if none of that is taken, either. Scrapes may be at fault then, and after a few of these the next are
//! only tried as they are, until something is taken. What is rejected for its size is halved as long as something is taken, and
//! one series is tried before it is given up: who takes a little at a time has all in the end.
//!
//! What always holds: nothing is dropped that was in no rejected request; the samples of a series are sent in order; a search
//! ends: each step halves a piece or settles it, and what it costs in each scrape is counted: the pauses, and the time of
//! requests that were rejected, but for what an outage adds to that.

use std::collections::HashSet;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::delivery::{Delivery, Rejection, Settled};
use super::parts::{halves, id_of, samples_of, some_series, spans_series, tenant_of, without};
use crate::model::Block;

/// How many rejections a search in one scrape may cost in any case. Those for the size of a piece do not count where another
/// one was taken: its halves are smaller.
const MAX_REJECTIONS: u32 = 100;

/// How much time it may cost if that is more, and all searches in one request together, in longest pauses of the backoff: five
/// minutes, if nobody says otherwise. Where pieces are rejected for their size, how much without anything being taken.
const LONGEST: u32 = 60;

/// After how many single series it is doubted that a receiver which took nothing yet takes anything of the rest, and after how
/// many if it takes others.
const ENOUGH: u32 = 2;
const ENOUGH_WHERE_WELL: u32 = 10;

/// How many scrapes are searched in vain before the next are not. Of few samples all may be at fault; one with more of them
/// tells as much as all of these.
const IN_VAIN: u32 = 3;
const MANY_SAMPLES: u64 = 16;

/// What a search comes after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Blocks were rejected, or may be.
    Rejection,
    /// An earlier run has left them, of which the receiver has taken something: then they are split whatever it rejected
    /// before. But it may have that, and most of these blocks, already, so that no series is to blame for what it rejects.
    Restart,
    /// These series were at fault, and some may be taken again: that nothing is taken of the first is no reason for doubt.
    Healing,
}

/// What a search came to.
#[derive(Debug, Default)]
pub(super) struct Searched {
    pub(super) any_taken: bool,
    /// For something else than its size.
    pub(super) any_rejected: bool,
    /// Some of what was not split in the end, because nothing of its scrape was taken, and not for its size.
    held: Option<Block>,
    /// What it has cost, together with those before it.
    time: Duration,
}

impl Searched {
    fn add(&mut self, other: Searched) {
        self.any_taken |= other.any_taken;
        self.any_rejected |= other.any_rejected;
        self.held = self.held.take().or(other.held);
        self.time = other.time;
    }
}

/// Takes one series, to be sent, out of the largest of these pieces that was rejected for its size.
fn one_of_the_largest(held: &mut [(Vec<Block>, Rejection)]) -> Vec<(Vec<Block>, Option<Rejection>)> {
    let too_large = held.iter_mut().filter(|(_, rejection)| rejection.is_about_size());
    let Some((piece, _)) = too_large.max_by_key(|(piece, _)| samples_of(piece)) else { return Vec::new() };
    // Not the first, which is next to what was found.
    let one = some_series(piece, 1, 1).unwrap_or_default();
    let Ok([others, one]) = without(piece, |series| one.contains(series)) else { return Vec::new() };
    *piece = others;
    if one.is_empty() { Vec::new() } else { vec![(one, None)] }
}

/// What a search in one scrape has cost.
#[derive(Default)]
struct Cost {
    rejections: u32,
    /// Together with the searches before it.
    time: Duration,
    /// Since something was taken or found.
    in_vain: Duration,
    /// The samples of the largest piece that was taken.
    largest: u64,
}

impl Delivery {
    /// Settles all blocks of one target, in as many parts as it takes; with a `rejection`, they were rejected together.
    pub(super) async fn search(&self, blocks: Vec<Block>, rejection: Option<Rejection>, after: After) -> Searched {
        let searched = self.search_scrapes(blocks, rejection, after).await;
        if !searched.any_taken
            && after == After::Rejection
            && let Some(held) = &searched.held
            && !self.others_are_taken(std::slice::from_ref(held))
        {
            // It took nothing, so that its answers say nothing of single series.
            if !self.is_well(std::slice::from_ref(held)) {
                self.forgive(std::slice::from_ref(held));
            }
            self.all_rejected(held.tenant.clone());
        }
        searched
    }

    /// The same, and nothing is concluded for other targets if nothing was taken.
    pub(super) async fn search_scrapes(
        &self,
        blocks: Vec<Block>,
        rejection: Option<Rejection>,
        after: After,
    ) -> Searched {
        let began = (after == After::Healing).then(Instant::now);
        let (mut all, mut in_vain) = (Searched::default(), 0);
        // What is known to be at fault is sent last, together; also what is so no more, whose samples stay in order.
        let (mut known, mut aside) = (HashSet::new(), Vec::new());
        // Last first: what is to be sent, or was rejected and is to be split.
        let mut left = vec![(blocks, rejection)];
        while let Some((mut piece, rejected)) = left.pop() {
            let is_too_large = rejected.as_ref().map_or_else(|| self.is_too_large(&piece), Rejection::is_about_size);
            if piece.len() > 1 && (rejected.is_some() || is_too_large) {
                let newer = piece.split_off(piece.len() / 2);
                left.extend([(newer, None), (piece, None)]);
                continue;
            }
            if rejected.is_none() {
                // A scrape or two of which nothing was taken say nothing of series that may be taken again.
                if after != After::Healing || in_vain == 0 || in_vain >= IN_VAIN {
                    known.extend(self.known_since(&piece, began));
                }
                piece = match without(&piece, |series| known.contains(&id_of(series))) {
                    Ok([good, bad]) => {
                        aside.extend(bad);
                        good
                    }
                    Err(error) => {
                        self.drop_damaged(&piece, &error);
                        continue;
                    }
                };
                if piece.is_empty() {
                    continue;
                }
            }
            if rejected.is_none() && !is_too_large {
                match self.settle(&mut piece, None).await {
                    Settled::Delivered => {
                        (all.any_taken, in_vain) = (true, 0);
                        self.forgive_series(&piece);
                    }
                    Settled::Rejected(rejection) => {
                        all.any_rejected |= !rejection.is_about_size();
                        match self.is_split_on(&rejection, &piece, after, all.any_taken) {
                            true => left.push((piece, Some(rejection))),
                            false if self.scrape_by_scrape(piece, rejection).await => {
                                (all.any_taken, in_vain) = (true, 0);
                            }
                            false => {}
                        }
                        sleep(self.backoff.pauses().next(None)).await;
                    }
                    Settled::Nothing => {}
                }
                continue;
            }
            let is_in_doubt = in_vain >= IN_VAIN;
            if let Some(rejection) = &rejected
                && is_in_doubt
                && !rejection.is_about_size()
            {
                self.drop_rejected(&piece, rejection.clone(), None);
                continue;
            }
            let samples = samples_of(&piece);
            let found = self.search_scrape(piece, rejected, after, (is_in_doubt, all.time)).await;
            in_vain = match found.any_taken {
                true => 0,
                false if samples < MANY_SAMPLES => in_vain + 1,
                false => IN_VAIN,
            };
            all.add(found);
        }
        if aside.is_empty() {
            return all;
        }
        if after != After::Healing {
            all.any_taken |= Box::pin(self.try_again(aside, all.any_rejected, true)).await;
            return all;
        }
        // These were just asked in an older scrape.
        match self.settle(&mut aside, None).await {
            Settled::Delivered => {
                all.any_taken = true;
                self.forgive_series(&aside);
            }
            Settled::Rejected(rejection) if rejection.is_about_size() && self.is_to_be_split(&rejection) => {
                for block in aside {
                    all.add(self.search_scrape(vec![block], None, after, (true, all.time)).await);
                }
            }
            Settled::Rejected(rejection) => all.any_taken |= self.scrape_by_scrape(aside, rejection).await,
            Settled::Nothing => {}
        }
        all
    }

    /// Settles one scrape of a target, or some of its series, in as many parts as it takes. Others were searched before, which
    /// took so much `time`; `is_in_doubt`: in vain.
    async fn search_scrape(
        &self,
        blocks: Vec<Block>,
        rejection: Option<Rejection>,
        after: After,
        (is_in_doubt, time): (bool, Duration),
    ) -> Searched {
        let (began, is_earlier) = (Instant::now(), after == After::Restart);
        let target = blocks.first().map(|block| block.target);
        let mut any_rejected = rejection.as_ref().is_some_and(|rejection| !rejection.is_about_size());
        // Last first: what is to be sent, or was rejected and is to be split.
        let mut left = vec![(blocks, rejection)];
        // Rejected, and not split before it is known whether the receiver takes anything.
        let mut held = Vec::new();
        // Series that are too large alone, if the receiver does not call everything so.
        let mut large = Vec::new();
        let before = if is_in_doubt { ENOUGH_WHERE_WELL } else { 0 };
        let (mut at_fault, mut too_large, mut is_sized) = (before, before, false);
        let (mut cost, mut any_taken) = (Cost { time, ..Cost::default() }, false);
        let mut pauses = self.backoff.pauses();
        loop {
            let Some((mut piece, rejected)) = left.pop() else {
                // Where it is the size of a piece, only a smaller one tells whether the receiver takes anything.
                if any_taken || std::mem::replace(&mut is_sized, true) {
                    break;
                }
                left = one_of_the_largest(&mut held);
                continue;
            };
            let is_to_be_halved = match &rejected {
                Some(rejection) => self.may_cost(&cost, rejection.is_about_size() && any_taken, &piece, after),
                None => self.is_too_large(&piece),
            };
            if is_to_be_halved {
                match halves(&piece) {
                    Ok(Some(halves)) => {
                        let halves = halves.into_iter().rev().filter(|half| !half.is_empty());
                        left.extend(halves.map(|half| (half, None)));
                        continue;
                    }
                    Ok(None) => {
                        if let Some(rejection) = rejected {
                            pauses = self.backoff.pauses();
                            if rejection.is_about_size() {
                                too_large += 1;
                            } else {
                                (at_fault, cost.in_vain) = (at_fault + 1, Duration::ZERO);
                            }
                            if is_earlier {
                                self.drop_rejected(&piece, rejection, None);
                            } else if rejection.is_about_size() && !any_taken {
                                self.drop_rejected(&piece, rejection, None);
                                large.push(piece);
                            } else {
                                self.drop_offender(&piece, rejection);
                            }
                            continue;
                        }
                    }
                    Err(error) => {
                        tracing::error!(receiver = self.remote.name, %error, "BUG: a block cannot be sent in parts");
                    }
                }
            }
            if let Some(rejection) = rejected {
                self.drop_rejected(&piece, rejection, None);
                continue;
            }
            let asked = Instant::now();
            match self.settle(&mut piece, None).await {
                Settled::Delivered => {
                    (any_taken, cost.in_vain) = (true, Duration::ZERO);
                    cost.largest = samples_of(&piece).max(cost.largest);
                    if is_earlier {
                        at_fault = 0;
                    }
                    self.forgive_series(&piece);
                    pauses = self.backoff.pauses();
                    left.extend(held.drain(..).rev().map(|(piece, rejection)| (piece, Some(rejection))));
                }
                Settled::Rejected(rejection) => {
                    any_rejected |= !rejection.is_about_size();
                    if !self.is_split_on(&rejection, &piece, after, any_taken) {
                        self.drop_rejected(&piece, rejection, None);
                        continue;
                    }
                    let pause = pauses.next(None);
                    let took = asked.elapsed().min(self.remote.queue.max_backoff) + pause;
                    cost.rejections += u32::from(!(any_taken && rejection.is_about_size()));
                    (cost.time, cost.in_vain) = (cost.time + took, cost.in_vain + took);
                    // Pieces with several series have none in common, so that their order is free.
                    let enough = match after {
                        After::Healing if !is_in_doubt => u32::MAX,
                        After::Healing => ENOUGH_WHERE_WELL,
                        After::Rejection if self.is_well(&piece) => ENOUGH_WHERE_WELL,
                        After::Rejection | After::Restart => ENOUGH,
                    };
                    let is_doubtful = match rejection.is_about_size() {
                        true => !any_taken && too_large >= enough.min(ENOUGH_WHERE_WELL),
                        false => (!any_taken || is_earlier) && at_fault >= enough,
                    };
                    if is_doubtful && spans_series(&piece) {
                        held.push((piece, rejection));
                    } else {
                        left.push((piece, Some(rejection)));
                    }
                    sleep(pause).await;
                }
                Settled::Nothing => {}
            }
        }
        let of_content = held.iter().filter(|(_, rejection)| !rejection.is_about_size());
        let first = of_content.flat_map(|(piece, _)| piece).next().cloned();
        for (piece, rejection) in held {
            self.drop_rejected(&piece, rejection, None);
        }
        if any_taken {
            large.iter().for_each(|piece| self.is_at_fault(piece));
        }
        if !any_taken && after == After::Rejection {
            // It may be the scrape, or the receiver takes nothing now.
            target.into_iter().for_each(|target| self.doubt(target, began));
        }
        Searched { any_taken, any_rejected, held: first, time: cost.time }
    }

    /// Whether a piece that is rejected so is split, in a search after which something was taken or not.
    fn is_split_on(&self, rejection: &Rejection, piece: &[Block], after: After, any_taken: bool) -> bool {
        let helps = any_taken || after == After::Restart || self.others_are_taken(piece);
        helps && self.is_to_be_split(rejection) || self.may_split(rejection, piece) || self.has_waited(rejection, piece)
    }

    /// Whether a search that has cost so much goes on with this piece; `by_size`: it is too large, and others were not.
    fn may_cost(&self, cost: &Cost, by_size: bool, piece: &[Block], after: After) -> bool {
        let longest = self.remote.queue.max_backoff * LONGEST;
        if by_size {
            return cost.in_vain < longest || cost.in_vain < 2 * longest && samples_of(piece) > cost.largest;
        }
        // More than that is worth it only if the next search need not find the same again.
        let is_worth_more = || after == After::Rejection && self.remembers_more(piece);
        cost.rejections < MAX_REJECTIONS || cost.time < longest && is_worth_more()
    }

    /// Whether the receiver takes others than what these blocks hold.
    fn is_well(&self, blocks: &[Block]) -> bool {
        self.others_are_taken(blocks) || self.state().taken.was_of(&tenant_of(blocks).cloned())
    }

    /// Blocks of one target that were rejected together, and are not searched for series at fault. It may be for the oldest of
    /// them only, as where a clock was wrong for a while: each scrape is tried alone, so that the others are not lost with
    /// it, in one request but for the series that are known to be at fault. Whether any was taken.
    pub(super) async fn scrape_by_scrape(&self, blocks: Vec<Block>, rejection: Rejection) -> bool {
        if blocks.len() < 2 || !self.is_to_be_split(&rejection) {
            self.drop_rejected(&blocks, rejection, None);
            return false;
        }
        let mut any_taken = false;
        for block in blocks {
            let alone = vec![block];
            let parts = match self.without_known(&alone) {
                Ok(parts) => parts,
                Err(error) => {
                    self.drop_damaged(&alone, &error);
                    continue;
                }
            };
            for mut part in parts.into_iter().filter(|part| !part.is_empty()) {
                match self.settle(&mut part, None).await {
                    Settled::Delivered => {
                        any_taken = true;
                        self.forgive_series(&part);
                    }
                    Settled::Rejected(rejection) => {
                        self.drop_rejected(&part, rejection, None);
                        sleep(self.backoff.pauses().next(None)).await;
                    }
                    Settled::Nothing => {}
                }
            }
        }
        any_taken
    }
}
