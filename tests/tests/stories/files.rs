//! Files go from node to node by `share` and `get`.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::story::{Finished, Folder, Process, finish, node_program, until};

use super::json_of;
use super::started::Started;

/// Bytes in which no two chunks are the same.
pub(super) fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at / 131_072 * 7 + at % 251) as u8).collect()
}

/// The homes of the full nodes. Validators share no files.
fn homes(network: &Started) -> Vec<PathBuf> {
    let description = network.description();
    let nodes = description["nodes"].as_array().unwrap();
    let full = nodes.iter().filter(|node| node["validator"] == false);
    full.map(|node| node["home"].as_str().unwrap().into()).collect()
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
    let mut fetch = Process::spawn(&mut fetch, &log);
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

/// Bytes of a sparse file, and of the random bytes at each of its ends.
const SPARSE: u64 = 200_000_000;
const END: u64 = 30_000_000;

/// Makes a file that is a hole between its two ends. Their chunks differ from each other.
fn sparse(path: &Path) -> File {
    let file =
        File::options().create(true).truncate(true).read(true).write(true).open(path).unwrap();
    file.set_len(SPARSE).unwrap();
    for start in [0, SPARSE - END] {
        file.write_all_at(&bytes(END as usize), start).unwrap();
    }
    file
}

fn has_same(a: &File, b: &File, start: u64) -> bool {
    let [mut here, mut there] = [(); 2].map(|()| vec![0; END as usize]);
    a.read_exact_at(&mut here, start).unwrap();
    b.read_exact_at(&mut there, start).unwrap();
    here == there
}

#[test]
fn the_ends_of_a_sparse_file_are_fetched_by_a_node_that_is_killed() {
    let folder = Folder::new();
    let network = Started::new(&folder, "sparse", &["--nodes", "1", "--full-nodes", "2"]);
    let homes = homes(&network);
    let [holder, fetcher] = [&homes[0], &homes[1]];
    // Slow enough to be killed in the middle.
    let config = fetcher.join("config.toml");
    let text = fs::read_to_string(&config).unwrap();
    let (before, after) = text.split_once("[files]").unwrap();
    let after = after.replacen("download_rate = 0", "download_rate = \"20 MB/s\"", 1);
    fs::write(&config, format!("{before}[files]{after}")).unwrap();
    network.json(&["restart", "node3"]);

    let (shared, copy) = (folder.join("disk"), folder.join("copy"));
    let source = sparse(&shared);
    let answer = json(holder, &["share", shared.to_str().unwrap()]);
    let link = answer["link"].as_str().unwrap().to_owned();
    let ranges = [(0, END - 1), (SPARSE - END, SPARSE - 1)].map(|(a, b)| format!("{a}-{b}"));
    let mut words = vec!["get", &link, "--range", &ranges[0], "--range", &ranges[1]];
    for kill in 1..=2 {
        let mut get = node_program();
        let log = folder.join("get.log");
        let mut get = Process::spawn(get.args(&words).arg("--home").arg(fetcher), &log);
        until("a part of it is there", || {
            assert!(get.ended().is_none(), "{}", fs::read_to_string(&log).unwrap());
            let have = json(fetcher, &["files"])[0]["have_bytes"].as_u64();
            (have? >= kill * 20_000_000).then_some(())
        });
        network.run(&["kill", "node3"]);
        drop(get);
        network.json(&["restart", "node3"]);
    }
    words.extend(["-o", copy.to_str().unwrap()]);
    assert_eq!(json(fetcher, &words)["bytes"].as_u64(), Some(2 * END));

    let copy = File::open(copy).unwrap();
    assert!(has_same(&source, &copy, 0) && has_same(&source, &copy, SPARSE - END));
    for file in
        [copy, File::open(fetcher.join("files").join(answer["id"].as_str().unwrap())).unwrap()]
    {
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), SPARSE);
        assert!(metadata.blocks() * 512 < SPARSE / 2, "it is not sparse any more");
    }
    // Whole segments were fetched, and little of them twice.
    let number = |home: &Path, name: &str| json(home, &["files"])[0][name].as_u64().unwrap();
    let (have, served) = (number(fetcher, "have_bytes"), number(holder, "served_bytes"));
    assert!((2 * END..SPARSE).contains(&have), "{have}");
    assert!(served >= have && served - have < have / 10, "{served} for {have}");
}
