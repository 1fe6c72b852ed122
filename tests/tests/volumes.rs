//! Disks that are full, and disks that cannot be written to. Only root may mount such disks. For
//! other users these tests say that they are skipped.
#![allow(clippy::unwrap_used)]

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::story::{Network, Process, Rpc, finish, node_program, until};

/// A small file system in memory.
struct Volume {
    path: PathBuf,
    _folder: TempDir,
}

impl Volume {
    /// Mounts a volume; `None` if this user may not mount one.
    fn mount(story: &str, mebibytes: u32) -> Option<Self> {
        let folder = tempfile::Builder::new().prefix("cairn-volume-").tempdir().unwrap();
        let path = folder.path().join("volume");
        fs::create_dir(&path).unwrap();
        let options = format!("size={mebibytes}m,mode=700");
        let mounted = finish(
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "cairn-test"]).arg(&path),
        );
        if mounted.code != Some(0) {
            eprintln!("skipped, as no volume can be mounted: {story}: {}", mounted.stderr.trim());
            return None;
        }
        Some(Self { path, _folder: folder })
    }

    fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the volume read-only from here on.
    fn make_read_only(&self) {
        let done = finish(Command::new("mount").args(["-o", "remount,ro"]).arg(&self.path));
        assert_eq!(done.code, Some(0), "{done:?}");
    }

    /// Takes all space that is left.
    fn fill(&self) -> PathBuf {
        let path = self.join("filler");
        let mut file = File::create(&path).unwrap();
        for size in [1 << 20, 1 << 12, 1] {
            let bytes = vec![0; size];
            loop {
                match file.write(&bytes) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
        path
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // The option -l is for a process that is being killed and may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

fn run(home: &Path, log: &Path) -> Process {
    Process::spawn(node_program().args(["run", "--exit-with-parent", "--home"]).arg(home), log)
}

fn await_height(process: &mut Process, rpc: &Rpc, height: u64) -> u64 {
    until(&format!("height {height}"), || {
        assert_eq!(process.ended(), None, "the node has ended");
        rpc.status().ok().map(|status| status.height).filter(|reached| *reached >= height)
    })
}

#[test]
fn a_validator_on_a_full_disk_stops_with_that_cause_and_goes_on_with_room() {
    let Some(volume) = Volume::mount("a validator on a full disk", 48) else { return };
    let mut network = Network::make(1);
    let home = volume.join("home");
    let copied = finish(Command::new("cp").arg("-a").arg(&network.node(1).home).arg(&home));
    assert_eq!(copied.code, Some(0), "{copied:?}");
    let rpc = Rpc::new(network.node(1).rpc.url());
    let log = network.path("run.log");

    let mut process = run(&home, &log);
    await_height(&mut process, &rpc, 5);
    let filler = volume.fill();
    let status = process.wait();
    let text = fs::read_to_string(&log).unwrap();
    assert!(!status.success() && text.contains("No space left on device"), "{status}: {text}");
    assert!(text.lines().last().unwrap().starts_with("error: "), "{text}");

    // The node is started again and again without room. The cause stays the same, and nothing is
    // damaged.
    for round in 0..3 {
        let log = network.path(&format!("full-{round}.log"));
        let status = run(&home, &log).wait();
        let text = fs::read_to_string(&log).unwrap();
        assert!(!status.success() && text.contains("No space left on device"), "{status}: {text}");
        assert!(!text.contains("corrupt"), "{text}");
    }
    fs::remove_file(filler).unwrap();

    let mut process = run(&home, &log);
    let height = await_height(&mut process, &rpc, 6);
    await_height(&mut process, &rpc, height + 3);
    process.end_stdin();
    assert!(process.wait().success());
    let checked = finish(node_program().args(["db", "verify", "--json", "--home"]).arg(&home));
    assert!(checked.code == Some(0) && checked.stdout.contains("\"clean\":true"), "{checked:?}");
}

#[test]
fn a_home_that_cannot_be_written_to_can_be_checked_and_exported() {
    let Some(volume) = Volume::mount("a read-only volume", 32) else { return };
    let mut network = Network::start(1);
    network.await_height(3);
    network.node(1).stop();
    let home = volume.join("home");
    let copied = finish(Command::new("cp").arg("-a").arg(&network.node(1).home).arg(&home));
    assert_eq!(copied.code, Some(0), "{copied:?}");
    volume.make_read_only();

    let command = |words: &[&str]| finish(node_program().args(words).arg("--home").arg(&home));
    let checked = command(&["db", "verify", "--json"]);
    assert!(checked.code == Some(0) && checked.stdout.contains("\"clean\":true"), "{checked:?}");
    let archive = network.path("chain");
    let exported = command(&["db", "export", "--to", archive.to_str().unwrap()]);
    assert!(exported.code == Some(0) && archive.exists(), "{exported:?}");
    // A command that has to write names the reason why it cannot.
    for words in [&["run"][..], &["db", "import", "--from", archive.to_str().unwrap()]] {
        let refused = command(words);
        assert!(
            refused.code == Some(1) && refused.stderr.contains("Read-only file system"),
            "{refused:?}"
        );
    }
}
