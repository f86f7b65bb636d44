//! A scrape of a pod by the agent that scrapes it anyway: from a workstation there is no other way into the mesh.
//!
//! The agent decides who must answer, by the job of the target; we name the target and nothing more. If the pod is no
//! target of the agent, the agent knows why, or the pod does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use url::Url;

use super::collect::{Collector, Dropped};
use super::pod::{self, WantedPort, port_of};
use super::report::Report;
use super::{ScrapeArgs, Scraped, Stop};
use crate::cli::agent_api::{ActiveTarget, AgentApi, ApiError, DEFAULT_PORT, DroppedTarget, Targets};
use crate::cli::cluster::{Cluster, ClusterError};
use crate::model::{clean, clean_to};

/// The labels of agents, as the manifests set them.
const AGENTS: &str = "app.kubernetes.io/name=meshscrape";
/// How long an agent may take to list its targets.
const LIST_PATIENCE: Duration = Duration::from_secs(15);
/// How long it may take over a live scrape: the longest that an agent makes, and the way.
const SCRAPE_PATIENCE: Duration = Duration::from_secs(75);

const NAMESPACE: &str = "__meta_kubernetes_namespace";
const POD_NAME: &str = "__meta_kubernetes_pod_name";
/// What discovery makes of an annotation's name follows this.
const ANNOTATION_PREFIX: &str = "__meta_kubernetes_pod_annotation_";

/// The agent that scrapes a pod, and which of its targets the pod is.
pub(super) struct Found {
    agent: AgentApi,
    target: ActiveTarget,
}

/// Finds who scrapes the pod: the agent that was named, or one of its cluster.
pub(super) async fn find(args: &ScrapeArgs, name: &str) -> Result<Found, Stop> {
    let name = pod::checked(name)?;
    let wanted = args.pod.port.unwrap_or(WantedPort::Merged);
    let cluster = Cluster::of(args.pod.kubeconfig.as_deref(), args.pod.context.as_deref()).await;
    match &args.pod.agent {
        Some(url) => named(args, AgentApi::at(url).map_err(Stop::Usage)?, cluster.ok().as_ref(), name, wanted).await,
        None => forwarded(args, &cluster?, name, wanted).await,
    }
}

/// Through the agent that was named. The cluster, if it can be asked, only explains what the agent does not know.
async fn named(
    args: &ScrapeArgs,
    agent: AgentApi,
    cluster: Option<&Cluster>,
    name: &str,
    wanted: WantedPort,
) -> Result<Found, Stop> {
    let namespace = args.pod.namespace.as_deref().or(cluster.map(Cluster::default_namespace));
    let namespace = namespace.ok_or_else(|| Stop::Usage("the pod's namespace is not known: give -n".to_owned()))?;
    let namespace = pod::checked(namespace)?;
    let targets = agent.targets(LIST_PATIENCE).await?;
    match (search(&targets, namespace, name, wanted), cluster) {
        (Ok(target), _) => Ok(Found { target: target.clone(), agent }),
        (Err(why), None) => Err(no_target(None, wanted, why)),
        (Err(why), Some(cluster)) => match cluster.pod(namespace, name).await {
            Err(ClusterError::NotFound(why)) => Err(Stop::NoTarget { why, hint: None }),
            seen => Err(no_target(seen.ok().as_ref(), wanted, why)),
        },
    }
}

/// Finds the pod's agent in the cluster and forwards its port.
async fn forwarded(args: &ScrapeArgs, cluster: &Cluster, name: &str, wanted: WantedPort) -> Result<Found, Stop> {
    let namespace = pod::checked(args.pod.namespace.as_deref().unwrap_or(cluster.default_namespace()))?;
    let seen = cluster.pod(namespace, name).await?;
    let Some(node) = seen.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else {
        let why = format!("pod {} runs on no node yet, so no agent scrapes it", pod::shown(&seen));
        return Err(Stop::NoTarget { why, hint: Some("see kubectl describe pod".to_owned()) });
    };
    let mut unreached = None;
    let mut reasons = Vec::new();
    for agent in agents(args, cluster, pod::checked(node)?).await? {
        let Some(api) = api_of(args, cluster, &agent) else { continue };
        match api.targets(LIST_PATIENCE).await {
            Err(error) => unreached = unreached.or(Some(error)),
            Ok(targets) => match search(&targets, namespace, name, wanted) {
                Ok(target) => return Ok(Found { target: target.clone(), agent: api }),
                Err(why) => reasons.push(why),
            },
        }
    }
    // Of several agents that share the work, one that knows something.
    reasons.sort_by_key(|why| matches!(why, Why::Unknown { .. }));
    match (unreached, reasons.into_iter().next()) {
        (Some(error), _) => Err(error.into()),
        (None, Some(why)) => Err(no_target(Some(&seen), wanted, why)),
        (None, None) => {
            let (namespace, selector) = (args.pod.agent_namespace.as_deref(), args.pod.agent_selector.as_deref());
            Err(Stop::NoTarget {
                why: format!("no agent is found that would scrape pods of node {}", clean(node)),
                hint: Some(looking(namespace, selector)),
            })
        }
    }
}

/// How somebody looks for agents where they were looked for: in this namespace, with these labels, as far as he has said.
fn looking(namespace: Option<&str>, selector: Option<&str>) -> String {
    let place = namespace.map_or_else(|| "-A".to_owned(), |namespace| format!("-n {}", clean(namespace)));
    let labels = selector.map_or_else(|| AGENTS.to_owned(), |selector| format!("'{}'", clean(selector)));
    let unsaid = match (namespace, selector) {
        (None, None) => "If it is elsewhere or has other labels, give --agent-namespace and --agent-selector, or",
        (None, Some(_)) => "If it is elsewhere, give --agent-namespace, or",
        (Some(_), None) => "If it has other labels, give --agent-selector, or",
        (Some(_), Some(_)) => "Else",
    };
    format!(
        "is one there and ready (kubectl get pods {place} -l {labels} -o wide)? {unsaid} forward its port and give --agent"
    )
}

/// The agents to ask, those on the node first. Where agents run one a node, no other knows the pod.
async fn agents(args: &ScrapeArgs, cluster: &Cluster, node: &str) -> Result<Vec<Pod>, Stop> {
    let selector = args.pod.agent_selector.as_deref().unwrap_or(AGENTS);
    let namespace = match args.pod.agent_namespace.as_deref() {
        Some(namespace) => pod::checked(namespace)?.to_owned(),
        None => match one_place(places(cluster, selector).await?)? {
            Some(namespace) => namespace,
            None => return Ok(Vec::new()),
        },
    };
    let mut found = cluster.pods(&namespace, selector, Some(node)).await?;
    found.retain(runs);
    if !found.iter().any(is_one_a_node) {
        let on_node: Vec<_> = found.iter().map(|agent| agent.metadata.uid.clone()).collect();
        let mut others = cluster.pods(&namespace, selector, None).await?;
        others.retain(|agent| runs(agent) && !is_one_a_node(agent) && !on_node.contains(&agent.metadata.uid));
        found.extend(others);
    }
    Ok(found)
}

/// The namespaces with pods that have the labels of agents, on whichever node, and whether or not they run.
async fn places(cluster: &Cluster, selector: &str) -> Result<BTreeSet<String>, Stop> {
    cluster.namespaces_of_pods(selector).await.map_err(|error| match error {
        ClusterError::Unreachable(why) => Stop::NoConnection(format!("{why}; give --agent-namespace")),
        other => other.into(),
    })
}

/// Whoever may run a pod may give it the labels of an agent and answer what he likes, so who runs agents is not guessed. An
/// agent that does not run at the moment counts, too: else the other would be the only one left.
fn one_place(mut places: BTreeSet<String>) -> Result<Option<String>, Stop> {
    if places.len() < 2 {
        return Ok(places.pop_first());
    }
    let places: Vec<_> = places.iter().map(|place| clean(place)).collect();
    Err(Stop::Usage(format!(
        "pods with the labels of agents are in several namespaces ({}): say with --agent-namespace which of them you trust",
        places.join(", ")
    )))
}

fn runs(agent: &Pod) -> bool {
    let phase = agent.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && agent.metadata.deletion_timestamp.is_none()
}

fn is_one_a_node(agent: &Pod) -> bool {
    agent.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "DaemonSet")
}

fn api_of(args: &ScrapeArgs, cluster: &Cluster, agent: &Pod) -> Option<AgentApi> {
    let (namespace, name) = (agent.metadata.namespace.clone()?, agent.metadata.name.clone()?);
    let port = args.pod.agent_port.unwrap_or(DEFAULT_PORT);
    Some(AgentApi::Pod { pods: Box::new(cluster.namespaced(&namespace)), namespace, name, port })
}

/// Has the agent scrape the target once.
pub(super) async fn live(args: &ScrapeArgs, Found { agent, target }: &Found) -> Result<Scraped, Stop> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Live {
        #[serde(flatten)]
        report: Report,
        #[serde(default)]
        body: String,
        #[serde(default)]
        dropped: Vec<NotForwarded>,
        #[serde(default)]
        body_cut: bool,
    }
    #[derive(Deserialize)]
    struct NotForwarded {
        series: String,
        why: String,
    }
    let relabel = if args.view.relabel { "&relabel=true" } else { "" };
    let live: Live = agent.scrape(&target.id, relabel, SCRAPE_PATIENCE).await?;
    let mut report = live.report.cleaned();
    report.about.push(("through", format!("{}, job {}", agent.place(), clean(&target.scrape_pool))));
    if live.body_cut {
        report.about.push(("cut", format!("only the first {} bytes of the exposition are shown", live.body.len())));
    }
    let strange = |error| Stop::NoConnection(format!("what answers at {} is no agent: {error}", agent.place()));
    let mut collector = Collector::read(&live.body).map_err(strange)?;
    collector.cut = live.body_cut;
    for NotForwarded { series, why } in live.dropped {
        let read = Collector::read(&format!("{series} 0\n")).map_err(strange)?;
        collector
            .dropped
            .extend(read.samples().map(|(series, ..)| Dropped { series: series.clone(), why: why.clone() }));
    }
    Ok(Scraped { report, collector })
}

/// Why an agent does not scrape a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Why {
    /// It scrapes these other ports of it, each with the job's name.
    OtherPorts { wanted: u16, others: Vec<(u16, String)> },
    /// It dropped it, for these reasons.
    Dropped(Vec<String>),
    /// It knows it, and it can be no target yet for this reason.
    Waiting(String),
    /// It has never heard of it; perhaps it no longer remembers all that it dropped, or does not name all that wait.
    Unknown { forgets: bool, omits: bool },
}

/// The active target that is this port of this pod.
fn search<'t>(targets: &'t Targets, namespace: &str, name: &str, wanted: WantedPort) -> Result<&'t ActiveTarget, Why> {
    let is_pod = |labels: &BTreeMap<String, String>| {
        let value = |label: &str| labels.get(label).map(String::as_str);
        value(NAMESPACE) == Some(namespace) && value(POD_NAME) == Some(name)
    };
    let active: Vec<_> = targets.active_targets.iter().filter(|target| is_pod(&target.discovered_labels)).collect();
    let port = wanted_port(active.first().map(|target| &target.discovered_labels), wanted);
    if let Some(found) = active.iter().find(|target| port_of_url(&target.scrape_url) == Some(port)) {
        return Ok(found);
    }
    if !active.is_empty() {
        let mut others: Vec<_> = active
            .iter()
            .filter_map(|target| Some((port_of_url(&target.scrape_url)?, target.scrape_pool.clone())))
            .collect();
        others.sort();
        others.dedup();
        return Err(Why::OtherPorts { wanted: port, others });
    }
    let mut reasons = Vec::new();
    for reason in targets.dropped_targets.iter().filter(|target| is_pod(&target.discovered_labels)).map(reason) {
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    if !reasons.is_empty() {
        return Err(Why::Dropped(reasons));
    }
    let full_name = format!("{namespace}/{name}");
    if let Some(waiting) = targets.waiting_pods.iter().find(|waiting| waiting.pod == full_name) {
        return Err(Why::Waiting(clean(&waiting.why).into_owned()));
    }
    let dropped: usize = targets.dropped_target_counts.iter().flat_map(BTreeMap::values).sum();
    let forgets = dropped > targets.dropped_targets.len();
    Err(Why::Unknown { forgets, omits: targets.waiting_pods_omitted > 0 })
}

/// Why no active target of an agent is some port of some pod.
pub(in crate::cli) struct Missing {
    pub(in crate::cli) why: String,
    pub(in crate::cli) hint: Option<String>,
    /// The agent has never heard of the pod: perhaps it is another agent's.
    pub(in crate::cli) unheard_of: bool,
}

/// The active target of an agent that is this port of this pod.
pub(in crate::cli) fn target_of<'t>(
    targets: &'t Targets,
    namespace: &str,
    name: &str,
    port: u16,
) -> Result<&'t ActiveTarget, Missing> {
    let wanted = WantedPort::Number(port);
    search(targets, namespace, name, wanted).map_err(|why| {
        let unheard_of = matches!(why, Why::Unknown { .. });
        match no_target(None, wanted, why) {
            Stop::NoTarget { why, hint } => Missing { why, hint, unheard_of },
            Stop::Usage(why) | Stop::NoConnection(why) => Missing { why, hint: None, unheard_of },
        }
    })
}

/// The port that is meant: the one that the pod's annotation names, else the usual one.
fn wanted_port(discovered: Option<&BTreeMap<String, String>>, wanted: WantedPort) -> u16 {
    match wanted.in_istio() {
        Err(number) => number,
        Ok((annotation, _, usual)) => {
            let sanitised: String =
                annotation.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let label = format!("{ANNOTATION_PREFIX}{sanitised}");
            discovered.and_then(|labels| port_of(labels.get(&label)?)).unwrap_or(usual)
        }
    }
}

fn port_of_url(url: &str) -> Option<u16> {
    Url::parse(url).ok()?.port_or_known_default()
}

/// Why a job does not scrape it, in words.
fn reason(dropped: &DroppedTarget) -> String {
    let job = clean(&dropped.scrape_pool);
    match (&dropped.error, dropped.by_rule) {
        (Some(error), _) => format!("job {job} cannot use it: {}", clean_to(error, 512)),
        (None, Some(number)) => {
            let rule = dropped.rule.as_deref().unwrap_or_default();
            format!("relabel rule {number} of job {job} drops it: {}", clean_to(rule, 512))
        }
        (None, None) => format!("a relabel rule of job {job} drops it"),
    }
}

/// What is said in the end: what the agent knows, and what of the pod itself explains it.
fn no_target(pod: Option<&Pod>, wanted: WantedPort, why: Why) -> Stop {
    let cause = match pod.map(|pod| pod::place(pod, wanted)) {
        Some(Err(Stop::NoTarget { why, hint })) => Some((why, hint)),
        _ => None,
    };
    let told = match &why {
        Why::OtherPorts { wanted, others } => {
            let others: Vec<_> = others.iter().map(|(port, job)| format!("{port} (job {})", clean(job))).collect();
            let why = format!("the agent does not scrape port {wanted} of the pod, but {}", others.join(", "));
            return Stop::NoTarget { why, hint: Some("choose one of these with --port".to_owned()) };
        }
        Why::Dropped(reasons) => reasons.join("; "),
        Why::Waiting(why) if cause.is_none() => why.clone(),
        Why::Waiting(_) => "its agent waits for that".to_owned(),
        Why::Unknown { .. } => "no job of its agent has found it".to_owned(),
    };
    match (cause, why) {
        (Some((cause, hint)), _) => Stop::NoTarget { why: format!("{cause}; {told}"), hint },
        (None, Why::Unknown { forgets, omits }) => {
            let mut hints = Vec::new();
            if forgets {
                hints.push("or it has forgotten that a rule dropped it: raise keep_dropped_targets");
            }
            if omits {
                hints.push(
                    "or the pod has no address yet, and the agent does not name all of those: see kubectl describe pod",
                );
            }
            if hints.is_empty() {
                hints.push(
                    "look at node, namespaces and selectors of its kubernetes_sd_configs, or give --agent for another agent",
                );
            }
            Stop::NoTarget { why: format!("the pod is not scraped: {told}"), hint: Some(hints.join("; ")) }
        }
        (None, Why::Waiting(_)) => Stop::NoTarget {
            why: format!("the pod is not scraped: {told}"),
            hint: Some("see kubectl describe pod".to_owned()),
        },
        (None, _) => Stop::NoTarget { why: format!("the pod is not scraped: {told}"), hint: None },
    }
}

impl From<ClusterError> for Stop {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Config(why) => Stop::Usage(why),
            ClusterError::Unreachable(why) => Stop::NoConnection(why),
            ClusterError::NotFound(why) => Stop::NoTarget { why, hint: None },
        }
    }
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Stop::NoConnection(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECURE_PORT: &str = "__meta_kubernetes_pod_annotation_prometheus_istio_io_secure_port";

    /// What an agent tells of pods of the namespace `shop`: active ones as (pod, port, annotation), dropped ones by rule.
    fn told(active: &[(&str, u16, &str)], dropped: &[(&str, usize)], dropped_count: usize) -> Targets {
        let labels = |pod: &str| json!({ NAMESPACE: "shop", POD_NAME: pod });
        let active: Vec<_> = active
            .iter()
            .map(|(pod, port, annotation)| {
                let mut labels = labels(pod);
                labels[SECURE_PORT] = json!(annotation);
                json!({
                    "id": format!("{pod}:{port}"), "scrapePool": "mesh", "discoveredLabels": labels,
                    "scrapeUrl": format!("https://[fd00::1]:{port}/stats/prometheus"),
                })
            })
            .collect();
        let dropped: Vec<_> = dropped
            .iter()
            .map(|(pod, rule)| {
                json!({"scrapePool": "mesh", "byRule": rule, "rule": "{}", "discoveredLabels": labels(pod)})
            })
            .collect();
        let told = json!({
            "activeTargets": active, "droppedTargets": dropped, "droppedTargetCounts": {"mesh": dropped_count},
        });
        serde_json::from_value(told).expect("as an agent tells it")
    }

    #[test]
    fn the_port_is_the_one_that_the_annotation_names_or_the_usual_one() {
        let told = told(&[("a", 15092, ""), ("a", 15091, ""), ("b", 15099, "15099"), ("c", 15092, "x")], &[], 0);
        let found = |pod, wanted| search(&told, "shop", pod, wanted).map(|target| target.id.as_str());
        assert_eq!(found("a", WantedPort::Merged), Ok("a:15092"));
        assert_eq!(found("a", WantedPort::Envoy), Ok("a:15091"));
        assert_eq!(found("a", WantedPort::Number(15091)), Ok("a:15091"));
        assert_eq!(found("b", WantedPort::Merged), Ok("b:15099"));
        assert_eq!(found("c", WantedPort::Merged), Ok("c:15092"));
        let others = vec![(15091, "mesh".to_owned()), (15092, "mesh".to_owned())];
        assert_eq!(found("a", WantedPort::Number(80)), Err(Why::OtherPorts { wanted: 80, others }));
        assert!(search(&told, "shop2", "a", WantedPort::Merged).is_err(), "a pod of another namespace is another pod");
    }

    #[test]
    fn agents_of_two_namespaces_are_not_both_believed() {
        let places = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(one_place(places(&[])), Ok(None));
        assert_eq!(one_place(places(&["monitoring"])), Ok(Some("monitoring".to_owned())));
        let Err(Stop::Usage(why)) = one_place(places(&["shop", "monitoring"])) else { panic!("believed") };
        assert!(why.contains("(monitoring, shop)") && why.contains("--agent-namespace"), "{why}");
    }

    #[test]
    fn agents_are_looked_for_where_they_were_and_nobody_is_asked_for_what_he_said() {
        for (namespace, selector, command, unsaid) in [
            (None, None, "-A -l app.kubernetes.io/name=meshscrape", &["--agent-namespace", "--agent-selector"][..]),
            (None, Some("app in (a, b)"), "-A -l 'app in (a, b)'", &["--agent-namespace"]),
            (Some("mesh"), None, "-n mesh -l app.kubernetes.io/name=meshscrape", &["--agent-selector"]),
            (Some("mesh"), Some("app=a"), "-n mesh -l 'app=a'", &[]),
        ] {
            let hint = looking(namespace, selector);
            assert!(hint.contains(&format!("(kubectl get pods {command} -o wide)?")), "{hint}");
            for option in ["--agent-namespace", "--agent-selector"] {
                assert_eq!(hint.contains(option), unsaid.contains(&option), "{option}: {hint}");
            }
            assert!(hint.ends_with(" forward its port and give --agent"), "{hint}");
        }
    }

    #[test]
    fn one_reason_is_said_once_and_what_is_forgotten_is_not_denied() {
        let dropped = told(&[], &[("a", 2), ("a", 2), ("a", 1)], 3);
        let reasons = ["relabel rule 2 of job mesh drops it: {}", "relabel rule 1 of job mesh drops it: {}"];
        let expected = Why::Dropped(reasons.map(str::to_owned).to_vec());
        assert_eq!(search(&dropped, "shop", "a", WantedPort::Merged).err(), Some(expected));
        let unknown = search(&dropped, "shop", "b", WantedPort::Merged).err();
        assert_eq!(unknown, Some(Why::Unknown { forgets: false, omits: false }));
        let forgotten = told(&[], &[("a", 2)], 3);
        let hint = |told: &Targets| {
            let unknown = search(told, "shop", "b", WantedPort::Merged).expect_err("not found");
            let Stop::NoTarget { hint, .. } = no_target(None, WantedPort::Merged, unknown) else {
                panic!("another stop")
            };
            hint.unwrap_or_default()
        };
        let dropped = "or it has forgotten that a rule dropped it: raise keep_dropped_targets";
        assert_eq!(hint(&forgotten), dropped);
        // Of pods that wait an agent names so many, and says how many more there are.
        let omitted = |mut told: Targets| {
            told.waiting_pods_omitted = 1;
            told
        };
        let waiting =
            "or the pod has no address yet, and the agent does not name all of those: see kubectl describe pod";
        assert_eq!(hint(&omitted(told(&[], &[], 0))), waiting);
        assert_eq!(hint(&omitted(forgotten)), format!("{dropped}; {waiting}"));
    }
}
