use proptest::prelude::*;

use super::number::{canonical_bound, seconds_to_ms, write_value};
use super::scan::LineEnd;
use super::*;
use crate::model::normal_nan;

fn only_sample(text: &str) -> SampleEntry<'_> {
    match Parser::new(Format::PrometheusText).next(text.as_bytes(), true) {
        Ok(Step::Entry(Entry::Sample(sample), taken)) if taken == text.len() => sample,
        other => panic!("{text:?} gave {other:?}"),
    }
}

#[test]
fn the_key_of_a_series_is_its_text_as_exposed() {
    for (line, key) in [
        ("lake 3\n", "lake"),
        ("lake{} 3\n", "lake{}"),
        ("lake { b = \"1\" , a=\"2\"}\t3 17 \n", "lake { b = \"1\" , a=\"2\"}"),
        ("{\"la ke\",a=\"\\\"}\"}3", "{\"la ke\",a=\"\\\"}\"}"),
        ("lake+3\n", "lake"),
    ] {
        assert_eq!(only_sample(line).series.key().as_bytes(), key.as_bytes());
    }
}

#[test]
fn empty_labels_are_absent_and_can_be_told() {
    let sample = only_sample("lake{job=\"\",a=\"1\",\"b c\"=\"\"} 3\n");
    assert_eq!(sample.labels().expect("no label twice").to_string(), r#"{__name__="lake", a="1"}"#);
    assert_eq!(sample.series.empty_labels().collect::<Vec<_>>(), ["job", "b c"]);
}

#[test]
fn a_label_given_twice_is_no_parse_error() {
    let sample = only_sample("lake{b=\"1\",a=\"1\",a=\"2\"} 3\n");
    let error = sample.labels().expect_err("a is there twice");
    assert_eq!(error.to_string(), "label name \"a\" is not unique in \"lake{b=\"1\",a=\"1\",a=\"2\"}\"");
}

#[test]
fn nothing_is_consumed_while_a_line_is_unfinished() {
    let mut parser = Parser::new(Format::PrometheusText);
    for end in 0.."lake 34".len() {
        assert_eq!(parser.next(&b"lake 34"[..end], false), Ok(Step::NeedMore));
    }
    assert!(parser.is_complete(), "nothing was consumed");
    assert!(matches!(parser.next(b"lake 34", true), Ok(Step::Entry(Entry::Sample(_), 7))));
    assert!(!parser.is_complete());
    assert_eq!(parser.next(b"", true), Ok(Step::End));
}

/// What was looked at once is not looked at again: here it is even replaced.
#[test]
fn the_search_for_the_end_of_a_line_goes_on_where_it_stopped() {
    let mut end = LineEnd::default();
    assert_eq!(end.find(b"lake{a=\"b"), None);
    assert_eq!(end.find(b"\n\n\n\n\n\n\n\n\n\"} 3\n"), Some(13));
    end.resume_in_quotes(14, true);
    assert_eq!(end.find(b"..............\\"), None, "what follows the backslash is not known yet");
    assert_eq!(end.find(b"..............\\\"\n"), None, "an escaped quote and a line feed inside the quotes");
    assert_eq!(end.find(b"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\"\n"), Some(18));
}

#[test]
fn values_have_the_syntax_of_go() {
    for (text, bits) in [
        ("0", 0.0_f64.to_bits()),
        ("-0", (-0.0_f64).to_bits()),
        ("+4.25e-1", 0.425_f64.to_bits()),
        ("1e-400", 0.0_f64.to_bits()),
        ("2.2250738585072011e-308", 2.225_073_858_507_201e-308_f64.to_bits()),
        ("NAN", normal_nan().to_bits()),
        ("-iNfInItY", f64::NEG_INFINITY.to_bits()),
        ("+inf", f64::INFINITY.to_bits()),
    ] {
        assert_eq!(parse_value(text.as_bytes()).map(f64::to_bits), Ok(bits), "{text}");
    }
    for text in [
        "",
        " ",
        "+",
        ".",
        "1.2.3",
        "1 ",
        " 1",
        "0x1",
        "0X1P4",
        "1p4",
        "1_0",
        "1e",
        "e1",
        "++1",
        "nan1",
        "-nan",
        "+nan",
        "infi",
        "in",
        "infinityy",
        "١",
        "1\0",
    ] {
        assert_eq!(parse_value(text.as_bytes()), Err(NumberError::Syntax), "{text:?}");
    }
    for text in ["1e309", "-1.8e308", "1e99999999999999999999"] {
        assert_eq!(parse_value(text.as_bytes()), Err(NumberError::Range), "{text}");
    }
}

#[test]
fn times_are_cut_to_milliseconds() {
    for (seconds, ms) in [(1.9999, 1999), (-1.9999, -1999), (0.0, 0), (1e300, i64::MAX), (-1e300, i64::MIN)] {
        assert_eq!(seconds_to_ms(seconds), Some(ms));
    }
    for never in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(seconds_to_ms(never), None);
    }
}

#[test]
fn values_are_written_as_go_writes_them() {
    for (value, text) in [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-2.5, "-2.5"),
        (123_456.0, "123456"),
        (999_999.5, "999999.5"),
        (1_000_000.0, "1e+06"),
        (1_234_567.5, "1.2345675e+06"),
        (1e21, "1e+21"),
        (-1e-5, "-1e-05"),
        (0.0001, "0.0001"),
        (5e-324, "5e-324"),
        (f64::MAX, "1.7976931348623157e+308"),
        (f64::NAN, "NaN"),
        (f64::INFINITY, "+Inf"),
        (f64::NEG_INFINITY, "-Inf"),
    ] {
        let mut out = "x".to_owned();
        write_value(&mut out, value);
        assert_eq!(&out[1..], text);
    }
}

proptest! {
    #[test]
    fn a_written_value_reads_back_to_the_bit(value in any::<f64>()) {
        let mut out = String::new();
        write_value(&mut out, value);
        let expected = crate::model::normalise_nan(value).to_bits();
        prop_assert_eq!(parse_value(out.as_bytes()).map(f64::to_bits), Ok(expected));
    }

    #[test]
    fn a_canonical_bound_is_its_own(text in "[-+]?[0-9]{0,3}\\.?[0-9]{0,3}(e[-+]?[0-9]{1,2})?") {
        if let Some(bound) = canonical_bound(&text) {
            prop_assert_eq!(canonical_bound(&bound), Some(bound.clone()));
        }
    }
}

#[test]
fn unprintable_samples_leave_no_trace() {
    let named: crate::model::Labels = [("__name__", "lake")].into_iter().collect();
    let zero_byte: crate::model::Labels = [("__name__", "lake"), ("a\0", "1")].into_iter().collect();
    let mut out = String::new();
    let mut refused = |format, labels: &_, ms| print::sample(&mut out, format, labels, 1.0, ms).expect_err("no form");
    assert_eq!(refused(Format::OpenMetrics, &crate::model::Labels::new(), None), print::Unprintable::NoName);
    assert!(matches!(refused(Format::PrometheusText, &zero_byte, None), print::Unprintable::Name(_)));
    assert_eq!(refused(Format::PrometheusText, &named, Some(-1)), print::Unprintable::Timestamp(-1));
    assert_eq!(refused(Format::OpenMetrics, &named, Some(i64::MAX - 1)), print::Unprintable::Timestamp(i64::MAX - 1));
    assert_eq!(out, "");
}

#[test]
fn errors_are_sentences_with_a_place() {
    let message =
        |text: &str| Parser::new(Format::PrometheusText).next(text.as_bytes(), true).expect_err(text).to_string();
    assert_eq!(message("lake 3,5\n"), "line 1, column 6: \"3,5\" is not a number");
    assert_eq!(
        message("# TYPE lake deep\n"),
        "line 1, column 13: \"deep\" is not a type of the Prometheus format: \
         one of counter, gauge, histogram, summary, untyped is expected"
    );
    assert_eq!(message("lake\n"), "line 1, column 5: a value is expected after the series");
    let long = message(&format!("lake {}\n", "\u{202e}é".repeat(1000)));
    assert!(long.len() < 120 && long.contains("\\u{202e}é") && !long.contains('\u{202e}'), "{long}");
}
