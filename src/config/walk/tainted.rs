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
    /// Target labels of rules with tainted sources; they may be templates.
    targets: Vec<String>,
    copies: Vec<Copies>,
}

impl Tainted {
    /// Before the first rule.
    pub(super) fn new(vouched: fn(&str) -> bool) -> Self {
        Self { vouched, targets: Vec::new(), copies: Vec::new() }
    }

    /// Goes on with the next rule.
    pub(super) fn follow(&mut self, spec: &RuleSpec) {
        match spec.action {
            Action::Keep | Action::Drop | Action::KeepEqual | Action::DropEqual => {}
            Action::LabelDrop | Action::LabelKeep => {}
            Action::LabelMap => {
                let regex = spec.regex.as_deref().unwrap_or(DEFAULT_REGEX);
                let replacement = spec.replacement.as_deref().unwrap_or(DEFAULT_REPLACEMENT);
                self.copies.extend(Copies::of(regex, replacement));
            }
            _ => {
                if spec.source_labels.iter().any(|source| self.contains(source)) {
                    self.targets.extend(spec.target_label.clone());
                }
            }
        }
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
        let head = &regex[..regex.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(regex.len())];
        // An operator behind a character can make that character optional; an alternative can make all of it so.
        let sure =
            if regex[head.len()..].starts_with(['?', '*', '{']) { &head[..head.len().saturating_sub(1)] } else { head };
        if !regex.contains('|') && !sure.starts_with(METADATA) && !METADATA.starts_with(sure) {
            return None;
        }
        if !matches!(&regex[sure.len()..], "(.+)" | "(.*)") || !matches!(replacement, "$1" | "${1}") {
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
