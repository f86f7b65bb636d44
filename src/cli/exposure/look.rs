//! What the ports of a pod do when they are asked, from where this process runs.
//!
//! Always holds: of nothing but the pod's own address are the ports asked that are given here; connections begin no faster than
//! they may and each ends in time; nothing of a body is looked at; whoever answers over TLS was verified to be the pod's own
//! service account. It must not know: what an answer means for the pod.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::silence::{ENOUGH, Silence};
use super::{Facts, Role, Whereabouts};
use crate::cli::istio::{METRICS_PATH, PLAIN_ENVOY_PORT, PLAIN_MERGED_PORT};
use crate::clock::Clock;
use crate::connect::{Answered, CredentialsFeed, PlainAnswer, Request, Shown, Unanswered, ask_plainly, ask_verified};
use crate::model::{Address, Alpn, Failure, Match, Peer, Reason, SpiffeId, TrustDomain};

/// What a listener from before Istio 1.31 may want to be offered.
const LEGACY_ALPN: &str = "istio-http/1.1";
/// Without it a hanging application would leave a request behind in Istio's agent.
const SCRAPE_TIMEOUT: HeaderName = HeaderName::from_static("x-prometheus-scrape-timeout-seconds");
/// Envoy's route to Istio's agent gives up after 15 s.
const LONGEST_ANSWER: Duration = Duration::from_secs(14);

/// How a secure port answered a client that shows our certificate.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Securely {
    pub(in crate::cli) port: u16,
    pub(in crate::cli) outcome: Result<Answered, Unanswered>,
    /// Only once a protocol of Istio's was offered did it answer.
    pub(in crate::cli) wants_alpn: bool,
}

/// How a port answered plain HTTP.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Plainly {
    pub(in crate::cli) port: u16,
    pub(in crate::cli) outcome: Result<PlainAnswer, Failure>,
}

impl Plainly {
    /// Whether whoever asks gets metrics in plain text.
    pub(in crate::cli) fn gives_metrics(&self) -> bool {
        matches!(self.outcome, Ok(PlainAnswer::Status(200)))
    }

    /// Why it is not known what the port gives to others; `None` where it answered or the pod refused. What is dropped on the
    /// way, or accepted and closed by something there, looks the same as a pod that gives nothing.
    pub(in crate::cli) fn unseen(&self) -> Option<String> {
        match &self.outcome {
            Ok(PlainAnswer::Closed) => Some("the connection was closed without a byte".to_owned()),
            Ok(PlainAnswer::Status(_) | PlainAnswer::NotHttp) => None,
            Err(failure) if failure.reason == Reason::ConnectRefused => None,
            Err(failure) => Some(failure.to_string()),
        }
    }
}

/// All that was seen of one pod.
#[derive(Clone, Debug, Default)]
pub(in crate::cli) struct Seen {
    pub(in crate::cli) secure: Vec<Securely>,
    /// Plaintext ports, and secure ones that are announced and not opened by the proxy.
    pub(in crate::cli) plain: Vec<Plainly>,
}

/// How much may be asked.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) struct Limits {
    /// How long each connection may take, from its first packet to the end of the answer.
    pub(in crate::cli) timeout: Duration,
    /// The least time between the beginnings of two connections.
    pub(in crate::cli) pause: Duration,
}

/// Whoever asks.
#[derive(Clone)]
pub(in crate::cli) struct Asker {
    credentials: CredentialsFeed,
    trust_domain: TrustDomain,
    clock: Clock,
    limits: Limits,
    /// When the next connection may begin.
    next: Arc<Mutex<Instant>>,
    silence: Arc<Silence>,
}

impl Asker {
    pub(in crate::cli) fn new(credentials: CredentialsFeed, trust_domain: TrustDomain, limits: Limits) -> Self {
        let next = Arc::new(Mutex::new(Instant::now()));
        Self { credentials, trust_domain, clock: Clock::system(), limits, next, silence: Arc::default() }
    }

    /// The trust domain in which pods must answer.
    pub(in crate::cli) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Who must answer for a pod.
    pub(in crate::cli) fn expected(&self, facts: &Facts) -> Result<Peer, Failure> {
        let id =
            SpiffeId::of_service_account(&self.trust_domain, &facts.namespace, &facts.account).map_err(|error| {
                Failure::new(Reason::NoExpectedIdentity, format!("its service account has no SPIFFE ID: {error}"))
            })?;
        Ok(Peer::with_aliases(id, self.credentials.borrow().aliases(), Match::Exact))
    }

    /// Asks all of a pod that an audit asks; of one without an address of its own, nothing.
    pub(in crate::cli) async fn look(&self, facts: &Facts) -> Option<Seen> {
        let Whereabouts::At(ip) = facts.whereabouts else { return None };
        let mut seen = Seen::default();
        if facts.role == Role::Ambient {
            return Some(seen);
        }
        for &port in facts.secure_ports() {
            let securely = self.secure(facts, ip, port).await;
            // What listens there nobody knows: it may have been made by hand, with a side that is not TLS.
            if !facts.opens(port) {
                seen.plain.push(self.plain(ip, port).await);
            }
            seen.secure.push(securely);
        }
        // At once: where packets are dropped, each of them takes all of its time.
        let envoy = async {
            match facts.role {
                Role::Ztunnel => None,
                _ => Some(self.unless_given_up(facts, ip, PLAIN_ENVOY_PORT).await),
            }
        };
        let (merged, envoy) = tokio::join!(self.unless_given_up(facts, ip, PLAIN_MERGED_PORT), envoy);
        seen.plain.push(merged);
        seen.plain.extend(envoy);
        Some(seen)
    }

    /// Asks a secure port as a scrape does. A close after a good handshake is only a sign of inbound capture if it happens
    /// every time, so it has to happen twice.
    pub(in crate::cli) async fn secure(&self, facts: &Facts, ip: IpAddr, port: u16) -> Securely {
        let none = Alpn::default();
        let mut outcome = self.verified(facts, ip, port, Shown::OurCertificate, &none).await;
        if reason(&outcome) == Some(Reason::ClosedAfterHandshake) {
            outcome = self.verified(facts, ip, port, Shown::OurCertificate, &none).await;
        }
        let closed = matches!(reason(&outcome), Some(Reason::ClosedInHandshake | Reason::ClosedAfterHandshake));
        if facts.may_be_legacy(port) && closed {
            let offered = self.verified(facts, ip, port, Shown::OurCertificate, &legacy_alpn()).await;
            if offered.is_ok() {
                return Securely { port, outcome: offered, wants_alpn: true };
            }
        }
        Securely { port, outcome, wants_alpn: false }
    }

    /// Asks a secure port without showing a certificate, offering what it wants.
    pub(in crate::cli) async fn anonymous(
        &self,
        facts: &Facts,
        ip: IpAddr,
        port: u16,
        wants_alpn: bool,
    ) -> Result<Answered, Failure> {
        let alpn = if wants_alpn { legacy_alpn() } else { Alpn::default() };
        self.verified(facts, ip, port, Shown::Nothing, &alpn).await.map_err(|unanswered| unanswered.failure)
    }

    /// The plaintext ports that were not asked of every pod, because of others none answered there.
    pub(in crate::cli) fn given_up(&self) -> Vec<u16> {
        self.silence.given_up()
    }

    /// Asks a plaintext port, if it is worth it.
    async fn unless_given_up(&self, facts: &Facts, ip: IpAddr, port: u16) -> Plainly {
        if self.silence.gives_up(port, &facts.namespace) {
            let why = format!(
                "not asked: port {port} of {ENOUGH} other pods of the namespace did not answer, and of none it did"
            );
            return Plainly { port, outcome: Err(Failure::new(Reason::ConnectTimeout, why)) };
        }
        let plainly = self.plain(ip, port).await;
        self.silence.note(port, &facts.namespace, &plainly.outcome);
        plainly
    }

    /// Asks in plain HTTP.
    pub(in crate::cli) async fn plain(&self, ip: IpAddr, port: u16) -> Plainly {
        self.turn().await;
        Plainly { port, outcome: ask_plainly(&self.request(ip, port)).await }
    }

    async fn verified(
        &self,
        facts: &Facts,
        ip: IpAddr,
        port: u16,
        shown: Shown,
        alpn: &Alpn,
    ) -> Result<Answered, Unanswered> {
        let peer = self.expected(facts)?;
        self.turn().await;
        let credentials = Arc::clone(&self.credentials.borrow());
        ask_verified(&self.request(ip, port), &peer, &credentials, shown, alpn, &self.clock).await
    }

    fn request(&self, ip: IpAddr, port: u16) -> Request {
        let address = SocketAddr::new(ip, port).to_string();
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("meshscrape/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT, HeaderValue::from_static("text/plain"));
        let promised = self.limits.timeout.mul_f64(0.9).min(LONGEST_ANSWER).as_secs_f64().to_string();
        headers.insert(SCRAPE_TIMEOUT, HeaderValue::try_from(promised).expect("digits"));
        Request {
            address: Address::parse(&address).expect("an IP address and a port"),
            path_and_query: METRICS_PATH.into(),
            headers,
            deadline: Instant::now() + self.limits.timeout,
        }
    }

    /// Waits until another connection may begin.
    async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().await;
            let at = (*next).max(Instant::now());
            *next = at + self.limits.pause;
            at
        };
        sleep_until(at).await;
    }
}

/// What to do where the same service account of another trust domain answered: the name that was given or taken for the mesh's
/// may be the wrong one, and then every pod is somebody else.
pub(in crate::cli) fn elsewhere(failure: &Failure) -> Option<String> {
    is_namesake(failure).then(|| {
        format!(
            "if the other trust domain is a name of this mesh, give it by --trust-domain or --trust-domain-alias; else {}",
            failure.reason.hint()
        )
    })
}

/// Whether who answered is who must, but for the trust domain.
pub(in crate::cli) fn is_namesake(failure: &Failure) -> bool {
    // Behind the ID it may say that there are more, or that nothing was verified.
    let id = |text: &Option<String>| SpiffeId::parse(text.as_deref()?.split(' ').next()?).ok();
    match (id(&failure.expected), id(&failure.presented)) {
        (Some(expected), Some(presented)) => {
            expected.path() == presented.path() && expected.trust_domain() != presented.trust_domain()
        }
        _ => false,
    }
}

fn legacy_alpn() -> Alpn {
    Alpn::parse(LEGACY_ALPN).expect("a protocol that may be offered")
}

fn reason(outcome: &Result<Answered, Unanswered>) -> Option<Reason> {
    outcome.as_ref().err().map(|unanswered| unanswered.failure.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_begin_no_faster_than_they_may() {
        let limits = Limits { timeout: Duration::from_secs(1), pause: Duration::from_millis(20) };
        let domain = TrustDomain::parse("cluster.local").expect("a trust domain");
        let asker = Asker::new(tokio::sync::watch::channel(Arc::default()).1, domain, limits);
        let begin = Instant::now();
        let turns = (0..6).map(|_| {
            let asker = asker.clone();
            tokio::spawn(async move { asker.turn().await })
        });
        for turn in turns.collect::<Vec<_>>() {
            turn.await.expect("it ends");
        }
        assert_eq!(begin.elapsed(), Duration::from_millis(100), "the first at once");
        tokio::time::advance(Duration::from_secs(1)).await;
        let begin = Instant::now();
        asker.turn().await;
        assert_eq!(begin.elapsed(), Duration::ZERO, "nothing is owed for idle time");
    }
}
