//! Every reason of the closed list is told in the documents, in the words of the code.

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
