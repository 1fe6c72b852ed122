//! Payments on the network: the load, and the faucet.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::faucet;
use super::super::load::pace::RATE_MAX;
use super::super::load::traffic::{Chain, Traffic};
use super::Supervisor;
use super::member::{Member, Reply};
use crate::control::{Failure, code};

/// What a call asks of the running load.
pub(super) enum Question {
    /// What it has done so far; null if none runs.
    Figures,
    /// Let no transfer become due from this long after the load's start on.
    Rest(Duration),
}

impl Supervisor {
    /// The chain, and the RPC of the nodes that can take transfers, the best choice first: the
    /// named node alone, or else all nodes. Nodes that are up come first. Among these, full nodes
    /// come before validators, and the last full node comes first of all.
    pub(super) fn payable(&self, node: Option<&str>) -> Result<Chain, Failure> {
        let all = || self.members.iter();
        let rpc: Vec<String> = match node {
            Some(name) => vec![self.members[self.find(name)?].node.rpc_url()],
            None => {
                let full = all().rev().filter(|member| !member.node.validator);
                let ordered = full.chain(all().filter(|member| member.node.validator));
                let (up, down): (Vec<&Member>, Vec<&Member>) =
                    ordered.partition(|member| member.is_up());
                up.into_iter().chain(down).map(|member| member.node.rpc_url()).collect()
            }
        };
        Ok(Chain { genesis: Arc::new(self.layout.genesis.clone()), rpc })
    }

    /// Starts a load in place of the running one, or ends it and tells what it did: null if none
    /// ran.
    pub(super) fn load(&mut self, per_second: u32, chain: Chain) -> Result<Value, Failure> {
        if per_second == 0 {
            return Ok(self.traffic.take().as_ref().map_or(Value::Null, Traffic::figures));
        }
        if per_second > RATE_MAX {
            let text = format!("expected at most {RATE_MAX} transfers a second");
            return Err(Failure::new(code::USAGE, text));
        }
        let traffic = Traffic::start(chain, per_second);
        self.traffic = Some(traffic.map_err(|error| Failure::failed(format!("{error:#}")))?);
        Ok(json!({}))
    }

    pub(super) fn answer(&self, question: &Question) -> Result<Value, Failure> {
        let traffic = self.traffic.as_ref();
        match question {
            Question::Figures => Ok(traffic.map_or(Value::Null, Traffic::figures)),
            Question::Rest(after) => {
                traffic.ok_or_else(|| Failure::failed("no load runs"))?.rest(*after);
                Ok(json!({}))
            }
        }
    }
}

/// Pays from the faucet. The reply comes once the transfer is final and proved, or with the reason
/// why not.
pub(super) fn pay(chain: Chain, address: String, amount: String, reply: Reply) {
    tokio::spawn(async move { reply.send(faucet::pay(chain, address, amount).await) });
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::genesis::Genesis;

    use super::super::Options;
    use super::*;
    use crate::testnet::TEMPLATE;
    use crate::testnet::layout::Layout;
    use crate::testnet::plan::Wanted;
    use crate::testnet::ports::BasePort;

    /// A network whose only node ends at once.
    fn network(folder: &tempfile::TempDir) -> Supervisor {
        let genesis = Genesis::from_json(TEMPLATE.as_bytes()).unwrap();
        let wanted = Wanted {
            nodes: Some(1),
            full_nodes: None,
            base_port: Some(BasePort::Auto),
            seed: None,
            history: None,
        };
        let layout = Layout::prepare(folder.path(), &wanted, None, &genesis, false).unwrap();
        let options = Options {
            program: "true".into(),
            log: None,
            fail_fast: false,
            is_watched: false,
            is_detached: false,
        };
        Supervisor::start(layout, options).unwrap()
    }

    #[tokio::test]
    async fn a_rate_has_a_limit_whoever_asks_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut network = network(&folder);
        let mut load = |per_second| {
            let chain = network.payable(None).unwrap();
            network.load(per_second, chain).map_err(|failure| failure.code)
        };
        assert_eq!(load(RATE_MAX + 1), Err(code::USAGE));
        assert_eq!(load(RATE_MAX), Ok(json!({})));
    }

    #[tokio::test]
    async fn the_figures_of_no_load_are_null() {
        let folder = tempfile::tempdir().unwrap();
        let mut network = network(&folder);
        let chain = network.payable(None).unwrap();
        assert_eq!(network.answer(&Question::Figures), Ok(Value::Null));
        assert_eq!(network.load(1, chain.clone()), Ok(json!({})));
        assert_eq!(network.answer(&Question::Figures).unwrap()["final"], 0);
        assert_eq!(network.load(0, chain.clone()).unwrap()["final"], 0);
        assert_eq!(network.load(0, chain), Ok(Value::Null));
    }
}
