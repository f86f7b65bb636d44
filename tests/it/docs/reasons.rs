//! Every reason of the closed list is told in the documents, in the words of the code.

use std::fmt::Write as _;
use std::path::Path;

use meshscrape::model::Reason;

/// The page of reasons, made from the table in the code. `UPDATE_EXPECTED=1` writes it anew.
#[test]
fn the_page_of_reasons_is_the_table_in_the_code() {
    let mut page = "# Why a scrape fails\n\nThe closed list: the same word stands in the metric `meshscrape_scrape_failures_total{job,reason}`, the log, the API, the page and the\noutput of `meshscrape scrape`, whose exit code it decides. Of `partial_merge`, for which no scrape fails, the metric is\n`meshscrape_partial_merges_total{job,part}`. Where more is known of a case, the program says more, or something else, than the last\ncolumn. Made from `src/model/reason.rs`.\n\n| reason | exit code | when | what to look at |\n| --- | --- | --- | --- |\n".to_owned();
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

/// The page for people in trouble has a row for each reason, which says what to do, and none for what is no reason.
#[test]
fn the_page_of_troubles_says_what_to_do_about_every_reason() {
    let page = include_str!("../../../docs/troubleshooting.md");
    let (_, rest) = page.split_once("| reason | do |\n| --- | --- |\n").expect("the table");
    let rows = rest.lines().take_while(|line| line.starts_with('|')).filter(|line| !line.starts_with("| **"));
    let mut told: Vec<&str> = rows
        .map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').splitn(2, '|').map(str::trim).collect();
            assert!(cells[1].len() > 8, "{row}");
            cells[0].trim_matches('`')
        })
        .collect();
    let mut reasons: Vec<String> = Reason::ALL.iter().map(ToString::to_string).collect();
    told.sort_unstable();
    reasons.sort_unstable();
    assert_eq!(told, reasons);
}
