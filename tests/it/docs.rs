//! What the documents say is what the program does.

mod examples;
mod links;
mod mine;
mod pages;
mod reasons;
mod threats;
mod walkthrough;
