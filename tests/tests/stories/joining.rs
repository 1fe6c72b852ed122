//! Nodes that join a network, and nodes that are refused.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use ledger::api::Status;
use ledger::genesis::Genesis;
use ledger::units::Timestamp;
use serde_json::json;
use tests::story::{
    Finished, Network, Payer, Process, Rpc, finish, free_ports, node_program, throughout, until,
};

use super::{A_WHILE, json_of, pay};

#[test]
fn a_full_node_joins_late_and_serves_others() {
    let mut network = Network::start(4);
    network.await_blocks(10);
    let (genesis, peers) = (network.genesis().clone(), vec![network.node(1).p2p.clone()]);
    network.add(&genesis, &peers).start();
    let status = network.await_blocks(2).node(5).status();
    assert!(status.validator.is_none() && status.peers > 0 && !status.syncing, "{status:?}");
    network.assert_one_history();
    let mut payer = Payer::new("alice", "bob", network.chain());
    pay(&mut network, &mut payer, 5);

    // Node 6 can fetch from node 5 only.
    let height = network.node(5).status().height;
    for number in 1..=4 {
        network.crash(number);
    }
    let peers = vec![network.node(5).p2p.clone()];
    network.add(&genesis, &peers).start();
    network.node(6).await_height(height);
    network.assert_one_history();
}

#[test]
fn a_wrong_genesis_is_refused() {
    let mut network = Network::start(1);
    let right = network.genesis().clone();
    let broken = network.path("broken.json");
    let home = network.path("none");
    // Mistakes that make a genesis unreadable, and mistakes that break a rule. All mistakes of a
    // kind are named at once.
    let unreadable = [
        ("/accounts/1/balance", json!("a lot"), "accounts[1].balance"),
        ("/validators/0/key", json!("abc"), "validators[0].key"),
        ("/start_time", json!(7), "start_time"),
        ("/limits", json!({}), "limits.block_bytes_max"),
    ];
    let forbidden = [
        ("/limits/block_bytes_max", json!("1"), "limits.block_bytes_max"),
        ("/accounts/1/name", json!("alice"), "accounts[1].name"),
        ("/validators/0/power", json!("0"), "validators[0].power"),
        ("/network", json!("Örtlich"), "network"),
    ];
    for mistakes in [unreadable, forbidden] {
        let mut genesis = json_of(&fs::read_to_string(&right).unwrap());
        for (at, value, _) in &mistakes {
            *genesis.pointer_mut(at).unwrap() = value.clone();
        }
        fs::write(&broken, genesis.to_string()).unwrap();
        let (mut check, mut init) = (node_program(), node_program());
        check.args(["genesis", "check"]).arg(&broken);
        init.args(["init", "--home"]).arg(&home).arg("--genesis").arg(&broken);
        for command in [&mut check, &mut init] {
            let done = finish(command);
            assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
            let named = |path: &str| {
                done.stderr.lines().any(|line| line.trim().starts_with(&format!("{path}: ")))
            };
            let missing: Vec<_> = mistakes.iter().filter(|(.., path)| !named(path)).collect();
            assert!(missing.is_empty(), "{missing:?} not named in:\n{}", done.stderr);
        }
        assert!(!home.exists(), "nothing is left of a refused home");
        let done = finish(node_program().args(["genesis", "check", "--json"]).arg(&broken));
        let answer = json_of(&done.stdout);
        assert_eq!((done.code, answer["valid"].as_bool()), (Some(1), Some(false)), "{done:?}");
        assert!(answer["problems"].as_array().unwrap().len() >= mistakes.len());
    }

    // A valid genesis of another chain. Its node finds nobody to talk to, while a node of this
    // chain finds a peer at once.
    let mut other = Genesis::from_json(&fs::read(&right).unwrap()).unwrap();
    other.start_time = Timestamp(other.start_time.0 + 1);
    let wrong = network.path("other.json");
    fs::write(&wrong, other.to_json()).unwrap();
    let peers = vec![network.node(1).p2p.clone()];
    network.add(&wrong, &peers).start();
    network.add(&right, &peers).start();
    network.node(2).status();
    until("a node of the same chain has a peer", || {
        Some(network.node(3).status().peers).filter(|peers| *peers > 0)
    });
    throughout(A_WHILE, || {
        let stranger = network.node(2).status();
        assert_eq!((stranger.peers, stranger.height), (0, 0), "{stranger:?}");
        assert_eq!(network.node(1).status().peers, 1);
    });
    network.node(2).stop();
    network.await_blocks(2);
}

#[test]
fn two_nodes_on_one_home_are_refused() {
    let mut network = Network::start(1);
    let home = network.node(1).home.clone();
    let pid = network.node(1).process().id();
    for words in [&["run"][..], &["db", "verify"], &["db", "export", "--to", "nowhere"]] {
        let done = finish(node_program().args(words).arg("--home").arg(&home));
        let expected = format!("{} is in use by process {pid}", home.display());
        assert_eq!(done.code, Some(1), "{done:?}");
        assert!(done.stderr.contains(&expected) && done.stderr.lines().count() == 1, "{done:?}");
    }
    network.await_blocks(2);
}

/// A node that joined by a link.
struct Joined {
    home: PathBuf,
    rpc: Rpc,
    process: Process,
}

impl Joined {
    /// Joins from an empty folder, with one command.
    fn start(network: &Network, link: &str, name: &str) -> Self {
        let (home, port) = (network.path(name), free_ports());
        let mut command = join_command(link, &home);
        let (p2p, rpc) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{}", port + 1));
        command.args(["--exit-with-parent", "--p2p-listen", &p2p, "--rpc-listen", &rpc]);
        let process = Process::spawn(&mut command, &network.path(&format!("{name}.log")));
        Self { home, rpc: Rpc::new(&format!("http://{rpc}")), process }
    }

    fn await_height(&mut self, height: u64) -> Status {
        until(&format!("a node that joined reaches height {height}"), || {
            let ended = self.process.ended();
            assert!(ended.is_none(), "it has ended: {ended:?}");
            self.rpc.status().ok().filter(|status| status.height >= height)
        })
    }

    fn stop(mut self) {
        self.process.end_stdin();
        assert!(self.process.wait().success());
    }
}

fn join_command(link: &str, home: &Path) -> Command {
    let mut command = node_program();
    command.args(["join", link, "--home"]).arg(home);
    command
}

/// A command about a home, without further arguments.
fn about(command: &str, home: &Path) -> Finished {
    let done = finish(node_program().args([command, "--home"]).arg(home));
    assert_eq!(done.code, Some(0), "{done:?}");
    done
}

#[test]
fn a_link_is_all_that_a_node_needs_to_join() {
    let mut network = Network::start(1);
    let (chain, home) = (network.chain(), network.node(1).home.clone());
    let p2p = network.node(1).p2p.clone();
    let invited = about("invite", &home);
    let (place, _) = p2p.split_once("/p2p/").unwrap();
    assert_eq!(invited.stdout, format!("cairn-net:{chain}@{place}\n"));
    assert!(invited.stderr.contains("only this machine can use this link"), "{invited:?}");
    assert_eq!(about("address", &home).stdout, format!("{p2p}\n"));

    let height = network.await_blocks(3).height();
    // Spaces around the link do no harm.
    let mut second = Joined::start(&network, &format!(" {}", invited.stdout), "second");
    let status = second.await_height(height);
    assert_eq!((status.chain_id, status.validator), (chain.to_string(), None));
    assert!(status.disk_bytes > 0 && status.disk_free_bytes.is_some() && status.uptime_ms > 0);
    let config = fs::read_to_string(second.home.join("config.toml")).unwrap();
    assert!(config.contains("\nprivate = true\n") && config.contains(place), "{config}");
    let served = network.node(1).status();
    assert!(served.served_bytes > 0 && served.served_peers == 1, "{served:?}");

    // The third node asks the second one. The second one answers alone, since the first one is
    // killed.
    let invited = about("invite", &second.home);
    let height = second.rpc.status().unwrap().height;
    network.crash(1);
    let mut third = Joined::start(&network, &invited.stdout, "third");
    third.await_height(height);

    // The same link with the home that it made: the node runs again.
    let home = third.home.clone();
    third.stop();
    let mut again = join_command(&invited.stdout, &home);
    let port = free_ports();
    let rpc = format!("127.0.0.1:{}", port + 1);
    again.args(["--exit-with-parent", "--p2p-listen", &format!("127.0.0.1:{port}")]);
    again.args(["--rpc-listen", &rpc]);
    let process = Process::spawn(&mut again, &network.path("again.log"));
    let mut again = Joined { home, rpc: Rpc::new(&format!("http://{rpc}")), process };
    again.await_height(height);
    let other = invited.stdout.replace(&chain.to_string(), &"7".repeat(64));
    let done = finish(&mut join_command(&other, &again.home));
    assert!(done.stderr.contains("give another --home"), "{done:?}");
    assert_eq!(done.code, Some(1), "{done:?}");
    again.stop();
}

#[test]
fn a_wrong_link_is_refused_and_leaves_no_home() {
    let mut network = Network::start(1);
    let good = about("invite", &network.node(1).home).stdout.trim().to_owned();
    let chain = network.chain().to_string();
    let last = chain.chars().last().unwrap();
    let digit = if last == '0' { '1' } else { '0' };
    let wrong = good.replace(&chain, &format!("{}{digit}", &chain[..63]));
    // Nobody listens on this port once the listener is dropped.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let dead = format!("cairn-net:{chain}@/ip4/127.0.0.1/tcp/{port}");
    for (link, code, part) in [
        (wrong.as_str(), 1, "nobody at /ip4/127.0.0.1/tcp/"),
        (dead.as_str(), 3, "no node answers at /ip4/127.0.0.1/tcp/"),
        (&dead.replace("/ip4/127.0.0.1", "/ip4/0.0.0.0"), 1, "is no address that can be dialed"),
        (&chain, 2, "expected a link that `cairn-node invite` prints"),
        (&good.replace("cairn-net:", "cairn-net:0"), 2, "is not a chain id"),
    ] {
        let home = network.path("none");
        let done = finish(&mut join_command(link, &home));
        assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "{link}: {done:?}");
        assert!(done.stderr.contains(part), "{link}: {done:?}");
        assert!(!home.exists(), "nothing is left of a link that was refused");
    }
    network.await_blocks(2);
}
