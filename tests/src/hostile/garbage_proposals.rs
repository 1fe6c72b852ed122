//! Repeats the newest proposal, each time with a list of 15,000 random hashes, which no signature
//! covers.

use ledger::codec;
use ledger::hash::{Hash, TxHash};
use node::network::{Topic, Verdict};
use protocol::message::{Attempt, CONSENSUS_BYTES_MAX, ConsensusMessage};
use tokio::time::{Instant, timeout_at};

use super::peer::Peer;
use super::{Field, Rate};

/// Proposals a second.
const RATE: f64 = 20.0;
/// Hashes in each proposal: nearly as many as fit in a gossip message.
const HASHES: u64 = 15_000;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut peer = Peer::dial(field, &field.targets)?;
    let (mut latest, mut rate, mut attempt) = (None, Rate::start(), 0);
    while Instant::now() < until {
        let wait = async {
            match latest.is_none() {
                true => peer.inbox.consensus.recv().await,
                false => {
                    rate.due(RATE).await;
                    peer.inbox.consensus.try_recv().ok()
                }
            }
        };
        let Ok(mut heard) = timeout_at(until, wait).await else { break };
        while let Some(gossip) = heard {
            let decoded =
                codec::decode::<Attempt<ConsensusMessage>>(&gossip.bytes, CONSENSUS_BYTES_MAX);
            if let Ok(Attempt {
                message: ConsensusMessage::Proposal(signed, Some(compact)), ..
            }) = decoded
            {
                if latest.is_none() {
                    rate = Rate::start();
                }
                latest = Some((signed, compact));
            }
            peer.network.verdict(gossip.ticket, Verdict::Accept);
            heard = peer.inbox.consensus.try_recv().ok();
        }
        peer.drain();
        let Some((signed, compact)) = &latest else { continue };
        attempt += 1;
        let mut compact = compact.clone();
        compact.transactions = (0..HASHES).map(|number| TxHash(random(attempt, number))).collect();
        let message = ConsensusMessage::Proposal(signed.clone(), Some(compact));
        peer.network.publish(Topic::Consensus, codec::encode(&Attempt { attempt, message }));
    }
    Ok(rate.per_second())
}

/// A hash that no transaction has, made of two numbers.
pub(super) fn random(first: u64, second: u64) -> Hash {
    let mut hash = [0; 32];
    for (index, part) in hash.chunks_exact_mut(8).enumerate() {
        let mixed = (first ^ second.rotate_left(32))
            .wrapping_add(index as u64 + 1)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        part.copy_from_slice(&(mixed ^ (mixed >> 29)).to_le_bytes());
    }
    Hash(hash)
}
