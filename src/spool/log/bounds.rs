//! How a log stays within its bounds, and how its files go.

use std::io;
use std::ops::Range;

use super::{ASIDE_SUFFIX, Count, Log, MAX_SEGMENTS, MAX_SET_ASIDE, Overdue, SEGMENT_SUFFIX};
use crate::spool::storage::Storage;

impl<S: Storage> Log<S> {
    /// Whether the oldest segment has to go before `more` bytes are written.
    pub(in crate::spool) fn overdue(&self, more: u64, now_ms: i64) -> Option<Overdue> {
        let oldest = self.segments.front().filter(|oldest| oldest.end > oldest.first)?;
        let max_age_ms = i64::try_from(self.limits.max_age.as_millis()).unwrap_or(i64::MAX);
        if now_ms.saturating_sub(oldest.arrived_ms.1) > max_age_ms {
            return Some(Overdue::Age);
        }
        let full = self.bytes().saturating_add(more) > self.limits.max_bytes || self.segments.len() > MAX_SEGMENTS;
        full.then_some(Overdue::Bytes)
    }

    /// Takes the oldest segment out of the log: its positions, and what of it was not done. [`Log::collect`] deletes it.
    pub(in crate::spool) fn drop_oldest(&mut self) -> Option<(Range<u64>, Count)> {
        if self.segments.len() == 1 {
            self.seal();
        }
        let oldest = self.segments.pop_front()?;
        self.done.insert(oldest.first..oldest.end);
        self.done_changed = true;
        self.doomed.push((oldest.name(), oldest.damaged));
        Some((oldest.first..oldest.end, oldest.pending))
    }

    /// Deletes the files of which nothing is needed any more.
    pub(in crate::spool) fn collect(&mut self) -> io::Result<()> {
        let written = self.writer.as_ref().and(self.segments.back()).map(|segment| segment.first);
        while let Some(done) =
            self.segments.iter().position(|segment| segment.pending.blocks == 0 && Some(segment.first) != written)
        {
            if let Some(segment) = self.segments.remove(done) {
                self.doomed.push((segment.name(), segment.damaged));
            }
        }
        while let Some((name, damaged)) = self.doomed.last().cloned() {
            match if damaged { self.put_aside(&name) } else { self.storage.remove(&name) } {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                // Should it come back because that was not durable, all of it is done.
                _ => self.doomed.pop(),
            };
        }
        // What was damaged is worth less than what is whole.
        while self.set_aside.len() > MAX_SET_ASIDE
            || self.bytes().saturating_add(self.limits.segment_bytes) > self.limits.max_bytes
        {
            let Some((name, _)) = self.set_aside.front().cloned() else { break };
            match self.storage.remove(&name) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.set_aside.pop_front(),
            };
        }
        Ok(())
    }

    fn put_aside(&mut self, name: &str) -> io::Result<()> {
        let aside = format!("{}{ASIDE_SUFFIX}", name.trim_end_matches(SEGMENT_SUFFIX));
        self.storage.rename(name, &aside)?;
        let len = self.storage.list()?.into_iter().find(|(found, _)| *found == aside).map_or(0, |(_, len)| len);
        self.set_aside.push_back((aside, len));
        Ok(())
    }
}
