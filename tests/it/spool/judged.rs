//! A receiver that refuses for good what it gets, for a while: 400, 413, 415. What is lost then is what it refused to the end,
//! no sample more, and the agent says how many.

use std::collections::{HashMap, HashSet};

use meshscrape::model::{Labels, Sample};
use tokio::task::LocalSet;

use super::*;
use crate::support::receiver::OF_2;

/// From a request to its answer.
type Judge = fn(&Recorded) -> Answer;

/// Which samples may be lost: those of these series that came while the receiver judged.
type MayLose = fn(&Labels) -> bool;

const OF_1: [&str; 1] = ["prometheus.WriteRequest"];
const ONLY_2: [&str; 1] = ["io.prometheus.write.v2.Request"];
const BOTH: [&str; 2] = [OF_1[0], ONLY_2[0]];

fn is_bad(labels: &Labels) -> bool {
    labels.value("n") == "7"
}

fn nothing(_: &Labels) -> bool {
    false
}

fn anything(_: &Labels) -> bool {
    true
}

fn good(request: &Recorded) -> Answer {
    Answer::ok().confirming(request)
}

/// Its name, for which messages, what the receiver does, and what may be lost by it.
const TROUBLES: [(&str, &[&str], Judge, MayLose); 6] = [
    (
        "400 for one series",
        &BOTH,
        |request| match request.samples.iter().any(|(labels, _)| is_bad(labels)) {
            true => Answer::status(400).saying("label value too long"),
            false => good(request),
        },
        is_bad,
    ),
    ("400 for everything", &BOTH, |_| Answer::status(400).saying("no"), anything),
    (
        "413 for more than 5 samples",
        &BOTH,
        |request| if request.samples.len() > 5 { Answer::status(413) } else { good(request) },
        nothing,
    ),
    ("413 for everything", &OF_1, |_| Answer::status(413), anything),
    (
        "415 for 2.0",
        &ONLY_2,
        |request| if request.header("content-type") == Some(OF_2) { Answer::status(415) } else { good(request) },
        nothing,
    ),
    ("415 for everything", &BOTH, |_| Answer::status(415), anything),
];

/// What came of one series, in order: when each sample was scraped, and whether it was taken.
type Came = HashMap<Labels, Vec<(Sample, bool)>>;

fn came(recorded: &[Recorded]) -> Came {
    let mut came = Came::new();
    for one in recorded {
        for (labels, sample) in &one.samples {
            came.entry(labels.clone()).or_default().push((*sample, one.was_taken()));
        }
    }
    came
}

/// What was lost of all series, and whether it was said.
struct Judged {
    /// Of `answer_number`.
    losses: Losses,
    /// Of all series.
    refused: usize,
    said: f64,
    /// Lost of series that may lose nothing.
    innocent: Vec<Labels>,
    /// Taken more than once.
    twice: usize,
    out_of_order: usize,
    memory: String,
}

async fn judged(message: &str, judge: Judge, may_lose: MayLose, length: Duration) -> Judged {
    let target = Numbered::start(20);
    let rule = Arc::new(Mutex::new(good as Judge));
    let current = Arc::clone(&rule);
    let judging = move |request: &Recorded| (*current.lock().expect("no panic while it is held"))(request);
    let receiver = Receiver::start(Box::new(judging)).await;
    let dir = TempDir::new().expect("a directory");
    let config = format!(
        "scrape_configs:
{}remote_write:
- url: {}
  protobuf_message: {message}
  queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}
  metadata_config: {{send: false}}
",
        target.job("plain", interval()),
        receiver.url(),
    );
    let program = start(dir.path(), &config);
    let is_taken = async |number: usize| {
        let enough = move |recorded: &[Recorded]| taken(recorded).iter().any(|one| *one >= number as u64);
        receiver.until("it is delivered", enough).await;
    };
    target.scrapes(3).await;
    is_taken(target.answers()).await;
    let before = program.usage().resident;
    *rule.lock().expect("no panic while it is held") = judge;
    tokio::time::sleep(length).await;
    *rule.lock().expect("no panic while it is held") = good;
    let healed = Instant::now();
    let finished = target.finished(0, healed);
    target.scrapes(4).await;
    is_taken(target.answers()).await;
    // What is said is of the past: the receiver takes everything by now.
    let said = program.metric("prometheus_remote_storage_samples_failed_total").await;
    let recorded = receiver.recorded();
    let memory = grown(message, &program, before);
    drop(program);

    let (mut refused, mut twice, mut out_of_order, mut innocent) = (0, 0, 0, Vec::new());
    for (labels, samples) in came(&recorded) {
        let times = |samples: &mut dyn Iterator<Item = &(Sample, bool)>| -> Vec<i64> {
            samples.map(|(sample, _)| sample.timestamp_ms).collect()
        };
        let taken = times(&mut samples.iter().filter(|(_, taken)| *taken));
        let once: HashSet<_> = taken.iter().copied().collect();
        twice += taken.len() - once.len();
        out_of_order += taken.windows(2).filter(|two| two[1] < two[0]).count();
        let asked: HashSet<_> = times(&mut samples.iter()).into_iter().collect();
        let lost = asked.difference(&once).count();
        refused += lost;
        if lost > 0 && !may_lose(&labels) {
            innocent.push(labels);
        }
    }
    // Each finished answer has at least come: what is lost is what was refused.
    assert_eq!(not_in(&finished, recorded.iter()), [0; 0], "of {finished:?} these never came");
    let losses = Losses::of(&finished, &recorded);
    Judged { losses, refused, said, innocent, twice, out_of_order, memory }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_refuses_to_the_end_is_lost_and_counted_and_no_sample_more() {
    let length = trouble();
    let (mut running, side_by_side) = (Vec::new(), LocalSet::new());
    for (name, messages, judge, may_lose) in TROUBLES {
        for message in messages {
            running.push((
                name,
                *message,
                may_lose,
                side_by_side.spawn_local(judged(message, judge, may_lose, length)),
            ));
        }
    }
    for (name, message, may_lose, judged) in running {
        let judged = side_by_side.run_until(judged).await.expect("no panic");
        let Judged { losses, refused, said, innocent, twice, out_of_order, memory } = judged;
        println!(
            "{length:?} of {name}, {message}: {losses}; of all series {refused} samples refused, and {said} said; {memory}"
        );
        assert!(losses.finished > 3, "{name}, {message}: {losses}");
        assert_eq!(innocent, [], "{name}, {message}: these lost something");
        assert_eq!(said, refused as f64, "{name}, {message}: what is lost is said");
        assert_eq!((twice, out_of_order), (0, 0), "{name}, {message}");
        let loses = !std::ptr::fn_addr_eq(may_lose, nothing as MayLose);
        assert_eq!(refused > 0, loses, "{name}, {message}: this was no test");
    }
}
