//! What an answer, or the lack of one, means for the samples: decided here and nowhere else.
//!
//! | what happened                                       | verdict                                  |
//! |-----------------------------------------------------|------------------------------------------|
//! | 2xx                                                 | delivered, but for what it says to lack  |
//! | 2xx on 2.0, not saying that anything was written    | rejected: it took it for something else  |
//! | 415 on 2.0                                          | not known: sent again as 1.0             |
//! | no answer: network, TLS, identity, deadline         | retry                                    |
//! | we are not ready: certificate or secret not usable  | retry                                    |
//! | 5xx and beyond                                      | retry, not before `Retry-After`          |
//! | 429                                                 | the same, or rejected if configured so   |
//! | 3xx, a redirect that is not followed                | retry: nothing says the samples are bad  |
//! | any other 4xx                                       | rejected                                 |

use std::fmt;
use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};

use super::kinds::Kinds;
use crate::model::WriteFormat;

/// What becomes of the samples of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The receiver has them.
    Delivered {
        /// But for so many, by its own count.
        unwritten: Kinds,
    },
    /// The receiver does not know the message of 2.0; another one may say the same.
    NotKnown {
        /// What the receiver said, safe to show.
        words: String,
    },
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
        /// How many of them it wrote nevertheless, by its own count.
        written: Kinds,
    },
}

/// What was sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) format: WriteFormat,
    /// What is in it.
    pub(super) held: Kinds,
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
    /// Where it would have us go, without the secrets that we know of: it may repeat one there.
    pub(super) location: Option<String>,
}

impl Verdict {
    /// What an answer means. `now` is for dates in `Retry-After`.
    pub(super) fn on(answer: Answer, asked: Asked, retry_on_429: bool, now: SystemTime) -> Self {
        let Answer { status, headers, words, location } = answer;
        let written = written(&headers);
        let code = status.as_u16();
        let retry = |kind, detail| Verdict::Retry {
            after: headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, now)),
            trouble: Trouble { kind, detail },
        };
        match code {
            200..=299 if asked.format == WriteFormat::V2 && asked.held.points() > 0 && is_nothing(written) => {
                Verdict::Rejected { status, words: UNCONFIRMED.to_owned(), written: Kinds::default() }
            }
            200..=299 => {
                let unwritten = written.map(|written| asked.held.without(written)).unwrap_or_default();
                Verdict::Delivered { unwritten }
            }
            300..=399 => retry(TroubleKind::Redirect, redirect(status, location.as_deref())),
            429 if retry_on_429 => retry(TroubleKind::Status(status), words),
            415 if asked.format == WriteFormat::V2 => Verdict::NotKnown { words },
            400..=499 => Verdict::Rejected { status, words, written: written.unwrap_or_default() },
            _ => retry(TroubleKind::Status(status), words),
        }
    }
}

/// Said instead of the receiver's words, which say that all is well.
const UNCONFIRMED: &str = "the receiver took remote write 2.0 and does not say that it wrote anything: most likely it only \
     knows 1.0; write protobuf_message: prometheus.WriteRequest";

/// What a receiver says that it wrote: with 2.0 each must say so. A header that is missing is 0; `None` if there is none of
/// them.
fn written(headers: &HeaderMap) -> Option<Kinds> {
    let number = |name: &str| -> Option<u64> {
        let value = headers.get(name)?.to_str().ok()?;
        // Sums of what nobody could send must not overflow.
        value.trim().parse().ok().map(|number: u64| number.min(u64::MAX / 4))
    };
    let told =
        ["samples", "histograms", "exemplars"].map(|what| number(&format!("x-prometheus-remote-write-{what}-written")));
    let [samples, histograms, exemplars] = told.map(Option::unwrap_or_default);
    told.iter().any(Option::is_some).then_some(Kinds { samples, histograms, exemplars })
}

fn is_nothing(written: Option<Kinds>) -> bool {
    written.unwrap_or_default() == Kinds::default()
}

/// Where a redirect points, without its query: only redirects within the origin, with 307 or 308, are followed.
fn redirect(status: StatusCode, location: Option<&str>) -> String {
    let place = location.unwrap_or("nowhere");
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

    const HELD: Kinds = Kinds { samples: 6, histograms: 4, exemplars: 3 };
    const NOTHING: Kinds = Kinds { samples: 0, histograms: 0, exemplars: 0 };
    const OF_1: Asked = Asked { format: WriteFormat::V1, held: HELD };
    const OF_2: Asked = Asked { format: WriteFormat::V2, held: HELD };

    fn on(status: u16, headers: &[(&'static str, &str)]) -> Verdict {
        on_asking(OF_1, status, headers)
    }

    fn on_asking(asked: Asked, status: u16, headers: &[(&'static str, &str)]) -> Verdict {
        let headers = headers.iter().map(|(name, value)| (name.parse().expect("name"), value.parse().expect("value")));
        let answer = Answer {
            status: StatusCode::from_u16(status).expect("in range"),
            headers: headers.collect(),
            words: "words".into(),
            location: None,
        };
        Verdict::on(answer, asked, true, UNIX_EPOCH + Duration::from_secs(1_000_000))
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
            assert_eq!(on(status, &[]), Verdict::Delivered { unwritten: NOTHING }, "{status}");
        }
        for status in (300..400).chain([429]).chain(500..1000) {
            assert!(matches!(on(status, &[]), Verdict::Retry { .. }), "{status}");
        }
        for status in (400..500).filter(|status| *status != 429) {
            assert!(matches!(on(status, &[]), Verdict::Rejected { words, .. } if words == "words"), "{status}");
        }
    }

    const SAMPLES: &str = "x-prometheus-remote-write-samples-written";
    const HISTOGRAMS: &str = "x-prometheus-remote-write-histograms-written";
    const EXEMPLARS: &str = "x-prometheus-remote-write-exemplars-written";

    #[test]
    fn what_a_receiver_says_to_have_written_counts() {
        for asked in [OF_1, OF_2] {
            let unwritten = |headers: &[(&'static str, &str)]| match on_asking(asked, 204, headers) {
                Verdict::Delivered { unwritten } => unwritten,
                other => panic!("{other:?}"),
            };
            let of = |samples, histograms, exemplars| Kinds { samples, histograms, exemplars };
            assert_eq!(unwritten(&[(SAMPLES, "10")]), of(0, 0, 3), "whatever it took histograms for");
            assert_eq!(unwritten(&[(SAMPLES, "6"), (HISTOGRAMS, "4"), (EXEMPLARS, "3")]), NOTHING);
            assert_eq!(unwritten(&[(SAMPLES, "11"), (EXEMPLARS, "4")]), NOTHING);
            assert_eq!(unwritten(&[(HISTOGRAMS, "3"), (EXEMPLARS, "3")]), of(6, 1, 0));
            assert_eq!(unwritten(&[(EXEMPLARS, "1")]), of(6, 4, 2));
            let most = u64::MAX.to_string();
            assert_eq!(unwritten(&[(SAMPLES, &most), (HISTOGRAMS, &most), (EXEMPLARS, &most)]), NOTHING);
            let rejected = on_asking(asked, 400, &[(SAMPLES, "6"), (HISTOGRAMS, "1")]);
            let wrote = of(6, 1, 0);
            assert!(matches!(rejected, Verdict::Rejected { written, .. } if written == wrote), "{rejected:?}");
        }
    }

    #[test]
    fn who_takes_2_and_wrote_nothing_took_it_for_something_else() {
        for headers in [&[][..], &[(SAMPLES, "0"), (HISTOGRAMS, "0"), (EXEMPLARS, "0")], &[(SAMPLES, "many")]] {
            match on_asking(OF_2, 200, headers) {
                Verdict::Rejected { status: StatusCode::OK, words, written: NOTHING } => {
                    assert!(words.contains("protobuf_message: prometheus.WriteRequest"), "{words}");
                }
                other => panic!("{headers:?}: {other:?}"),
            }
        }
        assert_eq!(on(200, &[(SAMPLES, "0")]), Verdict::Delivered { unwritten: HELD }, "1.0 must not be confirmed");
        let nothing = Asked { held: NOTHING, ..OF_2 };
        assert_eq!(on_asking(nothing, 200, &[]), Verdict::Delivered { unwritten: NOTHING });
    }

    #[test]
    fn only_2_can_be_not_known() {
        assert!(matches!(on_asking(OF_2, 415, &[]), Verdict::NotKnown { words } if words == "words"));
        assert!(matches!(on(415, &[]), Verdict::Rejected { .. }));
    }

    #[test]
    fn being_told_to_slow_down_can_be_a_rejection() {
        let answer = Answer {
            status: StatusCode::TOO_MANY_REQUESTS,
            headers: HeaderMap::new(),
            words: String::new(),
            location: None,
        };
        assert!(matches!(Verdict::on(answer, OF_1, false, UNIX_EPOCH), Verdict::Rejected { .. }));
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
        let answer = Answer {
            status: StatusCode::FOUND,
            headers: HeaderMap::new(),
            words: String::new(),
            location: Some("https://user:pass@evil.example/x?token=t#f".into()),
        };
        let Verdict::Retry { trouble, .. } = Verdict::on(answer, OF_1, true, UNIX_EPOCH) else {
            panic!("not retried");
        };
        assert_eq!(trouble.kind, TroubleKind::Redirect);
        assert!(trouble.detail.contains("https://evil.example/x "), "{trouble}");
        assert!(!trouble.detail.contains("pass") && !trouble.detail.contains("token"), "{trouble}");
    }
}
