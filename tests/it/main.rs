//! The one integration-test binary: chapters of what the product promises, on real parts.

mod alpn;
mod answers;
mod beside;
mod cli;
mod cluster;
mod config;
mod connection;
mod delivery;
mod demo;
mod deploy;
mod discovery;
mod docs;
mod exposition;
mod hostile;
mod identity;
mod layering;
mod peers;
mod pipeline;
mod pods;
mod refusals;
mod refused;
mod rotation;
mod shutdown;
mod status;
mod support;
mod targets;
