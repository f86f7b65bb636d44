//! What only the whole set shows: that two targets are one address, one name, or too many of one owner.
//!
//! Each target has been judged by itself; here they are held against each other, over all jobs at once, in an order that
//! depends on nothing but the set: an address belongs to its newest pod, a namespace has as many targets as the job allows,
//! and nobody is scraped who could be taken for somebody else. What is said of a target here never makes more of it than
//! it was: it is taken out, or refused.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{JobSecurity, ScrapeConfig};
use crate::model::{
    DropCause, DroppedTarget, Failure, JobTargets, Labels, Pod, Reason, Target, TargetId, TargetSet, Verification,
    clean,
};

const NAMESPACE: &str = "__meta_kubernetes_namespace";

/// How many targets of a namespace over its limit are remembered for display. All of them are counted.
const REMEMBERED_SURPLUS: usize = 10;

/// Applies the rules that hold between targets. `jobs` are those of the set, in its order; `pods` are all that are known,
/// whatever became of them in relabelling, because also a pod that nobody scrapes has its address.
pub fn settle<'a>(
    set: &mut TargetSet,
    jobs: impl IntoIterator<Item = &'a ScrapeConfig>,
    pods: impl IntoIterator<Item = &'a Arc<Pod>>,
) {
    let owners = owners(pods);
    for ((_, targets), job) in set.jobs.iter_mut().zip(jobs) {
        if matches!(job.security, JobSecurity::Spiffe(_)) {
            leave_addresses_to_their_owners(targets, &owners);
        }
        limit_namespaces(targets, job.namespace_target_limit);
    }
    refuse_lookalikes(set);
}

/// Which pod has each address, of those that have one of their own and live.
fn owners<'a>(pods: impl IntoIterator<Item = &'a Arc<Pod>>) -> HashMap<IpAddr, &'a Pod> {
    let mut owners: HashMap<IpAddr, &Pod> = HashMap::new();
    for pod in pods {
        if let Some(ip) = exclusive_ip(pod) {
            let owner = owners.entry(ip).or_insert(pod);
            if pod.supersedes(owner) {
                *owner = pod;
            }
        }
    }
    owners
}

/// The address that nobody else should have while this pod lives.
fn exclusive_ip(pod: &Pod) -> Option<IpAddr> {
    pod.ip.filter(|_| !pod.host_network && !pod.finished).map(|ip| ip.to_canonical())
}

/// Takes out the targets of pods whose address a newer pod has: a workload of the same service account there would
/// answer in their name.
fn leave_addresses_to_their_owners(targets: &mut JobTargets, owners: &HashMap<IpAddr, &Pod>) {
    let JobTargets { active, dropped, dropped_count, .. } = targets;
    active.retain(|target| {
        let Some(pod) = &target.pod else { return true };
        let owner = exclusive_ip(pod).and_then(|ip| owners.get(&ip));
        let Some(owner) = owner.filter(|owner| owner.uid != pod.uid) else { return true };
        let (name, newer) = (clean(&pod.name), clean(&owner.name));
        *dropped_count += 1;
        let error = format!("pod {name}: its address {} is that of a newer pod, {newer}", target.address);
        dropped.push(out(target, DropCause::Superseded, error));
        false
    });
}

/// Takes out what a namespace has over `limit` (0: none): of its pods the oldest stay, so that a new one changes nothing
/// for those that are there. The surplus is not listed as refused targets, because a target that is listed has a task and
/// series of its own, and it is just these that somebody who makes pods without end must not get. That there is a surplus
/// is an error, the same one for the whole namespace, so that it is said once and not for each pod.
fn limit_namespaces(targets: &mut JobTargets, limit: u64) {
    let limit = match usize::try_from(limit) {
        Ok(0) | Err(_) => return,
        Ok(limit) => limit,
    };
    let mut namespaces: HashMap<&str, Vec<(Seniority<'_>, usize)>> = HashMap::new();
    for (at, target) in targets.active.iter().enumerate() {
        if let Some(namespace) = namespace(target) {
            namespaces.entry(namespace).or_default().push((seniority(target), at));
        }
    }
    // For each place that is over the limit, whether it is remembered.
    let mut surplus: HashMap<usize, bool> = HashMap::new();
    for places in namespaces.values_mut().filter(|places| places.len() > limit) {
        places.sort_unstable();
        let over = places[limit..].iter().enumerate();
        surplus.extend(over.map(|(nth, (_, at))| (*at, nth < REMEMBERED_SURPLUS)));
    }
    if surplus.is_empty() {
        return;
    }
    targets.dropped_count += surplus.len();
    targets.surplus = surplus.len();
    let JobTargets { active, dropped, .. } = targets;
    let mut at = 0..;
    active.retain(|target| {
        let remembered = at.next().and_then(|at| surplus.get(&at));
        if remembered == Some(&true) {
            let namespace = clean(namespace(target).unwrap_or_default());
            let error = format!(
                "namespace_target_limit exceeded: namespace {namespace} has more than {limit} targets in this job, \
                 those of its {limit} oldest stay"
            );
            dropped.push(out(target, DropCause::Surplus, error));
        }
        remembered.is_none()
    });
}

/// Orders targets of a namespace: by the age of their pods, then by name; what is no pod comes last.
type Seniority<'t> = (i64, &'t str);

fn seniority(target: &Target) -> Seniority<'_> {
    target.pod.as_ref().map_or((i64::MAX, ""), |pod| (pod.created, &pod.name))
}

fn namespace(target: &Target) -> Option<&str> {
    target.pod.as_ref().map(|pod| pod.namespace()).or_else(|| target.discovered.get(NAMESPACE))
}

fn out(target: &Target, cause: DropCause, error: String) -> Arc<DroppedTarget> {
    Arc::new(DroppedTarget { discovered: target.discovered.clone(), cause, by_rule: None, error: Some(error) })
}

/// Refuses targets that would write each other's series: equal public labels, but another address or another
/// identity, at least one of them in a job that verifies identities. Both are refused, because nothing says which one
/// is meant. Between ordinary targets Prometheus leaves this to the user, and so do we.
fn refuse_lookalikes(set: &mut TargetSet) {
    let mut groups: HashMap<&Labels, Vec<&Arc<Target>>> = HashMap::new();
    for target in set.active() {
        groups.entry(&target.labels).or_default().push(target);
    }
    // For each target to refuse, another one that it could be taken for.
    let mut refused: HashMap<TargetId, String> = HashMap::new();
    for group in groups.values().filter(|group| mistakable(group)) {
        for (at, target) in group.iter().enumerate() {
            let other = if at == 0 { group[group.len() - 1] } else { group[0] };
            refused.insert(target.id, format!("{} of job {}", other.shown_url(), other.pool));
        }
    }
    for target in set.jobs.iter_mut().flat_map(|(_, job)| &mut job.active) {
        if let Some(other) = refused.get(&target.id) {
            let detail = format!("it has the same labels as {}, but another address or identity", clean(other));
            let mut failure = Failure::new(Reason::AmbiguousTarget, detail);
            if let Verification::Spiffe(peer) = &target.verification {
                failure = failure.expecting(peer);
            }
            Arc::make_mut(target).verification = Verification::Refused(failure);
        }
    }
}

/// Whether targets of equal labels differ in who is asked, and somebody relies on that.
fn mistakable(group: &[&Arc<Target>]) -> bool {
    let first = group[0];
    let verified = |target: &Target| matches!(target.verification, Verification::Spiffe(_) | Verification::Refused(_));
    group.iter().any(|target| verified(target))
        && group.iter().any(|target| target.address != first.address || target.verification != first.verification)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label::targets_of;
    use crate::label::tests::{candidate, domain, expected, ordinary_job, refusal, spiffe_job, targets};
    use crate::model::Candidate;

    /// A pod of namespace `shop` at 10.0.0.`host`; its UID is its name.
    fn pod(name: &str, host: u8, created: i64) -> Pod {
        Pod {
            name: format!("shop/{name}").into(),
            uid: name.into(),
            ip: Some([10, 0, 0, host].into()),
            created,
            host_network: false,
            finished: false,
            terminating: false,
        }
    }

    /// The candidate of a pod, with its name among its labels.
    fn of(pod: Pod) -> Candidate {
        let ip = pod.ip.expect("an address");
        let labels = [
            ("__address__", &*format!("{ip}:15092")),
            ("__meta_kubernetes_namespace", pod.namespace()),
            ("__meta_kubernetes_pod_service_account_name", "cart"),
            ("pod", &pod.name),
        ];
        Candidate { labels: labels.into_iter().collect(), source: "test".into(), pod: Some(Arc::new(pod)) }
    }

    /// The settled set of these jobs, each with its candidates.
    fn settled(jobs: &[(&ScrapeConfig, &[Candidate])]) -> TargetSet {
        let made = |(job, candidates): &(&ScrapeConfig, &[Candidate])| {
            (job.job_name.clone(), targets_of(job, candidates, Some(&domain())))
        };
        let mut set = TargetSet { jobs: jobs.iter().map(made).collect(), revision: 0 };
        let pods = jobs.iter().flat_map(|(_, candidates)| candidates.iter()).filter_map(|made| made.pod.as_ref());
        settle(&mut set, jobs.iter().map(|(job, _)| *job), pods);
        set
    }

    fn names(targets: &JobTargets) -> Vec<&str> {
        targets.active.iter().filter_map(|target| target.pod.as_ref()).map(|pod| &*pod.name).collect()
    }

    fn errors(targets: &JobTargets) -> Vec<&str> {
        targets.dropped.iter().filter_map(|dropped| dropped.error.as_deref()).collect()
    }

    fn causes(targets: &JobTargets) -> Vec<DropCause> {
        targets.dropped.iter().map(|dropped| dropped.cause).collect()
    }

    #[test]
    fn an_address_belongs_to_its_newest_pod() {
        let job = spiffe_job();
        let pods = [of(pod("new", 7, 20)), of(pod("old", 7, 10)), of(pod("other", 8, 5)), of(pod("older", 7, 9))];
        for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]] {
            let candidates = order.map(|at: usize| pods[at].clone());
            let set = settled(&[(&job, &candidates)]);
            let targets = &set.jobs[0].1;
            let mut left = names(targets);
            left.sort_unstable();
            assert_eq!((left, targets.dropped_count), (vec!["shop/new", "shop/other"], 2), "{order:?}");
            assert_eq!((causes(targets), targets.surplus), (vec![DropCause::Superseded; 2], 0));
            let mut said = errors(targets);
            said.sort_unstable();
            let error = |old| format!("pod shop/{old}: its address 10.0.0.7:15092 is that of a newer pod, shop/new");
            assert_eq!(said, [error("old"), error("older")]);
        }
        // Of one second: everybody decides alike.
        let set = settled(&[(&job, &[of(pod("b", 7, 1)), of(pod("a", 7, 1))])]);
        assert_eq!(names(&set.jobs[0].1), ["shop/b"]);
    }

    #[test]
    fn an_address_belongs_to_its_newest_pod_in_every_job_that_verifies() {
        let (one, other, ordinary) = (spiffe_job(), spiffe_job(), ordinary_job());
        let (old, new) = (of(pod("old", 7, 10)), of(pod("new", 7, 20)));
        let set = settled(&[
            (&one, std::slice::from_ref(&old)),
            (&other, std::slice::from_ref(&new)),
            (&ordinary, &[old.clone(), new.clone()]),
        ]);
        assert_eq!(names(&set.jobs[0].1), Vec::<&str>::new());
        assert_eq!(names(&set.jobs[1].1), ["shop/new"]);
        assert_eq!(names(&set.jobs[2].1), ["shop/old", "shop/new"], "an ordinary job is Prometheus's");
    }

    #[test]
    fn a_pod_that_nobody_scrapes_has_its_address_all_the_same() {
        let job = spiffe_job();
        let mut set = TargetSet {
            jobs: vec![("j".into(), targets_of(&job, &[of(pod("old", 7, 10))], Some(&domain())))],
            revision: 0,
        };
        settle(&mut set, [&job], [&Arc::new(pod("unannotated", 7, 20))]);
        assert_eq!(names(&set.jobs[0].1), Vec::<&str>::new());
    }

    #[test]
    fn who_shares_an_address_or_has_none_any_more_takes_it_from_nobody() {
        let job = spiffe_job();
        let host = |name: &str, created| Pod { host_network: true, ..pod(name, 7, created) };
        let set = settled(&[(&job, &[of(pod("own", 7, 1)), of(host("a", 2)), of(host("b", 3))])]);
        assert_eq!(names(&set.jobs[0].1), ["shop/own", "shop/a", "shop/b"]);
        let finished = Pod { finished: true, ..pod("done", 7, 9) };
        let set = settled(&[(&job, &[of(pod("own", 7, 1)), of(finished)])]);
        assert_eq!(names(&set.jobs[0].1), ["shop/own", "shop/done"]);
        assert_eq!(refusal(&set.jobs[0].1.active[1]), Reason::NoExpectedIdentity);
        assert_eq!(expected(&set.jobs[0].1.active[0]), "spiffe://cluster.local/ns/shop/sa/cart");
    }

    #[test]
    fn of_two_pods_that_come_to_one_target_the_newer_one_is_it() {
        let same = |name: &str, created| {
            let mut candidate = of(pod(name, 7, created));
            candidate.labels.set("pod", "");
            candidate
        };
        for job in [spiffe_job(), ordinary_job()] {
            for candidates in [[same("old", 1), same("new", 2)], [same("new", 2), same("old", 1)]] {
                let set = settled(&[(&job, &candidates)]);
                assert_eq!(names(&set.jobs[0].1), ["shop/new"]);
            }
        }
    }

    #[test]
    fn a_namespace_has_as_many_targets_as_the_job_allows_and_others_do_not_notice() {
        let mut job = spiffe_job();
        job.namespace_target_limit = 100;
        let many = (0..5_000).map(|at: u16| {
            let [high, low] = at.to_be_bytes();
            // The later in the list, the older.
            of(Pod { ip: Some([10, 1, high, low].into()), ..pod(&format!("p{at:04}"), 0, -i64::from(at)) })
        });
        let others = (1..=20).map(|at| {
            let name = format!("bank/b{at}");
            of(Pod { name: name.as_str().into(), uid: name.into(), ..pod("", at, 1_000) })
        });
        let candidates: Vec<_> = many.chain(others).collect();
        let set = settled(&[(&job, &candidates)]);
        let targets = &set.jobs[0].1;
        let left = names(targets);
        assert_eq!(left.iter().filter(|name| name.starts_with("bank/")).count(), 20);
        let kept: Vec<_> = left.iter().filter(|name| name.starts_with("shop/")).copied().collect();
        assert_eq!(kept, (4_900..5_000).map(|at| format!("shop/p{at}")).collect::<Vec<_>>(), "the oldest stay");
        assert!(targets.active.iter().all(|target| matches!(target.verification, Verification::Spiffe(_))));
        assert_eq!((targets.dropped_count, targets.dropped.len()), (4_900, REMEMBERED_SURPLUS));
        assert_eq!((causes(targets), targets.surplus), (vec![DropCause::Surplus; REMEMBERED_SURPLUS], 4_900));
        let said = errors(targets);
        let words = "namespace_target_limit exceeded: namespace shop has more than 100 targets in this job, \
                     those of its 100 oldest stay";
        assert_eq!(said, [words; REMEMBERED_SURPLUS], "one sentence for all of them");

        job.namespace_target_limit = 5_000;
        assert_eq!(settled(&[(&job, &candidates)]).jobs[0].1.dropped_count, 0, "the limit itself is within it");
        job.namespace_target_limit = 0;
        assert_eq!(settled(&[(&job, &candidates)]).jobs[0].1.dropped_count, 0, "no limit");
    }

    #[test]
    fn the_limit_holds_for_what_stands_behind_a_namespace_without_a_pod() {
        let mut job = ordinary_job();
        job.namespace_target_limit = 1;
        let service = |host: &str, namespace: &str| {
            candidate(&[("__address__", host), ("__meta_kubernetes_namespace", namespace)])
        };
        let candidates =
            [service("a:1", "shop"), service("b:1", "shop"), service("c:1", "bank"), of(pod("young", 7, 99)), {
                candidate(&[("__address__", "static:1")])
            }];
        let set = settled(&[(&job, &candidates)]);
        let left: Vec<_> = set.jobs[0].1.active.iter().map(|target| target.address.to_string()).collect();
        assert_eq!(left, ["c:1", "10.0.0.7:15092", "static:1"]);
    }

    #[test]
    fn lookalikes_are_both_refused() {
        let set = |job: &ScrapeConfig, candidates: &[&[(&str, &str)]]| {
            let mut set = TargetSet { jobs: vec![(job.job_name.clone(), targets(job, candidates))], revision: 0 };
            settle(&mut set, [job], []);
            set.active().cloned().collect::<Vec<_>>()
        };
        let one: &[(&str, &str)] = &[("__address__", "a:1"), ("instance", "i"), ("__spiffe_id__", "spiffe://td/a")];
        let other_address: &[(&str, &str)] =
            &[("__address__", "b:1"), ("instance", "i"), ("__spiffe_id__", "spiffe://td/a")];
        let other_identity: &[(&str, &str)] =
            &[("__address__", "a:1"), ("instance", "i"), ("__spiffe_id__", "spiffe://td/b")];
        let other_path: &[(&str, &str)] = &[
            ("__address__", "a:1"),
            ("instance", "i"),
            ("__spiffe_id__", "spiffe://td/a"),
            ("__metrics_path__", "/x"),
        ];
        let unrelated: &[(&str, &str)] = &[("__address__", "c:1"), ("__spiffe_id__", "spiffe://td/a")];

        for other in [other_address, other_identity] {
            let made = set(&spiffe_job(), &[one, unrelated, other]);
            assert_eq!(refusal(&made[0]), Reason::AmbiguousTarget);
            assert_eq!(refusal(&made[2]), Reason::AmbiguousTarget);
            assert_eq!(expected(&made[1]), "spiffe://td/a");
            let Verification::Refused(failure) = &made[0].verification else { panic!("refused") };
            assert!(failure.detail.contains(&made[2].url()), "{failure}");
        }
        assert!(set(&spiffe_job(), &[one, other_path]).iter().all(|target| expected(target) == "spiffe://td/a"));
        assert!(set(&ordinary_job(), &[one, other_address]).iter().all(|t| t.verification == Verification::None));
    }

    #[test]
    fn lookalikes_are_found_across_jobs() {
        let verified =
            targets(&spiffe_job(), &[&[("__address__", "a:1"), ("instance", "i"), ("__spiffe_id__", "spiffe://td/a")]]);
        let mut forger = ordinary_job();
        forger.job_name = "other".into();
        let forged = targets(&forger, &[&[("__address__", "b:1"), ("instance", "i"), ("job", "j")]]);
        let mut set = TargetSet { jobs: vec![("j".into(), verified), ("other".into(), forged)], revision: 0 };
        settle(&mut set, [&spiffe_job(), &forger], []);
        assert!(set.active().all(|target| refusal(target) == Reason::AmbiguousTarget));
    }
}
