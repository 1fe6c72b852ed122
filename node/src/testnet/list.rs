//! A network as `ls --json` tells it, and how people read it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A running network: its nodes and its faults.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct List {
    pub(super) nodes: Vec<Listed>,
    /// Pairs of nodes whose link is cut.
    pub(super) cut: Vec<[String; 2]>,
    /// Pairs of nodes with a latency, in milliseconds each way.
    pub(super) latency_ms: Vec<(String, String, u32)>,
}

/// One node.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) validator: bool,
    /// `starting`, `running`, `killed` or `ended`.
    pub(super) state: String,
    /// Height of its last final block; null while it does not answer.
    pub(super) height: Option<u64>,
    /// Time of that block, milliseconds since 1970.
    pub(super) time: Option<u64>,
    pub(super) peers: Option<u32>,
    pub(super) pid: Option<u32>,
    pub(super) rpc: String,
    pub(super) home: PathBuf,
}

impl Listed {
    /// Whether the node runs, or is about to.
    pub(super) fn is_up(&self) -> bool {
        self.state == "running" || self.state == "starting"
    }
}

impl List {
    /// A table of nodes, and a line for each fault.
    pub(super) fn text(&self) -> String {
        let some = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let header = ["node", "role", "state", "height", "peers", "pid", "rpc"].map(str::to_owned);
        let row = |node: &Listed| {
            [
                node.name.clone(),
                if node.validator { "validator" } else { "full node" }.to_owned(),
                node.state.clone(),
                some(node.height),
                some(node.peers.map(u64::from)),
                some(node.pid.map(u64::from)),
                node.rpc.clone(),
            ]
        };
        let rows: Vec<[String; 7]> =
            std::iter::once(header).chain(self.nodes.iter().map(row)).collect();
        let mut text = String::new();
        for row in &rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
                line += &format!("{cell:width$}  ");
            }
            text += &format!("{}\n", line.trim_end());
        }
        for [a, b] in &self.cut {
            text += &format!("cut: {a} and {b}\n");
        }
        for (a, b, ms) in &self.latency_ms {
            text += &format!("latency: {ms} ms each way between {a} and {b}\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_a_table_and_its_faults() {
        let node = |name: &str, height| Listed {
            name: name.to_owned(),
            validator: true,
            state: "running".to_owned(),
            height,
            time: None,
            peers: Some(3),
            pid: Some(7),
            rpc: "http://127.0.0.1:1".to_owned(),
            home: PathBuf::new(),
        };
        let list = List {
            nodes: vec![node("node1", Some(12)), node("node10", None)],
            cut: vec![["node1".to_owned(), "node10".to_owned()]],
            latency_ms: vec![("node1".to_owned(), "node10".to_owned(), 50)],
        };
        assert_eq!(
            list.text(),
            "node    role       state    height  peers  pid  rpc\n\
             node1   validator  running  12      3      7    http://127.0.0.1:1\n\
             node10  validator  running  -       3      7    http://127.0.0.1:1\n\
             cut: node1 and node10\n\
             latency: 50 ms each way between node1 and node10\n"
        );
    }
}
