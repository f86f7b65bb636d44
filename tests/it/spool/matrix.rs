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

/// What was lost, and how memory was.
async fn suffered(message: &str, answer: Answer, length: Duration, stop: Option<&str>) -> (Losses, String) {
    let agent = Contestant::new(Who::Meshscrape, Answer::ok()).await.speaking(message);
    let mut program = agent.start();
    agent.scrapes(3).await;
    let (before, memory) = (agent.answers(), program.usage().resident);
    agent.answers_are(answer);
    tokio::time::sleep(length).await;
    if let Some(signal) = stop {
        let memory = grown(signal, &program, memory);
        program.signal(signal);
        let moment = Instant::now();
        program.end().await;
        program = agent.start();
        agent.answers_are(Answer::ok());
        let losses = agent.losses(before, moment).await;
        drop(program);
        return (losses, memory);
    }
    agent.answers_are(Answer::ok());
    let losses = agent.losses(before, Instant::now()).await;
    (losses, grown(message, &program, memory))
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_receiver_does_nothing_is_lost() {
    let length = trouble();
    let (mut running, side_by_side) = (Vec::new(), LocalSet::new());
    // Each has its turn with one of the messages.
    let mut messages = ["prometheus.WriteRequest", "io.prometheus.write.v2.Request"].into_iter().cycle();
    let mut turn = |name, may_have, answer: Answer, stop| {
        let message = messages.next().expect("there is no end of them");
        let losses = side_by_side.spawn_local(suffered(message, answer, length, stop));
        running.push((name, message, may_have, losses));
    };
    for (name, answer, may_have) in TROUBLES {
        turn(name, may_have, answer(), None);
    }
    turn("503, and SIGTERM under the backlog", false, Answer::status(503), Some("TERM"));
    turn("503, and kill -9 under the backlog", false, Answer::status(503), Some("KILL"));
    for (name, message, may_have, losses) in running {
        let (losses, memory) = side_by_side.run_until(losses).await.expect("no panic");
        println!("{length:?} of {name}, {message}: {losses}; {memory}");
        losses.assert_none(name);
        // What is taken twice is taken where no answer said that it was.
        assert!(may_have || losses.twice == 0, "{name}: {losses}");
    }
}
