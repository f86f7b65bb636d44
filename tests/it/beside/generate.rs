//! Cases that nobody thought of: expositions made at random and then damaged, under configurations made at random.
//!
//! What is compared is the verdict and the samples. A series lives in one answer only, and bytes that are known to come out
//! differently on purpose are not made; so whatever differs is news. A case that differs is printed in the notation of the
//! files of cases, to be kept there.

use std::collections::BTreeSet;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::cases::{Answer, Case};
use super::story::{Pair, Story, Value, When, name};

/// What a damaged byte may become: all that means something to one of the formats.
const BYTES: &[&[u8]] = &[
    b"{",
    b"}",
    b"\"",
    b"=",
    b",",
    b"#",
    b" ",
    b"\t",
    b"\n",
    b"\r",
    b"\\",
    b"\\n",
    b"\\\"",
    b"+",
    b"-",
    b".",
    b"_",
    b":",
    b"0",
    b"9",
    b"e",
    b"E",
    b"x",
    b"Inf",
    b"NaN",
    b"# EOF",
    b"# EOF\n",
    b"# TYPE ",
    b"# HELP ",
    b"# UNIT ",
    b"# {",
    b"\xc3\xa4",
    b"\xff",
    b"\xe2\x82\xac",
    b"1e400",
    b"le=\"1\"",
    b"__name__",
    b"\"\"",
    b"{}",
    b"'",
    b";",
    b"/",
    b"1_0",
    b"0x1",
    b"\x7f",
];

/// Cases of this many answers each, the same ones for the same seed.
pub(super) fn cases(seed: u64, count: usize, answers: usize) -> Vec<Case> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count).map(|number| case(&mut rng, format!("seed{seed}-{number}"), answers)).collect()
}

fn case(rng: &mut StdRng, name: String, answers: usize) -> Case {
    let answers: Vec<_> = (0..answers).map(|number| answer(rng, number)).collect();
    let config = config(rng);
    let limited = config.iter().any(|line| line.starts_with("sample_limit:"));
    let answers = answers.into_iter().map(|(body, kind)| {
        let body = if limited { without_labels_given_twice(&body) } else { body };
        Answer::text(body).typed(kind)
    });
    Case { name, answers: answers.collect(), config, ..Case::default() }
}

fn config(rng: &mut StdRng) -> Vec<String> {
    let mut lines = Vec::new();
    let choices: &[(&str, &[&str])] = &[
        ("honor_labels", &["true", "false"]),
        ("honor_timestamps", &["true", "false"]),
        ("track_timestamps_staleness", &["true"]),
        ("sample_limit", &["1", "3", "10"]),
        ("label_limit", &["4", "6"]),
        ("label_name_length_limit", &["8", "12"]),
        ("label_value_length_limit", &["16", "30"]),
        ("body_size_limit", &["100B", "1KB"]),
        ("fallback_scrape_protocol", &["PrometheusText0.0.4", "OpenMetricsText1.0.0"]),
        ("metric_relabel_configs", RULES),
    ];
    for (key, values) in choices {
        if rng.random_ratio(1, 6) {
            lines.push(format!("{key}: {}", values.choose(rng).expect("values")));
        }
    }
    if rng.random_ratio(1, 6) {
        lines.push("metric_name_validation_scheme: legacy".to_owned());
        lines.push("metric_name_escaping_scheme: underscores".to_owned());
    }
    lines
}

const RULES: &[&str] = &[
    "[{ source_labels: [zone], regex: 'a.*|n', action: drop }]",
    "[{ source_labels: [__name__], regex: '.*_(sum|count)', action: drop }]",
    "[{ source_labels: [zone, side], separator: '-', regex: '(.*)-(.+)', target_label: both, replacement: '$2/${1}' }]",
    "[{ regex: 'z(.*)', action: labelmap, replacement: 'y$1' }]",
    "[{ source_labels: [side], target_label: shard, modulus: 7, action: hashmod }]",
    "[{ source_labels: [zone], target_label: zone, action: uppercase }]",
    "[{ source_labels: [zone], target_label: side, action: keepequal }]",
];

/// A body and its content type.
fn answer(rng: &mut StdRng, number: usize) -> (Vec<u8>, &'static str) {
    let openmetrics = rng.random_ratio(1, 2);
    let mut body = exposition(rng, number, openmetrics);
    for _ in 0..[0, 0, 1, 1, 1, 2, 3, 8].choose(rng).copied().expect("numbers") {
        damage(rng, &mut body);
    }
    let kind = match rng.random_range(0..20) {
        0 => "text/html",
        1 => "application/openmetrics-text",
        2 => "text/plain",
        _ if openmetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        _ => "text/plain; version=0.0.4",
    };
    (without_what_differs_in_repeated_lines(&body), kind)
}

/// A good exposition, of families whose names no other answer has.
fn exposition(rng: &mut StdRng, number: usize, openmetrics: bool) -> Vec<u8> {
    let mut body = String::new();
    for family in 0..rng.random_range(0..5) {
        let quoted = rng.random_ratio(1, 8);
        let base = if quoted { format!("q.{number}.{family}") } else { format!("f{number}_{family}") };
        let name = if quoted { format!("{base:?}") } else { base.clone() };
        let kind = *["counter", "gauge", "histogram", "summary", "none", "none"].choose(rng).expect("kinds");
        if rng.random_ratio(1, 3) {
            body += &format!("# HELP {name} what it is\n");
        }
        if kind != "none" {
            body += &format!("# TYPE {name} {kind}\n");
        }
        for line in 0..rng.random_range(1..4) {
            let (suffix, extra) = match kind {
                "counter" if openmetrics => ("_total", None),
                "histogram" => ("_bucket", Some(format!("le=\"{}\"", ["0.5", "1", "2.50", "1e3", "+Inf"][line]))),
                "summary" => ("", Some(format!("quantile=\"{}\"", ["0", "0.5", "1", "0.990"][line]))),
                _ => ("", None),
            };
            let mut labels: Vec<String> = extra.into_iter().collect();
            labels.push(format!("line=\"{line}\""));
            for label in ["zone", "side", "job", "exported_job", "instance", "ä.ö"] {
                if rng.random_ratio(1, 5) {
                    // A name that is not UTF-8 is no error in Prometheus where its value is empty.
                    let values = if label.is_ascii() { VALUES } else { &VALUES[1..] };
                    let label = if label.is_ascii() { label.to_owned() } else { format!("{label:?}") };
                    labels.push(format!("{label}=\"{}\"", values.choose(rng).expect("values")));
                }
            }
            body += &match quoted {
                true => format!("{{\"{base}{suffix}\",{}}}", labels.join(",")),
                false => format!("{base}{suffix}{{{}}}", labels.join(",")),
            };
            body += &format!(" {}", NUMBERS.choose(rng).expect("numbers"));
            if rng.random_ratio(1, 8) {
                body += if openmetrics { " «s-0.25»" } else { " «t-250»" };
            }
            if openmetrics && rng.random_ratio(1, 8) {
                body += " # {trace=\"x\"} 1";
            }
            body.push('\n');
        }
    }
    if openmetrics {
        body += "# EOF\n";
    }
    body.into_bytes()
}

const VALUES: &[&str] =
    &["", "n", "abc", "a b", "ü", "a\\\\b", "a\\\"b", "a\\nb", "}", ",", "=", "# x", "0123456789012345678"];
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1.5",
    "1e3",
    "1E-3",
    "+7",
    ".5",
    "5.",
    "Inf",
    "-Inf",
    "NaN",
    "1e308",
    "5e-324",
    "9007199254740993",
    "007",
];

/// Damage may repeat lines. Prometheus takes the exemplars of both, and for both the bound that the first one made of the
/// TYPE before it: of that nothing is left here.
fn without_what_differs_in_repeated_lines(body: &[u8]) -> Vec<u8> {
    let mut series = BTreeSet::new();
    let mut repeated = false;
    let mut kept = Vec::new();
    for line in body.split_inclusive(|byte| *byte == b'\n') {
        let end = line.iter().position(|byte| *byte == b'}').unwrap_or(line.len());
        let again = !line.starts_with(b"#") && !series.insert(&line[..end]);
        repeated |= again;
        let bound =
            ["le=", "quantile="].iter().any(|name| line.windows(name.len()).any(|part| part == name.as_bytes()));
        if !(again && bound) {
            kept.extend_from_slice(line);
        }
    }
    if repeated { without_exemplars(&kept) } else { kept }
}

/// Over `sample_limit` Prometheus finds a label that damage has repeated only when it writes a marker for the series, in the
/// next scrape, which fails by it.
fn without_labels_given_twice(body: &[u8]) -> Vec<u8> {
    const NAMES: [&str; 8] = ["line", "zone", "side", "job", "instance", "le", "quantile", "ä.ö"];
    let given = |line: &[u8], name: &str| {
        let written = [format!("{name}=\""), format!("{name}\"=\"")];
        let begins = |at: usize| written.iter().any(|written| line[at..].starts_with(written.as_bytes()));
        // `exported_job` is another one than `job`.
        let at_start = |at: usize| at == 0 || matches!(line[at - 1], b'{' | b',' | b'"' | b' ');
        (0..line.len()).filter(|at| at_start(*at) && begins(*at)).count()
    };
    let names = || NAMES.into_iter().chain(["exported_job", "exported_instance"]);
    let lines = body.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| names().all(|name| given(line, name) < 2)).collect::<Vec<_>>().concat()
}

fn without_exemplars(body: &[u8]) -> Vec<u8> {
    const EXEMPLAR: &[u8] = b" # {trace=\"x\"} 1";
    let mut rest = body;
    let mut without = Vec::new();
    while let Some(byte) = rest.first() {
        match rest.strip_prefix(EXEMPLAR) {
            Some(behind) => rest = behind,
            None => {
                without.push(*byte);
                rest = &rest[1..];
            }
        }
    }
    without
}

fn damage(rng: &mut StdRng, body: &mut Vec<u8>) {
    // Never inside a placeholder, whose bytes are not what is served, nor inside a name that is not ASCII: Prometheus reads
    // no name whose value is empty or whose series is dropped.
    let name = "ä.ö".as_bytes();
    let free: Vec<usize> = {
        let mut inside = false;
        let mut free = Vec::new();
        for at in 0..=body.len() {
            inside = (inside || body[at..].starts_with("«".as_bytes())) && !body[..at].ends_with("»".as_bytes());
            let in_name = (1..name.len()).any(|part| at >= part && body[at - part..].starts_with(name));
            if !inside && !in_name {
                free.push(at);
            }
        }
        free
    };
    let at = *free.choose(rng).expect("the end is free");
    let with = BYTES.choose(rng).copied().expect("bytes");
    match rng.random_range(0..5) {
        0 if free.contains(&(at + 1)) => drop(body.remove(at)),
        1 if free.contains(&(at + 1)) => drop(body.splice(at..=at, with.iter().copied())),
        2 => body.truncate(at),
        3 => {
            let from = *free.choose(rng).expect("the end is free");
            let piece = body[from.min(at)..at.max(from)].to_vec();
            body.splice(at..at, piece);
        }
        _ => drop(body.splice(at..at, with.iter().copied())),
    }
}

/// The verdict and the samples, without what differs on purpose: of a failed scrape nothing is counted alike; of two
/// spellings of one series the first counts; what never had a sample gets no marker; -0 is 0 in what Prometheus sends; what
/// is older than what its series had before is not sent; and a time that damage made a value is the time of either.
pub(super) fn what_counts(pair: Pair) -> Pair {
    let failed = |story: &Story| -> Vec<When> {
        let up = story.iter().filter(|(series, _)| name(series) == "up").flat_map(|(_, samples)| samples);
        up.filter(|(_, value)| *value == Value::Bits(0)).map(|(when, _)| when.clone()).collect()
    };
    let failed = [failed(&pair.theirs), failed(&pair.ours)].concat();
    let lenient = |story: Story| -> Story {
        let series = story.into_iter().filter_map(|(series, samples)| {
            let counts = matches!(
                name(&series),
                "scrape_samples_scraped" | "scrape_samples_post_metric_relabeling" | "scrape_series_added"
            );
            if name(&series) == "scrape_series_added" {
                return None;
            }
            let mut kept: Vec<(When, Value)> = Vec::new();
            for (when, value) in samples {
                let value = match value {
                    Value::Bits(bits) if bits == (-0.0_f64).to_bits() => Value::Bits(0),
                    Value::Bits(bits) if is_of_today(f64::from_bits(bits)) => Value::SomeTime,
                    other => other,
                };
                let again = kept.iter().any(|(other, _)| *other == when);
                let older = kept.iter().any(|(known, _)| is_before(&when, known));
                let ended_nothing = value == Value::Stale && kept.is_empty();
                let uncounted = counts && failed.contains(&when);
                if [again, older, ended_nothing, uncounted].iter().all(|reason| !reason) {
                    kept.push((when, value));
                }
            }
            (!kept.is_empty()).then_some((series, kept))
        });
        series.collect()
    };
    Pair { theirs: lenient(pair.theirs), ours: lenient(pair.ours) }
}

/// Whether `told`, a time that an answer told, is before the scrape `known` of this answer or of a later one.
fn is_before(told: &When, known: &When) -> bool {
    let (When::Told(words), When::Scrape(scrape)) = (told, known) else { return false };
    let answer = words.rsplit_once(" of answer ").and_then(|(_, number)| number.parse::<usize>().ok());
    answer.expect("the words name the answer") <= *scrape
}

/// Whether it looks like a time of these decades, in milliseconds or in seconds.
fn is_of_today(value: f64) -> bool {
    (1.7e12..4e12).contains(&value) || (1.7e9..4e9).contains(&value)
}
