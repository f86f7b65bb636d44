//! What is asked of a pod, and of the agent that scrapes it. It must not know what an answer means.

use std::net::IpAddr;
use std::time::Duration;

use crate::cli::agent_api::{AgentApi, DEFAULT_URL, Targets};
use crate::cli::exposure::{Asker, Facts, Plainly, Securely};
use crate::cli::istio::{PLAIN_ENVOY_PORT, PLAIN_MERGED_PORT};
use crate::cli::scrape::Stop;
use crate::connect::Answered;
use crate::model::Failure;

/// How long the agent may take to list its targets.
const PATIENCE: Duration = Duration::from_secs(15);

/// All answers.
pub(super) struct Evidence {
    /// Where all of it was asked.
    pub(super) ip: IpAddr,
    pub(super) secure: Vec<SecurePort>,
    pub(super) plain_merged: Plainly,
    pub(super) plain_envoy: Plainly,
    pub(super) agent: Agent,
}

/// A secure port, asked in three ways.
pub(super) struct SecurePort {
    /// As a scrape asks.
    pub(super) scrape: Securely,
    /// In plain HTTP.
    pub(super) plain: Plainly,
    /// Over TLS without a certificate of ours.
    pub(super) anonymous: Result<Answered, Failure>,
}

/// What the agent tells.
pub(super) enum Agent {
    Told {
        targets: Targets,
        named: bool,
    },
    /// It does not answer, and it was named.
    Silent(String),
    /// None answers here, and none was named.
    Absent(String),
}

/// Asks everything once.
pub(super) async fn gather(asker: &Asker, facts: &Facts, ip: IpAddr, agent: Option<&str>) -> Result<Evidence, Stop> {
    let api = AgentApi::at(agent.unwrap_or(DEFAULT_URL)).map_err(Stop::Usage)?;
    let mut secure = Vec::new();
    for &port in facts.secure_ports() {
        let scrape = asker.secure(facts, ip, port).await;
        let plain = asker.plain(ip, port).await;
        let anonymous = asker.anonymous(facts, ip, port, scrape.wants_alpn).await;
        secure.push(SecurePort { scrape, plain, anonymous });
    }
    let agent = match (api.targets(PATIENCE).await, agent) {
        (Ok(targets), _) => Agent::Told { targets, named: agent.is_some() },
        (Err(error), Some(_)) => Agent::Silent(error.to_string()),
        (Err(error), None) => Agent::Absent(error.to_string()),
    };
    let (plain_merged, plain_envoy) =
        tokio::join!(asker.plain(ip, PLAIN_MERGED_PORT), asker.plain(ip, PLAIN_ENVOY_PORT));
    Ok(Evidence { ip, secure, plain_merged, plain_envoy, agent })
}
