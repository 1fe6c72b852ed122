//! Files that are shared by the commands of a node, and written from its home.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;
use tests::story::{Finished, call_operator, finish, node_program};

use super::{Running, folder, init, new_home, node, run};

/// A home with files enabled, and a folder for everything else.
struct Sharer {
    folder: TempDir,
    home: PathBuf,
}

impl Sharer {
    fn new() -> Self {
        let folder = folder();
        let home = new_home(&folder);
        enable(&home);
        Self { folder, home }
    }

    fn start(&self) -> Running {
        Running::node(&mut run(&self.home), &self.path("log"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, words: &str, arguments: &[&Path]) -> Finished {
        let mut command = node_program();
        command.args(words.split_whitespace()).args(arguments).arg("--home").arg(&self.home);
        finish(&mut command)
    }

    /// What a command prints as JSON.
    fn json(&self, words: &str, arguments: &[&Path]) -> Value {
        let done = self.command(words, arguments);
        assert_eq!(done.code, Some(0), "{done:?}");
        serde_json::from_str(&done.stdout).unwrap()
    }

    /// The state of the only file.
    fn state(&self) -> String {
        let files = self.json("files --json", &[]);
        assert_eq!(files.as_array().unwrap().len(), 1, "{files}");
        files[0]["state"].as_str().unwrap().to_owned()
    }
}

fn enable(home: &Path) {
    let path = home.join("config.toml");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(path, text.replace("enabled = false", "enabled = true")).unwrap();
}

#[test]
fn a_file_is_shared_in_place_and_again_after_a_restart() {
    let sharer = Sharer::new();
    let running = sharer.start();
    let (file, copy) = (sharer.path("file"), sharer.path("copy"));
    let content: Vec<u8> = (0..300_000u32).map(|at| (at % 251) as u8).collect();
    fs::write(&file, &content).unwrap();
    let shared = sharer.json("share --json", &[&file]);
    let (link, id) = (shared["link"].as_str().unwrap(), shared["id"].as_str().unwrap());
    assert_eq!(link, format!("cairn:{id}"));
    assert_eq!((&shared["bytes"], &shared["chunks"]), (&json!(300_000), &json!(3)));
    let listed = sharer.json("files --json", &[]);
    for (key, value) in [
        ("id", json!(id)),
        ("name", json!("file")),
        ("bytes", json!(300_000)),
        ("have_bytes", json!(300_000)),
        ("served_bytes", json!(0)),
        ("state", json!("shared")),
    ] {
        assert_eq!(listed[0][key], value, "{key}");
    }
    let got = sharer.json(&format!("get {link} --json -o"), &[&copy]);
    assert_eq!(
        (&got["id"], &got["bytes"], &got["peers"]),
        (&json!(id), &json!(300_000), &json!(0))
    );
    assert!(got["seconds"].is_f64());
    assert_eq!(fs::read(&copy).unwrap(), content);
    // A second time nothing is overwritten.
    let refused = sharer.command(&format!("get {link} -o"), &[&copy]);
    assert!(refused.code == Some(1) && refused.stderr.contains("--force"), "{refused:?}");
    let part =
        sharer.json(&format!("get {link} --force --range 200000-200009 --json -o"), &[&copy]);
    assert_eq!(part["bytes"], 10);
    let sparse = fs::read(&copy).unwrap();
    assert_eq!((sparse.len(), &sparse[200_000..200_010]), (300_000, &content[200_000..200_010]));
    assert!(sparse[..200_000].iter().all(|byte| *byte == 0));
    let refused = sharer.command(&format!("get {link} --force --range 300000- -o"), &[&copy]);
    assert!(refused.code == Some(1) && refused.stderr.contains("ends before"), "{refused:?}");

    drop(running);
    let _running = sharer.start();
    assert_eq!(sharer.state(), "detached");
    assert_eq!(sharer.json("share --json", &[&file]), shared);
    assert_eq!(sharer.state(), "shared");
    // Nothing but the list of hashes is in the home, and nothing beside the copy.
    assert_eq!(fs::read_dir(sharer.home.join("files")).unwrap().count(), 2);
    fs::remove_file(copy).unwrap();
    let mut names: Vec<_> = fs::read_dir(sharer.folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["file", "home", "log"]);
    OpenOptions::new().append(true).open(&file).unwrap().write_all(b"more").unwrap();
    let changed = sharer.command(&format!("get {link}"), &[]);
    assert_eq!(changed.code, Some(0), "{changed:?}");
    let changed = sharer.command(&format!("get {link} -o"), &[&sharer.path("copy")]);
    assert!(changed.stderr.contains("it changed"), "{changed:?}");
    assert_eq!(sharer.state(), "changed");
    assert_eq!(sharer.command(&format!("unshare {link}"), &[]).code, Some(0));
    assert_eq!(sharer.command("files", &[]).stdout, "no files\n");
    assert_eq!(fs::read_dir(sharer.home.join("files")).unwrap().count(), 0);
    assert!(file.exists());
}

#[test]
fn a_private_file_is_read_by_whoever_has_its_link_and_by_nobody_else() {
    let sharer = Sharer::new();
    let running = sharer.start();
    let (file, copy, link) = (sharer.path("file"), sharer.path("copy"), sharer.path("link"));
    let content = b"a secret ".repeat(50_000);
    fs::write(&file, &content).unwrap();
    let shared = sharer.json("share --private --json", &[&file]);
    let text = shared["link"].as_str().unwrap();
    let (public, key) = text.split_once('#').unwrap();
    assert_eq!((&shared["bytes"], &shared["chunks"]), (&json!(450_000), &json!(4)));
    let stored = sharer.home.join("files").join(shared["id"].as_str().unwrap());
    assert_eq!(fs::metadata(&stored).unwrap().len(), 450_000 + 4 * 16);

    fs::write(&link, text).unwrap();
    let got = sharer.json("get --json -o", &[&copy, &link]);
    assert_eq!((&got["bytes"], &fs::read(&copy).unwrap()), (&json!(450_000), &content));
    let part = sharer.json("get --json --force --range 131050-131069 -o", &[&copy, &link]);
    assert_eq!(part["bytes"], 20);
    assert_eq!(fs::read(&copy).unwrap()[131_050..131_070], content[131_050..131_070]);
    // By stdin, so that the key is in no list of processes. In the arguments it is warned of.
    let mut command = node("get - --force", &sharer.home);
    command.arg("-o").arg(&copy).stdin(fs::File::open(&link).unwrap());
    let by_stdin = command.output().unwrap();
    assert!(by_stdin.status.success() && by_stdin.stderr.is_empty(), "{by_stdin:?}");
    let warned = sharer.command(&format!("get {text} --force -o"), &[&copy]);
    assert!(warned.code == Some(0) && warned.stderr.contains("key of this link"), "{warned:?}");
    assert_eq!(fs::read(&copy).unwrap(), content);
    // Without the key there are only the sealed bytes, and with another one nothing at all.
    sharer.json(&format!("get {public} --json --force -o"), &[&copy]);
    assert_eq!(fs::read(&copy).unwrap(), fs::read(&stored).unwrap());
    fs::write(&link, text.replace(key, &"0a".repeat(32))).unwrap();
    let wrong = sharer.command("get --force -o", &[&copy, &link]);
    assert!(wrong.code == Some(1) && wrong.stderr.contains("key of the link"), "{wrong:?}");
    // A changed byte on the disk of the node is refused too.
    fs::write(&link, text).unwrap();
    let mut sealed = fs::read(&stored).unwrap();
    sealed[140_000] ^= 1;
    fs::write(&stored, sealed).unwrap();
    let changed = sharer.command("get --force -o", &[&copy, &link]);
    assert!(changed.stderr.contains("piece 1 does not open"), "{changed:?}");

    let secrets = [key.as_bytes().to_vec(), hex::decode(key).unwrap(), b"a secret ".to_vec()];
    let holds = |bytes: &[u8]| {
        secrets.iter().any(|secret| bytes.windows(secret.len()).any(|part| part == secret))
    };
    assert!(holds(text.as_bytes()) && holds(&content));
    assert!(!holds(&fs::read(sharer.path("log")).unwrap()), "the log");
    assert!(!holds(&fs::read(format!("/proc/{}/cmdline", running.0.id())).unwrap()));
    for path in files_below(&sharer.home) {
        assert!(!holds(&fs::read(&path).unwrap()), "{}", path.display());
    }
    // Another time the same file has another key and another link.
    assert_ne!(sharer.json("share --private --json", &[&file])["id"], shared["id"]);
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    let below = |entry: fs::DirEntry| match entry.file_type().unwrap() {
        kind if kind.is_dir() => files_below(&entry.path()),
        kind if kind.is_file() => vec![entry.path()],
        _ => Vec::new(),
    };
    entries.flat_map(below).collect()
}

#[test]
fn files_are_off_unless_enabled_and_refused_for_validators() {
    let folder = folder();
    let (home, file) = (new_home(&folder), folder.path().join("file"));
    fs::write(&file, "bytes").unwrap();
    let absent = finish(node("share", &home).arg(&file));
    assert!(absent.code == Some(3) && absent.stderr.contains("nothing runs"), "{absent:?}");
    let running = Running::node(&mut run(&home), &folder.path().join("log"));
    for mut command in [node("share", &home), node("share --private", &home)] {
        let off = finish(command.arg(&file));
        assert!(off.code == Some(1) && off.stderr.contains("files.enabled"), "{off:?}");
    }
    assert_eq!(finish(&mut node("files", &home)).code, Some(1));
    drop(running);

    let validator = folder.path().join("validator");
    let made = finish(init(&validator).arg("--validator"));
    assert_eq!(made.code, Some(0), "{made:?}");
    enable(&validator);
    let mut command: Command = run(&validator);
    let refused = finish(command.stdout(Stdio::null()));
    assert!(
        refused.code == Some(1) && refused.stderr.contains("a validator neither"),
        "{refused:?}"
    );
}

#[test]
fn names_and_requests_do_no_harm() {
    let sharer = Sharer::new();
    let _running = sharer.start();
    let file = sharer.path("a\u{1b}[31m\n\u{9b}b");
    fs::write(&file, "bytes").unwrap();
    sharer.json("share --json", &[&file]);
    let listed = sharer.command("files", &[]).stdout;
    assert!(listed.contains("a\\u{1b}[31m\\n\\u{9b}b"), "{listed:?}");
    let error = |method: &str, params: Value| {
        let answer = call_operator(&sharer.home, method, params);
        answer["error"]["message"].as_str().unwrap().to_owned()
    };
    let id = "0a".repeat(32);
    for (method, params, part) in [
        ("files_share", json!({"name": "x"}), "no file came"),
        ("files_share", json!({"path": "/etc/passwd"}), "unknown field"),
        ("files_get", json!({"id": "../../x", "name": ""}), "64 hexadecimal digits"),
        ("files_get", json!({"id": id, "name": "", "ranges": [[9, 5]]}), "9-5 is no range"),
        ("files_info", json!({"id": id}), "has no file"),
        ("files_open", json!({"id": id}), "has no file"),
        ("files_unshare", json!({"id": id}), "has no file"),
        ("files_other", json!({}), "no method"),
    ] {
        let error = error(method, params);
        assert!(error.contains(part), "{method}: {error}");
    }
    for (words, part) in [
        ("get cairn:00", "64 lower-case hexadecimal digits"),
        ("get no-such-file", "is neither a link nor a file"),
        ("unshare no-such-file", "is neither a link nor a file"),
        ("share no-such-file", "No such file"),
        ("share /dev/null", "only regular files"),
        ("share --private /dev/null", "a device"),
    ] {
        let refused = sharer.command(words, &[]);
        assert!(refused.code == Some(1) && refused.stderr.contains(part), "{words}: {refused:?}");
    }
}
