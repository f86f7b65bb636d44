//! A receiver in the mesh, with all certificates replaced again and again: ours, its own, and the root above both.

use rustls::version::TLS13;
use tokio::task::JoinHandle;

use super::*;
use crate::support::ca::{Ca, CertsDir};

const OURS: &str = "spiffe://cluster.local/ns/monitoring/sa/meshscrape";
const THEIRS: &str = "spiffe://cluster.local/ns/monitoring/sa/mimir";

/// How often everything is replaced.
const BEAT: Duration = Duration::from_millis(200);

/// Who makes the leaves from now on, and whom each side trusts, by their places among the authorities.
#[derive(Clone)]
struct Issue {
    ours: usize,
    theirs: usize,
    we_trust: Vec<usize>,
    they_trust: Vec<usize>,
}

/// Replaces all certificates every so often, as `issue` says; counts how often.
fn rotate(
    authorities: Arc<[Ca; 3]>,
    certs: Arc<CertsDir>,
    receiver: Arc<Receiver>,
    issue: Arc<Mutex<(Issue, usize)>>,
) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut beat = tokio::time::interval(BEAT);
        loop {
            beat.tick().await;
            let mut issue = issue.lock().expect("no panic while it is held");
            let trusted = |which: &[usize]| which.iter().map(|at| &authorities[*at]).collect::<Vec<_>>();
            let theirs = authorities[issue.0.theirs].leaf(THEIRS);
            receiver.shows(theirs.server(&trusted(&issue.0.they_trust), &[&TLS13]));
            certs.write(&authorities[issue.0.ours].leaf(OURS), &trusted(&issue.0.we_trust));
            issue.1 += 1;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_and_roots_that_are_replaced_under_load_cost_nothing() {
    let phase = scale(Duration::from_millis(1500), Duration::from_secs(120));
    let authorities = Arc::new([Ca::new("cluster.local"), Ca::new("cluster.local"), Ca::new("cluster.local")]);
    let dir = TempDir::new().expect("a directory");
    std::fs::create_dir(dir.path().join("certs")).expect("a directory");
    let certs = Arc::new(CertsDir::at(&dir.path().join("certs")));
    let first = authorities[0].leaf(THEIRS).server(&[&authorities[0]], &[&TLS13]);
    // As proxies do, it ends a connection now and then, so that there are handshakes enough.
    let mut count = 0;
    let rule = move |_: &Recorded| {
        count += 1;
        if count % 3 == 0 { Answer::ok().header("connection", "close") } else { Answer::ok() }
    };
    let receiver = Arc::new(Receiver::start_tls(first, Box::new(rule)).await);
    let target = Numbered::start(0);
    let config = format!(
        "scrape_configs:
{}remote_write:
- url: {}
  tls_config: {{certs_dir: {}, spiffe: {{server_ids: ['{THEIRS}']}}}}
  queue_config: {{batch_send_deadline: 20ms, min_backoff: 20ms, max_backoff: 50ms}}
",
        target.job("plain", interval()),
        receiver.url(),
        certs.path().display(),
    );
    let issue = Issue { ours: 0, theirs: 0, we_trust: vec![0], they_trust: vec![0] };
    let issue = Arc::new(Mutex::new((issue, 0)));
    let rotating = rotate(Arc::clone(&authorities), Arc::clone(&certs), Arc::clone(&receiver), Arc::clone(&issue));
    let program = start(dir.path(), &config);
    target.scrapes(3).await;

    let change = |change: fn(&mut Issue)| change(&mut issue.lock().expect("no panic while it is held").0);
    let phases: [fn(&mut Issue); 5] = [
        |_| {},
        |issue| (issue.we_trust, issue.they_trust) = (vec![0, 1], vec![0, 1]),
        |issue| issue.theirs = 1,
        |issue| issue.ours = 1,
        |issue| (issue.we_trust, issue.they_trust) = (vec![1], vec![1]),
    ];
    for phase_begins in phases {
        change(phase_begins);
        tokio::time::sleep(phase).await;
    }
    let delivered =
        |number: usize| move |recorded: &[Recorded]| taken(recorded).iter().any(|one| *one >= number as u64);
    receiver.until("it is delivered under the new root", delivered(target.answers())).await;
    // As somebody does it who forgets us: the receiver moves to a root of which we have not heard.
    change(|issue| issue.theirs = 2);
    let refused = async || program.said().contains("unknown_authority").then_some(());
    eventually("it is refused", refused).await;
    tokio::time::sleep(phase).await;
    change(|issue| issue.we_trust = vec![1, 2]);
    let healed = Instant::now();
    target.scrapes(3).await;
    receiver.until("it is delivered", delivered(target.answers())).await;
    rotating.abort();
    drop(program);

    let recorded = receiver.recorded();
    let losses = Losses::of(&target.finished(0, healed), &recorded);
    let connections = recorded.iter().map(|one| one.connection).max().expect("requests");
    let rotations = issue.lock().expect("no panic while it is held").1;
    println!("{rotations} rotations, {connections} connections: {losses}");
    losses.assert_none("rotation");
    assert!(connections > rotations / 4, "{connections} connections while everything was replaced {rotations} times");
}
