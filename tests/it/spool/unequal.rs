//! Several receivers, of which all but one are in trouble: that one notices nothing, and the others get everything later.

use std::sync::atomic::AtomicUsize;

use super::*;

/// What it does, and how.
type Trouble = (&'static str, fn() -> Answer);

const DEAD: [Trouble; 3] = [("hangs", Answer::hang), ("refuses", || Answer::status(503)), ("cuts", Answer::cut)];

/// How many answers of the target the living receiver may be behind; how fast anything is does not matter.
const BEHIND: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn dead_receivers_delay_nobody_and_get_everything_when_they_are_back() {
    let length = trouble();
    let target = Arc::new(Numbered::start(0));
    let behind = Arc::new(AtomicUsize::new(0));
    let (most, source) = (Arc::clone(&behind), Arc::clone(&target));
    let alive = Receiver::start(Box::new(move |request| {
        let newest = request.samples.iter().map(|(labels, sample)| match labels.value("__name__") {
            "answer_number" if !is_stale(sample.value) => sample.value as usize,
            _ => 0,
        });
        if let Some(newest) = newest.max().filter(|newest| *newest > 0) {
            most.fetch_max(source.answers() - newest, Ordering::SeqCst);
        }
        Answer::ok()
    }))
    .await;
    let healed = Arc::new(AtomicBool::new(false));
    let mut dead = Vec::new();
    for (_, answer) in DEAD {
        let healed = Arc::clone(&healed);
        let rule = move |_: &Recorded| if healed.load(Ordering::SeqCst) { Answer::ok() } else { answer() };
        dead.push(Receiver::start(Box::new(rule)).await);
    }
    let mut config = format!("scrape_configs:\n{}remote_write:\n", target.job("plain", interval()));
    for receiver in dead.iter().chain([&alive]) {
        config.push_str(&format!(
            "- url: {}\n  remote_timeout: 1s\n  queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}\n",
            receiver.url()
        ));
    }
    let dir = TempDir::new().expect("a directory");
    let program = start(dir.path(), &config);
    tokio::time::sleep(length).await;
    let delivered =
        |number: usize| move |recorded: &[Recorded]| taken(recorded).iter().any(|one| *one >= number as u64);
    target.scrapes(1).await;
    alive.until("the others are dead, and it is delivered", delivered(target.answers())).await;
    for receiver in &dead {
        assert_eq!(taken(&receiver.recorded()), [0; 0]);
    }
    healed.store(true, Ordering::SeqCst);
    let moment = Instant::now();
    target.scrapes(2).await;
    let last = target.answers();
    let finished = target.finished(0, moment);
    for ((name, _), receiver) in DEAD.iter().zip(&dead) {
        receiver.until("it is delivered to who was dead", delivered(last)).await;
        let losses = Losses::of(&finished, &receiver.recorded());
        println!("{length:?} in which a receiver {name}: {losses}");
        losses.assert_none(name);
    }
    alive.until("it is delivered", delivered(last)).await;
    drop(program);
    let losses = Losses::of(&finished, &alive.recorded());
    let behind = behind.load(Ordering::SeqCst);
    println!("beside them the living one: {losses}; never more than {behind} answers behind");
    losses.assert_none("the living one");
    assert_eq!(losses.twice, 0);
    assert!(behind <= BEHIND, "it was {behind} answers behind");
}
