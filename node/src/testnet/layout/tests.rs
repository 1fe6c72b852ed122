#![allow(clippy::unwrap_used)]

use std::fs;
use std::net::TcpListener;

use super::*;
use crate::home::Home;

/// Ports are taken in blocks of a hundred, upwards from this one. They are below the ephemeral
/// range.
const FIRST_PORT: u16 = 20_000;
const BLOCKS: u16 = 120;

/// A hundred free ports. The last one is held, so that no other test takes the block.
struct Ports {
    base: u16,
    _held: TcpListener,
}

impl Ports {
    fn take() -> Self {
        // Test programs that run at the same time begin at different blocks.
        let start = u16::try_from(std::process::id() % 1_000).unwrap();
        let bases = (0..BLOCKS).map(|step| FIRST_PORT + 100 * ((start + step) % BLOCKS));
        let take = |base: u16| {
            let held = TcpListener::bind(loopback(base + 99)).ok()?;
            let is_free = (base..base + 99).all(|port| TcpListener::bind(loopback(port)).is_ok());
            is_free.then_some(Self { base, _held: held })
        };
        bases.into_iter().find_map(take).unwrap()
    }
}

const ANY: Wanted =
    Wanted { nodes: None, full_nodes: None, base_port: None, seed: None, history: None };

fn embedded() -> Genesis {
    Genesis::from_json(super::super::TEMPLATE.as_bytes()).unwrap()
}

fn prepare(dir: &Path, wanted: &Wanted, reset: bool) -> anyhow::Result<Layout> {
    refuse_foreign(dir)?;
    Layout::prepare(dir, wanted, None, &embedded(), reset)
}

fn wanted(nodes: u16, full_nodes: u16, ports: &Ports) -> Wanted {
    Wanted {
        nodes: Some(nodes),
        full_nodes: Some(full_nodes),
        base_port: Some(BasePort::Fixed(ports.base)),
        ..ANY
    }
}

#[test]
fn a_network_is_made_resumed_and_reset() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let ports = Ports::take();
    let made = prepare(dir, &wanted(2, 1, &ports), false).unwrap();
    assert_eq!(
        made.nodes.iter().map(|node| node.validator).collect::<Vec<_>>(),
        [true, true, false]
    );
    assert_eq!(made.genesis.accounts, embedded().accounts);
    assert_eq!(made.genesis.limits, embedded().limits);
    assert_eq!(made.genesis.validators.len(), 2);
    let config = Home::open(&made.nodes[1].home).unwrap().config().unwrap();
    assert_eq!(config.rpc.listen.port(), ports.base + 11);
    assert_eq!(config.p2p.peers, [made.nodes[0].p2p.clone(), made.nodes[2].p2p.clone()]);
    assert!(Home::open(&made.nodes[2].home).unwrap().validator_key().unwrap().is_none());
    let names = fs::read_to_string(dir.join("wallet/template-accounts.json")).unwrap();
    assert_eq!(names, "{\"accounts\":[\"alice\",\"bob\",\"carol\",\"dave\"]}\n");

    let resumed = prepare(dir, &ANY, false).unwrap();
    assert_eq!(resumed.genesis, made.genesis);
    assert_eq!(resumed.nodes.len(), 3);
    let error = prepare(dir, &wanted(4, 1, &ports), false).err().unwrap().to_string();
    assert!(
        error.contains("--nodes 2, but the command line asks for 4") && error.contains("--reset"),
        "{error}"
    );

    fs::write(dir.join("notes.txt"), "mine").unwrap();
    let anew = prepare(dir, &wanted(1, 0, &ports), true).unwrap();
    assert_ne!(anew.genesis.chain_id(), made.genesis.chain_id());
    assert!(!dir.join("node2").exists() && dir.join("notes.txt").exists());
}

#[test]
fn a_network_moves_to_other_ports_and_keeps_what_was_edited() {
    let folder = tempfile::tempdir().unwrap();
    let (before, after) = (Ports::take(), Ports::take());
    let made = prepare(folder.path(), &wanted(2, 0, &before), false).unwrap();
    // A user edited the configuration and moved it elsewhere.
    let path = Home::open(&made.nodes[0].home).unwrap().config_path();
    let elsewhere = folder.path().join("mine.toml");
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("level = \"info\"", "level = \"debug\" # louder");
    fs::write(&elsewhere, &text).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();

    let moved = prepare(
        folder.path(),
        &Wanted { base_port: Some(BasePort::Fixed(after.base)), ..ANY },
        false,
    )
    .unwrap();
    assert_eq!(moved.genesis, made.genesis);
    assert_eq!(moved.nodes[1].rpc.port(), after.base + 11);
    let config = Home::open(&moved.nodes[0].home).unwrap().config().unwrap();
    assert_eq!(config.p2p.peers, [moved.nodes[1].p2p.clone()]);
    assert_eq!(config.rpc.listen.port(), after.base + 1);
    let lines = |text: &str| {
        text.lines().filter(|line| !line.contains("tcp") && !line.contains("127.")).count()
    };
    let now = fs::read_to_string(&elsewhere).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_symlink(), "a link stays one");
    assert!(now.contains("level = \"debug\" # louder"), "{now}");
    assert_eq!(lines(&now), lines(&text));

    // A move that was interrupted after the first home is completed.
    fs::write(&elsewhere, &text).unwrap();
    prepare(folder.path(), &ANY, false).unwrap();
    assert_eq!(fs::read_to_string(&elsewhere).unwrap(), now);
}

#[test]
fn an_unfinished_network_is_made_anew_and_a_foreign_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let ports = Ports::take();
    let wanted = wanted(1, 0, &ports);
    let made = prepare(dir, &wanted, false).unwrap();
    let plan = Plan { complete: false, ..Plan::read(dir).unwrap().unwrap() };
    plan.write(dir).unwrap();
    assert_ne!(prepare(dir, &wanted, false).unwrap().genesis.chain_id(), made.genesis.chain_id());

    fs::remove_file(dir.join(MARKER)).unwrap();
    for reset in [false, true] {
        let error = prepare(dir, &wanted, reset).err().unwrap().to_string();
        assert!(error.contains("not empty and not a test network"), "{error}");
    }
    // Root may use the directories of all users.
    if own_uid() != 0 {
        let error = refuse_foreign(Path::new("/")).unwrap_err().to_string();
        assert!(error.contains("belongs to user 0"), "{error}");
    }
}

#[test]
fn taken_ports_are_all_named_before_anything_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let ports = Ports::take();
    let base_port = ports.base;
    let _taken = [base_port, base_port + 11]
        .map(|port| std::net::TcpListener::bind(loopback(port)).unwrap());
    let error = prepare(folder.path(), &wanted(2, 0, &ports), false);
    let error = error.err().unwrap().to_string();
    assert!(error.contains(&format!("{base_port}, {}", base_port + 11)), "{error}");
    assert!(error.contains("--base-port"), "{error}");
    assert!(!folder.path().join("node1").exists());
    for (base_port, nodes) in [(0, 1), (65_535, 1), (65_530, 2)] {
        assert!(
            prepare(
                folder.path(),
                &Wanted { base_port: Some(BasePort::Fixed(base_port)), ..wanted(nodes, 0, &ports) },
                false
            )
            .is_err()
        );
    }
}

#[test]
fn an_added_node_is_there_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let ports = Ports::take();
    let mut layout = prepare(dir, &wanted(2, 0, &ports), false).unwrap();
    // An attempt that was interrupted before the plan was written.
    let (plan, own) = (Plan::read(dir).unwrap().unwrap(), (ports.base, ports.base + 1));
    homes::add(&dir.join("node3"), &layout.genesis, &plan, own, Vec::new()).unwrap();
    let added = layout.add().unwrap();
    assert_eq!((added.name.as_str(), added.validator), ("node3", false));
    let config = Home::open(&added.home).unwrap().config().unwrap();
    assert_eq!(config.rpc.listen, added.rpc);
    assert_eq!(config.p2p.peers, [layout.nodes[0].p2p.clone(), layout.nodes[1].p2p.clone()]);
    let resumed = prepare(dir, &ANY, false).unwrap();
    assert_eq!(resumed.nodes.len(), 3);
    assert_eq!(resumed.nodes[2].peer_id, added.peer_id);

    // A network that runs cannot move to other ports.
    let taken = TcpListener::bind(loopback(ports.base + 31)).unwrap();
    let error = layout.add().unwrap_err().to_string();
    let port = (ports.base + 31).to_string();
    assert!(error.contains(&port) && !error.contains("--base-port"), "{error}");
    drop(taken);

    // A file of somebody else is not replaced.
    fs::create_dir(dir.join("node4")).unwrap();
    fs::write(dir.join("node4/notes.txt"), "mine").unwrap();
    assert!(layout.add().unwrap_err().to_string().contains("is not empty"));
    assert_eq!(prepare(dir, &ANY, false).unwrap().nodes.len(), 3);
}

#[test]
fn automatic_ports_are_kept_unless_another_program_has_them() {
    let folder = tempfile::tempdir().unwrap();
    let auto = Wanted { base_port: Some(BasePort::Auto), ..ANY };
    let wanted = Wanted { nodes: Some(2), ..auto };
    let made = prepare(folder.path(), &wanted, false).unwrap();
    let rpc = made.nodes[1].rpc;
    drop(made);
    let kept = prepare(folder.path(), &auto, false).unwrap();
    assert_eq!(kept.nodes[1].rpc, rpc);
    let moved = prepare(folder.path(), &auto, false).unwrap();
    assert_ne!(moved.nodes[1].rpc, rpc, "the other one holds its ports");
    let config = Home::open(&moved.nodes[1].home).unwrap().config().unwrap();
    assert_eq!(config.rpc.listen, moved.nodes[1].rpc);
}
