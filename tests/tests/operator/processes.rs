//! A running node: its log, signals, files and output.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tests::story::{
    Folder, Network, Testnet, finish, has_ended, node_program, throughout, until,
    with_default_signals,
};

use super::{GENESIS, Running, closed_pipe, folder, init, new_home, node, run};

#[test]
fn losing_its_log_never_ends_a_node() {
    let folder = folder();
    let home = new_home(&folder);
    for stderr in [File::create("/dev/full").unwrap().into(), closed_pipe()] {
        let mut running = Running::spawn(
            run(&home).args(["--log", "trace"]).stderr(stderr).stdout(Stdio::null()),
        );
        // When the lock of the home has its process id, the node is running. Until it listens, it
        // writes many lines to its log.
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
    // The bits of HUP, INT and QUIT.
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
    /// Number of files that the node keeps for itself.
    const KEPT: usize = 50;
    // Blocks need both validators.
    let mut network = Network::make(2);
    network.node(1).start_under(
        Command::new("sh").args(["-c", &format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\"")]),
    );
    network.node(2).start();
    network.await_height(1);
    let node = network.node(1);
    let address: SocketAddr = node.rpc.url().trim_start_matches("http://").parse().unwrap();
    // More connections than the node may have. Those that it does not accept wait in the system's
    // queue, until the queue is full as well.
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
    let idle: Vec<_> = (0..600).map_while(|_| connect()).collect();
    assert!(idle.len() > 100, "{} connections", idle.len());
    let pid = node.process().id();
    throughout(Duration::from_secs(2), || {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
        assert!(open + KEPT <= LIMIT, "{open} files are open");
        assert_eq!(node.process().ended(), None);
    });
    // Despite these connections a peer comes back, and blocks go on.
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
    // If the device is full, that is an error, and the message tells what was done before.
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
    // There is no home, so a good value leads to code 1. A bad value is wrong usage: code 2.
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
    // An empty variable counts as unset.
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
fn gone_peers_count_for_another_time_only_on_a_private_network() {
    let folder = folder();
    let home = new_home(&folder);
    let config = home.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    assert_eq!(text.matches("private = false").count(), 1, "{text}");
    let refused = finish(run(&home).args(["--gone-counts", "10"]));
    assert!(
        refused.code == Some(1) && refused.stderr.contains("private networks only"),
        "{refused:?}"
    );
    fs::write(&config, text.replace("private = false", "private = true")).unwrap();
    let log = folder.path().join("log");
    let mut running = Running::node(run(&home).args(["--gone-counts", "10"]), &log);
    running.signal(Signal::TERM);
    assert_eq!(running.wait().code(), Some(0));
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
    // The log is a file, not a terminal.
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
