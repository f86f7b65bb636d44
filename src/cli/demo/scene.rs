//! What is known of the run at one moment: a row for each workload, brought up to date from the agent's API and the
//! receiver's ledger.
//!
//! The API counts every scrape, so none is missed however seldom it is asked; of the reasons only those are seen that
//! stand when it is asked, a few times within a scrape interval. Pure state: reading and drawing happen elsewhere.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use tokio::time::Instant;

use super::api::TargetState;
use super::certs::RootStage;
use super::receiver::Ledger;
use super::sidecar::{Role, Sidecar};
use crate::model::{ExitClass, Reason, SpiffeId, TrustDomain};

/// How the last scrape of a target ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum State {
    /// There was none yet.
    #[default]
    Waiting,
    /// Its samples were taken.
    Up,
    /// Nobody that may answer answered, and nothing was taken.
    Refused,
    /// It failed for another reason.
    Down,
}

impl State {
    /// The word that is shown.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Up => "up",
            State::Refused => "refused",
            State::Down => "down",
        }
    }

    fn of(target: &TargetState) -> Self {
        let of_identity = |name: &str| {
            Reason::ALL.iter().any(|reason| reason.name() == name && reason.class() == ExitClass::Identity)
        };
        match target.health.as_str() {
            "up" => State::Up,
            "down" if of_identity(&target.reason) => State::Refused,
            "down" => State::Down,
            _ => State::Waiting,
        }
    }
}

/// One workload as the agent sees it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Its part in the play.
    pub(super) role: Role,
    /// Where it listens: the value of its `instance` label.
    pub(super) instance: String,
    /// Who must answer.
    pub(super) expected: SpiffeId,
    /// How the last scrape ended.
    pub(super) state: State,
    /// What the API last said of it.
    pub(super) target: TargetState,
    /// When the last scrape was first seen.
    pub(super) seen: Option<Instant>,
    /// Every reason that was seen for a failed scrape.
    pub(super) reasons: BTreeSet<String>,
    /// Samples of it that were scraped, by what the agent says of each scrape.
    pub(super) scraped: u64,
    /// Samples of it at the receiver, without those that the agent adds; `None` where nobody counts them.
    pub(super) delivered: Option<u64>,
}

/// What a reader of a log wants to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    /// The workload.
    pub(super) name: &'static str,
    /// How its scrapes end from now on.
    pub(super) state: State,
    /// In words, where it failed.
    pub(super) detail: String,
}

/// The whole of it.
#[derive(Clone, Debug)]
pub(super) struct Scene {
    /// A row for each workload, in the order of the cast.
    pub(super) rows: Vec<Row>,
    /// What arrived; `None` where somebody else's receiver is sent to.
    pub(super) ledger: Option<Ledger>,
    /// Samples that a receiver took, by the agent's own count.
    pub(super) sent: Option<u64>,
    /// How often everybody got a new key and leaf.
    pub(super) rotations: u32,
    /// How far the change of roots has come.
    pub(super) stage: RootStage,
}

impl Row {
    fn new(role: Role, address: SocketAddr, domain: &TrustDomain) -> Self {
        Self {
            role,
            instance: address.to_string(),
            expected: role.expected(domain),
            state: State::Waiting,
            target: TargetState::default(),
            seen: None,
            reasons: BTreeSet::new(),
            scraped: 0,
            delivered: None,
        }
    }

    /// Takes what the API says now; tells what is different for a reader.
    fn observe(&mut self, target: &TargetState, now: Instant) -> Option<Change> {
        let before = std::mem::replace(&mut self.target, target.clone());
        let (was, state) = (std::mem::replace(&mut self.state, State::of(target)), State::of(target));
        let succeeded = target.scrapes_succeeded.saturating_sub(before.scrapes_succeeded);
        self.scraped += succeeded * target.samples_kept;
        if succeeded > 0 || target.scrapes_failed > before.scrapes_failed {
            self.seen = Some(now);
        }
        if !target.reason.is_empty() {
            self.reasons.insert(target.reason.clone());
        }
        let changed = (was, before.reason) != (state, target.reason.clone());
        changed.then(|| Change { name: self.role.name, state, detail: target.last_error.clone() })
    }
}

impl Scene {
    /// The beginning: nobody was scraped yet.
    pub(super) fn new(sidecars: &[Sidecar], domain: &TrustDomain) -> Self {
        let rows = sidecars.iter().map(|sidecar| Row::new(*sidecar.role(), sidecar.address(), domain)).collect();
        Self { rows, ledger: None, sent: None, rotations: 0, stage: RootStage::at(0) }
    }

    /// Takes what the agent says of its targets; returns what changed for somebody.
    pub(super) fn observe(&mut self, targets: &[TargetState], now: Instant) -> Vec<Change> {
        let mut changes = Vec::new();
        for row in &mut self.rows {
            let own = |target: &&TargetState| target.labels.get("instance") == Some(&row.instance);
            if let Some(target) = targets.iter().find(own) {
                changes.extend(row.observe(target, now));
            }
        }
        changes
    }

    /// Takes what has arrived at the built-in receiver.
    pub(super) fn receive(&mut self, ledger: Ledger) {
        for row in &mut self.rows {
            row.delivered = Some(ledger.targets.get(&row.instance).map_or(0, |tally| tally.exposed));
        }
        self.ledger = Some(ledger);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use super::super::receiver::Tally;
    use super::super::sidecar::CAST;
    use super::*;

    /// The cast on made-up addresses.
    pub(crate) fn scene() -> Scene {
        let domain = TrustDomain::parse("cluster.local").expect("valid");
        let address = |position: u16| SocketAddr::from(([127, 0, 0, 2], 40_000 + position));
        let rows = (0..).zip(CAST).map(|(position, role)| Row::new(role, address(position), &domain)).collect();
        Scene { rows, ledger: None, sent: None, rotations: 0, stage: RootStage::at(0) }
    }

    /// A target as the API would list it after its last scrape ended so.
    pub(crate) fn target(row: &Row, reason: Option<&str>) -> TargetState {
        let mut target = TargetState {
            labels: [("instance".to_owned(), row.instance.clone())].into(),
            health: "up".to_owned(),
            samples_kept: 100,
            ..row.target.clone()
        };
        target.reason = reason.unwrap_or_default().to_owned();
        match reason {
            None => target.scrapes_succeeded += 1,
            Some(reason) => {
                target.health = "down".to_owned();
                target.last_error = format!("{reason}: told");
                target.hint = "look".to_owned();
                target.scrapes_failed += 1;
            }
        }
        target
    }

    #[test]
    fn a_change_is_told_once() {
        let mut scene = scene();
        let now = Instant::now();
        let first = [target(&scene.rows[0], None)];
        assert_eq!(scene.observe(&first, now).len(), 1);
        let later = now + Duration::from_millis(200);
        assert!(scene.observe(&first, later).is_empty());
        assert_eq!((scene.rows[0].seen, scene.rows[0].scraped), (Some(now), 100), "it is the same scrape");
        let second = [target(&scene.rows[0], Some("timeout"))];
        let changes = scene.observe(&second, later);
        assert_eq!(changes, [Change { name: "cart", state: State::Down, detail: "timeout: told".to_owned() }]);
        assert_eq!((scene.rows[0].seen, scene.rows[0].scraped), (Some(later), 100));
        assert_eq!(scene.rows[0].reasons, BTreeSet::from(["timeout".to_owned()]));
        assert_eq!(scene.rows[1].state, State::Waiting);
    }

    #[test]
    fn refused_means_that_the_wrong_one_answered() {
        let mut scene = scene();
        let targets = [
            target(&scene.rows[4], Some("identity_mismatch")),
            target(&scene.rows[5], Some("plaintext_server")),
            target(&scene.rows[0], Some("http_status")),
        ];
        scene.observe(&targets, Instant::now());
        let states = [4, 5, 0].map(|at: usize| scene.rows[at].state);
        assert_eq!(states, [State::Refused, State::Refused, State::Down]);
    }

    #[test]
    fn what_arrived_is_told_by_instance() {
        let mut scene = scene();
        let tally = Tally { exposed: 7, good: 1, failed: 0 };
        let ledger = Ledger { targets: [(scene.rows[2].instance.clone(), tally)].into(), ..Ledger::default() };
        scene.receive(ledger);
        assert_eq!(scene.rows[2].delivered, Some(7));
        assert_eq!(scene.rows[3].delivered, Some(0));
    }
}
