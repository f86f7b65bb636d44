//! One request and its answer: status, content type, ceilings, and the parser fed while the body streams in.
//!
//! Memory for a body is a small buffer, not the body: what is parsed is dropped. The deadline holds also while data never
//! ceases to come, and a large body does not keep other targets waiting. What the caller gathers from the entries counts
//! only if the exchange returns without a failure.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName};
use tokio::time::Instant;

use super::RequestHead;
use super::body::{Decoder, Reader};
use super::budget::Share;
use crate::config::KnownSecrets;
use crate::connect::{Client, Request, Response};
use crate::model::{Address, Failure, PeerReport, Phases, Reason, clean};
use crate::parse::{Entry, Exposition};

/// No body is read beyond this many bytes, decompressed, whatever `body_size_limit` says.
pub const MAX_BODY_BYTES: u64 = 256 * 1024 * 1024;

const EXPOSE_LESS: &str = "body_size_limit cannot be raised above this ceiling: have the proxy export fewer statistics \
                           (proxyStatsMatcher), or the application fewer series";

/// How much text is parsed before other targets have their turn.
const YIELD_BYTES: usize = 1024 * 1024;

/// What became known of one exchange, complete or not.
#[derive(Clone, Debug, Default)]
pub struct Exchange {
    /// Where the time went.
    pub phases: Phases,
    /// Who answered, if the connection was verified.
    pub peer: Option<PeerReport>,
    /// The HTTP status.
    pub status: Option<u16>,
    /// The content type as sent, cleaned.
    pub content_type: Option<String>,
    /// The content encoding as sent, cleaned.
    pub encoding: Option<String>,
    /// Bytes of the body as transferred.
    pub wire_bytes: u64,
    /// Bytes of the body, decompressed.
    pub body_bytes: u64,
    /// The body was larger than `body_size_limit`, or than the ceiling that always stands.
    pub over_size: bool,
}

impl Exchange {
    /// Takes out what whoever answered has repeated of our secrets. For people: nobody else looks at these texts.
    pub(super) fn hide(&mut self, secrets: &KnownSecrets) {
        for text in [&mut self.content_type, &mut self.encoding] {
            *text = text.take().map(|text| secrets.hide(&text));
        }
    }
}

/// What becomes of the entries of an answer.
pub trait Gather: Send {
    /// Takes an entry.
    ///
    /// # Errors
    /// A failure ends the scrape.
    fn take(&mut self, entry: &Entry<'_>) -> Result<(), Failure>;

    /// How many bytes of memory it takes to hold what was taken.
    fn held_bytes(&self) -> u64;
}

/// Asks the target once and hands every entry of its answer to `gather`; `share` tells others what that takes.
///
/// # Errors
/// Why the scrape failed; the [`Exchange`] tells how far it came. A failure from `gather` ends it too.
pub async fn exchange(
    client: &mut Client,
    address: &Address,
    path_and_query: &str,
    head: &RequestHead,
    deadline: Instant,
    gather: &mut dyn Gather,
    share: &mut Share,
) -> (Exchange, Result<(), Failure>) {
    let started = Instant::now();
    let mut seen = Exchange::default();
    let request = Request {
        address: address.clone(),
        path_and_query: path_and_query.into(),
        headers: head.headers.clone(),
        deadline,
    };
    let outcome = run(client, &request, head, (gather, share), &mut seen).await.map_err(|mut failure| {
        failure.detail = client.secrets().hide(&failure.detail);
        failure
    });
    if outcome.is_err() {
        seen.hide(client.secrets());
    }
    if seen.status.is_none() {
        seen.phases = client.phases();
    }
    seen.phases.total = started.elapsed();
    (seen, outcome)
}

async fn run(
    client: &mut Client,
    request: &Request,
    head: &RequestHead,
    sink: (&mut dyn Gather, &mut Share),
    seen: &mut Exchange,
) -> Result<(), Failure> {
    let response = client.get(request).await?;
    seen.phases = response.phases;
    seen.peer = response.peer.clone();
    seen.status = Some(response.status.as_u16());
    seen.content_type = text_of(&response.headers, &CONTENT_TYPE);
    seen.encoding = text_of(&response.headers, &CONTENT_ENCODING);
    if response.status != http::StatusCode::OK {
        let detail = format!("server returned HTTP status {}", response.status);
        return Err(Failure::new(Reason::HttpStatus, detail));
    }
    read_body(response, request.deadline, head, sink, seen).await?;
    client.confirm()
}

/// Reads all of the body, also behind a fault in it: how large it is, that it is too large or never ends is said of it as
/// Prometheus says it, and the connection can be kept.
async fn read_body(
    mut response: Response<'_>,
    deadline: Instant,
    head: &RequestHead,
    (gather, share): (&mut dyn Gather, &mut Share),
    seen: &mut Exchange,
) -> Result<(), Failure> {
    let gzip = response.headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding.as_bytes() == b"gzip");
    let mut decoder = Decoder::new(gzip);
    let mut reader: Option<Reader> = None;
    let mut fault = None;
    let mut since_yield = 0;
    loop {
        let chunk = tokio::select! {
            chunk = response.body.chunk() => chunk?,
            failure = share.refused() => return Err(failure),
        };
        let at_end = chunk.is_none();
        let chunk = chunk.unwrap_or_default();
        seen.wire_bytes += chunk.len() as u64;
        let mut slices = chunk.chunks(decoder.slice_bytes());
        loop {
            let slice = slices.next();
            match slice {
                Some(slice) => decoder.push(slice)?,
                None if at_end => decoder.finish()?,
                None => break,
            }
            let text = decoder.take();
            seen.body_bytes += text.len() as u64;
            check_size(head, seen)?;
            if fault.is_none() {
                fault = parse(&mut reader, &response.headers, head, &text, slice.is_none(), gather).err();
            }
            share.hold(gather.held_bytes() + reader.as_ref().map_or(0, Reader::held_bytes))?;
            if Instant::now() >= deadline {
                let detail = format!("the time ran out after {} bytes of the body", seen.wire_bytes);
                return Err(Failure::new(Reason::Timeout, detail));
            }
            if slice.is_none() {
                return fault.map_or(Ok(()), Err);
            }
            since_yield += text.len();
            if since_yield >= YIELD_BYTES {
                since_yield = 0;
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Feeds the parser, which there is from the first byte on: an empty body is a good answer whatever its content type says.
fn parse(
    reader: &mut Option<Reader>,
    headers: &HeaderMap,
    head: &RequestHead,
    text: &[u8],
    at_end: bool,
    gather: &mut dyn Gather,
) -> Result<(), Failure> {
    if reader.is_none() && !text.is_empty() {
        *reader = Some(Reader::new(format_named(headers, head.fallback)?, head));
    }
    match reader {
        Some(reader) => reader.read(text, at_end, &mut |entry| gather.take(entry)),
        None => Ok(()),
    }
}

fn check_size(head: &RequestHead, seen: &mut Exchange) -> Result<(), Failure> {
    if head.body_limit > 0 && seen.body_bytes >= head.body_limit {
        seen.over_size = true;
        let detail = format!("body size limit exceeded (limit: {} bytes)", head.body_limit);
        return Err(Failure::new(Reason::BodyTooLarge, detail));
    }
    if seen.body_bytes > MAX_BODY_BYTES {
        seen.over_size = true;
        let detail =
            format!("the body exceeds {MAX_BODY_BYTES} bytes, the ceiling that stands whatever body_size_limit says");
        return Err(Failure::new(Reason::BodyTooLarge, detail).mended_by(EXPOSE_LESS));
    }
    Ok(())
}

fn text_of(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.get(name).map(|value| clean(&String::from_utf8_lossy(value.as_bytes())).into_owned())
}

/// The format that the content type names, or the fallback.
fn format_named(headers: &HeaderMap, fallback: Option<Exposition>) -> Result<Exposition, Failure> {
    let value = headers.get(CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default();
    Exposition::of_content_type(&value)
        .or_else(|error| fallback.ok_or_else(|| Failure::new(Reason::ContentType, error.to_string())))
}
