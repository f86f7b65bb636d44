//! Letter case as Go maps it: each character to one character, without context.
//!
//! Rust's own methods follow the full Unicode mapping, where `ß` becomes `SS` and a final sigma has its own form. For
//! the few characters whose full mapping is more than one character, Go's simple mapping is spelled out here.

/// `text` in lower case.
pub(super) fn lower(text: &str) -> String {
    // The one full lower-case mapping of several characters: İ to i and a combining dot. Its simple mapping is the i.
    text.chars().map(|c| single(c.to_lowercase()).unwrap_or(if c == 'İ' { 'i' } else { c })).collect()
}

/// `text` in upper case.
pub(super) fn upper(text: &str) -> String {
    text.chars().map(|c| single(c.to_uppercase()).unwrap_or_else(|| simple_upper(c))).collect()
}

fn single(mut mapped: impl Iterator<Item = char>) -> Option<char> {
    let first = mapped.next();
    if mapped.next().is_none() { first } else { None }
}

/// The simple upper case of a character whose full one has several: Greek letters with iota subscript have a title
/// case form at a fixed distance, all others (ligatures, `ß`) stay as they are.
fn simple_upper(c: char) -> char {
    let distance = match c {
        '\u{1f80}'..='\u{1faf}' if u32::from(c) & 8 == 0 => 8,
        '\u{1fb3}' | '\u{1fc3}' | '\u{1ff3}' => 9,
        _ => 0,
    };
    char::from_u32(u32::from(c) + distance).unwrap_or(c)
}
