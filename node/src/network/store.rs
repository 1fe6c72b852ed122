//! The peer store: what a node remembers of peers from one run to the next, in one file.
//!
//! The file is a convenience. Without it, or with a damaged one, a node starts from its
//! configuration, as a new one does.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use super::bans::{Bans, RECORDS_MAX, Record};
use super::group::{Group, Grouping};
use super::known::{ADDRESSES_MAX, Addresses, Known, Source};

/// The version of the file's format.
const VERSION: u32 = 1;

/// Size limit of the file when it is read, in bytes. A full file has about two thirds of it.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Number of outbound peers that the next run dials first. So an attacker that has filled a node's
/// addresses cannot choose its peers by making it restart.
pub(crate) const ANCHORS: usize = 2;

/// What a node remembers of peers.
pub(crate) struct PeerStore {
    path: Option<PathBuf>,
    pub(crate) addresses: Addresses,
    pub(crate) bans: Bans,
    /// The anchors of the last run. Those of this run replace them at the first write of the store
    /// at which this run has outbound peers.
    pub(crate) anchors: Vec<(PeerId, Multiaddr)>,
    /// Identities that answered at configured addresses without an identity.
    pub(crate) identities: BTreeMap<Multiaddr, PeerId>,
}

impl PeerStore {
    /// Reads the file, if there is one. A file that cannot be read is ignored with a warning. A
    /// single entry that does not parse is left out without a warning.
    pub(crate) fn open(path: Option<PathBuf>, grouping: Grouping, now_ms: u64) -> Self {
        let mut store = Self {
            addresses: Addresses::new(grouping),
            bans: Bans::default(),
            anchors: Vec::new(),
            identities: BTreeMap::new(),
            path,
        };
        let Some(path) = &store.path else { return store };
        match read(path) {
            Ok(Some(file)) => store.restore(file, grouping, now_ms),
            Ok(None) => {}
            Err(error) => {
                let path = path.display();
                tracing::warn!(%path, %error, "the peer store cannot be read; it starts empty");
            }
        }
        store
    }

    fn restore(&mut self, file: StoreFile, grouping: Grouping, now_ms: u64) {
        for entry in file.addresses.into_iter().take(ADDRESSES_MAX) {
            let (Ok(peer), Ok(address)) = (entry.peer.parse(), entry.address.parse()) else {
                continue;
            };
            self.addresses.insert(Known {
                peer,
                group: grouping.of(&address),
                address,
                good_ms: entry.good_ms.min(now_ms),
                is_proved: entry.proved,
                tried_ms: entry.tried_ms.min(now_ms),
                failures: entry.failures,
                source: (!entry.proved).then_some(Source::Other(Group::Unknown)),
            });
        }
        for ban in file.offenders.into_iter().take(RECORDS_MAX) {
            let Ok(peer) = ban.peer.parse() else { continue };
            let address = ban.address.and_then(|address| address.parse().ok());
            let Offender { offence, at_ms, until_ms, times, .. } = ban;
            self.bans.restore(peer, Record { offence, at_ms, until_ms, times, address }, now_ms);
        }
        let pair = |entry: Named| Some((entry.peer.parse().ok()?, entry.address.parse().ok()?));
        self.anchors = file.anchors.into_iter().take(ANCHORS).filter_map(pair).collect();
        let pairs = file.identities.into_iter().filter_map(pair);
        self.identities = pairs.map(|(peer, address)| (address, peer)).collect();
    }

    /// The file to write. `None` if the node remembers no peers on disk.
    pub(crate) fn to_write(&self) -> Option<Write> {
        let path = self.path.clone()?;
        let address = |known: &Known| Address {
            peer: known.peer.to_string(),
            address: known.address.to_string(),
            good_ms: known.good_ms,
            proved: known.is_proved,
            tried_ms: known.tried_ms,
            failures: known.failures,
        };
        let offender = |(peer, record): (&PeerId, &Record)| Offender {
            peer: peer.to_string(),
            address: record.address.as_ref().map(ToString::to_string),
            offence: record.offence.clone(),
            at_ms: record.at_ms,
            until_ms: record.until_ms,
            times: record.times,
        };
        let named = |peer: &PeerId, address: &Multiaddr| Named {
            peer: peer.to_string(),
            address: address.to_string(),
        };
        let file = StoreFile {
            version: VERSION,
            anchors: self.anchors.iter().map(|(peer, address)| named(peer, address)).collect(),
            identities: self
                .identities
                .iter()
                .map(|(address, peer)| named(peer, address))
                .collect(),
            offenders: self.bans.records().map(offender).collect(),
            addresses: self.addresses.all().iter().map(address).collect(),
        };
        Some(Write { path, file })
    }
}

/// A file that is ready to be written.
pub(crate) struct Write {
    path: PathBuf,
    file: StoreFile,
}

impl Write {
    /// Replaces the file atomically. Blocks until the disk has it.
    pub(crate) fn perform(self) -> io::Result<()> {
        let mut bytes = serde_json::to_vec(&self.file)?;
        bytes.push(b'\n');
        crate::files::write_atomic(&self.path, &bytes, 0o600)
    }
}

fn read(path: &Path) -> io::Result<Option<StoreFile>> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("{length} bytes, expected at most {FILE_BYTES_MAX}")));
    }
    let file: StoreFile = serde_json::from_slice(&std::fs::read(path)?)?;
    if file.version != VERSION {
        return Err(io::Error::other(format!("version {}, expected {VERSION}", file.version)));
    }
    Ok(Some(file))
}

#[derive(Serialize, Deserialize)]
struct StoreFile {
    version: u32,
    anchors: Vec<Named>,
    identities: Vec<Named>,
    offenders: Vec<Offender>,
    addresses: Vec<Address>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    peer: String,
    address: String,
}

#[derive(Serialize, Deserialize)]
struct Offender {
    peer: String,
    address: Option<String>,
    offence: String,
    at_ms: u64,
    until_ms: u64,
    times: u32,
}

#[derive(Serialize, Deserialize)]
struct Address {
    peer: String,
    address: String,
    good_ms: u64,
    proved: bool,
    tried_ms: u64,
    failures: u32,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::network::bans::{Charge, Severity};

    const NOW: u64 = 1_700_000_000_000;

    fn open(path: &Path) -> PeerStore {
        PeerStore::open(Some(path.to_owned()), Grouping::default(), NOW)
    }

    #[test]
    fn everything_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let (peer, liar) = (PeerId::random(), PeerId::random());
        let address: Multiaddr = "/ip4/1.2.3.4/tcp/7700".parse().unwrap();
        let mut store = open(&path);
        store.addresses.on_success(peer, &address, NOW);
        store.addresses.on_failure(&peer, std::slice::from_ref(&address), NOW + 5);
        let charge = Charge {
            offence: "wrong_chunk".into(),
            detail: String::new(),
            severity: Severity::Lie,
        };
        store.bans.judge(liar, Some(address.clone()), &charge, false, NOW);
        store.anchors = vec![(peer, address.clone())];
        store.identities = BTreeMap::from([(address.clone(), peer)]);
        store.to_write().unwrap().perform().unwrap();

        let again = PeerStore::open(Some(path), Grouping::default(), NOW + 10);
        assert_eq!(again.addresses.all(), store.addresses.all());
        assert_eq!(again.bans.list(NOW + 10), store.bans.list(NOW));
        assert_eq!(again.bans.suspects(Grouping::default()).len(), 1);
        assert_eq!((again.anchors, again.identities), (store.anchors, store.identities));
    }

    #[test]
    fn a_full_store_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        let mut store = open(&path);
        let charge = Charge {
            offence: "undecodable_request".into(),
            detail: String::new(),
            severity: Severity::Lie,
        };
        for number in 0..ADDRESSES_MAX.max(RECORDS_MAX) {
            let text = format!("/ip6/2606:4700:{number:x}:1111:2222:3333:4444:5555/tcp/65535");
            let address: Multiaddr = text.parse().unwrap();
            store.addresses.on_success(PeerId::random(), &address, NOW);
            store.bans.judge(PeerId::random(), Some(address), &charge, false, NOW);
        }
        store.to_write().unwrap().perform().unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < FILE_BYTES_MAX * 3 / 4);
        assert_eq!(open(&path).addresses.all().len(), store.addresses.all().len());
    }

    #[test]
    fn damage_is_an_empty_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.json");
        assert!(open(&path).addresses.all().is_empty(), "there is no file");
        for text in [
            "",
            "{",
            "[]",
            r#"{"version":2,"anchors":[],"identities":[],"offenders":[],"addresses":[]}"#,
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(read(&path).is_err(), "{text}");
            assert!(open(&path).addresses.all().is_empty());
        }
        let odd = r#"{"version":1,"anchors":[{"peer":"x","address":"y"}],"identities":[],
            "offenders":[],"addresses":[]}"#;
        std::fs::write(&path, odd).unwrap();
        assert!(open(&path).anchors.is_empty(), "one odd entry is left out");
        std::fs::File::create(&path).unwrap().set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(open(&path).addresses.all().is_empty(), "larger than any that we write");
    }
}
