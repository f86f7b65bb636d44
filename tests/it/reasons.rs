//! Each reason of the closed list, provoked on a real part before the real program, told alike wherever people look, and
//! mended by what its hint asks for.
//!
//! One agent has a job for each reason, named after it, with pods behind real Envoys. The rows of the table stand by the class
//! of the reason; what a row changes is what its hint says in so many words, and nothing else. What ends by itself, and what
//! needs an agent of its own, is in [`apart`] and in the chapter of the same name on a cluster.

mod apart;
mod connect;
mod exposition;
pub(crate) mod faces;
mod http;
mod identity;
pub(crate) mod job;
mod limits;
pub(crate) mod stage;

use meshscrape::model::Reason;

use self::faces::Agent;
use self::job::Job;
use self::stage::{Row, Stage};
use crate::support::receiver::{Answer, Receiver, always};

/// The reasons that have no row, because they need a scene of their own.
const ELSEWHERE: [Reason; 4] =
    [Reason::VerificationEnded, Reason::MemoryBudget, Reason::PodTerminating, Reason::DiscoveryStale];

/// A configuration of these jobs, whose receiver gets `up`, and what is too much for it.
fn configuration<'r>(jobs: impl Iterator<Item = (Reason, &'r Job)>, receiver: &Receiver) -> String {
    let jobs: String = jobs.map(|(reason, job)| job.write(reason)).collect();
    let keep = "[{source_labels: [__name__], regex: up|endless, action: keep}]";
    let url = receiver.url();
    format!(
        "global: {{scrape_memory_limit: 1GiB}}\nscrape_configs:\n{jobs}remote_write:\n- url: {url}\n  \
         write_relabel_configs: {keep}\n  queue_config: {{batch_send_deadline: 100ms}}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn each_reason_is_told_alike_everywhere_and_mended_by_what_its_hint_asks_for() {
    let mut stage = Stage::new();
    let rows: Vec<Row> = [connect::rows, identity::rows, http::rows, exposition::rows, limits::rows]
        .into_iter()
        .flat_map(|rows| rows(&mut stage))
        .collect();
    let mut staged: Vec<Reason> = rows.iter().map(|row| row.reason).chain(ELSEWHERE).collect();
    staged.sort_unstable();
    assert_eq!(staged, Reason::ALL, "each reason stands in one place");

    let receiver = Receiver::start(always(Answer::ok())).await;
    let mut envoys = stage.start().await;
    let ill = configuration(rows.iter().map(|row| (row.reason, &row.job)), &receiver);
    let agent = Agent::start(stage.path(), &ill).await;
    for Row { reason, asks, .. } in &rows {
        let target = agent.shows(*reason).await;
        let hint = target["hint"].as_str().expect("a text");
        assert!(hint.contains(asks), "{reason}: {hint}");
        agent.says_alike(*reason, &target).await;
    }

    let reasons: Vec<Reason> = rows.iter().map(|row| row.reason).collect();
    let well = configuration(rows.iter().map(|row| (row.reason, row.mended())), &receiver);
    stage.mend(&mut envoys, rows).await;
    agent.reload(&well);
    for reason in &reasons {
        agent.is_well(*reason).await;
    }
    for reason in reasons {
        let ups = async || {
            let recorded = receiver.recorded();
            let samples = recorded.iter().flat_map(|request| &request.samples);
            let ups =
                samples.filter(|(labels, _)| labels.value("__name__") == "up" && labels.value("job") == reason.name());
            let ups: Vec<f64> = ups.map(|(_, sample)| sample.value).collect();
            let was_down = reason == Reason::PartialMerge || ups.contains(&0.0);
            (was_down && ups.last() == Some(&1.0)).then_some(())
        };
        crate::support::agent::eventually(&format!("up of {reason}"), ups).await;
    }
}
