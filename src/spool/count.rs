//! Blocks and what is in them, counted.

use std::ops::{AddAssign, SubAssign};

use crate::model::Block;

/// So many blocks and what is in them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) blocks: u64,
    /// Samples and histograms.
    pub(super) samples: u64,
    /// Histograms among them.
    pub(super) histograms: u64,
    pub(super) exemplars: u64,
}

impl Count {
    /// One block.
    pub(super) fn of(block: &Block) -> Self {
        let Block { samples, histograms, exemplars, .. } = block;
        let [samples, histograms, exemplars] = [samples, histograms, exemplars].map(|number| u64::from(*number));
        Self { blocks: 1, samples, histograms, exemplars }
    }

    /// What is left of this without `other`; nothing where that is more.
    pub(super) fn less(self, other: Self) -> Self {
        self.with(other, u64::saturating_sub)
    }

    /// As much of this as `other` has.
    pub(super) fn at_most(self, other: Self) -> Self {
        self.with(other, u64::min)
    }

    /// One block of these, about.
    pub(super) fn each(self) -> Self {
        let part = |number: u64| number / self.blocks.max(1);
        Self {
            blocks: 1,
            samples: part(self.samples),
            histograms: part(self.histograms),
            exemplars: part(self.exemplars),
        }
    }

    fn with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            blocks: of(self.blocks, other.blocks),
            samples: of(self.samples, other.samples),
            histograms: of(self.histograms, other.histograms),
            exemplars: of(self.exemplars, other.exemplars),
        }
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        *self = self.with(other, |one, more| one + more);
    }
}

/// Of what was added before.
impl SubAssign for Count {
    fn sub_assign(&mut self, other: Self) {
        *self = self.with(other, |one, less| one - less);
    }
}

impl std::iter::Sum for Count {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |mut sum, one| {
            sum += one;
            sum
        })
    }
}
