//! What the configuration file says, checked: a [`Config`] that exists can be used as it stands.
//!
//! The file is Prometheus' own format, a subset of it plus a few keys of ours. [`load()`] walks a located YAML tree and
//! collects *every* problem, each with its place, its key, what is wrong and what to write instead; it never stops at
//! the first. What always holds:
//!
//! - an unknown key is a problem, and a key that Prometheus knows and this version lacks is called just that;
//! - whether and how a job or a receiver verifies who answers is decided here, from the file alone ([`JobSecurity`],
//!   [`ReceiverSecurity`]); nothing that skips verification can be expressed;
//! - no problem, no `Debug` output and no printed configuration shows a secret; problems and the printed configuration do
//!   not show the value of an environment variable either;
//! - `${NAME}` is replaced in values of the main file only, never in keys, `regex`, `replacement` or `target_label`, and
//!   the environment is a function that the caller hands in.
//!
//! This room must not know sockets, live clients or TLS libraries. It opens no file but the one it is told to load and
//! those that `scrape_config_files` names in it; the one exception is [`SecretSource::read`], which others call each time
//! they need a credential.

mod auth;
mod discovery;
mod load;
mod oauth2;
mod pattern;
mod preset;
mod problem;
mod proxy;
mod receiver;
mod scrub;
mod secret;
mod security;
mod selector;
mod settings;
mod shown;
mod units;
mod walk;

pub use auth::{Auth, HttpHeader};
pub use discovery::{
    ApiServer, AttachMetadata, HttpSd, KubernetesAccess, KubernetesRole, KubernetesSd, KubernetesSelector,
};
pub use load::{Env, Loaded, load, parse};
pub use oauth2::OAuth2;
pub use pattern::matching_files;
pub use problem::Problem;
pub use proxy::{NoProxy, Proxies, Proxy};
pub use receiver::{CatchUp, MetadataConfig, QueueConfig, ReceiverSecurity, RemoteWrite, TenantHeader};
pub use scrub::KnownSecrets;
pub use secret::{Secret, SecretError, SecretSource};
pub use security::{CertificateFiles, ClientFiles, JobSecurity, OrdinaryTls, SpiffeJob, SpiffeReceiver, TlsVersion};
pub use settings::{
    Config, EscapingScheme, FileSd, Global, Histograms, Limits, ScrapeConfig, ScrapeProtocol, StaticConfig,
};
pub use units::{format_duration, parse_duration};
pub use walk::{Section, sections};
