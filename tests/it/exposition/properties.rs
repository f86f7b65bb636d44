//! What holds for every body: what we print we read back, cuts do not matter, garbage does no harm.

use meshscrape::model::{Labels, MetricType, normalise_nan};
use meshscrape::parse::{Format, MAX_LABELS, MAX_LINE_BYTES, Problem, print};
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Outcome, Seen, envoy_capture, read, read_in_chunks};

const FORMATS: [Format; 2] = [Format::PrometheusText, Format::OpenMetrics];

/// Labels with a name, a value, a time.
type Printed = (Labels, f64, Option<i64>);

proptest! {
    #[test]
    fn what_is_printed_is_read_back(samples in prop::collection::vec(sample(), 0..20)) {
        for format in FORMATS {
            let mut body = String::new();
            let mut printed = Vec::new();
            for (labels, value, time) in &samples {
                match print::sample(&mut body, format, labels, *value, *time) {
                    Ok(()) => printed.push((labels.clone(), normalise_nan(*value).to_bits(), *time)),
                    // Only this is refused: the Prometheus format has no times before 1970.
                    Err(refused) => {
                        prop_assert_eq!(refused, print::Unprintable::Timestamp(time.unwrap_or(0)));
                        prop_assert!(format == Format::PrometheusText && time.is_some_and(|ms| ms < 0));
                    }
                }
            }
            print::end(&mut body, format);
            let outcome = read(format, body.as_bytes());
            prop_assert_eq!(&outcome.error, &None, "{}", body);
            prop_assert!(outcome.complete);
            let back: Vec<_> = outcome
                .samples()
                .map(|sample| (sample.labels.clone().expect("no label twice"), sample.bits, sample.timestamp_ms))
                .collect();
            prop_assert_eq!(back, printed, "{}", body);
        }
    }

    #[test]
    fn descriptors_are_read_back(family in name(), text in text(), kind in kind()) {
        for format in FORMATS {
            let mut body = String::new();
            print::help_line(&mut body, format, &family, &text);
            print::type_line(&mut body, format, &family, kind);
            print::end(&mut body, format);
            let outcome = read(format, body.as_bytes());
            prop_assert_eq!(&outcome.error, &None, "{}", body);
            let only_blanks = format == Format::PrometheusText && text.chars().all(|c| matches!(c, ' ' | '\t'));
            let text = if only_blanks { "" } else { &text };
            prop_assert_eq!(&outcome.entries[0], &Seen::Help(family.clone(), text.to_owned()));
            let in_text = [MetricType::Counter, MetricType::Gauge, MetricType::Histogram, MetricType::Summary];
            let kind = if format == Format::OpenMetrics || in_text.contains(&kind) { kind } else { MetricType::Unknown };
            prop_assert_eq!(&outcome.entries[1], &Seen::Type(family.clone(), kind));
        }
    }

    #[test]
    fn cuts_do_not_matter(body in body(), cuts in prop::collection::vec(any::<Index>(), 0..12)) {
        for format in FORMATS {
            prop_assert_eq!(read_in_chunks(format, pieces(&body, &cuts)), read(format, &body));
        }
    }

    #[test]
    fn garbage_does_no_harm(mut body in body(), changes in prop::collection::vec((any::<Index>(), change()), 1..8)) {
        for (at, change) in &changes {
            let at = at.index(body.len() + 1);
            match change {
                Change::Insert(byte) => body.insert(at, *byte),
                Change::Set(byte) => body.splice(at..(at + 1).min(body.len()), [*byte]).for_each(drop),
                Change::Remove(length) => drop(body.drain(at..(at + length).min(body.len()))),
                Change::Cut => body.truncate(at),
            }
        }
        for format in FORMATS {
            let outcome = read(format, &body);
            prop_assert!(positions_are_real(&outcome, &body), "{:?}", outcome.error);
            // Printing what was read, and reading that, is where it settles.
            if outcome.error.is_none() {
                prop_assert!(settles(format, &outcome));
            }
        }
    }
}

#[test]
fn a_real_body_may_be_cut_anywhere() {
    let body = envoy_capture().as_bytes();
    let whole = read(Format::PrometheusText, body);
    assert_eq!((whole.error.as_ref(), whole.complete), (None, true));
    for size in [1, 7, 64, 1448, 16 * 1024] {
        assert!(read_in_chunks(Format::PrometheusText, body.chunks(size)) == whole, "pieces of {size} bytes");
    }
}

/// Istio's agent can stop inside a line and call it a whole body. Wherever that happens it shows: as an error in the
/// unfinished line, or as an incomplete body.
#[test]
fn a_truncated_body_is_known_as_such() {
    let body = envoy_capture().as_bytes();
    for end in 1..4096 {
        let outcome = read(Format::PrometheusText, &body[..end]);
        let whole_lines = body[end - 1] == b'\n';
        match &outcome.error {
            Some(error) => assert!(error.unfinished && !whole_lines, "{end} bytes: {error}"),
            None => assert_eq!(outcome.complete, whole_lines, "{end} bytes"),
        }
    }
    let open_metrics = b"lake 3\n# EOF\n";
    for end in 1..open_metrics.len() - 1 {
        let error = read(Format::OpenMetrics, &open_metrics[..end]).error.expect("no end was seen");
        assert!(error.unfinished, "{end} bytes: {error}");
    }
    for end in [open_metrics.len() - 1, open_metrics.len()] {
        assert!(read(Format::OpenMetrics, &open_metrics[..end]).complete);
    }
}

#[test]
fn lines_have_a_ceiling_however_they_arrive() {
    let frame = "lake{a=\"\"} 3".len();
    for format in FORMATS {
        for (length, fits) in [(MAX_LINE_BYTES, true), (MAX_LINE_BYTES + 1, false)] {
            let line = format!("lake{{a=\"{}\"}} 3\n# EOF\n", "x".repeat(length - frame));
            let whole = read(format, line.as_bytes());
            assert_eq!(whole.error.is_none(), fits, "{length} bytes");
            assert!(read_in_chunks(format, line.as_bytes().chunks(509)) == whole);
            if let Some(error) = whole.error {
                assert_eq!((error.line, error.column, &error.problem), (1, 1, &Problem::LineTooLong));
                assert!(error.to_string().contains("1048576"), "{error}");
            }
        }
    }
}

/// Line feeds inside quotes make every line look like the last one of its entry. A body of nothing else, in small pieces,
/// must not be parsed from the beginning for each of them: that would be hours.
#[test]
fn a_quoted_mass_of_line_feeds_is_read_once() {
    let body = format!("lake{{a=\"{}\"}} 3\n", "\n".repeat(MAX_LINE_BYTES / 2));
    let whole = read_in_chunks(Format::PrometheusText, body.as_bytes().chunks(512));
    assert_eq!((whole.error, whole.entries.len()), (None, 1));
    let labels: String = (0..MAX_LABELS).map(|n| format!("l{n}=\"\n\n\n\",")).collect();
    let body = format!("lake{{{labels}}} 3\nlake x\n");
    let whole = read_in_chunks(Format::PrometheusText, body.as_bytes().chunks(1));
    assert_eq!(whole.entries.len(), 1);
    assert_eq!(whole.error.map(|error| (error.line, error.column)), Some((3 * MAX_LABELS + 2, 6)));
    let unclosed = format!("lake{{a=\"{}", "\n".repeat(2 * MAX_LINE_BYTES));
    let error = read_in_chunks(Format::PrometheusText, unclosed.as_bytes().chunks(512)).error.expect("too long");
    assert_eq!(error.problem, Problem::LineTooLong);
}

#[test]
fn labels_have_a_ceiling() {
    for format in FORMATS {
        for (count, fits) in [(MAX_LABELS, true), (MAX_LABELS + 1, false)] {
            let labels: Vec<String> = (0..count).map(|n| format!("l{n}=\"v\"")).collect();
            let outcome = read(format, format!("lake{{{}}} 3\n# EOF\n", labels.join(",")).as_bytes());
            assert_eq!(outcome.error.is_none(), fits);
            if let Some(error) = outcome.error {
                assert_eq!(error.problem, Problem::TooManyLabels);
            }
        }
    }
}

fn positions_are_real(outcome: &Outcome, body: &[u8]) -> bool {
    let lines = body.split(|byte| *byte == b'\n').collect::<Vec<_>>();
    let in_body = |line: usize, column: usize| {
        (1..=lines.len()).contains(&line) && (1..=lines[line - 1].len() + 1).contains(&column)
    };
    outcome.error.as_ref().is_none_or(|error| in_body(error.line, error.column) && error.to_string().len() < 400)
}

fn settles(format: Format, outcome: &Outcome) -> bool {
    let printable = |sample: &super::Sample| {
        let mut line = String::new();
        let labels = sample.labels.as_ref().ok()?;
        print::sample(&mut line, format, labels, f64::from_bits(sample.bits), sample.timestamp_ms).ok()?;
        Some((line, labels.clone(), sample.bits, sample.timestamp_ms))
    };
    outcome.samples().filter_map(printable).all(|(mut line, labels, bits, time)| {
        print::end(&mut line, format);
        let again = read(format, line.as_bytes());
        again.error.is_none()
            && again.samples().all(|s| (s.labels.as_ref(), s.bits, s.timestamp_ms) == (Ok(&labels), bits, time))
    })
}

fn pieces<'b>(body: &'b [u8], cuts: &[Index]) -> Vec<&'b [u8]> {
    let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
    places.extend([0, body.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &body[pair[0]..pair[1]]).collect()
}

fn sample() -> impl Strategy<Value = Printed> {
    let labels = prop::collection::vec((label_name(), text()), 0..5);
    // Up to the year 9999 the seconds of OpenMetrics have every millisecond.
    let time = prop::option::of(-62_135_596_800_000..253_402_300_800_000_i64);
    (name(), labels, any::<f64>(), time).prop_map(|(name, labels, value, time)| {
        let mut labels: Labels = labels.into_iter().collect();
        labels.set("__name__", &name);
        (labels, value, time)
    })
}

/// Any text without zero bytes, often a name that needs no quotes.
fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z_:][a-zA-Z0-9_:]{0,8}", "[^\\x00]{1,8}", "[ \"\\\\\n{},=#]{1,6}"]
}

fn label_name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z_][a-zA-Z0-9_]{0,8}", name(), Just("le".to_owned()), Just("quantile".to_owned())]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,12}", "\\PC{0,12}", "[\\x00\"\\\\\nn\t é☂]{0,12}"]
}

fn kind() -> impl Strategy<Value = MetricType> {
    prop::sample::select(vec![
        MetricType::Unknown,
        MetricType::Counter,
        MetricType::Gauge,
        MetricType::Histogram,
        MetricType::GaugeHistogram,
        MetricType::Summary,
        MetricType::Info,
        MetricType::StateSet,
    ])
}

/// Bodies near the edges of both grammars: printed samples among lines made of the formats' own tokens.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let printed = (sample(), any::<bool>()).prop_map(|((labels, value, time), open_metrics)| {
        let mut line = String::new();
        // A sample that this format cannot print gives an empty line.
        let _ = print::sample(&mut line, FORMATS[usize::from(open_metrics)], &labels, value, time);
        line
    });
    let token = prop::sample::select(vec![
        "lake",
        "_total",
        "a",
        "le",
        "=",
        "\"",
        "\"\"",
        "\"b\"",
        "\"\\\"\"",
        "\"\n\"",
        "\\",
        "\\n",
        "\n",
        ",",
        "{",
        "}",
        " ",
        "\t",
        "3",
        "-0",
        "1e3",
        "NaN",
        "+Inf",
        "1700000000",
        "# ",
        "# TYPE ",
        "# HELP ",
        "# UNIT ",
        "# EOF",
        " # {",
        "#",
        "histogram",
        "gauge",
        "ü",
        "\0",
        "\r",
    ]);
    let soup = prop::collection::vec(token, 1..12).prop_map(|tokens| tokens.concat());
    let line = prop_oneof![3 => printed, 2 => soup, 1 => Just("# TYPE lake histogram\n".to_owned())];
    let end = prop_oneof![Just(""), Just("\n"), Just("# EOF"), Just("# EOF\n")];
    (prop::collection::vec(line, 0..8), end).prop_map(|(lines, end)| (lines.concat() + end).into_bytes())
}

#[derive(Clone, Debug)]
enum Change {
    Insert(u8),
    Set(u8),
    Remove(usize),
    Cut,
}

fn change() -> impl Strategy<Value = Change> {
    let byte = || prop_oneof![any::<u8>(), prop::sample::select(b"\"\\\n{}=, #\0".to_vec())];
    prop_oneof![
        4 => byte().prop_map(Change::Insert),
        4 => byte().prop_map(Change::Set),
        2 => (1_usize..20).prop_map(Change::Remove),
        1 => Just(Change::Cut),
    ]
}
