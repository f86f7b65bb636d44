//! The page of the agent's own metrics, `docs/metrics.md`, is what the agent says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use regex::Regex;
use tokio::time::Instant;

use super::incident::Incident;

/// One metric family as `/metrics` describes it.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Family {
    kind: String,
    help: String,
    /// Of its series, without those that belong to the type.
    labels: BTreeSet<String>,
    series: usize,
}

/// The families of an exposition by name. The name of a counter is that of its series.
fn families(text: &str) -> BTreeMap<String, Family> {
    let names = Regex::new(r#"(?:^|,)([a-z_]+)=""#).expect("a pattern");
    let mut help = "";
    let mut current = String::new();
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').expect("a name and a text").1.trim_end_matches('.');
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            current = name.to_owned();
            let family = Family { kind: kind.to_owned(), help: help.to_owned(), ..Family::default() };
            assert!(families.insert(current.clone(), family).is_none(), "{name} stands twice");
        } else if !line.starts_with('#') {
            let family = families.get_mut(&current).expect("series follow their family");
            family.series += 1;
            let labels = line.split_once('{').map_or("", |(_, labels)| labels);
            let labels = names.captures_iter(labels).map(|found| found[1].to_owned());
            family.labels.extend(labels.filter(|label| label != "le"));
        }
    }
    families
}

/// The names that the source registers, as far as they stand in it: without prefix, unit and `_total`.
fn registered() -> BTreeSet<String> {
    let call =
        Regex::new(r#"(?:\bregister|\bregister_with_unit|\bencode_descriptor|\bgauge|\bcounter)\(\s*"([a-z_]+)""#)
            .expect("a pattern");
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                names.extend(call.captures_iter(&text).map(|found| found[1].to_owned()));
            }
        }
    }
    names
}

/// Whether the source's `name` is that of a family.
fn is_of(name: &str, family: &str) -> bool {
    let bare = family.strip_suffix("_total").unwrap_or(family);
    ["", "_seconds", "_bytes"].iter().any(|unit| {
        bare.strip_suffix(unit).is_some_and(|bare| bare == name || bare == format!("prometheus_remote_storage_{name}"))
    })
}

/// Every family that the agent can expose, with a series of each.
pub(super) async fn exposed(incident: &Incident) -> BTreeMap<String, Family> {
    let registered = registered();
    assert!(registered.len() > 50, "the source is read: {registered:?}");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let families = families(&incident.agent.metrics().await);
        let seen = |name: &str| families.iter().any(|(family, told)| is_of(name, family) && told.series > 0);
        let missing: Vec<&String> = registered.iter().filter(|name| !seen(name)).collect();
        if missing.is_empty() && families.values().all(|family| family.series > 0) {
            return families;
        }
        assert!(
            Instant::now() < deadline,
            "registered and never seen: let tests/it/monitoring/incident.rs provoke them: {missing:?}"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// `UPDATE_EXPECTED=1` writes the page anew.
#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_metrics_is_what_the_agent_exposes() {
    let incident = Incident::start().await;
    let mut page = "# The agent's own metrics\n\nWhat `/metrics` on port 9464 has. Names that begin with `prometheus_` and `process_` are those of Prometheus, so that dashboards and alerts made for it work.\nA Prometheus that scrapes an agent calls the label `job` here `exported_job`, unless its own job says `honor_labels: true`. Made from what the agent says\nof itself.\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n".to_owned();
    for (name, Family { kind, help, labels, .. }) in exposed(&incident).await {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(page, "| `{name}` | {kind} | {} | {help} |", labels.join(", "));
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &page).expect("docs/metrics.md is written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = written.lines().zip(page.lines()).find(|(written, told)| written != told);
    assert!(written == page, "docs/metrics.md is behind the code: run this test with UPDATE_EXPECTED=1; {differs:#?}");
    incident.agent.stop().await;
}
