//! `testnet faucet`: pays coins to an address.

use clap::Args;

use super::Target;
use crate::testnet::action::Action;

/// Pay coins of a funded account to an address, and wait until that is final and proved
#[derive(Debug, Args)]
pub(crate) struct Faucet {
    /// Who receives
    address: String,
    /// Amount with its unit: "10 CRN"
    amount: String,
}

impl Faucet {
    pub(super) async fn execute(self, target: &Target) -> anyhow::Result<()> {
        let action = Action::Faucet { address: self.address, amount: self.amount };
        let paid = target.act(&action).await?;
        let id = paid["id"].as_str().unwrap_or_default().to_owned();
        target.print(&paid, &id)
    }
}
