//! Files come from honest nodes, whatever others say about them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use ledger::file::FileHasher;
use ledger::genesis::Genesis;
use ledger::hash::FileId;
use serde_json::{Value, json};
use tests::hostile::holders::{Liars, Lie};
use tests::hostile::index::FalseIndex;
use tests::hostile::{Attack, Crowd, Field, Target};
use tests::story::{Network, Node, Process, finish, node_program, until};
use tokio::runtime::Runtime;

use super::files::{bytes, json, node};

/// Most memory of a node under attack.
const MEMORY_MIB_MAX: u64 = 300;
/// How long floods go on beside a fetch.
const FLOODED: Duration = Duration::from_secs(3);

/// A validator, and nodes that share files and know only the validator. `sharing` is the number of
/// these nodes. They do not run yet.
fn network(sharing: usize) -> Network {
    let mut network = Network::start(1);
    let (genesis, first) = (network.genesis().clone(), network.node(1).p2p.clone());
    for _ in 0..sharing {
        let node = network.add(&genesis, std::slice::from_ref(&first));
        let path = node.home.join("config.toml");
        let settings = fs::read_to_string(&path).unwrap();
        let settings = settings.replace("private = false", "private = true");
        let (others, files) = settings.split_once("[files]").unwrap();
        let files = files.replacen("enabled = false", "enabled = true", 1);
        let files = files.replace("reserve = \"2GiB\"", "reserve = \"16MiB\"");
        fs::write(&path, format!("{others}[files]{files}")).unwrap();
    }
    network
}

fn start(node: &mut Node) {
    node.start();
    node.status();
}

fn target(node: &Node) -> Target {
    let shown = finish(node_program().args(["address", "--home"]).arg(&node.home));
    let peer = shown.stdout.trim().rsplit_once("/p2p/").unwrap().1.to_owned();
    let port = node.p2p.split('/').nth(4).unwrap();
    let rpc = node.rpc.url().strip_prefix("http://").unwrap().parse().unwrap();
    Target { p2p: format!("127.0.0.1:{port}").parse().unwrap(), peer, rpc }
}

fn field(network: &Network, targets: Vec<Target>, file: FileId) -> Field {
    let genesis = Genesis::from_json(&fs::read(network.genesis()).unwrap()).unwrap();
    Field { genesis, targets, home: None, key: None, file: Some(file), crowd: Crowd::default() }
}

fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all().build().unwrap()
}

fn id_of(content: &[u8]) -> FileId {
    let mut hasher = FileHasher::new();
    hasher.push(content);
    hasher.finish().unwrap().descriptor.id()
}

/// Who is banned by a node, and for what.
fn bans(node: &Node) -> BTreeMap<String, String> {
    let bans: Vec<Value> = node.rpc.call("net_bans", &json!({})).unwrap();
    let text = |ban: &Value, field: &str| ban[field].as_str().unwrap().to_owned();
    bans.iter().map(|ban| (text(ban, "peer"), text(ban, "offence"))).collect()
}

/// The most memory that a process has used.
fn memory_mib(node: &mut Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.process().id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// The names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Nothing was written into a home since it had these names, but the peers that the node knows.
fn assert_nothing_new(home: &Path, before: &BTreeSet<String>) {
    let new: BTreeSet<String> = names(home).difference(before).cloned().collect();
    assert!(new.iter().all(|name| name == "peers.json"), "{new:?}");
}

/// A node has all of a file, and nothing else in its folder of files.
fn assert_kept(home: &Path, id: FileId, content: &[u8]) {
    let folder = home.join("files");
    assert!(fs::read(folder.join(id.to_string())).unwrap() == content);
    let is_of_it = |name: &String| name.starts_with(&id.to_string());
    assert!(names(&folder).iter().all(is_of_it), "{:?}", names(&folder));
    let bytes: u64 =
        names(&folder).iter().map(|name| fs::metadata(folder.join(name)).unwrap().len()).sum();
    assert!(bytes < content.len() as u64 + (64 << 10), "{bytes} bytes");
}

/// All holders that a node finds at first are liars. Then one comes whose file has changed since it
/// was shared, and then one that has the file.
#[test]
fn liars_about_a_file_are_banned_and_it_comes_from_an_honest_node() {
    let mut network = network(3);
    let content = bytes((17 << 20) + 5);
    let id = id_of(&content);
    let link = format!("cairn:{id}");
    let paths = ["changed", "same"].map(|name| network.path(name));
    paths.iter().for_each(|path| fs::write(path, &content).unwrap());
    start(network.node(2));
    let (home, target) = (network.node(2).home.clone(), target(network.node(2)));
    let field = field(&network, vec![target.clone()], id);
    let runtime = runtime();
    let dial = |lies: &[Lie]| {
        let liars = Liars::dial(&field, &target, content.clone(), lies);
        runtime.block_on(liars).unwrap()
    };
    let _beyond = dial(&[Lie::Beyond]);

    let (before, copy) = (names(&home), network.path("copy"));
    let mut get = node_program();
    get.args(["get", &link, "--home"]).arg(&home).arg("-o").arg(&copy);
    let mut get = Process::spawn(&mut get, &network.path("get.log"));
    until("somebody claims what the file does not have", || {
        let files = json(&home, &["files"]);
        files[0]["reason"].as_str().filter(|reason| reason.contains("send nothing")).map(drop)
    });
    let liars = dial(&Lie::OF_ALL);
    let ids = liars.ids.iter();
    let guilty: BTreeMap<String, String> =
        ids.filter_map(|(lie, id)| Some((id.clone(), lie.offence()?.to_owned()))).collect();
    until("those that prove their lies are banned", || {
        assert!(get.ended().is_none(), "nobody has the file");
        (bans(network.node(2)) == guilty).then_some(())
    });

    start(network.node(3));
    let other = network.node(3).home.clone();
    json(&other, &["share", paths[0].to_str().unwrap()]);
    let mut changed = content.clone();
    changed.iter_mut().step_by(131_072).for_each(|byte| *byte ^= 1);
    fs::write(&paths[0], changed).unwrap();
    until("the file that changed is withdrawn", || {
        (json(&other, &["files"])[0]["state"] == "changed").then_some(())
    });
    start(network.node(4));
    let last = network.node(4).home.clone();
    json(&last, &["share", paths[1].to_str().unwrap()]);
    until("the file is fetched", || get.ended().map(|status| assert!(status.success())));

    assert!(fs::read(&copy).unwrap() == content);
    assert_kept(&home, id, &content);
    assert_eq!(bans(network.node(2)), guilty, "nobody else");
    assert_eq!([3, 4].map(|number| bans(network.node(number)).len()), [0, 0]);
    let memory = memory_mib(network.node(2));
    assert!(memory <= MEMORY_MIB_MAX, "{memory} MiB");
    assert_nothing_new(&home, &before);
}

/// The index is full of holders that do not exist, at addresses where nobody is and at that of the
/// honest one, and all nodes are flooded with questions and records.
#[test]
fn false_records_and_floods_keep_nobody_from_a_file() {
    let mut network = network(2);
    let content = bytes((2 << 20) + 5);
    let id = id_of(&content);
    let link = format!("cairn:{id}");
    let shared = network.path("a\u{1b}[31m\n..%2F");
    fs::write(&shared, &content).unwrap();
    start(network.node(2));
    json(&network.node(2).home.clone(), &["share", shared.to_str().unwrap()]);
    start(network.node(3));
    let targets = [1, 2, 3].map(|number| target(network.node(number)));
    let home = network.node(3).home.clone();
    let runtime = runtime();
    let false_index = field(&network, targets[2..].to_vec(), id);
    let _false_index =
        runtime.block_on(FalseIndex::start(&false_index, 3, &targets[1..2])).unwrap();

    let attacked = field(&network, targets.to_vec(), id);
    let floods = ["records", "queries", "file-requests"].map(|name| {
        let (attack, attacked) = (Attack::find(name).unwrap(), attacked.clone());
        let run = runtime.spawn(async move { attack.run(&attacked, FLOODED).await });
        (attack, run)
    });
    let copy = network.path("copy");
    json(&home, &["get", &link, "-o", copy.to_str().unwrap()]);
    for (attack, run) in floods {
        let reached = runtime.block_on(run).unwrap().unwrap();
        assert!(reached > 0.0, "{} attacked nobody", attack.name);
    }
    assert!(fs::read(&copy).unwrap() == content);
    assert_kept(&home, id, &content);
    let index = network.node(1).home.clone();
    until("the honest holder is found among the false ones", || {
        let found = json(&index, &["find", "--file", &id.to_string()]);
        let holders = found["holders"].as_array().unwrap().clone();
        holders.iter().any(|holder| holder["peer"] == targets[1].peer).then_some(())
    });
    let honest: Vec<&String> = targets.iter().map(|target| &target.peer).collect();
    for number in 1..=3 {
        let node = network.node(number);
        assert!(bans(node).keys().all(|peer| !honest.contains(&peer)), "{:?}", bans(node));
        let memory = memory_mib(node);
        assert!(memory <= MEMORY_MIB_MAX, "{}: {memory} MiB", node.name);
    }
    assert_harmless_names(network.node(2), &link);
}

/// Names of files and what stands in place of links are shown without control characters, and lead
/// to no path.
fn assert_harmless_names(sharing: &Node, link: &str) {
    let home = &sharing.home;
    let files = node(home, &["files"]);
    let is_harmless = |text: &str| text.chars().all(|char| !char.is_control() || char == '\n');
    assert!(files.code == Some(0) && is_harmless(&files.stdout), "{files:?}");
    assert_eq!(files.stdout.lines().count(), 1, "{files:?}");
    let before = names(home);
    for wrong in [
        format!("{link}/../../x"),
        format!("{link}\u{1b}[31m"),
        "cairn:../../../../etc/passwd".to_owned(),
        "\u{1b}]0;title\u{7}".to_owned(),
        "..".to_owned(),
    ] {
        for words in [&["get", &wrong][..], &["unshare", &wrong], &["find", "--file", &wrong]] {
            let done = node(home, words);
            assert_ne!(done.code, Some(0), "{words:?}");
            assert!(is_harmless(&done.stdout) && is_harmless(&done.stderr), "{done:?}");
        }
    }
    let into = home.join("\u{1b}[31m").join("..");
    let done = node(home, &["get", link, "-o", into.to_str().unwrap()]);
    assert!(done.code != Some(0) && is_harmless(&done.stderr), "{done:?}");
    assert_nothing_new(home, &before);
}
