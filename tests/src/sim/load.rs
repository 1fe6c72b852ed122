//! Load: transfers from the accounts of local networks. Each may be signed before earlier ones are
//! final, and is submitted again until it is final.

use std::sync::Arc;

use ledger::chain::{ChainState, least_fee};
use ledger::codec;
use ledger::genesis::{TEMPLATE_ACCOUNTS, template_key};
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::{Body, Output, Transfer, VerifiedTransaction, verify_transactions};
use ledger::units::{Amount, Nonce, Timestamp};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::plan::pick;

/// Most transfers of one account that are not final, at any time.
const AHEAD_MAX: usize = 12;
const HOUR_MS: u64 = 3_600_000;

struct Payer {
    key: SigningKey,
    /// Every transfer it signed, by nonce.
    signed: Vec<Arc<VerifiedTransaction>>,
}

impl Payer {
    fn waiting(&self, chain: &ChainState) -> &[Arc<VerifiedTransaction>] {
        let Nonce(next) = chain.account(&self.key.public()).nonce;
        usize::try_from(next).ok().and_then(|next| self.signed.get(next..)).unwrap_or_default()
    }
}

/// All payers.
pub(crate) struct Load {
    payers: Vec<Payer>,
}

impl Load {
    pub(crate) fn new() -> Self {
        let keys = TEMPLATE_ACCOUNTS.iter().filter_map(|name| template_key(name));
        Self { payers: keys.map(|key| Payer { key, signed: Vec::new() }).collect() }
    }

    /// Number of transfers signed and not yet final.
    pub(crate) fn waiting(&self, chain: &ChainState) -> usize {
        self.payers.iter().map(|payer| payer.waiting(chain).len()).sum()
    }

    /// A transfer to submit: sometimes an old one, which a node may have lost, otherwise a new one.
    pub(crate) fn next(
        &mut self,
        rng: &mut ChaCha8Rng,
        chain: &ChainState,
        now: Timestamp,
    ) -> Option<Arc<VerifiedTransaction>> {
        let place = rng.random_range(0..self.payers.len());
        let waiting = self.payers[place].waiting(chain);
        if waiting.len() >= AHEAD_MAX || (!waiting.is_empty() && rng.random_ratio(1, 3)) {
            return Some(Arc::clone(pick(rng, waiting)));
        }
        let accounts: Vec<PublicKey> = self.payers.iter().map(|payer| payer.key.public()).collect();
        let count = rng.random_range(1..=3);
        let outputs = (0..count).map(|_| Output {
            // Now and then the recipient is a new account.
            account: match rng.random_ratio(1, 20) {
                true => SigningKey::from_seed(&rng.random()).public(),
                false => *pick(rng, &accounts),
            },
            amount: Amount(rng.random_range(1..=1_000_000)),
        });
        let outputs: Vec<Output> = outputs.collect();
        let payer = &mut self.payers[place];
        let transfer = Transfer {
            sender: payer.key.public(),
            nonce: Nonce(payer.signed.len() as u64),
            outputs,
            fee: Amount(0),
            expires_at: Timestamp(now.0.saturating_add(HOUR_MS)),
            memo: Vec::new(),
        };
        let signed = sign(chain, &payer.key, transfer)?;
        payer.signed.push(Arc::clone(&signed));
        Some(signed)
    }

    /// All transfers that are not final yet, to be submitted again.
    pub(crate) fn again(&self, chain: &ChainState) -> Vec<Arc<VerifiedTransaction>> {
        self.payers.iter().flat_map(|payer| payer.waiting(chain)).cloned().collect()
    }
}

/// Signs a transfer with a fee for its size and for every account it could create.
fn sign(
    chain: &ChainState,
    key: &SigningKey,
    transfer: Transfer,
) -> Option<Arc<VerifiedTransaction>> {
    let id = chain.chain().id();
    let created = transfer.outputs.len() as u64;
    let bytes = codec::encode(&Body::Transfer(transfer.clone()).sign(id, key)).len();
    let fee = least_fee(chain.chain().limits(), bytes, created);
    let transaction = Body::Transfer(Transfer { fee, ..transfer }).sign(id, key);
    verify_transactions(id, vec![transaction]).pop().flatten()
}
