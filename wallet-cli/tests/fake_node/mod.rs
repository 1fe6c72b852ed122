//! A fake node within the test's process: a real chain of four validators, real blocks and proofs,
//! and lies on demand.
// Each test file uses only a part of this module, so the compiler would warn of dead code.
#![allow(dead_code)]

mod answers;
mod lie;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use ledger::address::{Coin, encode_address};
use ledger::certificate::{Certificate, Vote, VoteKind};
use ledger::chain::{Chain, ChainState, ValidBlock};
use ledger::genesis::{
    FORMAT, Genesis, GenesisAccount, GenesisValidator, Limits, TEMPLATE_ACCOUNTS, template_key,
};
use ledger::signature::{PublicKey, SigningKey};
use ledger::transaction::{Body, Output, Transfer, VerifiedTransaction, verify_transactions};
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
    /// How far this node's clock is behind, in milliseconds.
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

    /// Waits until this is true. It is checked again after each answer.
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
    /// Makes the next block. The four validators propose in turn.
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
        // A block with another time has another hash.
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

    /// As `transfer`, with another expiry.
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

    fn has_expired(&self, sender: &PublicKey, nonce: u64) -> bool {
        let transfers = self.waiting.iter().map(|transaction| transaction.transfer());
        let mut same =
            transfers.filter(|transfer| transfer.sender == *sender && transfer.nonce.0 == nonce);
        same.any(|transfer| transfer.expires_at.0 < now())
    }

    fn pending_nonce(&self, address: &str) -> u64 {
        let waits = |transaction: &&Arc<VerifiedTransaction>| {
            self.address(&transaction.transfer().sender) == address
        };
        self.account(address).nonce.0 + self.waiting.iter().filter(waits).count() as u64
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

    fn account(&self, address: &str) -> ledger::state::Account {
        self.state.account(&ledger::address::decode_address("crn", address).unwrap())
    }
}
