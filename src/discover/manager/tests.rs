//! What the manager makes of what sources say.

use prometheus_client::registry::Registry;

use super::*;
use crate::config::StaticConfig;
use crate::discover::{Discovery, Group, spawn};
use crate::label::tests::{ordinary_job, spiffe_job};
use crate::model::{Candidate, Pod, Reason, Target, Verification};

fn job_with(mut job: ScrapeConfig, targets: &[&str], labels: &[(&str, &str)]) -> Arc<ScrapeConfig> {
    let targets = targets.iter().map(|&target| target.to_owned()).collect();
    job.static_configs = vec![StaticConfig { targets, labels: labels.iter().copied().collect() }];
    Arc::new(job)
}

fn start(jobs: Vec<Wanted>) -> (Discovery, CancellationToken, Registry) {
    let mut registry = Registry::default();
    let cancel = CancellationToken::new();
    let discovery = spawn(jobs, cancel.clone(), Clock::system(), Metrics::new(&mut registry));
    (discovery, cancel, registry)
}

fn nobody() -> watch::Receiver<Certificates> {
    watch::channel(Certificates::read(None)).1
}

fn of(trust_domain: &str) -> Certificates {
    Certificates::read(Some(TrustDomain::parse(trust_domain).expect("valid")))
}

#[tokio::test(start_paused = true)]
async fn the_first_set_goes_out_at_once() {
    let began = Instant::now();
    let job = job_with(ordinary_job(), &["a:1", "b:1", "not/an/address"], &[]);
    let (discovery, _cancel, registry) = start(vec![(job, nobody())]);
    let mut targets = discovery.targets();
    targets.changed().await.expect("the first set");
    assert_eq!(began.elapsed(), Duration::ZERO);
    let set = targets.borrow_and_update().clone();
    let addresses: Vec<String> = set.active().map(|target| target.address.to_string()).collect();
    assert_eq!(addresses, ["a:1", "b:1"]);
    assert_eq!(set.jobs[0].1.dropped_count, 1);

    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoding");
    for line in [
        "prometheus_sd_discovered_targets{name=\"scrape\",config=\"j\"} 3",
        "prometheus_sd_updates_total{name=\"scrape\"} 1",
        "prometheus_target_sync_failed_total{scrape_job=\"j\"} 1",
        "meshscrape_targets_malformed{job=\"j\"} 1",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn targets_that_wait_for_the_trust_domain_become_real() {
    let labels = [("__meta_kubernetes_namespace", "shop"), ("__meta_kubernetes_pod_service_account_name", "cart")];
    let (known, certificates) = watch::channel(Certificates::read(None));
    let (discovery, _cancel, _) = start(vec![(job_with(spiffe_job(), &["10.0.0.1:15092"], &labels), certificates)]);
    let mut targets = discovery.targets();
    let mut verification = async || {
        targets.changed().await.expect("a set");
        targets.borrow_and_update().active().next().expect("a target").verification.clone()
    };
    assert!(
        matches!(verification().await, Verification::Refused(failure) if failure.reason == Reason::IdentityUnknown)
    );
    known.send_replace(of("td"));
    let Verification::Spiffe(peer) = verification().await else { panic!("still refused") };
    assert_eq!(peer.expected().as_str(), "spiffe://td/ns/shop/sa/cart");
}

#[tokio::test(start_paused = true)]
async fn a_set_that_says_the_same_is_not_handed_on() {
    let (known, certificates) = watch::channel(Certificates::read(None));
    let job = job_with(spiffe_job(), &["h:1"], &[("__spiffe_id__", "spiffe://td/a")]);
    let (discovery, cancel, _) = start(vec![(job, certificates)]);
    let mut targets = discovery.targets();
    targets.changed().await.expect("the first set");
    targets.mark_unchanged();
    known.send_replace(of("other"));
    tokio::time::sleep(GATHER * 10).await;
    assert!(!targets.has_changed().expect("still running"));
    // The end is seen by those who wait.
    cancel.cancel();
    targets.changed().await.expect_err("nothing more comes");
}

#[tokio::test(start_paused = true)]
async fn bursts_are_gathered() {
    let (known, certificates) = watch::channel(Certificates::read(None));
    let labels = [("__meta_kubernetes_namespace", "shop"), ("__meta_kubernetes_pod_service_account_name", "cart")];
    let (discovery, _cancel, _) = start(vec![(job_with(spiffe_job(), &["10.0.0.1:1"], &labels), certificates)]);
    let mut targets = discovery.targets();
    targets.changed().await.expect("the first set");
    targets.mark_unchanged();
    let mut seen = 0;
    for number in 0..10 {
        known.send_replace(of(&format!("td{number}")));
        tokio::time::sleep(GATHER / 20).await;
        seen += usize::from(targets.has_changed().expect("running"));
        targets.mark_unchanged();
    }
    targets.changed().await.expect("one set for all of them");
    let set = targets.borrow_and_update().clone();
    let Verification::Spiffe(peer) = &set.active().next().expect("a target").verification else { panic!("refused") };
    assert_eq!((seen, peer.expected().trust_domain().as_str()), (0, "td9"));
}

#[test]
fn jobs_that_verify_share_a_source_with_jobs_that_do_not_unless_it_may_lack_https() {
    let shares = |access: &str| {
        let text = format!(
            "scrape_configs:
- {{job_name: a, kubernetes_sd_configs: [{{role: pod{access}}}]}}
- {{job_name: b, tls_config: {{certs_dir: /certs, spiffe: {{}}}}, kubernetes_sd_configs: [{{role: pod{access}}}]}}"
        );
        let config = crate::config::parse("shared.yaml".as_ref(), &text, &|_| None).config.expect("a configuration");
        let [one, other] = &config.scrape_configs[..] else { panic!("two jobs") };
        sources_of(one).eq(sources_of(other))
    };
    assert!(shares(""));
    assert!(shares(", api_server: 'https://10.0.0.1'"));
    assert!(!shares(", kubeconfig_file: /kubeconfig"));
}

/// What the API server would say of a pod at 10.0.0.`host`.
fn pod(name: &str, host: u8, created: i64) -> Group {
    let ip = std::net::IpAddr::from([10, 0, 0, host]);
    let labels = [("__address__", &*format!("{ip}:15092")), ("__spiffe_id__", "spiffe://td/a"), ("pod", name)];
    let pod = Pod {
        name: format!("shop/{name}").into(),
        uid: name.into(),
        ip: Some(ip),
        created,
        host_network: false,
        finished: false,
        terminating: false,
    };
    let labels = labels.into_iter().collect();
    Arc::new(vec![Candidate { labels, source: "test".into(), pod: Some(Arc::new(pod)) }])
}

#[tokio::test(start_paused = true)]
async fn a_set_is_settled_with_pods_that_no_rule_kept_and_its_errors_are_counted() {
    let text = "scrape_configs: [{job_name: j, tls_config: {certs_dir: /certs, spiffe: {}}, file_sd_configs: \
                [{files: [none.yaml]}], relabel_configs: [{source_labels: [pod], regex: new, action: drop}]}]";
    let config = crate::config::parse("pods.yaml".as_ref(), text, &|_| None).config.expect("a configuration");
    let job = Arc::clone(&config.scrape_configs[0]);
    let (targets, seen) = watch::channel(Arc::default());
    let mut registry = Registry::default();
    let metrics = Metrics::new(&mut registry);
    let cancel = CancellationToken::new();
    let (mut manager, _updates) =
        Manager::new(&cancel, Clock::system(), metrics, targets, watch::channel(Arc::default()).0);
    manager.adopt(vec![(job, nobody())], 0);
    let source = manager.sources[0].number;
    let mut say = |groups: &[Group]| {
        let answer = Answer { groups: groups.to_vec(), complete: true, ..Answer::default() };
        manager.take(Update::Answer { source, answer });
        manager.publish();
        let (_, job) = seen.borrow().jobs[0].clone();
        let name = |target: &Arc<Target>| target.labels.value("pod").to_owned();
        (job.active.iter().map(name).collect::<Vec<_>>(), job.dropped_count)
    };
    let (old, new) = (pod("old", 7, 1), pod("new", 7, 2));
    assert_eq!(say(&[Arc::clone(&old)]), (vec!["old".to_owned()], 0));
    // Nobody wants to scrape the new one, and the address is its own all the same.
    assert_eq!(say(&[Arc::clone(&old), new]), (vec![], 2));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("encoding");
    assert!(text.contains("prometheus_target_sync_failed_total{scrape_job=\"j\"} 1"), "{text}");
    assert_eq!(say(&[old]), (vec!["old".to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn the_first_set_waits_until_certificates_have_been_read_and_not_for_ever() {
    let unread = || watch::channel(Certificates { read: false, trust_domain: None });
    let job = || job_with(spiffe_job(), &["h:1"], &[("__spiffe_id__", "spiffe://td/a")]);
    // (what is known of them after a while, how long the set takes)
    let moment = FIRST_ANSWERS / 10;
    for (becomes, expected) in
        [(Some(of("td")), moment), (Some(Certificates::read(None)), moment), (None, FIRST_ANSWERS)]
    {
        let began = Instant::now();
        let (known, certificates) = unread();
        let (discovery, _cancel, _) = start(vec![(job(), certificates)]);
        tokio::time::sleep(moment).await;
        if let Some(becomes) = becomes {
            known.send_replace(becomes);
        }
        let mut targets = discovery.targets();
        targets.wait_for(|set| set.active().count() == 1).await.expect("a set");
        assert_eq!(began.elapsed(), expected);
        // Another configuration does not wait for them again.
        let other = job_with(ordinary_job(), &["a:1"], &[]);
        discovery.adopt(vec![(job(), unread().1), (other, nobody())], 1).await;
        targets.wait_for(|set| set.revision == 1).await.expect("a set");
        assert_eq!(began.elapsed(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_right_after_the_start_still_waits_for_certificates() {
    let began = Instant::now();
    let (known, certificates) = watch::channel(Certificates { read: false, trust_domain: None });
    let job = || job_with(spiffe_job(), &["h:1"], &[("__spiffe_id__", "spiffe://td/a")]);
    let (discovery, _cancel, _) = start(vec![(job(), certificates)]);
    tokio::time::sleep(FIRST_ANSWERS / 5).await;
    discovery.adopt(vec![(job(), nobody())], 1).await;
    tokio::time::sleep(FIRST_ANSWERS / 5).await;
    known.send_replace(Certificates::read(None));
    discovery.targets().wait_for(|set| set.revision == 1).await.expect("a set");
    assert_eq!(began.elapsed(), FIRST_ANSWERS / 5 * 2);
}

/// A job with targets of its own, and of a list that nobody gives.
fn waiting_job(name: &str, list: &str) -> Arc<ScrapeConfig> {
    let text = format!(
        "scrape_configs: [{{job_name: {name}, http_sd_configs: [{{url: '{list}'}}], static_configs: [{{targets: ['a:1']}}]}}]"
    );
    let config = crate::config::parse("waiting.yaml".as_ref(), &text, &|_| None).config.expect("a configuration");
    Arc::clone(&config.scrape_configs[0])
}

/// A URL where nobody answers, as long as the listener is there.
async fn silent() -> (tokio::net::TcpListener, String) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("it is bound"));
    (listener, url)
}

#[tokio::test(start_paused = true)]
async fn only_a_new_source_is_waited_for_and_each_once() {
    let [(_one, one), (_other, other)] = [silent().await, silent().await];
    let (discovery, _cancel, _) = start(vec![(waiting_job("j", &one), nobody())]);
    let mut targets = discovery.targets();
    let mut took = async |revision: u64| {
        let began = Instant::now();
        targets.wait_for(|set| set.revision == revision && set.active().count() > 0).await.expect("a set");
        began.elapsed()
    };
    assert_eq!(took(0).await, FIRST_ANSWERS);
    // The list is as silent as before.
    discovery.adopt(vec![(waiting_job("k", &one), nobody())], 1).await;
    assert!(took(1).await < FIRST_ANSWERS / 10);
    discovery.adopt(vec![(waiting_job("k", &one), nobody()), (waiting_job("l", &other), nobody())], 2).await;
    assert_eq!(took(2).await, FIRST_ANSWERS);
    discovery.adopt(vec![(waiting_job("l", &other), nobody())], 3).await;
    assert!(took(3).await < FIRST_ANSWERS / 10);
}

#[tokio::test(start_paused = true)]
async fn a_reload_right_after_the_start_still_waits_for_what_has_just_begun() {
    let (_listener, url) = silent().await;
    let began = Instant::now();
    let (discovery, _cancel, _) = start(vec![(waiting_job("j", &url), nobody())]);
    tokio::time::sleep(FIRST_ANSWERS / 5).await;
    discovery.adopt(vec![(waiting_job("k", &url), nobody())], 1).await;
    let mut targets = discovery.targets();
    targets.wait_for(|set| set.revision == 1).await.expect("a set");
    assert_eq!(began.elapsed(), FIRST_ANSWERS);
}

#[tokio::test(start_paused = true)]
async fn a_new_source_that_is_silent_is_shown_and_does_not_undo_the_first_pass() {
    let (_listener, url) = silent().await;
    let (discovery, _cancel, _) = start(vec![(job_with(ordinary_job(), &["a:1"], &[]), nobody())]);
    discovery.first_pass().await;
    assert_eq!(discovery.snapshot().problems, []);
    discovery.adopt(vec![(waiting_job("j", &format!("{url}?token=canary")), nobody())], 1).await;
    let mut targets = discovery.targets();
    targets.wait_for(|set| set.revision == 1).await.expect("a set");
    tokio::task::yield_now().await;
    let snapshot = discovery.snapshot();
    assert!(snapshot.first_pass_done);
    let [problem] = &snapshot.problems[..] else { panic!("{snapshot:?}") };
    assert_eq!(problem.source, url);
    assert!(problem.message.contains("has not answered yet"), "{problem}");

    // Where it never was complete, that is what is said.
    let (discovery, _cancel, _) = start(vec![(waiting_job("j", &url), nobody())]);
    discovery.targets().changed().await.expect("a set");
    tokio::task::yield_now().await;
    let snapshot = discovery.snapshot();
    assert_eq!((snapshot.first_pass_done, snapshot.problems.len()), (false, 1));
}
