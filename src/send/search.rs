//! Which series of a target a receiver does not want.
//!
//! ```text
//! rejected ─▶ first half  ─┬─ taken
//!        └──▶ second half ─┴─ rejected ─▶ its halves ─▶ … ─▶ one series of one block: dropped, named, remembered
//! ```
//! Halves are of different series first, so that the samples of one series stay in order, and go one after the other, with
//! the pauses of the backoff after rejections, which begin anew whenever something was taken or a series was found.
//!
//! It may be another thing than series: once some were rejected and nothing was taken, what is left is tried as it is, and it
//! ends if none of that is taken, either. What was rejected together is tried scrape by scrape then, because scrapes may be at
//! fault. After many rejections among several scrapes one of them is searched for all. What is rejected for its size is
//! halved as long as something is taken: who takes a little at a time has all in the end.
//!
//! What always holds: nothing is dropped that was in no rejected request; the samples of a series are sent in order; a search
//! ends: each step halves a piece or settles it, and what it costs is counted: the pauses, and the time of requests that were
//! rejected, but for what an outage adds to that. What is tried scrape by scrape is not, and has as many requests as scrapes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::delivery::{Delivery, Rejection, Settled};
use super::parts::{SeriesId, first_series, halves, id_of, samples_of, spans_series, tenant_of};
use crate::model::Block;

/// How many rejections a search may cost in any case. Those for the size of a piece do not count where another one was taken:
/// its halves are smaller.
const MAX_REJECTIONS: u32 = 100;

/// How much time a search in one scrape may cost if that is more, in longest pauses of the backoff: five minutes, if nobody says
/// otherwise. Where pieces are rejected for their size, how much without anything being taken.
const LONGEST: u32 = 60;

/// After how many single series it is doubted that a receiver which took nothing yet takes anything of the rest, and after how
/// many if it takes others.
const ENOUGH: u32 = 2;
const ENOUGH_WHERE_WELL: u32 = 10;

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
    /// Some of what was not split in the end, because nothing was taken, and not for its size.
    held: Option<Block>,
    /// What it has cost.
    time: Duration,
}

/// Whether series are at fault or scrapes, as far as single scrapes were searched.
#[derive(Default)]
struct Suspicion {
    /// Series were found beside others that were taken.
    of_series: bool,
    of_scrapes: bool,
    /// How many scrapes of few series were searched in vain: these may all be at fault.
    misses: u32,
    spent: Duration,
}

impl Suspicion {
    const ENOUGH: u32 = 3;
    const MANY: u64 = 16;

    fn of_scrapes() -> Self {
        Self { of_scrapes: true, ..Self::default() }
    }

    /// A scrape of so many samples was searched, which may cost so much time in all.
    fn searched(&mut self, samples: u64, found: &Searched, longest: Duration) {
        self.of_series |= found.any_taken;
        self.misses += if samples < Self::MANY { 1 } else { Self::ENOUGH };
        self.spent += found.time;
        self.of_scrapes = !self.of_series && self.misses >= Self::ENOUGH || self.spent >= longest;
    }
}

/// How many single series were rejected, each counted once, in however many scrapes it is.
#[derive(Default)]
struct Singles {
    count: u32,
    last: Option<SeriesId>,
}

impl Singles {
    /// This one was. The scrapes of one series come one after the other.
    fn add(&mut self, piece: &[Block]) {
        let series = first_series(piece).map(|series| id_of(&series));
        self.count += u32::from(series.is_none() || series != self.last);
        self.last = series;
    }
}

/// What a search has cost.
#[derive(Default)]
struct Cost {
    rejections: u32,
    time: Duration,
    /// Since something was taken or found.
    in_vain: Duration,
    /// The samples of the largest piece that was taken.
    largest: u64,
}

impl Delivery {
    /// Settles all blocks of one target, in as many parts as it takes.
    pub(super) async fn search(&self, blocks: Vec<Block>, rejection: Option<Rejection>, after: After) -> Searched {
        let began = Instant::now();
        let searched = self.halve(blocks, rejection, after).await;
        if !searched.any_taken
            && after == After::Rejection
            && let Some(held) = &searched.held
        {
            // It took nothing, so that its answers say nothing of single series, or it may have begun to take nothing.
            match self.is_well(std::slice::from_ref(held)) {
                true => self.doubt(held.target, began),
                false => self.forgive(std::slice::from_ref(held)),
            }
            self.all_rejected(held.tenant.clone());
        }
        searched
    }

    /// The same, and nothing is concluded for other targets if nothing was taken.
    pub(super) async fn halve(&self, blocks: Vec<Block>, rejection: Option<Rejection>, after: After) -> Searched {
        let is_earlier = after == After::Restart;
        let mut any_rejected = rejection.as_ref().is_some_and(|rejection| !rejection.is_about_size());
        // Last first: what is to be sent, or was rejected and is to be split.
        let mut left = vec![(blocks, rejection)];
        // Rejected, and not split before it is known whether the receiver takes anything.
        let mut held = Vec::new();
        let (mut at_fault, mut too_large) = (Singles::default(), Singles::default());
        let (mut cost, mut any_taken) = (Cost::default(), false);
        let mut suspicion = if is_earlier { Suspicion::of_scrapes() } else { Suspicion::default() };
        let mut pauses = self.backoff.pauses();
        while let Some((mut piece, rejected)) = left.pop() {
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
                            if rejection.is_about_size() {
                                too_large.add(&piece);
                            } else {
                                at_fault.add(&piece);
                                (pauses, cost.in_vain) = (self.backoff.pauses(), Duration::ZERO);
                            }
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
                let largest = left.first().filter(|(largest, _)| largest.len() > 1 && spans_series(largest));
                if !suspicion.of_series && !suspicion.of_scrapes && piece.len() > 1 && largest.is_some() {
                    left.push((piece, Some(rejection.clone())));
                    piece = left.remove(0).0;
                }
                any_taken |= self.one_for_all(piece, rejection, &mut suspicion).await;
                continue;
            }
            let began = Instant::now();
            let settled = self.settle(&mut piece, None).await;
            any_rejected |= matches!(&settled, Settled::Rejected(rejection) if !rejection.is_about_size());
            match settled {
                Settled::Delivered => {
                    (any_taken, cost.in_vain) = (true, Duration::ZERO);
                    cost.largest = samples_of(&piece).max(cost.largest);
                    if is_earlier {
                        at_fault.count = 0;
                    }
                    self.forgive_series(&piece);
                    pauses = self.backoff.pauses();
                    left.extend(held.drain(..).rev().map(|(piece, rejection)| (piece, Some(rejection))));
                }
                Settled::Rejected(rejection)
                    if (any_taken || is_earlier) && self.is_to_be_split(&rejection)
                        || self.may_split(&rejection, &piece) =>
                {
                    let pause = pauses.next(None);
                    let took = began.elapsed().min(self.remote.queue.max_backoff) + pause;
                    cost.rejections += u32::from(!(any_taken && rejection.is_about_size()));
                    (cost.time, cost.in_vain) = (cost.time + took, cost.in_vain + took);
                    // Pieces with several series have none in common, so that their order is free.
                    let enough = match after {
                        After::Healing => u32::MAX,
                        After::Rejection if self.is_well(&piece) => ENOUGH_WHERE_WELL,
                        After::Rejection | After::Restart => ENOUGH,
                    };
                    let doubtful = match rejection.is_about_size() {
                        true => !any_taken && too_large.count >= enough,
                        false => (!any_taken || is_earlier) && at_fault.count >= enough,
                    };
                    if doubtful && spans_series(&piece) {
                        held.push((piece, rejection));
                    } else {
                        left.push((piece, Some(rejection)));
                    }
                    sleep(pause).await;
                }
                Settled::Rejected(rejection) => self.drop_rejected(&piece, rejection, None),
                Settled::Nothing => {}
            }
        }
        let of_content = held.iter().filter(|(_, rejection)| !rejection.is_about_size());
        let first = of_content.flat_map(|(piece, _)| piece).next().cloned();
        for (piece, rejection) in held {
            any_taken |= self.scrape_by_scrape(piece, rejection).await;
        }
        Searched { any_taken, any_rejected, held: first, time: cost.time }
    }

    /// Whether a search that has cost so much goes on with this piece; `by_size`: it is too large, and others were not.
    fn may_cost(&self, cost: &Cost, by_size: bool, piece: &[Block], after: After) -> bool {
        let longest = self.remote.queue.max_backoff * LONGEST;
        if by_size {
            return cost.in_vain < longest || samples_of(piece) > cost.largest;
        }
        // More than that is worth it only if the next search need not find the same again.
        let is_worth_more = || piece.len() == 1 && after == After::Rejection && self.remembers_more(piece);
        cost.rejections < MAX_REJECTIONS || cost.time < longest && is_worth_more()
    }

    /// Whether the receiver takes others than what these blocks hold.
    fn is_well(&self, blocks: &[Block]) -> bool {
        self.others_are_taken(blocks) || self.state().taken.was_of(&tenant_of(blocks).cloned())
    }

    /// Blocks of one target of which a search costs too much. Each scrape is tried alone, and the first that is rejected is
    /// searched, which tells whether series are at fault. If so, they are known from then on, and cost nothing else of the
    /// other scrapes, until that helps no more. A single block was rejected with that `rejection`. Whether any was taken.
    async fn one_for_all(&self, blocks: Vec<Block>, rejection: Rejection, suspicion: &mut Suspicion) -> bool {
        if blocks.len() < 2 {
            self.drop_rejected(&blocks, rejection, None);
            return false;
        }
        let (mut any_taken, mut pauses, mut left) = (false, self.backoff.pauses(), blocks.into_iter());
        while !suspicion.of_scrapes
            && let Some(block) = left.next()
        {
            let mut alone = vec![block];
            let samples = samples_of(&alone);
            let found = if suspicion.of_series {
                let Some(found) = Box::pin(self.narrow_known(alone, true)).await else { continue };
                found
            } else {
                match self.settle(&mut alone, None).await {
                    Settled::Delivered => {
                        any_taken = true;
                        self.forgive_series(&alone);
                        pauses = self.backoff.pauses();
                        continue;
                    }
                    Settled::Rejected(rejection) if spans_series(&alone) && self.is_to_be_split(&rejection) => {
                        Box::pin(self.halve(alone, Some(rejection), After::Rejection)).await
                    }
                    Settled::Rejected(rejection) => {
                        if self.is_to_be_split(&rejection) {
                            pauses = self.backoff.pauses();
                            self.drop_offender(&alone, rejection);
                        } else {
                            self.drop_rejected(&alone, rejection, None);
                        }
                        sleep(pauses.next(None)).await;
                        continue;
                    }
                    Settled::Nothing => continue,
                }
            };
            any_taken |= found.any_taken;
            suspicion.searched(samples, &found, self.remote.queue.max_backoff * LONGEST);
        }
        self.each_alone(left.collect()).await || any_taken
    }

    /// Blocks of one target that were rejected together, and are not searched for series at fault. It may be for the oldest of
    /// them only, as where a clock was wrong for a while: each scrape is tried alone, so that the others are not lost with
    /// it. Whether any was taken.
    pub(super) async fn scrape_by_scrape(&self, blocks: Vec<Block>, rejection: Rejection) -> bool {
        if blocks.len() < 2 || !self.is_to_be_split(&rejection) {
            self.drop_rejected(&blocks, rejection, None);
            return false;
        }
        self.each_alone(blocks).await
    }

    /// Each of these scrapes in one request, but for the series that are known to be at fault.
    async fn each_alone(&self, blocks: Vec<Block>) -> bool {
        let (mut any_taken, mut pauses) = (false, self.backoff.pauses());
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
                        pauses = self.backoff.pauses();
                    }
                    Settled::Rejected(rejection) => {
                        self.drop_rejected(&part, rejection, None);
                        sleep(pauses.next(None)).await;
                    }
                    Settled::Nothing => {}
                }
            }
        }
        any_taken
    }
}
