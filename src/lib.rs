//! meshscrape: the Prometheus-compatible scraper that checks *who* answered.
//!
//! The groups of modules below stand in the order in which data flows through them, after the values that all of them
//! share; dependencies point one way, and `tests/it/layering.rs` holds that.
//!
//! ```text
//! discover ─▶ label ─▶ [targets] ─▶ scrape ─▶ connect (verified peer) ─▶ parse ─▶ series ─▶ block ─▶ spool ─▶ send
//!                                              ▲ identity: certificates, live                          ▲ retries
//! ```
//!
//! Four values cross between running tasks, everything else is a function call: `Arc<TargetSet>` (discover to
//! scrape, `watch`), `Arc<Credentials>` (identity to connect, `watch`), `Block` (scrape to spool, bounded
//! `mpsc`), `Lease` (spool to send). [`agent`] wires the rooms and decides nothing about data; [`cli`] is the only
//! room that talks to a person.
//!
//! The promise that holds everywhere: no byte enters a job with `spiffe` unless the peer's certificate was verified,
//! inside the TLS handshake, to be exactly the identity that the target must have.

pub mod clock;
pub mod model;
pub mod relabel;
pub mod watched;
pub mod yaml;

pub mod config;

pub mod discover;
pub mod identity;
pub mod label;
pub mod token;

pub mod connect;
pub mod parse;
pub mod scrape;
pub mod series;
pub mod wire;

pub mod send;
pub mod spool;

pub mod agent;
pub mod cli;
pub mod lifecycle;
pub mod status;
pub mod telemetry;
