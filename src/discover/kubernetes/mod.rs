//! Targets from the objects of a Kubernetes API server: `kubernetes_sd_configs`.

#[cfg(test)]
mod fixtures;
mod meta;
mod object;
mod pod;
mod surroundings;
