//! What is left of a target's memory when the configuration changes: what was exposed, under which labels and until when.
//!
//! What always holds: a series that goes on under the other configuration gets no marker, one that does not gets exactly one,
//! at the next scrape; a receiver that is new gets every series from then on, and no marker of one that it never had.

use std::hash::BuildHasher;
use std::sync::Arc;

use super::known::Series;
use super::table::{Line, synthetic_labels, target_labels};
use super::{Table, View, synthetic};
use crate::config::ScrapeConfig;
use crate::model::{Labels, Target};

impl Table {
    /// Goes on under another configuration, for a target that has the same labels. What was exposed stays remembered, so
    /// that of all series those end with a marker, at the next pass, that it does not find. As in Prometheus, series
    /// count as new again unless only `sample_limit` or the HTTP client have changed.
    pub fn adopt(&mut self, job: &Arc<ScrapeConfig>, target: &Target, views: &Arc<[View]>, external: &Labels) {
        self.target = target.series_id();
        self.tenants.clone_from(&target.tenants);
        let seen_alike = Arc::ptr_eq(&self.views, views);
        if !seen_alike {
            self.adopt_views(views);
        }
        let same_labels = self.external == *external && Arc::ptr_eq(&self.job, job);
        if !same_labels {
            let known = std::mem::replace(&mut self.job, Arc::clone(job));
            if self.external != *external || !job.keeps_series_of(&known) {
                self.bytes -= self.lines.len() * size_of::<Line>();
                self.lines.clear();
            }
            self.external = external.clone();
            self.target_labels = target_labels(job, target, external);
        }
        if !(seen_alike && same_labels) {
            self.adopt_synthetic(target);
        }
    }

    /// Carries over what is encoded for views that stay.
    fn adopt_views(&mut self, views: &Arc<[View]>) {
        let before = std::mem::replace(&mut self.views, Arc::clone(views));
        let places: Vec<usize> = views.iter().map_while(|view| view.place_in(&before)).collect();
        for series in self.series.iter_mut().flatten().chain(&mut self.synthetic) {
            let carried = places.iter().map_while(|&at| series.encoded.get_mut(at).map(Option::take));
            series.encoded = carried.collect();
        }
    }

    /// The synthetic series as they are called now; those that are called so no more end as any others.
    fn adopt_synthetic(&mut self, target: &Target) {
        let mut before = std::mem::take(&mut self.synthetic);
        let labels: Vec<_> = synthetic_labels(&self.job, target, &self.external).collect();
        for (labels, metadata) in labels.into_iter().zip(&*synthetic::METADATA) {
            let hash = self.hasher.hash_one(&labels);
            let known =
                before.extract_if(.., |series| series.labels_hash == hash).next().or_else(|| self.withdraw(hash));
            let committed_ms = known.map_or(i64::MIN, |series| series.committed_ms);
            let series = Series::new(&labels, hash, &self.views, &mut self.dictionary, 0);
            self.synthetic.push(Series { committed_ms, metadata: Some(Arc::clone(metadata)), ..series });
        }
        let (pass, finished) = (self.pass, self.finished);
        for series in before.into_iter().filter(|series| series.committed_ms > i64::MIN) {
            self.remember(Series { born: pass, seen: pass, exposed: finished, ..series });
        }
    }

    /// Forgets the series with this hash.
    fn withdraw(&mut self, hash: u64) -> Option<Series> {
        let ((_, index), _) = self.by_labels.find_entry(hash, |(own, _)| *own == hash).ok()?.remove();
        self.free.push(index);
        self.series[index as usize].take()
    }
}
