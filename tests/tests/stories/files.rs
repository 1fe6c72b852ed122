//! Files go from node to node by `share` and `get`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::story::{Finished, Folder, finish, node_program, until};

use super::json_of;
use super::started::Started;

/// The full nodes of the network. Validators share no files.
const FULL: usize = 3;

/// Bytes in which no two chunks are the same.
pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 131_072 * 7 + at % 251) as u8).collect()
}

/// The homes of the full nodes.
fn homes(network: &Started) -> Vec<PathBuf> {
    let description = network.description();
    let nodes = description["nodes"].as_array().unwrap();
    let homes: Vec<PathBuf> =
        nodes.iter().map(|node| node["home"].as_str().unwrap().into()).collect();
    homes[homes.len() - FULL..].to_vec()
}

pub(super) fn node(home: &Path, words: &[&str]) -> Finished {
    finish(node_program().arg(words[0]).arg("--home").arg(home).args(&words[1..]))
}

/// Runs a command that must succeed, and returns its JSON.
pub(super) fn json(home: &Path, words: &[&str]) -> Value {
    let done = node(home, &[words, &["--json"]].concat());
    assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
    json_of(done.stdout.lines().last().unwrap())
}

#[test]
fn a_file_goes_from_node_to_node_and_from_those_who_have_it() {
    let folder = Folder::new();
    let network = Started::new(&folder, "files", &["--nodes", "1", "--full-nodes", "3"]);
    let homes = homes(&network);
    let (shared, content) = (folder.join("song"), bytes(20 << 20));
    fs::write(&shared, &content).unwrap();
    let answer = json(&homes[0], &["share", shared.to_str().unwrap()]);
    let link = answer["link"].as_str().unwrap().to_owned();
    assert_eq!((answer["bytes"].as_u64(), answer["chunks"].as_u64()), (Some(20 << 20), Some(160)));

    let copy = folder.join("copy");
    let got = json(&homes[1], &["get", &link, "-o", copy.to_str().unwrap()]);
    assert_eq!(got["bytes"].as_u64(), Some(20 << 20));
    assert!(fs::read(&copy).unwrap() == content);

    // A node that has nothing of it finds both, by the index and by a flood query.
    let id = link.trim_start_matches("cairn:");
    let mut found_by =
        [&["find", "--file", id][..], &["find", "--file", &link, "--flood"]].map(|way| {
            until("both holders are found", || {
                let found = json(&homes[2], way)["holders"].as_array().unwrap().clone();
                (found.len() == 2).then_some(found)
            })
        });
    found_by.iter_mut().for_each(|found| found.sort_by_key(|one| one["peer"].to_string()));
    assert_eq!(found_by[0], found_by[1], "both name the same peers and addresses");

    // The second node goes on serving when the first one does not any more.
    assert_eq!(node(&homes[0], &["unshare", &link]).code, Some(0));
    let got = json(&homes[2], &["get", &link]);
    assert_eq!(got["bytes"].as_u64(), Some(20 << 20));
    let kept = fs::read(homes[2].join("files").join(id)).unwrap();
    assert!(kept == content);

    // A file that changes is withdrawn, and what others have stays.
    let answer = json(&homes[0], &["share", shared.to_str().unwrap()]);
    assert_eq!(answer["link"].as_str(), Some(&link[..]), "the same bytes have the same link");
    let part = folder.join("part");
    let range = ["get", &link, "--range", "0-99", "-o", part.to_str().unwrap(), "--force"];
    json(&homes[1], &range);
    assert_eq!(fs::read(&part).unwrap()[..100], content[..100]);
}

#[test]
fn a_file_that_changed_is_withdrawn_and_never_served() {
    let folder = Folder::new();
    let network = Started::new(&folder, "files", &["--nodes", "1", "--full-nodes", "3"]);
    let homes = homes(&network);
    let shared = folder.join("song");
    let mut content = bytes(3 << 20);
    fs::write(&shared, &content).unwrap();
    let answer = json(&homes[0], &["share", shared.to_str().unwrap()]);
    let link = answer["link"].as_str().unwrap().to_owned();
    for at in [5, 1_500_000, 3_000_000] {
        content[at] ^= 1;
    }
    fs::write(&shared, &content).unwrap();
    let mut fetch = node_program();
    fetch.args(["get", &link, "--home"]).arg(&homes[1]);
    let log = folder.join("get.log");
    let mut fetch = tests::story::Process::spawn(&mut fetch, &log);
    until("the file is withdrawn", || {
        assert!(fetch.ended().is_none(), "{}", fs::read_to_string(&log).unwrap());
        let files = json(&homes[0], &["files"]);
        (files[0]["state"] == "changed").then_some(())
    });
    // The old file again: the same link, and whoever waits gets it.
    for at in [5, 1_500_000, 3_000_000] {
        content[at] ^= 1;
    }
    fs::write(&shared, &content).unwrap();
    json(&homes[0], &["share", shared.to_str().unwrap()]);
    until("the file is fetched", || fetch.ended().map(|status| assert!(status.success())));
    let id = link.trim_start_matches("cairn:");
    assert!(fs::read(homes[1].join("files").join(id)).unwrap() == content);
}
