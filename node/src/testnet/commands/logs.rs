//! `logs`: the logs of one node or of all nodes.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::sleep;

use super::super::layout::Layout;
use super::super::plan::NODE_LOG;
use super::super::tail::Tail;
use super::{CommandError, Target};
use crate::control::{Client, ControlError};
use crate::output::{print, print_json};

/// Time between two looks at the logs.
const LOOK: Duration = Duration::from_millis(100);
/// New nodes are looked for once in this many looks at the logs.
const NODES_LOOK: u32 = 10;

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Name of the node; all nodes by default, each line with the name of its node
    node: Option<String>,
    /// Go on with new lines, also over restarts, until the network ends
    #[arg(short, long)]
    follow: bool,
}

/// The log of a node.
struct Source {
    name: String,
    tail: Tail,
}

impl Logs {
    /// Works on a stopped network too.
    pub(super) async fn execute(self, target: &Target) -> anyhow::Result<()> {
        let mut sources = Vec::new();
        self.find(target, &mut sources)?;
        for look in 1.. {
            // The check comes before the read, so that the last lines of a network that ends are
            // shown.
            let goes_on = self.follow && is_running(target).await;
            for source in &mut sources {
                source.read(|name, line| self.show(name, line, target))?;
            }
            if !goes_on {
                break;
            }
            sleep(LOOK).await;
            if look % NODES_LOOK == 0 {
                self.find(target, &mut sources)?;
            }
        }
        Ok(())
    }

    /// Finds the nodes whose logs are shown.
    fn find(&self, target: &Target, sources: &mut Vec<Source>) -> anyhow::Result<()> {
        let Some(layout) = Layout::open(&target.dir)? else {
            return Err(CommandError::Absent { dir: target.dir.clone() }.into());
        };
        let names: Vec<&str> = layout.nodes.iter().map(|node| node.name.as_str()).collect();
        if let Some(name) = self.node.as_ref().filter(|name| !names.contains(&name.as_str())) {
            let known = names.join(", ");
            let text = format!("there is no node {name:?}; there are {known}");
            return Err(CommandError::Usage(text).into());
        }
        let known = sources.len();
        let is_wanted = |name: &String| self.node.as_ref().is_none_or(|wanted| wanted == name);
        let wanted = layout.nodes.into_iter().filter(|node| is_wanted(&node.name)).skip(known);
        sources.extend(
            wanted.map(|node| Source {
                tail: Tail::from(node.home.join(NODE_LOG), 0),
                name: node.name,
            }),
        );
        Ok(())
    }

    fn show(&self, name: &str, line: &str, target: &Target) -> anyhow::Result<()> {
        match (target.json, &self.node) {
            (true, _) => print_json(&json!({ "node": name, "line": line })),
            (false, None) => Ok(print(&format!("{name}  {line}"))?),
            (false, Some(_)) => Ok(print(line)?),
        }
    }
}

impl Source {
    /// Shows new lines, up to where the log ends now: a node may write faster than we show.
    fn read(
        &mut self,
        mut show: impl FnMut(&str, &str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let end = self.tail.end()?;
        loop {
            let before = self.tail.at();
            for line in self.tail.read()? {
                show(&self.name, &line)?;
            }
            let at = self.tail.at();
            if at >= end || at == before {
                return Ok(());
            }
        }
    }
}

async fn is_running(target: &Target) -> bool {
    !matches!(Client::connect(&target.dir).await, Err(ControlError::Absent { .. }))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_that_grows_while_it_is_shown_has_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NODE_LOG);
        let mut log = File::create(&path).unwrap();
        // Several reads of the file, and a line that is longer than one read.
        for length in [10_000; 20].into_iter().chain([200_000]) {
            writeln!(log, "{}", "x".repeat(length)).unwrap();
        }
        writeln!(log, "last").unwrap();
        let mut source = Source { name: "node1".to_owned(), tail: Tail::from(path, 0) };
        let mut shown = Vec::new();
        source
            .read(|_, line| {
                anyhow::ensure!(shown.len() < 1_000, "no end");
                shown.push(line.to_owned());
                writeln!(log, "more").unwrap();
                Ok(())
            })
            .unwrap();
        assert_eq!(shown.get(21).map(String::as_str), Some("last"));
    }
}
