//! A small file beside the database that names the last durable block.
//!
//! sled silently ends its log at the first bytes that fail its check. After a crash this is right,
//! since the last writes were never acknowledged. After damage in the middle of the log it is
//! wrong, since final blocks would be lost. The witness tells the two cases apart: a database
//! without the block that it names is damaged.
//!
//! The witness is written after each commit but synced only with each checkpoint, so a commit does
//! not wait for the disk twice. After a loss of power the witness may name an older block than the
//! tip of the database, but never a newer one.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::codec;
use crate::hash::BlockHash;
use crate::store::StoreError;
use crate::store::schema;
use crate::units::Height;

/// The name of the file. The checksums in the file cover the name.
const NAME: &str = "durable";
/// The file has two places of this many bytes. They are written in turn, so one stays whole if a
/// crash tears the write of the other.
const PLACE_BYTES: usize = 512;
const PLACES_BYTES: u64 = 2 * PLACE_BYTES as u64;
/// Bytes of checksum, height and hash.
const CONTENT_BYTES: usize = 8 + 8 + 32;

/// The open file.
pub(super) struct Witness {
    file: File,
    path: PathBuf,
    /// The place to write next, 0 or 1.
    next: u64,
}

impl Witness {
    /// Creates the file of a new chain.
    pub(super) fn create(directory: &Path, chain: BlockHash) -> Result<(), StoreError> {
        let path = directory.join(NAME);
        let file = File::create(&path).map_err(|error| StoreError::io(&path, error))?;
        let mut witness = Self { file, path, next: 0 };
        witness.write(Height(0), chain)?;
        witness.write(Height(0), chain)?;
        witness.sync()
    }

    /// Opens the file and reads the newest of the two places that is whole.
    pub(super) fn open(directory: &Path) -> Result<(Self, Height, BlockHash), StoreError> {
        let path = directory.join(NAME);
        let io = |error| StoreError::io(&path, error);
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(PLACES_BYTES).read_to_end(&mut bytes).map_err(io)?;
        let content = |place: &[u8]| {
            let value = place.get(..CONTENT_BYTES)?;
            codec::decode::<(Height, BlockHash)>(
                schema::unseal(NAME.as_bytes(), value).ok()?,
                CONTENT_BYTES,
            )
            .ok()
        };
        let places = (0u64..).zip(bytes.chunks(PLACE_BYTES));
        let newest = places.filter_map(|(place, bytes)| Some((content(bytes)?, place))).max();
        let Some(((height, hash), place)) = newest else {
            return Err(StoreError::corrupt(path.display(), "both copies are damaged"));
        };
        Ok((Self { file, path, next: place ^ 1 }, height, hash))
    }

    /// Records a durable block in the older of the two places.
    pub(super) fn write(&mut self, height: Height, hash: BlockHash) -> Result<(), StoreError> {
        let mut place = schema::seal(NAME.as_bytes(), &codec::encode(&(height, hash)));
        place.resize(PLACE_BYTES, 0);
        let offset = SeekFrom::Start(self.next.saturating_mul(PLACE_BYTES as u64));
        let written = self.file.seek(offset).and_then(|_| self.file.write_all(&place));
        self.next ^= 1;
        written.map_err(|error| StoreError::io(&self.path, error))
    }

    pub(super) fn sync(&self) -> Result<(), StoreError> {
        self.file.sync_data().map_err(|error| StoreError::io(&self.path, error))
    }
}
