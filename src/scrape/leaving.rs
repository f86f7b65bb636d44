//! Failures of a pod that is being deleted: that nobody answers there any more is what was to be expected.

use crate::model::{Failure, Reason};

/// The failure as people should see it where the pod is terminating: one that only says that nobody is there, or that the
/// one who is there has stopped half way, becomes `pod_terminating`. Who answered, and with which certificate, stays
/// what it is: an address that is being given up is just where somebody else may be met.
pub(super) fn excuse(failure: Failure, status: Option<u16>) -> Failure {
    let expected = match failure.reason {
        Reason::ConnectRefused
        | Reason::ConnectTimeout
        | Reason::ConnectFailed
        | Reason::ClosedInHandshake
        | Reason::ClosedAfterHandshake
        | Reason::Timeout
        | Reason::HttpProtocol
        | Reason::Truncated => true,
        // The proxy that is still there says that what is behind it is not.
        Reason::HttpStatus => matches!(status, Some(502..=504)),
        _ => false,
    };
    if expected { failure.seen_as(Reason::PodTerminating) } else { failure }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ExitClass;

    #[test]
    fn that_nobody_is_there_is_excused_and_keeps_its_words() {
        for reason in [
            Reason::ConnectRefused,
            Reason::ConnectTimeout,
            Reason::ConnectFailed,
            Reason::ClosedInHandshake,
            Reason::ClosedAfterHandshake,
            Reason::Timeout,
            Reason::HttpProtocol,
            Reason::Truncated,
        ] {
            let excused = excuse(Failure::new(reason, "10.0.0.7:15092: gone"), None);
            assert_eq!(excused.reason, Reason::PodTerminating);
            assert_eq!(excused.detail, format!("{reason}: 10.0.0.7:15092: gone"));
            assert_eq!(excused.hint(), Reason::PodTerminating.hint());
        }
        for (status, reason) in [
            (502, Reason::PodTerminating),
            (503, Reason::PodTerminating),
            (504, Reason::PodTerminating),
            (404, Reason::HttpStatus),
            (500, Reason::HttpStatus),
            (403, Reason::HttpStatus),
        ] {
            let failure = Failure::new(Reason::HttpStatus, "server returned HTTP status");
            assert_eq!(excuse(failure, Some(status)).reason, reason, "{status}");
        }
    }

    #[test]
    fn who_answered_is_never_excused() {
        let closed = [Reason::ClosedInHandshake, Reason::ClosedAfterHandshake];
        for reason in Reason::ALL.iter().copied().filter(|reason| reason.class() == ExitClass::Identity) {
            let kept = excuse(Failure::new(reason, "x"), None).reason == reason;
            assert_eq!(kept, !closed.contains(&reason), "{reason}");
        }
    }
}
