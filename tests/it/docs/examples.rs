//! What the documents show can be done: configurations load, command lines are those of the program.

use std::path::Path;
use std::process::Command;

use super::pages::{self, Block, Page};
use crate::deploy::rendered::documents;

/// The top-level keys that make a block of YAML a configuration of ours.
const OURS: [&str; 4] = ["global", "scrape_configs", "scrape_config_files", "remote_write"];

/// Every configuration that a document shows loads, and is warned of only where the document says so: in a block that
/// begins with a comment `# warned of: …`. Other YAML is at least that.
#[test]
fn the_configurations_of_the_documents_load() {
    let mut count = 0;
    for page in pages::all() {
        for block in page.blocks().iter().filter(|block| block.language == "yaml") {
            let place = format!("{}:{}", page.name, block.line);
            let parsed = documents(&block.text);
            assert!(!parsed.is_empty(), "{place}: nothing in it");
            // A Prometheus of somebody else has rules, which ours has not.
            let theirs = parsed[0].get("rule_files").is_some();
            // A list of jobs is what stands below scrape_configs.
            let jobs = parsed[0].get(0).is_some_and(|job| job.get("job_name").is_some());
            if theirs || !(jobs || OURS.iter().any(|key| parsed[0].get(key).is_some())) {
                continue;
            }
            count += 1;
            let env = |name: &str| (name == "NODE_NAME").then(|| "node-1".to_owned());
            let text = if jobs { format!("scrape_configs:\n{}", block.text) } else { block.text.clone() };
            let loaded = meshscrape::config::parse(Path::new(&page.name), &text, &env);
            assert!(loaded.config.is_ok(), "{place}: {:#?}", loaded.config);
            let expected = block.text.starts_with("# warned of: ");
            assert_eq!(!loaded.warnings.is_empty(), expected, "{place}: {:#?}", loaded.warnings);
        }
    }
    assert!(count >= 5, "{count} configurations are all that were found");
}

/// Every command line of ours that a document shows, in a block or in a sentence, is one that the program takes: the
/// command, each option, and its value.
#[test]
fn the_command_lines_of_the_documents_are_those_of_the_program() {
    let mut lines = Vec::new();
    for page in pages::all().iter().filter(|page| page.name != "CHANGELOG.md") {
        let blocks = page.blocks();
        lines.extend(blocks.iter().flat_map(|block| in_block(page, block)));
        for (number, line) in page.prose() {
            let spans = line.split('`').skip(1).step_by(2);
            lines.extend(spans.filter_map(|span| Some((format!("{}:{number}", page.name), command_line(span)?))));
        }
    }
    assert!(lines.len() > 60, "{} command lines are all that were found", lines.len());
    let mut wrong = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for (place, words) in lines.into_iter().filter(|(_, words)| seen.insert(words.clone())) {
        // Options are taken one by one: what stands before --help is judged, what is missing is not.
        let tried = Command::new(env!("CARGO_BIN_EXE_meshscrape")).args(&words).arg("--help").output();
        let tried = tried.expect("the program runs");
        if !tried.status.success() {
            wrong.push(format!("{place}: {words:?}: {}", String::from_utf8_lossy(&tried.stderr)));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What is to be pasted into a shell is something that a shell can read.
#[test]
fn the_scripts_of_the_documents_are_scripts() {
    let mut count = 0;
    for page in pages::all() {
        for block in page.blocks().iter().filter(|block| block.language == "sh") {
            count += 1;
            let read = Command::new("bash").args(["-n", "-c", &block.text]).output().expect("bash runs");
            let why = String::from_utf8_lossy(&read.stderr);
            assert!(read.status.success() && why.is_empty(), "{}:{}: {why}", page.name, block.line);
        }
    }
    assert!(count >= 10, "{count} scripts are all that were found");
}

/// Every metric of ours that a document names is one that the agent has.
#[test]
fn the_metrics_of_the_documents_are_those_of_the_agent() {
    let pages = pages::all();
    let list = pages.iter().find(|page| page.name == "docs/metrics.md").expect("the list");
    let known: Vec<&str> = list.text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert!(known.len() > 50, "{known:?}");
    let mut unknown = Vec::new();
    let mut count = 0;
    for page in pages.iter().filter(|page| page.name != "CHANGELOG.md") {
        let words = page.text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
        for word in words.filter(|word| word.starts_with("meshscrape_") && !word.ends_with('_')) {
            count += 1;
            if !known.contains(&word) {
                unknown.push(format!("{}: {word}", page.name));
            }
        }
    }
    assert!(unknown.is_empty(), "\n{}", unknown.join("\n"));
    assert!(count > 40, "{count} names are all that were found");
}

/// What stands for the end of a metric's name behind `prometheus_remote_storage`, as in "`_shard_capacity`".
#[test]
fn the_differences_name_the_ends_of_metrics_that_there_are_and_miss_none_that_there_is() {
    let pages = pages::all();
    let text = |name: &str| &pages.iter().find(|page| page.name == name).expect("a document").text;
    let end = regex::Regex::new("(no )?`(_[a-z_]+)`").expect("a pattern");
    let rows = text("docs/differences.md").lines().filter(|line| line.contains("`prometheus_remote_storage_"));
    let mut count = 0;
    for found in rows.flat_map(|row| end.captures_iter(row)) {
        let metric = format!("| `prometheus_remote_storage{}` |", &found[2]);
        let is_said_to_be = found.get(1).is_none();
        assert_eq!(text("docs/metrics.md").contains(&metric), is_said_to_be, "{}", &found[0]);
        count += 1;
    }
    assert!(count > 1, "{count} are all that were found");
}

/// The command lines in a block of code. Where it shows what was printed, only lines behind a `$` are typed.
fn in_block(page: &Page, block: &Block<'_>) -> Vec<(String, Vec<String>)> {
    let joined = block.text.replace("\\\n", " ");
    let session = joined.lines().any(|line| line.starts_with("$ "));
    if !matches!(block.language, "" | "sh") {
        return Vec::new();
    }
    let typed = joined.lines().filter_map(|line| if session { line.strip_prefix("$ ") } else { Some(line) });
    typed.filter_map(|line| Some((format!("{}:{}", page.name, block.line), command_line(line)?))).collect()
}

/// The arguments of our program in a line that calls it, itself or by `kubectl exec … --`: up to a pipe, a redirection, or
/// a comment.
fn command_line(line: &str) -> Option<Vec<String>> {
    let line = line.split_once(" -- ").filter(|(before, _)| before.contains("kubectl")).map_or(line, |(_, ours)| ours);
    let line = line.trim_start();
    let rest = line.strip_prefix("NODE_NAME=any ").unwrap_or(line).strip_prefix("meshscrape ")?;
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut begun = false;
    for c in rest.chars() {
        match (c, quote) {
            (c, Some(open)) if c == open => quote = None,
            (c, Some(_)) => word.push(c),
            ('\'' | '"', None) => (quote, begun) = (Some(c), true),
            ('|' | '>' | '&' | ';', None) => break,
            ('#', None) if !begun => break,
            (' ', None) => {
                if std::mem::take(&mut begun) {
                    words.push(std::mem::take(&mut word));
                }
            }
            (c, None) => {
                word.push(c);
                begun = true;
            }
        }
    }
    // `2>` is a redirection, too.
    if begun && !(word == "2" && rest.contains("2>")) {
        words.push(word);
    }
    // In a sentence an option may stand for all of them, and a word for a command or a shell.
    words.retain(|word| word != "…");
    for word in &mut words {
        if word == "SHELL" {
            *word = "bash".to_owned();
        }
    }
    (words.first().map(String::as_str) != Some("COMMAND")).then_some(words)
}
