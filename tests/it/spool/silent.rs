//! A receiver from which nothing comes any more, not even a reset.

use super::*;
use crate::support::namespaces::TwoNetworks;

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_cable_costs_nothing() {
    let length = trouble();
    let networks = TwoNetworks::new();
    let target = Numbered::on(networks.listen_near(), 0);
    let receiver = Receiver::on(networks.listen_far(), Box::new(|_| Answer::ok()));
    let dir = TempDir::new().expect("a directory");
    let config = format!(
        "scrape_configs:
{}remote_write:
- url: {}
  remote_timeout: 1s
  queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}
",
        target.job("plain", interval()),
        receiver.url(),
    );
    let mut command = networks.near();
    command.arg(env!("CARGO_BIN_EXE_meshscrape")).args(arguments(dir.path(), &dir.path().join("data"), &config));
    let program = Program::spawn(command);
    let delivered =
        |number: usize| move |recorded: &[Recorded]| taken(recorded).iter().any(|one| *one >= number as u64);
    target.scrapes(3).await;
    receiver.until("it is delivered", delivered(target.answers())).await;

    networks.cable(false);
    target.scrapes(1).await;
    let before = receiver.recorded().len();
    tokio::time::sleep(length).await;
    assert_eq!(receiver.recorded().len(), before, "nothing comes through");
    networks.cable(true);
    let moment = Instant::now();
    target.scrapes(2).await;
    receiver.until("it is delivered", delivered(target.answers())).await;
    drop(program);
    let losses = Losses::of(&target.finished(0, moment), &receiver.recorded());
    println!("{length:?} with the cable pulled: {losses}");
    losses.assert_none("a pulled cable");
}
