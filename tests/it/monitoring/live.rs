//! Rules and dashboard in a real Prometheus that scrapes real agents: one in deep trouble, one that is well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regex::Regex;
use serde_json::Value;
use tokio::time::Instant;

use super::incident::{ALERTS, Incident};
use super::mixin;
use super::page::{Family, exposed};
use super::shipped::root;
use super::watcher::Watcher;
use crate::support::agent::eventually;
use crate::support::http;
use crate::support::prometheus::Prometheus;

const DOWN: &str = "MeshscrapeDown";
const ABSENT: &str = "MeshscrapeAbsent";

/// The alerts of agents that are gone.
pub(super) const GONE: &[&str] = &[DOWN, ABSENT];

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_in_trouble_raises_its_alerts_and_a_healthy_one_none() {
    let incident = Incident::start().await;
    let healthy = incident.healthy_agent().await;
    let (ill, well) = (incident.agent.listen().to_string(), healthy.agent.listen().to_string());
    let watcher = Watcher::of(&[incident.agent.listen(), healthy.agent.listen()]).await;
    let prometheus = &watcher.prometheus;

    let wanted: BTreeSet<&str> = ALERTS.iter().copied().collect();
    let deadline = Instant::now() + Duration::from_secs(120);
    let raised = loop {
        let raised = watcher.raised().await;
        let of_ill: BTreeSet<&str> = raised.iter().filter(|(at, _)| *at == ill).map(|(_, name)| &**name).collect();
        if wanted.is_subset(&of_ill) {
            break raised;
        }
        assert!(Instant::now() < deadline, "never raised: {:?}", wanted.difference(&of_ill));
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let all: BTreeSet<(String, String)> = wanted.iter().map(|name| (ill.clone(), (*name).to_owned())).collect();
    assert_eq!(raised, all, "{well} is well, and nothing else is wrong with {ill}");

    // The page knows of what is told of targets that are up.
    let overview = http::get(incident.agent.api(), "/").await.expect("the page answers");
    for words in ["of no tenant", "series that only the scraper writes", "another identity than the expected one"] {
        assert!(overview.text().contains(words), "{words}: {}", overview.text());
    }

    let families = exposed(&incident).await;
    every_expression_is_about_what_agents_expose(prometheus, &families).await;
    every_panel_shows_something(prometheus, incident.agent.clock.now_ms()).await;
    mixin::has_an_answer(prometheus, incident.agent.clock.now_ms()).await;
    incident.agent.stop().await;
    healthy.agent.stop().await;

    let gone = [(ill.as_str(), DOWN), (well.as_str(), DOWN), ("", ABSENT)];
    let gone: BTreeSet<(String, String)> = gone.into_iter().map(|(at, name)| (at.into(), name.into())).collect();
    eventually("that the agents are gone is seen", async || watcher.raised().await.is_superset(&gone).then_some(()))
        .await;
}

/// The expressions of the rules as Prometheus has read them, and those of the dashboard, by where they stand.
async fn expressions(prometheus: &Prometheus) -> Vec<(String, String)> {
    let data = prometheus.read("/api/v1/rules").await;
    let groups = data["groups"].as_array().expect("a list").iter();
    let rules = groups.flat_map(|group| group["rules"].as_array().expect("a list"));
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let mut all: Vec<(String, String)> = rules.map(|rule| (text(&rule["name"]), text(&rule["query"]))).collect();
    assert!(all.len() > 20);
    all.extend(panels());
    all
}

/// Each panel of the dashboard with its expressions, for all jobs and agents.
fn panels() -> Vec<(String, String)> {
    let file = root().join("deploy/monitoring/dashboard.json");
    let dashboard: Value =
        serde_json::from_str(&std::fs::read_to_string(file).expect("the dashboard")).expect("a JSON document");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let queries = panels.filter(|panel| panel["type"] != "row").flat_map(|panel| {
        let targets = panel["targets"].as_array().expect("queries").iter();
        targets.map(|target| {
            let expr = target["expr"].as_str().expect("an expression");
            let expr = expr.replace("$__rate_interval", "1m").replace("$__range", "5m");
            let expr = expr.replace("$job", ".*").replace("$instance", ".*");
            assert!(!expr.contains('$'), "{expr}: a variable that this test does not know");
            (panel["title"].as_str().expect("a title").to_owned(), expr)
        })
    });
    let queries: Vec<_> = queries.collect();
    assert!(queries.len() > 20, "the dashboard is read");
    queries
}

async fn every_expression_is_about_what_agents_expose(prometheus: &Prometheus, families: &BTreeMap<String, Family>) {
    for (place, expression) in expressions(prometheus).await {
        let names = metrics_of(&expression);
        assert!(!names.is_empty(), "{place}: {expression}");
        for name in names {
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
            let known =
                name == "up" || families.contains_key(&name) || base.is_some_and(|base| families.contains_key(base));
            assert!(known, "{place} names {name}, which no agent exposes");
        }
    }
}

/// The metric names of an expression: what is left of its words without strings, label lists, functions and keywords.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let pattern = |text| Regex::new(text).expect("a pattern");
    let text = pattern(r#""(?:[^"\\]|\\.)*""#).replace_all(expression, "");
    let text = pattern(r"\{[^}]*\}|\[[^\]]*\]").replace_all(&text, "");
    let text = pattern(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)").replace_all(&text, "");
    let words = pattern(r"[a-zA-Z_:][a-zA-Z0-9_:]*\s*\(?");
    let keywords = ["and", "or", "unless", "bool", "offset", "group_left", "group_right"];
    let mut names = BTreeSet::new();
    for word in words.find_iter(&text) {
        // Behind a digit it is the unit of a duration, or an exponent.
        let digit = text[..word.start()].ends_with(|c: char| c.is_ascii_digit());
        let word = word.as_str().trim_end();
        if !digit && !word.ends_with('(') && !keywords.contains(&word) {
            names.insert(word.to_owned());
        }
    }
    names
}

#[test]
fn metric_names_are_found_in_expressions() {
    let names = |expression| metrics_of(expression).into_iter().collect::<Vec<_>>();
    let expression =
        "sum without (reason) (rate(a_total{job=~\"b(c\"}[5m])) / ignoring (x) group_left d > 1e3 or on (e) f == 0";
    assert_eq!(names(expression), ["a_total", "d", "f"]);
    assert_eq!(names("histogram_quantile(0.99, sum by (le) (rate(x_bucket[1m] offset 5m)))"), ["x_bucket"]);
}

async fn every_panel_shows_something(prometheus: &Prometheus, at_ms: i64) {
    let mut empty = Vec::new();
    for (title, expression) in panels() {
        if prometheus.instant(&expression, at_ms).await.is_empty() {
            empty.push(format!("{title}: {expression}"));
        }
    }
    assert!(empty.is_empty(), "panels without data:\n{}", empty.join("\n"));
}
