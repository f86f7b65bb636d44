//! As which message of remote write samples are sent, and the body of a request.
//!
//! Samples go as they were encoded, with two exceptions: to a receiver that is configured for 1.0, and to one that has
//! answered 415 to 2.0, blocks of 2.0 are sent as 1.0, as long as that connection lasts and for a minute at least,
//! unless no answer comes. A receiver that is replaced by one that knows 2.0 is so found out with the next connection,
//! and one that lies about it cannot bind us for longer. The HTTP client opens another connection now and then though
//! the one before is well; so that is a reason only after a minute.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use reqwest::Response;
use tokio::time::Instant;

use super::kinds::Kinds;
use crate::model::{Block, WriteFormat};
use crate::wire::{self, WireError};

/// How long a refusal of 2.0 holds at least, as long as there are answers.
const AT_LEAST: Duration = Duration::from_secs(60);

/// A connection, told apart from any other that there is at the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    ours: SocketAddr,
    theirs: SocketAddr,
}

impl Connection {
    /// That over which an answer came.
    pub(super) fn of(response: &Response) -> Option<Self> {
        let info = response.extensions().get::<hyper_util::client::legacy::connect::HttpInfo>()?;
        Some(Self { ours: info.local_addr(), theirs: info.remote_addr() })
    }
}

/// A request that is ready to be sent.
pub(super) struct Request {
    pub(super) format: WriteFormat,
    pub(super) body: Bytes,
    /// What is in it.
    pub(super) held: Kinds,
    /// How many histograms of the blocks are not in it, because 1.0 has no place for their bounds.
    pub(super) listed_bounds: u64,
}

/// Knows which message a receiver is sent.
#[derive(Clone)]
pub(super) struct Messages {
    configured: WriteFormat,
    /// When it refused 2.0, and over which connection.
    refused: Option<(Instant, Option<Connection>)>,
    /// Histograms with listed bounds that were not sent.
    listed_bounds: Counter,
}

impl Messages {
    pub(super) fn new(configured: WriteFormat, listed_bounds: Counter) -> Self {
        Self { configured, refused: None, listed_bounds }
    }

    /// As what blocks that are encoded as `encoded` are sent now.
    pub(super) fn format_for(&self, encoded: WriteFormat) -> WriteFormat {
        match self.configured {
            WriteFormat::V2 if self.refused.is_none() => encoded,
            _ => WriteFormat::V1,
        }
    }

    /// The request for some blocks, all of which are encoded alike.
    pub(super) fn request(&self, blocks: &[Block]) -> Result<Request, WireError> {
        let encoded = blocks.first().map_or(self.configured, |block| block.format);
        let format = self.format_for(encoded);
        if format == encoded {
            return Ok(Request {
                format,
                body: wire::join(&blocks.iter().collect::<Vec<_>>())?.into(),
                held: Kinds::of(blocks),
                listed_bounds: 0,
            });
        }
        let recoded: Vec<_> = blocks.iter().map(wire::v2::recode).collect::<Result<_, _>>()?;
        let listed_bounds = recoded.iter().map(|one| u64::from(one.listed_bounds)).sum();
        let recoded: Vec<_> = recoded.into_iter().map(|one| one.block).collect();
        let body = wire::join(&recoded.iter().collect::<Vec<_>>())?.into();
        Ok(Request { format, body, held: Kinds::of(&recoded), listed_bounds })
    }

    /// There is a final answer on this request.
    pub(super) fn settled(&self, request: &Request) {
        self.listed_bounds.inc_by(request.listed_bounds);
    }

    /// An answer came over this connection, or none came.
    pub(super) fn answered(&mut self, connection: Option<Connection>) {
        self.refused = self
            .refused
            .filter(|(since, known)| connection.is_some() && (*known == connection || since.elapsed() < AT_LEAST));
    }

    /// The receiver refused 2.0 over this connection.
    pub(super) fn refused(&mut self, connection: Option<Connection>) {
        self.refused = Some((Instant::now(), connection));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_of_2_lasts_as_long_as_its_connection() {
        let connection = |port: u16| {
            let ours = SocketAddr::from(([127, 0, 0, 1], port));
            Some(Connection { ours, theirs: SocketAddr::from(([127, 0, 0, 1], 80)) })
        };
        let mut messages = Messages::new(WriteFormat::V2, Counter::default());
        let as_it_is = |messages: &Messages| messages.format_for(WriteFormat::V2) == WriteFormat::V2;
        assert!(as_it_is(&messages));
        messages.refused(connection(1));
        tokio::time::advance(100 * AT_LEAST).await;
        messages.answered(connection(1));
        assert!(!as_it_is(&messages), "the connection lasts");
        messages.answered(connection(2));
        assert!(as_it_is(&messages), "another connection");

        messages.refused(connection(2));
        tokio::time::advance(AT_LEAST / 2).await;
        messages.answered(connection(3));
        assert!(!as_it_is(&messages), "it may be one of several");
        messages.answered(None);
        assert!(as_it_is(&messages), "it broke");
    }

    #[test]
    fn blocks_of_1_stay_so_and_a_receiver_of_1_gets_nothing_else() {
        for configured in [WriteFormat::V1, WriteFormat::V2] {
            let messages = Messages::new(configured, Counter::default());
            assert_eq!(messages.format_for(WriteFormat::V1), WriteFormat::V1);
            assert_eq!(messages.format_for(WriteFormat::V2), configured);
        }
    }
}
