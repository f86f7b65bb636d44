//! What `deploy/` holds is what its comments say: rendered as a user renders it, read, and run.

mod cluster;
mod consistency;
mod helm;
mod image;
mod kubectl;
pub(crate) mod rendered;
mod workloads;
