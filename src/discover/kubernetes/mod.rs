//! Targets from the objects of a Kubernetes API server: `kubernetes_sd_configs`.

mod behind;
mod endpoints;
mod endpointslice;
#[cfg(test)]
mod fixtures;
mod ingress;
mod meta;
mod node;
mod object;
mod pod;
mod service;
mod surroundings;
