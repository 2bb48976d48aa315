//! The documents: they fit what they describe, and lead somewhere.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// Checks all documents.
///
/// # Errors
///
/// With everything that is wrong: a document that is too long, a link that leads nowhere, a file of tests or a decision that its
/// index does not name, or names although it is not there.
pub(super) fn check(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for (name, limit) in LIMITS {
        let lines = read(&root.join(name))?.lines().count();
        if lines > limit {
            wrong.push(format!("`{name}` has {lines} lines, of at most {limit}"));
        }
    }
    for document in documents(root)? {
        let text = read(&document)?;
        let folder = document.parent().unwrap_or(root);
        for link in links(&text) {
            if !folder.join(link).exists() {
                let name = document.strip_prefix(root).unwrap_or(&document).display();
                wrong.push(format!("`{name}` leads to `{link}`, which is not there"));
            }
        }
    }
    for (index, folder) in INDEXES {
        let there = entries(&root.join(folder), index)?;
        wrong.extend(compare(index, &named(&read(&root.join(index))?), &there));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!("{}", wrong.join("; "))
}

/// How long a document may be, so that somebody reads it.
const LIMITS: [(&str, usize); 2] = [("README.md", 120), ("ARCHITECTURE.md", 150)];

/// What has to name every entry of a folder in the first cells of its tables, and nothing else.
const INDEXES: [(&str, &str); 3] = [
    ("tests/README.md", "tests/tests"),
    ("bench/README.md", "bench/tests"),
    ("docs/decisions/README.md", "docs/decisions"),
];

/// All documents that people write.
fn documents(root: &Path) -> Result<Vec<PathBuf>> {
    // The other one in there is the text around the tables of a document.
    let mut found = vec![root.join("bench/README.md")];
    for folder in ["", "docs", "docs/api", "docs/decisions", "examples", "tests"] {
        for entry in list(&root.join(folder))? {
            if entry.extension().is_some_and(|extension| extension == "md") {
                found.push(entry);
            }
        }
    }
    Ok(found)
}

/// Where links lead to in the repository, without the place in the document.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let ours = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    ours.map(|target| target.split('#').next().unwrap_or(target))
}

/// What an index has in the first cells of its rows: `` `name` `` or `[title](name)`.
fn named(index: &str) -> BTreeSet<String> {
    let cells = index.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let names = cells.filter_map(|cell| {
        let linked = cell.split_once("](").and_then(|(_, rest)| rest.strip_suffix(')'));
        linked.or_else(|| cell.strip_prefix('`')?.strip_suffix('`'))
    });
    names.map(|name| name.trim_start_matches("tests/").to_owned()).collect()
}

/// The entries of a folder but for the index itself; a test that is a folder is one entry.
fn entries(folder: &Path, index: &str) -> Result<BTreeSet<String>> {
    let names = list(folder)?.into_iter().filter_map(|entry| {
        let name = entry.file_name()?.to_str()?.to_owned();
        let is_test = entry.join("main.rs").exists() || name.ends_with(".rs");
        let is_document = name.ends_with(".md") && !index.ends_with(&format!("/{name}"));
        (is_test || is_document).then_some(name)
    });
    Ok(names.collect())
}

fn compare(index: &str, named: &BTreeSet<String>, there: &BTreeSet<String>) -> Vec<String> {
    let missing = there.difference(named).map(|name| format!("`{index}` does not name `{name}`"));
    let gone =
        named.difference(there).map(|name| format!("`{index}` names `{name}`, which is not there"));
    missing.chain(gone).collect()
}

fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect();
    let entries: std::io::Result<Vec<PathBuf>> = read();
    let mut entries = entries.with_context(|| format!("list `{}`", folder.display()))?;
    entries.sort();
    Ok(entries)
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("read `{}`", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_the_index_lacks_is_told_and_one_that_it_invents_too() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("faults")).unwrap();
        for name in ["new.rs", "old.rs", "stand-in.sh", "faults/main.rs"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let index = "| file | promise |\n| --- | --- |\n| `old.rs` | kept |\n| `gone.rs` | kept |\n\
                     | [faults](tests/faults) | kept |\n";
        let there = entries(folder.path(), "tests/README.md").unwrap();
        assert_eq!(
            compare("tests/README.md", &named(index), &there),
            [
                "`tests/README.md` does not name `new.rs`",
                "`tests/README.md` names `gone.rs`, which is not there"
            ]
        );
    }

    #[test]
    fn only_links_into_the_repository_are_followed() {
        let text = "[a](docs/a.md#there), [b](https://example.org/b) and [c](#here)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["docs/a.md"]);
    }

    #[test]
    fn the_documents_of_this_project_are_in_order() {
        check(crate::layout::root()).unwrap();
    }
}
