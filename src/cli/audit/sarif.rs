//! An audit in SARIF 2.1.0 (OASIS), as tools that gather findings read it: a rule for each of ours, a result for each
//! finding. A pod is no file, so its place is a logical location.

use serde_json::{Value, json};

use super::report::{Audit, Audited, Found};
use super::rule::Rule;

const SCHEMA: &str = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The whole document.
pub(super) fn document(audit: &Audit) -> Value {
    let results: Vec<Value> =
        audit.pods.iter().flat_map(|pod| pod.findings.iter().map(move |found| result(pod, found))).collect();
    let rules: Vec<Value> = Rule::ALL.iter().map(|one| rule(*one)).collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {
                "name": "meshscrape",
                "version": env!("CARGO_PKG_VERSION"),
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            }},
            "invocations": [{"executionSuccessful": audit.complete && audit.in_vain.is_none()}],
            "results": results,
            "properties": {"connected": audit.connected, "summary": audit.summary},
        }],
    })
}

fn rule(rule: Rule) -> Value {
    json!({
        "id": rule.id(),
        "name": rule.name(),
        "shortDescription": {"text": rule.when()},
        "fullDescription": {"text": rule.why()},
        "help": {"text": format!("{} {}", rule.when(), rule.why())},
        "defaultConfiguration": {"level": rule.severity()},
    })
}

fn result(pod: &Audited, found: &Found) -> Value {
    let index = Rule::ALL.iter().position(|rule| *rule == found.rule);
    // Of the next audit it is the same finding, although the pod may have another name by then.
    let who = pod.workload.as_ref().unwrap_or(&pod.name);
    let port = found.port.map(|port| format!(":{port}")).unwrap_or_default();
    json!({
        "ruleId": found.id,
        "ruleIndex": index,
        "level": found.severity,
        "message": {"text": format!("{}. Fix: {}", found.message, found.fix)},
        "locations": [{"logicalLocations": [{
            "name": pod.name,
            "fullyQualifiedName": format!("{}/{}", pod.namespace, pod.name),
            "kind": "resource",
        }]}],
        "partialFingerprints": {"workload/v1": format!("{}/{}/{who}{port}", found.id, pod.namespace)},
        "properties": {"port": found.port, "reason": found.reason, "fix": found.fix},
    })
}
