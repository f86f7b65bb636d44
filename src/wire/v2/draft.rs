//! A message that is being made from the series of one target.

use std::sync::Arc;

use super::table::Table;
use super::{Dictionary, ENTRY, EXEMPLAR, HELP, LABELS, METADATA, TYPE, UNIT, push_field, push_number, renumber};
use crate::model::{Histogram, Metadata, Sample};
use crate::wire::encode::{each_label, metric_type, push_sample_field, push_varint};
use crate::wire::histogram;

/// A series as the entries of a draft have it.
#[derive(Clone, Copy)]
pub struct What<'a> {
    /// Its labels, as the [`Dictionary`] of the draft encodes them.
    pub labels: &'a [u8],
    /// What it is, if that is told.
    pub metadata: Option<&'a Arc<Metadata>>,
}

/// A message in the making.
pub struct Draft<'d> {
    dictionary: &'d Dictionary,
    table: Table,
    /// The number in the message of each text of the dictionary; 0 where it has none yet.
    places: Vec<u32>,
    entries: Vec<u8>,
    /// The entry that is being written.
    entry: Vec<u8>,
    packed: Vec<u8>,
    /// The description that was written last, and its bytes: neighbours mostly have the same.
    described: Option<(Arc<Metadata>, Vec<u8>)>,
}

impl<'d> Draft<'d> {
    /// Nothing yet. The series that come must be encoded by `dictionary`.
    pub fn new(dictionary: &'d Dictionary) -> Self {
        Self {
            dictionary,
            table: Table::new(),
            places: vec![0; dictionary.highest() as usize + 1],
            entries: Vec::new(),
            entry: Vec::new(),
            packed: Vec::new(),
            described: None,
        }
    }

    /// Appends an entry with a sample, and since when the series counts, if that is known. The bits of the value are kept as
    /// they are, staleness markers included.
    pub fn push_sample(&mut self, what: What<'_>, sample: Sample, start_ms: Option<i64>) {
        self.begin(what);
        push_sample_field(&mut self.entry, sample, start_ms);
        self.end(what);
    }

    /// Appends an entry with a histogram, which may have listed bounds.
    pub fn push_histogram(&mut self, what: What<'_>, histogram: &Histogram, timestamp_ms: i64, start_ms: Option<i64>) {
        self.begin(what);
        histogram::push_v2(&mut self.entry, histogram, timestamp_ms, start_ms);
        self.end(what);
    }

    /// Appends an entry with an exemplar, given as [`encode_exemplar`](crate::wire::encode_exemplar) makes it for 1.0.
    pub fn push_exemplar(&mut self, what: What<'_>, exemplar: &[u8]) {
        self.begin(what);
        let mut own = Vec::new();
        let rest = each_label(exemplar, |text| push_varint(&mut own, self.table.place(text).into()));
        self.packed.clear();
        push_labels(&mut self.packed, &own);
        // Value and time have the same fields in both versions.
        self.packed.extend_from_slice(rest);
        push_field(&mut self.entry, EXEMPLAR, &self.packed);
        self.end(what);
    }

    /// How long the message is now.
    pub fn len(&self) -> usize {
        self.table.encoded().len() + self.entries.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The message; the draft is empty again.
    pub fn finish(&mut self) -> Vec<u8> {
        let message = [self.table.encoded(), &self.entries].concat();
        self.table.clear();
        self.places.fill(0);
        self.entries.clear();
        self.described = None;
        message
    }

    fn begin(&mut self, what: What<'_>) {
        let Self { dictionary, table, places, packed, entry, .. } = self;
        packed.clear();
        let renumbered = renumber(what.labels, packed, |number| {
            let place = places.get_mut(number as usize)?;
            if *place == 0 {
                *place = table.place(dictionary.text(number));
            }
            Some(*place)
        });
        debug_assert!(renumbered.is_some(), "BUG: labels of another dictionary");
        entry.clear();
        push_labels(entry, packed);
    }

    fn end(&mut self, what: What<'_>) {
        if let Some(metadata) = what.metadata {
            let known = self.described.take_if(|(known, _)| Arc::ptr_eq(known, metadata));
            let new = || (Arc::clone(metadata), describe(metadata, &mut self.table));
            let (_, described) = self.described.insert(known.unwrap_or_else(new));
            push_field(&mut self.entry, METADATA, described);
        }
        push_field(&mut self.entries, ENTRY, &self.entry);
    }
}

/// As a library does it, no labels are no field.
fn push_labels(out: &mut Vec<u8>, packed: &[u8]) {
    if !packed.is_empty() {
        push_field(out, LABELS, packed);
    }
}

fn describe(metadata: &Metadata, table: &mut Table) -> Vec<u8> {
    let mut out = Vec::with_capacity(12);
    push_number(&mut out, TYPE, metric_type(metadata.kind).into());
    push_number(&mut out, HELP, table.place(&metadata.help).into());
    push_number(&mut out, UNIT, table.place(&metadata.unit).into());
    out
}
