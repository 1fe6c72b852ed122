//! Reads the source of this workspace, so that tests can check the project's own rules: files, code
//! without comments and string literals, functions, and which file imports which.

mod code;
mod imports;

use std::path::{Path, PathBuf};

pub use self::code::{Function, code_of, functions};
pub use self::imports::{Crate, Order};

/// The folder of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the crate of tests lies in the workspace").to_owned()
}

/// Every file below a folder, as its path in the workspace and its text. Build output and version
/// control are left out.
///
/// # Panics
/// If a folder cannot be read, or if no file has this ending.
#[must_use]
pub fn files(below: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).expect("a folder of the workspace");
        for path in entries.map(|entry| entry.expect("an entry of a folder").path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if !["target", ".git", ".cairn-testnet"].contains(&name.as_str()) {
                    folders.push(path);
                }
            } else if name.ends_with(ending)
                && let Ok(text) = std::fs::read_to_string(&path)
            {
                let path = path.strip_prefix(root()).unwrap_or(&path);
                found.push((path.to_string_lossy().into_owned(), text));
            }
        }
    }
    assert!(!found.is_empty(), "nothing ends in {ending} below {below}");
    found
}
