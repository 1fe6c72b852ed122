//! What the fake node answers to each request, lies included.

use std::sync::Arc;

use ledger::api;
use ledger::certificate::Certificate;
use ledger::chain::ValidBlock;
use ledger::codec;
use ledger::state::StateKey;
use ledger::transaction::{
    Output, Transaction, Transfer, VerifiedTransaction, verify_transactions,
};
use serde_json::{Value, json};

use super::{Inner, Lie, certificate, now, validator};

impl Inner {
    pub(super) fn answer(&mut self, method: &str, params: &Value) -> Option<Result<Value, Value>> {
        if matches!(self.lie, Lie::Html | Lie::Forbids) {
            return Some(Err(Value::Null));
        }
        Some(match method {
            api::CHAIN_STATUS => Ok(self.status()),
            api::CHAIN_GENESIS => {
                Ok(serde_json::from_str(&self.chain.genesis().to_json()).unwrap())
            }
            api::ACCOUNT_PROOF if self.lie == Lie::Vanishes && !self.blocks.is_empty() => {
                return None;
            }
            api::ACCOUNT_PROOF => match self.proof(params["account"].as_str()?) {
                Some(proof) => Ok(proof),
                None => Err(error(api::code::NOT_FOUND, "no block yet")),
            },
            api::ACCOUNT_GET => {
                let account = self.account(params["account"].as_str()?);
                let (balance, nonce) = (account.balance.0, account.nonce.0);
                let pending_nonce = self.claimed_nonce(params["account"].as_str()?);
                let info = api::AccountInfo {
                    address: String::new(),
                    balance,
                    nonce,
                    pending_nonce,
                    height: 0,
                };
                Ok(json!(info))
            }
            api::CHAIN_BLOCK | api::TX_GET | api::TX_PROOF if self.lie == Lie::KeepsNoBlock => {
                let data = json!({ "reason": "not_kept", "hint": "ask another", "holders": [] });
                let message = "it is not in the part of the chain that this node keeps";
                Err(json!({ "code": api::code::NOT_KEPT, "message": message, "data": data }))
            }
            api::CHAIN_BLOCK => {
                self.blocks_asked += 1;
                let height: usize = params["height"].as_str()?.parse().ok()?;
                Ok(json!(self.block(height)?))
            }
            api::TX_SUBMIT => self.submit(params)?,
            api::TX_PROOF if self.lie == Lie::Vanishes => return None,
            api::TX_PROOF => match self.inclusion(params["id"].as_str()?) {
                Some(proof) => Ok(proof),
                None => Err(error(api::code::NOT_FOUND, "not final here")),
            },
            api::TX_GET => {
                let mut info = self.transaction(params["id"].as_str()?);
                info.raw = info.raw.filter(|_| params["raw"] == true);
                Ok(json!(info))
            }
            api::TX_MEMPOOL => {
                self.lists_asked += 1;
                let list: Vec<_> =
                    self.waiting.iter().map(|transaction| self.info(transaction)).collect();
                match self.lie {
                    Lie::NoList => Err(error(api::code::UNAVAILABLE, "busy")),
                    _ => Ok(json!({ "transactions": list.len(), "bytes": "0", "list": list })),
                }
            }
            _ => Err(error(-32_601, "no such method")),
        })
    }

    fn submit(&mut self, params: &Value) -> Option<Result<Value, Value>> {
        let bytes = hex::decode(params["transaction"].as_str()?).ok()?;
        let transaction = Transaction::decode(&bytes).ok()?;
        let verified = verify_transactions(self.chain.id(), vec![transaction]).remove(0)?;
        let id = verified.id().to_string();
        let known = self.transaction(&id).status;
        Some(match (self.lie, self.refusal(&verified)) {
            (Lie::Rejects, _) => Err(error(api::code::REJECTED, "I do not\u{1b}[2J like it")),
            (Lie::Drops, _) => return None,
            (_, _) if known != api::TxStatus::Unknown => {
                Ok(json!({ "id": id, "status": known, "height": null }))
            }
            (_, _) if verified.transfer().expires_at.0 > self.latest_expiry() => {
                let hint =
                    format!("sign again with an expires_at of at most {}", self.latest_expiry());
                let data = json!({ "reason": "expiry_too_far", "hint": hint });
                Err(rejected("expires too late", data))
            }
            (_, Some(reason)) => {
                let data = json!({ "reason": reason, "hint": "sign again" });
                Err(rejected("the nonce is wrong", data))
            }
            _ => {
                self.take(verified);
                (self.lie != Lie::HangsUp).then_some(())?;
                Ok(json!({ "id": id, "status": "pending", "height": null }))
            }
        })
    }

    /// Why the mempool refuses a transaction; `None` if it takes it.
    fn refusal(&self, transaction: &VerifiedTransaction) -> Option<&'static str> {
        let Transfer { sender, nonce, .. } = transaction.transfer();
        let address = self.address(sender);
        match nonce.0 {
            nonce if nonce < self.account(&address).nonce.0 => Some("nonce_used"),
            nonce if nonce < self.pending_nonce(&address) && !self.has_expired(sender, nonce) => {
                Some("underpriced")
            }
            nonce if nonce > self.pending_nonce(&address) => Some("nonce_ahead"),
            _ => None,
        }
    }

    fn latest_expiry(&self) -> u64 {
        now() - self.behind_ms + self.chain.limits().expiry_ms_max
    }

    fn claimed_nonce(&self, address: &str) -> u64 {
        match self.lie {
            Lie::NonceAhead => self.pending_nonce(address) + 3,
            Lie::NonceBehind => 0,
            _ => self.pending_nonce(address),
        }
    }

    /// A proof that a transaction is in its block, or a forged proof for a transaction that is in
    /// no block.
    fn inclusion(&self, id: &str) -> Option<Value> {
        if matches!(self.lie, Lie::Withholds | Lie::NoProof) {
            return None;
        }
        let is_it = |transaction: &&Arc<VerifiedTransaction>| transaction.id().to_string() == id;
        let holds = |(block, _): &&(ValidBlock, Certificate)| {
            block.block().transactions.iter().any(|t| is_it(&t))
        };
        let forged = (self.lie == Lie::FinalInForged).then(|| self.blocks.last()).flatten();
        let real = self.blocks.iter().find(holds);
        let (block, certificate) = real.or(forged)?;
        let mut transactions = block.block().transactions.clone();
        if real.is_none() {
            transactions.extend(self.waiting.iter().cloned());
        }
        let index = transactions.iter().position(|transaction| is_it(&transaction))?;
        let leaves: Vec<_> = transactions.iter().map(|transaction| transaction.hash().0).collect();
        Some(json!(api::TxProofInfo {
            id: id.to_owned(),
            height: block.height().0,
            raw: hex::encode(codec::encode(transactions[index].transaction())),
            inclusion: hex::encode(codec::encode(&ledger::merkle::prove(&leaves, index).unwrap())),
            header: hex::encode(codec::encode(block.header())),
            certificate: hex::encode(codec::encode(certificate)),
        }))
    }

    fn status(&self) -> Value {
        let other = self.lie == Lie::OtherChain;
        json!(api::Status {
            chain_id: if other { "00".repeat(32) } else { self.chain.id().to_string() },
            network: if self.lie == Lie::Long {
                "x".repeat(2 << 20)
            } else if other {
                "elsewhere".to_owned()
            } else {
                self.chain.genesis().network.clone()
            },
            version: "0".to_owned(),
            height: self.blocks.len() as u64,
            quorum: api::QuorumInfo { ok: true, ..api::QuorumInfo::default() },
            ..api::Status::default()
        })
    }

    fn proof(&self, address: &str) -> Option<Value> {
        let height = if let Lie::Old(height) = self.lie {
            usize::try_from(height).unwrap()
        } else {
            self.blocks.len()
        };
        let (block, good) = self.blocks.get(height.checked_sub(1)?)?;
        let key = ledger::address::decode_address("crn", address).unwrap();
        let proved =
            if self.lie == Lie::StaleProof { &self.blocks.get(height - 2)?.0 } else { block };
        let mut proof = codec::encode(&proved.state().prove(&StateKey::account(key)));
        let mut header = block.header().clone();
        match self.lie {
            Lie::TamperedProof => *proof.last_mut().unwrap() ^= 1,
            Lie::OtherHeader => header.state_root.0.0[0] ^= 1,
            Lie::Version => header.version = 9,
            _ => {}
        }
        let certificate = match self.lie {
            Lie::FewSignatures => certificate(&self.chain, block, &[1, 2]),
            Lie::ForeignSignatures => {
                let mut certificate = good.clone();
                let message = b"another message";
                certificate
                    .signatures
                    .iter_mut()
                    .for_each(|signature| *signature = validator(1).sign(message));
                certificate
            }
            _ => good.clone(),
        };
        let head = api::Head {
            header: hex::encode(codec::encode(&header)),
            certificate: hex::encode(codec::encode(&certificate)),
        };
        let pending_nonce = self.claimed_nonce(address);
        Some(json!(api::AccountProofInfo { head, proof: hex::encode(proof), pending_nonce }))
    }

    fn info(&self, transaction: &VerifiedTransaction) -> api::TransactionInfo {
        let transfer = transaction.transfer();
        let lie = u64::from(self.lie == Lie::OtherDetails);
        let output = |output: &Output| api::OutputInfo {
            address: self.address(&output.account),
            amount: output.amount.0 + lie,
        };
        api::TransactionInfo {
            id: transaction.id().to_string(),
            kind: "transfer".to_owned(),
            sender: self.address(&transfer.sender),
            nonce: transfer.nonce.0,
            outputs: transfer.outputs.iter().map(output).collect(),
            fee: transfer.fee.0,
            expires_at: transfer.expires_at.0,
            memo: hex::encode(&transfer.memo),
            anchor: None,
            bytes: u32::try_from(transaction.bytes()).unwrap(),
        }
    }

    fn block(&self, height: usize) -> Option<api::BlockInfo> {
        let (block, certificate) = self.blocks.get(height.checked_sub(1)?)?;
        let header = block.header();
        let mut list: Vec<_> =
            block.block().transactions.iter().map(|transaction| self.info(transaction)).collect();
        if self.lie == Lie::Withholds {
            list.clear();
        }
        if self.lie == Lie::FinalInForged {
            list.extend(self.waiting.iter().map(|transaction| self.info(transaction)));
        }
        Some(api::BlockInfo {
            summary: api::BlockSummary {
                height: header.height.0,
                hash: block.hash().to_string(),
                time: header.time.0,
                proposer: header.proposer.to_string(),
                transactions: u32::try_from(list.len()).unwrap(),
                bytes: block.bytes().len() as u64,
            },
            parent: header.parent.to_string(),
            version: header.version,
            transactions_root: header.transactions_root.to_string(),
            state_root: header.state_root.to_string(),
            history_root: header.history_root.to_string(),
            round: 0,
            signers: certificate
                .signer_keys(self.chain.validators(header.height))
                .iter()
                .map(ToString::to_string)
                .collect(),
            transaction_list: list,
            raw: None,
        })
    }

    fn transaction(&self, id: &str) -> api::TxInfo {
        let mut info = api::TxInfo {
            id: id.to_owned(),
            status: api::TxStatus::Unknown,
            height: None,
            block_hash: None,
            index: None,
            accepted_at: None,
            final_at: None,
            transaction: None,
            raw: None,
        };
        if self.lie == Lie::Withholds {
            return info;
        }
        if let Some(transaction) =
            self.waiting.iter().find(|transaction| transaction.id().to_string() == id)
        {
            info.status = api::TxStatus::Pending;
            info.transaction = Some(self.info(transaction));
            let mut raw = codec::encode(transaction.transaction());
            if self.lie == Lie::ForgedPending {
                *raw.last_mut().unwrap() ^= 1;
            }
            info.raw = Some(hex::encode(raw));
            if matches!(self.lie, Lie::FinalAtOnce | Lie::FinalInEmpty | Lie::FinalInForged) {
                info.status = api::TxStatus::Final;
                info.height = Some(self.blocks.len() as u64);
            }
        }
        for (block, _) in &self.blocks {
            if let Some(transaction) =
                block.block().transactions.iter().find(|t| t.id().to_string() == id)
            {
                info.status = api::TxStatus::Final;
                info.height = Some(block.height().0);
                info.block_hash = Some(block.hash().to_string());
                info.accepted_at = Some(block.header().time.0);
                info.final_at = Some(block.header().time.0);
                info.transaction = Some(self.info(transaction));
            }
        }
        info
    }
}

fn error(code: i32, message: &str) -> Value {
    let data = json!({ "reason": "why", "hint": "do this" });
    json!({ "code": code, "message": message, "data": data })
}

fn rejected(message: &str, data: Value) -> Value {
    json!({ "code": api::code::REJECTED, "message": message, "data": data })
}
