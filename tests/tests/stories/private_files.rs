//! Private files on real nodes: no node ever has the key, and everybody who has the link can read
//! the file.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tests::story::{
    Finished, Folder, Payer, Process, Rpc, Secret, finish, node_program, until, wallet_program,
};

use super::SOON;
use super::json_of;
use super::started::Started;

/// Three full chunks and a part.
const BYTES: usize = 3 * 131_056 + 1_000;

/// A network with three full nodes, the numbers 1 to 3. Node 0 is the validator. All log as much as
/// they can.
struct Files {
    network: Started,
    folder: Folder,
}

impl Files {
    fn new() -> Self {
        let folder = Folder::new();
        let options = ["--nodes", "1", "--full-nodes", "3", "--log", "trace"];
        Self { network: Started::new(&folder, "private", &options), folder }
    }

    fn node(&self, number: usize) -> Value {
        self.network.description()["nodes"][number].clone()
    }

    fn home(&self, number: usize) -> PathBuf {
        self.node(number)["home"].as_str().unwrap().into()
    }

    fn pid(&self, number: usize) -> u32 {
        self.node(number)["pid"].as_u64().unwrap().try_into().unwrap()
    }

    fn run(&self, number: usize, words: &[&str]) -> Finished {
        finish(node_program().args(words).arg("--home").arg(self.home(number)))
    }

    /// Runs a command that must succeed, and returns its JSON.
    fn json(&self, number: usize, words: &[&str]) -> Value {
        let done = self.run(number, &[words, &["--json"]].concat());
        assert_eq!(done.code, Some(0), "{words:?}: {done:?}");
        json_of(done.stdout.lines().last().unwrap())
    }

    /// Shares a private file of these bytes by node 1. Returns the file that has its link.
    fn share(&self, content: &[u8]) -> Link {
        let path = self.folder.join("letter");
        fs::write(&path, content).unwrap();
        let text = self.json(1, &["share", "--private", path.to_str().unwrap()])["link"]
            .as_str()
            .unwrap()
            .to_owned();
        let (public, key) = text.split_once('#').unwrap();
        let public = public.to_owned();
        let id = public.trim_start_matches("cairn:").to_owned();
        let key = hex::decode(key).unwrap();
        let path = self.folder.join("link");
        fs::write(&path, &text).unwrap();
        Link { path: path.to_str().unwrap().to_owned(), text, public, id, key }
    }

    /// Fetches by the whole link, and returns what is written.
    fn read(&self, number: usize, link: &Link) -> Vec<u8> {
        let copy = self.folder.join("copy");
        let to = copy.to_str().unwrap();
        self.json(number, &["get", &link.path, "-o", to, "--force"]);
        fs::read(copy).unwrap()
    }
}

/// A link to a private file.
struct Link {
    /// The file that has it, so that it stands in no arguments.
    path: String,
    text: String,
    /// The link without its key.
    public: String,
    id: String,
    key: Vec<u8>,
}

fn content() -> Vec<u8> {
    (0..BYTES).map(|at| (at / 131_056 * 7 + at % 251) as u8).collect()
}

#[test]
fn no_node_has_a_byte_of_the_key_and_whoever_has_the_link_reads_the_file() {
    let files = Files::new();
    let content = content();
    let link = files.share(&content);
    assert!(files.read(2, &link) == content);
    // The third node re-hosts the file, and nobody there can read it.
    let got = files.json(3, &["get", &link.public]);
    assert_eq!(got["bytes"].as_u64(), Some(BYTES as u64 + 4 * 16));
    let sealed = fs::read(files.home(3).join("files").join(&link.id)).unwrap();
    assert!(sealed != content && sealed.len() == BYTES + 4 * 16);

    let (key, id) = (Secret::new(&link.key), Secret::new(&hex::decode(&link.id).unwrap()));
    let line = Secret::new(b"listening for peers");
    for number in 0..4 {
        let home = files.home(number);
        assert_eq!(key.files(&home), Vec::<PathBuf>::new(), "the key is on the disk of {number}");
        // What else is found shows that all of this is looked at.
        assert_eq!(line.files(&home), [home.join("node.log")]);
        if cfg!(target_os = "linux") {
            let pid = files.pid(number);
            assert!(!key.is_in_process(pid), "the key is in the memory of {number}");
            assert!(number == 0 || id.is_in_process(pid), "{number} does not know the file");
        }
    }
    let log = fs::read(files.folder.join("private.log")).unwrap();
    assert!(!key.is_in(&log), "the network's log has the key");

    // It is read from the one that never had the key, too.
    for number in [1, 2] {
        assert_eq!(files.run(number, &["unshare", &link.public]).code, Some(0));
    }
    assert!(files.read(1, &link) == content);
    // A node that is told the key, as the name of a file, is caught.
    let named = files.folder.join(&hex::encode(&link.key));
    files.json(2, &["get", &link.path, "-o", named.to_str().unwrap()]);
    let meta = files.home(2).join("files").join(format!("{}.json", link.id));
    assert_eq!(key.files(&files.home(2)), [meta]);
    assert!(!cfg!(target_os = "linux") || key.is_in_process(files.pid(2)));
    refuses_keys_in_memos(&files, &link);
}

/// A memo is public: neither wallet nor node takes one with the key.
fn refuses_keys_in_memos(files: &Files, link: &Link) {
    let description = files.network.description();
    let rpc = Rpc::new(&files.network.rpc()[3]);
    let chain = description["chain_id"].as_str().unwrap().parse().unwrap();
    for memo in [link.text.clone(), format!("see {} now", link.text.to_uppercase())] {
        let refused = rpc.submit(&Payer::new("alice", "bob", chain).transfer(&memo));
        assert!(format!("{refused:?}").contains("key"), "{refused:?}");
        let home = description["wallet_home"].as_str().unwrap();
        let mut send = wallet_program();
        send.args(["--home", home, "--rpc", rpc.url(), "send", "--from", "alice", "--to", "bob"]);
        send.args(["--amount", "1 CRN", "--yes", "--memo", &memo]);
        let refused = finish(&mut send);
        assert_ne!(refused.code, Some(0), "{refused:?}");
        assert!(refused.stderr.contains("key"), "{refused:?}");
    }
    let sent = rpc.submit(&Payer::new("alice", "bob", chain).transfer(&link.public)).unwrap();
    assert_eq!(rpc.is_final(&sent, SOON), Ok(true), "a link without a key is an anchor");
}

#[test]
fn a_chunk_of_a_private_file_that_its_holder_changed_is_never_opened() {
    let files = Files::new();
    let content = content();
    let link = files.share(&content);
    files.json(3, &["get", &link.public]);
    files.network.run(&["kill", "node2"]);

    // The only holder has another byte in its second chunk.
    let held = files.home(3).join("files").join(&link.id);
    flip(&held, 131_072 + 5);
    let (copy, log) = (files.folder.join("copy"), files.folder.join("get.log"));
    let mut get = node_program();
    get.args(["get", &link.path, "-o"]).arg(&copy).arg("--home").arg(files.home(2));
    let mut get = Process::spawn(&mut get, &log);
    until("the holder knows that it lacks this chunk", || {
        assert!(get.ended().is_none(), "{}", fs::read_to_string(&log).unwrap());
        (files.json(3, &["files"])[0]["left_bytes"] == 131_072).then_some(())
    });
    assert!(get.ended().is_none() && !copy.exists());
    // An honest holder has it, and both get it.
    files.network.json(&["restart", "node2"]);
    until("the file is fetched", || get.ended().map(|status| assert!(status.success())));
    assert!(fs::read(&copy).unwrap() == content);
    until("the other holder has it again", || {
        (files.json(3, &["files"])[0]["state"] == "kept").then_some(())
    });
    assert_eq!(fs::read(&held).unwrap().len(), BYTES + 4 * 16);

    // What changes on the disk after it was verified does not open either.
    flip(&files.home(2).join("files").join(&link.id), 7);
    let other = files.folder.join("other");
    let refused = files.run(2, &["get", &link.path, "-o", other.to_str().unwrap()]);
    assert!(refused.code != Some(0) && refused.stderr.contains("does not open"), "{refused:?}");
    assert!(!other.exists());
}

/// Changes one byte of a file.
fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
