//! Checks that what the documents name exists: files of the code, and other documents.

use std::path::{Path, PathBuf};

/// The folders of the crates, and the folder of the documents.
const ROOMS: [&str; 6] = ["ledger", "protocol", "node", "wallet-cli", "tests", "docs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All files below a folder, as paths from the root.
fn files(below: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(root()).unwrap();
                found.push(path.to_string_lossy().into_owned());
            }
        }
    }
    found
}

/// All documents except the changelog, which speaks of the past. Each is a path from the root and a
/// text.
fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<String> = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"]
        .map(str::to_owned)
        .to_vec();
    paths.extend(files("docs").into_iter().filter(|path| path.ends_with(".md")));
    let text = |path: String| (path.clone(), std::fs::read_to_string(root().join(path)).unwrap());
    paths.into_iter().map(text).collect()
}

/// The texts between backticks in a line.
fn quoted(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// The file that a name stands for: `live/heights.rs` stands for a file whose path ends so.
fn find<'a>(all: &'a [String], name: &str) -> Option<&'a String> {
    let ending = format!("/{name}");
    all.iter().find(|path| format!("/{path}").ends_with(&ending))
}

/// Whether a word names a file or folder. A word with `NAME` stands for many, so it names none.
fn is_path(word: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    let in_room = word.split_once('/').is_some_and(|(room, _)| ROOMS.contains(&room));
    word.bytes().all(is_plain) && !word.contains("NAME") && (word.ends_with(".rs") || in_room)
}

#[test]
fn each_file_that_a_document_names_exists() {
    let all: Vec<String> = ROOMS.into_iter().flat_map(files).collect();
    let mut missing = Vec::new();
    let mut named = 0;
    for (document, text) in documents() {
        for (number, line) in text.lines().enumerate() {
            for name in quoted(line).filter(|word| is_path(word)) {
                named += 1;
                if !root().join(name).exists() && find(&all, name).is_none() {
                    missing.push(format!("{document}:{}: {name}", number + 1));
                }
            }
        }
    }
    assert!(named > 100, "{named}");
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

/// The table *Where to look* of ARCHITECTURE.md: each name to begin at occurs in a file of its row.
#[test]
fn each_name_to_begin_at_is_in_its_file() {
    let all: Vec<String> = ROOMS.into_iter().flat_map(files).collect();
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, table) = text.split_once("| Question | File | Begin at |").unwrap();
    let mut rows = 0;
    for row in table.lines().skip(2).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = row.split('|').collect();
        let paths =
            quoted(cells[2]).map(|name| find(&all, name).unwrap_or_else(|| panic!("{row}")));
        let code: String =
            paths.map(|path| std::fs::read_to_string(root().join(path)).unwrap()).collect();
        for name in quoted(cells[3]) {
            for part in name.split("::") {
                assert!(code.contains(part), "{part} of {name} is not in {}", cells[2]);
            }
        }
        rows += 1;
    }
    assert!(rows > 10, "{rows}");
}

#[test]
fn each_link_between_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for (document, text) in documents() {
        let folder = root().join(&document).parent().unwrap().to_owned();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (target, _) in targets {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            if path.contains("://") {
                continue;
            }
            let file = if path.is_empty() { root().join(&document) } else { folder.join(path) };
            let has_anchor = || {
                let text = std::fs::read_to_string(&file).unwrap_or_default();
                text.lines().filter(|line| line.starts_with('#')).any(|line| slug(line) == anchor)
            };
            if !file.exists() || !(anchor.is_empty() || has_anchor()) {
                broken.push(format!("{document}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The anchor of a heading, as links in Markdown name it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
