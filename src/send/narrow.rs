//! What is known of the series of a target that a receiver does not want.
//!
//! They are found by a [`search`](super::search), and are sent apart from the rest as long as they are rejected, so that they
//! cost a few requests more and not the whole search. If they are rejected together, a few of them that were not asked alone
//! for a while are: one that is taken again is not dropped for ever because of its neighbours, and if one is, the others are
//! searched. Where others were rejected beside them, scrapes may be at fault instead of series, and each is tried alone. What a
//! search found that took nothing is in doubt, and asked first.
//!
//! The blocks stay leased until all parts are settled. Who is cut off in between, at the end of the process, leaves them whole:
//! the parts that were taken come again, with the same values and timestamps, which receivers take for what they have.

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::apart::Apart;
use super::delivery::{APART_FOR, Delivery, Rejection, Settled};
use super::parts::{SeriesId, first_series, id_of, spans_series, without};
use super::search::After;
use crate::model::{Block, Labels, TargetId};
use crate::wire::{WireError, series_of};

/// How many series at fault are remembered of one target, and how many of them are named in the log.
const MAX_REMEMBERED: usize = 1000;
const MAX_NAMED: usize = 100;

/// How many of these are asked alone after they were rejected together, at least and as a part of all, and after how many of
/// the longest pauses of the backoff again.
const ASKED_AGAIN: usize = 4;
const ASKED_AGAIN_OF: usize = 50;
const ASKED_AGAIN_AFTER: u32 = 12;

/// The series of these blocks, as far as they can be looked into.
fn ids_of(blocks: &[Block]) -> HashSet<SeriesId> {
    let series = blocks.iter().flat_map(|block| series_of(block).unwrap_or_default());
    series.map(|series| id_of(&series)).collect()
}

impl Apart {
    /// This series was rejected alone; whether it is to be named.
    fn remember(&mut self, series: SeriesId) -> bool {
        let is_known = self.series.contains_key(&series);
        if !is_known && self.series.len() >= MAX_REMEMBERED {
            // Series come and go.
            self.series.retain(|_, asked| asked.is_some_and(|asked| asked.elapsed() < APART_FOR));
        }
        let known = self.series.len();
        if is_known || known < MAX_REMEMBERED {
            self.series.insert(series, Some(Instant::now()));
        }
        !is_known && known < MAX_NAMED
    }
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
        if rejection.is_some() {
            self.is_searched(&blocks);
        }
        if rejection.is_some() || !self.knows_offenders(&blocks) {
            return self.search(blocks, rejection, After::Rejection).await.any_taken;
        }
        let [good, bad] = match self.without_known(&blocks) {
            Ok(parts) => parts,
            Err(error) => {
                self.drop_damaged(&blocks, &error);
                return false;
            }
        };
        let Some(target) = good.first().map(|block| block.target) else {
            self.try_again(bad, true, false).await;
            return false;
        };
        let found = self.search(good, None, After::Rejection).await;
        if found.any_taken {
            // It is not the receiver that takes nothing.
            self.others_were_taken(target);
        }
        self.try_again(bad, found.any_rejected, false).await;
        found.any_taken
    }

    /// The blocks without what is known to be at fault, and that alone.
    pub(super) fn without_known(&self, blocks: &[Block]) -> Result<[Vec<Block>; 2], WireError> {
        let known = self.offenders(blocks);
        without(blocks, |series| known.contains_key(&id_of(series)))
    }

    /// What was at fault may be taken now, or some of it: of these series, and where others of the target were rejected beside
    /// them, of these scrapes; `are_newer`: than the scrapes in which that was found just now. Whether any was taken.
    pub(super) async fn try_again(&self, mut blocks: Vec<Block>, times_may_be_wrong: bool, are_newer: bool) -> bool {
        let Some(target) = blocks.first().map(|block| block.target) else { return false };
        let began = Instant::now();
        let rejection = match self.settle(&mut blocks, None).await {
            Settled::Delivered => {
                self.forgive_series(&blocks);
                return true;
            }
            Settled::Rejected(rejection) => rejection,
            Settled::Nothing => return false,
        };
        if rejection.is_about_size() && self.is_to_be_split(&rejection) {
            // That says nothing of any of them.
            let any_taken = self.search_scrapes(blocks, Some(rejection), After::Healing).await.any_taken;
            if !any_taken {
                self.doubt(target, began);
            }
            return any_taken;
        }
        let asked = match self.may_split(&rejection, &blocks) {
            true if spans_series(&blocks) => self.asked_alone(&blocks, are_newer),
            true => {
                self.is_at_fault(&blocks);
                HashSet::new()
            }
            false => HashSet::new(),
        };
        match without(&blocks, |series| asked.contains(&id_of(series))) {
            Ok([rest, asked]) => {
                // If one of them is taken again, others may be.
                if !asked.is_empty() && self.search_scrapes(asked, None, After::Healing).await.any_taken {
                    self.search_scrapes(rest, None, After::Healing).await;
                    return true;
                }
                if times_may_be_wrong {
                    self.doubt(target, began);
                    return self.scrape_by_scrape(rest, rejection).await;
                }
                self.drop_rejected(&rest, rejection, None);
            }
            Err(error) => self.drop_damaged(&blocks, &error),
        }
        false
    }

    /// Those of the series at fault that were not asked alone for longest, if that is long enough; `are_newer`: however long.
    fn asked_alone(&self, blocks: &[Block], are_newer: bool) -> HashSet<SeriesId> {
        let after = self.remote.queue.max_backoff * ASKED_AGAIN_AFTER;
        let mut known = self.offenders(blocks);
        let there = ids_of(blocks);
        known.retain(|series, _| there.contains(series));
        let count = ASKED_AGAIN.max(known.len() / ASKED_AGAIN_OF);
        let is_due = |asked: Option<Instant>| are_newer || asked.is_none_or(|asked| asked.elapsed() >= after);
        let mut due: Vec<_> = known.into_iter().filter(|(_, asked)| is_due(*asked)).collect();
        due.sort_by_key(|(_, asked)| *asked);
        due.into_iter().take(count).map(|(series, _)| series).collect()
    }

    /// Whether there is room for more of them.
    pub(super) fn remembers_more(&self, blocks: &[Block]) -> bool {
        let state = self.state();
        let apart = blocks.first().and_then(|block| state.apart.get(&block.target));
        apart.is_none_or(|apart| apart.series.len() < MAX_REMEMBERED)
    }

    /// Samples of this target were taken beside those that are not.
    fn others_were_taken(&self, target: TargetId) {
        if let Some(apart) = self.state().apart.get_mut(&target) {
            apart.others_taken = Some(Instant::now());
        }
    }

    /// Whether samples of others were taken of late while those of this target were rejected.
    pub(super) fn others_are_taken(&self, blocks: &[Block]) -> bool {
        let state = self.state();
        let apart = blocks.first().and_then(|block| state.apart.get(&block.target));
        apart.and_then(|apart| apart.others_taken).is_some_and(|last| last.elapsed() < APART_FOR)
    }

    /// The series of the target of these blocks that are known to be at fault, and when each was last rejected alone, if that
    /// is no doubt.
    fn offenders(&self, blocks: &[Block]) -> HashMap<SeriesId, Option<Instant>> {
        let state = self.state();
        let apart = blocks.first().and_then(|block| state.apart.get(&block.target));
        apart.map(|apart| apart.series.clone()).unwrap_or_default()
    }

    /// Which of them these are, as far as they were rejected alone `since` then.
    pub(super) fn known_since(&self, blocks: &[Block], since: Option<Instant>) -> Vec<SeriesId> {
        let is_so = |asked: Option<Instant>| since.is_none_or(|since| asked.is_some_and(|asked| asked >= since));
        self.offenders(blocks).into_iter().filter(|(_, asked)| is_so(*asked)).map(|(series, _)| series).collect()
    }

    /// One series in one block is rejected.
    pub(super) fn drop_offender(&self, piece: &[Block], rejection: Rejection) {
        let to_be_named = self.rejected_alone(piece);
        self.drop_rejected(piece, rejection, to_be_named.as_ref());
    }

    /// One series is rejected, which need not be told.
    pub(super) fn is_at_fault(&self, piece: &[Block]) {
        self.rejected_alone(piece);
    }

    /// One series is rejected. Gives it if it is to be named.
    fn rejected_alone(&self, piece: &[Block]) -> Option<Labels> {
        let (series, target) = (first_series(piece)?, piece.first()?.target);
        self.set_apart(target, false);
        let is_to_be_named = self.state().apart.get_mut(&target).is_some_and(|apart| apart.remember(id_of(&series)));
        is_to_be_named.then_some(series)
    }

    /// Nothing was taken since a search of this target `began`: what was found to be at fault since is asked first next time.
    pub(super) fn doubt(&self, target: TargetId, began: Instant) {
        if let Some(apart) = self.state().apart.get_mut(&target) {
            apart.series.values_mut().for_each(|asked| *asked = asked.filter(|asked| *asked < began));
        }
    }

    /// What was at fault and is taken now is so no more.
    pub(super) fn forgive_series(&self, piece: &[Block]) {
        if !self.knows_offenders(piece) {
            return;
        }
        let Some(target) = piece.first().map(|block| block.target) else { return };
        let taken = ids_of(piece);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_thousand_are_remembered_and_room_is_made_by_a_new_one_only() {
        let mut apart = Apart::new();
        let series = |n: usize| id_of(&[("n", n.to_string().as_str())].into_iter().collect());
        let named = (0..MAX_REMEMBERED + 5).filter(|n| apart.remember(series(*n))).count();
        assert_eq!((apart.series.len(), named), (MAX_REMEMBERED, MAX_NAMED));
        tokio::time::advance(APART_FOR + Duration::from_secs(1)).await;
        for n in 0..3 {
            assert!(!apart.remember(series(n)));
        }
        assert_eq!(apart.series.len(), MAX_REMEMBERED, "these were known");
        apart.remember(series(MAX_REMEMBERED));
        assert_eq!(apart.series.len(), 4, "what was asked within ten minutes, and what is new");
    }
}
