//! What goes wrong again and again is said once, and then at most once a minute with how often it was left unsaid.

use std::collections::HashMap;
use std::time::Duration;

use http::StatusCode;

use super::verdict::TroubleKind;
use crate::telemetry::Repeated;

/// The same complaint is logged at most this often.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// What there is to complain about; a closed set.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Complaint {
    Trouble(TroubleKind),
    Rejected(StatusCode),
    TooOld,
    /// The receiver says that it wrote less than it took.
    Unwritten,
    /// The receiver does not know the message of 2.0.
    NotKnown,
    /// Metadata was not taken.
    Metadata,
    /// A tenant is refused.
    Refused,
    /// The requests of a tenant fail, and those of others do not.
    Failing,
    /// What waits for one is given up.
    GivenUp,
}

/// Keeps the log from filling with one complaint.
#[derive(Default)]
pub(super) struct Complaints {
    said: HashMap<Complaint, Repeated>,
}

impl Complaints {
    /// Whether to say it now: then how often it was left unsaid.
    pub(super) fn due(&mut self, what: Complaint) -> Option<u64> {
        self.said.entry(what).or_insert_with(|| Repeated::new(SAY_EVERY)).speak()
    }

    /// After a recovery the same trouble is news again.
    pub(super) fn forget_troubles(&mut self) {
        self.said.retain(|what, _| !matches!(what, Complaint::Trouble(_)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_complaint_a_minute_with_what_was_left_unsaid() {
        let mut complaints = Complaints::default();
        let refused = Complaint::Trouble(TroubleKind::Connect);
        assert_eq!(complaints.due(refused), Some(0));
        assert_eq!(complaints.due(refused), None);
        assert_eq!(complaints.due(refused), None);
        assert_eq!(complaints.due(Complaint::TooOld), Some(0), "another complaint is another matter");
        tokio::time::advance(SAY_EVERY).await;
        assert_eq!(complaints.due(refused), Some(2));
        assert_eq!(complaints.due(refused), None);
    }

    #[tokio::test(start_paused = true)]
    async fn trouble_after_a_recovery_is_news() {
        let mut complaints = Complaints::default();
        let (refused, rejected) =
            (Complaint::Trouble(TroubleKind::Connect), Complaint::Rejected(StatusCode::BAD_REQUEST));
        assert_eq!((complaints.due(refused), complaints.due(rejected)), (Some(0), Some(0)));
        complaints.forget_troubles();
        assert_eq!((complaints.due(refused), complaints.due(rejected)), (Some(0), None));
    }
}
