//! Every test of the published list for senders of remote write 2.0 has its counterpart here, under its name there.
//!
//! That suite starts a sender for each of its tests and looks at the last request. Here one agent scrapes a target for each
//! test, and everything that came for it is looked at ([`content`]); one agent writes to a receiver for each way to answer
//! ([`answers`]); and for what hangs on the settings that the suite's own sender has, that sender runs as it would there
//! ([`launcher`]). The levels MUST, SHOULD and MAY are held alike.

mod answers;
mod content;
mod expositions;
mod launcher;
mod rules;

use std::collections::BTreeMap;

use meshscrape::wire::v2::proto::{Exemplar, Histogram, Request, Sample};

use crate::support::receiver::Recorded;

/// An entry of a request, its references resolved.
#[derive(Clone, Debug)]
struct Entry {
    labels: BTreeMap<String, String>,
    samples: Vec<Sample>,
    histograms: Vec<Histogram>,
    /// Each with its labels.
    exemplars: Vec<(BTreeMap<String, String>, Exemplar)>,
    /// Type, help and unit.
    metadata: Option<(i32, String, String)>,
    /// The number of the request.
    request: usize,
}

impl Entry {
    fn name(&self) -> &str {
        self.label("__name__")
    }

    fn label(&self, name: &str) -> &str {
        self.labels.get(name).map(String::as_str).unwrap_or_default()
    }
}

/// The entries of the request with this number.
fn entries(number: usize, request: &Request) -> Vec<Entry> {
    let labels = |refs: &[u32]| -> BTreeMap<String, String> {
        let labels = request.labels(refs).expect("valid references");
        labels.into_iter().map(|label| (label.name, label.value)).collect()
    };
    let text = |at: u32| request.symbols[at as usize].clone();
    let entry = |series: &meshscrape::wire::v2::proto::TimeSeries| Entry {
        labels: labels(&series.labels_refs),
        samples: series.samples.clone(),
        histograms: series.histograms.clone(),
        exemplars: series.exemplars.iter().map(|one| (labels(&one.labels_refs), one.clone())).collect(),
        metadata: series.metadata.map(|one| (one.r#type, text(one.help_ref), text(one.unit_ref))),
        request: number,
    };
    request.timeseries.iter().map(entry).collect()
}

/// The message of a request of 2.0.
fn message(recorded: &Recorded) -> Request {
    meshscrape::wire::decode_v2(&recorded.body).expect("a request of 2.0")
}
