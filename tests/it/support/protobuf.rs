//! Protobuf expositions from a text that can be read: one metric family a line, written as protobuf's own text format has
//! it, with the field numbers of `io.prometheus.client`.
//!
//! ```text
//! name: "a" type: HISTOGRAM metric { label { name: "x" value: "1" } histogram { positive_delta: [1, -1] } }
//! raw 0a0161
//! ```
//!
//! A double may stand as its bits, `0x7ff0000000000002`; `raw` puts bytes into the stream as they are. All of it is
//! written by hand, so that nothing of the product decides what a target sends.

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Text,
    Double,
    /// Also of the 64-bit signed ones, in two's complement.
    Unsigned,
    ZigZag,
    Type,
    Message(&'static [(&'static str, u64, Kind)]),
}

use Kind::{Double, Message, Text, Type, Unsigned, ZigZag};

type Table = &'static [(&'static str, u64, Kind)];

const FAMILY: Table =
    &[("name", 1, Text), ("help", 2, Text), ("type", 3, Type), ("metric", 4, Message(METRIC)), ("unit", 5, Text)];

const METRIC: Table = &[
    ("label", 1, Message(LABEL)),
    ("gauge", 2, Message(NUMBER)),
    ("counter", 3, Message(NUMBER)),
    ("summary", 4, Message(SUMMARY)),
    ("untyped", 5, Message(NUMBER)),
    ("timestamp_ms", 6, Unsigned),
    ("histogram", 7, Message(HISTOGRAM)),
];

const LABEL: Table = &[("name", 1, Text), ("value", 2, Text)];

const NUMBER: Table =
    &[("value", 1, Double), ("exemplar", 2, Message(EXEMPLAR)), ("start_timestamp", 3, Message(TIME))];

const SUMMARY: Table = &[
    ("sample_count", 1, Unsigned),
    ("sample_sum", 2, Double),
    ("quantile", 3, Message(&[("quantile", 1, Double), ("value", 2, Double)])),
    ("start_timestamp", 4, Message(TIME)),
];

const HISTOGRAM: Table = &[
    ("sample_count", 1, Unsigned),
    ("sample_sum", 2, Double),
    ("bucket", 3, Message(BUCKET)),
    ("sample_count_float", 4, Double),
    ("schema", 5, ZigZag),
    ("zero_threshold", 6, Double),
    ("zero_count", 7, Unsigned),
    ("zero_count_float", 8, Double),
    ("negative_span", 9, Message(SPAN)),
    ("negative_delta", 10, ZigZag),
    ("negative_count", 11, Double),
    ("positive_span", 12, Message(SPAN)),
    ("positive_delta", 13, ZigZag),
    ("positive_count", 14, Double),
    ("start_timestamp", 15, Message(TIME)),
    ("exemplars", 16, Message(EXEMPLAR)),
];

const BUCKET: Table = &[
    ("cumulative_count", 1, Unsigned),
    ("upper_bound", 2, Double),
    ("exemplar", 3, Message(EXEMPLAR)),
    ("cumulative_count_float", 4, Double),
];

const SPAN: Table = &[("offset", 1, ZigZag), ("length", 2, Unsigned)];

const EXEMPLAR: Table = &[("label", 1, Message(LABEL)), ("value", 2, Double), ("timestamp", 3, Message(TIME))];

const TIME: Table = &[("seconds", 1, Unsigned), ("nanos", 2, Unsigned)];

const TYPES: [&str; 6] = ["COUNTER", "GAUGE", "SUMMARY", "UNTYPED", "HISTOGRAM", "GAUGE_HISTOGRAM"];

/// The stream of the families in `text`, each behind its length.
pub(crate) fn stream(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match line.strip_prefix(b"raw ") {
            Some(raw) => out.extend(raw.chunks(2).map(|pair| {
                let pair = std::str::from_utf8(pair).expect("hexadecimal digits");
                u8::from_str_radix(pair, 16).expect(pair)
            })),
            None => {
                let mut text = Tokens { text: line, at: 0 };
                let family = message(&mut text, FAMILY);
                push_bytes(&mut out, &family);
            }
        }
    }
    out
}

fn message(text: &mut Tokens<'_>, table: Table) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(name) = text.next().filter(|token| *token != b"}") {
        let name = std::str::from_utf8(name).expect("names are ASCII");
        let known = table.iter().find(|(known, ..)| *known == name);
        let &(_, number, kind) = known.unwrap_or_else(|| panic!("no field {name} here"));
        if let Message(table) = kind {
            assert_eq!(text.next(), Some(&b"{"[..]), "behind {name}");
            push_varint(&mut out, number << 3 | 2);
            let inner = message(text, table);
            push_bytes(&mut out, &inner);
            continue;
        }
        assert_eq!(text.next(), Some(&b":"[..]), "behind {name}");
        let first = text.next().expect("a value");
        let values = if first == b"[" {
            std::iter::from_fn(|| text.next().filter(|t| *t != b"]")).collect()
        } else {
            vec![first]
        };
        for value in values {
            scalar(&mut out, number, kind, value);
        }
    }
    out
}

fn scalar(out: &mut Vec<u8>, number: u64, kind: Kind, value: &[u8]) {
    if kind == Text {
        let quoted = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\""));
        push_varint(out, number << 3 | 2);
        return push_bytes(out, quoted.expect("a text in quotes"));
    }
    let word = std::str::from_utf8(value).expect("a number");
    if kind == Double {
        let bits = match word.strip_prefix("0x") {
            Some(bits) => u64::from_str_radix(bits, 16).expect(word),
            None => word.parse::<f64>().expect(word).to_bits(),
        };
        push_varint(out, number << 3 | 1);
        return out.extend_from_slice(&bits.to_le_bytes());
    }
    let whole = || word.parse::<i128>().expect(word);
    let value = match kind {
        ZigZag => {
            let value = whole() as i64;
            (value << 1 ^ value >> 63) as u64
        }
        Type if !word.starts_with(|c: char| c.is_ascii_digit()) => {
            TYPES.iter().position(|known| *known == word).expect(word) as u64
        }
        _ => whole() as u64,
    };
    push_varint(out, number << 3);
    push_varint(out, value);
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Words, texts in quotes, and marks; commas are blanks.
struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        let blank = |byte: &u8| matches!(byte, b' ' | b',');
        while self.text.get(self.at).is_some_and(blank) {
            self.at += 1;
        }
        let rest = &self.text[self.at..];
        let mark = |byte: &u8| b"{}[]:".contains(byte);
        let length = match rest.first()? {
            b'"' => rest[1..].iter().position(|byte| *byte == b'"').expect("quotes are closed") + 2,
            byte if mark(byte) => 1,
            _ => rest.iter().position(|byte| blank(byte) || mark(byte)).unwrap_or(rest.len()),
        };
        self.at += length;
        Some(&rest[..length])
    }
}
