//! The symbols of a request that is being made.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use super::{SYMBOL, push_field};

/// Symbols as they are written, each with its number. The empty one is always there and has number 0.
pub(super) struct Table {
    hasher: RandomState,
    by_text: HashTable<Symbol>,
    /// The fields of all symbols.
    encoded: Vec<u8>,
}

/// Where the text of a symbol stands.
struct Symbol {
    number: u32,
    from: usize,
    to: usize,
}

impl Table {
    pub(super) fn new() -> Self {
        let mut encoded = Vec::new();
        push_field(&mut encoded, SYMBOL, b"");
        Self { hasher: RandomState::default(), by_text: HashTable::new(), encoded }
    }

    /// The number of a text, which is added unless it is there.
    pub(super) fn place(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let Self { hasher, by_text, encoded } = self;
        let hash = hasher.hash_one(text.as_bytes());
        if let Some(known) = by_text.find(hash, |symbol| encoded[symbol.from..symbol.to] == *text.as_bytes()) {
            return known.number;
        }
        push_field(encoded, SYMBOL, text.as_bytes());
        let number = u32::try_from(by_text.len() + 1).expect("a request of at most 4 GiB has fewer symbols");
        let new = Symbol { number, from: encoded.len() - text.len(), to: encoded.len() };
        by_text.insert_unique(hash, new, |symbol| hasher.hash_one(&encoded[symbol.from..symbol.to]));
        number
    }

    /// The symbols as a message begins with them.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Only the empty one is left.
    pub(super) fn clear(&mut self) {
        self.by_text.clear();
        self.encoded.truncate(2);
    }
}
