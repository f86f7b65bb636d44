//! Receivers as they come, change and go.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::{Parts, Stage, Story, assert_consecutive, counting, eventually, number, story, values};
use crate::support::receiver::{Answer, OF_2, Receiver, Recorded, Rule, always};
use crate::support::tls_server::{Asked, Reply, Then};

/// Down until somebody says otherwise.
fn switched() -> (Arc<AtomicBool>, Rule) {
    let up = Arc::new(AtomicBool::new(false));
    let rule = Arc::clone(&up);
    let answer = move |request: &Recorded| match rule.load(Ordering::SeqCst) {
        true => Answer::ok().confirming(request),
        false => Answer::status(503),
    };
    (up, Box::new(answer))
}

/// The receiver of the stage and these.
fn with(parts: &Parts, others: &[String]) -> String {
    let config = parts.config("", &parts.job("mesh", ""));
    config.replacen("remote_write: [", &format!("remote_write: [{}", others.concat()), 1)
}

fn entry(receiver: &Receiver, more: &str) -> String {
    format!(
        "{{url: '{}', queue_config: {{batch_send_deadline: 50ms, min_backoff: 20ms, max_backoff: 50ms}}{more}}}, ",
        receiver.url()
    )
}

fn numbers(story: &Story) -> Vec<f64> {
    values(story, &number("mesh"))
}

/// The numbers in all that it was asked to take.
fn asked(receiver: &Receiver) -> Vec<f64> {
    let as_if_taken = receiver.recorded().into_iter().map(|one| Recorded { status: Some(200), ..one });
    numbers(&story(&as_if_taken.collect::<Vec<_>>()))
}

/// Numbers without a gap, beginning anywhere, and in the order of their times.
fn assert_in_order(story: &Story) {
    let samples = &story[&number("mesh")];
    assert!(samples.windows(2).all(|two| two[1].1 == two[0].1 + 1.0 && two[1].0 > two[0].0), "{samples:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_the_same_keeps_its_queue_and_one_that_is_new_gets_what_comes() {
    let (up, rule) = switched();
    let down = Receiver::start(rule).await;
    let new = Receiver::start(always(Answer::ok())).await;
    let mut stage = Stage::new(counting(), |parts| with(parts, &[entry(&down, "")])).await;
    stage.stored("some scrapes", |story| numbers(story).len() >= 3).await;
    // It stands elsewhere in the file now, behind one that sees series in another way.
    let own_way = ", write_relabel_configs: [{target_label: own, replacement: way}]";
    stage.reload(|parts| with(parts, &[entry(&new, own_way), entry(&down, "")])).await;
    let relabelled = r#"number{instance="pod", job="mesh", own="way"}"#;
    let enough = |recorded: &[Recorded]| values(&story(recorded), relabelled).len() >= 3;
    let of_new = story(&new.until("the new one gets samples", enough).await);
    assert!(of_new.keys().all(|series| series.contains("own=")), "{of_new:?}");
    assert!(values(&of_new, relabelled)[0] >= 3.0, "{of_new:?}");
    assert!(numbers(&story(&down.recorded())).is_empty());
    up.store(true, Ordering::SeqCst);
    let delivered = story(&down.until("all is delivered", |recorded| numbers(&story(recorded)).len() >= 8).await);
    assert_consecutive(&numbers(&delivered));
    // Neither has anybody asked it but one sender, nor has the one beside it missed anything.
    let stored = stage.stored("and to the other", |story| numbers(story).len() >= 8).await;
    assert_consecutive(&numbers(&stored));
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_queued_for_one_that_is_gone_is_delivered_to_it_and_nothing_more() {
    let (up, rule) = switched();
    let gone = Receiver::start(rule).await;
    let mut stage = Stage::new(counting(), |parts| with(parts, &[entry(&gone, "")])).await;
    stage.stored("some scrapes", |story| numbers(story).len() >= 3).await;
    let url = gone.url();
    let state =
        |line: &&str| line.contains(&url) && (line.contains("_pending{") || line.contains("_timestamp_seconds{"));
    assert_eq!(
        stage.agent.metrics().await.lines().filter(state).count(),
        5,
        "samples, histograms, exemplars, and two moments"
    );
    stage.reload(|parts| with(parts, &[])).await;
    let text = stage.agent.metrics().await;
    assert_eq!(text.lines().find(state), None, "it has no state any more that an alert could be about");
    up.store(true, Ordering::SeqCst);
    let delivered = story(&gone.until("it is delivered", |recorded| !numbers(&story(recorded)).is_empty()).await);
    assert_consecutive(&numbers(&delivered));
    let stored = stage.stored("scrapes go on", |story| numbers(story).len() >= 9).await;
    assert_consecutive(&numbers(&stored));
    let all = numbers(&story(&gone.recorded()));
    assert_consecutive(&all);
    assert!((2..8).contains(&all.len()), "{all:?}");
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_one_that_has_ended_nothing_is_counted_any_more() {
    let (up, rule) = switched();
    let gone = Receiver::start(rule).await;
    let mut stage = Stage::new(counting(), |parts| with(parts, &[entry(&gone, ", name: gone")])).await;
    stage.stored("some scrapes", |story| numbers(story).len() >= 3).await;
    let names = async |stage: &Stage| {
        let text = stage.agent.metrics().await;
        let of =
            |line: &str| Some(line.split_once('{')?.0.to_owned()).filter(|_| line.contains("remote_name=\"gone\""));
        text.lines().filter_map(of).collect::<BTreeSet<_>>()
    };
    let all = names(&stage).await;
    for name in
        ["samples_total", "samples_dropped_total", "histograms_dropped_total", "sent_batch_duration_seconds_sum"]
    {
        assert!(all.contains(&format!("prometheus_remote_storage_{name}")), "{all:?}");
    }
    assert!(all.contains("meshscrape_spool_dropped_blocks_total"), "{all:?}");

    // As long as it delivers what it has, that is counted; so it is when it has come back meanwhile.
    let counts = "prometheus_remote_storage_samples_total";
    stage.reload(|parts| with(parts, &[])).await;
    assert!(names(&stage).await.contains(counts));
    stage.reload(|parts| with(parts, &[entry(&gone, ", name: gone")])).await;
    up.store(true, Ordering::SeqCst);
    let so_far = stage.pod.requests().len();
    let enough = |recorded: &[Recorded]| numbers(&story(recorded)).iter().any(|number| *number > so_far as f64 + 1.0);
    gone.until("both parts are delivered", enough).await;
    assert_eq!(names(&stage).await, all);

    stage.reload(|parts| with(parts, &[entry(&gone, ", name: renamed")])).await;
    eventually("nothing is left", async || names(&stage).await.is_empty().then_some(())).await;
    let text = stage.agent.metrics().await;
    let renamed =
        |name: &str| text.lines().any(|line| line.starts_with(name) && line.contains("remote_name=\"renamed\""));
    assert!(renamed(counts) && renamed("prometheus_remote_storage_histograms_dropped_total"), "{text}");
    stage.agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_changed_gets_everything_in_order() {
    let (up, rule) = switched();
    let changed = Receiver::start(rule).await;
    let mut stage = Stage::new(counting(), |parts| with(parts, &[entry(&changed, "")])).await;
    let of_2 = ", protobuf_message: io.prometheus.write.v2.Request";
    for more in [", remote_timeout: 7s", of_2, ", remote_timeout: 8s", ", name: other", ""] {
        stage.reload(|parts| with(parts, &[entry(&changed, more)])).await;
        let so_far = stage.pod.requests().len();
        stage.stored("more scrapes", |story| numbers(story).len() > so_far).await;
    }
    assert!(numbers(&story(&changed.recorded())).is_empty());
    up.store(true, Ordering::SeqCst);
    let so_far = stage.pod.requests().len();
    let enough = |recorded: &[Recorded]| numbers(&story(recorded)).len() >= so_far + 2;
    let delivered = story(&changed.until("all is delivered", enough).await);
    assert_in_order(&delivered);
    assert_consecutive(&numbers(&delivered));
    let is_of_2 = |one: &Recorded| one.was_taken() && one.header("content-type") == Some(OF_2);
    assert!(changed.recorded().iter().any(is_of_2), "what was queued as 2.0 comes as 2.0");
    assert_eq!(stage.agent.stop().await.undelivered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_back_begins_behind_what_it_still_has_to_get() {
    let (up, rule) = switched();
    let back = Receiver::start(rule).await;
    let mut stage = Stage::new(counting(), |parts| with(parts, &[entry(&back, "")])).await;
    let mut so_far = 0;
    for others in [vec![], vec![entry(&back, "")]] {
        so_far = stage.pod.requests().len();
        stage.stored("more scrapes", |story| numbers(story).len() > so_far).await;
        stage.reload(|parts| with(parts, &others)).await;
    }
    stage.stored("scrapes behind its return", |story| numbers(story).len() > so_far + 5).await;
    let asked = asked(&back);
    let newest = asked.iter().copied().fold(0.0, f64::max);
    assert!(newest <= so_far as f64, "it is asked to take what came later while it lacks what came before: {asked:?}");
    up.store(true, Ordering::SeqCst);
    let enough = |recorded: &[Recorded]| numbers(&story(recorded)).iter().any(|number| *number > so_far as f64 + 5.0);
    let delivered = story(&back.until("both parts are delivered", enough).await);
    let samples = &delivered[&number("mesh")];
    assert!(samples.windows(2).all(|two| two[1].0 > two[0].0 && two[1].1 > two[0].1), "{samples:?}");
    assert_eq!(stage.agent.stop().await.undelivered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_made_for_one_tenant_comes_to_another() {
    let receiver = Receiver::start(always(Answer::ok())).await;
    let of = |tenant: &str| {
        format!(
            ", headers: {{X-Scope-OrgID: {tenant}}}, write_relabel_configs: [{{target_label: tenant, replacement: {tenant}}}]"
        )
    };
    // Each answer takes longer than a reload.
    let slow = |asked: &Asked| {
        let (body, end) = (format!("number {}\n", asked.earlier_here), Arc::new(Notify::new()));
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n", body.len());
        let sign = Arc::clone(&end);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(350)).await;
            sign.notify_one();
        });
        Reply::raw(answer, Then::Keep).later(end, body)
    };
    let mut stage = Stage::new(Arc::new(slow), |parts| with(parts, &[entry(&receiver, &of("one"))])).await;
    stage.stored("a scrape", |story| !numbers(story).is_empty()).await;
    for tenant in ["two", "one", "two"] {
        let before = stage.pod.requests().len();
        eventually("a scrape is under way", async || (stage.pod.requests().len() > before).then_some(())).await;
        stage.reload(|parts| with(parts, &[entry(&receiver, &of(tenant))])).await;
        let tenants =
            |recorded: &[Recorded]| recorded.last().is_some_and(|last| last.header("x-scope-orgid") == Some(tenant));
        receiver.until("the other tenant gets samples", tenants).await;
    }
    stage.agent.stop().await;
    let mut samples = 0;
    for request in receiver.recorded() {
        let tenant = request.header("x-scope-orgid");
        for (labels, _) in &request.samples {
            assert_eq!(labels.get("tenant"), tenant, "{labels}");
            samples += 1;
        }
    }
    assert!(samples > 5, "{samples}");
}
