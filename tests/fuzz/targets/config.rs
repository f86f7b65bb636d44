//! Configuration files: whatever stands in one, it is read or refused with places in it, and what is shown of one that is
//! read means the same again.
#![no_main]

use std::path::Path;

use libfuzzer_sys::{Corpus, fuzz_target};
use meshscrape::config::{Loaded, Problem, parse};

const FILE: &str = "/nowhere/meshscrape.yaml";
/// What every environment variable is set to.
const VALUE: &str = "0f9c7d51e2ab";

fuzz_target!(|data: &[u8]| -> Corpus {
    let Ok(text) = std::str::from_utf8(data) else { return Corpus::Reject };
    // Patterns of files would be looked up on this machine, and who writes the value of a variable out has told it.
    if text.contains("config_files") || text.contains(VALUE) {
        return Corpus::Reject;
    }
    let Loaded { config, warnings, .. } = read(text);
    warnings.iter().for_each(|warning| is_in(text, warning));
    match config {
        Err(problems) => {
            assert!(!problems.is_empty(), "who refuses says why");
            problems.iter().for_each(|problem| is_in(text, problem));
        }
        Ok(config) => {
            assert!(!config.effective.contains(VALUE), "the value of a variable is shown: {}", config.effective);
            // A secret is shown as a word of its own, and cannot be meant again.
            if !config.effective.contains("<secret>") {
                let again = read(&config.effective).config;
                assert_eq!(again.as_ref(), Ok(&config), "what is shown means something else:\n{}", config.effective);
            }
        }
    }
    Corpus::Keep
});

fn read(text: &str) -> Loaded {
    parse(Path::new(FILE), text, &|name| (name != "UNSET").then(|| VALUE.to_owned()))
}

/// The problem has a place in the file, and gives nothing away.
fn is_in(text: &str, problem: &Problem) {
    assert!(!problem.message.is_empty() && problem.file == Path::new(FILE));
    assert!(!problem.to_string().contains(VALUE), "the value of a variable is told: {problem}");
    if let Some(pos) = problem.pos {
        let text = text.replace("\r\n", "\n");
        let line = text.split(['\n', '\r']).nth(pos.line - 1);
        let columns = 1..=line.map_or(0, |line| line.chars().count()) + 1;
        assert!(line.is_some() && columns.contains(&pos.column), "{problem}");
    }
}
