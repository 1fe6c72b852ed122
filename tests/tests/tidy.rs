//! What the compiler does not keep: which room knows what, and what no file may hold.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below a folder, as path from the root and text; build output and version control left
/// out.
fn files(below: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", ".cairn-testnet"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if name.ends_with(ending)
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                found.push((
                    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned(),
                    text,
                ));
            }
        }
    }
    assert!(!found.is_empty(), "nothing ends in {ending} below {below}");
    found
}

/// Names each line of code that holds one of the words, outside of the allowed places. Comments may
/// name anything.
fn absent(words: &[&str], below: &str, allowed: &[&str]) {
    let mut offences = Vec::new();
    for (path, text) in files(below, ".rs") {
        if allowed.iter().any(|place| path.starts_with(place)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if words.iter().any(|word| code.contains(word)) {
                offences.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(offences.is_empty(), "{words:?} must be absent from {below}:\n{}", offences.join("\n"));
}

#[test]
fn each_room_knows_only_its_own() {
    absent(&["sled::", "use sled"], "ledger/src", &["ledger/src/store"]);
    absent(&["ledger::store", "store::Store"], "protocol/src", &[]);
    absent(&["ledger::store", "store::Store"], "wallet-cli/src", &[]);
    absent(&["libp2p::", "use libp2p"], "node/src", &["node/src/network"]);
    absent(&["tokio", "libp2p", "std::net", "std::fs"], "protocol/src", &[]);
    absent(&["std::net", "tokio"], "ledger/src", &[]);
}

#[test]
fn nodes_agree_so_no_clock_float_or_hash_order() {
    for room in ["ledger/src", "protocol/src"] {
        absent(
            &["SystemTime", "Instant::now"],
            room,
            &["ledger/src/store/disk.rs", "ledger/src/store/tests"],
        );
        absent(&["HashMap", "HashSet", "f32", "f64"], room, &["ledger/src/store/tests"]);
    }
}

#[test]
fn nothing_is_left_undone_or_unbounded() {
    // Put together, so that this file does not hold them.
    let stub = ["to", "do!("].concat();
    let missing = ["unimple", "mented!("].concat();
    let skipped = ["#[ig", "nore"].concat();
    let unbounded = ["unbounded_", "channel"].concat();
    for room in ["ledger", "protocol", "node", "wallet-cli", "tests"] {
        absent(&[&stub, &missing, &skipped, &unbounded], room, &[]);
    }
}

#[test]
fn no_file_holds_a_path_of_some_machine() {
    let homes = [
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
        ["/Us", "ers/"].concat(),
        ["/wo", "rk/"].concat(),
    ];
    for ending in [".rs", ".md", ".toml", ".json", "Makefile", "run"] {
        for (path, text) in files("", ending) {
            for (number, line) in text.lines().enumerate() {
                let found = homes.iter().find(|home| line.contains(home.as_str()));
                assert!(found.is_none(), "{path}:{}: {line}", number + 1);
            }
        }
    }
}

#[test]
fn crates_say_what_they_are_and_the_readme_says_how_to_begin() {
    for room in ["ledger", "protocol", "node", "wallet-cli", "tests"] {
        let text = std::fs::read_to_string(root().join(room).join("src/lib.rs")).unwrap();
        assert!(text.starts_with("//! "), "{room}/src/lib.rs says nothing of the crate");
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let screen: Vec<&str> = readme.lines().take(40).collect();
    for command in
        ["cargo build --release && cargo run --release -- testnet", "cargo test --workspace"]
    {
        assert!(screen.iter().any(|line| line.starts_with(command)), "{command}");
    }
    let ci = std::fs::read_to_string(root().join(".ci/run")).unwrap();
    assert!(ci.contains("cargo test --workspace"));
}
