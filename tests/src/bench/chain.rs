//! The chain that the nodes of a bench transfer. It has few signatures for many bytes, so that the
//! bench measures links and not signature checks.
//!
//! The chain is made by the nodes' own functions, once for each recipe. Later runs reuse it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use ledger::address::Coin;
use ledger::chain::{Chain, ChainState, Committed};
use ledger::genesis::{FORMAT, Genesis, GenesisAccount, GenesisValidator, Limits};
use ledger::hash::{Domain, Hash};
use ledger::signature::{PublicKey, SigningKey};
use ledger::snapshot::{Frontier, SnapshotRules};
use ledger::store::{ERA_SEGMENTS, Snapshots, Store};
use ledger::transaction::{MEMO_BYTES_MAX, OUTPUTS_MAX, Output, Transfer};
use ledger::units::{Amount, Height, Nonce, Timestamp, VotingPower};
use node::chain_maker::{ChainMaker, sign_transfers};
use node::home::Home;
use node::keys::Seed;
use serde::{Deserialize, Serialize};

use super::options::Swarm;
use super::{say, stop};

/// Version of the recipes. It is raised when the same recipe gives another chain.
const VERSION: u32 = 5;
/// Number of accounts that pay, in turn. It is small, since `pay` runs two threads for each.
pub(super) const SENDERS: u64 = 8;
/// Bytes of a transfer with all outputs and a full memo.
const TRANSFER_BYTES: u64 = 2_953;
/// Approximate bytes of transactions in a block.
const BLOCK_BYTES: u64 = 1 << 20;
/// Blocks after the last sealed segment, and transfers in each of them.
const TAIL: (u64, u64) = (3, 10);
/// Folders of a chain on disk: its store and its snapshots.
const DB: &str = "db";
const SNAPSHOTS: &str = "snapshots";
/// Number of blocks committed at once.
const BATCH: usize = 8;

/// The parameters that determine the bytes of a chain.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Recipe {
    version: u32,
    /// Sealed segments.
    segments: u32,
    segment_kib: u32,
    accounts: u32,
    chunk_kib: u32,
    validators: u16,
}

/// A chain on disk.
pub(super) struct MadeChain {
    pub(super) directory: PathBuf,
    pub(super) genesis: Genesis,
    pub(super) facts: Facts,
}

/// Size of the chain.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Facts {
    /// Height of the last block.
    pub(super) height: u64,
    /// Height of the last block in a sealed segment.
    pub(super) sealed: u64,
    /// Sealed segments.
    pub(super) segments: u64,
    /// Chunks in the sealed segments.
    pub(super) chunks: u64,
    /// Bytes of the sealed segments: the payload.
    pub(super) bytes: u64,
}

impl Recipe {
    /// The chain of a swarm run.
    pub(super) fn of(options: &Swarm) -> Self {
        let segment_mib = options.segment_mib.min(options.mib);
        let Swarm { mib, accounts, chunk_kib, .. } = *options;
        let (segments, segment_kib) = (mib.div_ceil(segment_mib), segment_mib << 10);
        Self { version: VERSION, segments, segment_kib, accounts, chunk_kib, validators: 1 }
    }

    /// A chain of so many eras of 1 MiB. Its segments and chunks are the smallest that a genesis
    /// may choose.
    pub(super) fn of_eras(eras: u16) -> Self {
        Self {
            version: VERSION,
            segments: u32::from(eras) * ERA_SEGMENTS as u32,
            segment_kib: 64,
            accounts: 64,
            chunk_kib: 16,
            validators: 1,
        }
    }

    /// A chain that validators continue.
    pub(super) fn to_go_on(validators: u16, mib: u32) -> Self {
        Self {
            version: VERSION,
            segments: mib.div_ceil(mib.min(16)),
            segment_kib: mib.min(16) << 10,
            accounts: 64,
            chunk_kib: 128,
            validators,
        }
    }

    /// Size of the sealed segments, rounded down.
    const fn mib(&self) -> u32 {
        (self.segments * self.segment_kib) >> 10
    }

    fn limits(&self) -> Limits {
        let segment_bytes = u64::from(self.segment_kib) << 10;
        Limits {
            block_bytes_max: Limits::default().block_bytes_max.min(segment_bytes),
            new_account_fee: Amount(0),
            // All nodes share one clock, so a small drift suffices. Validators listen for twice the
            // drift before they sign, so a small one saves time.
            clock_drift_ms: 1_000,
            segment_bytes,
            chunk_bytes: u64::from(self.chunk_kib) << 10,
            ..Limits::default()
        }
    }

    fn genesis(&self) -> Genesis {
        genesis(self.validators, self.limits())
    }
}

/// A genesis with this many validators of equal power.
pub(super) fn genesis(validators: u16, limits: Limits) -> Genesis {
    let validator = |number| GenesisValidator {
        name: String::new(),
        key: validator_key(number).public(),
        payout: validator_key(number).public(),
        power: VotingPower(1),
    };
    let account = |number| GenesisAccount {
        name: String::new(),
        account: sender_key(number).public(),
        balance: Amount(u64::MAX / 2 / (SENDERS + 1)),
    };
    Genesis {
        format: FORMAT,
        network: "bench".to_owned(),
        address_prefix: "crn".to_owned(),
        coin: Coin { symbol: "CRN".to_owned(), decimals: 9 },
        start_time: Timestamp(1_700_000_000_000),
        // The last account belongs to the attackers.
        accounts: (0..=SENDERS).map(account).collect(),
        validators: (0..validators).map(validator).collect(),
        limits,
    }
}

/// Seed of a key, by the key's purpose and number.
pub(super) fn seed(name: &str, number: u64) -> [u8; 32] {
    Hash::of(Domain::Genesis, &[b"bench", name.as_bytes(), &number.to_le_bytes()]).0
}

/// Consensus key of the validator with this number.
pub(super) fn validator_key(number: u16) -> Seed {
    seed("validator", number.into()).into()
}

/// Account of the recipient with this number.
fn recipient(number: u64) -> PublicKey {
    SigningKey::from_seed(&seed("recipient", number)).public()
}

/// Key of the sender with this number, below [`SENDERS`].
pub(super) fn sender_key(number: u64) -> SigningKey {
    SigningKey::from_seed(&seed("sender", number))
}

impl MadeChain {
    /// The chain of a recipe: reused from an earlier run, or made now and kept in this folder.
    pub(super) fn obtain(folder: &Path, recipe: &Recipe) -> anyhow::Result<Self> {
        let name = format!("chain-{}", recipe.mib());
        Self::keep(folder, &name, recipe, recipe.genesis(), |directory| {
            say!("making a chain of {} MiB", recipe.mib());
            Maker::new(recipe)?.make(directory)
        })
    }

    /// The chain of any recipe: reused from an earlier run, or made now and kept in this folder.
    /// `make` writes its store and its snapshots. The name of its directory is `name` with a hash
    /// of the recipe, so the recipe must have everything that determines the chain.
    pub(super) fn keep(
        folder: &Path,
        name: &str,
        recipe: &impl Serialize,
        genesis: Genesis,
        make: impl FnOnce(&Path) -> anyhow::Result<Facts>,
    ) -> anyhow::Result<Self> {
        let text = serde_json::to_string(recipe)?;
        let hash = hex::encode(&Hash::of(Domain::Genesis, &[text.as_bytes()]).0[..6]);
        let directory = folder.join(format!("{name}-{hash}"));
        if let Some(facts) = find(&directory, &genesis) {
            return Ok(Self { directory, genesis, facts });
        }
        fs::create_dir_all(folder)?;
        // The chain is made in a temporary folder, which is renamed when the chain is complete.
        let building = tempfile::Builder::new().prefix("chain-").tempdir_in(folder)?;
        let facts = make(building.path())?;
        fs::write(building.path().join("facts.json"), serde_json::to_string(&facts)?)?;
        if directory.exists() {
            fs::remove_dir_all(&directory)?;
        }
        fs::rename(building.keep(), &directory)?;
        Ok(Self { directory, genesis, facts })
    }

    /// Replaces the empty store of a home with a copy of this chain's store, and gives it the
    /// chain's snapshots.
    pub(super) fn copy_to(&self, home: &Home) -> anyhow::Result<()> {
        fs::remove_dir_all(home.db_path())?;
        copy_dir(&self.directory.join(DB), &home.db_path())?;
        copy_dir(&self.directory.join(SNAPSHOTS), &home.snapshots_path())
    }

    /// A file with the bytes of all sealed segments.
    pub(super) fn payload(&self) -> anyhow::Result<PathBuf> {
        let path = self.directory.join("payload");
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() == self.facts.bytes) {
            return Ok(path);
        }
        let store = Store::open(&self.directory.join(DB), &Chain::new(self.genesis.clone()))?.store;
        let mut file = std::io::BufWriter::new(fs::File::create(&path)?);
        for height in 1..=self.facts.sealed {
            let block = store.block_bytes(Height(height))?.here();
            let block = block.context("a block that was made is missing")?;
            std::io::Write::write_all(&mut file, &block)?;
        }
        std::io::Write::flush(&mut file)?;
        Ok(path)
    }
}

/// The chain of an earlier run, if it is complete and this version can open its store.
fn find(directory: &Path, genesis: &Genesis) -> Option<Facts> {
    let facts: Facts =
        serde_json::from_slice(&fs::read(directory.join("facts.json")).ok()?).ok()?;
    let opened = Store::open(&directory.join(DB), &Chain::new(genesis.clone())).ok()?;
    (opened.store.tip().0 == Height(facts.height)).then_some(facts)
}

fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)?;
        }
    }
    Ok(())
}

/// Writes the blocks of a chain to a new store, and counts its segments.
pub(super) struct Writer {
    store: Store,
    snapshots: Snapshots,
    rules: SnapshotRules,
    /// Time of the last block that could be a snapshot.
    candidate: Option<Timestamp>,
    facts: Facts,
    batch: Vec<Committed>,
}

impl Writer {
    pub(super) fn create(directory: &Path, chain: &Arc<Chain>) -> anyhow::Result<Self> {
        let db = directory.join(DB);
        fs::create_dir_all(directory.join(SNAPSHOTS))?;
        Store::create(&db, chain.genesis())?;
        Ok(Self {
            store: Store::open(&db, chain)?.store,
            snapshots: Snapshots::open(&directory.join(SNAPSHOTS), chain).0,
            rules: SnapshotRules::new(chain.limits()),
            candidate: None,
            facts: Facts { height: 0, sealed: 0, segments: 0, chunks: 0, bytes: 0 },
            batch: Vec::new(),
        })
    }

    /// Writes the state after a block, if it is a snapshot. Keeps the newest two.
    pub(super) fn snapshot(
        &mut self,
        state: &ChainState,
        committed: &Committed,
    ) -> anyhow::Result<()> {
        let Some(segment) = &committed.sealed else { return Ok(()) };
        let header = committed.block.header();
        let index = segment.descriptor.index;
        if !self.rules.is_candidate(index) {
            return Ok(());
        }
        let before = self.candidate.replace(header.time);
        if !self.rules.is_snapshot(index, header.time, before) {
            return Ok(());
        }
        let frontier = Arc::new(Frontier::of(state.state(), &self.rules)?);
        let certificate = committed.certificate.clone();
        let mut writer =
            self.snapshots.begin(header.clone(), certificate, Arc::clone(&frontier))?;
        for (index, bytes) in (0..).zip(frontier.chunks(state.state())) {
            writer.write(index, &bytes)?;
        }
        writer.finish()?;
        Ok(self.snapshots.prune(Duration::ZERO)?)
    }

    /// Writes the next block, at the latest with the last block of its batch. Fails once a signal
    /// has come.
    pub(super) fn push(&mut self, committed: Committed) -> anyhow::Result<()> {
        stop::check()?;
        if let Some(segment) = &committed.sealed {
            self.facts.sealed = segment.descriptor.last.0;
            self.facts.segments += 1;
            self.facts.chunks += segment.chunks.len() as u64;
            let before = self.facts.bytes >> 20;
            self.facts.bytes += segment.descriptor.bytes;
            let mib = self.facts.bytes >> 20;
            if mib > before {
                say!("{mib} MiB");
            }
        }
        self.batch.push(committed);
        if self.batch.len() >= BATCH {
            self.store.commit(&std::mem::take(&mut self.batch))?;
            self.store.maintain()?;
        }
        Ok(())
    }

    /// Writes the rest.
    pub(super) fn finish(mut self) -> anyhow::Result<Facts> {
        self.store.commit(&self.batch)?;
        self.facts.height = self.store.tip().0.0;
        Ok(self.facts)
    }
}

/// Makes the chain of a recipe.
struct Maker {
    senders: Vec<SigningKey>,
    recipients: Vec<PublicKey>,
    segments: u64,
    chain: ChainMaker,
    /// Transfers made so far.
    count: u64,
}

impl Maker {
    fn new(recipe: &Recipe) -> anyhow::Result<Self> {
        let genesis = recipe.genesis();
        let problems = genesis.problems();
        ensure!(problems.is_empty(), "these options make no valid genesis: {}", problems[0]);
        let validators = 0..recipe.validators;
        let validators = validators.map(|number| validator_key(number).signing_key()).collect();
        Ok(Self {
            senders: (0..SENDERS).map(sender_key).collect(),
            recipients: (0..u64::from(recipe.accounts)).map(recipient).collect(),
            segments: recipe.segments.into(),
            chain: ChainMaker::new(Chain::new(genesis), validators),
            count: 0,
        })
    }

    fn make(mut self, directory: &Path) -> anyhow::Result<Facts> {
        let chain = Arc::clone(self.chain.state().chain());
        // A block that almost fills a segment would leave room for a second one of the same size.
        let block_bytes = BLOCK_BYTES.min(chain.limits().segment_bytes / 2);
        let per_block = block_bytes.div_ceil(TRANSFER_BYTES);
        let mut writer = Writer::create(directory, &chain)?;
        while writer.facts.segments < self.segments {
            writer.push(self.block(per_block))?;
        }
        for _ in 0..TAIL.0 {
            writer.push(self.block(TAIL.1))?;
        }
        writer.finish()
    }

    fn block(&mut self, transfers: u64) -> Committed {
        let numbers = self.count..self.count + transfers;
        self.count += transfers;
        let chain = self.chain.state().chain().id();
        let transfers = sign_transfers(chain, numbers, |number| {
            let sender = &self.senders[(number % SENDERS) as usize];
            (self.transfer(number, sender.public()), sender)
        });
        self.chain.block(Timestamp(0), transfers)
    }

    fn transfer(&self, number: u64, sender: PublicKey) -> Transfer {
        let output = |place: u64| {
            let recipient = (number * OUTPUTS_MAX as u64 + place) % self.recipients.len() as u64;
            Output { account: self.recipients[recipient as usize], amount: Amount(1) }
        };
        Transfer {
            sender,
            nonce: Nonce(number / SENDERS),
            outputs: (0..OUTPUTS_MAX as u64).map(output).collect(),
            fee: Amount(10 * TRANSFER_BYTES),
            expires_at: Timestamp(self.chain.state().tip().time.0 + 60_000),
            // Memos differ between transfers, so that no layer could compress them.
            memo: (0..MEMO_BYTES_MAX as u64 / 32)
                .flat_map(|part| seed("memo", number << 8 | part))
                .collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::history::chunk_hash;

    use super::*;

    #[test]
    fn a_chain_is_made_once_and_its_payload_is_its_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = Recipe {
            version: VERSION,
            segments: 2,
            segment_kib: 1 << 10,
            accounts: 100,
            chunk_kib: 64,
            validators: 4,
        };
        let made = MadeChain::obtain(folder.path(), &recipe).unwrap();
        let Facts { height, sealed, segments, chunks, bytes } = made.facts;
        // Two blocks fill a segment.
        assert_eq!((segments, sealed, height), (2, 4, 4 + TAIL.0), "{:?}", made.facts);
        assert!((2 << 20..3 << 20).contains(&bytes));

        let payload = fs::read(made.payload().unwrap()).unwrap();
        assert_eq!(payload.len() as u64, bytes);
        let store =
            Store::open(&made.directory.join(DB), &Chain::new(made.genesis.clone())).unwrap().store;
        let mut rest = &payload[..];
        let mut count = 0;
        for index in 0..segments {
            let segment = store.segment(index).unwrap().here().unwrap();
            let (bytes, after) = rest.split_at(segment.descriptor.bytes as usize);
            assert_eq!(bytes.chunks(64 << 10).map(chunk_hash).collect::<Vec<_>>(), segment.chunks);
            (rest, count) = (after, count + segment.chunks.len() as u64);
        }
        assert_eq!((rest.len(), count), (0, chunks));
        drop(store);

        let time = || fs::metadata(made.directory.join("facts.json")).unwrap().modified().unwrap();
        let before = time();
        MadeChain::obtain(folder.path(), &recipe).unwrap();
        assert_eq!(time(), before);
    }
}
