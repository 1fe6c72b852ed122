//! The program `cairn-node`: where it is, and how it is run.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// Environment variable with the path of the program.
pub const PROGRAM_VARIABLE: &str = "CAIRN_NODE";
const NAME: &str = "cairn-node";
/// Folders of TARGET/PROFILE in which cargo puts tests and examples. The program is then looked for
/// in TARGET/PROFILE too. Above any other folder may be one in which everybody can write: rustdoc
/// runs tests in a folder of its own in /tmp.
const FOLDERS_OF_CARGO: [&str; 2] = ["deps", "examples"];

/// Finds the program: the given path, else the path in `CAIRN_NODE`, else the program beside the
/// running test, else the first one in the folders of `PATH`.
///
/// # Errors
/// [`Error::NoProgram`], which names all places. A path that is given and has no file is an error:
/// no other program is taken in its place.
pub fn find(given: Option<&Path>) -> Result<PathBuf, Error> {
    let test = env::current_exe().ok();
    let above = test.iter().flat_map(|test| folders_of(test));
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = above.map(Path::to_owned).chain(env::split_paths(&path)).collect();
    search(given, env::var_os(PROGRAM_VARIABLE), folders)
}

/// The folders in which the program may lie beside a test.
fn folders_of(test: &Path) -> impl Iterator<Item = &Path> {
    let folder = test.parent();
    let is_of_cargo = |folder: &&Path| {
        folder.file_name().is_some_and(|name| FOLDERS_OF_CARGO.iter().any(|of| name == *of))
    };
    folder.into_iter().chain(folder.filter(is_of_cargo).and_then(Path::parent))
}

fn search(
    given: Option<&Path>,
    variable: Option<OsString>,
    folders: Vec<PathBuf>,
) -> Result<PathBuf, Error> {
    let variable = variable.filter(|path| !path.is_empty()).map(PathBuf::from);
    let absolute = |path: &Path| std::path::absolute(path).map_err(Error::system(path.display()));
    if let Some(path) = [given, variable.as_deref()].into_iter().flatten().next() {
        if path.is_file() {
            return absolute(path);
        }
    } else if let Some(found) =
        folders.iter().map(|folder| folder.join(NAME)).find(|path| path.is_file())
    {
        return absolute(&found);
    }
    let told = |path: Option<&Path>| match path {
        Some(path) if path.is_file() => "not looked at, since a path is given".to_owned(),
        Some(path) => format!("there is no file {}", path.display()),
        None => "not set".to_owned(),
    };
    let explicit = given.is_some() || variable.is_some();
    let list = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>();
    Err(Error::NoProgram {
        given: told(given),
        environment: told(variable.as_deref()),
        beside: if explicit {
            "not looked at, since a path is given".to_owned()
        } else {
            format!("none in {}", list.join(", "))
        },
    })
}

/// A command that runs the program without the variables by which the caller's environment would
/// configure it.
pub fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    without_variables(&mut command, &["CAIRN_"]);
    command
}

/// Removes the variables whose names start with one of these prefixes.
pub fn without_variables(command: &mut Command, prefixes: &[&str]) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)))
        {
            command.env_remove(name);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_looked_for_above_folders_of_cargo_only() {
        for (test, expected) in [
            ("/t/debug/deps/pay-1", ["/t/debug/deps", "/t/debug"].as_slice()),
            ("/t/debug/examples/pay", &["/t/debug/examples", "/t/debug"]),
            ("/tmp/rustdoctest7/rust_out", &["/tmp/rustdoctest7"]),
            ("/pay", &["/"]),
        ] {
            let found: Vec<&Path> = folders_of(Path::new(test)).collect();
            assert_eq!(found, expected.iter().map(Path::new).collect::<Vec<_>>(), "{test}");
        }
    }

    #[test]
    fn the_program_is_the_given_one_or_that_of_the_environment_or_one_in_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, "").unwrap();
            path
        };
        let (given, variable) = (file("given"), file("variable"));
        let (first, second) = (file("first/cairn-node"), file("second/cairn-node"));
        let empty = folder.path().join("empty");
        let missing = folder.path().join("missing");
        let folders = || {
            let of = |path: &Path| path.parent().unwrap().to_owned();
            vec![empty.clone(), of(&first), of(&second)]
        };
        for (path, value, expected) in [
            (Some(given.as_path()), Some(&variable), Some(&given)),
            (None, Some(&variable), Some(&variable)),
            (None, None, Some(&first)),
            // A wrong path is never replaced by another program.
            (Some(missing.as_path()), Some(&variable), None),
            (None, Some(&missing), None),
        ] {
            let found = search(path, value.map(|value| value.clone().into()), folders());
            assert_eq!(found.ok().as_ref(), expected, "{path:?} {value:?}");
        }
        let found = search(None, Some(OsString::new()), folders());
        assert_eq!(found.unwrap(), first, "an empty variable counts as unset");

        let error = search(None, None, vec![empty.clone()]).unwrap_err().to_string();
        for part in ["Builder::program: not set", "CAIRN_NODE: not set", "PATH: none in", "empty"] {
            assert!(error.contains(part), "{part} in {error}");
        }
        let error = search(Some(&missing), None, folders()).unwrap_err().to_string();
        assert!(error.contains("Builder::program: there is no file"), "{error}");
    }
}
