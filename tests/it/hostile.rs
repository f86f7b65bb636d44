//! Peers, files and labels that want in, or want the agent to stop: what a stranger can do to us, and what comes of it.

mod answers;
mod budget;
mod certificates;
mod files;
mod identities;
mod labels;
