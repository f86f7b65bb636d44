//! The one integration-test binary: chapters of what the product promises, on real parts.

mod config;
mod connection;
mod discovery;
mod exposition;
mod identity;
mod layering;
mod refusals;
mod support;
