//! Makes the history of `testnet --history`: transfers among the template accounts (alice, bob,
//! carol and dave) in blocks that all validators signed. It is written to the validators' homes
//! before any node starts.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use ledger::chain::Chain;
use ledger::genesis::{Genesis, Limits};
use ledger::signature::SigningKey;
use ledger::store::Store;
use ledger::transaction::{Output, Transfer};
use ledger::units::{Amount, Height, Nonce, Timestamp};

use super::payers;
use crate::chain_maker::{ChainMaker, sign_transfers};
use crate::consensus_log::ConsensusLog;
use crate::files::copy_dir;
use crate::home::Home;
use crate::keys::Seed;
use crate::screen::{draw_target, say};

/// Most transfers of a history. They take 370 MB in each home.
pub(super) const TRANSFERS_MAX: u32 = 1_000_000;
/// Number of transfers in a block. If the chain's limits allow fewer, a block has as many as fit.
/// With the limits of the template, 15 blocks fill a segment. So a segment has about 3,000
/// transfers.
const BLOCK_TRANSFERS: u64 = 200;
/// Bytes of a memo. They make transfers larger, so that fewer signatures fill a segment.
const MEMO_BYTES: usize = 192;
/// Bytes of a transfer of one output with such a memo.
const TRANSFER_BYTES: u64 = 177 + MEMO_BYTES as u64;
/// Time between two blocks, if the chain allows it.
const BLOCK_TIME_MS: u64 = 1_000;
/// How long a transfer is valid after its block, if the chain allows it.
const LIFE_MS: u64 = 60_000;
/// Blocks committed at once.
const BATCH: usize = 32;
/// Time between two lines of progress, where no bar can be drawn.
const LINE_INTERVAL: Duration = Duration::from_secs(1);
const BAR: &str = "making the history {bar:20} {pos} of {len} transfers, {eta} left";

/// The blocks to make.
pub(super) struct Recipe {
    transfers: u64,
    per_block: u64,
    block_time_ms: u64,
}

impl Recipe {
    pub(super) fn new(transfers: u32, limits: &Limits) -> Self {
        let fit = (limits.block_bytes_max / TRANSFER_BYTES).max(1);
        Self {
            transfers: transfers.into(),
            per_block: BLOCK_TRANSFERS.min(fit),
            block_time_ms: BLOCK_TIME_MS.max(limits.block_interval_ms),
        }
    }

    /// The time from the start of the chain until a block after the last one is due, in
    /// milliseconds.
    pub(super) const fn span_ms(&self) -> u64 {
        (self.transfers.div_ceil(self.per_block) + 1) * self.block_time_ms
    }

    /// Makes the history in the first of these homes, and copies it to the others. `homes` are
    /// those of all validators, just made for this genesis. `validators` are their keys.
    pub(super) fn make(
        &self,
        homes: &[impl AsRef<Path>],
        genesis: &Genesis,
        validators: &[Seed],
    ) -> anyhow::Result<()> {
        let homes = homes.iter().map(|home| Home::open(home.as_ref()));
        let homes: Vec<Home> = homes.collect::<Result<_, _>>()?;
        let (first, others) = homes.split_first().context("a network has a validator")?;
        let tip = self.write(&first.db_path(), genesis, validators)?;
        for home in others {
            let db = home.db_path();
            let name = || db.display().to_string();
            fs::remove_dir_all(&db).with_context(name)?;
            copy_dir(&first.db_path(), &db).with_context(name)?;
        }
        for home in &homes {
            // A cut at the next height says that everything that was signed from there on is in
            // this log: nothing yet. So the validators may sign at once.
            let (mut log, _) = ConsensusLog::open(&home.consensus_log_path())?;
            log.cut(tip.next())?;
            log.sync()?;
        }
        Ok(())
    }

    fn write(&self, db: &Path, genesis: &Genesis, validators: &[Seed]) -> anyhow::Result<Height> {
        let senders = payers::keys(genesis);
        let fee = self.check(genesis, &senders)?;
        let chain = Chain::new(genesis.clone());
        let store = Store::open(db, &chain)?.store;
        let validators = validators.iter().map(Seed::signing_key).collect();
        let mut maker = ChainMaker::new(chain.clone(), validators);
        let (mut made, mut batch, mut shown) = (0, Vec::new(), Instant::now());
        let bar = ProgressBar::with_draw_target(Some(self.transfers), draw_target())
            .with_style(ProgressStyle::with_template(BAR)?);
        while made < self.transfers {
            let time = Timestamp(maker.state().tip().time.0.saturating_add(self.block_time_ms));
            let expires_at =
                Timestamp(time.0.saturating_add(LIFE_MS.min(genesis.limits.expiry_ms_max)));
            let end = self.transfers.min(made + self.per_block);
            let transfers = sign_transfers(chain.id(), made..end, |number| {
                let (turn, round) = (number % senders.len() as u64, number / senders.len() as u64);
                let at = |turn: u64| &senders[usize::try_from(turn).unwrap_or(0) % senders.len()];
                let transfer = Transfer {
                    sender: at(turn).public(),
                    nonce: Nonce(round),
                    outputs: vec![Output { account: at(turn + 1).public(), amount: Amount(1) }],
                    fee,
                    expires_at,
                    memo: format!("{number:0>MEMO_BYTES$}").into_bytes(),
                };
                (transfer, at(turn))
            });
            batch.push(maker.block(time, transfers));
            made = end;
            if batch.len() >= BATCH {
                store.commit(&std::mem::take(&mut batch))?;
                store.maintain()?;
            }
            bar.set_position(made);
            if bar.is_hidden() && shown.elapsed() >= LINE_INTERVAL {
                shown = Instant::now();
                say(&format!("making the history: {made} of {} transfers", self.transfers));
            }
        }
        store.commit(&batch)?;
        bar.finish_and_clear();
        Ok(maker.state().tip().height)
    }

    /// The fee of each transfer, if the accounts can pay all of them.
    fn check(&self, genesis: &Genesis, senders: &[SigningKey]) -> anyhow::Result<Amount> {
        ensure!(
            !senders.is_empty(),
            "--history: the genesis has none of the template accounts, so nobody can pay"
        );
        let fee = genesis.limits.fee_per_byte.0.saturating_mul(TRANSFER_BYTES);
        let each = self.transfers.div_ceil(senders.len() as u64);
        let needed = fee.saturating_add(1).saturating_mul(each);
        for sender in senders {
            let account = genesis.accounts.iter().find(|entry| entry.account == sender.public());
            let balance = account.map_or(Amount(0), |account| account.balance);
            ensure!(
                needed <= balance.0,
                "--history {}: {} has {}, and its fees would be {}",
                self.transfers,
                account.map_or("an account", |account| &account.name),
                genesis.coin.format(balance),
                genesis.coin.format(Amount(needed))
            );
        }
        Ok(Amount(fee))
    }
}
