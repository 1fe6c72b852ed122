#![allow(clippy::unwrap_used)]

use std::fs;
use std::future::{pending, ready};
use std::pin::pin;
use std::process::Command;

use ledger::genesis::Genesis;

use super::super::TEMPLATE;
use super::super::plan::Wanted;
use super::super::ports::BasePort;
use super::*;
use crate::control::code;

/// A network whose nodes run until they are told to stop, and never answer.
struct Silent {
    folder: tempfile::TempDir,
    network: Supervisor,
}

/// Makes an executable script. `sh` writes it, not this process. If another test started a child
/// while the file is open here for writing, the child would hold it open for a moment too, and
/// Linux runs no file that is open for writing (`ETXTBSY`).
fn script(path: &Path, text: &str) -> PathBuf {
    let write = r#"printf '%s\n' "$0" > "$1" && chmod 755 "$1""#;
    let made = Command::new("sh").args(["-c", write, text]).arg(path).status().unwrap();
    assert!(made.success());
    path.to_owned()
}

impl Silent {
    fn start(nodes: u16, fail_fast: bool) -> Self {
        Self::run("cat > /dev/null", nodes, fail_fast)
    }

    /// A network whose nodes run another command.
    fn run(command: &str, nodes: u16, fail_fast: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!("#!/bin/sh\nexec {command}");
        let program = script(&folder.path().join("silent"), &text);
        let base_port = Some(BasePort::Auto);
        let wanted =
            Wanted { nodes: Some(nodes), full_nodes: None, base_port, seed: None, history: None };
        let template = Genesis::from_json(TEMPLATE.as_bytes()).unwrap();
        let dir = folder.path().join("network");
        fs::create_dir(&dir).unwrap();
        let layout = Layout::prepare(&dir, &wanted, None, &template, false).unwrap();
        let options =
            Options { program, log: None, fail_fast, is_watched: false, is_detached: false };
        let mut network = Supervisor::start(layout, options).unwrap();
        network.is_started = true;
        Self { folder, network }
    }

    /// Gives an order, and runs the network until it is answered. Returns the answer, and why the
    /// network has ended.
    async fn order(&mut self, action: Action) -> (Result<Value, Failure>, Option<String>) {
        let (reply, mut answer) = Reply::channel();
        let order = Order { request: Request::Act(action), reply };
        assert!(self.network.orders().send(order).await.is_ok());
        let mut answered = None;
        let stop = async { answered = (&mut answer).await.ok() };
        let ended = self.network.run(pin!(stop), Until::Stopped).await.err();
        self.network.is_stopping = false;
        let answer = answered.unwrap_or_else(|| answer.try_recv().unwrap());
        (answer, ended.map(|error| format!("{error:#}")))
    }

    async fn restart(
        &mut self,
        node: &str,
        binary: &Path,
    ) -> (Result<Value, Failure>, Option<String>) {
        let (node, binary) = (node.to_owned(), Some(binary.to_owned()));
        self.order(Action::Restart { node, binary }).await
    }

    /// A program whose interpreter is missing.
    fn broken(&self) -> PathBuf {
        script(&self.folder.path().join("broken"), "#!/nowhere/sh")
    }
}

#[tokio::test]
async fn a_file_that_is_no_program_stops_no_node() {
    let mut silent = Silent::start(1, true);
    let folder = silent.folder.path().to_owned();
    let plain = folder.join("plain");
    fs::write(&plain, "").unwrap();
    let pid = silent.network.list().nodes[0].pid;
    for binary in [&folder, &plain, &folder.join("absent")] {
        let (answer, ended) = silent.restart("node1", binary).await;
        let failure = answer.unwrap_err();
        assert_eq!((failure.code, ended), (code::USAGE, None), "{failure}");
        assert!(failure.message.contains("is no program that can run"), "{failure}");
    }
    assert_eq!(silent.network.list().nodes[0].pid, pid);

    // A name without a folder is that of a file here, not of one in PATH.
    let (answer, _) = silent.restart("node1", Path::new("cat")).await;
    assert_eq!(answer.unwrap_err().code, code::USAGE);
}

#[tokio::test]
async fn a_node_whose_new_program_does_not_run_has_failed() {
    let mut silent = Silent::start(2, false);
    let broken = silent.broken();
    let (answer, ended) = silent.restart("node1", &broken).await;
    assert!(answer.unwrap_err().message.contains("node1 cannot start"));
    assert_eq!(ended, None);
    let node = silent.network.list().nodes.swap_remove(0);
    assert_eq!((node.state.as_str(), node.pid), ("ended", None));
    let text = fs::read_to_string(silent.network.layout.network_path()).unwrap();
    let described: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(described["nodes"][0]["pid"], Value::Null);
    assert_ne!(described["nodes"][1]["pid"], Value::Null);
    let (_, ended) = silent.restart("node2", &broken).await;
    assert_eq!(ended.unwrap(), "all nodes have ended");

    let mut strict = Silent::start(2, true);
    let (answer, ended) = strict.restart("node2", &broken).await;
    assert!(answer.is_err() && ended.unwrap().contains("node2 cannot start"));
}

/// The paused clock jumps ahead whenever all tasks wait.
#[tokio::test(start_paused = true)]
async fn a_cut_waits_for_nodes_that_run_and_not_for_those_that_start() {
    let mut silent = Silent::start(2, false);
    let cut = || Action::Isolate { node: "node1".to_owned() };
    let (answer, _) = silent.order(cut()).await;
    assert_eq!(answer.unwrap()["cut"], json!([["node1", "node2"]]));
    silent.network.members[1].state = State::Running;
    let (answer, _) = silent.order(cut()).await;
    let failure = answer.unwrap_err();
    assert!(failure.message.starts_with("node2 has not confirmed its faults"), "{failure}");
    assert!(failure.message.contains("stays in force"), "{failure}");
    assert_eq!(silent.network.list().cut.len(), 1);
}

#[tokio::test]
async fn nodes_that_do_not_stop_in_time_are_killed_and_named() {
    let silent = Silent::start(2, false);
    assert_eq!(silent.network.stop(pending()).await, Vec::<String>::new());
    let deaf = Silent::run("sleep 1000", 2, false);
    assert_eq!(deaf.network.stop(ready(())).await, ["node1", "node2"]);
}
