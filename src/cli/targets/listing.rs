//! What is listed: jobs with their targets, and why others are none. A pure function of what an agent tells.
//!
//! The texts are as foreign as they came: the table cleans them, the JSON document is data. Its field names do not
//! change.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::cli::agent_api::{ActiveTarget, DroppedTarget, Targets, WaitingPod};
use crate::model::{ExitClass, clean};

/// The exit code where something is not in order.
const NOT_IN_ORDER: u8 = 1;

/// Which targets are listed one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum State {
    /// Those that are scraped
    Active,
    /// Those that are not
    Dropped,
    /// All
    Any,
}

/// Everything that is listed.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    /// Whether an agent scrapes the targets; else they have only been discovered.
    pub(super) scraped: bool,
    /// Whether every source of targets has answered.
    pub(super) complete: bool,
    /// Sources that cannot be used as they are, and what else an agent is in trouble with.
    pub(super) problems: Vec<String>,
    /// By name.
    pub(super) jobs: Vec<Job>,
    /// Pods that are known and can be no targets yet, of whichever job; some of them.
    pub(super) waiting_pods: Vec<WaitingPod>,
    /// How many more of them there are, at least.
    pub(super) waiting_pods_omitted: usize,
}

/// One job.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Job {
    pub(super) job: String,
    pub(super) up: usize,
    pub(super) down: usize,
    pub(super) unknown: usize,
    /// All that is dropped, remembered or not.
    pub(super) dropped: usize,
    /// Of these, the malformed ones.
    pub(super) malformed: usize,
    /// Of these, those of which only the number is known.
    pub(super) forgotten: usize,
    /// Of these, how many each rule drops.
    pub(super) dropped_by_rule: Vec<ByRule>,
    pub(super) targets: Vec<Active>,
    pub(super) dropped_targets: Vec<Dropped>,
}

/// What one relabel rule drops.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ByRule {
    /// Counted from 1.
    pub(super) rule: usize,
    pub(super) text: String,
    pub(super) count: usize,
}

/// A target that is scraped, or listed with the reason why it may not be.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Active {
    pub(super) id: String,
    pub(super) url: String,
    pub(super) health: String,
    pub(super) reason: String,
    pub(super) detail: String,
    pub(super) hint: String,
    pub(super) expected_identity: String,
    pub(super) instance: String,
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) last_scrape: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) discovered_labels: BTreeMap<String, String>,
}

/// A target that is not scraped.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Dropped {
    pub(super) address: String,
    pub(super) namespace: String,
    pub(super) pod: String,
    /// The relabel rule that drops it, counted from 1.
    pub(super) by_rule: Option<usize>,
    pub(super) rule: Option<String>,
    /// What is wrong with it, where no rule drops it.
    pub(super) error: Option<String>,
    pub(super) discovered_labels: BTreeMap<String, String>,
}

impl Listing {
    /// What a running agent tells.
    pub(super) fn of(mut targets: Targets) -> Self {
        let problems = std::mem::take(&mut targets.problems);
        Self { scraped: true, ..Self::found(targets, problems, true) }
    }

    /// What discovery has found.
    pub(super) fn found(mut targets: Targets, problems: Vec<String>, complete: bool) -> Self {
        let waiting_pods = std::mem::take(&mut targets.waiting_pods);
        let waiting_pods_omitted = targets.waiting_pods_omitted;
        Self { scraped: false, complete, problems, jobs: jobs(targets), waiting_pods, waiting_pods_omitted }
    }

    /// Leaves one job; the error is a sentence.
    pub(super) fn keep_job(&mut self, name: &str) -> Result<(), String> {
        let known: Vec<String> = self.jobs.iter().map(|job| clean(&job.job).into_owned()).collect();
        self.jobs.retain(|job| job.job == name);
        match self.jobs.is_empty() {
            true => Err(format!("there is no job {:?}; there are: {}", clean(name), known.join(", "))),
            false => Ok(()),
        }
    }

    /// Leaves the targets that are to be listed one by one; the counts stay. By default what is dropped on purpose is
    /// only counted, and so are pods that wait.
    pub(super) fn choose(&mut self, state: Option<State>) {
        if matches!(state, None | Some(State::Active)) {
            self.waiting_pods_omitted += self.waiting_pods.drain(..).len();
        }
        for job in &mut self.jobs {
            match state {
                None => job.dropped_targets.retain(|target| target.error.is_some()),
                Some(State::Active) => job.dropped_targets.clear(),
                Some(State::Dropped) => job.targets.clear(),
                Some(State::Any) => {}
            }
        }
    }

    /// What the command exits with.
    pub(super) fn exit_code(&self) -> u8 {
        let bad = self.jobs.iter().any(|job| job.down > 0 || job.malformed > 0) || !self.problems.is_empty();
        match (self.complete, bad) {
            (false, _) => ExitClass::Connect.code(),
            (true, true) => NOT_IN_ORDER,
            (true, false) => 0,
        }
    }
}

fn jobs(targets: Targets) -> Vec<Job> {
    let mut jobs: BTreeMap<String, Job> = BTreeMap::new();
    for (name, count) in targets.dropped_target_counts.into_iter().flatten() {
        jobs.entry(name).or_default().dropped = count;
    }
    for target in targets.active_targets {
        jobs.entry(target.scrape_pool.clone()).or_default().add(target);
    }
    for target in targets.dropped_targets {
        jobs.entry(target.scrape_pool.clone()).or_default().leave_out(target);
    }
    let finished = |(name, mut job): (String, Job)| {
        // What is wrong comes first, else pods in their order.
        job.targets.sort_by(|a, b| {
            let key = |target: &Active| (rank(&target.health), target.namespace.clone(), target.pod.clone());
            key(a).cmp(&key(b)).then_with(|| a.url.cmp(&b.url))
        });
        job.dropped_by_rule.sort_by_key(|by| by.rule);
        job.forgotten = job.dropped.saturating_sub(job.dropped_targets.len());
        job.job = name;
        job
    };
    jobs.into_iter().map(finished).collect()
}

fn rank(health: &str) -> u8 {
    match health {
        "down" => 0,
        "unknown" => 1,
        _ => 2,
    }
}

impl Job {
    fn add(&mut self, target: ActiveTarget) {
        match target.health.as_str() {
            "up" => self.up += 1,
            "down" => self.down += 1,
            _ => self.unknown += 1,
        }
        let (namespace, pod) = pod_of(&target.discovered_labels, &target.labels);
        let prefix = format!("{}: ", target.reason);
        let detail = if target.last_error.is_empty() { &target.lack } else { &target.last_error };
        self.targets.push(Active {
            detail: detail.strip_prefix(&prefix).unwrap_or(detail).to_owned(),
            instance: target.labels.get("instance").cloned().unwrap_or_default(),
            id: target.id,
            url: target.scrape_url,
            health: target.health,
            reason: target.reason,
            hint: target.hint,
            expected_identity: target.expected_identity,
            namespace,
            pod,
            last_scrape: target.last_scrape,
            labels: target.labels,
            discovered_labels: target.discovered_labels,
        });
    }

    fn leave_out(&mut self, target: DroppedTarget) {
        if target.error.is_some() {
            self.malformed += 1;
        } else if let Some(rule) = target.by_rule {
            match self.dropped_by_rule.iter_mut().find(|by| by.rule == rule) {
                Some(by) => by.count += 1,
                None => {
                    let text = target.rule.clone().unwrap_or_default();
                    self.dropped_by_rule.push(ByRule { rule, text, count: 1 });
                }
            }
        }
        let (namespace, pod) = pod_of(&target.discovered_labels, &BTreeMap::new());
        self.dropped_targets.push(Dropped {
            address: target.discovered_labels.get("__address__").cloned().unwrap_or_default(),
            namespace,
            pod,
            by_rule: target.by_rule,
            rule: target.rule,
            error: target.error,
            discovered_labels: target.discovered_labels,
        });
    }
}

/// Namespace and name of the pod: as discovery says, else as the target's labels do.
fn pod_of(discovered: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> (String, String) {
    let of = |meta: &str, label: &str| discovered.get(meta).or_else(|| labels.get(label)).cloned().unwrap_or_default();
    (of("__meta_kubernetes_namespace", "namespace"), of("__meta_kubernetes_pod_name", "pod"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What an agent tells: four jobs, with everything that there is to tell.
    pub(in crate::cli::targets) fn told() -> Targets {
        let text = r#"{
            "activeTargets": [
              {"id": "1", "scrapePool": "mesh", "scrapeUrl": "https://10.0.0.17:15092/stats/prometheus", "health": "up",
               "labels": {"instance": "10.0.0.17:15092", "namespace": "shop", "pod": "cart-1"},
               "discoveredLabels": {"__address__": "10.0.0.17:15092", "__meta_kubernetes_namespace": "shop", "__meta_kubernetes_pod_name": "cart-1"},
               "expectedIdentity": "spiffe://cluster.local/ns/shop/sa/cart"},
              {"id": "2", "scrapePool": "mesh", "scrapeUrl": "https://10.0.0.18:15092/stats/prometheus", "health": "down",
               "labels": {"instance": "10.0.0.18:15092", "namespace": "shop", "pod": "payments-1"},
               "discoveredLabels": {"__address__": "10.0.0.18:15092"},
               "lastError": "identity_mismatch: expected A, but B answered", "reason": "identity_mismatch",
               "hint": "another workload answers on this address", "expectedIdentity": "spiffe://cluster.local/ns/shop/sa/payments"},
              {"id": "3", "scrapePool": "plain", "scrapeUrl": "http://node:9100/metrics", "health": "unknown",
               "labels": {"instance": "node:9100"}, "discoveredLabels": {}}],
            "droppedTargets": [
              {"scrapePool": "mesh", "byRule": 2, "rule": "{action: keep, regex: 'true'}",
               "discoveredLabels": {"__address__": "10.0.0.19:80", "__meta_kubernetes_namespace": "web", "__meta_kubernetes_pod_name": "a"}},
              {"scrapePool": "mesh", "byRule": 1, "rule": "{action: drop}", "discoveredLabels": {"__address__": "10.0.0.20:80"}},
              {"scrapePool": "mesh", "byRule": 2, "rule": "{action: keep, regex: 'true'}", "discoveredLabels": {"__address__": "10.0.0.21:80"}},
              {"scrapePool": "mesh", "error": "'@' may not stand in an address",
               "discoveredLabels": {"__address__": "x@evil:443", "__meta_kubernetes_namespace": "web", "__meta_kubernetes_pod_name": "b"}}],
            "droppedTargetCounts": {"empty": 0, "mesh": 7, "plain": 0}}"#;
        serde_json::from_str(text).expect("as an agent tells it")
    }

    #[test]
    fn jobs_count_what_they_have_and_what_is_wrong_comes_first() {
        let listing = Listing::of(told());
        let names: Vec<_> = listing.jobs.iter().map(|job| job.job.as_str()).collect();
        assert_eq!(names, ["empty", "mesh", "plain"]);
        let mesh = &listing.jobs[1];
        assert_eq!((mesh.up, mesh.down, mesh.unknown), (1, 1, 0));
        assert_eq!((mesh.dropped, mesh.malformed, mesh.forgotten), (7, 1, 3));
        let rules: Vec<_> = mesh.dropped_by_rule.iter().map(|by| (by.rule, by.count)).collect();
        assert_eq!(rules, [(1, 1), (2, 2)]);
        let pods: Vec<_> = mesh.targets.iter().map(|target| (target.namespace.as_str(), target.pod.as_str())).collect();
        assert_eq!(pods, [("shop", "payments-1"), ("shop", "cart-1")]);
        assert_eq!(mesh.targets[0].detail, "expected A, but B answered");
    }

    #[test]
    fn a_state_chooses_what_is_listed_and_not_what_is_counted() {
        for (state, active, dropped) in
            [(None, 2, 1), (Some(State::Active), 2, 0), (Some(State::Dropped), 0, 4), (Some(State::Any), 2, 4)]
        {
            let mut listing = Listing::of(told());
            listing.choose(state);
            let mesh = &listing.jobs[1];
            assert_eq!((mesh.targets.len(), mesh.dropped_targets.len()), (active, dropped), "{state:?}");
            assert_eq!((mesh.dropped, mesh.dropped_by_rule.len()), (7, 2), "{state:?}");
        }
    }

    #[test]
    fn the_exit_code_says_whether_all_is_well() {
        let only = |job: &str| {
            let mut listing = Listing::of(told());
            listing.keep_job(job).expect("it is there");
            listing
        };
        assert_eq!((only("plain").exit_code(), only("empty").exit_code(), only("mesh").exit_code()), (0, 0, 1));
        let with = |problems: &[&str], complete| {
            let problems = problems.iter().map(|&problem| problem.to_owned()).collect();
            Listing::found(Targets::default(), problems, complete).exit_code()
        };
        assert_eq!((with(&[], true), with(&["x"], true), with(&["x"], false)), (0, 1, 3));
        let mut malformed = told();
        malformed.active_targets.clear();
        assert_eq!(Listing::of(malformed).exit_code(), 1);
        let error = Listing::of(told()).keep_job("mash").expect_err("no such job");
        assert_eq!(error, "there is no job \"mash\"; there are: empty, mesh, plain");
    }
}
