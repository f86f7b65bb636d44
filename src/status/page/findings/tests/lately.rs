//! What is over counts as long as its alert looks back, and no longer.

use super::*;
use crate::status::page::findings::targets::{LACKED, WEAKER, news};

/// Each rule by its alert, without blanks.
fn rules() -> Vec<(&'static str, String)> {
    let rules = RULES.split("- alert: ").skip(1).map(|rule| rule.split_once('\n').expect("lines"));
    rules.map(|(name, rule)| (name, rule.split_whitespace().collect())).collect()
}

/// The window behind the first `what` of a rule, in minutes.
fn window(rule: &str, what: &str) -> Option<u64> {
    let (_, rest) = rule.split_once(what)?;
    let (_, rest) = rest.split_once('[')?;
    let (minutes, _) = rest.split_once("m]")?;
    minutes.parse().ok()
}

#[test]
fn what_is_over_is_news_as_long_as_its_alert_looks_back() {
    let mut told = BTreeSet::new();
    for (alert, rule) in rules() {
        let severity = if rule.contains("severity:critical") { Severity::Bad } else { Severity::Warning };
        for metric in ["max_over_time(meshscrape_targets_down{reason=~\"", "meshscrape_scrape_failures_total{reason=\""]
        {
            let Some((_, reasons)) = rule.split_once(metric) else { continue };
            let (reasons, _) = reasons.split_once('"').expect("the end of a text");
            let minutes = window(&rule, metric).expect("minutes");
            for name in reasons.split('|') {
                let reason = *Reason::ALL.iter().find(|reason| reason.name() == name).expect(name);
                assert_eq!(news(reason), Some((Duration::from_secs(60 * minutes), severity)), "{alert}: {name}");
                told.insert(reason);
            }
        }
        for (metric, time) in [
            ("meshscrape_partial_merges_total", LACKED),
            ("meshscrape_forged_synthetic_samples_total", LACKED),
            ("meshscrape_weaker_identity_matches_total", WEAKER),
        ] {
            let minutes = window(&rule, metric);
            assert!(minutes.is_none_or(|minutes| time == Duration::from_secs(60 * minutes)), "{alert}: {minutes:?}");
        }
    }
    for reason in Reason::ALL.iter().copied() {
        assert_eq!(news(reason).is_some(), told.contains(&reason), "{reason}");
    }
}

/// A target that is well, and was not so long before now.
fn was(ago: Duration, change: impl FnOnce(&mut Target, &mut ScrapeReport)) -> TargetSnapshot {
    let now = UNIX_EPOCH + Duration::from_secs(90 * DAY);
    let before = scraped(|target, last| {
        change(target, last);
        last.started = now - ago;
    });
    let mut after = scraped(|_, last| last.started = now);
    for snapshot in [&before, &after.clone()] {
        after.status.past.note(snapshot.status.last.as_ref().expect("a scrape"));
    }
    after
}

#[test]
fn what_a_target_did_a_moment_ago_is_told_though_it_is_well_now() {
    let failed =
        |reason| move |_: &mut Target, last: &mut ScrapeReport| last.failure = Some(Failure::new(reason, "so"));
    type Change = Box<dyn Fn(&mut Target, &mut ScrapeReport)>;
    let cases: [(Change, u64, Severity, &str); 6] = [
        (Box::new(failed(Reason::IdentityMismatch)), 5, Severity::Bad, "1 target down within the last 5m"),
        (Box::new(failed(Reason::TlsHandshake)), 5, Severity::Warning, "1 target down within the last 5m"),
        (Box::new(failed(Reason::MemoryBudget)), 10, Severity::Warning, "1 target down within the last 10m"),
        (
            Box::new(|_, last| last.lack = Some(Failure::new(Reason::PartialMerge, "no application"))),
            10,
            Severity::Warning,
            "1 target lacking something within the last 10m",
        ),
        (
            Box::new(|_, last| last.forged = 3),
            10,
            Severity::Warning,
            "1 target with series that only the scraper writes",
        ),
        (
            Box::new(|_, last| last.peer = Some(peer(false))),
            15,
            Severity::Note,
            "1 target answered by another identity",
        ),
    ];
    for (change, minutes, severity, title) in cases {
        let of = |seconds| {
            let target = was(Duration::from_secs(seconds), |target, last| change(target, last));
            of(&look(vec![], vec![target], receiver()))
        };
        let findings = of(60 * minutes - 1);
        let [finding] = &findings[..] else { panic!("{title}: {findings:?}") };
        assert!(finding.severity == severity && finding.title.starts_with(title), "{finding:?}");
        assert!(finding.examples[0].2.contains("m ago: "), "{finding:?}");
        assert_eq!(of(60 * minutes), [], "{title}: it is history");
    }
    let down = was(Duration::from_secs(1), failed(Reason::ConnectRefused));
    assert_eq!(of(&look(vec![], vec![down], receiver())), [], "one connection that failed once is no news");
}

#[test]
fn what_is_so_now_is_told_once() {
    let now = UNIX_EPOCH + Duration::from_secs(90 * DAY);
    let mut down = scraped(|_, last| {
        last.failure = Some(Failure::new(Reason::IdentityMismatch, "so"));
        last.started = now;
    });
    let last = down.status.last.clone().expect("a scrape");
    down.status.past.note(&last);
    let titles: Vec<String> = of(&look(vec![], vec![down], receiver())).into_iter().map(|one| one.title).collect();
    assert_eq!(titles, ["1 target down"]);
}
