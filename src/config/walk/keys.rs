//! Every key that may stand in the file, by the kind of mapping it stands in, and what is said about other keys.
//!
//! The walker may only ask for keys of the tables ([`tables`](super::tables)), so they are complete;
//! `config/reference.yaml` is held against them.

use super::tables::SECTIONS;

/// A kind of mapping.
#[derive(Debug)]
pub struct Section {
    /// What it is called in messages.
    pub name: &'static str,
    /// The keys that mean something here, in the order in which they are printed.
    pub keys: &'static [&'static str],
    /// Keys that mean something elsewhere, in Prometheus or in another section.
    pub(super) absent: &'static [Absent],
}

/// A key that has a meaning elsewhere, but not here.
#[derive(Debug)]
pub(super) struct Absent {
    pub(super) key: &'static str,
    /// What is lacking, as the end of a sentence; or why it means nothing here.
    pub(super) what: &'static str,
    pub(super) treatment: Treatment,
}

/// What happens where such a key is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Treatment {
    /// A problem, whatever its value.
    Refused,
    /// A problem, unless it is empty, `false` or 0, which switches it off as we do.
    RefusedUnlessOff,
    /// As before, but it is no key of Prometheus: it is one of ours that this version does not have yet.
    Planned,
    /// A warning, unless it is empty, `false` or 0: without it the agent does less, but nothing else.
    IgnoredUnlessOff,
    /// Nothing: it concerns what an agent does not do, and stands in nearly every file.
    Passed,
}

/// All kinds of mappings with fixed keys of the file itself.
pub fn sections() -> &'static [&'static Section] {
    &SECTIONS
}

/// Whether `key` says where targets are found.
pub(super) fn is_discovery(key: &str) -> bool {
    key == "static_configs" || key.ends_with("_sd_configs")
}

impl Section {
    /// The known key that is written almost like `key`.
    pub(super) fn nearest(&self, key: &str) -> Option<&'static str> {
        nearest(key, self.keys.iter().copied())
    }

    /// What to do about the `absent` key of this section.
    pub(super) fn instead_of(&self, absent: &str) -> &'static str {
        if is_discovery(absent) {
            "write kubernetes_sd_configs, file_sd_configs or http_sd_configs in its place"
        } else {
            "remove it"
        }
    }

    /// What the author of the unknown `key` probably meant.
    pub(super) fn suggest(&self, key: &str) -> Option<String> {
        if let Some(near) = self.nearest(key) {
            return Some(format!("write {near}"));
        }
        let home = sections().iter().find(|section| section.keys.contains(&key))?;
        Some(format!("move it: {key} is a key of {}", home.name))
    }
}

/// The candidate that differs least from `word`, if it differs by little.
pub(super) fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    let word = word.to_ascii_lowercase();
    candidates
        .map(|candidate| (distance(&word, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many characters must be inserted, removed, replaced or swapped with their neighbour to make `b` of `a`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // The last two rows of the table of distances between beginnings of `a` and `b`.
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, to) in b.iter().enumerate() {
            let mut best = (above[j] + usize::from(from != to)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *to && *from == b[j - 1] {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::walk::tables::SCRAPE;

    #[test]
    fn the_nearest_key_is_meant() {
        for (key, expected) in [
            ("scrape_intervall", Some("write scrape_interval")),
            ("scrapeInterval", Some("write scrape_interval")),
            ("job-name", Some("write job_name")),
            ("Scheme", Some("write scheme")),
            ("relabel_config", Some("write relabel_configs")),
            ("certs_dir", Some("move it: certs_dir is a key of tls_config")),
            ("frobnicate", None),
        ] {
            assert_eq!(SCRAPE.suggest(key).as_deref(), expected, "{key}");
        }
        assert_eq!(distance("abcd", "abdc"), 1);
        assert_eq!(distance("", "abc"), 3);
    }

    #[test]
    fn no_key_is_both_known_and_absent() {
        for section in sections() {
            for absent in section.absent {
                assert!(!section.keys.contains(&absent.key), "{} of {}", absent.key, section.name);
            }
        }
    }
}
