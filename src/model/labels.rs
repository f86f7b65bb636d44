//! A label set: names sorted by byte, each once, none of its values empty.
//!
//! In the Prometheus data model a label with an empty value is the same as no label, so setting one to the empty text
//! removes it and the two can never be told apart downstream.
//!
//! Clones share their texts: what discovery says of a pod is held by all its candidates and targets, and by 10,000 pods
//! in a large cluster.

use std::fmt;
use std::sync::Arc;

/// A sorted, duplicate-free label set without empty values. The order is that of the bytes of the names, which is
/// the order that remote write demands.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels {
    entries: Vec<(Arc<str>, Arc<str>)>,
}

impl Labels {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of `name`, if the label is there.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.position(name).ok().map(|at| &*self.entries[at].1)
    }

    /// The value of `name`, empty if the label is absent: how relabelling reads a source label.
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or_default()
    }

    /// Whether the label is there.
    pub fn contains(&self, name: &str) -> bool {
        self.position(name).is_ok()
    }

    /// Sets a label; an empty `value` removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        match (self.position(name), value.is_empty()) {
            (Ok(at), true) => {
                self.entries.remove(at);
            }
            (Ok(at), false) => self.entries[at].1 = value.into(),
            (Err(_), true) => {}
            (Err(at), false) => self.entries.insert(at, (name.into(), value.into())),
        }
    }

    /// As [`Labels::set`], with texts that others hold too.
    pub fn set_shared(&mut self, name: Arc<str>, value: Arc<str>) {
        match (self.position(&name), value.is_empty()) {
            (Ok(at), true) => {
                self.entries.remove(at);
            }
            (Ok(at), false) => self.entries[at].1 = value,
            (Err(_), true) => {}
            (Err(at), false) => self.entries.insert(at, (name, value)),
        }
    }

    /// Removes a label and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<Arc<str>> {
        self.position(name).ok().map(|at| self.entries.remove(at).1)
    }

    /// Keeps only the labels for which `keep(name, value)` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &str) -> bool) {
        self.entries.retain(|(name, value)| keep(name, value));
    }

    /// Gives back the room for labels that were to come: for sets that are kept, and will not grow.
    pub fn shrink_to_fit(&mut self) {
        self.entries.shrink_to_fit();
    }

    /// All labels in order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> + Clone {
        self.entries.iter().map(|(name, value)| (&**name, &**value))
    }

    /// As [`Labels::iter`], for who keeps the texts.
    pub fn iter_shared(&self) -> impl ExactSizeIterator<Item = (&Arc<str>, &Arc<str>)> + Clone {
        self.entries.iter().map(|(name, value)| (name, value))
    }

    /// How many labels there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no label.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The labels that series may carry: those whose name does not begin with two underscores.
    pub fn public(&self) -> Labels {
        let public = self.entries.iter().filter(|(name, _)| !name.starts_with("__"));
        Labels { entries: public.cloned().collect() }
    }

    fn position(&self, name: &str) -> Result<usize, usize> {
        self.entries.binary_search_by(|(own, _)| (**own).cmp(name))
    }
}

impl<N: AsRef<str>, V: AsRef<str>> FromIterator<(N, V)> for Labels {
    /// Later pairs win over earlier ones of the same name, as with [`Labels::set`].
    fn from_iter<I: IntoIterator<Item = (N, V)>>(pairs: I) -> Self {
        let mut labels = Labels::new();
        for (name, value) in pairs {
            labels.set(name.as_ref(), value.as_ref());
        }
        labels
    }
}

/// `{a="b", c="d"}`, with values escaped as in the text format.
impl fmt::Display for Labels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("{")?;
        for (at, (name, value)) in self.iter().enumerate() {
            if at > 0 {
                out.write_str(", ")?;
            }
            write!(out, "{name}={value:?}")?;
        }
        out.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Whether `name` is a label name of the legacy character set, `[a-zA-Z_][a-zA-Z0-9_]*`: what may stand without quotes.
pub fn is_legacy_label_name(name: &str) -> bool {
    is_legacy(name, |byte| byte == b'_')
}

/// Whether `name` is a metric name of the legacy character set, `[a-zA-Z_:][a-zA-Z0-9_:]*`.
pub fn is_legacy_metric_name(name: &str) -> bool {
    is_legacy(name, |byte| byte == b'_' || byte == b':')
}

fn is_legacy(name: &str, extra: impl Fn(u8) -> bool) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || extra(first))
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || extra(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_value_means_absent() {
        let mut labels: Labels = [("b", "2"), ("a", "1"), ("c", "")].into_iter().collect();
        assert_eq!(labels.to_string(), r#"{a="1", b="2"}"#);
        labels.set("a", "");
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("b", "2")]);
        assert_eq!(labels.value("a"), "");
    }

    #[test]
    fn shared_texts_are_not_copied() {
        let (name, value): (Arc<str>, Arc<str>) = ("b".into(), "2".into());
        let mut labels: Labels = [("a", "1"), ("c", "3")].into_iter().collect();
        labels.set_shared(Arc::clone(&name), Arc::clone(&value));
        labels.set_shared("c".into(), "".into());
        labels.set_shared("d".into(), "".into());
        labels.set_shared("a".into(), "0".into());
        assert_eq!(labels.to_string(), r#"{a="0", b="2"}"#);
        let copies = (labels.clone(), labels.public());
        for copy in [&copies.0, &copies.1] {
            let (held_name, held_value) = copy.iter_shared().last().expect("two labels");
            assert!(Arc::ptr_eq(held_name, &name) && Arc::ptr_eq(held_value, &value));
        }
    }

    #[test]
    fn sorted_by_bytes_and_the_last_one_wins() {
        let labels: Labels = [("a", "1"), ("Z", "0"), ("__name__", "m"), ("a", "2")].into_iter().collect();
        assert_eq!(labels.iter().collect::<Vec<_>>(), [("Z", "0"), ("__name__", "m"), ("a", "2")]);
    }

    #[test]
    fn public_labels_hide_the_internal_ones() {
        let labels: Labels = [("__address__", "x:1"), ("job", "j"), ("_x", "1")].into_iter().collect();
        assert_eq!(labels.public().iter().collect::<Vec<_>>(), [("_x", "1"), ("job", "j")]);
    }

    #[test]
    fn legacy_names() {
        assert!(is_legacy_label_name("_a9"));
        assert!(is_legacy_metric_name(":a"));
        for bad in ["", "9a", "a-b", "ü"] {
            assert!(!is_legacy_label_name(bad) && !is_legacy_metric_name(bad), "{bad:?}");
        }
        assert!(!is_legacy_label_name("a:b"));
    }
}
