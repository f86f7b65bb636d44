//! The texts of one target's series, each with a number for as long as a series uses it.

use std::hash::BuildHasher;

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::model::Labels;
use crate::wire::encode::push_varint;
use crate::wire::fields::take_varint;

/// What a text takes besides its bytes, about: its slot in the list, and in the table with what stays free there.
const OWN_BYTES: usize = size_of::<Option<Box<str>>>() + 8;
/// It is looked through for what no series uses any more when it has at least so many texts.
const SWEEP_AT_LEAST: usize = 256;

/// Texts with their numbers. Number 0 is the empty text.
#[derive(Debug, Default)]
pub struct Dictionary {
    hasher: RandomState,
    by_text: HashTable<u32>,
    /// Number 1 is the first.
    texts: Vec<Option<Box<str>>>,
    /// Numbers that are free again.
    free: Vec<u32>,
    /// What it takes.
    bytes: usize,
    /// How many texts the last sweep left.
    swept: usize,
}

impl Dictionary {
    /// The labels of a series, in their order, as numbers of this dictionary: what a [`Draft`](super::Draft) wants.
    pub fn encode(&mut self, labels: &Labels) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 * labels.len());
        for (name, value) in labels.iter() {
            for text in [name, value] {
                let number = self.number(text);
                push_varint(&mut out, number.into());
            }
        }
        out
    }

    /// What it takes in memory, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether it may be worth while to [`sweep`](Self::sweep).
    pub fn has_grown(&self) -> bool {
        self.by_text.len() >= SWEEP_AT_LEAST.max(2 * self.swept)
    }

    /// Forgets every text that none of these series uses; their numbers stay as they are.
    pub fn sweep<'e>(&mut self, used: impl Iterator<Item = &'e [u8]>) {
        let mut keep = vec![false; self.texts.len()];
        for mut encoded in used {
            while let Some(number) = take_varint(&mut encoded) {
                if let Some(kept) = (number as usize).checked_sub(1).and_then(|at| keep.get_mut(at)) {
                    *kept = true;
                }
            }
        }
        self.by_text.retain(|number| keep[*number as usize - 1]);
        for (at, _) in keep.into_iter().enumerate().filter(|(_, kept)| !kept) {
            if let Some(text) = self.texts[at].take() {
                self.bytes -= OWN_BYTES + text.len();
                self.free.push(at as u32 + 1);
            }
        }
        self.swept = self.by_text.len();
    }

    /// The text with this number; empty if there is none.
    pub(super) fn text(&self, number: u32) -> &str {
        let at = (number as usize).checked_sub(1);
        at.and_then(|at| self.texts.get(at)?.as_deref()).unwrap_or_default()
    }

    /// The highest number that any text has.
    pub(super) fn highest(&self) -> u32 {
        self.texts.len() as u32
    }

    fn number(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let Self { hasher, by_text, texts, .. } = self;
        let hash = hasher.hash_one(text);
        let is_it = |number: &u32| texts[*number as usize - 1].as_deref() == Some(text);
        if let Some(known) = by_text.find(hash, is_it) {
            return *known;
        }
        let new = Some(Box::from(text));
        let number = match self.free.pop() {
            Some(number) => {
                texts[number as usize - 1] = new;
                number
            }
            None => {
                texts.push(new);
                u32::try_from(texts.len()).expect("a target whose memory is bounded has fewer texts")
            }
        };
        self.bytes += OWN_BYTES + text.len();
        let rehash = |number: &u32| hasher.hash_one(texts[*number as usize - 1].as_deref().unwrap_or_default());
        by_text.insert_unique(hash, number, rehash);
        number
    }
}
