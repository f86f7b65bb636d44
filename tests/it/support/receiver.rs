//! A remote write receiver on loopback that writes down everything and answers as it is told.
//!
//! It decodes every body and keeps every request in order, with its headers, its samples and the answer it got. A rule
//! decides each answer; [`script`] is the usual rule. It ends when it is dropped. One that is to be [fast](Receiver::unread)
//! leaves the bodies to its rule.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use meshscrape::model::{Labels, Sample};
use meshscrape::wire;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

/// The content type of remote write 2.0.
pub(crate) const OF_2: &str = "application/x-protobuf;proto=io.prometheus.write.v2.Request";

/// How long anything is waited for before the test fails.
const PATIENCE: Duration = Duration::from_secs(30);

/// One request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) at: Instant,
    pub(crate) method: String,
    pub(crate) path_and_query: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Its samples in order, each with its labels; empty if the body cannot be read, or was left to the rule.
    pub(crate) samples: Vec<(Labels, Sample)>,
    /// The number of the connection, from 0.
    pub(crate) connection: usize,
    /// The status it was answered with; `None`: none.
    pub(crate) status: Option<u16>,
}

impl Recorded {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("a header in ASCII"))
    }

    /// Whether the receiver said that it has the samples.
    pub(crate) fn was_taken(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }
}

/// What happens to a request.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    delay: Duration,
    ending: Ending,
    forgets: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    Whole,
    /// The connection ends instead of an answer.
    Cut,
    /// The connection ends inside the body of the answer.
    CutInside,
    /// No answer comes.
    Hang,
    /// The body of the answer does not end.
    Endless,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Bytes::new(),
            delay: Duration::ZERO,
            ending: Ending::Whole,
            forgets: false,
        }
    }

    pub(crate) fn ok() -> Self {
        Self::status(204)
    }

    pub(crate) fn cut() -> Self {
        Self { ending: Ending::Cut, ..Self::ok() }
    }

    pub(crate) fn hang() -> Self {
        Self { ending: Ending::Hang, ..Self::ok() }
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Says that everything in `request` was written.
    pub(crate) fn confirming(self, request: &Recorded) -> Self {
        self.header("x-prometheus-remote-write-samples-written", request.samples.len().to_string())
    }

    pub(crate) fn saying(self, words: impl Into<Bytes>) -> Self {
        Self { body: words.into(), ..self }
    }

    pub(crate) fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// What was in the request is not kept: the rule has seen it, and it would be too much.
    pub(crate) fn forgetting(self) -> Self {
        Self { forgets: true, ..self }
    }

    /// The body breaks off behind its words.
    pub(crate) fn cut_inside(self) -> Self {
        Self { ending: Ending::CutInside, ..self }
    }

    /// The words are said again and again.
    pub(crate) fn endlessly(self) -> Self {
        Self { ending: Ending::Endless, ..self }
    }
}

/// From a request to its answer.
pub(crate) type Rule = Box<dyn FnMut(&Recorded) -> Answer + Send>;

/// These answers, one a request, and then 204.
pub(crate) fn script(answers: impl IntoIterator<Item = Answer>) -> Rule {
    let mut answers: VecDeque<_> = answers.into_iter().collect();
    Box::new(move |_| answers.pop_front().unwrap_or_else(Answer::ok))
}

/// Always 204, and says what it wrote, as one must who takes remote write 2.0.
pub(crate) fn confirming() -> Rule {
    Box::new(|request| Answer::ok().confirming(request))
}

/// Always this answer.
pub(crate) fn always(answer: Answer) -> Rule {
    Box::new(move |_| answer.clone())
}

pub(crate) struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    /// Whether bodies are decoded for the rule.
    reads: bool,
    tls: Mutex<Option<TlsAcceptor>>,
    rule: Mutex<Rule>,
    recorded: Mutex<Vec<Recorded>>,
    count: watch::Sender<usize>,
}

impl Receiver {
    /// In the clear, on a port of its own.
    pub(crate) async fn start(rule: Rule) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), None, rule).await
    }

    /// Over TLS.
    pub(crate) async fn start_tls(tls: Arc<ServerConfig>, rule: Rule) -> Self {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), Some(tls), rule).await
    }

    /// Where the test says.
    pub(crate) async fn start_at(address: SocketAddr, tls: Option<Arc<ServerConfig>>, rule: Rule) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port on loopback");
        Self::serve(listener, tls, rule, true)
    }

    /// In the clear, and no body is decoded: where the receiver must not be what is measured, its rule reads as much as it needs.
    pub(crate) async fn unread(rule: Rule) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port on loopback");
        Self::serve(listener, None, rule, false)
    }

    /// In the clear, behind a socket that listens already, be it in another network.
    pub(crate) fn on(listener: std::net::TcpListener, rule: Rule) -> Self {
        listener.set_nonblocking(true).expect("a socket option");
        Self::serve(TcpListener::from_std(listener).expect("a runtime"), None, rule, true)
    }

    fn serve(listener: TcpListener, tls: Option<Arc<ServerConfig>>, rule: Rule, reads: bool) -> Self {
        let address = listener.local_addr().expect("a bound socket");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared {
            reads,
            tls: Mutex::new(tls.map(TlsAcceptor::from)),
            rule: Mutex::new(rule),
            recorded: Mutex::default(),
            count: watch::Sender::new(0),
        });
        let serving = tokio::spawn(serve(listener, Arc::clone(&shared)));
        Self { address, scheme, shared, serving }
    }

    /// From now on new connections are met so; those that are open stay as they are.
    pub(crate) fn shows(&self, tls: Arc<ServerConfig>) {
        *self.shared.tls.lock().unwrap_or_else(PoisonError::into_inner) = Some(tls.into());
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where to POST.
    pub(crate) fn url(&self) -> String {
        format!("{}://{}/api/v1/write", self.scheme, self.address)
    }

    /// What came so far.
    pub(crate) fn recorded(&self) -> Vec<Recorded> {
        self.shared.recorded().clone()
    }

    /// Waits until what came is enough, and gives it.
    pub(crate) async fn until(&self, what: &str, enough: impl Fn(&[Recorded]) -> bool) -> Vec<Recorded> {
        self.until_within(PATIENCE, what, enough).await
    }

    /// The same for what takes its time.
    pub(crate) async fn until_within(
        &self,
        patience: Duration,
        what: &str,
        enough: impl Fn(&[Recorded]) -> bool,
    ) -> Vec<Recorded> {
        let mut count = self.shared.count.subscribe();
        let seen = async {
            while !enough(&self.shared.recorded()) {
                count.changed().await.expect("the receiver counts as long as it is there");
            }
        };
        let seen = tokio::time::timeout(patience, seen).await;
        let recorded = self.recorded();
        assert!(seen.is_ok(), "{what}: not within {patience:?}; {} requests came", recorded.len());
        recorded
    }

    /// Waits for that many requests.
    pub(crate) async fn requests(&self, count: usize) -> Vec<Recorded> {
        self.until(&format!("request {count}"), |recorded| recorded.len() >= count).await
    }

    /// Waits until that many samples were taken, and gives them in the order in which they came.
    pub(crate) async fn samples(&self, count: usize) -> Vec<(Labels, Sample)> {
        let taken = |recorded: &[Recorded]| -> Vec<_> {
            recorded.iter().filter(|one| one.was_taken()).flat_map(|one| one.samples.clone()).collect()
        };
        taken(&self.until(&format!("sample {count}"), |recorded| taken(recorded).len() >= count).await)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn recorded(&self) -> MutexGuard<'_, Vec<Recorded>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a request down with the answer it gets.
    fn record(&self, mut one: Recorded) -> Answer {
        let answer = (self.rule.lock().unwrap_or_else(PoisonError::into_inner))(&one);
        let answered = !matches!(answer.ending, Ending::Cut | Ending::Hang);
        one.status = answered.then_some(answer.status);
        if answer.forgets {
            (one.body, one.samples) = (Bytes::new(), Vec::new());
        }
        let count = {
            let mut recorded = self.recorded();
            recorded.push(one);
            recorded.len()
        };
        // Without the records locked: who waits for the count looks at them.
        self.count.send_if_modified(|known| {
            let more = count > *known;
            *known = count.max(*known);
            more
        });
        answer
    }
}

/// Ends with all its connections when it is aborted.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let tls = shared.tls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (shared, this) = (Arc::clone(&shared), number);
        number += 1;
        connections.spawn(async move {
            match tls {
                None => talk(stream, this, shared).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        talk(stream, this, shared).await;
                    }
                }
            }
        });
    }
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, connection: usize, shared: Arc<Shared>) {
    let service = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { answer(request, connection, &shared).await }
    });
    // It fails where a connection is cut on purpose, or the sender goes away.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(
    request: http::Request<Incoming>,
    connection: usize,
    shared: &Shared,
) -> Result<Response<Reply>, CutOff> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| CutOff)?.to_bytes();
    let answer = shared.record(Recorded {
        at: Instant::now(),
        method: head.method.to_string(),
        path_and_query: head.uri.path_and_query().map(ToString::to_string).unwrap_or_default(),
        version: head.version,
        samples: if shared.reads { samples(&head.headers, &body) } else { Vec::new() },
        headers: head.headers,
        body,
        connection,
        status: None,
    });
    tokio::time::sleep(answer.delay).await;
    match answer.ending {
        Ending::Cut => return Err(CutOff),
        Ending::Hang => std::future::pending::<()>().await,
        Ending::Whole | Ending::CutInside | Ending::Endless => {}
    };
    let mut response = Response::new(Reply { words: answer.body, ending: answer.ending, done: false });
    *response.status_mut() = StatusCode::from_u16(answer.status).expect("a status");
    for (name, value) in answer.headers {
        response.headers_mut().append(name, value.parse().expect("a header value"));
    }
    Ok(response)
}

/// Of either version of remote write, as the headers say.
fn samples(headers: &HeaderMap, body: &[u8]) -> Vec<(Labels, Sample)> {
    let of_2 = headers.get("content-type").is_some_and(|value| value == OF_2);
    let request = if of_2 { wire::decode_v2(body).and_then(|request| request.samples()) } else { wire::decode(body) };
    let Ok(request) = request else { return Vec::new() };
    let mut samples = Vec::new();
    for series in request.timeseries {
        let labels: Labels = series.labels.iter().map(|label| (&label.name, &label.value)).collect();
        for sample in series.samples {
            samples.push((labels.clone(), Sample { value: sample.value, timestamp_ms: sample.timestamp }));
        }
    }
    samples
}

/// The body of an answer.
struct Reply {
    words: Bytes,
    ending: Ending,
    done: bool,
}

/// Ends a connection.
#[derive(Debug, thiserror::Error)]
#[error("cut off on purpose")]
struct CutOff;

impl Body for Reply {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let frame = match (self.done, self.ending) {
            (false, _) | (true, Ending::Endless) => Some(Ok(Frame::data(self.words.clone()))),
            (true, Ending::CutInside) => Some(Err(CutOff)),
            (true, _) => None,
        };
        self.done = true;
        Poll::Ready(frame)
    }
}
