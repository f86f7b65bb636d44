//! The end of the run: what was promised, promise by promise, and whether it was kept.
//!
//! A pure function of the last [`Scene`]. Where the built-in receiver took part, its ledger is asked and not the agent:
//! it saw `up` of every single scrape, and the bytes that really arrived.

use serde::Serialize;

use super::certs::RootStage;
use super::exposition::MARKER;
use super::scene::{Row, Scene, State};
use super::sidecar::Conduct;

/// Everything that a reader, or a program, may want to know of a run.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Outcome {
    /// Whether every promise was kept.
    pub(super) passed: bool,
    /// How long the mesh lived.
    pub(super) seconds: f64,
    /// What arrived.
    pub(super) delivered: Delivered,
    /// How often everybody got a new key and leaf, and the roots that are trusted now.
    pub(super) rotations: Rotations,
    /// Every workload.
    pub(super) targets: Vec<TargetOutcome>,
    /// Every promise.
    pub(super) promises: Vec<Promise>,
}

/// What arrived.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Delivered {
    /// The receiver.
    pub(super) url: String,
    /// Samples that it took.
    pub(super) samples: u64,
    /// Requests that it took; absent for somebody else's receiver.
    pub(super) requests: Option<u64>,
    /// Series with the marker of those who must be refused; absent for somebody else's receiver.
    pub(super) marked_series: Option<u64>,
}

/// What happened to the certificates.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Rotations {
    /// How often everybody got a new key and leaf.
    pub(super) count: u32,
    /// The roots that are trusted at the end: `old`, `old+new` or `new`.
    pub(super) roots: &'static str,
    /// Scrapes of good targets that failed.
    pub(super) failed_scrapes: u64,
}

/// One workload.
#[derive(Clone, Debug, Serialize)]
pub(super) struct TargetOutcome {
    /// Its name.
    pub(super) name: &'static str,
    /// Where it listened.
    pub(super) address: String,
    /// Whether it is one that must be refused.
    pub(super) must_be_refused: bool,
    /// Who had to answer.
    pub(super) expected_identity: String,
    /// Who answered, as far as a certificate told.
    pub(super) presented_identity: Option<String>,
    /// How its last scrape ended.
    pub(super) state: &'static str,
    /// Why it failed.
    pub(super) reason: Option<String>,
    /// The same in words.
    pub(super) error: Option<String>,
    /// What to look at or to change.
    pub(super) hint: Option<String>,
    /// Its scrapes.
    pub(super) scrapes: u64,
    /// Those that failed.
    pub(super) failed_scrapes: u64,
    /// Every reason that was seen, also of failures that are over.
    pub(super) reasons: Vec<String>,
    /// Samples of it that arrived, without those that the agent adds; absent for somebody else's receiver.
    pub(super) samples: Option<u64>,
}

/// Something that the demo is there to show.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Promise {
    /// In words.
    pub(super) promise: String,
    /// Whether it was kept.
    pub(super) kept: bool,
    /// What was seen, where it was not.
    pub(super) seen: Option<String>,
}

impl Promise {
    /// `broken` says what was seen; empty if the promise was kept.
    fn new(promise: impl Into<String>, broken: Vec<String>) -> Self {
        let seen = (!broken.is_empty()).then(|| broken.join("; "));
        Self { promise: promise.into(), kept: seen.is_none(), seen }
    }
}

/// Judges the run. `url` is the receiver; `undelivered` counts samples that the agent could not hand over when it
/// stopped.
pub(super) fn judge(scene: &Scene, url: &str, seconds: f64, undelivered: u64) -> Outcome {
    let targets: Vec<_> = scene.rows.iter().map(|row| target(scene, row)).collect();
    let promises = promises(scene, &targets, undelivered);
    let ledger = scene.ledger.as_ref();
    Outcome {
        passed: promises.iter().all(|promise| promise.kept),
        seconds,
        delivered: Delivered {
            url: url.to_owned(),
            samples: ledger.map_or(scene.sent.unwrap_or(0), |ledger| ledger.samples),
            requests: ledger.map(|ledger| ledger.requests),
            marked_series: ledger.map(|ledger| ledger.marked),
        },
        rotations: Rotations {
            count: scene.rotations,
            roots: scene.stage.trusted(),
            failed_scrapes: targets.iter().filter(|t| !t.must_be_refused).map(|t| t.failed_scrapes).sum(),
        },
        targets,
        promises,
    }
}

fn target(scene: &Scene, row: &Row) -> TargetOutcome {
    // The agent counts its scrapes, the receiver counts `up`: the worse of the two is believed.
    let tally = scene.ledger.as_ref().and_then(|ledger| ledger.targets.get(&row.instance)).copied().unwrap_or_default();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    TargetOutcome {
        name: row.role.name,
        address: row.instance.clone(),
        must_be_refused: row.role.refusal().is_some(),
        expected_identity: row.expected.to_string(),
        presented_identity: given(&row.target.presented_identity),
        state: row.state.as_str(),
        reason: given(&row.target.reason),
        error: given(&row.target.last_error),
        hint: given(&row.target.hint),
        scrapes: (row.target.scrapes_succeeded + row.target.scrapes_failed).max(tally.good + tally.failed),
        failed_scrapes: row.target.scrapes_failed.max(tally.failed),
        reasons: row.reasons.iter().cloned().collect(),
        samples: row.delivered,
    }
}

fn promises(scene: &Scene, targets: &[TargetOutcome], undelivered: u64) -> Vec<Promise> {
    let good = || targets.iter().filter(|target| !target.must_be_refused);
    let mut promises = vec![
        Promise::new(
            "every good target is scraped",
            good().filter(|t| t.state != State::Up.as_str()).map(|t| format!("{} is {}", t.name, t.state)).collect(),
        ),
        Promise::new(
            "no scrape of a good target fails while certificates and roots rotate",
            good()
                .filter(|t| t.failed_scrapes > 0)
                .map(|t| format!("{}: {} failed {}", t.name, t.failed_scrapes, t.reasons.join(", ")))
                .collect(),
        ),
        Promise::new("certificates rotate while the agent scrapes", unrotated(scene)),
    ];
    for row in &scene.rows {
        let who = match row.role.conduct {
            Conduct::Honest => continue,
            Conduct::Impostor { .. } => "the impostor",
            Conduct::Plaintext => "the plaintext server",
        };
        let wanted = row.role.refusal().map_or("", |reason| reason.name());
        promises.push(Promise::new(format!("{who} is refused as {wanted}"), not_refused(row, wanted)));
    }
    promises.push(Promise::new("what was scraped is delivered", undelivered_of(scene, targets, undelivered)));
    if let Some(ledger) = &scene.ledger {
        let mut broken: Vec<_> = targets
            .iter()
            .filter(|target| target.must_be_refused && target.samples != Some(0))
            .map(|target| format!("{} samples of {}", target.samples.unwrap_or(0), target.name))
            .collect();
        if ledger.marked > 0 {
            broken.push(format!("{} series with {MARKER}", ledger.marked));
        }
        promises.push(Promise::new("not one sample of a refused target arrives", broken));
    }
    promises
}

fn unrotated(scene: &Scene) -> Vec<String> {
    if scene.rotations == 0 { vec!["the run was too short for a rotation".to_owned()] } else { Vec::new() }
}

fn not_refused(row: &Row, wanted: &str) -> Vec<String> {
    let mut broken = Vec::new();
    if row.target.scrapes_failed == 0 {
        broken.push("no scrape of it was refused".to_owned());
    }
    if row.target.scrapes_succeeded > 0 {
        broken.push(format!("{} scrapes of it succeeded", row.target.scrapes_succeeded));
    }
    broken
        .extend(row.reasons.iter().filter(|reason| *reason != wanted).map(|reason| format!("it failed as {reason:?}")));
    broken
}

fn undelivered_of(scene: &Scene, targets: &[TargetOutcome], undelivered: u64) -> Vec<String> {
    let mut broken = Vec::new();
    match &scene.ledger {
        Some(ledger) => {
            let missing = targets.iter().filter(|target| !target.must_be_refused && target.samples == Some(0));
            broken.extend(missing.map(|target| format!("nothing of {} arrived", target.name)));
            if ledger.malformed > 0 {
                broken.push(format!("{} requests were not remote write", ledger.malformed));
            }
        }
        None if scene.sent.unwrap_or(0) == 0 => broken.push("the receiver took no sample".to_owned()),
        None => {}
    }
    if undelivered > 0 {
        broken.push(format!("{undelivered} samples were still waiting at the end"));
    }
    broken
}

impl Outcome {
    /// Whether the change of roots came to its end.
    pub(super) fn roots_changed(&self) -> bool {
        self.rotations.roots == RootStage::New.trusted()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::time::Instant;

    use super::super::receiver::{Ledger, Tally};
    use super::super::scene::tests::{scene, target};
    use super::*;

    /// A run as it should be.
    pub(crate) fn kept() -> Scene {
        let mut scene = scene();
        let mut ledger = Ledger { requests: 9, samples: 500, ..Ledger::default() };
        let mut targets = Vec::new();
        for row in &scene.rows {
            let reason = row.role.refusal().map(|reason| reason.name());
            targets.push(target(row, reason));
            let tally = match reason {
                None => Tally { exposed: 100, good: 1, failed: 0 },
                Some(_) => Tally { exposed: 0, good: 0, failed: 1 },
            };
            ledger.targets.insert(row.instance.clone(), tally);
        }
        scene.observe(&targets, Instant::now());
        scene.receive(ledger);
        scene.rotations = 6;
        scene.stage = RootStage::at(6);
        scene
    }

    /// What is seen of the promises that `spoil` breaks.
    fn broken(spoil: impl FnOnce(&mut Scene)) -> Vec<String> {
        let mut scene = kept();
        spoil(&mut scene);
        let outcome = judge(&scene, "http://receiver", 20.0, 0);
        assert_eq!(outcome.passed, outcome.promises.iter().all(|promise| promise.kept));
        outcome.promises.into_iter().filter_map(|promise| promise.seen).collect()
    }

    fn spoil_ledger(scene: &mut Scene, spoil: impl FnOnce(&mut Ledger, &str), row: usize) {
        let mut ledger = scene.ledger.clone().expect("built in");
        spoil(&mut ledger, &scene.rows[row].instance.clone());
        scene.receive(ledger);
    }

    #[test]
    fn a_run_as_it_should_be_passes() {
        let outcome = judge(&kept(), "http://receiver", 20.0, 0);
        assert!(outcome.passed, "{:?}", outcome.promises);
        assert_eq!((outcome.promises.len(), outcome.rotations.failed_scrapes), (7, 0));
        assert!(outcome.roots_changed());
    }

    #[test]
    fn each_promise_can_be_broken() {
        let failed = |scene: &mut Scene, row: usize, reason: &str| {
            let target = target(&scene.rows[row], Some(reason));
            scene.observe(&[target], Instant::now());
        };
        let up = |scene: &mut Scene, row: usize| {
            let target = target(&scene.rows[row], None);
            scene.observe(&[target], Instant::now());
        };
        assert_eq!(broken(|scene| failed(scene, 0, "timeout")), ["cart is down", "cart: 1 failed timeout"]);
        assert_eq!(
            broken(|scene| {
                failed(scene, 0, "timeout");
                let target = target(&scene.rows[0], None);
                scene.observe(&[target], Instant::now());
            }),
            ["cart: 1 failed timeout"],
            "a scrape that failed in between counts"
        );
        assert_eq!(
            broken(|scene| spoil_ledger(scene, |ledger, at| ledger.targets.get_mut(at).expect("there").failed = 2, 1)),
            ["checkout: 2 failed "],
            "also one that only the receiver noticed"
        );
        assert_eq!(broken(|scene| scene.rotations = 0), ["the run was too short for a rotation"]);
        assert_eq!(broken(|scene| up(scene, 4)), ["1 scrapes of it succeeded"]);
        assert_eq!(broken(|scene| failed(scene, 4, "unknown_authority")), ["it failed as \"unknown_authority\""]);
        assert_eq!(broken(|scene| failed(scene, 5, "tls_handshake")), ["it failed as \"tls_handshake\""]);
        assert_eq!(
            broken(|scene| spoil_ledger(scene, |ledger, at| ledger.targets.get_mut(at).expect("there").exposed = 0, 2)),
            ["nothing of search arrived"]
        );
        assert_eq!(
            broken(|scene| spoil_ledger(scene, |ledger, at| ledger.targets.get_mut(at).expect("there").exposed = 3, 5)),
            ["3 samples of legacy"]
        );
        assert_eq!(
            broken(|scene| spoil_ledger(scene, |ledger, _| ledger.marked = 1, 0)),
            ["1 series with demo_impostor_marker"]
        );
        assert_eq!(
            broken(|scene| spoil_ledger(scene, |ledger, _| ledger.malformed = 1, 0)),
            ["1 requests were not remote write"]
        );
        assert!(!judge(&kept(), "http://receiver", 20.0, 12).passed, "what waits at the end was not delivered");
    }

    #[test]
    fn a_foreign_receiver_is_judged_by_the_agents_count() {
        let run = |sent| {
            let mut scene = kept();
            scene.ledger = None;
            scene.sent = sent;
            judge(&scene, "http://receiver", 20.0, 0)
        };
        assert!(run(Some(400)).passed);
        assert_eq!(run(Some(400)).delivered.samples, 400);
        assert!(!run(None).passed && !run(Some(0)).passed);
    }
}
