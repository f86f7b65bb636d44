//! Several tenants at one receiver share a queue and its directory, and nothing of it comes to another tenant.

use std::collections::BTreeSet;

use super::*;
use crate::support::agent::{eventually, start_so};

/// No scrape may time out on a busy machine: nobody would have what the target has finished.
const INTERVAL: Duration = Duration::from_millis(500);

/// A target of each team, one that has two, and one that has none. A rule makes a label of the team for the tenant alone.
fn config(stage: &Stage, of_nobody: &Numbered) -> String {
    let (target, of_nobody, interval) = (stage.target.address(), of_nobody.address(), INTERVAL.as_millis());
    format!(
        "scrape_configs:
- job_name: plain
  scrape_interval: {interval}ms
  scrape_timeout: {interval}ms
  static_configs:
  - {{targets: ['{target}'], labels: {{team: shop}}}}
  - {{targets: ['{target}'], labels: {{team: bank}}}}
  - {{targets: ['{of_nobody}'], labels: {{team: 'shop|bank'}}}}
  - {{targets: ['{of_nobody}'], labels: {{owner: nobody}}}}
  relabel_configs: [{{source_labels: [team], regex: (.+), target_label: __tenant, replacement: eu-$1}}]
remote_write:
- url: {}
  name: main
  tenant: {{template: '{{__tenant}}'}}
  queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}
",
        stage.receiver.url(),
    )
}

/// Each number that a team's target gave, in the order in which they were taken as samples of its tenant. Everything that came
/// must have come as a sample of the team's own tenant.
fn numbers_of(team: &str, recorded: &[Recorded]) -> Vec<u64> {
    let mut numbers = Vec::new();
    for request in recorded {
        let tenant = request.header("x-scope-orgid").expect("a tenant");
        for (labels, sample) in &request.samples {
            assert_eq!(tenant, format!("eu-{}", labels.value("team")), "{labels}");
            let is_number = labels.value("__name__") == "answer_number" && !is_stale(sample.value);
            if is_number && labels.value("team") == team && request.was_taken() {
                numbers.push(sample.value as u64);
            }
        }
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_several_tenants_outlives_a_kill_and_comes_to_each_of_them() {
    let (stage, of_nobody) = (Stage::new().await, Numbered::start(200));
    let arguments = stage.arguments(&stage.data());
    std::fs::write(stage.dir.path().join("meshscrape.yaml"), config(&stage, &of_nobody)).expect("a configuration");
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let program = Program::start(&arguments);
    // Two targets, which number their answers together; those of nobody are numbered apart.
    stage.scrapes(2 * 8).await;
    program.signal("KILL");
    let killed = Instant::now();
    program.end().await;
    let finished = stage.finished(0, killed);
    assert!(finished.len() >= 8, "{finished:?}");
    let until = stage.answers();

    let data = stage.data();
    let agent = start_so(stage.dir.path(), &config(&stage, &of_nobody), |options| meshscrape::agent::Options {
        data_dir: Some(data),
        ..options
    })
    .await;
    stage.receiver_is(true);
    let after = |recorded: &[Recorded]| {
        ["shop", "bank"].iter().all(|team| numbers_of(team, recorded).iter().any(|number| *number > until as u64))
    };
    let recorded = stage.receiver.until("both have gone on", after).await;
    let teams: BTreeSet<_> =
        recorded.iter().flat_map(|one| &one.samples).map(|(labels, _)| labels.value("team").to_owned()).collect();
    assert_eq!(teams, ["bank", "shop"].map(str::to_owned).into(), "what is nobody's does not come");
    for team in ["shop", "bank"] {
        let numbers = numbers_of(team, &recorded);
        assert!(numbers.is_sorted(), "{team}: {numbers:?}");
    }
    let missing = lost(&finished, &recorded);
    assert!(missing.is_empty(), "{missing:?} of {} are missing", finished.len());
    assert_eq!(
        std::fs::read_dir(stage.data().join("spool")).expect("a directory").count(),
        1,
        "they share a directory"
    );

    let series =
        format!("meshscrape_samples_without_tenant_total{{remote_name=\"main\",url=\"{}\"}}", stage.receiver.url());
    let counts = async || (agent.metric(&series).await > 400.0).then_some(());
    eventually("more than one scrape of each of nobody's is counted", counts).await;
    let targets = agent.targets().await;
    let of = |label: &str, value: &str| {
        let target = targets.iter().find(|target| target["labels"][label] == value).expect("listed");
        let tenants = target["tenants"].as_array().expect("one for each template");
        assert_eq!((tenants.len(), &tenants[0]["template"]), (1, &"{__tenant}".into()));
        (tenants[0]["tenant"].clone(), tenants[0]["error"].clone())
    };
    assert_eq!(of("team", "shop"), ("eu-shop".into(), "".into()));
    assert_eq!(of("owner", "nobody"), ("".into(), "the target has no label __tenant".into()));
    let (tenant, error) = of("team", "shop|bank");
    assert!(tenant == "" && error.as_str().expect("text").contains("contains '|'"), "{error}");
    agent.stop().await;
}
