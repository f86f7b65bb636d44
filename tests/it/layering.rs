//! Dependencies between the rooms of the crate point one way: this chapter reads the source and holds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each room and the rooms it uses. A room is a file or folder in `src/`; whatever is not listed here is a mistake, and so
/// is what is listed and not used.
const ALLOWED: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("lifecycle", &[]),
    ("telemetry", &[]),
    ("model", &[]),
    ("watched", &[]),
    ("yaml", &[]),
    ("relabel", &["model"]),
    ("config", &["model", "relabel", "yaml"]),
    ("identity", &["clock", "config", "model", "watched"]),
    ("label", &["config", "model", "relabel"]),
    ("token", &["clock", "config", "identity", "model"]),
    ("connect", &["clock", "config", "identity", "model", "token"]),
    ("discover", &["clock", "config", "connect", "identity", "label", "model", "token", "watched", "yaml"]),
    ("parse", &["model"]),
    ("wire", &["model"]),
    ("series", &["config", "label", "model", "parse", "relabel", "wire"]),
    ("scrape", &["clock", "config", "connect", "label", "model", "parse", "series", "telemetry", "token"]),
    ("spool", &["clock", "model"]),
    ("send", &["clock", "config", "identity", "model", "spool", "telemetry", "token", "wire"]),
    (
        "status",
        &["clock", "config", "discover", "identity", "lifecycle", "model", "relabel", "scrape", "send", "telemetry"],
    ),
    (
        "agent",
        &[
            "clock",
            "config",
            "connect",
            "discover",
            "identity",
            "lifecycle",
            "model",
            "scrape",
            "send",
            "series",
            "spool",
            "status",
            "token",
        ],
    ),
    (
        "cli",
        &[
            "agent",
            "clock",
            "config",
            "connect",
            "discover",
            "identity",
            "label",
            "lifecycle",
            "model",
            "parse",
            "relabel",
            "scrape",
            "telemetry",
            "watched",
            "wire",
        ],
    ),
];

#[test]
fn rooms_use_what_they_may_and_may_what_they_use() {
    let used = rooms_and_what_they_use();
    let mut mistakes = Vec::new();
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    for (room, uses) in &used {
        let Some(may) = allowed.get(room.as_str()) else {
            mistakes.push(format!("{room}: a room that this table does not know"));
            continue;
        };
        for (other, file) in uses.iter().filter(|(other, _)| !may.contains(&other.as_str())) {
            mistakes.push(format!("{file}: {room} may not use {other}"));
        }
    }
    for (room, may) in allowed {
        let Some(uses) = used.get(room) else {
            mistakes.push(format!("{room}: the table lists a room that is not there"));
            continue;
        };
        for other in may.iter().filter(|other| !uses.contains_key(**other)) {
            mistakes.push(format!("{room} may use {other} and does not: take it from the table"));
        }
    }
    assert!(mistakes.is_empty(), "\n{}", mistakes.join("\n"));
}

#[test]
fn the_table_itself_has_no_cycle() {
    let allowed: BTreeMap<&str, &[&str]> = ALLOWED.iter().copied().collect();
    let mut done: BTreeSet<&str> = BTreeSet::new();
    while done.len() < allowed.len() {
        let ready: Vec<&str> = allowed
            .iter()
            .filter(|(room, uses)| !done.contains(*room) && uses.iter().all(|used| done.contains(used)))
            .map(|(room, _)| *room)
            .collect();
        let rest: Vec<_> = allowed.keys().filter(|room| !done.contains(*room)).collect();
        assert!(!ready.is_empty(), "a cycle among {rest:?}");
        done.extend(ready);
    }
}

/// For each room the rooms it names, each with a file that does.
fn rooms_and_what_they_use() -> BTreeMap<String, BTreeMap<String, String>> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut rooms: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in rust_files(&source) {
        let inside = file.strip_prefix(&source).expect("listed below src").with_extension("");
        let mut modules: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        modules.pop_if(|last| last == "mod");
        let room = modules[0].clone();
        if matches!(room.as_str(), "main" | "lib") {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("readable source");
        let uses = rooms.entry(room.clone()).or_default();
        for other in rooms_named(&text, modules.len()).into_iter().filter(|other| *other != room) {
            uses.entry(other).or_insert_with(|| inside.display().to_string());
        }
    }
    rooms
}

fn rust_files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("readable folder") {
        let path = entry.expect("readable entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The rooms that a source text names from the crate's root on, also inside `use crate::{…}` and by way of `super::`;
/// comments do not count. The text is of a module that lies `depth` modules below the root.
fn rooms_named(text: &str, depth: usize) -> BTreeSet<String> {
    let code = from_root(text, depth);
    let mut rooms = BTreeSet::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, path)| (at, &code[at + path.len()..])) {
        match rest.strip_prefix('{') {
            None => {
                rooms.insert(identifier(rest));
            }
            Some(group) => rooms.extend(top_level_names(group)),
        }
    }
    rooms.remove("");
    rooms
}

/// The text without comment lines, with `crate::` in the place of each chain of `super::` that leads to the root.
fn from_root(text: &str, depth: usize) -> String {
    let mut code = String::new();
    // The modules inside the file that are open here, by their indentation: the formatter closes each at its own.
    let mut open: Vec<&str> = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with("//")) {
        let (indentation, statement) = line.split_at(line.len() - line.trim_start().len());
        open.pop_if(|opened| *opened == indentation && statement == "}");
        let climb = "super::".repeat(depth + open.len());
        code.push_str(&line.replace("self::super::", "super::").replace(&climb, "crate::"));
        code.push('\n');
        let is_module = statement.starts_with("mod ") || statement.starts_with("pub") && statement.contains(" mod ");
        if is_module && statement.ends_with('{') {
            open.push(indentation);
        }
    }
    code
}

fn identifier(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// The first path segment of each entry of a `{…}` group.
fn top_level_names(group: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                names.push(identifier(group[start..at].trim_start()));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(identifier(group[start..at].trim_start()));
                start = at + 1;
            }
            _ => {}
        }
    }
    names
}

#[test]
fn the_reader_of_paths_sees_through_groups() {
    let text = "use crate::{agent, model::{Labels, Target}, wire::join};\nuse crate::clock::Clock;\n// crate::spool\n";
    let found: Vec<String> = rooms_named(text, 1).into_iter().collect();
    assert_eq!(found, ["agent", "clock", "model", "wire"]);
}

#[test]
fn the_reader_of_paths_sees_through_super() {
    let text = "use super::{agent, wire::join};\n\
                #[cfg(test)]\npub(super) mod tests {\n    use super::{Own, own};\n    use super::super::clock::Clock;\n}\n\
                fn f() -> super::model::Labels { self::super::yaml::parse() }\n";
    let of = |depth| rooms_named(text, depth).into_iter().collect::<Vec<_>>();
    assert_eq!(of(1), ["agent", "clock", "model", "wire", "yaml"]);
    assert_eq!(of(2), Vec::<String>::new(), "inside a room, super:: is the room");
    assert_eq!(rooms_named("use super::super::spool::Spool;\n", 2).into_iter().collect::<Vec<_>>(), ["spool"]);
}
