//! The target for the swarm machine, among honest and hostile peers.
//!
//! The chain is a [`Made`]: heads and certificates without blocks behind them. Whatever the input
//! chooses, these rules hold. Only proved chunks are stored. Only stored chunks are sent, and only
//! to peers that asked for them and gave credit. Requests and segments are bounded, and no honest
//! peer is banned. An input that begins with 255 is for a machine that begins with a snapshot, and
//! such a machine loads the true one or none.

mod link;
mod parts;
mod shell;
mod snapshots;

use std::sync::LazyLock;
use std::time::Duration;

use ledger::hash::Hash;
use ledger::units::{Height, SegmentIndex};
use protocol::PeerId;
use protocol::swarm::message::{
    ChunkId, CollectionId, CollectionNumber, Holdings, SyncMessage, Update,
};
use protocol::swarm::{Bits, HISTORY, SegmentRange, SegmentRanges};

use super::stream::Stream;
use crate::swarm::Made;
use shell::Shell;

/// Peers that follow the protocol and have everything.
const HONEST: [PeerId; 3] = [PeerId(1), PeerId(2), PeerId(3)];
/// Peers that may do anything.
const HOSTILE: [PeerId; 4] = [PeerId(4), PeerId(5), PeerId(6), PeerId(7)];
/// The honest peer that opens a link at the end.
const HELPER: PeerId = PeerId(9);
/// Most choices of one input, so that no input takes long.
const CHOICES_MAX: usize = 512;
/// Most steps until all segments are applied, once only honest peers are left. It takes far fewer.
const STEPS_MAX: usize = 2_000;

const SEGMENTS: u64 = 4;
const SEGMENT_BYTES: u64 = 80 << 10;
/// Five chunks a segment.
const CHUNK_BYTES: u64 = 16 << 10;
/// Some ten chunks of a snapshot.
const ACCOUNTS: u64 = 1_500;
/// Segments with a snapshot at their end.
const SNAPSHOT: SegmentIndex = SegmentIndex(1);
/// The first byte of an input whose machine begins with a snapshot.
const JOINS: u8 = 255;

pub(super) fn made() -> &'static Made {
    static MADE: LazyLock<Made> = LazyLock::new(|| {
        Made::with_accounts(SEGMENTS * SEGMENT_BYTES, SEGMENT_BYTES, CHUNK_BYTES, ACCOUNTS)
    });
    &MADE
}

/// Runs one input, which is a list of choices. A choice is a byte that selects an action, and then
/// the bytes of its details. At the end the hostile peers leave, and an honest peer gives the
/// machine all segments. Returns whether the machine had stored anything before that.
pub fn swarm_machine(data: &[u8]) -> bool {
    let mut stream = Stream(data);
    let joins = data.first() == Some(&JOINS);
    let mut shell = Shell::new(made(), joins);
    for _ in 0..CHOICES_MAX {
        let Some(choice) = stream.next() else { break };
        choose(&mut shell, choice, &mut stream);
    }
    let is_useful = shell.has_any();
    finish(&mut shell);
    is_useful
}

fn choose(shell: &mut Shell, choice: u8, stream: &mut Stream<'_>) {
    let honest = |stream: &mut Stream<'_>| HONEST[stream.below(HONEST.len())];
    let hostile = |stream: &mut Stream<'_>| HOSTILE[stream.below(HOSTILE.len())];
    match choice {
        230..=237 => {
            let peer = hostile(stream);
            return shell.say(peer, &snapshots::lie(stream));
        }
        238..=243 => return shell.load(stream.byte()),
        244..=247 => return shell.keep(choice.is_multiple_of(2)),
        248..=251 => {
            let (peer, which, right) = (hostile(stream), stream.byte(), stream.byte());
            return shell.give_part(peer, which, right & 1 == 0);
        }
        _ => {}
    }
    match choice % 18 {
        0 => shell.elapse(Duration::from_millis(u64::from(stream.byte()) * 20)),
        1 => shell.open(honest(stream)),
        2 => shell.open(hostile(stream)),
        3 => shell.close(honest(stream)),
        4 => shell.close(hostile(stream)),
        5 => {
            let peer = hostile(stream);
            shell.message(peer, stream.bytes().to_vec());
        }
        6 => {
            let peer = hostile(stream);
            shell.say(peer, &lie(stream));
        }
        7 => shell.greet(honest(stream)),
        8 => shell.answer(honest(stream)),
        9 => {
            let (peer, which) = (honest(stream), stream.byte());
            shell.give_part(peer, which, true);
            shell.give_chunk(peer, which);
        }
        10 => {
            let (peer, which, right) = (hostile(stream), stream.byte(), stream.byte());
            let wanted = shell.wanted(peer, which).filter(|_| right & 2 == 0);
            let id = wanted.unwrap_or_else(|| id(HISTORY, &mut Stream(&[which])));
            let (hash, bytes) = made().chunk(id).unwrap_or((Hash::ZERO, CHUNK_BYTES));
            shell.chunk(peer, id, if right & 1 == 0 { hash } else { Hash([right; 32]) }, bytes);
        }
        11 => shell.write(stream.byte()),
        12 => shell.lose(stream.byte()),
        13 => shell.certify(),
        14 => {
            let damaged = stream.byte();
            shell.assemble((damaged > 200).then_some(u32::from(damaged % 6)));
        }
        15 => shell.apply(),
        16 => {
            let peer = honest(stream);
            shell.want(peer, id(number(peer), stream), stream.byte());
        }
        _ => shell.restart(stream.byte()),
    }
}

/// An honest peer's number for history. It differs from the machine's.
fn number(peer: PeerId) -> CollectionNumber {
    CollectionNumber(u16::try_from(peer.0).expect("peers have small numbers"))
}

fn id(collection: CollectionNumber, stream: &mut Stream<'_>) -> ChunkId {
    let choice = stream.byte();
    let index = SegmentIndex(u64::from(choice / 8) % (SEGMENTS + 1));
    collection.segment(index).chunk(u32::from(choice % 8))
}

/// A well-formed message, which may be false.
fn lie(stream: &mut Stream<'_>) -> SyncMessage {
    // Small numbers, or nearly the largest.
    let number = |stream: &mut Stream<'_>| match stream.byte() {
        byte @ 0..=239 => u64::from(byte),
        byte => u64::MAX - u64::from(byte - 240),
    };
    let segment = |stream: &mut Stream<'_>| SegmentIndex(number(stream));
    // Mostly a number that the peer has opened.
    let collection = |stream: &mut Stream<'_>| match stream.byte() {
        byte @ 200.. => CollectionNumber(u16::from(byte - 200)),
        _ => CollectionNumber(0),
    };
    let ids = |stream: &mut Stream<'_>| {
        let collection = collection(stream);
        (0..stream.below(8)).map(|_| id(collection, stream)).collect::<Vec<_>>()
    };
    match stream.below(12) {
        0 => {
            let mut bits = Bits::default();
            for id in ids(stream) {
                bits.set(id.chunk);
            }
            let open =
                if stream.byte() & 1 == 0 { vec![(segment(stream), bits)] } else { Vec::new() };
            let whole = SegmentRanges::before(segment(stream));
            let holdings = Holdings { whole, open, nonce: 3 };
            SyncMessage::Holdings(collection(stream), holdings)
        }
        1 => SyncMessage::Update(Update {
            have: ids(stream),
            add: ids(stream),
            remove: ids(stream),
            received: number(stream),
            allowed: number(stream),
        }),
        2 => {
            let range = SegmentRange { first: segment(stream), last: segment(stream) };
            SyncMessage::Held(collection(stream), range)
        }
        8 => SyncMessage::Height(Height(number(stream))),
        9 => {
            let other = CollectionId(Hash([stream.byte(); 32]));
            let id = if stream.byte() < 200 { made().id() } else { other };
            SyncMessage::Open(collection(stream), id)
        }
        10 => SyncMessage::Close(collection(stream)),
        11 => SyncMessage::NotKept(collection(stream).segment(segment(stream))),
        3 => SyncMessage::Busy(u32::from(stream.byte()) << stream.below(24)),
        4 => SyncMessage::GetManifest(Height(number(stream)), segment(stream)),
        5 => {
            let (height, from, to) =
                (made().target.header.height, segment(stream), stream.below(6));
            let mut descriptors = made().descriptors(to.min(SEGMENTS as usize));
            if let (Some(descriptor), flip @ 1..) = (descriptors.last_mut(), stream.byte()) {
                descriptor.bytes ^= u64::from(flip);
            }
            SyncMessage::Manifest(height, from, (to > 0).then_some(descriptors))
        }
        6 => SyncMessage::GetHead(segment(stream)),
        _ => {
            let (index, other) = (segment(stream), stream.below(SEGMENTS as usize + 1));
            let mut head = made().heads.get(other).cloned();
            if let (Some(head), flip @ 1..) = (&mut head, stream.byte()) {
                head.chunks[0].0[0] ^= flip;
            }
            SyncMessage::Head(index, head)
        }
    }
}

/// The end of every input: nothing that hostile peers did keeps the machine from the history.
fn finish(shell: &mut Shell) {
    for peer in HOSTILE {
        shell.close(peer);
    }
    shell.open(HELPER);
    shell.certify();
    let peers = || HONEST.into_iter().chain([HELPER]);
    for _ in 0..STEPS_MAX {
        if shell.is_done() {
            return;
        }
        for peer in peers() {
            shell.greet(peer);
            shell.answer(peer);
            shell.give_part(peer, 0, true);
            shell.give_chunk(peer, 0);
        }
        shell.load(0);
        shell.write(0);
        shell.assemble(None);
        shell.apply();
        shell.elapse(Duration::from_millis(100));
    }
    panic!("segments are missing although an honest peer has all: {}", shell.describe());
}
