//! What was queued as remote write 2.0 outlives a kill, and a configuration that asks for 1.0 when the agent comes back.

use super::*;
use crate::support::receiver::OF_2;

fn start(stage: &Stage, message: &str) -> Program {
    let arguments = stage.arguments(&stage.data());
    let config =
        stage.config().replace("  basic_auth", &format!("  name: main\n  protobuf_message: {message}\n  basic_auth"));
    std::fs::write(stage.dir.path().join("meshscrape.yaml"), config).expect("a configuration");
    Program::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn is_of_2(one: &Recorded) -> bool {
    one.header("content-type") == Some(OF_2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_of_2_reaches_a_receiver_of_1() {
    let stage = Stage::new().await;
    let first = start(&stage, "io.prometheus.write.v2.Request");
    stage.scrapes(12).await;
    let killed = Instant::now();
    first.signal("KILL");
    first.end().await;
    let finished = stage.finished(0, killed);
    assert!(finished.len() >= 2, "{finished:?}");
    let asked = stage.receiver.recorded();
    assert!(!asked.is_empty() && asked.iter().all(is_of_2), "until then 2.0 was offered");

    let second = start(&stage, "prometheus.WriteRequest");
    stage.receiver_is(true);
    stage.scrapes(3).await;
    stage.takes(stage.answers()).await;
    assert_all_in_order(&stage.receiver.recorded(), &finished);
    assert!(!stage.receiver.recorded()[asked.len()..].iter().any(is_of_2), "and now nothing but 1.0");
    second.signal("TERM");
    assert_eq!(second.end().await.status.code(), Some(0));
}
