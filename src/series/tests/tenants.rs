//! Whose blocks are, at receivers with tenants.

use super::*;

const REMOTE_WRITE: &str = "remote_write:
- {url: 'http://a/w', tenant: {template: '{team}'}}
- {url: 'http://b/w'}
- {url: 'http://c/w', tenant: {template: '{absent}'}}
- {url: 'http://d/w', tenant: {template: '{absent}', default: others}}
- {url: 'http://e/w', tenant: {template: 'eu-{__team}'}}";

fn with(rules: &str) -> Scene {
    scene(&format!("  relabel_configs:\n{rules}"), REMOTE_WRITE)
}

/// The receiver and the tenant of each block.
fn whose(blocks: &[Block]) -> Vec<(usize, Option<&str>)> {
    let mut whose: Vec<_> =
        blocks.iter().map(|block| (block.receiver, block.tenant.as_ref().map(|tenant| tenant.as_str()))).collect();
    whose.sort_unstable();
    whose
}

const RULES: &str = "  - {target_label: team, replacement: blue}\n  - {target_label: __team, replacement: red}";

#[test]
fn each_receiver_gets_blocks_of_the_tenant_that_its_template_comes_to() {
    let mut scene = with(RULES);
    let blocks = scene.scrape(1_000, "a 1\n");
    assert_eq!(
        whose(&blocks),
        [(0, Some("blue")), (1, None), (3, Some("others")), (4, Some("eu-red"))],
        "who lacks a label without a default is nobody's"
    );
    assert!(blocks.windows(2).all(|two| two[0].elements == two[1].elements), "encoded once for all");
    let lost: Vec<_> = scene.views[0].recipients.iter().map(|one| one.without_tenant.get()).collect();
    assert_eq!(lost, [0, 0, 6, 0, 0], "a and five of the scraper's own");
    assert_eq!(whose(&scene.table.end(2_000)), whose(&blocks), "markers go where the samples went");
}

#[test]
fn what_a_target_exposes_changes_no_tenant() {
    let job = format!(
        "  honor_labels: true\n  metric_relabel_configs: [{{target_label: team, replacement: green}}]\n  relabel_configs:\n{RULES}"
    );
    let mut scene = scene(&job, REMOTE_WRITE);
    let blocks = scene.scrape(1_000, "a{team=\"green\",__team=\"green\"} 1\n");
    assert_eq!(whose(&blocks), [(0, Some("blue")), (1, None), (3, Some("others")), (4, Some("eu-red"))]);
}

#[test]
fn what_comes_to_no_tenant_is_nobodys_and_not_the_default() {
    let config = REMOTE_WRITE.replace("'{absent}', default", "'{team}', default");
    let rules = "  relabel_configs:\n  - {target_label: team, replacement: 'blue|red'}";
    let mut scene = scene(rules, &config);
    assert_eq!(whose(&scene.scrape(1_000, "a 1\n")), [(1, None)]);
}
