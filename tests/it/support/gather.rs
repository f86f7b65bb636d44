//! A scrape read into whatever a test wants of it.

use meshscrape::model::Failure;
use meshscrape::parse::Entry;
use meshscrape::scrape::Gather;

/// Shows every entry to a closure; what that keeps is not counted.
pub(crate) struct Each<F>(pub(crate) F);

impl<F: FnMut(&Entry<'_>) + Send> Gather for Each<F> {
    fn take(&mut self, entry: &Entry<'_>) -> Result<(), Failure> {
        (self.0)(entry);
        Ok(())
    }

    fn held_bytes(&self) -> u64 {
        0
    }
}
