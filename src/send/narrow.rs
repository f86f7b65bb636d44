//! Which series of a target a receiver does not want.
//!
//! ```text
//! rejected ─▶ first half  ─┬─ taken
//!        └──▶ second half ─┴─ rejected ─▶ its halves ─▶ … ─▶ one series of one block: dropped, named, remembered
//! ```
//! Halves are of different series first, so that the samples of one series stay in order, and go one after the other, with
//! the pauses of the backoff after rejections. The series that are known to be at fault are sent apart from the rest for a
//! while, so that they cost one request more and not the whole search. It ends early where the receiver takes nothing at
//! all, and after so many rejections that going on would cost the other samples of the target more than it saves.

use std::collections::HashSet;

use tokio::time::{Instant, sleep};

use super::delivery::{Delivery, Rejection, Settled};
use super::parts::{first_series, halves, without};
use crate::model::{Block, Labels};

/// How many rejections one search may cost.
const MAX_REJECTIONS: u32 = 100;

/// How many single series are rejected before a receiver that took nothing yet is believed to take nothing.
const ENOUGH: u32 = 2;

/// How many series at fault are remembered of one target.
const MAX_REMEMBERED: usize = 100;

impl Delivery {
    /// Whether it is known which series of these blocks are at fault.
    pub(super) fn knows_offenders(&self, blocks: &[Block]) -> bool {
        self.remote.queue.split_rejected && !self.offenders(blocks).is_empty()
    }

    /// Settles blocks of one target in parts; with a rejection, they were rejected together.
    pub(super) async fn narrow(&self, blocks: Vec<Block>, rejection: Option<Rejection>) {
        let known = self.offenders(&blocks);
        if rejection.is_some() || known.is_empty() {
            return self.search(blocks, rejection).await;
        }
        match without(&blocks, &known) {
            Ok([good, bad]) => {
                self.search(good, None).await;
                self.try_again(bad, &known).await;
            }
            Err(error) => self.drop_damaged(&blocks, &error),
        }
    }

    async fn search(&self, blocks: Vec<Block>, rejection: Option<Rejection>) {
        // What is to be sent, last first; or, if `splits_next`, what was rejected.
        let mut left = vec![blocks];
        let mut splits_next = rejection.is_some();
        let mut last = rejection;
        let (mut any_taken, mut singles, mut rejections) = (false, 0, 0);
        let mut pauses = self.backoff.pauses();
        while let Some(mut piece) = left.pop() {
            if piece.is_empty() {
                continue;
            }
            let gives_up = rejections >= MAX_REJECTIONS;
            if (splits_next || self.is_too_large(&piece)) && !gives_up {
                match halves(&piece) {
                    Ok(Some([first, second])) => {
                        splits_next = false;
                        left.extend([second, first]);
                        continue;
                    }
                    Ok(None) => {}
                    // It cannot be looked into, so it is sent, or was rejected, as it is.
                    Err(error) => {
                        tracing::error!(receiver = self.remote.name, %error, "BUG: a block cannot be sent in parts");
                        if let Some(rejection) = last.clone().filter(|_| splits_next) {
                            splits_next = false;
                            self.drop_rejected(&piece, rejection, None);
                            continue;
                        }
                    }
                }
            }
            if let Some(rejection) = last.clone().filter(|_| splits_next) {
                // One series of one block.
                splits_next = false;
                singles += 1;
                self.drop_offender(&piece, rejection.clone());
                if !any_taken && singles >= ENOUGH && !rejection.is_about_size() {
                    self.state().all_rejected = Some(Instant::now());
                    return left.iter().rev().for_each(|rest| self.drop_rejected(rest, rejection.clone(), None));
                }
                continue;
            }
            match self.settle(&mut piece, None).await {
                Settled::Delivered => {
                    any_taken = true;
                    pauses = self.backoff.pauses();
                }
                Settled::Rejected(rejection) if self.may_split(&rejection) && !gives_up => {
                    rejections += 1;
                    last = Some(rejection);
                    splits_next = true;
                    left.push(piece);
                    sleep(pauses.next(None)).await;
                }
                Settled::Rejected(rejection) => self.drop_rejected(&piece, rejection, None),
                Settled::Nothing => {}
            }
        }
    }

    /// What was at fault may be taken now.
    async fn try_again(&self, mut blocks: Vec<Block>, known: &HashSet<Labels>) {
        if blocks.is_empty() {
            return;
        }
        match self.settle(&mut blocks, None).await {
            Settled::Delivered => self.forgive_series(&blocks, known),
            Settled::Rejected(rejection) => self.drop_rejected(&blocks, rejection, None),
            Settled::Nothing => {}
        }
    }

    /// The series of the target of these blocks that are known to be at fault.
    fn offenders(&self, blocks: &[Block]) -> HashSet<Labels> {
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
        self.set_apart(target);
        let is_new = match self.state().apart.get_mut(&target) {
            Some(apart) if apart.series.len() < MAX_REMEMBERED => apart.series.insert(series.clone()),
            _ => false,
        };
        self.drop_rejected(piece, rejection, is_new.then_some(&series));
    }

    /// What was at fault and is taken now is so no more.
    fn forgive_series(&self, piece: &[Block], known: &HashSet<Labels>) {
        let Some(target) = piece.first().map(|block| block.target) else { return };
        let taken = piece.iter().flat_map(|block| crate::wire::series_of(block).unwrap_or_default());
        let taken: HashSet<_> = taken.filter(|series| known.contains(series)).collect();
        let mut state = self.state();
        if let Some(apart) = state.apart.get_mut(&target) {
            apart.series.retain(|series| !taken.contains(series));
            if apart.series.is_empty() {
                state.apart.remove(&target);
            }
        }
    }
}
