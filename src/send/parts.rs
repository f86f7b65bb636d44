//! Blocks put together and taken apart for requests.

use std::collections::HashMap;

use crate::model::Block;

pub(super) fn samples_of(blocks: &[&Block]) -> u64 {
    blocks.iter().map(|block| u64::from(block.samples)).sum()
}

pub(super) fn spans_targets(blocks: &[&Block]) -> bool {
    blocks.windows(2).any(|pair| pair[0].target != pair[1].target)
}

/// The blocks of each target, in order, the targets in the order of their first blocks.
pub(super) fn by_target(blocks: Vec<&Block>) -> Vec<Vec<&Block>> {
    let mut places = HashMap::new();
    let mut parts = Vec::<Vec<&Block>>::new();
    for block in blocks {
        let place = *places.entry(block.target).or_insert(parts.len());
        match parts.get_mut(place) {
            Some(part) => part.push(block),
            None => parts.push(vec![block]),
        }
    }
    parts
}

/// Runs of blocks that are encoded alike, in order: only these can share a request. There is more than one only after the
/// receiver was configured otherwise.
pub(super) fn by_format(blocks: Vec<&Block>) -> Vec<Vec<&Block>> {
    blocks.chunk_by(|one, other| one.format == other.format).map(<[_]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::model::{TargetId, WriteFormat};

    fn block(target: u64, number: i64) -> Block {
        Block {
            target: TargetId(target),
            receiver: 0,
            format: WriteFormat::V1,
            samples: 1,
            min_ms: number,
            max_ms: number,
            raw_len: 0,
            elements: Bytes::new(),
        }
    }

    fn numbers(parts: &[Vec<&Block>]) -> Vec<Vec<i64>> {
        parts.iter().map(|part| part.iter().map(|block| block.min_ms).collect()).collect()
    }

    #[test]
    fn blocks_are_parted_by_target_and_stay_in_order() {
        let blocks = [block(7, 1), block(3, 2), block(7, 3), block(5, 4), block(3, 5)];
        assert!(spans_targets(&blocks.iter().collect::<Vec<_>>()));
        let parts = by_target(blocks.iter().collect());
        assert_eq!(numbers(&parts), [vec![1, 3], vec![2, 5], vec![4]]);
        assert!(!parts.iter().any(|part| spans_targets(part)));
    }

    #[test]
    fn blocks_of_one_request_are_encoded_alike_and_stay_in_order() {
        let of_2 = |number| Block { format: WriteFormat::V2, ..block(1, number) };
        let blocks = [block(1, 1), block(2, 2), of_2(3), of_2(4), block(1, 5)];
        assert_eq!(numbers(&by_format(blocks.iter().collect())), [vec![1, 2], vec![3, 4], vec![5]]);
    }
}
