//! What happened to a target lately, though its last scrape may have been good: what an alert that looks back is about.
//!
//! The newest event of each kind is remembered for as long as any alert looks back, so that a target holds no more of them than
//! there are reasons to fail, and one of which nothing is to be said holds none. When an event is still news is for
//! whoever shows it to say.

use std::time::{Duration, SystemTime};

use crate::model::{Failure, ScrapeReport};

/// The longest that an alert looks back.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// One of the things that may happen.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The scrape failed.
    Failed(Failure),
    /// Its answer was good and lacked something.
    Lacked(Failure),
    /// So many of its samples were dropped because only the scraper may write them.
    Forged(usize),
    /// Who answered was accepted only because the job's `match` asks for less than the whole ID.
    Weaker(String),
}

impl Event {
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Event::Failed(one), Event::Failed(other)) | (Event::Lacked(one), Event::Lacked(other)) => {
                one.reason == other.reason
            }
            (Event::Forged(_), Event::Forged(_)) | (Event::Weaker(_), Event::Weaker(_)) => true,
            _ => false,
        }
    }
}

/// The newest event of each kind, with the beginning of its scrape.
#[derive(Clone, Debug, Default)]
pub struct Past {
    events: Vec<(SystemTime, Event)>,
}

impl Past {
    /// Remembers what one more scrape was like, and forgets what is too old to matter.
    pub fn note(&mut self, report: &ScrapeReport) {
        let now = report.started;
        // A clock that was set back leaves an event in the time to come; it is none of the past.
        self.events.retain(|(at, _)| now.duration_since(*at).is_ok_and(|ago| ago < KEPT));
        let failed = report.failure.iter().map(|failure| Event::Failed(failure.clone().sending(Vec::new())));
        let lacked = report.lack.iter().cloned().map(Event::Lacked);
        let forged = (report.forged > 0).then_some(Event::Forged(report.forged));
        let weaker = report.peer.iter().filter(|peer| !peer.exact && report.failure.is_none());
        let weaker = weaker.map(|peer| Event::Weaker(peer.identity.clone()));
        for event in failed.chain(lacked).chain(forged).chain(weaker) {
            self.events.retain(|(_, known)| !known.is_like(&event));
            self.events.push((now, event));
        }
    }

    /// All of it: when, and what.
    pub fn events(&self) -> impl Iterator<Item = (SystemTime, &Event)> {
        self.events.iter().map(|(at, event)| (*at, event))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::model::{Phases, Reason};

    fn at(minute: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(60 * minute)
    }

    fn scrape(minute: u64, failure: Option<Reason>, forged: usize) -> ScrapeReport {
        ScrapeReport {
            started: at(minute),
            phases: Phases::default(),
            samples: 1,
            samples_kept: 1,
            forged,
            body_bytes: 1,
            peer: None,
            failure: failure.map(|reason| Failure::new(reason, "so it is")),
            lack: None,
        }
    }

    #[test]
    fn the_newest_of_each_kind_is_remembered_for_a_while() {
        let mut past = Past::default();
        past.note(&scrape(0, None, 0));
        assert_eq!(past.events.capacity(), 0, "of a good scrape nothing is kept");
        for (minute, failure, forged) in [
            (1, Some(Reason::Timeout), 0),
            (2, Some(Reason::Timeout), 0),
            (3, Some(Reason::IdentityMismatch), 0),
            (4, None, 7),
            (5, None, 0),
        ] {
            past.note(&scrape(minute, failure, forged));
        }
        let seen: Vec<(SystemTime, &Event)> = past.events().collect();
        let failed = |reason| Event::Failed(Failure::new(reason, "so it is"));
        let wanted =
            [(at(2), &failed(Reason::Timeout)), (at(3), &failed(Reason::IdentityMismatch)), (at(4), &Event::Forged(7))];
        assert_eq!(seen, wanted);
        past.note(&scrape(18, None, 0));
        assert_eq!(past.events().collect::<Vec<_>>(), [(at(4), &Event::Forged(7))]);
        past.note(&scrape(3, None, 0));
        assert_eq!(past.events().count(), 0, "what is not past is not remembered");
    }
}
