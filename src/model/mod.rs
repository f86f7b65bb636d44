//! The nouns of the product as plain values.
//!
//! Nothing here does I/O, waits, reads a clock, or knows YAML, Kubernetes or TLS. Each type is checked where it is
//! built and never again: a [`SpiffeId`] that exists is well-formed, an [`Address`] that exists can be dialled as it
//! stands, [`Labels`] are always sorted and unique.

mod address;
mod alpn;
mod block;
mod cidr;
mod exemplar;
mod failure;
mod foreign;
mod histogram;
mod labels;
mod metadata;
mod pod;
mod reason;
mod report;
mod sample;
mod spiffe;
mod target;
mod tenant;

pub use address::{Address, AddressError, Host};
pub use alpn::{Alpn, AlpnError};
pub use block::{Block, WriteFormat};
pub use cidr::{Cidr, CidrError};
pub use exemplar::Exemplar;
pub use failure::Failure;
pub use foreign::{clean, clean_to};
pub use histogram::{Buckets, CUSTOM_SCHEMA, Counts, Histogram, HistogramError, MAX_SCHEMA, MIN_SCHEMA, Span, Tally};
pub use labels::{Labels, is_legacy_label_name, is_legacy_metric_name};
pub use metadata::Metadata;
pub use pod::Pod;
pub use reason::{ExitClass, Reason};
pub use report::{PeerReport, Phases, ScrapeReport};
pub use sample::{MetricType, STALE_NAN_BITS, Sample, is_stale, normal_nan, normalise_nan, stale_nan};
pub use spiffe::{Acceptance, Match, Peer, SpiffeId, SpiffeIdError, TrustDomain, TrustDomainError};
pub use target::{
    Candidate, DropCause, DroppedTarget, HistogramReading, JobTargets, Scheme, Target, TargetId, TargetSet,
    Verification,
};
pub use tenant::{NoTenant, Tenant, TenantError, TenantRule, TenantRuleError, Tenants, names_tenant};
