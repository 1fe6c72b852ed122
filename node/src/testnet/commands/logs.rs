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
/// How often new nodes are looked for, in looks at the logs.
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
            // The network is looked at first, so that its last lines are shown.
            let goes_on = self.follow && is_running(target).await;
            let mut is_drained = false;
            while !is_drained {
                is_drained = true;
                for source in &mut sources {
                    is_drained &= !self.show(source, target)?;
                }
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

    /// Shows new lines. Returns whether there were any.
    fn show(&self, source: &mut Source, target: &Target) -> anyhow::Result<bool> {
        let lines = source.tail.read()?;
        for line in &lines {
            match (target.json, &self.node) {
                (true, _) => print_json(&json!({ "node": source.name, "line": line }))?,
                (false, None) => print(&format!("{}  {line}", source.name))?,
                (false, Some(_)) => print(line)?,
            }
        }
        Ok(!lines.is_empty())
    }
}

async fn is_running(target: &Target) -> bool {
    !matches!(Client::connect(&target.dir).await, Err(ControlError::Absent { .. }))
}
