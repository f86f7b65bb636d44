//! What the documents say is what the program does.

mod examples;
mod links;
mod migration;
mod mine;
mod pages;
mod reasons;
mod threats;
mod walkthrough;
