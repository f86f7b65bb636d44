//! `meshscrape audit` and `meshscrape verify` on a real API server, with a real Envoy in the place of every kind of pod.

mod audit;
mod town;
mod verify;

/// What `docs/audit.md` shows behind this command, up to the next one.
fn printed(command: &str) -> String {
    let page = include_str!("../../../docs/audit.md");
    let (_, behind) = page.split_once(&format!("$ {command}\n")).expect("the document shows the command");
    let (block, _) = behind.split_once("```").expect("a block of code ends");
    block.split_once("$ ").map_or(block, |(shown, _)| shown).to_owned()
}
