//! Role `ingress`: one target for each path of each rule, by its host and without a port.

use super::meta::{self, Draft};
use super::object::{Ingress, IngressRule};
use super::surroundings::Surroundings;
use crate::model::Candidate;

/// The targets of an ingress.
pub(super) fn candidates(ingress: &Ingress, around: &Surroundings<'_>) -> Vec<Candidate> {
    let (metadata, spec) = (&ingress.metadata, &ingress.spec);
    let mut group = Draft::new(around.names);
    around.set_namespace(&mut group, metadata);
    group.set_metadata(&meta::INGRESS, metadata);
    group.set("__meta_kubernetes_ingress_class_name", &spec.ingress_class_name);
    let source = format!("ingress/{}/{}", metadata.namespace, metadata.name).into();
    let mut candidates = Vec::new();
    for rule in &spec.rules {
        let secure = spec.tls.iter().flat_map(|tls| &tls.hosts).any(|pattern| covers(pattern, &rule.host));
        for path in paths(rule) {
            let mut own = group.clone();
            own.set("__meta_kubernetes_ingress_host", &rule.host);
            own.set_word("__meta_kubernetes_ingress_scheme", if secure { "https" } else { "http" });
            own.set_made("__meta_kubernetes_ingress_path", path);
            candidates.push(own.into_candidate(&rule.host, &source, None));
        }
    }
    candidates
}

/// The paths of a rule; one that says nothing of HTTP stands for all paths.
fn paths(rule: &IngressRule) -> Vec<&str> {
    match &rule.http {
        None => vec!["/"],
        Some(http) => http.paths.iter().map(|path| if path.path.is_empty() { "/" } else { &path.path }).collect(),
    }
}

/// Whether a certificate for `pattern` is one for `host`: they are equal, or `*` stands for the first label.
fn covers(pattern: &str, host: &str) -> bool {
    let rest = |name: &str| name.split_once('.').map(|(_, rest)| rest.to_owned());
    pattern == host || (pattern.split('.').next() == Some("*") && rest(pattern) == rest(host))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fixtures::{Others, add, addresses, assert_labels, object, value, values};
    use super::*;
    use crate::config::AttachMetadata;

    fn ingress() -> Value {
        json!({
            "metadata": {"name": "front", "namespace": "shop", "labels": {"a": "1"},
                "annotations": {"kubernetes.io/ingress.class": "old"}},
            "spec": {
                "ingressClassName": "nginx",
                "defaultBackend": {"service": {"name": "default", "port": {"number": 80}}},
                "tls": [{"secretName": "everything"}, {"hosts": ["shop.example", "*.shop.example"], "secretName": "s"}],
                "rules": [
                    {"host": "shop.example", "http": {"paths": [
                        {"path": "/cart", "pathType": "Prefix", "backend": {"service": {"name": "cart"}}},
                        {"pathType": "ImplementationSpecific", "backend": {"service": {"name": "web"}}}
                    ]}},
                    {"host": "plain.example"},
                    {"host": "*.shop.example", "http": {"paths": [{"path": "/x"}]}},
                    {"http": {"paths": [{"path": "/y"}]}},
                    {"host": "none.example", "http": {"paths": []}},
                    {"host": "null.example", "http": {"paths": null}}
                ]
            }
        })
    }

    fn found(json: Value) -> Vec<Candidate> {
        candidates(&object(json), &Others::default().around())
    }

    #[test]
    fn every_label_of_an_ingress() {
        let found = found(ingress());
        assert_labels(
            &found[0],
            "__address__ shop.example
            m:namespace shop
            m:ingress_name front
            m:ingress_label_a 1
            m:ingress_labelpresent_a true
            m:ingress_annotation_kubernetes_io_ingress_class old
            m:ingress_annotationpresent_kubernetes_io_ingress_class true
            m:ingress_class_name nginx
            m:ingress_host shop.example
            m:ingress_path /cart
            m:ingress_scheme https",
        );
        assert_eq!((&*found[0].source, &found[0].pod), ("ingress/shop/front", &None));
    }

    #[test]
    fn one_target_for_each_rule_and_path() {
        let found = found(ingress());
        assert_eq!(addresses(&found), ["shop.example", "shop.example", "plain.example", "*.shop.example", ""]);
        assert_eq!(values(&found, "m:ingress_host"), addresses(&found));
        assert_eq!(values(&found, "m:ingress_path"), ["/cart", "/", "/", "/x", "/y"]);
        assert_eq!(values(&found, "m:ingress_scheme"), ["https", "https", "http", "https", "http"]);
    }

    #[test]
    fn a_class_is_told_where_it_is_named() {
        let mut without = ingress();
        without["spec"]["ingressClassName"] = Value::Null;
        assert_eq!(value(&found(without), "m:ingress_class_name"), "");
    }

    #[test]
    fn an_ingress_without_rules_has_no_targets() {
        for spec in [Value::Null, json!({"rules": null, "tls": null})] {
            assert!(found(json!({"metadata": {"name": "i", "namespace": "n"}, "spec": spec})).is_empty());
        }
    }

    #[test]
    fn a_star_stands_for_one_whole_label() {
        for (pattern, host, expected) in [
            ("a.b", "a.b", true),
            ("*.b", "a.b", true),
            ("*.b", "*.b", true),
            ("*.b", "b", false),
            ("*.b", "x.a.b", false),
            ("*.a.b", "a.b", false),
            ("*.b", "a.c", false),
            ("*a.b", "xa.b", false),
            ("x.*", "x.y", false),
            ("a.b", "A.b", false),
            ("*", "a", true),
            ("*", "a.b", false),
            ("", "a", false),
        ] {
            assert_eq!(covers(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn its_namespace_is_attached() {
        let attach = AttachMetadata { namespace: true, ..Default::default() };
        let mut others = Others { attach, ..Default::default() };
        add(&mut others.namespaces, json!({"metadata": {"name": "shop", "annotations": {"team": "t"}}}));
        let found = candidates(&object(ingress()), &others.around());
        assert_eq!(value(&found, "m:namespace_annotation_team"), "t");
    }
}
