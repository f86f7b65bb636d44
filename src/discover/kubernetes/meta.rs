//! Labels from objects: `__meta_kubernetes_…`, with names that are made once.
//!
//! Most names come from keys that nearly all objects of a cluster have, so [`Names`] keeps each of them once for all.
//! Where two keys of an object come to the same label name, the last in the order of the keys wins; Prometheus leaves
//! that open. What always holds: a label with an empty value is absent, its `present` twin is not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::object::{Metadata, Pairs};
use crate::model::{Candidate, Labels, Pod};

/// Where a target is dialled.
const ADDRESS: &str = "__address__";
/// The namespace of an object.
pub(super) const NAMESPACE: &str = "__meta_kubernetes_namespace";

/// How many names are remembered. Whoever may label a pod can make up any number of them.
const MAX_NAMES: usize = 20_000;

/// Names of labels, and the few words that are values, each held once. Shared by all that make labels.
#[derive(Debug, Default)]
pub(super) struct Names {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_prefix: HashMap<&'static str, HashMap<Box<str>, Arc<str>>>,
    count: usize,
}

impl Names {
    /// A name that is known beforehand.
    fn fixed(&self, name: &'static str) -> Arc<str> {
        self.of(name, "")
    }

    /// `prefix` with `key`, in which every character that no label name may have becomes `_`.
    fn of(&self, prefix: &'static str, key: &str) -> Arc<str> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = known.by_prefix.get(prefix).and_then(|names| names.get(key)) {
            return Arc::clone(name);
        }
        if known.count == MAX_NAMES {
            *known = Known::default();
        }
        let name: Arc<str> = format!("{prefix}{}", sanitised(key)).into();
        known.count += 1;
        known.by_prefix.entry(prefix).or_default().insert(key.into(), Arc::clone(&name));
        name
    }
}

/// One `_` for each character outside of `[a-zA-Z0-9_]`.
fn sanitised(key: &str) -> String {
    key.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

/// The beginnings of the labels that the metadata of one kind of object comes to.
pub(super) struct Prefixes {
    name: &'static str,
    label: &'static str,
    label_present: &'static str,
    annotation: &'static str,
    annotation_present: &'static str,
}

macro_rules! prefixes {
    ($kind:literal) => {
        Prefixes {
            name: concat!("__meta_kubernetes_", $kind, "_name"),
            label: concat!("__meta_kubernetes_", $kind, "_label_"),
            label_present: concat!("__meta_kubernetes_", $kind, "_labelpresent_"),
            annotation: concat!("__meta_kubernetes_", $kind, "_annotation_"),
            annotation_present: concat!("__meta_kubernetes_", $kind, "_annotationpresent_"),
        }
    };
}

pub(super) const POD: Prefixes = prefixes!("pod");
pub(super) const NODE: Prefixes = prefixes!("node");
pub(super) const SERVICE: Prefixes = prefixes!("service");
pub(super) const ENDPOINTS: Prefixes = prefixes!("endpoints");
pub(super) const ENDPOINT_SLICE: Prefixes = prefixes!("endpointslice");
pub(super) const INGRESS: Prefixes = prefixes!("ingress");
/// The name of a namespace has a label of its own, [`NAMESPACE`].
pub(super) const OF_NAMESPACE: Prefixes = prefixes!("namespace");

/// Labels in the making.
#[derive(Clone)]
pub(super) struct Draft<'n> {
    names: &'n Names,
    labels: Labels,
}

impl<'n> Draft<'n> {
    /// No labels.
    pub(super) fn new(names: &'n Names) -> Self {
        Self { names, labels: Labels::new() }
    }

    /// Sets a label.
    pub(super) fn set(&mut self, name: &'static str, value: &Arc<str>) {
        self.labels.set_shared(self.names.fixed(name), Arc::clone(value));
    }

    /// Sets a label to a text that was made for it.
    pub(super) fn set_made(&mut self, name: &'static str, value: &str) {
        self.labels.set_shared(self.names.fixed(name), value.into());
    }

    /// Sets a label to a word that many have.
    pub(super) fn set_word(&mut self, name: &'static str, word: &'static str) {
        self.labels.set_shared(self.names.fixed(name), self.names.fixed(word));
    }

    /// Sets a label to `true` or `false`.
    pub(super) fn set_flag(&mut self, name: &'static str, value: bool) {
        self.set_word(name, if value { "true" } else { "false" });
    }

    /// Sets the label that `prefix` and `key` come to.
    pub(super) fn set_keyed(&mut self, prefix: &'static str, key: &str, value: &Arc<str>) {
        self.labels.set_shared(self.names.of(prefix, key), Arc::clone(value));
    }

    /// Sets the labels of an object: its name, labels and annotations.
    pub(super) fn set_metadata(&mut self, prefixes: &Prefixes, metadata: &Metadata) {
        self.set(prefixes.name, &metadata.name);
        self.set_details(prefixes, metadata);
    }

    /// Sets what comes from the labels and annotations of an object.
    pub(super) fn set_details(&mut self, prefixes: &Prefixes, metadata: &Metadata) {
        self.set_pairs(prefixes.label, prefixes.label_present, &metadata.labels);
        self.set_pairs(prefixes.annotation, prefixes.annotation_present, &metadata.annotations);
    }

    /// Sets two labels for each pair: its value, and that it is there.
    pub(super) fn set_pairs(&mut self, prefix: &'static str, present: &'static str, pairs: &Pairs) {
        let there = self.names.fixed("true");
        for (key, value) in pairs.iter() {
            self.set_keyed(prefix, key, value);
            self.set_keyed(present, key, &there);
        }
    }

    /// The status of a condition in lower case.
    pub(super) fn lower(&self, status: &str) -> Arc<str> {
        match status {
            "True" => self.names.fixed("true"),
            "False" => self.names.fixed("false"),
            "Unknown" => self.names.fixed("unknown"),
            other => other.to_lowercase().into(),
        }
    }

    /// The candidate with these labels.
    pub(super) fn into_candidate(mut self, address: &str, source: &Arc<str>, pod: Option<&Arc<Pod>>) -> Candidate {
        self.set_made(ADDRESS, address);
        self.labels.shrink_to_fit();
        Candidate { labels: self.labels, source: Arc::clone(source), pod: pod.cloned() }
    }
}

/// `host:port`; a host with colons in it is an IPv6 address and stands in brackets.
pub(super) fn with_port(host: &str, port: i32) -> String {
    if host.contains([':', '%']) { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(json: &str) -> Pairs {
        serde_json::from_str(json).expect("pairs")
    }

    fn labels_of(json: &str) -> String {
        let names = Names::default();
        let mut draft = Draft::new(&names);
        draft.set_pairs("l_", "p_", &pairs(json));
        draft.labels.to_string()
    }

    #[test]
    fn every_character_that_no_name_may_have_becomes_one_underscore() {
        for (key, expected) in [
            ("app.kubernetes.io/name", "l_app_kubernetes_io_name"),
            ("CamelCase_9", "l_CamelCase_9"),
            ("9starts-with-a-digit", "l_9starts_with_a_digit"),
            ("über/größe", "l__ber_gr__e"),
            ("a😀b", "l_a_b"),
            ("a:b", "l_a_b"),
            ("", "l_"),
        ] {
            assert_eq!(&*Names::default().of("l_", key), expected, "{key}");
        }
    }

    #[test]
    fn an_empty_value_is_absent_and_its_twin_present() {
        assert_eq!(labels_of(r#"{"a": "", "b": "1"}"#), r#"{l_b="1", p_a="true", p_b="true"}"#);
    }

    #[test]
    fn of_keys_that_collapse_the_last_in_order_wins() {
        assert_eq!(labels_of(r#"{"a_b": "3", "a.b": "2", "a-b": "1"}"#), r#"{l_a_b="3", p_a_b="true"}"#);
        assert_eq!(labels_of(r#"{"a_b": "", "a.b": "2"}"#), r#"{p_a_b="true"}"#);
    }

    #[test]
    fn names_are_made_once() {
        let names = Names::default();
        assert!(Arc::ptr_eq(&names.of("l_", "a.b"), &names.of("l_", "a.b")));
        assert_ne!(names.of("l_", "a"), names.of("p_", "a"));
        assert!(Arc::ptr_eq(&names.fixed("true"), &names.fixed("true")));
    }

    #[test]
    fn nobody_fills_the_memory_with_names() {
        let names = Names::default();
        for number in 0..=MAX_NAMES {
            names.of("l_", &number.to_string());
        }
        assert_eq!(names.known.lock().expect("nobody panicked").count, 1);
        assert_eq!(&*names.of("l_", "0"), "l_0");
    }

    #[test]
    fn only_ipv6_addresses_stand_in_brackets() {
        for (host, expected) in [("10.0.0.1", "10.0.0.1:80"), ("fd00::1", "[fd00::1]:80"), ("a.b.svc", "a.b.svc:80")] {
            assert_eq!(with_port(host, 80), expected);
        }
    }
}
