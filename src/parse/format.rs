//! Which format a `Content-Type` stands for.
//!
//! As in Prometheus only the media type decides: parameters must be well-formed, but `version` and `charset` are
//! ignored. What to do when there is no usable answer (a fallback protocol, or failing the scrape) is not decided here.

use thiserror::Error;

use super::error::Excerpt;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `text/plain`: Prometheus text, versions 0.0.4 and 1.0.0, which one grammar serves.
    PrometheusText,
    /// `application/openmetrics-text`: versions 0.0.1 and 1.0.0, which one grammar serves.
    OpenMetrics,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exposition {
    /// As lines.
    Text(Format),
    /// `application/vnd.google.protobuf`: messages behind their lengths.
    Protobuf,
}

/// Why a `Content-Type` names no format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MediaTypeError {
    /// The header is missing or empty.
    #[error("the target sent no Content-Type, and no fallback_scrape_protocol is set")]
    Blank,
    /// Not a media type.
    #[error("the Content-Type {0} cannot be read, and no fallback_scrape_protocol is set")]
    Malformed(Excerpt),
    /// Some other media type.
    #[error("the Content-Type {0} is not an exposition format, and no fallback_scrape_protocol is set")]
    Unsupported(Excerpt),
}

impl Exposition {
    /// The way of writing that the value of a `Content-Type` header names.
    pub fn of_content_type(value: &str) -> Result<Self, MediaTypeError> {
        if value.is_empty() {
            return Err(MediaTypeError::Blank);
        }
        let malformed = || MediaTypeError::Malformed(Excerpt::whole(value.as_bytes()));
        let (media_type, parameters) = value.split_at(value.find(';').unwrap_or(value.len()));
        let media_type = media_type.trim().to_ascii_lowercase();
        let well_formed = match media_type.split_once('/') {
            Some((kind, subtype)) => is_token(kind) && is_token(subtype),
            None => is_token(&media_type),
        };
        if !well_formed || !parameters_are_well_formed(parameters) {
            return Err(malformed());
        }
        match media_type.as_str() {
            "text/plain" => Ok(Self::Text(Format::PrometheusText)),
            "application/openmetrics-text" => Ok(Self::Text(Format::OpenMetrics)),
            "application/vnd.google.protobuf" => Ok(Self::Protobuf),
            _ => Err(MediaTypeError::Unsupported(Excerpt::whole(value.as_bytes()))),
        }
    }
}

/// Checks `*( ";" name "=" ( token / quoted-string ) ) [ ";" ]` with blanks around the parts.
fn parameters_are_well_formed(mut rest: &str) -> bool {
    let mut names = Vec::new();
    loop {
        rest = rest.trim_start();
        let Some(after) = rest.strip_prefix(';') else { return rest.is_empty() };
        rest = after.trim_start();
        if rest.is_empty() {
            return true;
        }
        let Some((name, value)) = rest.split_once('=') else { return false };
        let name = name.trim().to_ascii_lowercase();
        if !is_token(&name) || names.contains(&name) {
            return false;
        }
        names.push(name);
        let value = value.trim_start();
        let length = match value.strip_prefix('"') {
            Some(quoted) => match end_of_quoted(quoted) {
                Some(length) => length + 1,
                None => return false,
            },
            None => match value.find(|c| !is_token_character(c)).unwrap_or(value.len()) {
                0 => return false,
                length => length,
            },
        };
        rest = &value[length..];
    }
}

/// The length up to and with the closing quote.
fn end_of_quoted(text: &str) -> Option<usize> {
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some(at + 1),
            '\\' => drop(characters.next()),
            '\r' | '\n' => return None,
            _ => {}
        }
    }
    None
}

fn is_token(text: &str) -> bool {
    !text.is_empty() && text.chars().all(is_token_character)
}

fn is_token_character(c: char) -> bool {
    c.is_ascii_graphic() && !"()<>@,;:\\\"/[]?=".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_do_not_matter_as_long_as_they_can_be_read() {
        for text in [
            "text/plain",
            "TEXT/PLAIN",
            "text/plain; charset=UTF-8",
            "text/plain;version=7",
            " text/plain ; version=0.0.4;",
            "text/plain; a=\"x;\\\"y\" ; b=c",
        ] {
            assert_eq!(Exposition::of_content_type(text), Ok(Exposition::Text(Format::PrometheusText)), "{text:?}");
        }
        let open_metrics = "application/openmetrics-text; version=1.0.0; escaping=allow-utf-8";
        assert_eq!(Exposition::of_content_type(open_metrics), Ok(Exposition::Text(Format::OpenMetrics)));
        let protobuf = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";
        assert_eq!(Exposition::of_content_type(protobuf), Ok(Exposition::Protobuf));
    }

    #[test]
    fn everything_else_is_refused_for_what_it_is() {
        assert_eq!(Exposition::of_content_type(""), Err(MediaTypeError::Blank));
        for text in [
            " ",
            "text/",
            "/plain",
            "text/plain/x",
            "text/plain; =x",
            "text/plain; a",
            "text/plain; a=",
            "text/plain; a=\"x",
            "text/plain; a=1; A=2",
            "text/plain x",
            "text/plain; a=b c",
            "tëxt/plain",
        ] {
            let refused = Exposition::of_content_type(text);
            assert!(matches!(refused, Err(MediaTypeError::Malformed(_))), "{text:?}: {refused:?}");
        }
        for text in ["text/html", "application/json", "text", "application/protobuf"] {
            let refused = Exposition::of_content_type(text);
            assert!(matches!(refused, Err(MediaTypeError::Unsupported(_))), "{text:?}: {refused:?}");
        }
    }
}
