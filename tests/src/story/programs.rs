//! The programs under test, built before the first story runs one: no stale program is ever tested.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use testkit::program::{command, without_variables};

struct Programs {
    node: PathBuf,
    wallet: PathBuf,
}

static PROGRAMS: OnceLock<Programs> = OnceLock::new();

/// A command that runs `cairn-node`.
#[must_use]
pub fn node_program() -> Command {
    command(&PROGRAMS.get_or_init(build).node)
}

/// A command that runs `cairn-wallet`.
#[must_use]
pub fn wallet_program() -> Command {
    command(&PROGRAMS.get_or_init(build).wallet)
}

/// Builds both programs with the cargo that built this test, in this test's profile and target
/// directory.
///
/// The workspace and its examples are built whole, so that cargo resolves the features of the tests
/// and compiles no crate twice. One effect is that the programs are built with tokio's feature
/// `test-util`, by which tests stop the clock. The programs do not use it.
fn build() -> Programs {
    let test = env::current_exe().expect("a test has a path");
    // TARGET/PROFILE/deps/TEST
    let folder = test.ancestors().nth(2).expect("cargo puts tests three levels deep");
    let target = folder.parent().expect("cargo puts tests three levels deep");
    let profile =
        folder.file_name().and_then(|name| name.to_str()).expect("profiles have plain names");
    // The variables that cargo sets for this test's package would make build scripts run again.
    let mut cargo = Command::new(env!("CARGO"));
    without_variables(&mut cargo, &["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"]);
    let output = cargo
        .args(["build", "--workspace", "--bins", "--examples"])
        .args(["--message-format", "json-render-diagnostics", "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml"))
        .args(["--profile", if profile == "debug" { "dev" } else { profile }, "--target-dir"])
        .arg(target)
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "the programs under test do not build, see above");
    let messages = String::from_utf8_lossy(&output.stdout);
    let messages: Vec<Value> =
        messages.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let program = |name: &str| {
        let built = messages.iter().filter(|message| message["target"]["name"] == name);
        let path = built.filter_map(|message| message["executable"].as_str()).next_back();
        PathBuf::from(path.unwrap_or_else(|| panic!("cargo has built no {name}")))
    };
    Programs { node: program("cairn-node"), wallet: program("cairn-wallet") }
}
