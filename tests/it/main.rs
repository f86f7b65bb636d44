//! The one integration-test binary: chapters of what the product promises, on real parts.

mod answers;
mod config;
mod connection;
mod delivery;
mod discovery;
mod exposition;
mod hostile;
mod identity;
mod layering;
mod peers;
mod pipeline;
mod refusals;
mod refused;
mod rotation;
mod support;
mod targets;
