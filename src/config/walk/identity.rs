//! Who may write `__spiffe_id__`, the identity that must answer for a target.
//!
//! Discovery fills it from what the API server vouches for. A relabel rule may replace it, but not from metadata that
//! the owner of a pod writes: he would choose who may answer for him, and so take the check off himself. The rules of a
//! job are followed in order: a label written from such metadata is itself no source any more. Where a rule names labels
//! by patterns, what it *could* write counts.

use super::fields::Fields;
use super::relabel::LocatedRule;
use super::tainted::{Copies, METADATA, Tainted, could_become, is_vouched};
use crate::config::problem::Wrong;
use crate::relabel::{Action, DEFAULT_REGEX, DEFAULT_REPLACEMENT};
use crate::yaml::Pos;

/// The label.
pub(super) const SPIFFE_ID: &str = "__spiffe_id__";

/// Refuses rules that let a tenant choose his identity, unless the job says that it may be so.
pub(super) fn check(fields: &Fields<'_>, rules: &[LocatedRule]) {
    let mut tainted = Tainted::new(is_vouched, &[]);
    for located in rules {
        let spec = located.rule.spec();
        let refuse = |key: &str, pos: Pos, message: String| {
            let instead = "remove it, or write identity_from_annotations: true in the job to accept that";
            fields.walk.problem(pos, &format!("{}.{key}", located.path), Wrong::new(message, instead));
        };
        let target = spec.target_label.as_deref().unwrap_or_default();
        match spec.action {
            Action::Keep | Action::Drop | Action::KeepEqual | Action::DropEqual => {}
            Action::LabelDrop | Action::LabelKeep => {}
            Action::LabelMap => {
                if tainted.could_be_copied(spec, SPIFFE_ID) {
                    let message = format!(
                        "this could copy what a pod's owner writes to {SPIFFE_ID}, and he could so choose the identity that is accepted for him"
                    );
                    refuse("regex", located.pos, message);
                }
            }
            _ => {
                let source = spec.source_labels.iter().position(|source| tainted.contains(source));
                let could_be = could_become(target, SPIFFE_ID);
                if target.contains('$') && could_be {
                    let message = format!("this could become {SPIFFE_ID}, which only a rule that names it may write");
                    refuse("target_label", located.target_label, message);
                } else if could_be && let Some(at) = source {
                    let (pos, name) = &located.sources[at];
                    let message = format!(
                        "{name} holds what a pod's owner writes, who could so choose the identity that is accepted for him"
                    );
                    refuse(&format!("source_labels[{at}]"), *pos, message);
                }
            }
        }
        tainted.follow(spec);
    }
}

/// Refuses rules of the job that could change one of `sources`, from which `istio_sd_configs` writes labels at the end.
pub(super) fn keep_sources(fields: &Fields<'_>, rules: &[LocatedRule], sources: &[&str]) {
    for located in rules {
        let spec = located.rule.spec();
        let target = spec.target_label.as_deref().unwrap_or_default();
        let (key, pos, changed) = match spec.action {
            Action::Replace | Action::HashMod | Action::Lowercase | Action::Uppercase => {
                ("target_label", located.target_label, sources.iter().find(|source| could_become(target, source)))
            }
            Action::LabelMap => {
                let regex = spec.regex.as_deref().unwrap_or(DEFAULT_REGEX);
                let replacement = spec.replacement.as_deref().unwrap_or(DEFAULT_REPLACEMENT);
                // Labels that are copied to themselves do not change.
                let copies = Copies::of(regex, replacement).filter(|copies| *copies != Copies::Rest(METADATA));
                let copies = copies.as_ref();
                let changed = sources.iter().find(|source| copies.is_some_and(|copies| copies.could_be_named(source)));
                ("regex", located.pos, changed)
            }
            _ => continue,
        };
        if let Some(source) = changed {
            let message = format!("this could change {source}, which istio_sd_configs writes a label from at the end");
            let path = format!("{}.{key}", located.path);
            fields.walk.problem(pos, &path, Wrong::new(message, "name other labels, or remove the rule"));
        }
    }
}
