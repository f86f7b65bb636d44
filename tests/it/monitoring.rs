//! What the person on call gets: the agent's own metrics and their page, the alerts with their runbooks, and the dashboard,
//! held against the agent that they are about and the Prometheus that evaluates them.

mod incident;
mod live;
mod mixin;
mod outside;
mod own;
mod page;
mod shipped;
pub(crate) mod watcher;
