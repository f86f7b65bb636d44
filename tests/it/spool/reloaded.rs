//! A receiver that is configured in another way, or not at all for a while.

use super::*;
use crate::support::agent::{Running, start_so};

async fn start(stage: &Stage) -> Running {
    start_with(stage, &stage.config()).await
}

async fn start_with(stage: &Stage, config: &str) -> Running {
    let data = stage.data();
    start_so(stage.dir.path(), config, |options| meshscrape::agent::Options { data_dir: Some(data), ..options }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_has_changed_takes_over_what_is_queued_for_it() {
    let stage = Stage::new().await;
    let mut agent = start(&stage).await;
    stage.scrapes(5).await;
    // It has no name of its own, so its name in metrics changes as well.
    for change in ["queue_config: {max_memory: 8MiB, ", "remote_timeout: 7s\n  queue_config: {"] {
        agent.reload(&stage.config().replace("queue_config: {", change)).await.expect("it can be used");
        stage.scrapes(5).await;
    }
    stage.receiver_is(true);
    stage.takes(stage.answers()).await;
    assert_without_gap(&stage);
    assert!(lost(&[1], &stage.receiver.recorded()).is_empty(), "{:?}", stage.taken());
    assert_eq!(agent.stop().await.undelivered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_comes_back_gets_what_was_left_for_it() {
    let stage = Stage::new().await;
    let mut agent = start(&stage).await;
    stage.scrapes(5).await;
    let without = stage.config().split("remote_write:").next().expect("a beginning").to_owned();
    agent.reload(&without).await.expect("it can be used");
    let until = stage.answers();
    assert_eq!(agent.stop().await.undelivered, 0);
    let mut agent = start(&stage).await;
    agent.reload(&without).await.expect("it can be used");
    stage.scrapes(2).await;
    agent.reload(&stage.config()).await.expect("it can be used");
    stage.receiver_is(true);
    stage.scrapes(2).await;
    stage.takes(stage.answers()).await;
    let came = stage.taken();
    // The last one before it was gone may have come too late for it.
    let missing = lost(&(1..until as u64).collect::<Vec<_>>(), &stage.receiver.recorded());
    assert!(came.is_sorted() && missing.is_empty(), "{missing:?} of {until} are missing: {came:?}");
    let stopped = agent.stop().await;
    assert_eq!(stopped.undelivered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_another_url_gets_nothing_of_what_is_queued_and_that_is_kept_and_told_of() {
    let stage = Stage::new().await;
    let (up, rule) = switched();
    up.store(true, Ordering::SeqCst);
    let other = Receiver::start(rule).await;
    let swapped = stage.config().replace(&stage.receiver.url(), &other.url());
    let other_has = async |number: usize| {
        let enough = |recorded: &[Recorded]| taken(recorded).iter().any(|one| *one > number as u64);
        taken(&other.until("the other is sent what is new", enough).await)
    };

    let program = stage.start();
    stage.scrapes(12).await;
    let before = stage.answers();
    std::fs::write(stage.dir.path().join("meshscrape.yaml"), &swapped).expect("a configuration");
    program.signal("HUP");
    let came = other_has(before + 3).await;
    // The last one may have been on its way.
    assert!(came.iter().all(|number| *number >= before as u64), "{came:?} of what came behind {before}");
    program.signal("TERM");
    program.end().await;

    let until = stage.answers();
    let program = super::start(stage.dir.path(), &swapped);
    let came = other_has(until + 3).await;
    assert!(came.iter().all(|number| *number >= before as u64), "{came:?} of what came behind {before}");
    eventually("it is told of", async || {
        let words = "samples are queued for a receiver that is configured no more: they are kept for max_disk_age";
        program.said().contains(words).then_some(())
    })
    .await;
    program.signal("TERM");
    program.end().await;
    assert_eq!(stage.taken(), [0; 0]);

    let last = stage.start();
    stage.receiver_is(true);
    stage.takes(stage.answers() + 1).await;
    let came = stage.taken();
    let missing = lost(&(1..before as u64).collect::<Vec<_>>(), &stage.receiver.recorded());
    assert!(missing.is_empty() && came.is_sorted(), "{missing:?} of {before} are missing: {came:?}");
    drop(last);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_for_one_place_each_gets_what_is_its_own() {
    let stage = Stage::new().await;
    let config = stage.config();
    let (jobs, receiver) = config.split_once("remote_write:\n").expect("both");
    let named = |name: &str| {
        let rule = format!("write_relabel_configs: [{{target_label: to, replacement: {name}}}]");
        receiver
            .replace("  basic_auth", &format!("  name: {name}\n  headers: {{x-from: {name}}}\n  {rule}\n  basic_auth"))
    };
    let with = |names: [&str; 2]| format!("{jobs}remote_write:\n{}", names.map(named).concat());
    let agent = start_with(&stage, &with(["first", "second"])).await;
    stage.scrapes(5).await;
    let until = stage.answers() as u64;
    assert_eq!(agent.stop().await.undelivered, 0);

    stage.receiver_is(true);
    let agent = start_with(&stage, &with(["second", "first"])).await;
    let of = |name: &str, recorded: &[Recorded]| {
        let from: Vec<_> = recorded.iter().filter(|one| one.header("x-from") == Some(name)).cloned().collect();
        (taken(&from), from)
    };
    let came = |recorded: &[Recorded]| {
        ["first", "second"].iter().all(|name| of(name, recorded).0.iter().any(|number| *number > until))
    };
    let recorded = stage.receiver.until("both are delivered", came).await;
    for name in ["first", "second"] {
        let (numbers, from) = of(name, &recorded);
        // The last one before it ended may have been cut off.
        let missing = lost(&(1..until).collect::<Vec<_>>(), &from);
        assert!(missing.is_empty() && numbers.is_sorted(), "{name}: {missing:?} are missing: {numbers:?}");
        let samples = from.iter().flat_map(|one| &one.samples);
        assert!(samples.clone().all(|(labels, _)| labels.value("to") == name), "{name} is sent what is not its own");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_own_metrics_say_what_is_on_disk() {
    let stage = Stage::new().await;
    let agent = start(&stage).await;
    stage.scrapes(5).await;
    let text = eventually("it is on disk", async || {
        let text = agent.metrics().await;
        text.lines().any(|line| line.starts_with("meshscrape_spool_on_disk{") && line.ends_with(" 1")).then_some(text)
    })
    .await;
    let value = |name: &str| -> f64 {
        let mut lines = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        let line = lines.next().unwrap_or_else(|| panic!("{name} is not in\n{text}"));
        line.rsplit(' ').next().expect("a value").parse().expect("a number")
    };
    assert!(value("meshscrape_spool_disk_bytes") > 1000.0);
    assert_eq!(value("meshscrape_spool_disk_capacity_bytes"), f64::from(1 << 30));
    for nothing in ["damaged_records_total", "torn_writes_total", "disk_errors_total", "dropped_samples_total"] {
        assert_eq!(value(&format!("meshscrape_spool_{nothing}")), 0.0, "{nothing}");
    }
    assert!(value("meshscrape_spool_oldest_age_seconds") < 60.0);
    let stopped = agent.stop().await;
    assert!(stopped.undelivered == 0 && stopped.kept > 0, "{stopped:?}");
}
