//! `wait`: returns when all running nodes have reached something.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::super::list::{List, Listed};
use super::super::values::duration;
use super::{CommandError, Target};
use crate::clock::wall_ms;

/// Time between two looks at the network.
const LOOK: Duration = Duration::from_millis(50);
/// Longest time of a look that begins when the time is up.
const LAST_LOOK_MAX: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub(crate) struct Wait {
    /// Until each running node has a final block that was made after this command began. An idle
    /// network makes a block every five seconds
    #[arg(long = "final")]
    is_final: bool,
    /// Until each running node has reached this height
    #[arg(long, value_name = "HEIGHT")]
    height: Option<u64>,
    /// Longest time to wait, such as 10s or 500ms
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    timeout: Duration,
}

impl Wait {
    pub(super) async fn execute(self, target: &Target) -> anyhow::Result<()> {
        let (start, begin) = (wall_ms(), Instant::now());
        loop {
            // A look gets the time that is left and a bit more, since the last look may begin when
            // the time is up.
            let left = self.timeout.saturating_sub(begin.elapsed());
            let list = target.list_within(left.saturating_add(LAST_LOOK_MAX)).await?;
            let late = self.late(&list, start);
            if late.is_empty() {
                let text = list.text();
                return target.print(&serde_json::to_value(&list)?, &text);
            }
            if begin.elapsed() >= self.timeout {
                let text = format!("not in time, after {:?}: {}", self.timeout, late.join(", "));
                return Err(CommandError::NotInTime(text).into());
            }
            sleep(LOOK).await;
        }
    }

    /// What is still missing, node by node.
    fn late(&self, list: &List, start: u64) -> Vec<String> {
        let mut up = list.nodes.iter().filter(|node| node.is_up()).peekable();
        if up.peek().is_none() {
            return vec!["no node runs".to_owned()];
        }
        up.filter_map(|node| self.lacks(node, start)).collect()
    }

    fn lacks(&self, node: &Listed, start: u64) -> Option<String> {
        let name = &node.name;
        let (Some(height), Some(time)) = (node.height, node.time) else {
            return Some(format!("{name} does not answer"));
        };
        if let Some(wanted) = self.height.filter(|wanted| height < *wanted) {
            return Some(format!("{name} is at height {height} of {wanted}"));
        }
        (self.is_final && !is_young(node, start)).then(|| {
            let age = Duration::from_millis(wall_ms().saturating_sub(time)).as_secs_f64();
            format!("the last final block of {name} is {age:.1} s old")
        })
    }
}

fn is_young(node: &Listed, start: u64) -> bool {
    node.height.is_some_and(|height| height > 0) && node.time.is_some_and(|time| time >= start)
}

/// Whether a node runs, and each one that runs has a final block of the time `start` (milliseconds
/// since 1970) or later.
pub(in crate::testnet) fn all_final(list: &List, start: u64) -> bool {
    let mut up = list.nodes.iter().filter(|node| node.is_up()).peekable();
    up.peek().is_some() && up.all(|node| is_young(node, start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(nodes: &[(&str, Option<u64>)]) -> List {
        let node = |(state, height): &(&str, Option<u64>)| Listed {
            name: "node1".to_owned(),
            validator: true,
            state: (*state).to_owned(),
            height: *height,
            time: height.map(|height| height * 1_000),
            peers: None,
            pid: None,
            rpc: String::new(),
            home: std::path::PathBuf::new(),
        };
        List { nodes: nodes.iter().map(node).collect(), ..List::default() }
    }

    #[test]
    fn only_nodes_that_run_are_waited_for() {
        let timeout = Duration::ZERO;
        let answers = Wait { is_final: false, height: None, timeout };
        let high = Wait { is_final: false, height: Some(5), timeout };
        let young = Wait { is_final: true, height: None, timeout };
        for (nodes, [answering, reached, recent]) in [
            (&[("running", Some(5)), ("killed", None)][..], [true, true, true]),
            (&[("running", Some(4)), ("ended", None)], [true, false, false]),
            (&[("running", Some(0))], [true, false, false]),
            (&[("running", Some(5)), ("starting", None)], [false, false, false]),
            (&[("killed", None)], [false, false, false]),
            (&[], [false, false, false]),
        ] {
            let list = list(nodes);
            assert_eq!(answers.late(&list, 5_000).is_empty(), answering, "{nodes:?}");
            assert_eq!(high.late(&list, 5_000).is_empty(), reached, "{nodes:?}");
            assert_eq!(young.late(&list, 5_000).is_empty(), recent, "{nodes:?}");
            assert_eq!(all_final(&list, 5_000), recent, "{nodes:?}");
        }
    }
}
