//! What the documents say is what the program does.

use std::fmt::Write as _;
use std::path::Path;

use meshscrape::model::Reason;

/// The page of reasons, made from the table in the code. `UPDATE_EXPECTED=1` writes it anew.
#[test]
fn the_page_of_reasons_is_the_table_in_the_code() {
    let mut page = "# Why a scrape fails\n\nThe closed list: the same word stands in the metric `meshscrape_scrape_failures_total{job,reason}`, the log, the API and the\noutput of `meshscrape scrape`, whose exit code it decides. Made from `src/model/reason.rs`.\n\n| reason | exit code | when | what to look at |\n| --- | --- | --- | --- |\n".to_owned();
    for reason in Reason::ALL {
        let _ = writeln!(page, "| `{reason}` | {} | {} | {} |", reason.class().code(), reason.when(), reason.hint());
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reasons.md");
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&file, &page).expect("docs/reasons.md is written");
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(written, page, "docs/reasons.md is behind the code: run this test with UPDATE_EXPECTED=1");
}

/// The jobs of the README are configurations that load.
#[test]
fn the_jobs_of_the_readme_are_good_configurations() {
    let readme = include_str!("../../README.md");
    let examples: Vec<_> = readme.split("```yaml\n").skip(1).filter_map(|rest| rest.split_once("```")).collect();
    assert_eq!(examples.len(), 2);
    for (example, _) in examples {
        let env = |name: &str| (name == "NODE_NAME").then(|| "node-1".to_owned());
        let loaded = meshscrape::config::parse(Path::new("README.md"), example, &env);
        assert!(loaded.config.is_ok(), "{:#?}", loaded.config);
        assert!(loaded.warnings.is_empty(), "{:#?}", loaded.warnings);
    }
}

/// Every command that the README lists is one that the program has.
#[test]
fn the_commands_of_the_readme_exist() {
    let readme = include_str!("../../README.md");
    let listed: Vec<&str> = readme.lines().filter_map(|line| line.strip_prefix("| `meshscrape ")).collect();
    assert!(listed.len() >= 8, "{listed:?}");
    for line in listed {
        let words =
            line.split(['`', ' ']).take_while(|word| word.chars().all(|c| c.is_ascii_lowercase()) && !word.is_empty());
        let words: Vec<&str> = words.collect();
        let help = std::process::Command::new(env!("CARGO_BIN_EXE_meshscrape"))
            .args(&words)
            .arg("--help")
            .output()
            .expect("the program runs");
        assert!(help.status.success() && !words.is_empty(), "{words:?}");
    }
}
