//! Native histograms with listed bounds, value by value: what Prometheus makes of classic ones, written by remote write
//! 2.0, and what comes from our parser for the same answer.

use std::collections::BTreeMap;

use meshscrape::model::MAX_SCHEMA;
use meshscrape::parse::protobuf::{FamilyParser, FamilyStep, NativeHistograms};
use meshscrape::parse::{Converter, Entry, Exposition, Parser, Step};

use super::PLAIN;
use super::cases::{self, Case};
use super::recorder::{Histogram, Series, histograms2};
use super::stage::{Way, play_for_metadata};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listed_bounds_have_the_same_values() {
    let cases = cases::parse("nhcb", include_str!("../../fixtures/beside/nhcb.cases"));
    let ours: BTreeMap<_, _> = cases.iter().map(|case| (case.name.clone(), converted(case))).collect();
    let expected: usize = ours.values().map(BTreeMap::len).sum();
    assert!(expected > 12, "the cases have histograms");
    let all_came = |recorded: &[_]| histograms2(recorded).len() >= expected;
    let [recorded, _] = play_for_metadata(cases, Way { native: true, version2: true, ..PLAIN }, all_came).await;

    let mut theirs: BTreeMap<String, BTreeMap<Series, String>> =
        ours.keys().map(|case| (case.clone(), BTreeMap::new())).collect();
    for (mut labels, histogram) in histograms2(&recorded) {
        let of_target = |name: &str| matches!(name, "case" | "instance" | "job");
        let (_, case) = labels.iter().find(|(name, _)| name == "case").cloned().expect("a case");
        labels.retain(|(name, _)| !of_target(name));
        theirs.get_mut(&case).expect("of these cases").insert(labels, histogram.to_string());
    }
    for (case, ours) in ours {
        assert_eq!(ours, theirs[&case], "{case}");
    }
}

/// What our parser and converter make of the first answer.
fn converted(case: &Case) -> BTreeMap<Series, String> {
    let (exposition, body) = case.answers[0].exposition();
    let classic_too = case.config.iter().any(|line| line == "always_scrape_classic_histograms: true");
    let mut converter = Converter::new(exposition, classic_too);
    let mut found = BTreeMap::new();
    let mut each = |entry: &Entry<'_>| -> Result<(), String> {
        if let Entry::Histogram(entry) = entry {
            let labels = entry.series.labels().expect("unique labels");
            let labels = labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let mut histogram = entry.histogram.clone();
            histogram.settle(MAX_SCHEMA, None).map_err(|error| error.to_string())?;
            // The first one of a series counts, as in a scrape.
            found.entry(labels).or_insert_with(|| Histogram::from(&histogram).to_string());
        }
        Ok(())
    };
    let mut rest = body.as_slice();
    match exposition {
        Exposition::Text(format) => {
            let mut parser = Parser::new(format);
            while let Step::Entry(entry, taken) = parser.next(rest, true).expect("a good answer") {
                converter.take(&entry, &mut each).expect("good histograms");
                rest = &rest[taken..];
            }
        }
        Exposition::Protobuf => {
            let mut parser = FamilyParser::new(NativeHistograms { read: true, classic_too });
            while let FamilyStep::Family(mut family, taken) = parser.next(rest, true).expect("a good answer") {
                while let Some(entry) = family.next_entry().expect("a good answer") {
                    converter.take(&entry, &mut each).expect("good histograms");
                }
                rest = &rest[taken..];
            }
        }
    }
    converter.end(&mut each).expect("good histograms");
    found
}
