//! Pods that a source knows and can make no candidate of yet, for whoever asks why one of them is not a target.
//!
//! What always holds: a few are named and the rest is a number, so that it costs the same however many there are.

use std::collections::BTreeMap;

/// How many are named.
const NAMED: usize = 100;

/// Pods that are known and not candidates yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Some of them, each with what it waits for, by `namespace/name`; as foreign as their names are.
    pub pods: BTreeMap<String, String>,
    /// How many there are besides, at least.
    pub more: usize,
}

impl Waiting {
    /// One more pod.
    pub(super) fn add(&mut self, pod: impl FnOnce() -> (String, String)) {
        if self.pods.len() < NAMED {
            self.pods.extend([pod()]);
        } else {
            self.more += 1;
        }
    }

    /// Those of another source as well, which may know the same pods.
    pub(super) fn join(&mut self, other: &Self) {
        let at_least = self.count().max(other.count());
        for (pod, why) in &other.pods {
            if !self.pods.contains_key(pod) && self.pods.len() < NAMED {
                self.pods.insert(pod.clone(), why.clone());
            }
        }
        self.more = at_least.saturating_sub(self.pods.len());
    }

    fn count(&self) -> usize {
        self.pods.len() + self.more
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(numbers: std::ops::Range<usize>) -> Waiting {
        let mut waiting = Waiting::default();
        numbers.for_each(|number| waiting.add(|| (format!("shop/p{number:04}"), "no address".to_owned())));
        waiting
    }

    #[test]
    fn a_few_are_named_and_all_are_counted() {
        let many = waiting(0..5_000);
        assert_eq!((many.pods.len(), many.more), (NAMED, 5_000 - NAMED));
    }

    #[test]
    fn what_two_sources_know_is_one_pod() {
        let mut all = waiting(0..60);
        all.join(&waiting(50..70));
        assert_eq!((all.pods.len(), all.more), (70, 0));
        all.join(&waiting(0..130));
        assert_eq!((all.pods.len(), all.more), (NAMED, 30), "at least");
        // They are among those that are not named.
        all.join(&waiting(110..130));
        assert_eq!((all.pods.len(), all.more), (NAMED, 30), "not more than there are");
    }
}
