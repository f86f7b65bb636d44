//! `tenant` of a receiver, and what the rules of jobs may do to the labels that it names.
//!
//! Whose samples are is not for a pod's owner to say: he would write them into the tenant of somebody else. So a template
//! names no metadata that he writes, and no rule copies such metadata into a label that it names, unless the receiver says
//! that it may be so. Labels of namespaces are not his. His are, other than where identities are at stake: the service account
//! and the node, of which he names any there is, and with the node its labels; and the address, of which he names the port.

use http::HeaderName;

use super::Walk;
use super::fields::Fields;
use super::relabel::LocatedRule;
use super::tables::TENANT;
use super::tainted::Tainted;
use super::{headers, scalar::Scalar};
use crate::config::TenantHeader;
use crate::config::problem::Wrong;
use crate::model::{Tenant, TenantRule, TenantRuleError};
use crate::relabel::Action;

const TEMPLATE: &str = "template";

/// What templates ask of jobs.
#[derive(Default)]
pub(super) struct Tenancy {
    /// The rules of all receivers, each once.
    pub(super) rules: Vec<TenantRule>,
    /// Labels that no job may fill with what a pod's owner writes, each with the place of its receiver.
    guarded: Vec<(String, String)>,
}

/// Reads it in the receiver `fields`; `others` are the headers that are set otherwise.
pub(super) fn read(fields: &mut Fields<'_>, others: &[HeaderName], tenancy: &mut Tenancy) -> Option<TenantHeader> {
    const KEY: &str = "tenant";
    const HEADER: &str = "X-Scope-OrgID";
    let mut inner = fields.section(KEY, &TENANT)?;
    inner.need(TEMPLATE, "write template: \"{__meta_kubernetes_namespace}\"");
    let default = inner.parsed("default", |text| {
        Tenant::parse(text).map_err(|error| Wrong::new(format!("this is no tenant: {error}"), "write the name of one"))
    });
    let template = inner.text(TEMPLATE);
    let rule = template.as_ref().and_then(|text| read_rule(inner.walk, text, default));
    let name =
        inner.valued("header", super::fields::Valued::new(None, HEADER), |text| read_header(text, others).map(Some));
    let name = name.value.or_else(|| read_header(HEADER, others).map_err(|wrong| inner.wrong("header", wrong)).ok());
    let from_pods = inner.flag("from_pod_metadata", false);
    if let (Some(rule), Some(text), false) = (&rule, &template, from_pods) {
        for label in rule.labels() {
            guard(&inner, label, text, tenancy);
        }
    }
    fields.show(KEY, inner.close());
    let rule = rule?;
    if !tenancy.rules.contains(&rule) {
        tenancy.rules.push(rule.clone());
    }
    Some(TenantHeader { name: name?, rule })
}

fn read_rule(walk: &Walk<'_>, text: &Scalar<'_>, default: Option<Tenant>) -> Option<TenantRule> {
    walk.read(text, |text| {
        TenantRule::new(text, default).map_err(|error| {
            let instead = match error {
                TenantRuleError::Fixed => "write the tenant under http_headers, or name a label in braces",
                _ => "write labels in braces, such as \"{__meta_kubernetes_namespace}\"",
            };
            Wrong::new(error.to_string(), instead)
        })
    })
}

fn read_header(text: &str, others: &[HeaderName]) -> Result<HeaderName, Wrong> {
    let name = headers::free_name(text)?;
    match others.contains(&name) {
        true => Err(Wrong::new(
            format!("the header {name} is written under headers or http_headers as well"),
            "remove one of the two",
        )),
        false => Ok(name),
    }
}

fn guard(fields: &Fields<'_>, label: &str, text: &Scalar<'_>, tenancy: &mut Tenancy) {
    // Whether a job has pods is not known yet.
    if Tainted::new(is_not_his_of_nodes, &[]).contains(label) {
        let message = format!("{label} holds what a pod's owner writes, who could so choose whose samples his are");
        fields.walk.problem(text.pos, &text.key, Wrong::new(message, INSTEAD));
        return;
    }
    tenancy.guarded.push((label.to_owned(), fields.path.clone()));
}

const INSTEAD: &str = "name another label, such as __meta_kubernetes_namespace, or write from_pod_metadata: true";

/// What of the metadata in Kubernetes a pod's owner does not write.
fn is_not_his(label: &str) -> bool {
    label == "__meta_kubernetes_namespace" || label.starts_with("__meta_kubernetes_namespace_")
}

/// The same where no pod is a target, so that nobody chooses his node.
fn is_not_his_of_nodes(label: &str) -> bool {
    is_not_his(label) || label.starts_with("__meta_kubernetes_node_")
}

/// Refuses a job, and rules of it, that could let a pod's owner choose whose samples his are. `has_pods`: what it finds in
/// Kubernetes may be pods, or what stands for them.
pub(super) fn check(fields: &Fields<'_>, rules: &[LocatedRule], has_pods: bool, tenancy: &Tenancy) {
    let walk = fields.walk;
    let mut tainted = match has_pods {
        true => Tainted::new(is_not_his, &["__address__", "instance"]),
        false => Tainted::new(is_not_his_of_nodes, &[]),
    };
    let mut guarded: Vec<_> = tenancy.guarded.iter().collect();
    for (label, receiver) in guarded.extract_if(.., |(label, _)| tainted.contains(label)) {
        let message = format!(
            "a pod's owner chooses {label} of the targets of this job, which {receiver} makes the tenant of, and so whose \
             samples his are"
        );
        walk.problem(fields.pos, &fields.path, Wrong::new(message, INSTEAD));
    }
    for located in rules {
        let spec = located.rule.spec();
        tainted.follow(spec);
        for (label, receiver) in guarded.extract_if(.., |(label, _)| tainted.contains(label)) {
            let (key, pos) = match spec.action {
                Action::LabelMap => ("regex", located.pos),
                _ => ("target_label", located.target_label),
            };
            let message = format!(
                "this could copy what a pod's owner writes to {label}, which {receiver} makes the tenant of, and he could so \
                 choose whose samples his are"
            );
            walk.problem(pos, &format!("{}.{key}", located.path), Wrong::new(message, INSTEAD));
        }
    }
}
