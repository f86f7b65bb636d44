//! What holds for every request.

use std::collections::{BTreeSet, HashMap};

use meshscrape::clock::Clock;
use meshscrape::model::is_stale;
use meshscrape::wire::v2::proto::{Request, TimeSeries};

use super::{entries, message};
use crate::support::receiver::Recorded;

/// Something that holds for a request, by the names of the tests that look at it.
type Rule = (&'static str, fn(&Recorded, &Request) -> bool);

const RULES: &[Rule] = &[
    ("TestHTTPMethod", |one, _| one.method == "POST"),
    ("TestProtocolCompliance/content_type_protobuf", |one, _| {
        one.header("content-type").is_some_and(|value| value.starts_with("application/x-protobuf"))
    }),
    ("TestProtocolCompliance/content_type_with_proto_param, TestContentTypeNegotiation", |one, _| {
        one.header("content-type").is_some_and(|value| value.contains("proto=io.prometheus.write.v2.Request"))
    }),
    ("TestProtocolCompliance/content_encoding_snappy", |one, _| one.header("content-encoding") == Some("snappy")),
    ("TestProtocolCompliance/version_header_present, /version_header_value", |one, _| {
        one.header("x-prometheus-remote-write-version").is_some_and(|value| value.starts_with("2.0"))
    }),
    ("TestProtocolCompliance/user_agent_present", |one, _| one.header("user-agent").is_some()),
    ("TestProtocolCompliance/snappy_block_format", |one, _| !one.body.starts_with(b"\xff\x06\x00\x00sNaPpY")),
    ("TestProtocolCompliance/protobuf_parseable", |_, request| !request.symbols.is_empty()),
    ("TestSymbolTable/empty_string_at_index_zero", |_, request| request.symbols[0].is_empty()),
    ("TestSymbolTable/string_deduplication, TestBatchingBehavior/efficient_symbol_reuse", |_, request| {
        request.symbols.iter().collect::<BTreeSet<_>>().len() == request.symbols.len()
    }),
    ("TestSymbolTable/labels_refs_valid_indices, TestExemplarEncoding/exemplar_labels_valid_refs", |_, request| {
        all(request, |series| refs(series).all(|at| (at as usize) < request.symbols.len()))
    }),
    ("TestSymbolTable/labels_refs_even_length, TestExemplarEncoding/exemplar_labels_even_length", |_, request| {
        all(request, |series| {
            series.labels_refs.len().is_multiple_of(2)
                && series.exemplars.iter().all(|one| one.labels_refs.len().is_multiple_of(2))
        })
    }),
    ("no symbol is there for nothing", |_, request| {
        let used: BTreeSet<u32> = request.timeseries.iter().flat_map(refs).chain([0]).collect();
        used.len() == request.symbols.len()
    }),
    ("TestLabelValidation/label_lexicographic_ordering, /no_duplicate_label_names", |_, request| {
        all(request, |series| names(request, series).is_sorted_by(|one, other| one < other))
    }),
    ("TestLabelValidation/metric_name_label_present", |_, request| {
        all(request, |series| names(request, series).contains(&"__name__"))
    }),
    ("TestLabelValidation/metric_name_format_valid", |_, request| {
        entries(0, request).iter().all(|entry| meshscrape::model::is_legacy_metric_name(entry.name()))
    }),
    ("TestLabelValidation/label_name_format_valid, /label_names_not_empty", |_, request| {
        all(request, |series| names(request, series).into_iter().all(meshscrape::model::is_legacy_label_name))
    }),
    ("TestLabelValidation/label_values_may_be_empty: such a label is none", |_, request| {
        entries(0, request).iter().all(|entry| entry.labels.values().all(|value| !value.is_empty()))
    }),
    ("TestLabelValidation/reserved_label_prefix", |_, request| {
        let reserved = |name: &str| name.starts_with("__") && name != "__name__";
        all(request, |series| !names(request, series).into_iter().any(reserved))
    }),
    ("TestSampleEncoding/job_instance_labels_present", |_, request| {
        entries(0, request).iter().all(|entry| !entry.label("job").is_empty() && !entry.label("instance").is_empty())
    }),
    ("TestHistogramEncoding/histogram_no_mixed_with_samples", |_, request| {
        all(request, |series| series.samples.is_empty() || series.histograms.is_empty())
    }),
    ("one sample, histogram or exemplar an entry", |_, request| {
        all(request, |series| series.samples.len() + series.histograms.len() + series.exemplars.len() == 1)
    }),
    (
        "TestSampleEncoding/timestamp_milliseconds_format, /timestamp_recent, TestTimestampEncoding/\
         timestamp_int64_milliseconds, /timestamp_precision, /timestamp_future_values",
        |_, request| {
            let now_ms = Clock::system().now_ms();
            let plausible = |at: i64| at == 0 || (now_ms - 300_000..=now_ms + 60_000).contains(&at);
            all(request, |series| times(series).all(plausible))
        },
    ),
    (
        "TestTimestampEncoding/start_timestamp_for_counters, /start_timestamp_for_histograms, \
         /start_timestamp_zero_handling, /start_timestamp_before_sample_timestamp",
        |_, request| {
            let plausible = |start: i64, at: i64| start == 0 || (start > 1_000_000_000_000 && start <= at);
            all(request, |series| {
                series.samples.iter().all(|one| plausible(one.start_timestamp, one.timestamp))
                    && series.histograms.iter().all(|one| plausible(one.start_timestamp, one.timestamp))
            })
        },
    ),
    ("TestMetadataEncoding/metadata_help_refs_valid", |_, request| {
        all(request, |series| {
            series.metadata.is_none_or(|one| one.help_ref.max(one.unit_ref) < request.symbols.len() as u32)
        })
    }),
    ("TestBatchingBehavior/batch_size_reasonable", |_, request| request.timeseries.len() <= 10_000),
    ("no request is empty", |_, request| !request.timeseries.is_empty()),
    ("no markers, though the agent was stopped", |_, request| {
        all(request, |series| !series.samples.iter().any(|one| is_stale(one.value)))
    }),
];

fn all(request: &Request, holds: impl Fn(&TimeSeries) -> bool) -> bool {
    request.timeseries.iter().all(holds)
}

/// Every reference of an entry.
fn refs(series: &TimeSeries) -> impl Iterator<Item = u32> {
    let exemplars = series.exemplars.iter().flat_map(|one| &one.labels_refs);
    let metadata = series.metadata.into_iter().flat_map(|one| [one.help_ref, one.unit_ref]);
    series.labels_refs.iter().chain(exemplars).copied().chain(metadata)
}

fn names<'r>(request: &'r Request, series: &TimeSeries) -> Vec<&'r str> {
    series.labels_refs.iter().step_by(2).map(|at| request.symbols[*at as usize].as_str()).collect()
}

fn times(series: &TimeSeries) -> impl Iterator<Item = i64> {
    series.samples.iter().map(|one| one.timestamp).chain(series.histograms.iter().map(|one| one.timestamp))
}

/// The names of the rules that some request breaks.
pub(super) fn broken(recorded: &[Recorded]) -> Vec<&'static str> {
    let messages: Vec<_> = recorded.iter().map(message).collect();
    let mut broken: Vec<_> = RULES
        .iter()
        .filter(|(_, holds)| !recorded.iter().zip(&messages).all(|(one, request)| holds(one, request)))
        .map(|(name, _)| *name)
        .collect();
    // Within a series and from request to request.
    let mut newest = HashMap::new();
    for entry in messages.iter().enumerate().flat_map(|(at, request)| entries(at, request)) {
        for at in entry.samples.iter().map(|one| one.timestamp).chain(entry.histograms.iter().map(|one| one.timestamp))
        {
            if newest.insert(entry.labels.clone(), at).is_some_and(|before| before >= at) {
                broken.push("TestSampleOrdering, TestTimestampEncoding/timestamp_ordering_within_series");
            }
        }
    }
    broken.dedup();
    broken
}
