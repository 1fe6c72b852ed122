//! A store that begins with a snapshot instead of the genesis, and which blocks this node executed.

use std::sync::{Arc, PoisonError};

use crate::block::Header;
use crate::certificate::Certificate;
use crate::chain::{ChainState, Tip};
use crate::history::{History, SegmentDescriptor};
use crate::state::State;
use crate::store::checkpoint::Slots;
use crate::store::commit::put_certificate;
use crate::store::disk::Batch;
use crate::store::kept::{Gaps, put_end};
use crate::store::schema::{Joined, Key, Marker, TipValue};
use crate::store::segments::Segments;
use crate::store::{Store, StoreError, View};
use crate::units::Height;

impl Store {
    /// Makes a snapshot the content of a store without blocks: the snapshot's block is the tip,
    /// without its body, and no segment up to it is kept. Returns the chain's state, on which the
    /// next block is committed.
    ///
    /// `header` and `certificate` are those of the snapshot's block, which sealed the last of
    /// `descriptors`; `state` has all accounts after it. The accounts become the newest checkpoint.
    /// All of it is durable when this returns. A kill or an error leaves the whole snapshot or a
    /// store without blocks.
    ///
    /// # Errors
    /// `StoreError::NotEmpty` if the store has blocks; nothing is changed then, and the store takes
    /// further writes. Otherwise as [`Self::commit`].
    ///
    /// # Panics
    /// If the parts do not belong together. The caller has verified them.
    pub fn adopt(
        &self,
        header: &Header,
        certificate: Certificate,
        descriptors: &[SegmentDescriptor],
        state: State,
    ) -> Result<ChainState, StoreError> {
        let chain = &self.shared.chain;
        let (height, hash) = (header.height, header.hash());
        let segments = descriptors.len() as u64;
        let history = match History::restore(chain.history_rules(), descriptors.iter().copied()) {
            Ok(history) => history,
            Err(error) => panic!("descriptors are verified before a snapshot is loaded: {error}"),
        };
        assert!(
            history.root_at(segments.saturating_sub(1)) == Some(header.history_root)
                && descriptors.last().is_some_and(|last| last.last_block == hash)
                && history.tip() == height
                && (certificate.height, certificate.block) == (height, hash)
                && state.root() == header.state_root,
            "a snapshot is verified before it is loaded, which that of block {height} was not"
        );
        let tip = TipValue { height, hash, segments, bytes: 0 };
        let joined = Joined { height, executed: Height(0) };
        let gaps = Gaps::below(segments);

        let adopted = self.write(|writer| {
            if writer.tip.height > Height(0) {
                return Ok(Err(StoreError::NotEmpty { height: writer.tip.height }));
            }
            let disk = &self.shared.disk;
            writer.slots.write(disk, &state)?;
            disk.sync()?;

            // One batch has the tip and everything that a store with this tip must have.
            let marker = Marker { slot: writer.slots.next(), height, hash };
            let mut batch = Batch::default();
            for descriptor in descriptors {
                batch.put_value(Key::Segment(descriptor.index), descriptor);
            }
            gaps.put(&mut batch);
            put_end(&mut batch, segments.saturating_sub(1), header, &certificate);
            Slots::put_marker(&mut batch, &marker);
            batch.put(Key::Tail, &[]);
            batch.put_value(Key::Joined, &joined);
            batch.put_value(Key::Tip, &tip);
            put_certificate(&mut batch, &certificate);
            disk.apply(batch)?;
            disk.sync()?;
            writer.witness.write(height, hash)?;
            writer.witness.sync()?;

            let sealed = descriptors.to_vec();
            let segments = Segments { sealed, gaps, ..Segments::default() };
            let mut view = self.shared.view.write().unwrap_or_else(PoisonError::into_inner);
            *view = View { tip, certificate, segments, joined: Some(joined) };
            writer.slots.mark(&marker, &state);
            writer.tip = tip;
            writer.state = state.clone();
            Ok(Ok(()))
        })?;
        adopted?;
        let tip = Tip { height, hash, time: header.time };
        Ok(ChainState::restored(Arc::clone(chain), tip, state, history))
    }

    /// Height up to which this node executed every block, from the genesis on: the tip, unless the
    /// store began with a snapshot.
    #[must_use]
    pub fn executed_to(&self) -> Height {
        let view = self.read_view();
        view.joined.map_or(view.tip.height, |joined| joined.executed)
    }

    /// Records that this node has executed every block up to `height` from the genesis on, in a
    /// store that began with a snapshot. At the height of the snapshot or above, all blocks count
    /// as executed from then on. A lower height than before changes nothing: what was executed once
    /// stays so, also if it is executed again.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn set_executed_to(&self, height: Height) -> Result<(), StoreError> {
        self.write(|_| {
            let Some(joined) = self.read_view().joined else { return Ok(()) };
            let executed = joined.executed.max(height);
            let joined = (executed < joined.height).then_some(Joined { executed, ..joined });
            let mut batch = Batch::default();
            match &joined {
                Some(joined) => batch.put_value(Key::Joined, joined),
                None => batch.remove(Key::Joined),
            }
            self.shared.disk.apply(batch)?;
            self.shared.disk.sync()?;
            self.shared.view.write().unwrap_or_else(PoisonError::into_inner).joined = joined;
            Ok(())
        })
    }
}
