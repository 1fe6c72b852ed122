//! The target for the machine of mempool, consensus and catch-up, among honest and hostile peers.
//!
//! One of the four validators of the [`fixture`](super::fixture) is the machine under test, and one
//! signs anything. The other two have decided twelve blocks and say so through honest peers. So
//! these rules hold whatever the bytes choose, unless they choose a fork: the machine commits these
//! blocks and no others, never halts, and bans no honest peer. Even in a fork it signs no two
//! different messages of one kind for one round, and sends no vote or proposal of its own that its
//! log does not hold.

mod offers;
mod shell;

use std::time::Duration;

use ledger::units::Height;
use protocol::{Input, PeerId, Topic};

use super::fixture::HEIGHTS;
use super::stream::Stream;
use shell::Shell;

/// Peers that follow the protocol.
const HONEST: [PeerId; 3] = [PeerId(1), PeerId(2), PeerId(3)];
/// Peers that may do anything.
const HOSTILE: [PeerId; 3] = [PeerId(4), PeerId(5), PeerId(6)];
/// The honest peer that connects at the end.
const HELPER: PeerId = PeerId(9);
/// Most choices of one input, so that no input takes long.
const CHOICES_MAX: usize = 256;
/// Most wakes that the machine may need to get all blocks, once only honest peers are left. It
/// needs far fewer.
const WAKES_MAX: usize = 400;

/// Runs one input: a byte that chooses how the machine starts, then a list of choices. A choice is
/// a byte that selects an action, and then the bytes of its details. At the end the hostile peers
/// leave, and an honest peer brings the machine to the tip. Returns whether it had any block before
/// that.
pub fn live_machine(data: &[u8]) -> bool {
    let mut stream = Stream(data);
    let Some(start) = stream.next() else { return false };
    let mut shell = Shell::new(start & 1 == 0, start & 2 == 0);
    for _ in 0..CHOICES_MAX {
        let Some(choice) = stream.next() else { break };
        choose(&mut shell, choice, &mut stream);
    }
    let is_useful = shell.tip() > Height(0);
    finish(&mut shell);
    is_useful
}

fn choose(shell: &mut Shell, choice: u8, stream: &mut Stream<'_>) {
    let honest = |stream: &mut Stream<'_>| HONEST[stream.below(HONEST.len())];
    let hostile = |stream: &mut Stream<'_>| HOSTILE[stream.below(HOSTILE.len())];
    match choice % 20 {
        0 => shell.elapse(Duration::from_millis(u64::from(stream.byte()) * 20)),
        1 => shell.sleep(),
        2 => shell.connect(honest(stream)),
        3 => shell.connect(hostile(stream)),
        4 => shell.disconnect(honest(stream)),
        5 => shell.disconnect(hostile(stream)),
        6 => {
            let topic = [Topic::Consensus, Topic::Headers, Topic::Transactions][stream.below(3)];
            let from = hostile(stream);
            shell.gossip(from, topic, stream.bytes().to_vec());
        }
        7 => {
            let from = hostile(stream);
            shell.request(from, stream.bytes().to_vec());
        }
        8 => {
            let which = stream.byte();
            let bytes = (which & 1 == 0).then(|| stream.bytes().to_vec());
            shell.answer(&HOSTILE, which / 2, |_| bytes);
        }
        9 => {
            let which = stream.byte();
            shell.answer(&HONEST, which, offers::answer);
        }
        10 => {
            let (which, place, flip) = (stream.byte(), stream.byte(), stream.byte());
            shell.answer(&HOSTILE, which, |request| {
                offers::answer(request).map(|bytes| spoil(bytes, place, flip))
            });
        }
        11 => {
            let from = honest(stream);
            if let Some(bytes) = offers::header(stream, shell.attempt()) {
                shell.gossip(from, Topic::Headers, bytes);
            }
        }
        12 => {
            let from = hostile(stream);
            let header = offers::header(stream, shell.attempt());
            let (place, flip) = (stream.byte(), stream.byte());
            if let Some(bytes) = header {
                shell.gossip(from, Topic::Headers, spoil(bytes, place, flip));
            }
        }
        13 => {
            let from = honest(stream);
            if let Some(bytes) = offers::vote(stream, shell.attempt()) {
                shell.gossip(from, Topic::Consensus, bytes);
            }
        }
        14 => {
            let from = honest(stream);
            if let Some(bytes) = offers::proposal(stream, shell.attempt()) {
                shell.gossip(from, Topic::Consensus, bytes);
            }
        }
        15 => {
            let from = hostile(stream);
            let bytes = offers::byzantine(stream, shell.attempt());
            shell.gossip(from, Topic::Consensus, bytes);
        }
        16 => {
            let from = honest(stream);
            shell.request(from, offers::request(stream));
        }
        17 => {
            let ticket = shell.ticket();
            let transactions = offers::transactions(stream);
            match (stream.byte() & 1, transactions.first().cloned().flatten()) {
                (0, Some(transaction)) => shell.give(Input::Submit(ticket, transaction)),
                _ => shell.give(Input::Transactions(ticket, transactions)),
            }
        }
        18 => shell.restart(),
        _ => match stream.byte() {
            0 => shell.fork(Height(1 + stream.below(HEIGHTS as usize) as u64)),
            _ => shell.give_segment(),
        },
    }
}

/// Changes a byte.
fn spoil(mut bytes: Vec<u8>, place: u8, flip: u8) -> Vec<u8> {
    let place = usize::from(place) * 3 % bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= flip;
    }
    bytes
}

/// The end of every input: nothing that hostile peers did keeps the machine from the tip.
fn finish(shell: &mut Shell) {
    for peer in HOSTILE {
        shell.disconnect(peer);
    }
    shell.connect(HELPER);
    for _ in 0..WAKES_MAX {
        if shell.tip() == Height(HEIGHTS) || shell.is_forked() {
            return;
        }
        for peers in [&HONEST[..], &[HELPER]] {
            while shell.answer(peers, 0, offers::answer) {}
        }
        shell.give_segment();
        shell.sleep();
    }
    panic!("height {} is the end although an honest peer has all blocks", shell.tip());
}
