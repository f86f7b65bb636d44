//! An audit in SARIF 2.1.0 (OASIS), as tools that gather findings read it: a rule for each of ours, a result for each
//! finding. A pod is no file, so its place is a logical location.
//!
//! Always holds: no message makes a link or a placeholder of what a stranger wrote, or of a brace in a command.

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
        "shortDescription": message(rule.when()),
        "fullDescription": message(rule.why()),
        "help": message(&format!("{} {}", rule.when(), rule.why())),
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
        "message": message(&format!("{}. Fix: {}", found.message, found.fix)),
        "locations": [{"logicalLocations": [{
            "name": pod.name,
            "fullyQualifiedName": format!("{}/{}", pod.namespace, pod.name),
            "kind": "resource",
        }]}],
        "partialFingerprints": {"workload/v1": format!("{}/{}/{who}{port}", found.id, pod.namespace)},
        "properties": {"port": found.port, "reason": found.reason, "fix": found.fix},
    })
}

/// A plain text message. There `{0}` would be a placeholder, so braces are doubled (3.11.5), and `[text](place)` a link
/// (3.11.6): a backslash would stay visible where nobody expects a link, so the two parts are kept apart.
fn message(text: &str) -> Value {
    json!({"text": text.replace('{', "{{").replace('}', "}}").replace("](", "] (")})
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use std::time::SystemTime;

    use super::*;
    use crate::cli::audit::judge::{Asked, judge};
    use crate::cli::exposure::{Reach, Sighting};

    /// Every `text` in it.
    fn texts(document: &Value, all: &mut Vec<String>) {
        match document {
            Value::Object(fields) => {
                all.extend(fields.get("text").and_then(Value::as_str).map(str::to_owned));
                fields.values().for_each(|value| texts(value, all));
            }
            Value::Array(items) => items.iter().for_each(|value| texts(value, all)),
            _ => {}
        }
    }

    #[test]
    fn what_a_tenant_writes_makes_no_link_and_a_command_no_placeholder() {
        let annotation = "[the fix is here](https://evil.example/fix.sh) {0}";
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "cart-0", "namespace": "shop", "annotations": {"prometheus.istio.io/secure-port": annotation},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "cart", "uid": "u", "controller": true,
                }],
            },
            "spec": {"serviceAccountName": "cart", "containers": [{"name": "istio-proxy", "args": ["proxy", "sidecar"]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.17"},
        }))
        .expect("a pod");
        let Sighting::Meshed(facts) = Sighting::of(&pod, &Reach::default()) else { panic!("a pod of the mesh") };
        let mut audit = Audit::new(false, None);
        audit.add(&facts, false, judge(&facts, Asked::Unwanted, SystemTime::UNIX_EPOCH));
        let document = document(&audit);
        let mut all = Vec::new();
        texts(&document, &mut all);
        let whole = all.concat();
        assert!(whole.contains("the fix is here") && whole.contains("-p '{{\"spec\":"), "{whole}");
        for text in all {
            assert!(!text.contains("]("), "a link: {text}");
            let bare = text.replace("{{", "").replace("}}", "");
            assert!(!bare.contains(['{', '}']), "a brace for itself: {text}");
        }
        let fixes =
            document["runs"][0]["results"].as_array().expect("a list").iter().map(|one| &one["properties"]["fix"]);
        assert!(
            fixes.into_iter().any(|fix| fix.as_str().is_some_and(|fix| fix.contains("-p '{\"spec\":"))),
            "as it is run"
        );
    }
}
