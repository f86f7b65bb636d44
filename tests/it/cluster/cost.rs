//! What an agent costs: memory of its own, and requests and bytes of the API server.
//!
//! An ordinary run asserts what must not creep up: how often is asked, how much is sent, for whom. `make soak` does the
//! same with a node of 110 pods in a cluster of 10,000 and prints what docs/sizing.md says of memory and time, which
//! depend on the machine and are asserted nowhere.

mod pods;
mod town;

use std::net::SocketAddr;
use std::time::Duration;

use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use self::town::{NODE, Size, Town};
use crate::support::http;
use crate::support::kubernetes::{Asked, READ, Watch, get};
use crate::support::program::Program;
use crate::support::usage::Usage;
use crate::support::{loopback, scale};

/// How long an agent may take to know and ask everybody. Generous: only a failure waits this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// How long whom the API server tells to come later waits.
const PAUSE: Duration = Duration::from_millis(800);

/// Whose pods are followed.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    Node,
    Cluster,
}

/// The program, started as in a pod of its own account.
struct Agent<'t> {
    town: &'t Town,
    program: Program,
    listen: SocketAddr,
    user: String,
    began: Instant,
    _dir: TempDir,
}

impl<'t> Agent<'t> {
    /// The two jobs of the configuration that is shipped, and `more`, in which ACCESS stands for how to ask the API server.
    async fn start(town: &'t Town, account: &str, scope: Scope, more: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let account = town.home.account(account).await;
        let rules = serde_json::json!([{"apiGroups": [""], "resources": ["pods"], "verbs": READ}]);
        town.cluster.allow(&account, rules).await;
        let token = dir.path().join("token");
        std::fs::write(&token, town.home.token(&account).await).expect("a token");
        let access = format!(
            "api_server: {}, authorization: {{ credentials_file: {} }}, tls_config: {{ ca_file: {} }}",
            town.cluster.url(),
            token.display(),
            town.cluster.ca_file().display(),
        );
        let scope = match scope {
            Scope::Node => "node",
            Scope::Cluster => "cluster",
        };
        let job = |port: &str| {
            format!(
                "  - job_name: {port}
    pod_cidrs: [127.96.0.0/12]
    tls_config: {{ certs_dir: {} }}
    istio_sd_configs: [{{ port: {port}, scope: {scope}, {access} }}]
",
                town.certs.path().display(),
            )
        };
        let text = format!(
            "global: {{ scrape_interval: {}, scrape_timeout: {} }}
scrape_configs:
{}{}{}
remote_write: [{{ url: 'http://{}/api/v1/write' }}]
",
            scale("2s", "15s"),
            scale("2s", "10s"),
            job("merged"),
            job("envoy"),
            more.replace("ACCESS", &access),
            town.receiver,
        );
        let file = dir.path().join("meshscrape.yaml");
        std::fs::write(&file, text).expect("a configuration");
        let listen = SocketAddr::from((loopback(), 9464));
        let (listen_text, file) = (listen.to_string(), file.display().to_string());
        let arguments = ["run", "--config", &file, "--listen", &listen_text, "--api-listen", "127.0.0.1:0"];
        let program = Program::start(&arguments);
        Self { town, program, listen, user: account.user(), began: Instant::now(), _dir: dir }
    }

    /// The sum of the own metrics whose line begins like this.
    async fn metric(&self, beginning: &str) -> usize {
        let Ok(answer) = http::get(self.listen, "/metrics").await else { return 0 };
        let lines = answer.text().lines().filter(|line| line.starts_with(beginning));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok()).sum()
    }

    async fn until(&self, beginning: &str, enough: usize) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let now = self.metric(beginning).await;
            if now >= enough {
                return;
            }
            assert!(Instant::now() < deadline, "{beginning} is {now} and never became {enough}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until so many pods are targets and each has been asked `times`; those of the node have answered.
    async fn settled(&self, targets: usize, times: usize) {
        let own = self.town.size;
        self.until("prometheus_target_scrape_pool_targets{scrape_job=\"merged\"}", targets).await;
        self.until("meshscrape_scrapes_total", targets * times).await;
        self.until("meshscrape_samples_scraped_total", own.on_node * own.series * times).await;
    }

    async fn received(&self) -> usize {
        self.metric("meshscrape_kubernetes_received_bytes_total").await
    }

    async fn updates(&self) -> usize {
        self.metric("prometheus_sd_kubernetes_events_total{role=\"pod\",event=\"update\"}").await
    }

    /// What it has asked the API server so far, as the API server has it.
    fn asked(&self) -> Vec<Asked> {
        self.town.cluster.asked().into_iter().filter(|asked| asked.user == self.user).collect()
    }

    /// One request, a watch that began with everything, and as many bytes as that weighs.
    async fn check_requests(&self, scope: Scope, weight: usize) {
        let asked = self.asked();
        let [watch] = &asked[..] else { panic!("more than one request: {asked:#?}") };
        assert_eq!((watch.verb.as_str(), watch.status), ("watch", Some(200)));
        assert!(watch.uri.starts_with("/api/v1/pods?watch=true&"), "{}", watch.uri);
        assert!(watch.uri.contains("sendInitialEvents=true"), "{}", watch.uri);
        let narrowed = watch.uri.contains(&format!("fieldSelector=spec.nodeName%3D{NODE}"));
        assert_eq!(narrowed, scope == Scope::Node, "{}", watch.uri);
        let (_, lasts) = watch.uri.split_once("timeoutSeconds=").expect("a length");
        let lasts: u32 = lasts.split('&').next().unwrap_or_default().parse().expect("seconds");
        assert!((300..600).contains(&lasts), "{lasts}");
        assert_eq!(self.metric("meshscrape_kubernetes_requests_total").await, 1);

        let received = self.received().await;
        assert!((weight / 10 * 9..weight / 10 * 11).contains(&received), "{received} bytes for {weight}");
        println!("{}: 1 request, {received} bytes for pods of {weight}", self.user);
    }

    fn print(&self, what: &str) {
        let Usage { resident, peak, cpu } = self.program.usage();
        let (resident, peak) = (mib(resident), mib(peak));
        println!(
            "{what}, {:?} after the start: {resident:.1} MiB, at most {peak:.1} MiB, {cpu:?} of CPU",
            self.began.elapsed()
        );
    }

    /// Watches it for a while in which nothing changes in the cluster.
    async fn print_quiet(&self, length: Duration) {
        let (bytes, before, began) = (self.received().await, self.program.usage(), Instant::now());
        sleep(length).await;
        let (bytes, after) = (self.received().await - bytes, self.program.usage());
        let cpu = (after.cpu - before.cpu).as_secs_f64() / began.elapsed().as_secs_f64();
        println!("quiet for {length:?}: {bytes} bytes of bookmarks, {:.1} m of CPU", 1000.0 * cpu);
    }
}

fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_asks_once_and_is_sent_what_its_pods_weigh() {
    let size = Size { on_node: scale(20, 110), pods: scale(120, 10_000), series: scale(20, 1000) };
    let mut town = Town::new(size).await;
    let (of_node, of_all) = (town.weight(Some(NODE)).await, town.weight(None).await);
    println!("{} pods of a node weigh {of_node} bytes, {} in all {of_all}", size.on_node, size.pods);

    follow_a_node(&town, of_node).await;
    share_a_watch(&town, of_node).await;
    follow_the_cluster(&town, of_all).await;
    start_many(&mut town, scale(10, 500)).await;
}

/// An agent of a node, as the DaemonSet has it: it hears of its own pods alone.
async fn follow_a_node(town: &Town, weight: usize) {
    let agent = Agent::start(town, "of-a-node", Scope::Node, "").await;
    agent.settled(town.size.on_node, 1).await;
    agent.check_requests(Scope::Node, weight).await;
    agent.settled(town.size.on_node, scale(1, 3)).await;
    agent.print("scope node");

    // The pod of another node is changed first, so it would be heard of first.
    let (bytes, updates) = (agent.received().await, agent.updates().await);
    town.touch(town.size.on_node, "elsewhere").await;
    let pod = town.touch(0, "here").await;
    agent.until("prometheus_sd_kubernetes_events_total{role=\"pod\",event=\"update\"}", updates + 1).await;
    let (event, updates) = (agent.received().await - bytes, agent.updates().await - updates);
    println!("a pod of {pod} bytes changes: {event} bytes");
    assert_eq!(updates, 1);
    assert!((pod..pod + pod / 10).contains(&event), "{event} bytes for a pod of {pod}");

    agent.print_quiet(scale(Duration::ZERO, Duration::from_secs(130))).await;
    agent.print("scope node");
    assert_eq!(agent.asked().len(), 1, "{:#?}", agent.asked());
}

/// Jobs that ask the same share what is sent.
async fn share_a_watch(town: &Town, weight: usize) {
    let third = "  - job_name: third
    kubernetes_sd_configs: [{ role: pod, selectors: [{ role: pod, field: spec.nodeName=node-1 }], ACCESS }]
    relabel_configs: [{ source_labels: [__meta_kubernetes_pod_ip], regex: nobody, action: keep }]
";
    let agent = Agent::start(town, "with-three-jobs", Scope::Node, third).await;
    agent.settled(town.size.on_node, 1).await;
    agent.until("prometheus_sd_discovered_targets{name=\"scrape\",config=\"third\"}", town.size.on_node).await;
    agent.check_requests(Scope::Node, weight).await;
}

/// An agent of the whole cluster.
async fn follow_the_cluster(town: &Town, weight: usize) {
    let agent = Agent::start(town, "of-the-cluster", Scope::Cluster, "").await;
    agent.settled(town.size.on_node, 1).await;
    agent.check_requests(Scope::Cluster, weight).await;
    agent.settled(town.size.on_node, scale(1, 3)).await;
    agent.print("scope cluster, the pods of one node are targets");

    let (count, before, updates) = (scale(10, 200), agent.program.usage(), agent.updates().await);
    let (began, bytes) = (Instant::now(), agent.received().await);
    for change in 0..count {
        town.touch(change % town.size.pods, &format!("change-{change}")).await;
    }
    agent.until("prometheus_sd_kubernetes_events_total{role=\"pod\",event=\"update\"}", updates + count).await;
    let (took, cpu) = (began.elapsed(), agent.program.usage().cpu - before.cpu);
    println!("{count} changes in {took:?}: {} bytes, {cpu:?} of CPU", agent.received().await - bytes);
    agent.print("scope cluster, the pods of one node are targets");
    drop(agent);

    town.annotate_all().await;
    let weight = town.weight(None).await;
    let agent = Agent::start(town, "of-all-pods", Scope::Cluster, "").await;
    agent.settled(town.size.pods, 1).await;
    agent.check_requests(Scope::Cluster, weight).await;
    agent.settled(town.size.pods, scale(1, 3)).await;
    agent.print("scope cluster, all pods are targets");
}

/// So many agents of a node start at the same moment: what their first question costs the API server, and what the other way
/// to ask it would. They are all of one account, as those of a DaemonSet are, and the server may tell them to come later.
async fn start_many(town: &mut Town, count: usize) {
    let account = town.home.account("of-many-nodes").await;
    let rules = serde_json::json!([{"apiGroups": [""], "resources": ["pods"], "verbs": READ}]);
    town.cluster.allow(&account, rules).await;
    let token = town.home.token(&account).await;
    let nodes = town.size.pods.div_ceil(town.size.on_node);
    let own = |agent: usize| format!("timeoutSeconds=600&fieldSelector=spec.nodeName%3Dnode-{}", 1 + agent % nodes);

    let before = Moment::now(town).await;
    let mut asking = JoinSet::new();
    for agent in 0..count {
        let client = town.cluster.client(&town.cluster.url(), &token);
        let path = format!(
            "/api/v1/pods?watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&{}",
            own(agent)
        );
        asking.spawn(async move {
            let mut refused = 0;
            let mut watch = loop {
                match Watch::open(&client, &path).await {
                    Ok(watch) => break watch,
                    Err(429) => refused += 1,
                    Err(status) => panic!("{path} is answered with {status}"),
                }
                sleep(PAUSE).await;
            };
            while watch.next().await.expect("an event")["type"] != "BOOKMARK" {}
            (watch, refused)
        });
    }
    let (watches, refused): (Vec<Watch>, Vec<u32>) = asking.join_all().await.into_iter().unzip();
    before.print(town, &format!("{count} streaming lists, {} refused", refused.iter().sum::<u32>())).await;
    drop(watches);

    let before = Moment::now(town).await;
    let mut asking = JoinSet::new();
    for agent in 0..count {
        let client = town.cluster.client(&town.cluster.url(), &token);
        let path = format!("/api/v1/pods?resourceVersion=0&{}", own(agent));
        asking.spawn(async move {
            let mut refused = 0;
            loop {
                match get(&client, &path).await {
                    Ok(_) => return refused,
                    Err(kube::Error::Api(status)) if status.code == 429 => refused += 1,
                    Err(error) => panic!("{path}: {error}"),
                }
                sleep(PAUSE).await;
            }
        });
    }
    let refused: u32 = asking.join_all().await.into_iter().sum();
    before.print(town, &format!("{count} lists from the server's cache, {refused} refused")).await;
}

/// What the API server had used at a moment.
struct Moment {
    at: Instant,
    usage: Usage,
}

impl Moment {
    async fn now(town: &mut Town) -> Self {
        Self { at: Instant::now(), usage: town.cluster.server_usage().await }
    }

    /// Says what it has used since.
    async fn print(self, town: &mut Town, what: &str) {
        let (took, before, after) = (self.at.elapsed(), self.usage, town.cluster.server_usage().await);
        println!(
            "{what}: {took:?}, {:?} of the API server's CPU, whose memory goes from {:.0} to {:.0} MiB",
            after.cpu - before.cpu,
            mib(before.resident),
            mib(after.resident),
        );
    }
}
