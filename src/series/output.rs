//! How much a target gave, for the metrics.

use std::ops::AddAssign;

/// What a target gave that is for receivers, each once however many there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Values, markers and those of the scraper's own series among them.
    pub samples: u64,
    /// Native histograms.
    pub histograms: u64,
    /// Exemplars.
    pub exemplars: u64,
}

impl AddAssign for Output {
    fn add_assign(&mut self, more: Self) {
        self.samples += more.samples;
        self.histograms += more.histograms;
        self.exemplars += more.exemplars;
    }
}
