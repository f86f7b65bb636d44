//! Why nothing can be sent to a receiver, found before anything is.

use http::HeaderName;
use thiserror::Error;

use super::backoff::BackoffError;

/// Why a receiver cannot be sent to at all.
#[derive(Debug, Error)]
pub enum SendError {
    /// The pauses make no sense.
    #[error("remote_write {receiver}: queue_config: {source}")]
    Backoff {
        /// The receiver's name.
        receiver: String,
        /// What is wrong.
        source: BackoffError,
    },
    /// A header of the configuration cannot be sent.
    #[error("remote_write {receiver}: the value of header {header} has characters that no header may have")]
    Header {
        /// The receiver's name.
        receiver: String,
        /// The header's name.
        header: HeaderName,
    },
}
