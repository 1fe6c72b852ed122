//! A node's home: its files, and who may read and write them.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tests::story::{Network, Trace, finish, node_program, pause_up_to, throughout, wallet_program};

use super::{GENESIS, NOBODY, Running, closed_pipe, folder, init, new_home, node};

#[test]
fn a_home_may_have_any_name_and_lie_on_a_fresh_volume() {
    let folder = folder();
    let odd = folder.path().join(OsString::from_vec(b"b\xff".to_vec())).join("home");
    let made = finish(init(&odd).arg("--json"));
    assert_eq!(made.code, Some(0), "{made:?}");
    let said: Value = serde_json::from_str(&made.stdout).unwrap();
    assert!(said["home"].as_str().unwrap().ends_with("b\u{fffd}/home"), "{said}");
    assert_eq!(finish(&mut node("db verify", &odd)).code, Some(0));

    let volume = folder.path().join("volume");
    fs::create_dir_all(volume.join("lost+found")).unwrap();
    let made = finish(&mut init(&volume));
    assert_eq!(made.code, Some(0), "{made:?}");
    assert!(volume.join("lost+found").is_dir());
}

#[test]
fn a_killed_init_leaves_nothing_that_hinders_the_next() {
    let folder = folder();
    let mut home = folder.path().join("home");
    let mut killed = 0;
    // The first kill comes at once. Later kills may come later, and some too late.
    for round in 0..60 {
        let mut running = Running::spawn(init(&home).stdout(Stdio::null()).stderr(Stdio::null()));
        pause_up_to(Duration::from_millis(round));
        running.signal(Signal::KILL);
        let is_made = running.wait().success() || home.join("genesis.json").exists();
        if is_made {
            // The next round begins without a home.
            home = folder.path().join(format!("home{round}"));
            continue;
        }
        killed += 1;
        let opened = finish(&mut node("config show", &home));
        assert_eq!(opened.code, Some(1), "an unfinished home is no home: {opened:?}");
    }
    assert!(killed > 0);
    if !home.join("genesis.json").exists() {
        let made = finish(&mut init(&home));
        assert_eq!(made.code, Some(0), "{made:?}");
    }
    assert_eq!(finish(&mut node("db verify", &home)).code, Some(0));
    let mut names: Vec<_> =
        fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["LOCK", "config.toml", "consensus.log", "db", "genesis.json", "node_key"]);
}

#[test]
fn whoever_waits_for_a_pipe_keeps_nobody_out() {
    let folder = folder();
    let (home, pipe) = (new_home(&folder), folder.path().join("pipe"));
    assert_eq!(finish(Command::new("mkfifo").arg(&pipe)).code, Some(0));
    let mut import = node("db import", &home);
    import
        .arg("--from")
        .arg(&pipe)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut waiting = Running::spawn(&mut import);
    throughout(Duration::from_secs(1), || {
        let done = finish(&mut node("db verify", &home));
        assert_eq!(done.code, Some(0), "{done:?}");
        assert_eq!(waiting.0.try_wait().unwrap(), None);
    });
    // The pipe gets a writer, which closes it without writing. So the import ends with an error.
    drop(File::options().write(true).open(&pipe).unwrap());
    assert_eq!(waiting.wait().code(), Some(1));
}

#[test]
fn a_chain_moves_through_stdout_and_stdin() {
    let mut network = Network::start(1);
    let height = network.node(1).await_height(3).height;
    network.node(1).stop();
    let home = network.node(1).home.clone();
    let export = |stdout: Stdio| {
        let mut command = node("db export --to -", &home);
        let done = command
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stderr).unwrap()
    };
    let archive = network.path("archive");
    assert!(export(File::create(&archive).unwrap().into()).contains("bytes"));
    assert!(!export(closed_pipe()).contains("error"));

    let copy = network.path("copy");
    let made = finish(node("init", &copy).arg("--genesis").arg(network.genesis()));
    assert_eq!(made.code, Some(0), "{made:?}");
    let mut import = node("db import --from - --json", &copy);
    let done = import.stdin(File::open(&archive).unwrap()).output().unwrap();
    let said: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
    let reached = said["height"].as_str().and_then(|height| height.parse::<u64>().ok());
    assert!(reached.is_some_and(|reached| reached >= height), "{done:?}");
}

#[test]
fn init_says_who_can_reach_the_node() {
    let folder = folder();
    let made = finish(&mut init(&folder.path().join("loopback")));
    assert!(made.stderr.contains("--p2p-listen 0.0.0.0:7700"), "{made:?}");
    let home = folder.path().join("open");
    let made = finish(init(&home).args([
        "--p2p-listen",
        "0.0.0.0:7800",
        "--rpc-listen",
        "127.0.0.1:7801",
    ]));
    assert!(made.code == Some(0) && !made.stderr.contains("--p2p-listen"), "{made:?}");
    let shown = finish(&mut node("config show --json", &home));
    let shown: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(shown["p2p"]["listen"], "/ip4/0.0.0.0/tcp/7800");
    assert_eq!(shown["rpc"]["listen"], "127.0.0.1:7801");
}

#[test]
fn init_with_a_key_that_may_have_signed_says_what_follows() {
    let folder = folder();
    let key = folder.path().join("key");
    assert_eq!(finish(node_program().args(["genesis", "keygen"]).arg(&key)).code, Some(0));
    let made = finish(init(&folder.path().join("home")).arg("--validator-key").arg(&key));
    assert!(made.code == Some(0) && made.stderr.contains("may have signed before"), "{made:?}");
    assert!(made.stderr.contains("--sign-without-log"), "{made:?}");
    let made = finish(init(&folder.path().join("new")).arg("--validator"));
    assert!(made.code == Some(0) && !made.stderr.contains("may have signed"), "{made:?}");
}

/// A copy of a program that every user may run, and the user that it runs as. Permissions do not
/// bind root, so a test that runs as root runs the program as `nobody`.
struct Bound {
    program: PathBuf,
    user: Option<u32>,
}

impl Bound {
    /// Copies the program. If the test runs as root, the home is given to `nobody` too.
    fn new(program: &Command, folder: &TempDir, home: &Path) -> Self {
        let copy = folder.path().join("program");
        fs::copy(program.get_program(), &copy).unwrap();
        permit(&copy, 0o755);
        permit(folder.path(), 0o755);
        let user = rustix::process::geteuid().is_root().then_some(NOBODY);
        if let Some(user) = user {
            let done =
                finish(Command::new("chown").arg("-R").arg(format!("{user}:{user}")).arg(home));
            assert_eq!(done.code, Some(0), "{done:?}");
        }
        Self { program: copy, user }
    }

    /// Runs a command that must fail, and returns its stderr.
    fn fail(&self, words: &str, home: &Path) -> String {
        let mut command = Command::new(&self.program);
        command.args(words.split_whitespace()).arg("--home").arg(home);
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        let done = finish(&mut command);
        assert!(done.code.is_some_and(|code| code != 0), "{words}: {done:?}");
        done.stderr
    }
}

pub(super) fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_may_not_be_read_or_written_is_named_and_not_called_missing() {
    const RUN: &str = "run --p2p-listen 127.0.0.1:0 --rpc-listen 127.0.0.1:0";
    let folder = folder();
    let home = new_home(&folder);
    let bound = Bound::new(&node_program(), &folder, &home);
    // The closed path, its usual mode, the command, and the path that the error names.
    for (closed, usual, words, named) in [
        ("", 0o700, "config show", "genesis.json"),
        ("", 0o700, RUN, "genesis.json"),
        ("", 0o700, "db verify", "genesis.json"),
        ("genesis.json", 0o644, "db verify", "genesis.json"),
        ("config.toml", 0o644, "config show", "config.toml"),
        ("node_key", 0o600, RUN, "node_key"),
        ("LOCK", 0o644, RUN, "LOCK"),
    ] {
        permit(&home.join(closed), 0);
        let said = bound.fail(words, &home);
        permit(&home.join(closed), usual);
        let named = home.join(named);
        let is_named = said.contains(named.to_str().unwrap()) && said.contains("Permission denied");
        assert!(is_named && !said.contains("init"), "{closed:?}, {words}: {said}");
    }
    // A home cannot be made in a folder that may not be written to, and the error names the folder.
    let closed = folder.path().join("closed");
    fs::create_dir(&closed).unwrap();
    permit(&closed, 0o555);
    let said = bound.fail(&format!("init --genesis {GENESIS}"), &closed.join("home"));
    assert!(
        said.contains("Permission denied") && said.contains(closed.to_str().unwrap()),
        "{said}"
    );
}

/// After a power cut the new name of a file may be gone unless its folder was synced. A wallet that
/// has lost its genesis would believe the next node that it asks.
#[test]
fn after_a_file_is_renamed_its_folder_is_synced() {
    let folder = folder();
    let root = folder.path().canonicalize().unwrap();
    let (password, wallet) = (root.join("password"), root.join("wallet"));
    fs::write(&password, "a password of eight words that nobody will guess").unwrap();
    let mut new = wallet_program();
    new.args(["new", "alice", "--genesis", GENESIS, "--password-file"])
        .arg(&password)
        .arg("--home")
        .arg(&wallet);
    for (program, home, names) in [
        (init(&root.join("home")), "home", ["node_key", "config.toml", "genesis.json"].as_slice()),
        (new, "wallet", &["keystore.json", "genesis.json"]),
    ] {
        let path = root.join("trace");
        let Some(mut strace) = Trace::command(&path) else {
            println!("skipped: there is no strace here that may trace");
            return;
        };
        let done = finish(strace.arg(program.get_program()).args(program.get_args()));
        assert_eq!(done.code, Some(0), "{done:?}");
        let renamed = Trace::read(&path).renamed();
        for name in names {
            let path = root.join(home).join(name);
            assert!(
                renamed.contains(&(path.clone(), true)),
                "{} among {renamed:?}",
                path.display()
            );
        }
    }
}
