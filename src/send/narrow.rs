//! Which series of a target a receiver does not want.
//!
//! ```text
//! rejected ─▶ first half  ─┬─ taken
//!        └──▶ second half ─┴─ rejected ─▶ its halves ─▶ … ─▶ one series of one block: dropped, named, remembered
//! ```
//! Halves are of different series first, so that the samples of one series stay in order, and go one after the other, with
//! the pauses of the backoff after rejections. The series that are known to be at fault are sent apart from the rest for a
//! while, so that they cost one request more and not the whole search. If they are rejected together, a few of them that were
//! not asked alone for a while are: one that is taken again is not dropped for ever because of its neighbours. Once some series were rejected and nothing was taken,
//! what is left is tried as it is, and it ends if none of that is taken, either. It ends, too, after so long that going on would cost the other samples of the target more than it saves.
//! What is given up so is tried once more, scrape by scrape, because scrapes may be at fault instead of series; so are the
//! series that are known to be at fault, if others were rejected beside them. After many rejections among several scrapes one of
//! them is searched for all.
//!
//! The blocks stay leased until all parts are settled. Who is cut off in between, at the end of the process, leaves them whole:
//! the parts that were taken come again, with the same values and timestamps, which receivers take for what they have.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::delivery::{Delivery, Rejection, Settled};
use super::parts::{SeriesId, first_series, halves, id_of, spans_series, without};
use crate::model::{Block, TargetId};
use crate::wire::series_of;

/// After how many rejections scrapes are tried alone, because they may be at fault instead of series. Those for the size of a
/// piece do not count where another one was taken: its halves are smaller.
const MAX_REJECTIONS: u32 = 100;

/// How long one search may take. Where pieces are rejected for their size, as long without anything being taken: who takes a
/// little at a time has all in the end.
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// After how many single series it is doubted that a receiver which took nothing yet takes anything.
const ENOUGH: u32 = 2;

/// How many series at fault are remembered of one target, and how many of them are named in the log.
const MAX_REMEMBERED: usize = 10_000;
const MAX_NAMED: usize = 100;

/// How many of these are asked alone after they were rejected together, and after how many of the longest pauses of the
/// backoff again.
const ASKED_AGAIN: usize = 4;
const ASKED_AGAIN_AFTER: u32 = 12;

/// What a search came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Searched {
    any_taken: bool,
    /// For something else than its size.
    any_rejected: bool,
}

impl Delivery {
    /// Whether it is known which series of these blocks are at fault.
    pub(super) fn knows_offenders(&self, blocks: &[Block]) -> bool {
        let target = blocks.first().map(|block| block.target);
        let knows = |target| self.state().apart.get(&target).is_some_and(|apart| !apart.series.is_empty());
        self.remote.queue.split_rejected && target.is_some_and(knows)
    }

    /// Settles blocks of one target in parts; with a rejection, they were rejected together. Whether anything was taken but
    /// what is known to be at fault.
    pub(super) async fn narrow(&self, blocks: Vec<Block>, rejection: Option<Rejection>) -> bool {
        let known = self.offenders(&blocks).into_keys().collect::<HashSet<_>>();
        if rejection.is_some() {
            self.is_searched(&blocks);
        }
        if rejection.is_some() || known.is_empty() {
            return self.search(blocks, rejection, false).await.any_taken;
        }
        match without(&blocks, |series| known.contains(&id_of(series))) {
            Ok([good, bad]) => {
                let target = good.first().map(|block| block.target);
                let Searched { any_taken, any_rejected } = self.search(good, None, false).await;
                if any_taken {
                    // It is not the receiver that takes nothing.
                    target.iter().for_each(|target| self.others_were_taken(*target));
                }
                let times_may_be_wrong = any_rejected || target.is_none();
                self.try_again(bad, times_may_be_wrong).await;
                any_taken
            }
            Err(error) => {
                self.drop_damaged(&blocks, &error);
                false
            }
        }
    }

    /// Settles all blocks of one target, in as many parts as it takes. `is_earlier` is whether an
    /// earlier run has left them, of which the receiver has taken something: then they are split whatever it rejected before.
    /// But it may have that, and most of these blocks, already, so that no series is to blame for what it rejects.
    pub(super) async fn search(&self, blocks: Vec<Block>, rejection: Option<Rejection>, is_earlier: bool) -> Searched {
        let mut any_rejected = rejection.as_ref().is_some_and(|rejection| !rejection.is_about_size());
        // Last first: what is to be sent, or was rejected and is to be split.
        let mut left = vec![(blocks, rejection)];
        // Rejected, and not split before it is known whether the receiver takes anything.
        let mut held = Vec::new();
        let (mut singles, mut rejections, mut any_taken) = (0, 0, false);
        let mut series_are_at_fault = is_earlier.then_some(false);
        let began = Instant::now();
        let mut last_taken = began;
        let mut pauses = self.backoff.pauses();
        while let Some((mut piece, rejected)) = left.pop() {
            let is_to_be_halved = match &rejected {
                Some(rejection) if any_taken && rejection.is_about_size() => last_taken.elapsed() < LONGEST,
                Some(_) => {
                    let may_go_on = rejections < MAX_REJECTIONS || piece.len() == 1 && !is_earlier;
                    may_go_on && began.elapsed() < LONGEST
                }
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
                            singles += 1;
                            match is_earlier {
                                true => self.drop_rejected(&piece, rejection, None),
                                false => self.drop_offender(&piece, rejection),
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
                // The largest piece tells most of the others, and has no series in common with them if it has several.
                let is_told_more =
                    series_are_at_fault.is_none() && left.first().is_some_and(|(largest, _)| spans_series(largest));
                if is_told_more {
                    left.push((piece, Some(rejection.clone())));
                    piece = left.remove(0).0;
                }
                any_taken |= self.one_for_all(piece, rejection, &mut series_are_at_fault).await;
                continue;
            }
            let settled = self.settle(&mut piece, None).await;
            any_rejected |= matches!(&settled, Settled::Rejected(rejection) if !rejection.is_about_size());
            match settled {
                Settled::Delivered => {
                    (any_taken, last_taken) = (true, Instant::now());
                    if is_earlier {
                        singles = 0;
                    }
                    self.forgive_series(&piece);
                    pauses = self.backoff.pauses();
                    left.extend(held.drain(..).rev().map(|(piece, rejection)| (piece, Some(rejection))));
                }
                Settled::Rejected(rejection)
                    if (any_taken || is_earlier) && self.is_to_be_split(&rejection)
                        || self.may_split(&rejection, &piece) =>
                {
                    rejections += u32::from(!(any_taken && rejection.is_about_size()));
                    // Pieces with several series have none in common, so that their order is free.
                    let doubtful = (!any_taken || is_earlier) && singles >= ENOUGH && !rejection.is_about_size();
                    if doubtful && spans_series(&piece) {
                        held.push((piece, rejection));
                    } else {
                        left.push((piece, Some(rejection)));
                    }
                    sleep(pauses.next(None)).await;
                }
                Settled::Rejected(rejection) => self.drop_rejected(&piece, rejection, None),
                Settled::Nothing => {}
            }
        }
        let mut parts = Vec::new();
        for (piece, rejection) in held {
            parts.push(piece.first().cloned());
            any_taken |= self.scrape_by_scrape(piece, rejection).await;
        }
        if !any_taken
            && !is_earlier
            && let Some(first) = parts.into_iter().flatten().next()
            && !self.others_are_taken(std::slice::from_ref(&first))
        {
            // It took nothing, so that its answers say nothing of single series.
            self.forgive(std::slice::from_ref(&first));
            self.all_rejected(first.tenant.clone());
        }
        Searched { any_taken, any_rejected }
    }

    /// Blocks of one target that were rejected together, of which a search costs too much. Each scrape is tried alone, and the
    /// first that is rejected is searched, which tells whether `series_are_at_fault`. If so, they are known from then on, and
    /// cost nothing else of the other scrapes. Whether any was taken.
    async fn one_for_all(
        &self,
        blocks: Vec<Block>,
        rejection: Rejection,
        series_are_at_fault: &mut Option<bool>,
    ) -> bool {
        if blocks.len() < 2 || *series_are_at_fault == Some(false) {
            return self.scrape_by_scrape(blocks, rejection).await;
        }
        let mut any_taken = false;
        let mut left = blocks.into_iter();
        while let Some(block) = left.next() {
            let mut alone = vec![block];
            if *series_are_at_fault == Some(true) {
                any_taken |= Box::pin(self.narrow(alone, None)).await;
                continue;
            }
            match self.settle(&mut alone, None).await {
                Settled::Delivered => {
                    any_taken = true;
                    self.forgive_series(&alone);
                }
                Settled::Rejected(rejection) if !spans_series(&alone) => self.drop_rejected(&alone, rejection, None),
                Settled::Rejected(rejection) => {
                    let found = Box::pin(self.search(alone, Some(rejection.clone()), false)).await.any_taken;
                    any_taken |= found;
                    *series_are_at_fault = Some(found);
                    if !found {
                        return self.scrape_by_scrape(left.collect(), rejection).await || any_taken;
                    }
                }
                Settled::Nothing => {}
            }
        }
        any_taken
    }

    /// Blocks of one target that were rejected together, and are not searched for series at fault. It may be for the oldest of
    /// them only, as where a clock was wrong for a while: each scrape is tried alone, so that the others are not lost with
    /// it. Whether any was taken.
    pub(super) async fn scrape_by_scrape(&self, blocks: Vec<Block>, rejection: Rejection) -> bool {
        if blocks.len() < 2 || !self.remote.queue.split_rejected || !rejection.is_about_content() {
            self.drop_rejected(&blocks, rejection, None);
            return false;
        }
        let (mut any_taken, mut pauses) = (false, self.backoff.pauses());
        for block in blocks {
            let mut alone = vec![block];
            match self.settle(&mut alone, None).await {
                Settled::Delivered => {
                    any_taken = true;
                    self.forgive_series(&alone);
                    pauses = self.backoff.pauses();
                }
                Settled::Rejected(rejection) => {
                    self.drop_rejected(&alone, rejection, None);
                    sleep(pauses.next(None)).await;
                }
                Settled::Nothing => {}
            }
        }
        any_taken
    }

    /// What was at fault may be taken now, or some of it: of these series, and where others of the target were rejected beside
    /// them, of these scrapes.
    async fn try_again(&self, mut blocks: Vec<Block>, times_may_be_wrong: bool) {
        if blocks.is_empty() {
            return;
        }
        let rejection = match self.settle(&mut blocks, None).await {
            Settled::Delivered => return self.forgive_series(&blocks),
            Settled::Rejected(rejection) => rejection,
            Settled::Nothing => return,
        };
        if rejection.is_about_size() && self.is_to_be_split(&rejection) {
            // That says nothing of any of them.
            self.search(blocks, Some(rejection), false).await;
            return;
        }
        let asked = match self.may_split(&rejection, &blocks) && spans_series(&blocks) {
            true => self.asked_alone(&blocks),
            false => HashSet::new(),
        };
        match without(&blocks, |series| asked.contains(&id_of(series))) {
            Ok([rest, asked]) => {
                if times_may_be_wrong {
                    self.scrape_by_scrape(rest, rejection).await;
                } else {
                    self.drop_rejected(&rest, rejection, None);
                }
                if !asked.is_empty() {
                    self.search(asked, None, false).await;
                }
            }
            Err(error) => self.drop_damaged(&blocks, &error),
        }
    }

    /// Those of the series at fault that were not asked alone for longest, if that is long enough.
    fn asked_alone(&self, blocks: &[Block]) -> HashSet<SeriesId> {
        let after = self.remote.queue.max_backoff * ASKED_AGAIN_AFTER;
        let mut due: Vec<_> =
            self.offenders(blocks).into_iter().filter(|(_, asked)| asked.elapsed() >= after).collect();
        due.sort_by_key(|(_, asked)| *asked);
        due.into_iter().take(ASKED_AGAIN).map(|(series, _)| series).collect()
    }

    /// Samples of this target were taken beside those that are not.
    fn others_were_taken(&self, target: TargetId) {
        if let Some(apart) = self.state().apart.get_mut(&target) {
            apart.others_taken = true;
        }
    }

    /// Whether samples of others were taken while those of this target were rejected.
    fn others_are_taken(&self, blocks: &[Block]) -> bool {
        let state = self.state();
        blocks.first().and_then(|block| state.apart.get(&block.target)).is_some_and(|apart| apart.others_taken)
    }

    /// The series of the target of these blocks that are known to be at fault, and when each was last rejected alone.
    fn offenders(&self, blocks: &[Block]) -> HashMap<SeriesId, Instant> {
        let state = self.state();
        let apart = blocks.first().and_then(|block| state.apart.get(&block.target));
        apart.map(|apart| apart.series.clone()).unwrap_or_default()
    }

    /// One series in one block is rejected.
    fn drop_offender(&self, piece: &[Block], rejection: Rejection) {
        let series = first_series(piece);
        let (Some(series), Some(target)) = (series, piece.first().map(|block| block.target)) else {
            return self.drop_rejected(piece, rejection, None);
        };
        self.set_apart(target, false);
        let id = id_of(&series);
        let is_to_be_named = self.state().apart.get_mut(&target).is_some_and(|apart| {
            let (is_known, known) = (apart.series.contains_key(&id), apart.series.len());
            if is_known || known < MAX_REMEMBERED {
                apart.series.insert(id, Instant::now());
            }
            !is_known && known < MAX_NAMED
        });
        self.drop_rejected(piece, rejection, is_to_be_named.then_some(&series));
    }

    /// What was at fault and is taken now is so no more.
    fn forgive_series(&self, piece: &[Block]) {
        if !self.knows_offenders(piece) {
            return;
        }
        let Some(target) = piece.first().map(|block| block.target) else { return };
        let taken = piece.iter().flat_map(|block| series_of(block).unwrap_or_default());
        let taken: HashSet<_> = taken.map(|series| id_of(&series)).collect();
        let mut state = self.state();
        if let Some(apart) = state.apart.get_mut(&target) {
            let before = apart.series.len();
            apart.series.retain(|id, _| !taken.contains(id));
            if apart.series.is_empty() && before > 0 {
                state.apart.remove(&target);
            }
        }
    }
}
