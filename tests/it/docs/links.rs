//! No link of a document leads nowhere: files and headings of this repository are there.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::pages::{self, Page, root};

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_are_there() {
    let pages = pages::all();
    let mut dead = Vec::new();
    let mut count = 0;
    for page in &pages {
        for (line, target) in links(page) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            count += 1;
            if let Err(why) = lead(page, &target, &pages) {
                dead.push(format!("{}:{line}: ({target}): {why}", page.name));
            }
        }
    }
    assert!(dead.is_empty(), "\n{}", dead.join("\n"));
    assert!(count > 80, "{count} links are all that were found");
}

/// Every file of the repository that a command or a sentence names by its path is there.
#[test]
fn every_file_that_is_named_is_there() {
    let mut missing = Vec::new();
    let mut count = 0;
    for page in pages::all() {
        let words = page.text.split(|c: char| !(c.is_ascii_alphanumeric() || "._-/".contains(c)));
        for word in words.map(|word| word.trim_end_matches(['.', '/'])) {
            if ["deploy/", "config/", "docs/", "src/", "tests/", "benches/"].iter().any(|room| word.starts_with(room)) {
                count += 1;
                if !root().join(word).exists() {
                    missing.push(format!("{}: {word}", page.name));
                }
            }
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
    assert!(count > 50, "{count} names are all that were found");
}

/// Every document in docs/ stands in its index, and the index in the README.
#[test]
fn the_index_names_every_document() {
    let pages = pages::all();
    let find = |name: &str| pages.iter().find(|page| page.name == name).unwrap_or_else(|| panic!("{name}"));
    let listed: BTreeSet<String> = links(find("docs/README.md")).into_iter().map(|(_, target)| target).collect();
    for page in &pages {
        let Some(name) = page.name.strip_prefix("docs/").filter(|name| !name.contains('/')) else { continue };
        assert!(name == "README.md" || listed.contains(name), "docs/README.md does not name {name}");
    }
    assert!(links(find("README.md")).iter().any(|(_, target)| target == "docs/README.md"));
}

/// The targets of a document's links with their lines.
fn links(page: &Page) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in page.prose() {
        let line = without_code(line);
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            let target = &rest[..rest.find(')').unwrap_or(rest.len())];
            found.push((number, target.to_owned()));
        }
    }
    found
}

/// A line without what stands in backquotes, which is shown as it is.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

fn lead(page: &Page, target: &str, pages: &[Page]) -> Result<(), String> {
    let (path, heading) = target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
    let here = Path::new(&page.name);
    let name = if path.is_empty() { here.to_owned() } else { plain(&here.with_file_name("").join(path))? };
    if !root().join(&name).exists() {
        return Err("no such file".to_owned());
    }
    let Some(heading) = heading else { return Ok(()) };
    let other = pages.iter().find(|page| Path::new(&page.name) == name).ok_or("a heading of what is no document")?;
    headings(other).contains(heading).then_some(()).ok_or_else(|| "no such heading".to_owned())
}

/// A path without `..`.
fn plain(path: &Path) -> Result<PathBuf, String> {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir if !plain.pop() => return Err("outside of the repository".to_owned()),
            Component::ParentDir | Component::CurDir => {}
            part => plain.push(part),
        }
    }
    Ok(plain)
}

/// The names by which a document's headings are linked: in small letters, a hyphen for a blank, and of the rest letters,
/// digits, hyphens and underscores.
fn headings(page: &Page) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (_, line) in page.prose() {
        let Some(heading) = line.strip_prefix('#').map(|rest| rest.trim_start_matches('#')) else { continue };
        let kept = |c: char| match c {
            ' ' => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
            _ => None,
        };
        let name: String = heading.trim().to_lowercase().chars().filter_map(kept).collect();
        let mut numbered = name.clone();
        let mut number = 0;
        while !names.insert(numbered.clone()) {
            number += 1;
            numbered = format!("{name}-{number}");
        }
    }
    names
}
