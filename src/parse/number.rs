//! Numbers as Prometheus reads and writes them.
//!
//! Reading takes Go's syntax of floats without hexadecimal, underscores and `p` exponents: an overflow is an error, an
//! underflow is 0, `inf` and `infinity` may carry a sign and `nan` may not, in any letter case. Writing gives the
//! shortest digits that read back to the same bits.

use std::fmt::Write;

use thiserror::Error;

use crate::model::normal_nan;

/// Why a text is not a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NumberError {
    /// Not the syntax of a number.
    #[error("not a number")]
    Syntax,
    /// Too large for a float of 64 bits.
    #[error("out of the range of numbers")]
    Range,
}

/// Reads the value of a sample; any NaN becomes the ordinary one.
pub fn parse_value(text: &[u8]) -> Result<f64, NumberError> {
    let value: f64 = fast_float2::parse(text).map_err(|_| NumberError::Syntax)?;
    if value.is_finite() {
        Ok(value)
    } else if value.is_nan() {
        if matches!(text.first(), Some(b'n' | b'N')) { Ok(normal_nan()) } else { Err(NumberError::Syntax) }
    } else if text.iter().any(|byte| matches!(byte, b'n' | b'N')) {
        Ok(value)
    } else {
        Err(NumberError::Range)
    }
}

/// Reads a time in seconds and cuts it to milliseconds. NaN and infinities are `None`; times too far for an `i64` become
/// its ends.
pub(super) fn seconds_to_ms(seconds: f64) -> Option<i64> {
    seconds.is_finite().then_some((seconds * 1000.0) as i64)
}

/// Writes `value` as Go's `%g` does with the shortest digits: `1`, `1e+06`, `0.25`, `+Inf`, `NaN`.
pub(super) fn write_value(out: &mut String, value: f64) {
    if value.is_nan() {
        return out.push_str("NaN");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "+Inf" } else { "-Inf" });
    }
    let from = out.len();
    // `{:e}` gives the shortest digits as d.ddde±x; writing to a String cannot fail.
    let _ = write!(out, "{value:e}");
    let exponent = out[from..].rsplit_once('e').and_then(|(_, exponent)| exponent.parse::<i32>().ok()).unwrap_or(0);
    out.truncate(from);
    if (-4..6).contains(&exponent) {
        let _ = write!(out, "{value}");
    } else {
        let _ = write!(out, "{value:e}");
        let sign_at = out.len() - out[from..].rsplit_once('e').map_or(0, |(_, exponent)| exponent.len());
        out.truncate(sign_at);
        let sign = if exponent < 0 { '-' } else { '+' };
        let _ = write!(out, "{sign}{:02}", exponent.unsigned_abs());
    }
}

/// The form that `le` and `quantile` get, so that one bucket has one name whichever way a target writes it: as
/// [`write_value`], with `.0` where neither `.` nor an exponent occurs. `None` if the text is not a number. As in
/// Prometheus, and unlike in values, underscores may stand between digits.
pub(super) fn canonical_bound(text: &str) -> Option<String> {
    let value = match text.contains('_') {
        false => parse_value(text.as_bytes()),
        true if separates_digits(text.as_bytes()) => parse_value(text.replace('_', "").as_bytes()),
        true => Err(NumberError::Syntax),
    };
    value.ok().map(bound)
}

/// Whether each underscore has a digit on both sides.
fn separates_digits(text: &[u8]) -> bool {
    let digit_at = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_digit);
    let underscores = text.iter().enumerate().filter(|(_, byte)| **byte == b'_');
    underscores.map(|(at, _)| at).all(|at| digit_at(at.checked_sub(1)) && digit_at(Some(at + 1)))
}

/// `value` in the form of [`canonical_bound`].
pub(super) fn bound(value: f64) -> String {
    let mut out = String::new();
    // The bound -0 is the bound 0.
    write_value(&mut out, if value == 0.0 { 0.0 } else { value });
    if value.is_finite() && !out.contains(['.', 'e']) {
        out.push_str(".0");
    }
    out
}
