//! Numbers, sizes and times as people read them.

use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1 target`, `2 targets`.
pub(super) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", count(number as u64))
}

/// `1.5 MiB`.
pub(super) fn bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    match unit {
        "B" => format!("{bytes} B"),
        _ if value < 10.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

/// How long something took: `3.2 ms`, `1.25 s`.
pub(super) fn took(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    match millis {
        _ if millis < 10.0 => format!("{millis:.1} ms"),
        _ if millis < 1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1000.0),
    }
}

/// A span of time by the largest unit that it has two of: `90s`, `3h`, `364d`.
pub(super) fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let units = [("d", 86_400), ("h", 3_600), ("m", 60)];
    match units.iter().find(|(_, unit)| seconds >= 2 * unit) {
        Some((name, unit)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// `12s ago`, `in 3h`, `now`.
pub(super) fn relative(time: SystemTime, now: SystemTime) -> String {
    match now.duration_since(time) {
        Ok(ago) if ago.as_secs() == 0 => "now".to_owned(),
        Ok(ago) => format!("{} ago", span(ago)),
        Err(ahead) => format!("in {}", span(ahead.duration())),
    }
}

/// `2026-11-22T10:00:00Z`.
pub(super) fn utc(time: SystemTime) -> String {
    let whole = OffsetDateTime::from(time).replace_nanosecond(0);
    whole.ok().and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| "beyond the calendar".to_owned())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn numbers_are_read_at_a_glance() {
        let seen: Vec<String> = [0, 999, 1_000, 1_234_567].into_iter().map(count).collect();
        assert_eq!(seen, ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            (counted(1, "target"), counted(5_000, "target")),
            ("1 target".to_owned(), "5,000 targets".to_owned())
        );
        let seen: Vec<String> = [0, 1_023, 1_024, 1_536, 20_480, 5 << 30].into_iter().map(bytes).collect();
        assert_eq!(seen, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "20 KiB", "5.0 GiB"]);
    }

    #[test]
    fn times_are_read_at_a_glance() {
        let micros = [0, 3_240, 25_100, 999_000, 1_250_000].map(|micros| took(Duration::from_micros(micros)));
        assert_eq!(micros, ["0.0 ms", "3.2 ms", "25 ms", "999 ms", "1.25 s"]);
        let spans = [1, 119, 120, 7_199, 7_200, 400_000].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["1s", "119s", "2m", "119m", "2h", "4d"]);
        let now = UNIX_EPOCH + Duration::from_millis(1_000_900);
        let at = |seconds| relative(UNIX_EPOCH + Duration::from_secs(seconds), now);
        assert_eq!((at(1_000), at(990), at(1_100)), ("now".to_owned(), "10s ago".to_owned(), "in 99s".to_owned()));
        assert_eq!(utc(UNIX_EPOCH + Duration::from_millis(1_700)), "1970-01-01T00:00:01Z");
    }
}
