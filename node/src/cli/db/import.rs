//! `db import`: blocks from a file, validated by the same rules as blocks from a peer.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::path::Path;

use anyhow::{Context, ensure};
use ledger::block::{BLOCK_OVERHEAD_MAX, Block};
use ledger::certificate::{CERTIFICATE_BYTES_MAX, Certificate};
use ledger::chain::{Chain, ChainState, Committed, ValidBlock};
use ledger::codec;
use ledger::history::SealedSegment;
use ledger::store::{Opened, Store};
use ledger::units::Height;
use serde_json::json;

use super::{Held, blocks, pairs, progress_bar};
use crate::cli::archive::{Reader, check};
use crate::output::{print, print_json};

/// A batch is written once it has this many bytes or [`BATCH_BLOCKS`] blocks.
const BATCH_BYTES: usize = 8 << 20;
const BATCH_BLOCKS: usize = 256;

/// An open archive whose header was read.
pub(super) struct Source {
    name: String,
    reader: Reader<Box<dyn Read>>,
}

impl Source {
    /// Opens an archive. Waits for the first bytes of a pipe. A file is first read to its end, so
    /// that damage is found before any block is imported.
    pub(super) fn open(from: &Path) -> anyhow::Result<Self> {
        if from == Path::new("-") {
            let reader =
                Reader::new(Box::new(io::stdin().lock()) as Box<dyn Read>).context("stdin")?;
            return Ok(Self { name: "stdin".to_owned(), reader });
        }
        let name = from.display().to_string();
        let mut file = File::open(from).with_context(|| name.clone())?;
        if file.metadata().with_context(|| name.clone())?.is_file() {
            check(BufReader::new(&file)).with_context(|| name.clone())?;
            file.rewind().with_context(|| name.clone())?;
        }
        let reader = Reader::new(Box::new(BufReader::new(file)) as Box<dyn Read>)
            .with_context(|| name.clone())?;
        Ok(Self { name, reader })
    }
}

pub(super) fn import(held: &Held, source: Source, json: bool) -> anyhow::Result<()> {
    let Source { name, mut reader } = source;
    let contents = reader.contents();
    let (ours, theirs) = (held.chain.id(), contents.chain);
    ensure!(
        theirs == ours,
        "{name}: its blocks are of chain {theirs}, but this home is of chain {ours}"
    );

    let mut import = Import::new(held.open()?);
    let before = import.state.tip().height;
    ensure!(
        contents.first <= before.next(),
        "{name}: begins with block {}, but the next block of this home is {}",
        contents.first,
        before.next()
    );
    let bar = progress_bar("import", contents.last.0);
    for height in (contents.first.0..=contents.last.0).map(Height) {
        let at = reader.at();
        let added = reader
            .piece()
            .map_err(anyhow::Error::from)
            .and_then(|bytes| import.block(height, &bytes));
        added.with_context(|| format!("{name}: block {height} at byte {at}"))?;
        bar.set_position(height.0);
    }
    let certificate = reader.piece().with_context(|| name.clone())?;
    reader.finish().with_context(|| name.clone())?;
    if contents.last > before {
        let context = || format!("{name}: certificate of block {}", contents.last);
        import.finish(&certificate).with_context(context)?;
    }
    bar.finish_and_clear();

    let (tip, hash) = import.store.tip();
    let added = tip.0.saturating_sub(before.0);
    let kept = import.store.kept_heights();
    if json {
        return print_json(&json!({
            "imported": added.to_string(),
            "height": tip.to_string(),
            "block_hash": hash.to_string(),
            "kept": pairs(&kept),
        }));
    }
    print(&format!("{added} blocks imported, height {tip}"))?;
    if kept != [Height(1)..=tip] {
        print(&format!(
            "this home keeps {} only: an import adds no blocks below the tip",
            blocks(&kept)
        ))?;
    }
    Ok(())
}

/// An import in progress.
struct Import {
    store: Store,
    /// The state after the newest block, whether or not that block is stored.
    state: ChainState,
    /// The newest block. It is valid, and known to be final once the next block brings its
    /// certificate.
    newest: Option<(ValidBlock, Option<SealedSegment>)>,
    /// Final blocks that are not stored yet.
    batch: Vec<Committed>,
    batch_bytes: usize,
}

impl Import {
    fn new(opened: Opened) -> Self {
        Self {
            store: opened.store,
            state: opened.state,
            newest: None,
            batch: Vec::new(),
            batch_bytes: 0,
        }
    }

    fn chain(&self) -> &Chain {
        self.state.chain()
    }

    fn block(&mut self, height: Height, bytes: &[u8]) -> anyhow::Result<()> {
        let tip = self.state.tip();
        if height < tip.height {
            return Ok(());
        }
        let bytes_max = usize::try_from(self.chain().limits().block_bytes_max)?
            .saturating_add(BLOCK_OVERHEAD_MAX);
        let block: Block = codec::decode(bytes, bytes_max)?;
        if height == tip.height {
            let hash = block.header.hash();
            ensure!(
                hash == tip.hash,
                "its hash is {hash}, but this home has block {} at that height",
                tip.hash
            );
            return Ok(());
        }
        let valid = self.state.validate(block.verify(self.chain().id())?)?;
        // Validation has verified the parent's certificate.
        self.settle(&valid.block().parent_certificate)?;
        let sealed = self.state.advance(&valid);
        self.newest = Some((valid, sealed));
        Ok(())
    }

    /// Verifies the certificate that follows the last block, and stores the blocks that are still
    /// in the batch.
    fn finish(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let certificate: Certificate = codec::decode(bytes, CERTIFICATE_BYTES_MAX)?;
        let (chain, tip) = (self.chain(), self.state.tip());
        certificate.verify(chain.id(), chain.validators(tip.height), tip.height, tip.hash)?;
        self.settle(&certificate)?;
        self.write()
    }

    /// Makes the newest block final by this certificate, which the caller has verified.
    fn settle(&mut self, certificate: &Certificate) -> anyhow::Result<()> {
        if let Some((block, sealed)) = self.newest.take() {
            self.batch_bytes = self.batch_bytes.saturating_add(block.bytes().len());
            self.batch.push(Committed { block, certificate: certificate.clone(), sealed });
        }
        if self.batch_bytes >= BATCH_BYTES || self.batch.len() >= BATCH_BLOCKS {
            self.write()
        } else {
            Ok(())
        }
    }

    fn write(&mut self) -> anyhow::Result<()> {
        self.store.commit(&self.batch)?;
        self.store.maintain()?;
        self.batch.clear();
        self.batch_bytes = 0;
        Ok(())
    }
}
