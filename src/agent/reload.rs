//! Another configuration while the agent runs.
//!
//! It is taken as a whole or not at all: everything that can fail is done before anything is changed. Then the rooms are told
//! from the far end, each compares with what it has, and what is the same goes on as if nothing had happened.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::Agent;
use super::identities::{Identities, for_discovery};
use super::receivers::Receivers;
use crate::clock::{Clock, unix_ms};
use crate::config::{Config, Loaded, Problem, ScrapeConfig};
use crate::discover::Wanted;
use crate::scrape::{Job, Setup};
use crate::send::SendError;
use crate::series::View;
use crate::status::{Configuration, Unusable};
use crate::token::Tokens;

/// Why a configuration was not taken.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The file cannot be used.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Problems(Vec<Problem>),
    /// A receiver's client cannot be made.
    #[error(transparent)]
    Send(#[from] SendError),
}

impl ReloadError {
    /// What is wrong, thing by thing.
    fn sentences(&self) -> Vec<String> {
        match self {
            ReloadError::Problems(problems) => problems.iter().map(ToString::to_string).collect(),
            ReloadError::Send(error) => vec![error.to_string()],
        }
    }
}

impl Agent {
    /// Takes another configuration, and returns when it is in force: when the targets that it leads to are known and
    /// scraped by it, which takes five seconds at most where a new source does not answer.
    ///
    /// # Errors
    /// If it cannot be used: then nothing has changed, and the one before stays in force.
    pub async fn reload(&mut self, loaded: Loaded) -> Result<(), ReloadError> {
        for warning in &loaded.warnings {
            warn!("{warning}");
        }
        let outcome = match loaded.config {
            Ok(config) => {
                let yaml = Arc::clone(&config.effective);
                self.take(config).await.map(|()| yaml)
            }
            Err(problems) => Err(ReloadError::Problems(problems)),
        };
        self.reloads.tell(outcome.as_ref(), &self.clock);
        match &outcome {
            Ok(_) => info!("the configuration has been reloaded"),
            Err(ReloadError::Problems(problems)) => {
                for problem in problems {
                    error!("{problem}");
                }
                error!(problems = problems.len(), "the configuration cannot be used; the last good one stays in force");
            }
            Err(error) => error!("{error}; the last good configuration stays in force"),
        }
        outcome.map(|_| ())
    }

    async fn take(&mut self, config: Config) -> Result<(), ReloadError> {
        let plan = self.receivers.plan(&config.remote_write)?;
        self.receivers.follow(plan);
        let setup = setup(&config, &self.receivers, &self.identities, &self.clock, Some(&self.setup));
        let (revision, wanted) = (setup.revision, wanted(&setup));
        self.setup = setup.clone();
        self.scrape.adopt(setup);
        self.discovery.adopt(wanted, revision).await;
        self.scrape.in_force(revision).await;
        self.identities.keep_those_of(&config);
        Ok(())
    }
}

/// What scraping is told by `config`. What is equal in the one before, `known`, is the same value.
pub(super) fn setup(
    config: &Config,
    receivers: &Receivers,
    identities: &Identities,
    clock: &Clock,
    known: Option<&Setup>,
) -> Setup {
    let views: Arc<[View]> = known.map(|known| Arc::clone(&known.views)).unwrap_or_default();
    let new_views = receivers.views(&views);
    let job = |config: &Arc<ScrapeConfig>| {
        let same = known.and_then(|known| known.jobs.iter().find(|job| job.config == *config));
        same.cloned().unwrap_or_else(|| Job {
            config: Arc::clone(config),
            credentials: identities.of_job(config),
            tokens: config.oauth2.clone().map(|oauth2| Tokens::new(oauth2, clock.clone())),
        })
    };
    Setup {
        revision: known.map_or(0, |known| known.revision + 1),
        jobs: config.scrape_configs.iter().map(job).collect(),
        views: if *views == *new_views { views } else { new_views.into() },
        external: Arc::new(config.global.external_labels.clone()),
        memory_limit: config.global.scrape_memory_limit,
    }
}

/// What discovery is to find for these jobs.
pub(super) fn wanted(setup: &Setup) -> Vec<Wanted> {
    let of_job = |job: &Job| (Arc::clone(&job.config), for_discovery(job.credentials.as_ref()));
    setup.jobs.iter().map(of_job).collect()
}

/// Whether the last reload was good, under Prometheus' names.
pub(super) struct Reloads {
    successful: Gauge,
    success_seconds: Gauge<f64, AtomicU64>,
    configuration: watch::Sender<Configuration>,
}

impl Reloads {
    /// Registers them; the configuration that the agent starts with counts as well.
    pub(super) fn new(registry: &mut Registry, clock: &Clock, config: &Config) -> Self {
        let yaml = &config.effective;
        let first = Configuration { yaml: Arc::clone(yaml), taken: clock.now(), refused: None };
        let configuration = watch::Sender::new(first);
        let reloads = Self { successful: Gauge::default(), success_seconds: Gauge::default(), configuration };
        registry.register(
            "prometheus_config_last_reload_successful",
            "1 if the configuration could be used when it was read last, else 0",
            reloads.successful.clone(),
        );
        registry.register_with_unit(
            "prometheus_config_last_reload_success_timestamp",
            "When a configuration was last taken, since 1970",
            Unit::Seconds,
            reloads.success_seconds.clone(),
        );
        reloads.tell(Ok(yaml), clock);
        reloads
    }

    /// What is in force, for people.
    pub(super) fn configuration(&self) -> watch::Receiver<Configuration> {
        self.configuration.subscribe()
    }

    /// How a reload went: with the configuration that is in force now, or without one.
    fn tell(&self, outcome: Result<&Arc<str>, &ReloadError>, clock: &Clock) {
        self.successful.set(outcome.is_ok().into());
        self.configuration.send_modify(|known| match outcome {
            Ok(yaml) => {
                *known = Configuration { yaml: Arc::clone(yaml), taken: clock.now(), refused: None };
                self.success_seconds.set(unix_ms(known.taken) as f64 / 1000.0);
            }
            Err(error) => {
                let since = known.refused.as_ref().map_or_else(|| clock.now(), |before| before.since);
                known.refused = Some(Unusable { since, problems: error.sentences() });
            }
        });
    }
}
