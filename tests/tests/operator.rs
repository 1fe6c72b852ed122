//! What an operator meets: signals, output that nobody reads, odd files, variables and folders.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tests::story::{
    Folder, Network, Testnet, Trace, finish, has_ended, node_program, pause_up_to, throughout,
    until, wallet_program, with_default_signals,
};

/// The template of local networks.
const GENESIS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../genesis.json");

fn folder() -> TempDir {
    tempfile::Builder::new().prefix("cairn-operator-").tempdir().unwrap()
}

/// A command of `cairn-node`, words divided by spaces, and a home.
fn node(words: &str, home: &Path) -> Command {
    let mut command = node_program();
    command.args(words.split_whitespace()).arg("--home").arg(home);
    command
}

fn init(home: &Path) -> Command {
    let mut command = node("init", home);
    command.args(["--genesis", GENESIS]);
    command
}

/// A new home in a folder.
fn new_home(folder: &TempDir) -> PathBuf {
    let home = folder.path().join("home");
    let made = finish(&mut init(&home));
    assert_eq!(made.code, Some(0), "{made:?}");
    home
}

/// `run`, at ports that the system chooses.
fn run(home: &Path) -> Command {
    let mut command = node("run --p2p-listen 127.0.0.1:0 --rpc-listen 127.0.0.1:0", home);
    command.stdin(Stdio::null());
    command
}

/// A child that is killed at the end of a test.
struct Running(Child);

impl Running {
    fn spawn(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    /// Starts a node that writes to a log, and waits until it is up.
    fn node(command: &mut Command, log: &Path) -> Self {
        let file = File::create(log).unwrap();
        let running = Self::spawn(command.stdout(Stdio::null()).stderr(file));
        until("the node is up", || {
            fs::read_to_string(log).unwrap().contains("node of chain").then_some(())
        });
        running
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        until("a process ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The end of a pipe that nobody reads any more.
fn closed_pipe() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    writer.into()
}

#[test]
fn losing_its_log_never_ends_a_node() {
    let folder = folder();
    let home = new_home(&folder);
    for stderr in [File::create("/dev/full").unwrap().into(), closed_pipe()] {
        let mut running = Running::spawn(
            run(&home).args(["--log", "trace"]).stderr(stderr).stdout(Stdio::null()),
        );
        // It holds the home's lock when it is up, and has written many lines when its store is
        // open.
        until("the node has written to its home", || {
            assert_eq!(running.0.try_wait().unwrap(), None, "the node has ended");
            (fs::read_to_string(home.join("LOCK")).unwrap_or_default().trim()
                == running.0.id().to_string())
            .then_some(())
        });
        until("the node listens", || {
            assert_eq!(running.0.try_wait().unwrap(), None, "the node has ended");
            listens(running.0.id()).then_some(())
        });
        running.signal(Signal::TERM);
        assert!(running.wait().success());
    }
}

/// Whether a process has two listening sockets: for peers and for RPC.
fn listens(pid: u32) -> bool {
    let sockets = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let own: Vec<String> = sockets
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let listening = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(3) == Some(&"0A"))
            .then(|| fields.get(9).copied().unwrap_or_default().to_owned())
    });
    listening.filter(|inode| own.contains(inode)).count() >= 2
}

#[test]
fn signals_stop_a_node_in_order_or_not_at_all() {
    let folder = folder();
    let (home, log) = (new_home(&folder), folder.path().join("log"));
    for stop in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let mut running =
            Running::node(with_default_signals(&run(&home)).stdin(Stdio::null()), &log);
        for borne in [Signal::HUP, Signal::USR1, Signal::USR2] {
            running.signal(borne);
        }
        running.signal(stop);
        let status = running.wait();
        let text = fs::read_to_string(&log).unwrap();
        assert!(status.success() && text.contains("stopped"), "{stop:?}: {status}: {text}");
    }
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let folder = folder();
    let (home, log) = (new_home(&folder), folder.path().join("log"));
    let node = run(&home);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "trap '' HUP INT QUIT; exec \"$0\" \"$@\""])
        .arg(node.get_program())
        .args(node.get_args());
    let mut running = Running::node(shell.stdin(Stdio::null()), &log);
    let status = fs::read_to_string(format!("/proc/{}/status", running.0.id())).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    // Bits of HUP, INT and QUIT.
    assert_eq!(u64::from_str_radix(ignored.trim(), 16).unwrap() & 0b111, 0b111, "{status}");
    [Signal::HUP, Signal::INT, Signal::QUIT].into_iter().for_each(|signal| running.signal(signal));
    running.signal(Signal::TERM);
    assert!(running.wait().success());
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("SIGTERM"), "the first signal that counts: {text}");
}

#[test]
fn a_test_network_goes_on_when_its_terminal_goes_and_stops_in_order() {
    let folder = Folder::new();
    let testnet = Testnet::start_quick(&folder, 1, 0);
    let pid = testnet.description.nodes[0].pid;
    for signal in [Signal::HUP, Signal::USR1, Signal::QUIT] {
        assert!(!has_ended(pid));
        testnet.signal(signal);
    }
    assert_eq!(testnet.wait(), Some(0));
    until("its node ends", || has_ended(pid).then_some(()));
}

#[test]
fn with_few_files_strangers_leave_enough_for_the_store_peers_and_rpc() {
    const LIMIT: usize = 256;
    /// What the node keeps for itself.
    const KEPT: usize = 50;
    // Blocks need both of them.
    let mut network = Network::make(2);
    network.node(1).start_under(
        Command::new("sh").args(["-c", &format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"")]),
    );
    network.node(2).start();
    network.await_height(1);
    let node = network.node(1);
    let address: SocketAddr = node.rpc.url().trim_start_matches("http://").parse().unwrap();
    // More than it may have. Those that it does not accept wait in the system's queue, until that
    // is full as well.
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let idle: Vec<_> = (0..600).map_while(|_| connect()).collect();
    assert!(idle.len() > 100, "{} connections", idle.len());
    let pid = node.process().id();
    throughout(Duration::from_secs(2), || {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert!(open + KEPT <= LIMIT, "{open} files are open");
        assert_eq!(node.process().ended(), None);
    });
    // Beside them a peer comes back, and blocks go on.
    network.crash(2).restart(2);
    let height = network.node(2).status().height;
    network.node(2).await_height(height + 3);
    drop(idle);
    network.await_blocks(3);
    let log = network.node(1).log_text();
    assert!(log.contains("this process may open 256 files"), "{log}");
}

#[test]
fn output_that_nobody_reads_is_no_error() {
    let folder = folder();
    let home = new_home(&folder);
    let genesis = |words: &str| {
        let mut command = node_program();
        command.args(words.split_whitespace()).arg(GENESIS);
        command
    };
    let plain = |words: &str| {
        let mut command = node_program();
        command.args(words.split_whitespace());
        command
    };
    for mut command in [
        plain("--help"),
        plain("--version"),
        plain("completions bash"),
        init(&folder.path().join("another")),
        node("config show", &home),
        node("config show --json", &home),
        node("db verify", &home),
        genesis("genesis show"),
        genesis("genesis id"),
        genesis("genesis check"),
        genesis("genesis check --json"),
    ] {
        let errors = folder.path().join("errors");
        let status =
            Running::spawn(command.stdout(closed_pipe()).stderr(File::create(&errors).unwrap()))
                .wait();
        let errors = fs::read_to_string(&errors).unwrap();
        assert!(
            status.success() && !errors.contains("error") && !errors.contains("panic"),
            "{command:?}: {errors}"
        );
    }
    // A device that is full is an error, and what was done before is said.
    let home = folder.path().join("full");
    let mut command = init(&home);
    let errors = folder.path().join("errors");
    let full = File::create("/dev/full").unwrap();
    let status = Running::spawn(command.stdout(full).stderr(File::create(&errors).unwrap())).wait();
    let errors = fs::read_to_string(&errors).unwrap();
    assert!(
        status.code() == Some(1) && errors.contains("is done, but the result cannot be written"),
        "{errors}"
    );
    assert!(home.join("genesis.json").exists());
}

#[test]
fn variables_are_read_as_people_write_them() {
    let folder = folder();
    let home = new_home(&folder);
    // An error of the home, not of usage.
    let none = folder.path().join("none");
    for (value, code) in [
        ("1", 1),
        ("0", 1),
        ("yes", 1),
        ("no", 1),
        ("TRUE", 1),
        ("false", 1),
        ("on", 1),
        ("", 1),
        ("maybe", 2),
    ] {
        for name in ["CAIRN_NODE_EXIT_WITH_PARENT", "CAIRN_NODE_SIGN_WITHOUT_LOG"] {
            let done = finish(node("run", &none).env(name, value));
            assert_eq!(done.code, Some(code), "{name}={value}: {done:?}");
        }
    }
    // An empty variable is an unset one.
    let expected = finish(&mut node("config show", &home));
    let mut command = node("config show", &home);
    for name in
        ["LOG", "P2P_LISTEN", "RPC_LISTEN", "PEERS", "SYNC_UPLOAD_RATE", "SYNC_DOWNLOAD_RATE"]
    {
        command.env(format!("CAIRN_NODE_{name}"), "");
    }
    let done = finish(&mut command);
    assert_eq!((done.code, &done.stdout), (Some(0), &expected.stdout), "{done:?}");
}

#[test]
fn colours_come_only_when_they_are_wanted() {
    let folder = folder();
    let home = new_home(&folder);
    let coloured = |name: &str, value: &str| {
        let log = folder.path().join("log");
        let mut running = Running::node(run(&home).env(name, value), &log);
        running.signal(Signal::TERM);
        running.wait();
        fs::read_to_string(&log).unwrap().contains('\u{1b}')
    };
    // A file is no terminal.
    assert!(!coloured("TERM", "xterm"));
    assert!(coloured("CLICOLOR_FORCE", "1"));
    let mut command = run(&home);
    command.env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1");
    let log = folder.path().join("log");
    let mut running = Running::node(&mut command, &log);
    running.signal(Signal::TERM);
    running.wait();
    assert!(!fs::read_to_string(&log).unwrap().contains('\u{1b}'));
}

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
    // From a kill at once to one that comes too late, on any machine.
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
    // A writer that says nothing.
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

/// A copy of a program that every user may run, and the user to run it as. Permissions do not bind
/// root, so a test that runs as root runs the program as `nobody`.
struct Bound {
    program: PathBuf,
    user: Option<u32>,
}

impl Bound {
    /// Hands the home to that user, too.
    fn new(program: &Command, folder: &TempDir, home: &Path) -> Self {
        const NOBODY: u32 = 65_534;
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

    /// Runs a command that must fail, and returns what it says.
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

fn permit(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_may_not_be_read_or_written_is_named_and_not_called_missing() {
    const RUN: &str = "run --p2p-listen 127.0.0.1:0 --rpc-listen 127.0.0.1:0";
    let folder = folder();
    let home = new_home(&folder);
    let bound = Bound::new(&node_program(), &folder, &home);
    // The closed path and its usual mode, the command, the path that the error names.
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
    // Nor can a home be made where nothing may be written.
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
