//! As which message of remote write samples are sent, and the body of a request.
//!
//! Samples go as they were encoded, with two exceptions: to a receiver that is configured for 1.0, and to one that has
//! answered 415 to 2.0 as long as that connection lasts, blocks of 2.0 are sent as 1.0. A receiver that is replaced by one
//! that knows 2.0 is so found out with the next connection, and one that lies about it cannot bind us for longer.

use std::net::SocketAddr;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use reqwest::Response;

use crate::model::{Block, WriteFormat};
use crate::wire::{self, WireError};

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
    /// The samples in it.
    pub(super) samples: u64,
    /// How many histograms of the blocks are not in it, because 1.0 has no place for their bounds.
    pub(super) listed_bounds: u64,
}

/// Knows which message a receiver is sent.
pub(super) struct Messages {
    configured: WriteFormat,
    /// The connection over which it refused 2.0.
    refused_on: Option<Option<Connection>>,
    /// Histograms with listed bounds that were not sent.
    listed_bounds: Counter,
}

impl Messages {
    pub(super) fn new(configured: WriteFormat, listed_bounds: Counter) -> Self {
        Self { configured, refused_on: None, listed_bounds }
    }

    /// As what blocks that are encoded as `encoded` are sent now.
    pub(super) fn format_for(&self, encoded: WriteFormat) -> WriteFormat {
        match self.configured {
            WriteFormat::V2 if self.refused_on.is_none() => encoded,
            _ => WriteFormat::V1,
        }
    }

    /// The request for some blocks, all of which are encoded alike.
    pub(super) fn request(&self, blocks: &[&Block]) -> Result<Request, WireError> {
        let encoded = blocks.first().map_or(self.configured, |block| block.format);
        let format = self.format_for(encoded);
        let samples = blocks.iter().map(|block| u64::from(block.samples)).sum();
        if format == encoded {
            return Ok(Request { format, body: wire::join(blocks)?.into(), samples, listed_bounds: 0 });
        }
        let recoded: Vec<_> = blocks.iter().map(|block| wire::v2::recode(block)).collect::<Result<_, _>>()?;
        let listed_bounds = recoded.iter().map(|one| u64::from(one.listed_bounds)).sum();
        let body = wire::join(&recoded.iter().map(|one| &one.block).collect::<Vec<_>>())?.into();
        Ok(Request { format, body, samples: samples - listed_bounds, listed_bounds })
    }

    /// There is a final answer on this request.
    pub(super) fn settled(&self, request: &Request) {
        self.listed_bounds.inc_by(request.listed_bounds);
    }

    /// An answer came over this connection, or none came.
    pub(super) fn answered(&mut self, connection: Option<Connection>) {
        self.refused_on = self.refused_on.filter(|known| *known == connection);
    }

    /// The receiver refused 2.0 over this connection.
    pub(super) fn refused(&mut self, connection: Option<Connection>) {
        self.refused_on = Some(connection);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_2_lasts_as_long_as_its_connection() {
        let connection = |port: u16| {
            let ours = SocketAddr::from(([127, 0, 0, 1], port));
            Some(Connection { ours, theirs: SocketAddr::from(([127, 0, 0, 1], 80)) })
        };
        let mut messages = Messages::new(WriteFormat::V2, Counter::default());
        let now = |messages: &Messages| [WriteFormat::V1, WriteFormat::V2].map(|one| messages.format_for(one));
        assert_eq!(now(&messages), [WriteFormat::V1, WriteFormat::V2], "as they are");
        messages.refused(connection(1));
        messages.answered(connection(1));
        assert_eq!(now(&messages), [WriteFormat::V1; 2]);
        messages.answered(connection(2));
        assert_eq!(now(&messages), [WriteFormat::V1, WriteFormat::V2]);
        messages.refused(connection(2));
        messages.answered(None);
        assert_eq!(now(&messages), [WriteFormat::V1, WriteFormat::V2]);
        assert_eq!(now(&Messages::new(WriteFormat::V1, Counter::default())), [WriteFormat::V1; 2]);
    }
}
