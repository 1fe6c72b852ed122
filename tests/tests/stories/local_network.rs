//! A local network that is broken on purpose and commanded from another terminal.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tests::story::{
    Finished, Folder, Payer, Process, Rpc, Testnet, finish, free_ports, has_ended, node_program,
    pause_up_to, rounds, throughout, until, with_default_signals,
};

use super::{A_WHILE, SOON, json_of, was_killed};

/// Runs a command to the network of a directory.
fn command(dir: &Path, words: &[&str]) -> Finished {
    finish(node_program().args(["testnet", "--dir"]).arg(dir).args(words))
}

/// Runs a command that must succeed, and returns its JSON.
fn json(dir: &Path, words: &[&str]) -> Value {
    let done = command(dir, &[words, &["--json"]].concat());
    assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
    json_of(&done.stdout)
}

/// One node of `ls`.
fn listed(dir: &Path, name: &str) -> Value {
    let list = json(dir, &["ls"]);
    let nodes = list["nodes"].as_array().unwrap().clone();
    nodes.into_iter().find(|node| node["name"] == name).unwrap_or_else(|| panic!("{name}: {list}"))
}

fn height(rpc: &str) -> u64 {
    until("a node answers", || Rpc::new(rpc).status().ok()).height
}

fn await_height(rpc: &str, wanted: u64) {
    until("blocks become final", || (height(rpc) >= wanted).then_some(()));
}

/// Waits until a node has this many blocks more.
fn await_blocks(rpc: &str, count: u64) {
    await_height(rpc, height(rpc) + count);
}

#[test]
fn a_network_that_is_cut_in_half_stops_and_goes_on_once_it_is_healed() {
    let folder = Folder::new();
    let testnet = Testnet::start_quick(&folder, 4, 0);
    let dir = folder.join("network");
    let rpc: Vec<&str> = testnet.description.nodes.iter().map(|node| node.rpc.as_str()).collect();
    await_blocks(rpc[0], 2);
    let cut = json(&dir, &["partition", "node1,node2/node3,node4"]);
    let pairs: BTreeSet<String> =
        cut["cut"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(pairs.len(), 4, "{cut}");
    assert!(pairs.contains("[\"node1\",\"node3\"]"), "{cut}");
    assert_eq!(json(&dir, &["ls"])["cut"], cut["cut"]);

    // A block that was under way may still become final. It has none of these transfers.
    let chain = testnet.description.chain;
    let sent = [("alice", rpc[0]), ("carol", rpc[2])].map(|(from, rpc)| {
        let rpc = Rpc::new(rpc);
        let id = rpc.submit(&Payer::new(from, "bob", chain).transfer("")).unwrap();
        (rpc, id)
    });
    throughout(A_WHILE, || {
        for (rpc, id) in &sent {
            let is_final = rpc.is_final(id, Duration::ZERO);
            assert_eq!(is_final, Ok(false), "nothing becomes final without a quorum");
        }
    });
    let waited = command(&dir, &["wait", "--final", "--timeout", "1s"]);
    assert_eq!(waited.code, Some(5), "{waited:?}");
    assert!(waited.stderr.contains("node1"), "{waited:?}");

    assert_eq!(json(&dir, &["heal"])["cut"], Value::Array(Vec::new()));
    json(&dir, &["wait", "--final", "--timeout", "60s"]);
    for (rpc, id) in &sent {
        assert_eq!(rpc.is_final(id, SOON), Ok(true), "{id}");
    }
    assert_eq!(testnet.stop(), Some(0));
}

#[test]
fn an_isolated_node_stays_behind_also_over_a_restart_and_then_signs_again() {
    let folder = Folder::new();
    let testnet = Testnet::start_quick(&folder, 4, 0);
    let dir = folder.join("network");
    let nodes = &testnet.description.nodes;
    let (first, last) = (nodes[0].rpc.as_str(), nodes[3].rpc.as_str());
    await_blocks(first, 2);
    assert_eq!(json(&dir, &["isolate", "node4"])["cut"].as_array().unwrap().len(), 3);
    // The block that was under way may still reach the node, and no later one.
    let most = nodes.iter().map(|node| height(&node.rpc)).max().unwrap() + 1;
    let restarted = json(&dir, &["restart", "node4"]);
    assert_eq!(restarted["node"], "node4");
    assert!(has_ended(nodes[3].pid));
    await_height(first, most + 4);
    assert!(height(last) <= most, "{} after {most}", height(last));

    json(&dir, &["heal"]);
    let key = Rpc::new(last).status().unwrap().validator.unwrap();
    let from = height(first);
    until("its precommit is in a certificate", || {
        let rpc = Rpc::new(first);
        let signs = |height| rpc.block(height).is_ok_and(|block| block.signers.contains(&key));
        (from + 1..=height(first)).any(signs).then_some(())
    });

    json(&dir, &["latency", "node1-node2", "20ms"]);
    let list = json(&dir, &["latency", "all", "5ms"]);
    assert_eq!(list["latency_ms"].as_array().unwrap().len(), 6, "{list}");
    await_blocks(first, 2);
    assert_eq!(testnet.stop(), Some(0));
}

#[test]
fn nodes_are_killed_restarted_and_added() {
    let folder = Folder::new();
    let testnet = Testnet::start_quick(&folder, 4, 0);
    let dir = folder.join("network");
    let nodes = &testnet.description.nodes;
    let described = |number: usize| {
        let text = fs::read_to_string(dir.join("network.json")).unwrap();
        json_of(&text)["nodes"][number].clone()
    };
    json(&dir, &["kill", "node3"]);
    assert!(has_ended(nodes[2].pid));
    let killed = listed(&dir, "node3");
    assert_eq!((&killed["state"], &killed["pid"]), (&Value::from("killed"), &Value::Null));
    assert_eq!(described(2)["pid"], Value::Null);
    // The others go on.
    json(&dir, &["wait", "--final", "--timeout", "60s"]);
    json(&dir, &["restart", "node3"]);
    let running = listed(&dir, "node3");
    assert_eq!(running["state"], "running");
    assert_eq!(described(2)["pid"], running["pid"]);
    json(&dir, &["wait", "--final", "--timeout", "60s"]);

    assert_eq!(json(&dir, &["add"])["node"], "node5");
    let added = listed(&dir, "node5");
    assert_eq!(added["validator"], false);
    assert_eq!(described(4)["pid"], added["pid"]);
    let rpc = added["rpc"].as_str().unwrap().to_owned();
    let wanted = height(&nodes[0].rpc).to_string();
    json(&dir, &["wait", "--height", &wanted, "--timeout", "60s"]);
    assert!(height(&rpc) > 0);

    for (words, code, says) in [
        (&["kill", "node9"][..], 2, "node1, node2, node3, node4, node5"),
        (&["partition", "node1/node2,node1"], 2, "node1 is named twice"),
        (&["restart", "node1", "--binary", "/nowhere/cairn-node"], 2, "/nowhere/cairn-node"),
        (&["wait", "--height", "1000000", "--timeout", "200ms"], 5, "of 1000000"),
        (&["logs", "node9"], 2, "node1, node2"),
        (&["--nodes", "3", "ls"], 2, "--nodes"),
    ] {
        let done = command(&dir, words);
        assert_eq!(done.code, Some(code), "{words:?}: {done:?}");
        assert!(done.stderr.contains(says), "{words:?}: {done:?}");
    }
    let logs = command(&dir, &["logs", "node5"]);
    assert!(logs.code == Some(0) && logs.stdout.contains("INFO"), "{logs:?}");
    let follow = Process::spawn(
        node_program().args(["testnet", "logs", "-f", "--dir"]).arg(&dir),
        &folder.join("followed.log"),
    );

    let pids: Vec<u64> = json(&dir, &["ls"])["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["pid"].as_u64().unwrap())
        .collect();
    let stopped = command(&dir, &["stop"]);
    assert_eq!((stopped.code, stopped.stdout.as_str()), (Some(0), "stopped\n"), "{stopped:?}");
    assert!(pids.iter().all(|pid| has_ended(u32::try_from(*pid).unwrap())));
    assert_eq!(testnet.wait(), Some(0));
    let mut follow = follow;
    assert!(follow.wait().success(), "it ends with the network");
    let followed = fs::read_to_string(folder.join("followed.log")).unwrap();
    assert!(followed.lines().any(|line| line.starts_with("node5  ")), "{followed}");
    let absent = command(&dir, &["ls"]);
    assert_eq!(absent.code, Some(3), "{absent:?}");
    assert!(absent.stderr.contains("no network runs in"), "{absent:?}");

    let resumed = Testnet::resume(&folder);
    assert_eq!(resumed.description.nodes.len(), 5);
    assert_eq!(resumed.description.nodes[4].rpc, rpc);
}

#[test]
fn networks_in_the_background_have_ports_of_their_own_and_end_when_told() {
    let folder = Folder::new();
    let genesis = folder.join("absent.json");
    let dirs: Vec<PathBuf> = ["one", "two"].iter().map(|name| folder.join(name)).collect();
    let start = |dir: &PathBuf| {
        let words = ["--detach", "--json", "--nodes", "1", "--base-port", "auto"];
        command(dir, &words)
    };
    let done: Vec<Finished> = std::thread::scope(|scope| {
        let starts: Vec<_> = dirs.iter().map(|dir| scope.spawn(|| start(dir))).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    let rpc = |done: &Finished| {
        assert_eq!(done.code, Some(0), "{done:?}");
        json_of(&done.stdout)["nodes"][0]["rpc"].as_str().unwrap().to_owned()
    };
    let (one, two) = (rpc(&done[0]), rpc(&done[1]));
    assert_ne!(one, two);
    assert!(height(&one) > 0 && height(&two) > 0, "both are final");

    // A start that fails is reported by the process that a user sees.
    let again = start(&dirs[0]);
    assert_eq!(again.code, Some(1), "{again:?}");
    assert!(again.stderr.contains("is in use by process"), "{again:?}");
    let missing = finish(
        node_program()
            .args(["testnet", "--detach", "--dir"])
            .arg(folder.join("three"))
            .arg("--genesis")
            .arg(&genesis),
    );
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("absent.json"), "{missing:?}");

    for dir in &dirs {
        assert_eq!(command(dir, &["stop"]).code, Some(0));
        assert!(processes_of(dir).is_empty());
        assert!(!dir.join("run/control").exists());
    }
    let resumed = start(&dirs[0]);
    assert_eq!(rpc(&resumed), one, "ports stay");
    assert_eq!(command(&dirs[0], &["stop"]).code, Some(0));
}

#[test]
fn a_node_that_dies_ends_a_network_that_fails_fast() {
    let folder = Folder::new();
    let dir = folder.join("network");
    let log = folder.join("testnet.log");
    let start = |option| start_raw(&dir, &log, &["--base-port", "auto", option]);
    let mut network = start("--fail-fast");
    let pid = until("the network runs", || {
        let text = fs::read_to_string(dir.join("network.json")).ok()?;
        json_of(&text)["nodes"][1]["pid"].as_i64()
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(network.wait().code(), Some(1));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("error: node2 ended"), "{said}");
    assert!(processes_of(&dir).is_empty());

    // Without a parent it ends too, and in order.
    let mut network = start("--exit-with-parent");
    until("the network runs", || dir.join("network.json").exists().then_some(()));
    network.end_stdin();
    assert_eq!(network.wait().code(), Some(0));
    assert!(processes_of(&dir).is_empty());
}

#[test]
fn a_start_does_not_take_the_network_of_another_for_its_own() {
    let folder = Folder::new();
    let testnet = Testnet::start_quick(&folder, 1, 0);
    let (dir, log) = (folder.join("network"), folder.join("second.log"));
    // The second start waits for its genesis, and meanwhile the network has new final blocks.
    let genesis = folder.join("genesis.pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &genesis,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let mut second = node_program();
    second.args(["testnet", "--detach", "--dir"]).arg(&dir).arg("--genesis").arg(&genesis);
    let mut second = Process::spawn(&mut second, &log);
    let mut writer = until("the second start reads its genesis", || {
        let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::NONBLOCK;
        let opened = rustix::fs::open(&genesis, flags, rustix::fs::Mode::empty());
        opened.ok().map(fs::File::from)
    });
    await_blocks(&testnet.description.nodes[0].rpc, 2);
    throughout(Duration::from_secs(1), || assert_eq!(second.ended(), None));
    writer.write_all(&fs::read(dir.join("genesis.json")).unwrap()).unwrap();
    drop(writer);
    assert_eq!(second.wait().code(), Some(1));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("is in use by process"), "{said}");
    assert_eq!(testnet.stop(), Some(0));
}

#[test]
fn the_end_of_its_parent_ends_a_network_that_is_being_made() {
    let folder = Folder::new();
    let dir = folder.join("network");
    let options = ["--base-port", "auto", "--history", "1000000", "--exit-with-parent"];
    let mut network = start_raw(&dir, &folder.join("testnet.log"), &options);
    until("the network is being made", || dir.join("testnet.json").exists().then_some(()));
    network.end_stdin();
    assert_eq!(network.wait().code(), Some(0));
    let plan = json_of(&fs::read_to_string(dir.join("testnet.json")).unwrap());
    assert_eq!(plan["complete"], false, "it does not wait for the history");
}

#[test]
fn a_second_signal_kills_nodes_that_do_not_stop() {
    let folder = Folder::new();
    let (dir, log) = (folder.join("network"), folder.join("testnet.log"));
    let mut network = start_raw(&dir, &log, &["--base-port", "auto"]);
    let pid = until("the network runs", || {
        let text = fs::read_to_string(dir.join("network.json")).ok()?;
        json_of(&text)["nodes"][1]["pid"].as_i64()
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::STOP).unwrap();
    network.signal(Signal::INT);
    let said = || fs::read_to_string(&log).unwrap();
    until("it says that nodes still stop", || said().contains("another Ctrl-C").then_some(()));
    network.signal(Signal::INT);
    let asked = Instant::now();
    until("the network ends", || network.ended());
    // Without the second signal the node has 87 s more.
    assert!(asked.elapsed() < Duration::from_secs(60), "{:?}", asked.elapsed());
    assert!(said().contains("node2 did not stop in time and was killed"), "{}", said());
    assert!(processes_of(&dir).is_empty());
}

#[test]
fn whatever_ends_a_network_leaves_no_process_and_no_port() {
    let folder = Folder::new();
    let dir = folder.join("network");
    let log = folder.join("testnet.log");
    // Ports that no other network takes meanwhile.
    let base = free_ports();
    let ports = ["--base-port", &base.to_string()];
    for round in 0..2 * rounds(5) {
        let mut network = start_raw(&dir, &log, &ports);
        // In the first two rounds the signal comes right after the start.
        if round > 1 {
            pause_up_to(Duration::from_secs(3));
        }
        if round % 2 == 0 {
            network.kill();
            network.wait();
            until("all nodes end with their parent", || {
                processes_of(&dir).is_empty().then_some(())
            });
        } else {
            network.signal(Signal::INT);
            network.wait();
            assert_eq!(processes_of(&dir), Vec::<String>::new(), "its nodes end before it does");
            let said = fs::read_to_string(&log).unwrap();
            for home in ["", "node1", "node2"] {
                let socket = dir.join(home).join("run/control");
                let is_whole = !socket.exists() || !home.is_empty() && was_killed(&said, home);
                assert!(is_whole, "{} in round {round}", socket.display());
            }
        }
        for port in [base, base + 1, base + 10, base + 11] {
            // A program that looks for free ports may hold this one for a moment.
            until(&format!("port {port} is free"), || {
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
            });
        }
    }
    // The next start takes over, whatever was left.
    let mut network = start_raw(&dir, &log, &ports);
    until("the network runs", || {
        let ended = network.ended();
        assert!(ended.is_none(), "{ended:?}: {}", fs::read_to_string(&log).unwrap());
        dir.join("network.json").exists().then_some(())
    });
    json(&dir, &["wait", "--final", "--timeout", "60s"]);
    drop(network);
    until("all nodes end with their parent", || processes_of(&dir).is_empty().then_some(()));
}

/// A network of two validators.
fn start_raw(dir: &Path, log: &Path, options: &[&str]) -> Process {
    let mut command = node_program();
    command.args(["testnet", "--nodes", "2", "--plain", "--dir"]).arg(dir).args(options);
    let process = Process::spawn(&mut with_default_signals(&command), log);
    // Where `env` can reset the handling of signals, the process begins as `env`. Until it becomes
    // the program, it may ignore signals.
    until("the program itself runs", || {
        let name = fs::read_to_string(format!("/proc/{}/comm", process.id())).unwrap();
        (name.trim() == "cairn-node").then_some(())
    });
    process
}

/// The command lines of all processes that name this directory.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.display().to_string();
    let lines = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let entry = entry.ok()?;
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        (line.contains(&name) && !has_ended(pid)).then_some(line)
    });
    lines.collect()
}
