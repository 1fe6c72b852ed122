//! Creates a store, and opens a store again, whether its last process ended cleanly or crashed.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};

use crate::block::{Block, Header, genesis_parent};
use crate::certificate::Certificate;
use crate::chain::{Chain, ChainState, Tip};
use crate::codec;
use crate::genesis::Genesis;
use crate::hash::ChainId;
use crate::history::{History, SegmentDescriptor};
use crate::store::checkpoint::{self, Slots};
use crate::store::commit::Writer;
use crate::store::disk::{self, Batch, Disk};
use crate::store::index;
use crate::store::kept::{self, Gaps, Kept};
use crate::store::pages::{CONTENT, Name, Pages};
use crate::store::schema::{self, Key, Marker, Meta, SCHEMA_VERSION, TipValue};
use crate::store::segments::{Files, Open, Segments};
use crate::store::witness::Witness;
use crate::store::{Shared, Store, StoreError, View};
use crate::units::Height;

/// A store that was opened, with the state of its chain.
pub struct Opened {
    /// The store.
    pub store: Store,
    /// The state of the chain at the tip.
    pub state: ChainState,
    /// The certificate of the tip; `Certificate::genesis` at height 0.
    pub certificate: Certificate,
}

impl Store {
    /// Creates the store of a new chain. It is durable when this returns. A crash or an error
    /// leaves no incomplete store in this directory.
    ///
    /// # Errors
    /// `StoreError::Exists` if the directory is not empty, `StoreError::Io`.
    pub fn create(directory: &Path, genesis: &Genesis) -> Result<(), StoreError> {
        let io = |error| StoreError::io(directory, error);
        if let Ok(mut entries) = fs::read_dir(directory) {
            if entries.next().is_some() {
                return Err(StoreError::Exists { path: directory.to_owned() });
            }
            fs::remove_dir(directory).map_err(io)?;
        }
        // The store is built in a directory beside this one and renamed when complete, so that no
        // crash leaves half of it.
        let mut building = directory.as_os_str().to_owned();
        building.push(".new");
        let building = PathBuf::from(building);
        if building.exists() {
            fs::remove_dir_all(&building).map_err(io)?;
        }
        fs::create_dir_all(&building).map_err(io)?;
        let disk = Disk::open(&building)?;
        let mut batch = Batch::default();
        batch.put_value(Key::Meta, &Meta { schema: SCHEMA_VERSION, chain: genesis.chain_id() });
        batch.put_record(Key::Genesis, &codec::encode(genesis));
        disk.apply(batch)?;
        disk.sync()?;
        drop(disk);
        Witness::create(&building, genesis_parent(genesis.chain_id()))?;
        for entry in fs::read_dir(&building).map_err(io)? {
            let path = entry.map_err(io)?.path();
            fs::File::open(&path)
                .and_then(|file| file.sync_all())
                .map_err(|error| StoreError::io(&path, error))?;
        }
        disk::sync_directory(&building)?;
        fs::rename(&building, directory).map_err(io)?;
        match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => disk::sync_directory(parent),
            _ => disk::sync_directory(Path::new(".")),
        }
    }

    /// The genesis that was given to `create`.
    ///
    /// # Errors
    /// `StoreError::Missing`, `Schema`, `Corrupt`, or `Io`, also if the store is open already.
    pub fn genesis(directory: &Path) -> Result<Genesis, StoreError> {
        let (disk, meta) = open_disk(directory)?;
        read_genesis(&disk, &meta)
    }

    /// Opens a store: reads the newest complete checkpoint and applies the blocks after it.
    /// Everything that `commit` acknowledged is there. Takes about a second for each 64 full blocks
    /// after the checkpoint.
    ///
    /// # Errors
    /// `StoreError::Missing`; `Schema` or `Chain` if the store is for another version or chain;
    /// `Corrupt` with the name of the damaged value; `Io`, also if the store is open already.
    pub fn open(directory: &Path, chain: &Arc<Chain>) -> Result<Opened, StoreError> {
        let disk = open_for(directory, chain)?;
        let files = Files::of(directory);
        let (tip, certificate) = read_tip(&disk, chain.id())?;
        let mut segments = read_sealed(&disk, &tip)?;
        segments.open = read_open(&disk, &files, chain.id(), &tip, segments.open_first())?;
        let joined = disk.value(Key::Joined)?;
        let witness = check_witness(directory, &files, &segments, &tip)?;
        let marker: Option<Marker> = disk.value(Key::Marker)?;

        let mut state = restore(&disk, &files, &segments, chain, &tip, marker.as_ref())?;
        let slots = Slots::new(marker.as_ref(), state.state());
        while state.tip().height < tip.height {
            let height = state.tip().height.next();
            let bytes = block_bytes(&files, &segments, height)?;
            let block: Block = schema::decode(format_args!("block {height}"), &bytes)?;
            let block = state
                .replay(block)
                .map_err(|error| StoreError::corrupt(format_args!("block {height}"), error))?;
            state.advance(&block);
        }
        let sealed = state.history().segments();
        if state.tip().hash != tip.hash || sealed != tip.segments {
            let (height, hash) = (state.tip().height, state.tip().hash);
            let found = TipValue { height, hash, segments: sealed, bytes: tip.bytes };
            let reason = format!("leads to {found}, expected {tip}");
            return Err(StoreError::corrupt("chain of blocks", reason));
        }

        // Only now is the database known to be undamaged.
        kept::remove_leftovers(&files.history, &segments.gaps);

        let writer = Writer {
            tip,
            state: state.state().clone(),
            slots,
            witness,
            evidence: None,
            failed: None,
        };
        let view = View { tip, certificate: certificate.clone(), segments, joined };
        let (view, writer, archive) = (RwLock::new(view), Mutex::new(writer), Mutex::new(()));
        let (chain, damaged) = (Arc::clone(chain), Mutex::default());
        let shared = Shared { chain, disk, view, files, writer, archive, damaged };
        Ok(Opened { store: Self { shared: Arc::new(shared) }, state, certificate })
    }
}

/// Opens the database of an existing store, whatever its chain.
fn open_disk(directory: &Path) -> Result<(Disk, Meta), StoreError> {
    if !Disk::exists(directory) {
        return Err(StoreError::Missing { path: directory.to_owned() });
    }
    let disk = Disk::open(directory)?;
    let content = disk.get(Key::Meta)?.ok_or_else(|| StoreError::corrupt(Key::Meta, "missing"))?;
    let version = codec::decode_prefix::<u32>(&content)
        .map_err(|error| StoreError::corrupt(Key::Meta, error))?;
    if version.0 != SCHEMA_VERSION {
        return Err(StoreError::Schema { got: version.0, expected: SCHEMA_VERSION });
    }
    let meta = schema::decode(Key::Meta, &content)?;
    Ok((disk, meta))
}

/// Opens the database of a store of this chain.
pub(super) fn open_for(directory: &Path, chain: &Chain) -> Result<Disk, StoreError> {
    let (disk, meta) = open_disk(directory)?;
    if meta.chain != chain.id() {
        return Err(StoreError::Chain { got: meta.chain, expected: chain.id() });
    }
    Ok(disk)
}

fn read_genesis(disk: &Disk, meta: &Meta) -> Result<Genesis, StoreError> {
    let record = disk
        .record(Key::Genesis)?
        .ok_or_else(|| StoreError::corrupt(Key::Genesis(0), "missing"))?;
    let genesis: Genesis = schema::decode(Key::Genesis(0), &record)?;
    let got = genesis.chain_id();
    if got != meta.chain {
        return Err(StoreError::corrupt(
            Key::Genesis(0),
            format!("is of chain {got}, expected {}", meta.chain),
        ));
    }
    Ok(genesis)
}

/// Reads the tip and its certificate, and checks that they match.
pub(super) fn read_tip(disk: &Disk, chain: ChainId) -> Result<(TipValue, Certificate), StoreError> {
    let Some(tip) = disk.value::<TipValue>(Key::Tip)? else {
        let certificate = Certificate::genesis(chain);
        return Ok((
            TipValue { height: Height(0), hash: certificate.block, segments: 0, bytes: 0 },
            certificate,
        ));
    };
    let key = Key::TipCertificate(0);
    let record =
        disk.record(Key::TipCertificate)?.ok_or_else(|| StoreError::corrupt(key, "missing"))?;
    let certificate: Certificate = schema::decode(key, &record)?;
    if certificate.height != tip.height || certificate.block != tip.hash {
        return Err(StoreError::corrupt(
            key,
            format!("is for height {}, the tip is {}", certificate.height, tip.height),
        ));
    }
    Ok((tip, certificate))
}

/// The descriptors of all sealed segments, and which segments are not kept. The open segment is
/// empty.
pub(super) fn read_sealed(disk: &Disk, tip: &TipValue) -> Result<Segments, StoreError> {
    let mut next = Height(1);
    let read = |index| {
        let key = Key::Segment(index);
        let descriptor: SegmentDescriptor =
            disk.value(key)?.ok_or_else(|| StoreError::corrupt(key, "missing"))?;
        let SegmentDescriptor { index: found, first, last, .. } = descriptor;
        if found != index || first != next || last < first || last > tip.height {
            return Err(StoreError::corrupt(key, "does not follow the segment before it"));
        }
        next = last.next();
        Ok(descriptor)
    };
    let sealed = (0..tip.segments).map(read).collect::<Result<_, _>>()?;
    Ok(Segments { sealed, gaps: Gaps::read(disk, tip)?, ..Segments::default() })
}

/// Reads the whole open segment: its blocks from height `first` to the tip.
pub(super) fn read_open(
    disk: &Disk,
    files: &Files,
    chain: ChainId,
    tip: &TipValue,
    first: Height,
) -> Result<Open, StoreError> {
    let tail = disk.get(Key::Tail)?.unwrap_or_default();
    if tail.len() as u64 != tip.bytes % CONTENT {
        let reason = format!("{} bytes of {} do not fill a page", tail.len(), tip.bytes);
        return Err(StoreError::corrupt(Key::Tail, reason));
    }
    let full = tip.bytes.saturating_sub(tail.len() as u64);
    let name = Name::Blocks(tip.segments);
    let mut bytes = match full {
        0 => Vec::new(),
        _ => Pages::open(&files.history, name)?.read(0..full)?,
    };
    bytes.extend_from_slice(&tail);
    let mut open = Open { tail, ..Open::default() };
    let mut rest = &bytes[..];
    for height in (first.0..=tip.height.0).map(Height) {
        let decoded = codec::decode_prefix::<Block>(rest);
        let (block, length) = decoded.map_err(|error| StoreError::corrupt(name, error))?;
        if block.header.height != height {
            let reason = format!("block {} where {height} belongs", block.header.height);
            return Err(StoreError::corrupt(name, reason));
        }
        open.entries.extend(index::stored_entries(chain, &block));
        rest = rest.get(length..).unwrap_or_default();
        open.ends.push(bytes.len().saturating_sub(rest.len()) as u64);
    }
    if !rest.is_empty() {
        return Err(StoreError::corrupt(name, format!("{} bytes after its blocks", rest.len())));
    }
    Ok(open)
}

/// The bytes of a block that must be stored.
pub(super) fn block_bytes(
    files: &Files,
    segments: &Segments,
    height: Height,
) -> Result<Vec<u8>, StoreError> {
    let corrupt = |reason| Err(StoreError::corrupt(format_args!("block {height}"), reason));
    match segments.place(height) {
        Kept::Here(place) => Ok(files.block_start(&place, usize::MAX)?.1),
        Kept::Never => corrupt("in no segment"),
        Kept::NotKept => corrupt("is needed, but not kept"),
    }
}

/// The header of a block that must be stored, or be the end of a segment that is not kept.
pub(super) fn stored_header(
    disk: &Disk,
    files: &Files,
    segments: &Segments,
    height: Height,
) -> Result<Header, StoreError> {
    if let Kept::NotKept = segments.place(height)
        && let Some(descriptor) = segments.ending_at(height)
        && let Some((header, _)) = kept::read_end(disk, descriptor)?
    {
        return Ok(header);
    }
    read_header(height, &block_bytes(files, segments, height)?)
}

/// Checks that the store has the block that the witness file names as the last durable one.
pub(super) fn check_witness(
    directory: &Path,
    files: &Files,
    segments: &Segments,
    tip: &TipValue,
) -> Result<Witness, StoreError> {
    let (witness, height, hash) = Witness::open(directory)?;
    let is_there = height <= tip.height
        && match segments.place(height) {
            Kept::Here(_) => {
                read_header(height, &block_bytes(files, segments, height)?)?.hash() == hash
            }
            // Of a block that is not kept only the end of its segment is known.
            _ => segments.ending_at(height).is_none_or(|segment| segment.last_block == hash),
        };
    if !is_there {
        let reason = format!(
            "ends at height {}, but block {height} ({hash}) was durable: the database is damaged, \
             sync this node from the start",
            tip.height
        );
        return Err(StoreError::corrupt("database", reason));
    }
    Ok(witness)
}

/// The state of the chain at the newest checkpoint, or at the genesis if there is none.
pub(super) fn restore(
    disk: &Disk,
    files: &Files,
    segments: &Segments,
    chain: &Arc<Chain>,
    tip: &TipValue,
    marker: Option<&Marker>,
) -> Result<ChainState, StoreError> {
    let Some(marker) = marker else { return Ok(ChainState::genesis(Arc::clone(chain))) };
    if marker.height > tip.height {
        let reason = format!("is at height {}, the tip at {}", marker.height, tip.height);
        return Err(StoreError::corrupt(Key::Marker, reason));
    }
    let state = checkpoint::load(disk, marker.slot)?;
    let sealed = segments.sealed.iter().take_while(|sealed| sealed.last <= marker.height);
    let mut history = History::restore(chain.history_rules(), sealed.copied())
        .map_err(|error| StoreError::corrupt("segments", error))?;
    let mut header = None;
    while history.tip() < marker.height {
        let height = history.tip().next();
        let bytes = block_bytes(files, segments, height)?;
        let decoded = read_header(height, &bytes)?;
        history.push(height, decoded.hash(), &bytes);
        header = Some(decoded);
    }
    let header = match header {
        Some(header) => header,
        // The checkpoint's block closed a segment, so the loop above did not read it.
        None => stored_header(disk, files, segments, marker.height)?,
    };
    let (got, expected) = (state.root(), header.state_root);
    if header.hash() != marker.hash || got != expected {
        let reason = format!("state root {got} at height {}, expected {expected}", marker.height);
        return Err(StoreError::corrupt("checkpoint", reason));
    }
    let tip = Tip { height: marker.height, hash: marker.hash, time: header.time };
    Ok(ChainState::restored(Arc::clone(chain), tip, state, history))
}

fn read_header(height: Height, block: &[u8]) -> Result<Header, StoreError> {
    let decoded = codec::decode_prefix(block);
    decoded
        .map(|(header, _)| header)
        .map_err(|error| StoreError::corrupt(format_args!("block {height}"), error))
}
