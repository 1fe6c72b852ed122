//! A node that is one thread: a real chain of four validators, real blocks and proofs, and lies on
//! demand.
// Each test file uses some of it.
#![allow(dead_code)]

mod lie;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use ledger::address::{Coin, encode_address};
use ledger::api;
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{Chain, ChainState, ValidBlock};
use ledger::codec;
use ledger::genesis::{
    FORMAT, Genesis, GenesisAccount, GenesisValidator, Limits, TEMPLATE_ACCOUNTS, template_key,
};
use ledger::signature::{PublicKey, SigningKey};
use ledger::state::StateKey;
use ledger::transaction::{
    Body, Output, Transaction, Transfer, VerifiedTransaction, verify_transactions,
};
use ledger::units::{Amount, Nonce, Round, Timestamp, VotingPower};
use serde_json::{Value, json};

pub use self::lie::Lie;

pub struct Inner {
    pub chain: Arc<Chain>,
    pub blocks: Vec<(ValidBlock, Certificate)>,
    state: ChainState,
    pub lie: Lie,
    /// Whether bob pays alice in the block before a payment, in the same block and in the one
    /// after.
    pub busy: bool,
    /// How far this node's clock is behind, milliseconds.
    pub behind_ms: u64,
    /// How often a block was requested.
    pub blocks_asked: usize,
    /// How often the mempool was requested.
    pub lists_asked: usize,
    /// The mempool.
    pub waiting: Vec<Arc<VerifiedTransaction>>,
    bobs_nonce: u64,
}

#[derive(Clone)]
pub struct FakeNode {
    pub url: String,
    inner: Arc<Mutex<Inner>>,
    /// Notified after each answer.
    answered: Arc<Condvar>,
}

pub fn validator(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

pub fn genesis(network: &str) -> Genesis {
    let start = now() - 1_000;
    // Other networks refuse the template's public keys.
    let key = |name: &str| {
        if network == "local" { template_key(name).unwrap() } else { validator(name.as_bytes()[0]) }
    };
    let account = |name: &&str| GenesisAccount {
        name: (*name).to_owned(),
        account: key(name).public(),
        balance: Amount(1_000_000_000_000),
    };
    let genesis = Genesis {
        format: FORMAT,
        network: network.to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(start),
        accounts: TEMPLATE_ACCOUNTS.iter().map(account).collect(),
        validators: (1..=4)
            .map(|seed| GenesisValidator {
                name: format!("v{seed}"),
                key: validator(seed).public(),
                // One validator's fees go to alice, so that fees touch a sender too.
                payout: if seed == 1 {
                    key("alice").public()
                } else {
                    validator(seed + 10).public()
                },
                power: VotingPower(1),
            })
            .collect(),
        limits: Limits::default(),
    };
    Genesis::from_json(genesis.to_json().as_bytes()).unwrap()
}

pub fn now() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn rejected(message: &str, data: Value) -> Value {
    json!({ "code": api::code::REJECTED, "message": message, "data": data })
}

fn certificate(chain: &Chain, block: &ValidBlock, signers: &[u8]) -> Certificate {
    let vote = |seed: &u8| {
        let vote = Vote {
            kind: VoteKind::Precommit,
            height: block.height(),
            round: Round(0),
            block: Some(block.hash()),
            validator: validator(*seed).public(),
        };
        (vote.validator, validator(*seed).sign(&vote.message(chain.id())))
    };
    let votes: Vec<_> = signers.iter().map(vote).collect();
    Certificate::new(
        block.height(),
        Round(0),
        block.hash(),
        chain.validators(block.height()),
        votes,
    )
}

impl FakeNode {
    pub fn start(genesis: Genesis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let chain = Chain::new(genesis);
        let state = ChainState::genesis(chain.clone());
        let inner = Inner {
            chain,
            blocks: Vec::new(),
            state,
            lie: Lie::None,
            busy: false,
            behind_ms: 0,
            blocks_asked: 0,
            lists_asked: 0,
            waiting: Vec::new(),
            bobs_nonce: 0,
        };
        let node = Self { url, inner: Arc::new(Mutex::new(inner)), answered: Arc::default() };
        let served = node.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let node = served.clone();
                std::thread::spawn(move || node.serve(stream.unwrap()));
            }
        });
        node
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    /// Waits until an answer has made this true.
    pub fn wait_until(&self, is_so: impl Fn(&Inner) -> bool) -> MutexGuard<'_, Inner> {
        self.answered.wait_while(self.lock(), |inner| !is_so(inner)).unwrap()
    }

    pub fn lie(&self, lie: Lie) {
        self.lock().lie = lie;
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let request: Value = serde_json::from_slice(&body).ok()?;
        let answer = self.lock().answer(request["method"].as_str()?, &request["params"]);
        self.answered.notify_all();
        let answer = answer?;
        let status = if self.lock().lie == Lie::Forbids { "403 Forbidden" } else { "200 OK" };
        let answer = match answer {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": 1, "result": result }).to_string(),
            Err(_) if status != "200 OK" => {
                "host \u{1b}[2Jis not allowed; start the node with it\n".to_owned()
            }
            Err(error) if error.is_null() => "<html>hello</html>".to_owned(),
            Err(error) => json!({ "jsonrpc": "2.0", "id": 1, "error": error }).to_string(),
        };
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            answer.len()
        );
        (&stream).write_all(format!("{head}{answer}").as_bytes()).ok()
    }
}

impl Inner {
    /// Makes the next block, with any of the four as proposer in turn.
    pub fn commit(&mut self, transactions: Vec<Arc<VerifiedTransaction>>) {
        let parent = self
            .blocks
            .last()
            .map_or_else(|| Certificate::genesis(self.chain.id()), |(_, c)| c.clone());
        let proposer = validator(u8::try_from(self.blocks.len() % 4).unwrap() + 1).public();
        let count = transactions.len();
        let block =
            self.state.propose(proposer, Timestamp(now() - self.behind_ms), parent, transactions);
        assert_eq!(block.block().transactions.len(), count, "the fake node commits all it takes");
        self.state.advance(&block);
        let certificate = certificate(&self.chain, &block, &[1, 2, 3]);
        self.blocks.push((block, certificate));
    }

    /// Replaces the last block by another certified one.
    pub fn fork(&mut self) {
        self.blocks.pop();
        self.state = ChainState::genesis(self.chain.clone());
        for (block, _) in &self.blocks {
            self.state.advance(block);
        }
        // Another time makes another block.
        std::thread::sleep(std::time::Duration::from_millis(2));
        self.commit(Vec::new());
    }

    pub fn address(&self, key: &PublicKey) -> String {
        encode_address(&self.chain.genesis().address_prefix, key)
    }

    pub fn balance(&self, key: &PublicKey) -> u64 {
        self.state.account(key).balance.0
    }

    /// Makes a block of the waiting transactions.
    pub fn commit_waiting(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        self.commit(waiting);
    }

    /// A transfer of one pebble between accounts of the template.
    pub fn transfer(&self, from: &str, to: &str, nonce: u64) -> Arc<VerifiedTransaction> {
        self.transfer_until(from, to, nonce, now() + 60_000)
    }

    /// The same with another expiry.
    pub fn transfer_until(
        &self,
        from: &str,
        to: &str,
        nonce: u64,
        expires_at: u64,
    ) -> Arc<VerifiedTransaction> {
        let (from, to) = (template_key(from).unwrap(), template_key(to).unwrap());
        let transfer = Transfer {
            sender: from.public(),
            nonce: Nonce(nonce),
            outputs: vec![Output { account: to.public(), amount: Amount(1) }],
            fee: Amount(10_000),
            expires_at: Timestamp(expires_at),
            memo: Vec::new(),
        };
        let transaction = Body::Transfer(transfer).sign(self.chain.id(), &from);
        verify_transactions(self.chain.id(), vec![transaction]).remove(0).unwrap()
    }

    fn bob_pays_alice(&mut self) -> Arc<VerifiedTransaction> {
        self.bobs_nonce += 1;
        self.transfer("bob", "alice", self.bobs_nonce - 1)
    }

    fn answer(&mut self, method: &str, params: &Value) -> Option<Result<Value, Value>> {
        let error = |code: i32, message: &str| {
            let data = json!({ "reason": "why", "hint": "do this" });
            json!({ "code": code, "message": message, "data": data })
        };
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
            api::CHAIN_BLOCK => {
                self.blocks_asked += 1;
                let height: usize = params["height"].as_str()?.parse().ok()?;
                Ok(json!(self.block(height)?))
            }
            api::TX_SUBMIT => {
                let bytes = hex::decode(params["transaction"].as_str()?).ok()?;
                let transaction = Transaction::decode(&bytes).ok()?;
                let verified = verify_transactions(self.chain.id(), vec![transaction]).remove(0)?;
                let id = verified.id().to_string();
                let known = self.transaction(&id).status;
                match (self.lie, self.refusal(&verified)) {
                    (Lie::Rejects, _) => {
                        Err(error(api::code::REJECTED, "I do not\u{1b}[2J like it"))
                    }
                    (Lie::Drops, _) => return None,
                    (_, _) if known != api::TxStatus::Unknown => {
                        Ok(json!({ "id": id, "status": known, "height": null }))
                    }
                    (_, _) if verified.transfer().expires_at.0 > self.latest_expiry() => {
                        let hint = format!(
                            "sign again with an expires_at of at most {}",
                            self.latest_expiry()
                        );
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
                }
            }
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

    /// Why the mempool refuses a transaction.
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

    fn has_expired(&self, sender: &PublicKey, nonce: u64) -> bool {
        let transfers = self.waiting.iter().map(|transaction| transaction.transfer());
        let mut same =
            transfers.filter(|transfer| transfer.sender == *sender && transfer.nonce.0 == nonce);
        same.any(|transfer| transfer.expires_at.0 < now())
    }

    fn claimed_nonce(&self, address: &str) -> u64 {
        match self.lie {
            Lie::NonceAhead => self.pending_nonce(address) + 3,
            Lie::NonceBehind => 0,
            _ => self.pending_nonce(address),
        }
    }

    fn pending_nonce(&self, address: &str) -> u64 {
        let waits = |transaction: &&Arc<VerifiedTransaction>| {
            self.address(&transaction.transfer().sender) == address
        };
        self.account(address).nonce.0 + self.waiting.iter().filter(waits).count() as u64
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

    fn take(&mut self, transaction: Arc<VerifiedTransaction>) {
        match self.lie {
            Lie::Stalls | Lie::FinalAtOnce => self.waiting.push(transaction),
            Lie::FinalInEmpty | Lie::FinalInForged => {
                self.waiting.push(transaction);
                self.commit(Vec::new());
            }
            _ if self.busy => {
                let [before, same, after] = [(); 3].map(|()| self.bob_pays_alice());
                self.commit(vec![before]);
                self.commit(vec![same, transaction]);
                self.commit(vec![after]);
            }
            _ => self.commit(vec![transaction]),
        }
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
            block_hash: String::new(),
            state_root: String::new(),
            history_root: String::new(),
            time: 0,
            peers: 0,
            syncing: false,
            validator: None,
            round: 0,
            mempool_transactions: 0,
            mempool_bytes: 0,
            clock_offset_ms: None,
            quorum: api::QuorumInfo { ok: true, missing: Vec::new(), since_ms: None },
        })
    }

    fn account(&self, address: &str) -> ledger::state::Account {
        self.state.account(&ledger::address::decode_address("crn", address).unwrap())
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
