//! The documents of the repository as text: which there are, their code blocks, and what is left without those.

use std::path::{Path, PathBuf};

/// The root of the repository.
pub(super) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A document.
pub(super) struct Page {
    /// Its path below the root.
    pub(super) name: String,
    pub(super) text: String,
}

/// A code block of a document.
pub(super) struct Block<'p> {
    pub(super) language: &'p str,
    pub(super) text: String,
    /// The line of the document that its first line is, counted from 1.
    pub(super) line: usize,
}

/// All of them, sorted by name.
pub(super) fn all() -> Vec<Page> {
    let mut files = Vec::new();
    gather(root(), &mut files);
    files.sort();
    let pages: Vec<Page> = files
        .into_iter()
        .map(|file| Page {
            name: file.strip_prefix(root()).expect("found below it").display().to_string(),
            text: std::fs::read_to_string(&file).expect("a document"),
        })
        .collect();
    assert!(pages.iter().any(|page| page.name == "README.md") && pages.len() > 20, "the documents are found");
    pages
}

fn gather(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
            gather(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
}

impl Page {
    /// Its code blocks. A block may be indented, as part of a list; that indentation is taken off.
    pub(super) fn blocks(&self) -> Vec<Block<'_>> {
        let mut blocks = Vec::new();
        let mut open: Option<(Block<'_>, usize)> = None;
        for (number, line) in self.text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            match (line.trim_start().strip_prefix("```"), &mut open) {
                (Some(language), None) => {
                    let language = language.trim();
                    open = Some((Block { language, text: String::new(), line: number + 2 }, indent));
                }
                (Some(_), Some(_)) => blocks.extend(open.take().map(|(block, _)| block)),
                (None, Some((block, outer))) => {
                    block.text.push_str(line.get(indent.min(*outer)..).unwrap_or_default());
                    block.text.push('\n');
                }
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a code block without an end", self.name);
        blocks
    }

    /// Its lines outside of code blocks, each with its number.
    pub(super) fn prose(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut inside = false;
        self.text.lines().enumerate().filter_map(move |(number, line)| {
            let fence = line.trim_start().starts_with("```");
            inside ^= fence;
            (!inside && !fence).then_some((number + 1, line))
        })
    }
}
