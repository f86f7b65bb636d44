//! What has changed between two scrapes of a target: series that came, that went, and values. Native histograms are left out.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::collect::Collector;
use super::report::json_labels;
use crate::cli::style::Paint;
use crate::model::{Labels, clean_to};
use crate::parse::print;

/// The differences, each list in the order of labels.
#[derive(Debug)]
pub(super) struct Changes {
    appeared: Vec<(Labels, f64)>,
    vanished: Vec<(Labels, f64)>,
    changed: Vec<(Labels, f64, f64)>,
    unchanged: usize,
    /// One of the two was told in part, so that nobody knows what came or went.
    cut: bool,
    apart: Duration,
}

impl Changes {
    /// From one scrape to another that came so much later. A series that is exposed twice counts with its last value; equal is
    /// what has the same bits, so a NaN equals itself.
    pub(super) fn between(before: &Collector, after: &Collector, apart: Duration) -> Self {
        let values = |of: &Collector| -> BTreeMap<Labels, f64> {
            of.samples().map(|(labels, sample, _)| (labels.clone(), sample.value)).collect()
        };
        let cut = before.cut || after.cut;
        let (mut before, after) = (values(before), values(after));
        let mut changes =
            Self { appeared: Vec::new(), vanished: Vec::new(), changed: Vec::new(), unchanged: 0, cut, apart };
        for (labels, value) in after {
            match before.remove(&labels) {
                None if cut => {}
                None => changes.appeared.push((labels, value)),
                Some(old) if old.to_bits() == value.to_bits() => changes.unchanged += 1,
                Some(old) => changes.changed.push((labels, old, value)),
            }
        }
        if !cut {
            changes.vanished = before.into_iter().collect();
        }
        changes
    }

    /// All of it: a line a series, and the counts last. `escape` where a person looks.
    pub(super) fn text(&self, escape: bool, paint: Paint) -> String {
        let mut out = String::new();
        let series = |labels: &Labels| {
            let mut text = String::new();
            print::series(&mut text, labels);
            if escape { clean_to(&text, usize::MAX).into_owned() } else { text }
        };
        for (labels, value) in &self.vanished {
            let _ = writeln!(out, "{} {}", paint.bad(format!("- {}", series(labels))), print::value(*value));
        }
        for (labels, value) in &self.appeared {
            let _ = writeln!(out, "{} {}", paint.good(format!("+ {}", series(labels))), print::value(*value));
        }
        for (labels, old, new) in &self.changed {
            let difference = new - old;
            let _ = writeln!(
                out,
                "~ {} {} -> {} ({}{}, {:.3}/s)",
                series(labels),
                print::value(*old),
                print::value(*new),
                if difference > 0.0 { "+" } else { "" },
                print::value(difference),
                difference / self.apart.as_secs_f64(),
            );
        }
        let _ = writeln!(out, "{} in {:.1} s", self.counts(), self.apart.as_secs_f64());
        out
    }

    /// How much of what.
    pub(super) fn counts(&self) -> String {
        if self.cut {
            return format!(
                "{} series changed, {} as before of those that are in both; the exposition is longer than what was told, so \
                 what came or went is not known",
                self.changed.len(),
                self.unchanged
            );
        }
        format!(
            "{} series changed, {} appeared, {} vanished, {} as before",
            self.changed.len(),
            self.appeared.len(),
            self.vanished.len(),
            self.unchanged
        )
    }

    /// All of it as JSON; values are texts, as everywhere.
    pub(super) fn json(&self) -> Value {
        let listed = |list: &[(Labels, f64)]| -> Vec<Value> {
            list.iter()
                .map(|(labels, value)| json!({ "labels": json_labels(labels), "value": print::value(*value) }))
                .collect()
        };
        let changed: Vec<_> = self
            .changed
            .iter()
            .map(|(labels, old, new)| {
                json!({ "labels": json_labels(labels), "before": print::value(*old), "after": print::value(*new) })
            })
            .collect();
        json!({
            "appeared": listed(&self.appeared),
            "vanished": listed(&self.vanished),
            "changed": changed,
            "unchangedCount": self.unchanged,
            "cut": self.cut,
            "secondsApart": self.apart.as_secs_f64(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_was_told_in_part_nothing_has_come_or_gone() {
        let read = |body: &str, cut| {
            let mut collector = Collector::read(body).expect("it is good");
            collector.cut = cut;
            collector
        };
        let changes = Changes::between(&read("a 1\nb 1\n", false), &read("a 2\nc 1\n", true), Duration::from_secs(1));
        let text = changes.text(false, Paint::none());
        assert!(text.starts_with("~ a 1 -> 2 (+1, 1.000/s)\n1 series changed, 0 as before of those"), "{text}");
        assert_eq!((text.lines().count(), &changes.json()["cut"]), (2, &true.into()));
    }

    #[test]
    fn what_came_what_went_and_what_moved() {
        let read = |body: &str| Collector::read(body).expect("it is good");
        let before = read("a{x=\"1\"} 3\na{x=\"2\"} NaN\nb 1\nc -0\n");
        let after = read("a{x=\"1\"} 5\na{x=\"2\"} NaN\nd +Inf\nc 0\n");
        let changes = Changes::between(&before, &after, Duration::from_secs(4));
        assert_eq!(
            changes.text(false, Paint::none()),
            "- b 1\n+ d +Inf\n~ a{x=\"1\"} 3 -> 5 (+2, 0.500/s)\n~ c -0 -> 0 (0, 0.000/s)\n\
             2 series changed, 1 appeared, 1 vanished, 1 as before in 4.0 s\n"
        );
        assert_eq!(changes.json()["changed"][0]["after"], "5");
        assert_eq!(changes.json()["unchangedCount"], 1);
    }
}
