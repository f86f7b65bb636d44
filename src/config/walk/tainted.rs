//! Which labels a pod's owner writes, directly or by way of the rules of a job.
//!
//! The rules are followed in order: a label written from such metadata counts as such from then on. Where a rule names labels
//! by patterns, what it *could* write counts. It does not know what the labels are for.

use crate::relabel::{Action, DEFAULT_REGEX, DEFAULT_REPLACEMENT, RuleSpec};

/// What discovery finds in Kubernetes; with the exceptions below, users of the cluster write it.
pub(super) const METADATA: &str = "__meta_kubernetes_";

/// What the API server vouches for, or the kubelet reports.
const VOUCHED: [&str; 11] = [
    "__meta_kubernetes_namespace",
    "__meta_kubernetes_pod_service_account_name",
    "__meta_kubernetes_pod_uid",
    "__meta_kubernetes_pod_ip",
    "__meta_kubernetes_pod_host_ip",
    "__meta_kubernetes_pod_node_name",
    "__meta_kubernetes_pod_phase",
    "__meta_kubernetes_pod_ready",
    "__meta_kubernetes_node_name",
    "__meta_kubernetes_endpoint_node_name",
    "__meta_kubernetes_endpointslice_endpoint_node_name",
];

/// Whether the label holds what no user of the cluster writes.
pub(super) fn is_vouched(label: &str) -> bool {
    VOUCHED.contains(&label)
}

/// The labels that hold what a pod's owner wrote, as far as the rules so far tell.
pub(super) struct Tainted {
    /// What of the metadata he does not write.
    vouched: fn(&str) -> bool,
    /// Other labels that do, and target labels of rules with tainted sources; these may be templates.
    targets: Vec<String>,
    copies: Vec<Copies>,
}

/// What a rule makes tainted.
#[derive(Default)]
struct News {
    targets: Vec<String>,
    copies: Vec<Copies>,
}

impl Tainted {
    /// Before the first rule; `others` are tainted besides the metadata.
    pub(super) fn new(vouched: fn(&str) -> bool, others: &[&str]) -> Self {
        let targets = others.iter().map(|&label| label.to_owned()).collect();
        Self { vouched, targets, copies: Vec::new() }
    }

    /// Goes on with the next rule.
    pub(super) fn follow(&mut self, spec: &RuleSpec) {
        match spec.action {
            Action::Keep | Action::Drop | Action::KeepEqual | Action::DropEqual => {}
            Action::LabelDrop | Action::LabelKeep => {}
            Action::LabelMap => {
                let News { targets, copies } = self.mapped(spec);
                for target in targets {
                    if !self.targets.contains(&target) {
                        self.targets.push(target);
                    }
                }
                for one in copies {
                    if !self.copies.contains(&one) {
                        self.copies.push(one);
                    }
                }
            }
            _ => {
                if spec.source_labels.iter().any(|source| self.contains(source)) {
                    self.targets.extend(spec.target_label.clone());
                }
            }
        }
    }

    /// Whether this `labelmap` could copy something tainted to `label`.
    pub(super) fn could_be_copied(&self, spec: &RuleSpec, label: &str) -> bool {
        let News { targets, copies } = self.mapped(spec);
        targets.iter().any(|target| could_become(target, label))
            || copies.iter().any(|copies| copies.could_be_named(label))
    }

    /// What a `labelmap` copies: of the metadata, of what was written from it, and of what was copied from it.
    fn mapped(&self, spec: &RuleSpec) -> News {
        let regex = spec.regex.as_deref().unwrap_or(DEFAULT_REGEX);
        let replacement = spec.replacement.as_deref().unwrap_or(DEFAULT_REPLACEMENT);
        let mut news = News::default();
        news.copies.extend(Copies::of(regex, replacement));
        let (sure, takes_rest) = (sure_start(regex), copies_rest(regex, replacement));
        if takes_rest && sure.is_empty() {
            // Every label is copied to itself.
            return news;
        }
        // Names that begin with `start` and go on with anything.
        let could_match = |start: &str| regex.contains('|') || start.starts_with(sure) || sure.starts_with(start);
        let anything = || Copies::Template(replacement.to_owned());
        for target in &self.targets {
            match target.find('$') {
                None if !regex.contains('|') && !target.starts_with(sure) => {}
                None if takes_rest => news.targets.push(target[sure.len()..].to_owned()),
                Some(at) if !could_match(&target[..at]) => {}
                _ => news.copies.push(anything()),
            }
        }
        for copies in &self.copies {
            match copies {
                Copies::Template(template) => {
                    if could_match(&template[..template.find('$').unwrap_or(template.len())]) {
                        news.copies.push(anything());
                    }
                }
                Copies::Rest(start) => match start.strip_prefix(sure).filter(|_| takes_rest) {
                    Some(rest) => news.copies.push(Copies::Rest(rest)),
                    None if could_match(start) => news.copies.push(anything()),
                    None => {}
                },
                Copies::Key => {
                    let starts = sure.starts_with(|c: char| c.is_ascii_alphanumeric());
                    if regex.contains('|') || sure.is_empty() || starts {
                        news.copies.push(anything());
                    }
                }
            }
        }
        news
    }

    pub(super) fn contains(&self, label: &str) -> bool {
        (label.starts_with(METADATA) && !(self.vouched)(label))
            || self.targets.iter().any(|target| could_become(target, label))
            || self.copies.iter().any(|copies| copies.could_be_named(label))
    }
}

/// What a `labelmap` makes of the names of such metadata.
#[derive(PartialEq, Eq)]
pub(super) enum Copies {
    /// The template, filled in with parts of the name.
    Template(String),
    /// The name without its first part, so that it begins with this.
    Rest(&'static str),
    /// The key of a label or annotation, or what follows [`METADATA`]: it begins with a letter or digit.
    Key,
}

impl Copies {
    /// `None` if the rule cannot match such metadata.
    pub(super) fn of(regex: &str, replacement: &str) -> Option<Self> {
        let sure = sure_start(regex);
        if !regex.contains('|') && !sure.starts_with(METADATA) && !METADATA.starts_with(sure) {
            return None;
        }
        if !copies_rest(regex, replacement) {
            return Some(Self::Template(replacement.to_owned()));
        }
        let keys = ["_label_", "_annotation_", "_labelpresent_", "_annotationpresent_"];
        Some(match METADATA.strip_prefix(sure) {
            Some("") => Self::Key,
            Some(rest) => Self::Rest(rest),
            None if keys.iter().any(|end| sure.ends_with(end)) => Self::Key,
            None => Self::Template(replacement.to_owned()),
        })
    }

    pub(super) fn could_be_named(&self, name: &str) -> bool {
        match self {
            Self::Template(template) => could_become(template, name),
            Self::Rest(start) => name.starts_with(start),
            Self::Key => name.starts_with(|c: char| c.is_ascii_alphanumeric()),
        }
    }
}

/// What every name begins with that `regex` matches, unless there are alternatives in it.
fn sure_start(regex: &str) -> &str {
    let head = &regex[..regex.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(regex.len())];
    // An operator behind a character can make that character optional; an alternative can make all of it so.
    if regex[head.len()..].starts_with(['?', '*', '{']) { &head[..head.len().saturating_sub(1)] } else { head }
}

/// Whether a `labelmap` copies to what follows [`sure_start`] in the name.
fn copies_rest(regex: &str, replacement: &str) -> bool {
    matches!(&regex[sure_start(regex).len()..], "(.+)" | "(.*)") && matches!(replacement, "$1" | "${1}")
}

/// Whether `template` can become `name` once its groups are filled in: they can be filled with anything.
pub(super) fn could_become(template: &str, name: &str) -> bool {
    let (Some(first), Some(last)) = (template.find('$'), template.rfind('$')) else { return template == name };
    let (head, after) = (&template[..first], &template[last + 1..]);
    let tail = match after.strip_prefix('{') {
        Some(group) => group.split_once('}').map_or("", |(_, tail)| tail),
        None => after.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
    };
    name.len() >= head.len() + tail.len() && name.starts_with(head) && name.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::super::identity::SPIFFE_ID;
    use super::*;

    #[test]
    fn templates() {
        for (template, expected) in [
            ("__spiffe_id__", true),
            ("__spiffe_id", false),
            ("$1", true),
            ("${1}", true),
            ("__spiffe_$1", true),
            ("__${1}_id__", true),
            ("${1}_id", false),
            ("x_$1", false),
            ("__param_${1}", false),
            ("__spiffe_id__${1}", true),
            ("__spiffe_id___${1}_", false),
            ("$1-x", false),
            ("$1$2_id__", true),
            ("${1}${2}_id__", true),
            ("$$", true),
        ] {
            assert_eq!(could_become(template, SPIFFE_ID), expected, "{template}");
        }
    }

    #[test]
    fn label_maps_of_what_was_written_before() {
        let map = |regex: &str, replacement: &str| RuleSpec {
            action: Action::LabelMap,
            regex: Some(regex.to_owned()),
            replacement: Some(replacement.to_owned()),
            ..RuleSpec::default()
        };
        let copied = |before: RuleSpec, regex: &str, replacement: &str, label: &str| {
            let mut tainted = Tainted::new(is_vouched, &[]);
            tainted.follow(&before);
            let rule = map(regex, replacement);
            let could_be = tainted.could_be_copied(&rule, label);
            tainted.follow(&rule);
            assert!(!could_be || tainted.contains(label));
            could_be
        };
        let write = |target: &str| RuleSpec {
            source_labels: vec!["__meta_kubernetes_pod_annotation_x".to_owned()],
            target_label: Some(target.to_owned()),
            ..RuleSpec::default()
        };
        let keys = || map("__meta_kubernetes_pod_label_(.+)", "$1");
        for (before, regex, replacement) in [
            (write("__tmp_team"), "__tmp_(.+)", "$1"),
            (write("__tmp_x"), "__tmp_(.)", "team"),
            (write("__tmp_$1"), "__tmp_x(.+)", "$1"),
            (write("other"), "x|o(.+)", "team"),
            (keys(), "x(.+)", "$1"),
            (keys(), "(.+)_x", "$1"),
            (keys(), ".+", "team"),
            (map("__meta_(.+)", "$1"), "kubernetes_pod_label_(.+)", "$1"),
            (map("__meta_kubernetes_pod_label_(.+)", "__tmp_$1"), "__tmp_(.+)", "$1"),
        ] {
            assert!(copied(before, regex, replacement, "team"), "{regex} to {replacement} was accepted");
        }
        for (before, regex, replacement) in [
            (write("__tmp_team"), "__tmp_(.+)", "x_$1"),
            (write("__tmp_other"), "__tmp_(.+)", "$1"),
            (write("__tmp_other"), "__own_(.+)", "$1"),
            (write("__tmp_$1"), "__own_(.+)", "$1"),
            (write("other"), "(.+)", "$1"),
            (keys(), "__own_(.+)", "$1"),
            (map("__meta_kubernetes_pod_label_(.+)", "__tmp_$1"), "__own_(.+)", "$1"),
        ] {
            // What the first rule makes is not asked for here.
            assert!(!copied(before, regex, replacement, "team"), "{regex} to {replacement} was refused");
        }
    }

    #[test]
    fn label_maps() {
        let copied = |regex: &str, replacement: &str| {
            Copies::of(regex, replacement).is_some_and(|copies| copies.could_be_named(SPIFFE_ID))
        };
        for (regex, replacement) in [
            (".*(__.*)", "$1"),
            ("__meta_kubernetes_pod_label_x(.+)", "$1"),
            ("__meta_kubernetes_pod_label_x(.+)y", "$1"),
            ("__meta_kubernetes_pod_annotation_(.)(.+)", "$2"),
            ("__meta_kubernetes_pod_annotation_(.+)", "__${1}__"),
            ("__meta_kubernetes_pod_annotation_?(.+)", "$1"),
            ("x|__meta_kubernetes_pod_annotation_x(.+)", "$1"),
            ("other(.*)|(.*)", "$2"),
            ("_*(.*)", "$1"),
        ] {
            assert!(copied(regex, replacement), "{regex} to {replacement} was accepted");
        }
        for (regex, replacement) in [
            ("__meta_kubernetes_pod_label_(.+)", "$1"),
            ("__meta_kubernetes_service_annotation_(.*)", "${1}"),
            ("__meta_kubernetes_pod_label_x(.+)", "pod_$1"),
            ("(.*)", "$1"),
            ("__meta_(.+)", "$1"),
            ("__meta_kubernetes_(.+)", "$1"),
            ("__meta_consul_(.+)", "$1"),
            ("(.*)", "app"),
        ] {
            assert!(!copied(regex, replacement), "{regex} to {replacement} was refused");
        }
    }
}
