//! What the page on migration says to be missing is what is missing, by what a real Prometheus in agent mode has.

use std::collections::BTreeSet;

use super::pages;
use crate::support::http;
use crate::support::prometheus::Prometheus;

/// Something of each kind that has metrics of its own; nobody needs to answer.
const CONFIGURATION: &str = "
scrape_configs:
  - job_name: shop
    static_configs: [{targets: ['127.0.0.1:1']}]
    file_sd_configs: [{files: ['targets/*.json']}]
    http_sd_configs: [{url: 'http://127.0.0.1:1/'}]
    kubernetes_sd_configs: [{role: pod, api_server: 'http://127.0.0.1:1'}]
remote_write: [{url: 'http://127.0.0.1:1/'}]
";

#[tokio::test]
async fn the_metrics_of_prometheus_that_are_missing_are_those_that_are_said_to_be() {
    let pages = pages::all();
    let text = |name: &str| &pages.iter().find(|page| page.name == name).expect("a document").text;
    let first_column = |row: &str| row.strip_prefix("| `")?.split(" |").next().map(str::to_owned);
    let ours: BTreeSet<String> = text("docs/metrics.md").lines().filter_map(first_column).collect();
    let ours: BTreeSet<&str> = ours.iter().map(|name| name.trim_end_matches('`')).collect();
    let table = text("docs/migration.md").split("| not here |").nth(1).and_then(|rest| rest.split("\n\n").next());
    let columns: Vec<String> = table.expect("the table").lines().filter_map(first_column).collect();
    let patterns: Vec<&str> =
        columns.iter().flat_map(|column| column.split(", ").map(|name| name.trim_matches('`'))).collect();
    let covers = |pattern: &str, name: &str| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    };
    let is_said_to_be_missing = |name: &str| patterns.iter().any(|pattern| covers(pattern, name));

    let prometheus = Prometheus::agent_with(CONFIGURATION).await;
    let answer = http::get(prometheus.address(), "/metrics").await.expect("an answer");
    let theirs = answer.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let theirs: Vec<_> = theirs.filter(|name| name.starts_with("prometheus_")).map(str::to_owned).collect();
    assert!(theirs.len() > 100, "{theirs:?}");
    let untold: Vec<_> =
        theirs.iter().filter(|name| !ours.contains(name.as_str()) && !is_said_to_be_missing(name)).collect();
    assert!(untold.is_empty(), "docs/migration.md does not say that these are missing: {untold:?}");
    let there: Vec<_> = ours.iter().filter(|name| is_said_to_be_missing(name)).collect();
    assert!(there.is_empty(), "docs/migration.md says that these are missing: {there:?}");
}
