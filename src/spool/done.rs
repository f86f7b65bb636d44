//! Which positions of a log are done with: acknowledged, dropped, or never written. The file that this is kept in is told of
//! in [`super::acknowledged`].

use std::collections::BTreeMap;
use std::ops::Range;

/// A set of positions, as ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Done {
    /// First position, and the one behind the last; apart from each other, and none is empty.
    ranges: BTreeMap<u64, u64>,
}

impl Done {
    /// Whether `position` is in it.
    pub(super) fn contains(&self, position: u64) -> bool {
        self.ranges.range(..=position).next_back().is_some_and(|(_, end)| position < *end)
    }

    /// Adds these.
    pub(super) fn insert(&mut self, Range { mut start, mut end }: Range<u64>) {
        if start >= end {
            return;
        }
        if let Some((&before, &until)) = self.ranges.range(..=start).next_back()
            && until >= start
        {
            start = before;
            end = end.max(until);
        }
        while let Some((&first, &last)) = self.ranges.range(start..=end).next() {
            self.ranges.remove(&first);
            end = end.max(last);
        }
        self.ranges.insert(start, end);
    }

    /// How many ranges it has.
    pub(super) fn parts(&self) -> usize {
        self.ranges.len()
    }

    /// The position behind the highest one.
    pub(super) fn end(&self) -> u64 {
        self.ranges.last_key_value().map_or(0, |(_, end)| *end)
    }

    /// Those of `range` that are not in it.
    pub(super) fn missing(&self, range: Range<u64>) -> Vec<u64> {
        let (mut missing, mut next) = (Vec::new(), range.start);
        let first = self.ranges.range(..=next).next_back().map_or(next, |(first, _)| *first);
        for (&start, &end) in self.ranges.range(first..range.end.max(first)) {
            missing.extend(next..start);
            next = next.max(end);
        }
        missing.extend(next..range.end);
        missing
    }

    /// The ranges, in order and apart from each other.
    pub(super) fn ranges(&self) -> impl Iterator<Item = Range<u64>> {
        self.ranges.iter().map(|(start, end)| *start..*end)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(ranges in proptest::collection::vec((0u64..60, 0u64..8), 0..24)) {
            let (mut done, mut plain) = (Done::default(), BTreeSet::new());
            for (start, len) in ranges {
                done.insert(start..start + len);
                plain.extend(start..start + len);
            }
            prop_assert_eq!((0..70).filter(|one| done.contains(*one)).collect::<BTreeSet<_>>(), plain.clone());
            prop_assert_eq!(done.end(), plain.last().map_or(0, |last| last + 1));
            let ranges: Vec<_> = done.ranges().collect();
            prop_assert_eq!(done.parts(), ranges.len());
            prop_assert!(ranges.windows(2).all(|two| two[0].end < two[1].start));
            prop_assert_eq!(done.missing(3..61), (3..61).filter(|one| !plain.contains(one)).collect::<Vec<_>>());
        }
    }
}
