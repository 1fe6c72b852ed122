//! Checks the part of a store that comes after the first block that is not kept. There is no state
//! before these blocks, so they are checked by hash: a certificate proves the tip, the tip's header
//! proves all descriptors, and a descriptor proves the bytes of its segment. The header at the
//! checkpoint proves the accounts there, and the blocks after it are checked by all rules.

use std::sync::Arc;

use super::{Stored, VerifyReport};
use crate::block::Block;
use crate::chain::Chain;
use crate::history::{History, SegmentDescriptor, chunk_hash};
use crate::store::StoreError;
use crate::store::archive::split;
use crate::store::kept::read_end;
use crate::store::pages::{Name, Pages};
use crate::store::recover::{block_bytes, restore, stored_header};
use crate::store::schema::{self, Key, Marker, TipValue};
use crate::units::Height;

impl Stored<'_> {
    /// Checks the kept blocks above `from`, up to which all were checked by all rules, and the
    /// checkpoint.
    pub(super) fn check_partial(
        &self,
        chain: &Arc<Chain>,
        tip: &TipValue,
        marker: Option<Marker>,
        from: Height,
        report: &mut VerifyReport,
        progress: &mut dyn FnMut(Height, Height),
    ) -> Result<(), StoreError> {
        report.note(self.check_descriptors(chain, tip))?;
        for descriptor in self.segments.sealed.iter().filter(|segment| segment.last > from) {
            if self.segments.gaps.keeps(descriptor.index) {
                self.check_by_hash(chain, descriptor, report)?;
            }
            progress(descriptor.last, tip.height);
        }
        report.note(self.check_open(chain, tip))?;
        let kept = report.kept.iter().map(|kept| kept.end().0.saturating_sub(kept.start().0));
        let kept = kept.map(|blocks| blocks.saturating_add(1)).fold(0, u64::saturating_add);

        let Some(marker) = marker else {
            report.add(Key::Marker, "missing, although blocks are not kept");
            return Ok(());
        };
        let restored = restore(self.disk, self.files, self.segments, chain, tip, Some(&marker));
        let Some(mut state) = report.note(restored)? else { return Ok(()) };
        let by_rules = from.0.saturating_add(tip.height.0.saturating_sub(marker.height.0));
        report.by_hash = kept.saturating_sub(by_rules);
        while state.tip().height < tip.height {
            let height = state.tip().height.next();
            let Some(block) = report.note(self.check_block(&state, height))? else {
                return Ok(());
            };
            let transactions = block.block().transactions.len() as u64;
            report.transactions = report.transactions.saturating_add(transactions);
            state.advance(&block);
            progress(height, tip.height);
        }
        Ok(())
    }

    /// Checks that the tip's header commits to the descriptors. The descriptor of a segment that
    /// the tip sealed is in the next header only, so it only has to name the tip.
    fn check_descriptors(&self, chain: &Chain, tip: &TipValue) -> Result<(), StoreError> {
        let wrong = |reason: &dyn ToString| StoreError::corrupt("segments", reason.to_string());
        let header = stored_header(self.disk, self.files, self.segments, tip.height)?;
        if header.hash() != tip.hash {
            return Err(StoreError::corrupt(Key::Tip, "its header is of another block"));
        }
        let sealed = &self.segments.sealed;
        let history = History::restore(chain.history_rules(), sealed.iter().copied())
            .map_err(|error| wrong(&error))?;
        let sealed_by_tip = sealed.last().filter(|last| last.last == tip.height);
        let before = history.segments().saturating_sub(sealed_by_tip.is_some().into());
        let is_named = sealed_by_tip.is_none_or(|last| last.last_block == tip.hash);
        if history.root_at(before) != Some(header.history_root) || !is_named {
            return Err(wrong(&"are not those that the header of the tip commits to"));
        }
        Ok(())
    }

    /// Checks a kept segment against its descriptor, and its index file.
    fn check_by_hash(
        &self,
        chain: &Chain,
        descriptor: &SegmentDescriptor,
        report: &mut VerifyReport,
    ) -> Result<(), StoreError> {
        let name = Name::Blocks(descriptor.index);
        let bytes =
            Pages::open(&self.files.history, name).and_then(|file| file.read(0..descriptor.bytes));
        let Some(bytes) = report.note(bytes)? else { return Ok(()) };
        let rules = chain.history_rules();
        let ranges = (0..).map_while(|chunk| descriptor.chunk_range(chunk, &rules));
        let chunks = ranges.filter_map(|range| {
            let (start, end) = (usize::try_from(range.start), usize::try_from(range.end));
            bytes.get(start.ok()?..end.ok()?).map(chunk_hash)
        });
        let chunks: Vec<_> = chunks.collect();
        let proved = descriptor.verify_chunks(&rules, &chunks);
        let proved = proved.map_err(|error| StoreError::corrupt(name, error));
        let split = proved.and_then(|()| {
            split(chain, descriptor, chunks, &bytes)
                .map_err(|error| StoreError::corrupt(name, error))
        });
        if let Some((segment, run, _)) = report.note(split)? {
            self.check_segment(&segment, run, report)?;
            report.segments = report.segments.saturating_add(1);
        }
        Ok(())
    }

    /// Checks the end of a segment, if it is stored.
    pub(super) fn check_end(
        &self,
        chain: &Chain,
        descriptor: &SegmentDescriptor,
    ) -> Result<(), StoreError> {
        let Some((_, certificate)) = read_end(self.disk, descriptor)? else { return Ok(()) };
        let (height, hash) = (descriptor.last, descriptor.last_block);
        let verified = certificate.verify(chain.id(), chain.validators(height), height, hash);
        verified.map_err(|error| StoreError::corrupt(Key::End(descriptor.index, 0), error))
    }

    /// Checks that the blocks of the open segment lead from the last sealed one to the tip.
    fn check_open(&self, chain: &Chain, tip: &TipValue) -> Result<(), StoreError> {
        let first = self.segments.open_first();
        let mut parent = self.segments.sealed.last().map(|last| last.last_block);
        for height in (first.0..=tip.height.0).map(Height) {
            let name = format!("block {height}");
            let block: Block =
                schema::decode(&name, &block_bytes(self.files, self.segments, height)?)?;
            let content = block.check_content(chain.id());
            content.map_err(|error| StoreError::corrupt(&name, error))?;
            if parent.is_some_and(|parent| block.header.parent != parent) {
                return Err(StoreError::corrupt(&name, "does not follow the block before it"));
            }
            parent = Some(block.header.hash());
        }
        match parent {
            Some(hash) if hash != tip.hash => {
                Err(StoreError::corrupt(Key::Tip, "is not the last block"))
            }
            _ => Ok(()),
        }
    }
}
