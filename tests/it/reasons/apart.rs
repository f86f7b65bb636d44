//! Reasons that need a scene of their own: a limit of the whole agent, and what verified a connection ending under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use meshscrape::model::Reason;
use tempfile::TempDir;
use tokio::sync::Notify;

use super::faces::Agent;
use super::job::Job;
use crate::support::ca::{Ca, CertsDir};
use crate::support::envoy::{Envoy, ListenerSpec};
use crate::support::mesh::{CART, SCRAPER};
use crate::support::tls_server::{Reply, Server, Talk, Then, always};

#[tokio::test(flavor = "multi_thread")]
async fn a_scrape_that_takes_too_much_memory_is_mended_by_more_of_it() {
    let held: String = (0..60_000).map(|number| format!("held{{number=\"{number}\"}} 1\n")).collect();
    let server = Server::start(Talk::Plain(always(Reply::ok(&held))));
    let job = Job::plain(server.address()).with("scrape_interval", "10s").with("scrape_timeout", "10s");
    let text = |limit: &str| {
        format!("global: {{scrape_memory_limit: {limit}}}\nscrape_configs:\n{}", job.write(Reason::MemoryBudget))
    };
    let dir = TempDir::new().expect("a directory");
    let agent = Agent::start(dir.path(), &text("8MiB")).await;
    let target = agent.shows(Reason::MemoryBudget).await;
    let hint = target["hint"].as_str().expect("a text");
    assert!(hint.starts_with("raise global.scrape_memory_limit"), "{hint}");
    agent.says_alike(Reason::MemoryBudget, &target).await;
    agent.reload(&text("256MiB"));
    agent.is_well(Reason::MemoryBudget).await;
}

/// An application that gives the end of its answer when it is told to, and from some time on at once.
struct Halting {
    server: Server,
    end: Arc<Notify>,
    flows: Arc<AtomicBool>,
}

impl Halting {
    fn start() -> Self {
        let (end, flows) = (Arc::<Notify>::default(), Arc::<AtomicBool>::default());
        let (signal, at_once) = (Arc::clone(&end), Arc::clone(&flows));
        let script = move |_: &_| match at_once.load(Ordering::SeqCst) {
            true => Reply::ok("beans 1\n"),
            false => {
                Reply::raw("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 8\r\n\r\nbean", Then::Keep)
                    .later(Arc::clone(&signal), "s 1\n")
            }
        };
        Self { server: Server::start(Talk::Plain(Arc::new(script))), end, flows }
    }
}

/// A mesh that changes its root, as a whole, while somebody reads an answer.
struct Changing {
    agent: Agent,
    envoy: Envoy,
    certs: CertsDir,
}

impl Changing {
    /// Waits until the answer is under way, has the mesh go over to this root, and lets the answer end.
    async fn to(&mut self, root: &Ca, halting: &Halting) {
        halting.server.hanging().await;
        for name in ["scraped", "asked"] {
            self.envoy.rotate_leaf(name, &root.leaf(CART)).await;
        }
        self.agent.sees_other_certificates(|| self.certs.write_roots(&[root])).await;
        halting.end.notify_one();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_verified_a_connection_may_end_under_way_and_the_next_one_is_made_by_itself() {
    const REASON: Reason = Reason::VerificationEnded;
    let (old, new, dir) = (Ca::new("cluster.local"), Ca::new("cluster.local"), TempDir::new().expect("a directory"));
    let certs = CertsDir::at(dir.path());
    certs.write(&old.leaf(SCRAPER), &[&old]);
    let (scraped, asked) = (Halting::start(), Halting::start());
    let pod = |name: &str, of: &Halting| ListenerSpec::merged(name, &old.leaf(CART), &[&old, &new], of.server.socket());
    let envoy = Envoy::start(&[pod("scraped", &scraped), pod("asked", &asked)]).await;
    // Nobody but the command asks the second one, in any time that a test takes.
    let job = Job::of_mesh(certs.path(), envoy.address("scraped"))
        .with("scrape_interval", "10s")
        .with("scrape_timeout", "10s")
        .and(envoy.address("asked"))
        .labelled("instance", "asked")
        .labelled("__scrape_interval__", "300d")
        .labelled("__scrape_timeout__", "50s");
    let agent = Agent::start(dir.path(), &format!("scrape_configs:\n{}", job.write(REASON))).await;
    let mut changing = Changing { agent, envoy, certs };

    changing.to(&new, &scraped).await;
    let target = changing.agent.shows(REASON).await;
    let hint = target["hint"].as_str().expect("a text");
    assert!(hint.contains("nothing to do"), "{hint}");
    changing.agent.says(REASON, hint).await;
    scraped.flows.store(true, Ordering::SeqCst);
    // The next one is under way by now, or will not be held up.
    scraped.end.notify_one();
    changing.agent.scraped_again(REASON).await;

    let targets = changing.agent.targets(REASON).await;
    let other = targets.iter().find(|target| target["labels"]["instance"] == "asked").expect("it is listed");
    let command = changing.agent.asks(REASON, other);
    changing.to(&old, &asked).await;
    assert_eq!(command.end().await.says(REASON, hint), i32::from(REASON.class().code()));
}
