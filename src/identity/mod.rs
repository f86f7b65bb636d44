//! Certificates on disk become a checked snapshot, live; and the one verifier of peers.
//!
//! [`watch()`] reads the certificate chain, its key and the roots of a mesh, and follows them as they rotate. What it
//! publishes is [`Credentials`]: an immutable snapshot that makes TLS configurations. Three things always hold:
//!
//! - **Trust is separate from identity.** Withdrawing a root is how a mesh takes trust back, so a root file with at
//!   least one valid CA replaces the roots at once, whatever state our own certificate is in; and our own identity stays
//!   the last good one while its files are half written, until it expires.
//! - **Verification is in one place** and inside the handshake: the verifier of [`Handshake`]. It fails closed, and its
//!   refusal is a [`Failure`](crate::model::Failure) that [`failure_of`] finds again in whatever error came out of the connection.
//! - **A connection does not outlive what verified it**: [`Credentials::may_reuse`] is asked before each request,
//!   [`Credentials::still_good`] before what was read counts.
//!
//! ```text
//! files ─▶ loader (what is good is kept) ─▶ Credentials ─▶ Handshake ─▶ rustls ─▶ verify ─▶ Verified
//!   ▲ watch: inotify and poll                    ▲ roots, own certificate
//! ```
//!
//! This room does not know targets, HTTP, or metric formats.

mod admission;
mod certificate;
mod credentials;
mod files;
mod history;
mod inspect;
mod loader;
mod metrics;
mod ordinary;
mod refusal;
mod roots;
mod svid;
mod verify;
mod watch;

pub use admission::Admission;
pub use certificate::{CertificateFacts, Fingerprint, PublicKey};
pub use credentials::{Credentials, OwnIdentity};
pub use files::FileError;
pub use history::{Outcome, Reload};
pub use inspect::{Inspection, inspect};
pub use loader::{IdentitySettings, IdentitySnapshot};
pub use metrics::register_metrics;
pub use ordinary::ordinary_tls_config;
pub use refusal::failure_of;
pub use roots::Roots;
pub use verify::{Handshake, Verified, crypto_provider};
pub use watch::{Identity, load, watch};
