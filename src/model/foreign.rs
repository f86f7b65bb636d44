//! Text that strangers wrote, made safe to show.
//!
//! Label values, header values, error bodies, certificate names and annotations come from whoever holds a pod or a
//! receiver. Before any of it reaches a log, a terminal or a page it passes through [`clean`]: control characters,
//! terminal escapes and bidirectional overrides become visible escapes, and the length is bounded.

use std::borrow::Cow;

/// How many bytes of foreign text are shown.
const SHOWN_BYTES: usize = 256;

/// `text` with everything that could steer a terminal, a log or a page escaped, cut to 256 bytes.
pub fn clean(text: &str) -> Cow<'_, str> {
    clean_to(text, SHOWN_BYTES)
}

/// As [`clean`], cut to `limit` bytes (an ellipsis is added on top where something was cut).
pub fn clean_to(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit && !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len().min(limit) + 4);
    for c in text.chars() {
        let before = out.len();
        if is_unsafe(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
        if out.len() > limit {
            out.truncate(before);
            out.push('…');
            break;
        }
    }
    Cow::Owned(out)
}

/// Controls, line and paragraph separators, and the characters that reorder or hide text around them.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{00ad}' | '\u{061c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_text_is_untouched() {
        assert!(matches!(clean("Zürich ☃ /a?b"), Cow::Borrowed(_)));
    }

    #[test]
    fn nothing_steers_the_terminal_or_the_log() {
        let shown = clean("a\x1b[31mred\nline\r\u{202e}gnp\u{200b}\u{9b}");
        assert_eq!(shown, "a\\u{1b}[31mred\\u{a}line\\u{d}\\u{202e}gnp\\u{200b}\\u{9b}");
    }

    #[test]
    fn length_is_bounded_on_a_character_boundary() {
        let shown = clean_to("ééééé", 5);
        assert_eq!(shown, "éé…");
        assert!(clean(&"\0".repeat(10_000)).len() <= SHOWN_BYTES + '…'.len_utf8());
    }
}
