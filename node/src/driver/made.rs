//! Stores of made chains, for the tests of drivers.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use ledger::chain::{Chain, Committed};
use ledger::genesis::{Genesis, Limits};
use ledger::signature::SigningKey;
use ledger::store::Store;
use ledger::units::Timestamp;
use tempfile::TempDir;

use crate::chain_maker::ChainMaker;
use crate::view::TipView;

/// A store of a chain of one validator, whose segments have two blocks each.
pub(super) struct Made {
    /// The store lies in `db` of this folder.
    pub(super) folder: TempDir,
    pub(super) store: Store,
    /// All blocks of the chain, from the first one on.
    pub(super) blocks: Vec<Committed>,
    pub(super) tip: TipView,
}

impl Made {
    /// A chain of `count` blocks. If `snapshot` is 0, the store has all of them. Otherwise it began
    /// with the snapshot at the height `snapshot`, and lacks the blocks up to there. The height
    /// must be even.
    pub(super) fn new(count: usize, snapshot: usize) -> Self {
        let key = SigningKey::from_seed(&[1; 32]);
        let text = include_bytes!("../../../genesis.json");
        let mut genesis = Genesis::from_json(text).unwrap();
        genesis.limits = Limits { segment_blocks: 2, ..Limits::default() };
        genesis.start_time = Timestamp(0);
        genesis.validators.truncate(1);
        genesis.validators[0].key = key.public();
        let chain = Chain::new(genesis.clone());
        let mut maker = ChainMaker::new(Arc::clone(&chain), vec![key]);
        let blocks: Vec<_> = (0..count).map(|_| maker.block(Timestamp(0), Vec::new())).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("db");
        Store::create(&path, &genesis).unwrap();
        let store = Store::open(&path, &chain).unwrap().store;
        let (before, after) = blocks.split_at(snapshot);
        if let Some(last) = before.last() {
            let sealed = before.iter().filter_map(|one| Some(one.sealed.as_ref()?.descriptor));
            let (header, state) = (last.block.header(), last.block.state().clone());
            let certificate = last.certificate.clone();
            store.adopt(header, certificate, &Vec::from_iter(sealed), state).unwrap();
        }
        store.commit(after).unwrap();
        let certificate = blocks.last().unwrap().certificate.clone();
        let tip = TipView { state: maker.state().clone(), certificate, header: None };
        Self { folder, store, blocks, tip }
    }
}
