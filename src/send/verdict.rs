//! What an answer, or the lack of one, means for the samples: decided here and nowhere else.
//!
//! | what happened                                       | verdict                                  |
//! |-----------------------------------------------------|------------------------------------------|
//! | 2xx                                                 | delivered                                |
//! | no answer: network, TLS, identity, deadline         | retry                                    |
//! | we are not ready: certificate or secret not usable  | retry                                    |
//! | 5xx and beyond                                      | retry, not before `Retry-After`          |
//! | 429                                                 | the same, or rejected if configured so   |
//! | 3xx, a redirect that is not followed                | retry: nothing says the samples are bad  |
//! | any other 4xx                                       | rejected                                 |

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::{LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

/// What becomes of the samples of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has them.
    Delivered,
    /// They are sent again, not before `after` if the receiver asked for that.
    Retry {
        /// What the receiver asked for, not capped.
        after: Option<Duration>,
        /// Why.
        trouble: Trouble,
    },
    /// The receiver does not want them, now or later.
    Rejected {
        /// The status.
        status: StatusCode,
        /// What the receiver said, safe to show.
        words: String,
    },
}

/// Why samples are not delivered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What sort.
    pub kind: TroubleKind,
    /// What happened, safe to show: foreign text is cleaned and known secrets are taken out.
    pub detail: String,
}

/// The sorts of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TroubleKind {
    /// We could not ask: our certificate, the roots, or a secret is missing or unusable.
    NotReady,
    /// Who answered could not be verified, or is somebody else.
    Identity,
    /// No connection.
    Connect,
    /// No answer within `remote_timeout`.
    Timeout,
    /// The connection broke before the answer.
    Network,
    /// The receiver would have us go elsewhere.
    Redirect,
    /// The receiver cannot take the samples now.
    Status(StatusCode),
}

impl TroubleKind {
    /// A word for the log and the API.
    pub fn name(self) -> &'static str {
        match self {
            TroubleKind::NotReady => "not_ready",
            TroubleKind::Identity => "identity",
            TroubleKind::Connect => "connect",
            TroubleKind::Timeout => "timeout",
            TroubleKind::Network => "network",
            TroubleKind::Redirect => "redirect",
            TroubleKind::Status(_) => "status",
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            TroubleKind::Status(status) => write!(out, "{}: {}", status.as_u16(), self.detail),
            kind => write!(out, "{}: {}", kind.name(), self.detail),
        }
    }
}

/// What is known of an answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// What the receiver said, safe to show.
    pub(super) words: String,
}

impl Verdict {
    /// What an answer means. `now` is for dates in `Retry-After`.
    pub(super) fn on(answer: Answer, retry_on_429: bool, now: SystemTime) -> Self {
        let Answer { status, headers, words } = answer;
        let code = status.as_u16();
        let retry = |kind, detail| Verdict::Retry {
            after: headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now)),
            trouble: Trouble { kind, detail },
        };
        match code {
            200..=299 => Verdict::Delivered,
            300..=399 => retry(TroubleKind::Redirect, redirect(status, &headers)),
            429 if retry_on_429 => retry(TroubleKind::Status(status), words),
            400..=499 => Verdict::Rejected { status, words },
            _ => retry(TroubleKind::Status(status), words),
        }
    }
}

/// Where a redirect points, without its query: only redirects within the origin, with 307 or 308, are followed.
fn redirect(status: StatusCode, headers: &HeaderMap) -> String {
    let place = headers.get(LOCATION).and_then(|value| value.to_str().ok()).unwrap_or("nowhere");
    let place = place.split(['?', '#']).next().unwrap_or_default();
    let place = match place.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or_default()),
        None => place.to_owned(),
    };
    format!(
        "{} to {} is not followed; put the right url into remote_write",
        status.as_u16(),
        crate::model::clean(&place)
    )
}

/// Whole seconds, or an HTTP date in the future.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        // Longer than u64 is longer than any cap.
        return if text.is_empty() { None } else { Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX))) };
    }
    httpdate::parse_http_date(text).ok()?.duration_since(now).ok()
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn on(status: u16, headers: &[(&'static str, &str)]) -> Verdict {
        let headers = headers.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")));
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("in range"),
            headers: headers.collect(),
            words: "words".into(),
        };
        Verdict::on(answer, true, UNIX_EPOCH + Duration::from_secs(1_000_000))
    }

    fn asked(text: &str) -> Option<Duration> {
        match on(503, &[("retry-after", text)]) {
            Verdict::Retry { after, .. } => after,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_status_has_one_meaning() {
        for status in 200..300 {
            assert_eq!(on(status, &[]), Verdict::Delivered, "{status}");
        }
        for status in (300..400).chain([429]).chain(500..1000) {
            assert!(matches!(on(status, &[]), Verdict::Retry { .. }), "{status}");
        }
        for status in (400..500).filter(|status| *status != 429) {
            assert!(matches!(on(status, &[]), Verdict::Rejected { words, .. } if words == "words"), "{status}");
        }
    }

    #[test]
    fn being_told_to_slow_down_can_be_a_rejection() {
        let answer = Answer { status: StatusCode::TOO_MANY_REQUESTS, headers: HeaderMap::new(), words: String::new() };
        assert!(matches!(Verdict::on(answer, false, UNIX_EPOCH), Verdict::Rejected { .. }));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let seconds = Duration::from_secs;
        assert_eq!(asked("7"), Some(seconds(7)));
        assert_eq!(asked(" 0 "), Some(seconds(0)));
        assert_eq!(asked("1000000000"), Some(seconds(1_000_000_000)));
        assert_eq!(asked("99999999999999999999999"), Some(seconds(u64::MAX)));
        assert_eq!(asked("Mon, 12 Jan 1970 13:46:50 GMT"), Some(seconds(10)));
        assert!(asked("Fri, 31 Dec 9999 23:59:59 GMT").is_some());
        for nothing in ["Mon, 12 Jan 1970 13:46:30 GMT", "-1", "1.5", "soon", ""] {
            assert_eq!(asked(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn a_redirect_is_shown_without_what_may_be_secret() {
        let Verdict::Retry { trouble, .. } = on(302, &[("location", "https://user:pass@evil.example/x?token=t#f")])
        else {
            panic!("not retried");
        };
        assert_eq!(trouble.kind, TroubleKind::Redirect);
        assert!(trouble.detail.contains("https://evil.example/x "), "{trouble}");
        assert!(!trouble.detail.contains("pass") && !trouble.detail.contains("token"), "{trouble}");
    }
}
