//! What one target exposed: its known series, what has gone stale, and the send-ready blocks of a scrape.
//!
//! Between two scrapes of a target the series are nearly always the same, so a [`Table`] remembers, for each series
//! text, what became of it: parsing labels, relabelling and encoding happen once for each new text and not once for
//! each sample. One scrape is one [`Pass`] over the table. Samples are only gathered while the body is read; blocks
//! come out of [`Pass::commit`] or [`Pass::fail`], so nothing of a response can be forwarded before the whole of it has
//! proved good.
//!
//! The room does not know addresses, HTTP, or retries, and it never reads a clock: times are handed in.

mod adopt;
mod block;
mod exemplar;
mod known;
mod metadata;
mod metrics;
mod output;
mod pass;
mod synthetic;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use metadata::{Catalogue, Descriptions};
pub use metrics::Metrics;
pub use output::Output;
pub use pass::{Counts, Pass, blames_exposition};
pub use synthetic::Health;
pub use table::Table;
pub use view::{View, views_of};
