//! What is exposed for each test of the list, and what must come of it.

use std::collections::BTreeMap;

use meshscrape::wire::proto::{BucketSpan, Count, ZeroCount};
use meshscrape::wire::v2::proto::{Exemplar, Histogram};

use super::content::{SCRAPES, Told};

/// A test of the list.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) exposition: fn() -> String,
    pub(super) holds: fn(&Told<'_>) -> bool,
}

const fn case(name: &'static str, exposition: fn() -> String, holds: fn(&Told<'_>) -> bool) -> Case {
    Case { name, exposition, holds }
}

const COUNTER: i32 = 1;
const GAUGE: i32 = 2;
const HISTOGRAM: i32 = 3;
const SUMMARY: i32 = 5;

/// A classic histogram of a hundred observations.
const CLASSIC: &str = "# HELP wait_seconds How long\n# TYPE wait_seconds histogram\n\
    wait_seconds_bucket{le=\"0.1\"} 10\nwait_seconds_bucket{le=\"1\"} 60\nwait_seconds_bucket{le=\"+Inf\"} 100\n\
    wait_seconds_sum 250.5\nwait_seconds_count 100\n";

/// The same as OpenMetrics, with an exemplar.
const CLASSIC_WITH_EXEMPLAR: &str = "# HELP wait_seconds How long\n# TYPE wait_seconds histogram\n\
    wait_seconds_bucket{le=\"0.1\"} 10 # {trace_id=\"abc\"} 0.05\nwait_seconds_bucket{le=\"+Inf\"} 100\n\
    wait_seconds_sum 250.5\nwait_seconds_count 100\n";

const ALL_TYPES: &str = "# HELP ok_total How often\n# TYPE ok_total counter\nok_total 5\n# HELP level How much\n\
    # TYPE level gauge\nlevel 2\n# HELP wait_seconds How long\n# TYPE wait_seconds histogram\n\
    wait_seconds_bucket{le=\"+Inf\"} 3\nwait_seconds_sum 1.5\nwait_seconds_count 3\n# HELP size How large\n\
    # TYPE size summary\nsize{quantile=\"0.5\"} 1\nsize_sum 9\nsize_count 3\n";

/// A native histogram of seven observations and a gauge, as protobuf has them: no text has native histograms.
const NATIVE: &str = "name: \"lag\" help: \"How late\" type: HISTOGRAM metric { histogram { sample_count: 7 sample_sum: 9.5 \
    schema: 3 zero_threshold: 0.01 zero_count: 1 positive_span { offset: 0 length: 2 } positive_delta: [2, 1] \
    negative_span { offset: 1 length: 1 } negative_delta: 1 } }\nname: \"level\" type: GAUGE metric { gauge { value: 1 } }\n";

/// So many series of a metric, each with the labels that `labels` makes.
fn many(name: &str, count: usize, labels: impl Fn(usize) -> String) -> String {
    (0..count).map(|n| format!("{name}{{{}}} {n}\n", labels(n))).collect()
}

/// Exemplars as OpenMetrics has them: the labels, and what stands behind them.
fn with_exemplar(exemplar: &str) -> String {
    format!("# TYPE ok counter\nok_total 5 # {exemplar}\n")
}

/// Whether the counter has exemplars, and this holds for the labels and the rest of each.
fn exemplars(told: &Told<'_>, holds: impl Fn(&BTreeMap<String, String>, &Exemplar) -> bool) -> bool {
    let exemplars: Vec<_> = told.of("ok_total").into_iter().flat_map(|entry| &entry.exemplars).collect();
    !exemplars.is_empty() && exemplars.iter().all(|(labels, one)| holds(labels, one))
}

/// Whether each exemplar of the counter has this label.
fn exemplar_has(told: &Told<'_>, name: &str, value: &str) -> bool {
    exemplars(told, |labels, _| labels.get(name).is_some_and(|own| own == value))
}

/// Whether there is a native histogram for each scrape, and this holds for every one.
fn histograms(told: &Told<'_>, holds: impl Fn(&Histogram) -> bool) -> bool {
    let histograms: Vec<_> = told.of("lag").into_iter().flat_map(|entry| &entry.histograms).collect();
    histograms.len() >= SCRAPES && histograms.into_iter().all(holds)
}

/// Whether there are buckets of the classic histogram for each scrape, and this holds for them in the order of their bounds.
fn buckets(told: &Told<'_>, holds: impl Fn([f64; 3]) -> bool) -> bool {
    let of = |bound: &str| -> Vec<f64> {
        let entries = told.of("wait_seconds_bucket");
        entries.iter().filter(|entry| entry.label("le") == bound).map(|entry| entry.samples[0].value).collect()
    };
    let all = [of("0.1"), of("1.0"), of("+Inf")];
    let scrapes = all[0].len();
    scrapes >= SCRAPES
        && all.iter().all(|bucket| bucket.len() == scrapes)
        && (0..scrapes).all(|scrape| holds([0, 1, 2].map(|at| all[at][scrape])))
}

fn has_label(told: &Told<'_>, name: &str, value: &str) -> bool {
    let of = told.of("x");
    !of.is_empty() && of.iter().all(|entry| entry.label(name) == value)
}

const LONG: usize = 10_000;

pub(super) const CASES: &[Case] = &[
    // Samples, to the bit.
    case("TestSampleEncoding/float_value_encoding", || "x 123.45\n".into(), |told| told.is("x", 123.45)),
    case("TestSampleEncoding/integer_value_encoding", || "x 42\n".into(), |told| told.is("x", 42.0)),
    case("TestSampleEncoding/zero_value_encoding", || "x 0\n".into(), |told| told.is("x", 0.0)),
    case("TestSampleEncoding/negative_value_encoding", || "x -15.5\n".into(), |told| told.is("x", -15.5)),
    case("TestSampleEncoding/positive_infinity_encoding", || "x +Inf\n".into(), |told| told.is("x", f64::INFINITY)),
    case("TestSampleEncoding/negative_infinity_encoding", || "x -Inf\n".into(), |told| told.is("x", f64::NEG_INFINITY)),
    case(
        "TestSampleEncoding/nan_encoding",
        || "x NaN\n".into(),
        |told| told.is("x", f64::from_bits(0x7ff8_0000_0000_0001)),
    ),
    case(
        "TestSampleEncoding/multiple_samples_same_series",
        || "x 1\n".into(),
        |told| told.values("x").len() >= 3 && told.series("x") == 1,
    ),
    case("TestSampleEncoding/large_float_values", || "x 1.7e308\n".into(), |told| told.is("x", 1.7e308)),
    case("TestSampleEncoding/small_float_values", || "x 5e-324\n".into(), |told| told.is("x", 5e-324)),
    case("TestSampleEncoding/scientific_notation", || "x 1.23e-4\n".into(), |told| told.is("x", 1.23e-4)),
    case(
        "TestSampleEncoding/precision_preservation",
        || "x 0.1234567890123456\n".into(),
        |told| told.is("x", 0.123_456_789_012_345_6),
    ),
    // Labels.
    case(
        "TestLabelValidation/unicode_in_label_values",
        || "x{a=\"Zürich ☃ 日本\"} 1\n".into(),
        |told| has_label(told, "a", "Zürich ☃ 日本"),
    ),
    case(
        "TestLabelValidation/special_chars_in_label_values",
        || "x{a=\"\\\\ \\\" \\n /?&=\"} 1\n".into(),
        |told| has_label(told, "a", "\\ \" \n /?&="),
    ),
    case(
        "TestLabelValidation/very_long_label_names",
        || format!("x{{{}=\"v\"}} 1\n", "n".repeat(500)),
        |told| has_label(told, &"n".repeat(500), "v"),
    ),
    case(
        "TestLabelValidation/very_long_label_values",
        || format!("x{{a=\"{}\"}} 1\n", "v".repeat(LONG)),
        |told| has_label(told, "a", &"v".repeat(LONG)),
    ),
    case(
        "TestLabelValidation/many_labels_per_series",
        || format!("x{{{}}} 1\n", (0..50).map(|n| format!("l{n}=\"{n}\"")).collect::<Vec<_>>().join(",")),
        |told| has_label(told, "l49", "49") && told.of("x")[0].labels.len() == 53,
    ),
    // What series are.
    case(
        "TestMetadataEncoding/metadata_type_counter",
        || ALL_TYPES.into(),
        |told| told.described("ok_total") == Some((COUNTER, "How often")),
    ),
    case(
        "TestMetadataEncoding/metadata_type_gauge",
        || ALL_TYPES.into(),
        |told| told.described("level") == Some((GAUGE, "How much")),
    ),
    case(
        "TestMetadataEncoding/metadata_type_histogram",
        || CLASSIC.into(),
        |told| {
            let parts = ["wait_seconds_bucket", "wait_seconds_sum", "wait_seconds_count"];
            parts.iter().all(|part| told.described(part) == Some((HISTOGRAM, "How long")))
        },
    ),
    case(
        "TestMetadataEncoding/metadata_type_summary",
        || ALL_TYPES.into(),
        |told| {
            ["size", "size_sum", "size_count"].iter().all(|part| told.described(part) == Some((SUMMARY, "How large")))
        },
    ),
    case(
        "TestMetadataEncoding/metadata_help_text",
        || "# HELP x Words, and more words.\nx 1\n".into(),
        |told| told.described("x") == Some((0, "Words, and more words.")),
    ),
    case(
        "TestMetadataEncoding/metadata_unit",
        || {
            "# TYPE x_seconds gauge\n# UNIT x_seconds seconds\nx_seconds 1 # {a=\"b\"} 1\n"
                .replace(" # {a=\"b\"} 1", "")
                + "# TYPE ok counter\nok_total 1 # {a=\"b\"} 1\n"
        },
        |told| {
            let of = told.of("x_seconds");
            !of.is_empty() && of.iter().all(|entry| entry.metadata.as_ref().is_some_and(|one| one.2 == "seconds"))
        },
    ),
    case(
        "TestMetadataEncoding/metadata_help_with_newlines",
        || "# HELP x one\\ntwo\n# HELP x three\nx 1\n".into(),
        |told| told.described("x") == Some((0, "three")),
    ),
    case(
        "TestMetadataEncoding/metadata_help_with_special_chars",
        || "# HELP x \\\\ \" ☃ \\n\nx 1\n".into(),
        |told| told.described("x") == Some((0, "\\ \" ☃ \n")),
    ),
    case(
        "TestMetadataEncoding/metadata_consistent_across_series",
        || format!("# HELP x Words\n# TYPE x gauge\n{}", many("x", 3, |n| format!("n=\"{n}\""))),
        |told| told.series("x") == 3 && told.described("x") == Some((GAUGE, "Words")),
    ),
    case(
        "TestMetadataEncoding/metadata_empty_help_allowed",
        || "# HELP x \n# TYPE x gauge\nx 1\n".into(),
        |told| told.described("x") == Some((GAUGE, "")),
    ),
    // Exemplars.
    case(
        "TestExemplarEncoding/exemplar_with_trace_id",
        || with_exemplar("{trace_id=\"abc123\"} 1"),
        |told| exemplar_has(told, "trace_id", "abc123"),
    ),
    case(
        "TestExemplarEncoding/exemplar_with_span_id",
        || with_exemplar("{span_id=\"d4\",trace_id=\"a\"} 1"),
        |told| exemplar_has(told, "span_id", "d4"),
    ),
    case(
        "TestExemplarEncoding/exemplar_value_valid",
        || with_exemplar("{a=\"b\"} 0.67"),
        |told| exemplars(told, |_, one| one.value == 0.67),
    ),
    case(
        "TestExemplarEncoding/exemplar_timestamp_valid",
        || with_exemplar("{a=\"b\"} 1"),
        |told| exemplars(told, |_, one| one.timestamp > 1_000_000_000_000),
    ),
    case(
        "TestExemplarEncoding/exemplar_custom_labels",
        || with_exemplar("{user=\"me\",zone=\"eu\"} 1"),
        |told| exemplar_has(told, "user", "me") && exemplar_has(told, "zone", "eu"),
    ),
    case(
        "TestExemplarEncoding/exemplar_on_histogram",
        || CLASSIC_WITH_EXEMPLAR.into(),
        |told| {
            told.of("wait_seconds_bucket")
                .iter()
                .any(|entry| entry.exemplars.iter().any(|(own, _)| own["trace_id"] == "abc"))
        },
    ),
    case(
        "TestExemplarEncoding/multiple_exemplars_per_series",
        || "# TYPE ok counter\nok_total{n=\"1\"} 5 # {a=\"1\"} 1\nok_total{n=\"2\"} 5 # {a=\"2\"} 1\n".into(),
        |told| {
            let exemplars = told.of("ok_total").into_iter().filter(|entry| !entry.exemplars.is_empty());
            exemplars.filter(|entry| entry.exemplars[0].0["a"] == entry.label("n")).count() == 2
        },
    ),
    // Histograms, native and classic ones.
    case(
        "TestHistogramEncoding/native_histogram_structure",
        || NATIVE.into(),
        |told| {
            histograms(told, |one| {
                let spans = |spans: &[BucketSpan]| spans.iter().map(|one| (one.offset, one.length)).collect::<Vec<_>>();
                one.count == Some(Count::Integer(7))
                    && one.sum == 9.5
                    && one.zero_threshold == 0.01
                    && one.zero_count == Some(ZeroCount::Integer(1))
                    && (spans(&one.positive_spans), &one.positive_deltas[..]) == (vec![(0, 2)], &[2, 1])
                    && (spans(&one.negative_spans), &one.negative_deltas[..]) == (vec![(1, 1)], &[1])
            })
        },
    ),
    case(
        "TestHistogramEncoding/histogram_count_present",
        || CLASSIC.into(),
        |told| told.is("wait_seconds_count", 100.0),
    ),
    case("TestHistogramEncoding/histogram_sum_present", || CLASSIC.into(), |told| told.is("wait_seconds_sum", 250.5)),
    case(
        "TestHistogramEncoding/histogram_buckets_ordered",
        || CLASSIC.into(),
        |told| buckets(told, |buckets| buckets.is_sorted()),
    ),
    case(
        "TestHistogramEncoding/histogram_positive_buckets",
        || CLASSIC.into(),
        |told| buckets(told, |buckets| buckets == [10.0, 60.0, 100.0]),
    ),
    case(
        "TestHistogramEncoding/histogram_negative_buckets",
        || "# TYPE h histogram\nh_bucket{le=\"-1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum -3\nh_count 2\n".into(),
        |told| told.is("h_sum", -3.0) && told.of("h_bucket").iter().any(|entry| entry.label("le") == "-1.0"),
    ),
    case(
        "TestHistogramEncoding/histogram_zero_bucket",
        || "# TYPE h histogram\nh_bucket{le=\"0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 2\n".into(),
        |told| told.of("h_bucket").iter().any(|entry| entry.label("le") == "0.0"),
    ),
    case("TestHistogramEncoding/histogram_schema", || NATIVE.into(), |told| histograms(told, |one| one.schema == 3)),
    case(
        "TestHistogramEncoding/histogram_timestamp",
        || NATIVE.into(),
        |told| histograms(told, |one| one.timestamp > 1_000_000_000_000),
    ),
    case(
        "TestHistogramEncoding/histogram_no_mixed_with_samples",
        || NATIVE.into(),
        |told| {
            histograms(told, |_| true)
                && told.of("lag").iter().all(|entry| entry.samples.is_empty())
                && told.is("level", 1.0)
                && told.of("level").iter().all(|entry| entry.histograms.is_empty())
        },
    ),
    case(
        "TestHistogramEncoding/histogram_empty_buckets",
        || "# TYPE h histogram\nh_bucket{le=\"1\"} 0\nh_bucket{le=\"+Inf\"} 0\nh_sum 0\nh_count 0\n".into(),
        |told| told.is("h_bucket", 0.0) && told.is("h_count", 0.0),
    ),
    case(
        "TestHistogramEncoding/histogram_large_counts",
        || "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1000000000\nh_sum 5e9\nh_count 1000000000\n".into(),
        |told| told.is("h_count", 1e9),
    ),
    // Several at once.
    case(
        "TestCombinedFeatures/samples_with_metadata",
        || "# HELP http_total HTTP requests\n# TYPE http_total counter\nhttp_total 7\n".into(),
        |told| told.described("http_total") == Some((COUNTER, "HTTP requests")),
    ),
    case(
        "TestCombinedFeatures/samples_with_exemplars",
        || with_exemplar("{trace_id=\"a\"} 1"),
        |told| told.is("ok_total", 5.0) && exemplar_has(told, "trace_id", "a"),
    ),
    case(
        "TestCombinedFeatures/histogram_with_metadata_and_exemplars",
        || CLASSIC_WITH_EXEMPLAR.into(),
        |told| {
            told.is("wait_seconds_count", 100.0)
                && told.described("wait_seconds_bucket") == Some((HISTOGRAM, "How long"))
                && told.of("wait_seconds_bucket").iter().any(|entry| !entry.exemplars.is_empty())
        },
    ),
    case(
        "TestCombinedFeatures/multiple_metric_types",
        || ALL_TYPES.into(),
        |told| {
            let kinds = ["ok_total", "level", "wait_seconds_count", "size_count"];
            kinds.map(|name| told.described(name).map(|(kind, _)| kind))
                == [COUNTER, GAUGE, HISTOGRAM, SUMMARY].map(Some)
        },
    ),
    case(
        "TestCombinedFeatures/high_cardinality_labels",
        || many("x", 6, |n| format!("pod=\"pod-{n}\",zone=\"z{}\"", n % 2)),
        |told| told.series("x") == 6 && told.whole_scrapes(),
    ),
    case(
        "TestCombinedFeatures/complete_metric_family",
        || CLASSIC.into(),
        |told| told.series("wait_seconds_bucket") == 3 && told.is("wait_seconds_sum", 250.5),
    ),
    case(
        "TestCombinedFeatures/mixed_labels_and_metadata",
        || format!("# HELP x Words\n# TYPE x counter\n{}", many("x", 3, |n| format!("n=\"{n}\""))),
        |told| told.series("x") == 3 && told.described("x") == Some((COUNTER, "Words")),
    ),
    // Of its own `up` nothing is taken: it would be the agent's.
    case(
        "TestCombinedFeatures/real_world_scenario",
        || format!("up 0\n{ALL_TYPES}"),
        |told| told.is("up", 1.0) && told.is("level", 2.0) && told.is("ok_total", 5.0),
    ),
    // Requests.
    case(
        "TestBatchingBehavior/multiple_series_per_request, TestConcurrentRequests",
        || "a 1\nb 2\nc 3\n".into(),
        |told| told.whole_scrapes() && ["a", "b", "c"].iter().all(|name| !told.values(name).is_empty()),
    ),
    case(
        "TestBatchingBehavior/batch_size_reasonable",
        || many("x", 12_000, |n| format!("n=\"{n}\"")),
        |told| told.series("x") == 12_000 && told.most_in_a_request() <= 2_000,
    ),
    case(
        "TestBatchingBehavior/handles_varying_cardinality",
        || format!("{}{}", many("x", 1, |n| n.to_string().repeat(0)), many("y", 300, |n| format!("n=\"{n}\""))),
        |told| told.series("x") == 1 && told.series("y") == 300,
    ),
    case(
        "TestBatchingBehavior/metadata_batching",
        || ALL_TYPES.into(),
        |told| ["ok_total", "level", "size"].iter().all(|name| told.described(name).is_some()),
    ),
    case(
        "TestRobustnessUnderLoad",
        || many("x", 100, |n| format!("n=\"{n}\"")),
        |told| told.series("x") == 100 && told.whole_scrapes(),
    ),
    // At the edges.
    case("TestEdgeCases/empty_scrape", String::new, |told| {
        told.is("up", 1.0) && told.is("scrape_samples_scraped", 0.0)
    }),
    case(
        "TestEdgeCases/huge_label_values",
        || format!("x{{a=\"{}\"}} 1\n", "ü".repeat(LONG)),
        |told| has_label(told, "a", &"ü".repeat(LONG)),
    ),
    case(
        "TestEdgeCases/unicode_in_labels",
        || "x{a=\"🦀\",b=\"Ж\"} 1\n".into(),
        |told| has_label(told, "a", "🦀") && has_label(told, "b", "Ж"),
    ),
    case(
        "TestEdgeCases/very_long_metric_name",
        || format!("{} 1\n", "n".repeat(LONG)),
        |told| told.is(&"n".repeat(LONG), 1.0),
    ),
    case(
        "TestEdgeCases/special_float_combinations",
        || "a NaN\nb +Inf\nc -Inf\nd -0\n".into(),
        |told| told.is("b", f64::INFINITY) && told.is("c", f64::NEG_INFINITY) && told.is("d", -0.0),
    ),
    // Once: the next one is not newer.
    case(
        "TestEdgeCases/zero_timestamp",
        || "x 1 0\n".into(),
        |told| {
            let of = told.of("x");
            of.len() == 1 && (of[0].samples[0].timestamp, of[0].samples[0].value) == (0, 1.0)
        },
    ),
    case(
        "TestEdgeCases/future_timestamp",
        || "x 1 in a year\n".into(),
        |told| told.is("up", 0.0) && told.of("x").is_empty(),
    ),
    case("TestEdgeCases/metric_name_with_colons", || "job:x:rate5m 1\n".into(), |told| told.is("job:x:rate5m", 1.0)),
    case("TestEdgeCases/stale_marker", || "x StaleNaN\n".into(), |told| told.is("up", 0.0) && told.of("x").is_empty()),
    case(
        "TestEdgeCases/mixed_sample_and_histogram_families",
        || format!("{CLASSIC}level 1\n"),
        |told| told.is("level", 1.0) && told.is("wait_seconds_count", 100.0),
    ),
];

/// Values that are none: what remains are the agent's own series of several scrapes, in one request, if nothing else fills it.
pub(super) const WITHOUT_SAMPLES: &[Case] = &[
    case(
        "TestEdgeCases/many_timeseries",
        || (0..1_000).map(|n| format!("x{{n=\"{n}\"}} {{{{n}}}}\n")).collect(),
        |told| told.is("up", 0.0) && told.most_in_a_request() >= 10,
    ),
    case(
        "TestEdgeCases/high_cardinality",
        || (0..1_000).map(|n| format!("x{{n=\"{n}\"}} value\n")).collect(),
        |told| told.is("up", 0.0) && told.most_in_a_request() >= 20,
    ),
];
