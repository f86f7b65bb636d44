//! `deploy/monitoring` and `docs/runbooks` as files: what promtool says of them, and that each alert has its page.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use meshscrape::model::Reason;
use regex::Regex;
use serde_json::json;

use super::watcher::DISCOVERY_STALE;
use super::{incident, live, outside};
use crate::deploy::rendered::{container, documents, named, overlay, workload};
use crate::support::process::find;

pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn promtool(arguments: &[&str]) {
    let output = Command::new(find("promtool"))
        .args(arguments)
        .current_dir(root().join("deploy/monitoring"))
        .output()
        .expect("promtool runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
}

/// The alerts of the rules, in their order.
fn alerts() -> Vec<String> {
    let alerts: Vec<String> = read("deploy/monitoring/rules.yaml")
        .lines()
        .filter_map(|line| Some(line.split_once("- alert: ")?.1.to_owned()))
        .collect();
    assert!(alerts.len() > 20, "the rules are read: {alerts:?}");
    alerts
}

#[test]
fn promtool_finds_nothing_wrong_with_the_rules() {
    promtool(&["check", "rules", "--lint=all", "--lint-fatal", "rules.yaml"]);
}

#[test]
fn incidents_raise_the_alerts_that_they_should() {
    promtool(&["test", "rules", "rules_test.yaml"]);
}

/// The job for agents in `deploy/README.md` is one that Prometheus takes.
#[test]
fn the_job_for_the_agents_is_a_good_one() {
    let readme = read("deploy/README.md");
    let section = readme.split("## Watching the agents\n").nth(1).expect("the section");
    let example = section.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```")).expect("an example").0;
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("prometheus.yml");
    std::fs::write(&file, example).expect("a configuration");
    std::fs::copy(root().join("deploy/monitoring/rules.yaml"), dir.path().join("rules.yaml")).expect("the rules");
    promtool(&["check", "config", file.to_str().expect("a path")]);
}

/// The object for the Prometheus Operator gives the agents' series the labels that this job gives them.
#[test]
fn the_pod_monitor_is_that_job() {
    let readme = read("deploy/README.md");
    let section = readme.split("## Watching the agents\n").nth(1).expect("the section");
    let example = section.split_once("```yaml\n").and_then(|(_, rest)| rest.split_once("```")).expect("an example").0;
    let job = documents(example).remove(0)["scrape_configs"][0].take();
    let monitor = documents(&read("deploy/monitoring/pod-monitor.yaml")).remove(0)["spec"].take();
    assert_eq!(monitor["namespaceSelector"]["matchNames"], job["kubernetes_sd_configs"][0]["namespaces"]["names"]);
    let endpoint = &monitor["podMetricsEndpoints"][0];
    assert_eq!(endpoint["port"], "metrics");
    assert_eq!(endpoint["relabelings"][0], json!({ "targetLabel": "job", "replacement": job["job_name"] }));
    let rules = job["relabel_configs"].as_array().expect("rules");
    let node = rules.iter().find(|rule| rule["target_label"] == "node").expect("the node");
    let theirs = json!({ "sourceLabels": node["source_labels"], "targetLabel": "node" });
    assert_eq!(endpoint["relabelings"][1], theirs);
    // The ports and labels are those of the pods.
    let objects = overlay("istio");
    assert_eq!(named(&container(&objects)["ports"], "metrics")["containerPort"], 9464);
    let labels = &workload(&objects)["spec"]["template"]["metadata"]["labels"];
    for (label, value) in monitor["selector"]["matchLabels"].as_object().expect("labels") {
        assert_eq!(&labels[label], value, "{label}");
    }
}

#[test]
fn every_alert_is_played_until_it_fires_and_beside_a_moment_when_it_does_not() {
    let played = read("deploy/monitoring/rules_test.yaml");
    let quiet = Regex::new(r"alertname: (\w+), exp_alerts: \[\]").expect("a pattern");
    let firing = Regex::new(r"alertname: (\w+)\n +exp_alerts:\n +- exp_labels").expect("a pattern");
    let names = |pattern: &Regex| -> BTreeSet<String> {
        pattern.captures_iter(&played).map(|found| found[1].to_owned()).collect()
    };
    let all: BTreeSet<String> = alerts().into_iter().collect();
    assert_eq!(all.difference(&names(&firing)).collect::<Vec<_>>(), Vec::<&String>::new(), "never seen firing");
    assert_eq!(all.difference(&names(&quiet)).collect::<Vec<_>>(), Vec::<&String>::new(), "never seen quiet");
}

/// The tests with real agents say which alerts they wait for.
#[test]
fn every_alert_is_raised_for_a_real_agent() {
    let raised = [incident::ALERTS, outside::ALERTS, live::GONE, &[DISCOVERY_STALE]].concat();
    let raised: BTreeSet<String> = raised.into_iter().map(str::to_owned).collect();
    assert_eq!(raised, alerts().into_iter().collect());
}

#[test]
fn each_alert_has_its_runbook_and_each_runbook_its_alert() {
    let mut pages: Vec<String> = std::fs::read_dir(root().join("docs/runbooks"))
        .expect("docs/runbooks")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .filter(|name| name != "README.md")
        .collect();
    pages.sort();
    let mut wanted: Vec<String> = alerts().iter().map(|alert| format!("{alert}.md")).collect();
    wanted.sort();
    assert_eq!(pages, wanted);
    let rules = read("deploy/monitoring/rules.yaml");
    let list = read("docs/runbooks/README.md");
    for alert in alerts() {
        let rule = rules.split(&format!("- alert: {alert}\n")).nth(1).expect("the rule").split("- alert: ").next();
        assert!(rule.is_some_and(|rule| rule.contains(&format!("runbook_url: docs/runbooks/{alert}.md\n"))), "{alert}");
        assert!(list.contains(&format!("[`{alert}`]({alert}.md)")), "docs/runbooks/README.md does not list {alert}");
    }
}

#[test]
fn every_runbook_has_its_parts_and_ends_in_a_command() {
    for alert in alerts() {
        let page = read(&format!("docs/runbooks/{alert}.md"));
        assert!(page.starts_with(&format!("# {alert}\n")), "{alert}");
        let parts: Vec<&str> = page.lines().filter(|line| line.starts_with("## ")).collect();
        let wanted =
            ["## What it means", "## What is lost meanwhile", "## How to see it", "## Likely causes", "## In the end"];
        assert_eq!(parts, wanted, "{alert}");
        let last = page.strip_suffix("\n```\n").and_then(|page| page.lines().last());
        let command = last.unwrap_or_else(|| panic!("{alert} does not end in a command"));
        let begins = ["kubectl ", "meshscrape ", "NODE_NAME=any meshscrape "];
        assert!(begins.iter().any(|begin| command.starts_with(begin)), "{alert}: {command}");
    }
}

/// Each rule by its alert.
fn rules() -> Vec<(String, String)> {
    let text = read("deploy/monitoring/rules.yaml");
    let rules = text.split("- alert: ").skip(1);
    rules
        .map(|rule| rule.split_once('\n').expect("a rule has lines"))
        .map(|(name, rule)| (name.into(), rule.into()))
        .collect()
}

#[test]
fn no_reason_falls_between_the_alerts_and_runbooks_speak_of_theirs() {
    let chosen = Regex::new(r#"reason=~?"([a-z_|]+)""#).expect("a pattern");
    let left_out = Regex::new(r#"reason!~"([a-z_|]+)""#).expect("a pattern");
    // What has an alert by another metric, and what is no trouble.
    let mut covered: BTreeSet<String> =
        ["no_own_certificate", "identity_unknown", "discovery_stale", "pod_terminating"].map(str::to_owned).into();
    let mut elsewhere = BTreeSet::new();
    for (alert, rule) in rules().into_iter().filter(|(_, rule)| {
        rule.contains("meshscrape_targets_down{") || rule.contains("meshscrape_scrape_failures_total{")
    }) {
        elsewhere.extend(left_out.captures_iter(&rule).flat_map(|found| words(&found[1])));
        for reason in chosen.captures_iter(&rule).flat_map(|found| words(&found[1])) {
            assert!(read(&format!("docs/runbooks/{alert}.md")).contains(&format!("`{reason}`")), "{alert}: {reason}");
            covered.insert(reason);
        }
    }
    assert_eq!(covered, elsewhere, "what MeshscrapeTargetsDown leaves out is what others have");
    let known: BTreeSet<String> = Reason::ALL.iter().map(|reason| reason.name().to_owned()).collect();
    assert_eq!(elsewhere.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "no reasons");
    let page = read("docs/runbooks/MeshscrapeTargetsDown.md");
    for reason in known.difference(&elsewhere).filter(|reason| *reason != Reason::PartialMerge.name()) {
        assert!(
            page.contains(&format!("`{reason}`")),
            "docs/runbooks/MeshscrapeTargetsDown.md says nothing of {reason}"
        );
    }
}

fn words(alternatives: &str) -> Vec<String> {
    alternatives.split('|').map(str::to_owned).collect()
}

/// Commands in the descriptions of alerts and in runbooks are ones that the program has, with options that it has.
#[test]
fn the_commands_that_are_named_exist() {
    let mut texts = vec![(PathBuf::from("rules.yaml"), read("deploy/monitoring/rules.yaml"))];
    for alert in alerts() {
        texts.push((PathBuf::from(&alert), read(&format!("docs/runbooks/{alert}.md"))));
    }
    let command = Regex::new(r"(?m)(?:^|-- |^NODE_NAME=any )meshscrape ([a-z].*)$").expect("a pattern");
    let mut tried = 0;
    for (place, text) in texts {
        for found in command.captures_iter(&text) {
            let line = found[1].replace("{{ or $labels.exported_job $labels.job }}", "JOB");
            assert!(!line.contains("--job {{"), "{}: a job's name may have blanks: {line}", place.display());
            let words: Vec<&str> = line.split(['#', '|']).next().unwrap_or_default().split_whitespace().collect();
            let depth = if words[0] == "check" { 2 } else { 1 };
            let help = Command::new(env!("CARGO_BIN_EXE_meshscrape"))
                .args(&words[..depth])
                .arg("--help")
                .output()
                .expect("the program runs");
            assert!(help.status.success(), "{}: meshscrape {line}", place.display());
            let help = String::from_utf8_lossy(&help.stdout).into_owned();
            for option in words[depth..].iter().filter(|word| word.starts_with('-')) {
                let has = help.split([' ', ',', '\n']).any(|word| word == *option);
                assert!(has, "{}: meshscrape {line}: there is no {option}", place.display());
            }
            tried += 1;
        }
    }
    assert!(tried > 50, "only {tried} commands were found");
}

/// Only in a pod can somebody find out what a configuration leads to, and the runbooks say so.
#[test]
fn what_a_configuration_finds_is_asked_in_an_agents_pod() {
    let objects = overlay("istio");
    let dir = named(&container(&objects)["volumeMounts"], "config")["mountPath"].as_str().expect("a path");
    for alert in alerts() {
        let page = read(&format!("docs/runbooks/{alert}.md"));
        for line in page.lines().filter(|line| line.contains("meshscrape targets --config")) {
            assert!(line.starts_with("kubectl -n meshscrape exec POD -c meshscrape -- "), "{alert}: {line}");
            let file = line.split_once("--config ").and_then(|(_, rest)| rest.split(' ').next());
            assert_eq!(file, Some(&*format!("{dir}/meshscrape.yaml")), "{alert}");
        }
    }
    // Elsewhere it fails, with or without a name of a node.
    for node in [None, Some("any")] {
        let output = Command::new(env!("CARGO_BIN_EXE_meshscrape"))
            .args(["targets", "--timeout", "1s", "--config", "deploy/kustomize/base/meshscrape.yaml"])
            .current_dir(root())
            .env_clear()
            .envs(node.map(|node| ("NODE_NAME", node)))
            .output()
            .expect("the program runs");
        assert!(!output.status.success(), "{node:?}: {output:?}");
    }
}

/// What a shell would take apart is in quotes: where nothing matches, `zsh` runs no such command.
#[test]
fn no_command_of_a_document_has_a_pattern_without_quotes() {
    let quoted = Regex::new("'[^']*'|\"[^\"]*\"").expect("a pattern");
    for alert in alerts() {
        let page = read(&format!("docs/runbooks/{alert}.md"));
        for block in page.split("```\n").skip(1).step_by(2) {
            let bare = quoted.replace_all(block, "");
            assert!(!bare.contains(['?', '*']), "{alert}: {block}");
        }
    }
}

/// "All" is one pattern, and not a list of as many addresses as there are agents in each query.
#[test]
fn all_agents_are_one_pattern_in_the_dashboard() {
    let dashboard: serde_json::Value =
        serde_json::from_str(&read("deploy/monitoring/dashboard.json")).expect("a JSON document");
    let variables = dashboard["templating"]["list"].as_array().expect("variables");
    let all = variables.iter().filter(|variable| variable["includeAll"] == true);
    assert_eq!(all.map(|variable| &variable["allValue"]).collect::<Vec<_>>(), [".+"]);
}
