//! What a configuration finds: its discovery runs until every source has answered once, and nothing is scraped.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::listing::Listing;
use crate::cli::agent_api::{ActiveTarget, DroppedTarget, Targets, WaitingPod};
use crate::clock::Clock;
use crate::config::{self, Config, JobSecurity, ScrapeConfig};
use crate::discover::{self, Certificates, Discovery};
use crate::identity;
use crate::model::{ExitClass, Labels, Target, TargetSet, Verification};

/// The targets of the configuration in `file`; the error is an exit code and a sentence.
pub(super) async fn in_configuration(file: &Path, patience: Duration) -> Result<Listing, (u8, String)> {
    let loaded = config::load(file, &|name| std::env::var(name).ok());
    let config = loaded.config.map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
        (ExitClass::Usage.code(), format!("{} cannot be used:\n{}", file.display(), lines.join("\n")))
    })?;
    let cancel = CancellationToken::new();
    let _stops_with_us = cancel.clone().drop_guard();
    let jobs = config.scrape_configs.iter().map(|job| (Arc::clone(job), certificates(job))).collect();
    let discovery = discover::spawn(jobs, cancel, Clock::system(), discover::Metrics::new(&mut Registry::default()));
    let complete = awaited(&discovery, patience).await;
    let targets = Arc::clone(&discovery.targets().borrow());
    let state = discovery.snapshot();
    let mut told = told(&config, &targets);
    let waiting = |(pod, why): (&String, &String)| WaitingPod { pod: pod.clone(), why: why.clone() };
    told.waiting_pods = state.waiting.pods.iter().map(waiting).collect();
    told.waiting_pods_omitted = state.waiting.more;
    let problems = state.problems.iter().map(ToString::to_string).collect();
    Ok(Listing::found(told, problems, complete))
}

/// Whether every source has answered in time. Who waits for longer than a moment is told what for.
async fn awaited(discovery: &Discovery, patience: Duration) -> bool {
    let moment = Duration::from_secs(1).min(patience);
    if tokio::time::timeout(moment, discovery.first_pass()).await.is_ok() {
        return true;
    }
    say!("waiting for the sources of targets, {}s at most", patience.as_secs_f64());
    tokio::time::timeout(patience - moment, discovery.first_pass()).await.is_ok()
}

/// The trust domain of the job's identities: as configured, or that of the certificate that is there now.
fn certificates(job: &ScrapeConfig) -> watch::Receiver<Certificates> {
    let known = match &job.security {
        JobSecurity::Ordinary(_) => None,
        JobSecurity::Spiffe(spiffe) => spiffe.trust_domain.clone().or_else(|| {
            let (credentials, _) = identity::load(&spiffe.into(), &Clock::system());
            credentials.trust_domain().cloned()
        }),
    };
    watch::channel(Certificates::read(known)).1
}

/// The same as an agent would tell it.
fn told(config: &Config, set: &TargetSet) -> Targets {
    let mut told = Targets { dropped_target_counts: Some(BTreeMap::new()), ..Targets::default() };
    for (pool, targets) in &set.jobs {
        told.active_targets.extend(targets.active.iter().map(|target| active(target)));
        let job = config.scrape_configs.iter().find(|job| job.job_name == *pool);
        let rule = |number: usize| Some(job?.relabel.get(number)?.spec().to_string());
        told.dropped_targets.extend(targets.dropped.iter().map(|dropped| DroppedTarget {
            scrape_pool: pool.to_string(),
            discovered_labels: map(&dropped.discovered),
            by_rule: dropped.by_rule.map(|number| number + 1),
            rule: dropped.by_rule.and_then(rule),
            error: dropped.error.clone(),
        }));
        if let Some(counts) = &mut told.dropped_target_counts {
            counts.insert(pool.to_string(), targets.dropped_count);
        }
    }
    told
}

fn active(target: &Target) -> ActiveTarget {
    let wanted = match &target.verification {
        Verification::Spiffe(peer) => Some(peer),
        Verification::Refused(_) | Verification::HostName | Verification::None => None,
    };
    let (expected, refusal) = match &target.verification {
        Verification::Spiffe(peer) => (peer.to_string(), None),
        Verification::Refused(failure) => (failure.expected.clone().unwrap_or_default(), Some(failure)),
        Verification::HostName | Verification::None => (String::new(), None),
    };
    ActiveTarget {
        id: target.id.to_string(),
        scrape_pool: target.pool.to_string(),
        scrape_url: target.url(),
        labels: map(&target.labels),
        discovered_labels: map(&target.discovered),
        health: if refusal.is_some() { "down" } else { "unknown" }.to_owned(),
        last_error: refusal.map(ToString::to_string).unwrap_or_default(),
        last_scrape: String::new(),
        reason: refusal.map(|failure| failure.reason.name()).unwrap_or_default().to_owned(),
        hint: refusal.map(|failure| failure.hint().into_owned()).unwrap_or_default(),
        lack: String::new(),
        expected_identity: expected,
        identity_match: wanted.map(|peer| peer.rule().word()).unwrap_or_default().to_owned(),
        accepted_identities: wanted
            .map(|peer| peer.accepted().iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
    }
}

fn map(labels: &Labels) -> BTreeMap<String, String> {
    labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
