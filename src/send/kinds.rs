//! How many samples, histograms and exemplars there are: Prometheus counts each under a name of its own.

use crate::model::Block;
use crate::spool::QueueSnapshot;

/// What is in some blocks, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Values.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

impl Kinds {
    /// Of these blocks.
    pub(super) fn of(blocks: &[Block]) -> Self {
        let mut sum = Self::default();
        for block in blocks {
            let histograms = block.histograms.min(block.samples);
            sum.samples += u64::from(block.samples - histograms);
            sum.histograms += u64::from(histograms);
            sum.exemplars += u64::from(block.exemplars);
        }
        sum
    }

    /// All that waits in a queue or is leased.
    pub(super) fn pending(queue: &QueueSnapshot) -> Self {
        let histograms = queue.pending_histograms;
        Self {
            // What was read before it was known which are histograms counts as samples.
            samples: queue.pending_samples.saturating_sub(histograms),
            histograms,
            exemplars: queue.pending_exemplars,
        }
    }

    /// What has a place in a series: samples and histograms.
    pub fn points(&self) -> u64 {
        self.samples + self.histograms
    }

    /// What of these is not among those that somebody says to have written. What he took for another kind he has written.
    pub(super) fn without(self, written: Self) -> Self {
        let missing = self.points().saturating_sub(written.points());
        let histograms = self.histograms.saturating_sub(written.histograms).min(missing);
        Self { samples: missing - histograms, histograms, exemplars: self.exemplars.saturating_sub(written.exemplars) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(samples: u64, histograms: u64, exemplars: u64) -> Kinds {
        Kinds { samples, histograms, exemplars }
    }

    #[test]
    fn what_is_missing_adds_up() {
        let sent = kinds(10, 4, 3);
        for (written, missing) in [
            (kinds(10, 4, 3), kinds(0, 0, 0)),
            (kinds(0, 0, 0), sent),
            (kinds(8, 4, 0), kinds(2, 0, 3)),
            (kinds(10, 1, 9), kinds(0, 3, 0)),
            // Histograms that were counted as samples, and the other way round.
            (kinds(14, 0, 3), kinds(0, 0, 0)),
            (kinds(0, 14, 3), kinds(0, 0, 0)),
            (kinds(12, 0, 3), kinds(0, 2, 0)),
            (kinds(100, 100, 100), kinds(0, 0, 0)),
        ] {
            assert_eq!(sent.without(written), missing, "{written:?}");
        }
    }
}
