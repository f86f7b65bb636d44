//! Durations and sizes as Prometheus writes them.
//!
//! A duration is `0` or whole numbers with units, big to small, each at most once: `1h30m`. A year has 365 days. A size
//! is a number with a unit, all units powers of 1024: `64MiB`, `1.5GB`, or `0`.

use std::time::Duration;

use super::problem::Wrong;

/// Units of a duration, big to small, in milliseconds; the last field says whether it is used for printing only when
/// it divides the rest.
const DURATION_UNITS: [(&str, u64, bool); 7] = [
    ("y", 365 * 24 * 3_600_000, true),
    ("w", 7 * 24 * 3_600_000, true),
    ("d", 24 * 3_600_000, false),
    ("h", 3_600_000, false),
    ("m", 60_000, false),
    ("s", 1_000, false),
    ("ms", 1, false),
];

/// The longest duration that Prometheus can hold, in milliseconds: 2^63 nanoseconds.
const MAX_DURATION_MS: u64 = i64::MAX as u64 / 1_000_000;

/// Reads a duration; `None` if the text is none. It is what the labels `__scrape_interval__` and `__scrape_timeout__`
/// hold, too.
pub fn parse_duration(text: &str) -> Option<Duration> {
    duration(text).ok()
}

/// Writes a duration as Prometheus does: `1m30s`, `0s`. Fractions of a millisecond are cut off.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, ms, only_exact) in DURATION_UNITS {
        if rest >= ms && (!only_exact || rest.is_multiple_of(ms)) {
            text.push_str(&format!("{}{unit}", rest / ms));
            rest %= ms;
        }
    }
    text
}

/// As [`parse_duration`], with what is wrong.
pub(super) fn duration(text: &str) -> Result<Duration, Wrong> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let refused = |why: &str| {
        Wrong::new(format!("{text:?} is not a duration: {why}"), "write whole numbers with units, such as 30s or 1m30s")
    };
    if text.is_empty() {
        return Err(refused("nothing is written"));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Wrong::new(format!("{text:?} is not a duration: it has no unit"), format!("write {text}s")));
    }
    let mut total: u64 = 0;
    let mut rest = text;
    let mut units = DURATION_UNITS.iter();
    while !rest.is_empty() {
        let (number, after) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
        let (unit, after) = after.split_at(after.bytes().take_while(u8::is_ascii_alphabetic).count());
        if number.is_empty() || unit.is_empty() {
            return Err(refused("only whole numbers, each with its unit, may stand in it"));
        }
        let Some((_, ms, _)) = units.find(|(known, ..)| *known == unit) else {
            return Err(if DURATION_UNITS.iter().any(|(known, ..)| *known == unit) {
                refused("each unit may stand once, the bigger before the smaller")
            } else {
                refused(&format!("{unit:?} is none of the units y, w, d, h, m, s, ms"))
            });
        };
        total = number
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(*ms))
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= MAX_DURATION_MS)
            .ok_or_else(|| Wrong::new(format!("{text:?} is too long for a duration"), "write at most 292y"))?;
        rest = after;
    }
    Ok(Duration::from_millis(total))
}

/// Reads a size in bytes.
pub(super) fn size(text: &str) -> Result<u64, Wrong> {
    const UNITS: &str = "KMGTPE";
    if text == "0" {
        return Ok(0);
    }
    let refused = |why: &str, instead: &str| Wrong::new(format!("{text:?} is not a size: {why}"), instead.to_owned());
    let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
    let (number, unit) = text.split_at(digits);
    let Some(number) = number.parse::<f64>().ok().filter(|_| number.starts_with(|c: char| c.is_ascii_digit())) else {
        return Err(refused("it begins with no number", "write a number with a unit, such as 10MB"));
    };
    if unit.is_empty() {
        return Err(refused("it has no unit", &format!("write {text}B for bytes, or one of KB, MB, GB")));
    }
    let exponent = match unit.strip_suffix("iB").or_else(|| unit.strip_suffix('B')) {
        Some("") if unit == "B" => Some(0),
        Some(letter) if letter.len() == 1 => UNITS.find(letter).map(|at| at + 1),
        _ => None,
    };
    let Some(exponent) = exponent else {
        return Err(refused(
            &format!("{unit:?} is none of the units B, KB, MB, GB, TB, PB, EB, KiB, MiB, …"),
            "write a number with one of them, such as 10MB",
        ));
    };
    let bytes = number * 1024_f64.powi(exponent as i32);
    if bytes >= i64::MAX as f64 {
        return Err(refused("it is too large", "write less than 8EB"));
    }
    Ok(bytes as u64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_of_prometheus() {
        for (text, ms, printed) in [
            ("0", 0, "0s"),
            ("0s", 0, "0s"),
            ("15s", 15_000, "15s"),
            ("1m30s", 90_000, "1m30s"),
            ("90s", 90_000, "1m30s"),
            ("1500ms", 1_500, "1s500ms"),
            ("1d12h", 129_600_000, "1d12h"),
            ("7d", 604_800_000, "1w"),
            ("8d", 691_200_000, "8d"),
            ("1y", 31_536_000_000, "1y"),
            ("1w1d", 691_200_000, "8d"),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(format_duration(Duration::from_millis(ms)), printed);
        }
        for bad in [
            "",
            "60",
            "1.5m",
            "30s1m",
            "-5s",
            " 1h",
            "1h ",
            "1s1s",
            "s",
            "1M",
            "1 s",
            "300y",
            "1µs",
            "99999999999999999999s",
        ] {
            assert!(duration(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn sizes_of_prometheus() {
        for (text, bytes) in [
            ("0", 0),
            ("1B", 1),
            ("1KB", 1024),
            ("1KiB", 1024),
            ("1.5MB", 1_572_864),
            ("64MiB", 67_108_864),
            ("1EB", 1 << 60),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "100", "10kb", "10M", "10 MB", "-1B", ".5MB", "1..5MB", "10iB", "10MMB", "9EB", "1µB", "infB"]
        {
            assert!(size(bad).is_err(), "{bad:?} was accepted");
        }
    }

    proptest! {
        #[test]
        fn every_duration_reads_back(ms in 0..=MAX_DURATION_MS) {
            let duration = Duration::from_millis(ms);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Some(duration));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,12}") {
            let _ = (duration(&text), size(&text));
        }
    }
}
