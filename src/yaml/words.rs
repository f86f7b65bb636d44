//! What the parser says of a text that is no YAML, in words for the mistakes that people make.
//!
//! The parser names the rule of the grammar that is broken and the place where it noticed; here stand what to write instead
//! and the place where it was written. No part of the text is quoted: it could be a secret.

use super::{Pos, YamlError, lines, too_deep};

/// The error for the parser's `info` about `text`, noticed at `pos`.
pub(super) fn refused(text: &str, info: &str, pos: Pos) -> YamlError {
    // The scanner looks ahead in nested brackets and gives up before the depth here is reached.
    if info == "recursion limit exceeded" {
        return YamlError { pos, message: too_deep() };
    }
    // Of a directive the parser counts the end of its line as well.
    let behind = lines(text).nth(pos.line.saturating_sub(1)).map_or(pos.column, |line| line.chars().count() + 1);
    let pos = Pos { column: pos.column.min(behind), ..pos };
    let numbered = || lines(text).enumerate().map(|(at, line)| (at + 1, line));
    let begins = |(line, text): (usize, &str)| {
        let blanks = text.chars().take_while(|c| *c == ' ').count();
        Pos { line, column: blanks + 1 }
    };
    let pos = match info {
        // Noticed at the tab, told of the value before it.
        "while scanning a plain scalar, found a tab" => {
            let tab = numbered().skip(pos.line).find(|(_, line)| line.trim_start_matches(' ').starts_with('\t'));
            tab.map_or(pos, begins)
        }
        // Noticed at what follows in another line, or in its own.
        "simple key expect ':'" | "simple key expected" => {
            let before = if info == "simple key expected" { pos.line } else { pos.line.saturating_sub(1) };
            let written = |(_, line): &(usize, &str)| !line.trim().is_empty() && !line.trim_start().starts_with('#');
            numbered().take(before).filter(written).last().map_or(pos, begins)
        }
        _ => pos,
    };
    let before = || {
        lines(text)
            .nth(pos.line.saturating_sub(1))
            .map(|line| line.chars().take(pos.column.saturating_sub(1)).collect::<String>())
    };
    let words = match info {
        "mapping values are not allowed in this context" if before().is_some_and(|line| line.contains(": ")) => {
            "a second \": \" stands in one line; put the value in quotes, or begin a new line"
        }
        "mapping values are not allowed in this context" => {
            "this line goes on with the value above; check its indentation, and that a blank follows the ':' above"
        }
        "while parsing node, found unknown anchor" => {
            "the alias names nothing; define it above with &, or put a value that begins with * in quotes"
        }
        "while scanning an anchor or alias, did not find expected alphabetic or numeric character" => {
            "* and & begin aliases and anchors; put the value in quotes"
        }
        "while scanning a quoted scalar, found unexpected end of stream" => "the quote that begins here never ends",
        "invalid indentation in quoted scalar" => {
            "the quote that begins here never ends, or goes on in a line that is not indented deeper"
        }
        "invalid trailing content after double-quoted scalar" => "nothing can follow the quote that ends here",
        "did not find expected <document start>" => "this does not belong to what stands above; check the indentation",
        "while parsing a block mapping, did not find expected key" => "a key is expected here; check the indentation",
        "while parsing a block collection, did not find expected '-' indicator" => {
            "a dash is expected here; indent a key of the item above deeper than its dash"
        }
        "block sequence entries are not allowed in this context" => {
            "no \"- \" can stand here; begin the list in a new line"
        }
        "simple key expect ':'" | "simple key expected" => {
            "this is no key with a value; write key: value, with a blank behind the ':'"
        }
        "while parsing a flow mapping, did not find expected ',' or '}'" => "',' or '}' is expected here",
        "while parsing a flow sequence, expected ',' or ']'" => "',' or ']' is expected here",
        "illegal placement of ':' indicator" => "no ':' can stand here; is a bracket above never closed?",
        "while parsing a quoted scalar, found unknown escape character" => {
            "double quotes hold a \\ that escapes nothing; use single quotes, or write \\\\"
        }
        "tabs disallowed within this context (block indentation)"
        | "tab cannot be used as indentation"
        | "tabs disallowed in this context"
        | "while scanning a plain scalar, found a tab" => "a line is indented by a tab; write blanks",
        "':' must be followed by a valid YAML whitespace" => "a tab stands behind the ':'; write a blank",
        "plain scalar cannot start with '-' followed by ,[]{}" => "a lone \"-\" is no value; put it in quotes",
        "invalid indentation" => {
            "the indentation is wrong here (in brackets, too, lines are indented deeper than their key), or a bracket or a quote above is never closed"
        }
        info if info.starts_with("unexpected character") => {
            "a value cannot begin with this character; put it in quotes"
        }
        other => other,
    };
    YamlError { pos, message: format!("this is not YAML: {words}") }
}
