//! What a receiver can do to samples, for a while, and what is lost, comes twice or out of order by it: nothing, nothing but
//! what "at least once" means, nothing.

use super::others::{Contestant, Who};
use super::*;
use tokio::task::LocalSet;

/// Its name, what the receiver does, and whether it may have taken what comes again.
type Trouble = (&'static str, fn() -> Answer, bool);

const TROUBLES: [Trouble; 9] = [
    ("500", || Answer::status(500), false),
    ("503 with Retry-After: 1", || Answer::status(503).header("retry-after", "1"), false),
    ("429", || Answer::status(429), false),
    ("429 with Retry-After: 1", || Answer::status(429).header("retry-after", "1"), false),
    ("a redirect to another host", || Answer::status(307).header("location", "http://elsewhere.example/"), false),
    ("connections cut off", Answer::cut, true),
    ("answers that break off", || Answer::status(500).saying("so wh").cut_inside(), false),
    ("no answer at all", Answer::hang, true),
    ("an answer after 1.5 s", || Answer::ok().after(Duration::from_millis(1500)), false),
];

async fn suffered(answer: Answer, length: Duration, stop: Option<&str>) -> Losses {
    let agent = Contestant::new(Who::Meshscrape, Answer::ok()).await;
    let mut program = agent.start();
    agent.scrapes(3).await;
    let before = agent.answers();
    agent.answers_are(answer);
    tokio::time::sleep(length).await;
    if let Some(signal) = stop {
        program.signal(signal);
        let moment = Instant::now();
        program.end().await;
        program = agent.start();
        agent.answers_are(Answer::ok());
        let losses = agent.losses(before, moment).await;
        drop(program);
        return losses;
    }
    agent.answers_are(Answer::ok());
    let losses = agent.losses(before, Instant::now()).await;
    drop(program);
    losses
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_receiver_does_nothing_is_lost() {
    let length = trouble();
    let (mut running, side_by_side) = (Vec::new(), LocalSet::new());
    for (name, answer, may_have) in TROUBLES {
        running.push((name, may_have, side_by_side.spawn_local(suffered(answer(), length, None))));
    }
    for (name, signal) in
        [("503, and SIGTERM under the backlog", "TERM"), ("503, and kill -9 under the backlog", "KILL")]
    {
        running.push((name, false, side_by_side.spawn_local(suffered(Answer::status(503), length, Some(signal)))));
    }
    for (name, may_have, losses) in running {
        let losses = side_by_side.run_until(losses).await.expect("no panic");
        println!("{length:?} of {name}: {losses}");
        losses.assert_none(name);
        // What is taken twice is taken where no answer said that it was.
        assert!(may_have || losses.twice == 0, "{name}: {losses}");
    }
}
