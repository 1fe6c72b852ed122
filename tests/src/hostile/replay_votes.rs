//! Repeats the votes that it hears, each time with a new counter, so that gossip takes each copy
//! for a new message.

use ledger::codec;
use node::network::{Topic, Verdict};
use protocol::message::{Attempt, CONSENSUS_BYTES_MAX, ConsensusMessage};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::peer::Peer;
use super::{Field, Rate};

const IDENTITIES: u32 = 4;
/// Votes a second of each identity.
const RATE: f64 = 500.0;
/// Most votes remembered. They are of the last few heights, which nodes do not ignore yet.
const VOTES: usize = 16;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut identities = JoinSet::new();
    for number in 0..IDENTITIES {
        let peer = Peer::dial(field, &field.targets)?;
        identities.spawn(replay(peer, until, u64::from(number) << 56));
    }
    let mut reached = 0.0;
    while let Some(rate) = identities.join_next().await {
        reached += rate??;
    }
    Ok(reached)
}

async fn replay(mut peer: Peer, until: Instant, first_attempt: u64) -> anyhow::Result<f64> {
    let mut votes: Vec<ConsensusMessage> = Vec::new();
    let (mut rate, mut attempt) = (Rate::start(), first_attempt);
    while Instant::now() < until {
        let wait = async {
            match votes.is_empty() {
                // There is no vote to repeat yet.
                true => peer.inbox.consensus.recv().await,
                false => {
                    rate.due(RATE).await;
                    peer.inbox.consensus.try_recv().ok()
                }
            }
        };
        let Ok(heard) = timeout_at(until, wait).await else { break };
        if let Some(gossip) = heard {
            let decoded =
                codec::decode::<Attempt<ConsensusMessage>>(&gossip.bytes, CONSENSUS_BYTES_MAX);
            if let Ok(Attempt { message: vote @ ConsensusMessage::Vote(_), .. }) = decoded {
                votes.push(vote);
                votes.drain(..votes.len().saturating_sub(VOTES));
            }
            peer.network.verdict(gossip.ticket, Verdict::Accept);
        }
        peer.drain();
        if votes.is_empty() {
            rate = Rate::start();
            continue;
        }
        attempt += 1;
        let vote = votes[usize::try_from(attempt)? % votes.len()].clone();
        peer.network.publish(Topic::Consensus, codec::encode(&Attempt { attempt, message: vote }));
    }
    Ok(rate.per_second())
}
