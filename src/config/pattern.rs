//! Patterns of files: in the last part of a path each `*` stands for any text, and nothing else stands for anything.

use std::io;
use std::path::{Path, PathBuf};

use super::problem::Wrong;
use crate::model::clean;

/// The files that a pattern names, in the order of their names; without a `*` that is one, whether it exists or not. In a
/// directory that does not exist there are none.
///
/// # Errors
/// If the directory is there and cannot be listed.
pub fn matching_files(pattern: &Path) -> io::Result<Vec<PathBuf>> {
    let Some(name) = pattern.file_name().and_then(|name| name.to_str()).filter(|name| name.contains('*')) else {
        return Ok(vec![pattern.to_owned()]);
    };
    let directory = pattern.parent().filter(|parent| !parent.as_os_str().is_empty());
    let entries = match std::fs::read_dir(directory.unwrap_or(Path::new("."))) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        let found = entry?.file_name();
        if found.to_str().is_some_and(|found| star_matches(name, found)) {
            paths.push(directory.map_or_else(|| PathBuf::from(&found), |directory| directory.join(&found)));
        }
    }
    paths.sort();
    Ok(paths)
}

/// Whether `name` is `pattern` with each `*` standing for any text.
fn star_matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Whether `text` is such a pattern.
pub(super) fn check(text: &str) -> Result<(), Wrong> {
    let shown = clean(text);
    if text.find('*').is_some_and(|at| text[at..].contains('/')) {
        return Err(Wrong::new(
            format!("{shown:?} has a * in a directory's name, where none is looked for"),
            "put the * into the last part of the path",
        ));
    }
    if let Some(c) = text.chars().find(|c| matches!(c, '?' | '[' | '\\')) {
        let message =
            format!("{shown:?} has a {c}, which Prometheus takes for a part of a pattern; here only * is one");
        return Err(Wrong::new(message, "write *, or name the files"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, name, expected) in [
            ("*.yml", "a.yml", true),
            ("*.yml", ".yml", true),
            ("*.yml", "a.yaml", false),
            ("*.yml", "a.yml.bak", false),
            ("t-*.json", "t-1.json", true),
            ("t-*.json", "t.json", false),
            ("a*b*c.yml", "axbxc.yml", true),
            ("a*b*c.yml", "axc.yml", false),
            ("a*a.yml", "a.yml", false),
            ("*a*.yml", "b.yml", false),
            ("a**.yml", "a.yml", true),
            ("[a].*", "a.yml", false),
        ] {
            assert_eq!(star_matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn files_come_in_the_order_of_their_names() {
        let directory = tempfile::tempdir().expect("a directory");
        for name in ["b.yml", "c.txt", ".d.yml", "a.yml"] {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        let names = |pattern: &str| {
            let paths = matching_files(&directory.path().join(pattern)).expect("listed");
            paths.iter().map(|path| path.file_name().expect("a name").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(names("*.yml"), [".d.yml", "a.yml", "b.yml"]);
        assert_eq!(names("z.yml"), ["z.yml"], "without a star it is named, whether it exists or not");
        assert!(names("no/such/*.yml").is_empty());
    }
}
