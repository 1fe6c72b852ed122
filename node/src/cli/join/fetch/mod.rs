//! Fetches the genesis of a chain from a node that a link names.
//!
//! The node is not believed: the chain id is the hash of the genesis.

use std::time::Duration;

use ledger::codec;
use ledger::genesis::{GENESIS_BYTES_MAX, Genesis, GenesisError};
use ledger::hash::{ChainId, Domain, Hash};
use protocol::message::{GENESIS_PIECE_BYTES, Request, Response, answer_bytes_max};
use tokio::time::{sleep, timeout};

use crate::network::{Multiaddr, RequestError, Visit, VisitError};

/// How long the whole fetch from one address may take, from the first dial on. A genesis of some
/// KiB takes less than a second. If this were shorter, a large genesis would not come over a slow
/// link. If it were longer, a node that sends byte by byte would hold up a person.
pub(super) const FETCH_MAX: Duration = Duration::from_secs(120);
/// How many times a node is tried in all, if it closes the connection or is busy. A node of another
/// chain may close the connection just before it says which one it is of.
const TRIES: u32 = 4;
/// Pause before another try. A node that has no budget for a request refuses it after 250 ms.
const PAUSE: Duration = Duration::from_millis(500);

/// Why the genesis could not be fetched.
#[derive(Debug, thiserror::Error)]
pub(in crate::cli) enum FetchError {
    #[error("no node answers at {address}: {reason}")]
    Unreachable { address: Multiaddr, reason: String },
    #[error("nobody at {address} is of chain {chain}: {reason}")]
    OtherChain { address: Multiaddr, chain: ChainId, reason: String },
    #[error("{address} does not answer as a node of the chain: {reason}")]
    Hostile { address: Multiaddr, reason: String },
    #[error("the genesis did not come from {address} within {} s", time.as_secs())]
    Slow { address: Multiaddr, time: Duration },
    #[error("the name {name:?} was not resolved within {} s", time.as_secs())]
    Unresolved { name: String, time: Duration },
    #[error("the genesis of chain {chain} breaks the rules, so no node runs it: {error}")]
    Rules { chain: ChainId, error: GenesisError },
    #[error("the genesis of chain {chain} cannot be used by any node: {reason}")]
    Unusable { chain: ChainId, reason: String },
    #[error("{0}")]
    Network(String),
}

impl FetchError {
    /// Whether another address may have what this one has not.
    pub(super) const fn is_of_address(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::OtherChain { .. }
                | Self::Hostile { .. }
                | Self::Slow { .. }
        )
    }
}

/// Fetches the genesis of a chain from one address, in at most `time`.
pub(super) async fn genesis(
    chain: ChainId,
    address: &Multiaddr,
    time: Duration,
) -> Result<Genesis, FetchError> {
    let fetched = timeout(time, fetch(chain, address)).await;
    let slow = FetchError::Slow { address: address.clone(), time };
    check(chain, &fetched.unwrap_or(Err(slow))?, address)
}

/// Fetches the bytes of the genesis, piece by piece. They are not checked yet.
async fn fetch(chain: ChainId, address: &Multiaddr) -> Result<Vec<u8>, FetchError> {
    let hostile = |reason: String| FetchError::Hostile { address: address.clone(), reason };
    let mut visit = meet(chain, address).await?;
    let mut bytes = Vec::new();
    for number in 0.. {
        let Some(piece) = piece(&mut visit, number).await.map_err(hostile)? else { break };
        if bytes.len().saturating_add(piece.len()) > GENESIS_BYTES_MAX {
            return Err(hostile(format!(
                "it sent more than {GENESIS_BYTES_MAX} bytes, the most that a genesis may have"
            )));
        }
        let is_last = piece.len() < GENESIS_PIECE_BYTES;
        bytes.extend(piece);
        if is_last {
            break;
        }
    }
    Ok(bytes)
}

async fn meet(chain: ChainId, address: &Multiaddr) -> Result<Visit, FetchError> {
    let id = chain.to_string();
    let mut met = Visit::begin(&id, address).await;
    for _ in 1..TRIES {
        if !matches!(met, Err(VisitError::Closed)) {
            break;
        }
        sleep(PAUSE).await;
        met = Visit::begin(&id, address).await;
    }
    let address = address.clone();
    met.map_err(|error| match error {
        VisitError::Unreachable(reason) => FetchError::Unreachable { address, reason },
        VisitError::Silent => FetchError::Unreachable { address, reason: error.to_string() },
        VisitError::OtherPeer(_) => FetchError::Hostile { address, reason: error.to_string() },
        VisitError::OtherChain(_) | VisitError::Closed => {
            FetchError::OtherChain { address, chain, reason: error.to_string() }
        }
        VisitError::Network(_) => FetchError::Network(error.to_string()),
    })
}

/// One piece of the genesis; `None` beyond the last one. The error says what was wrong.
async fn piece(visit: &mut Visit, number: u32) -> Result<Option<Vec<u8>>, String> {
    let request = codec::encode(&Request::Genesis(number));
    let most = answer_bytes_max(&request);
    let mut answer = visit.ask(request.clone(), most).await;
    for _ in 1..TRIES {
        if answer != Err(RequestError::Busy) {
            break;
        }
        sleep(PAUSE).await;
        answer = visit.ask(request.clone(), most).await;
    }
    let bytes = answer.map_err(|error| format!("asked for the genesis: {error}"))?;
    match Response::decode(&bytes) {
        Ok(Response::Genesis(piece)) => {
            let fits = piece.as_ref().is_none_or(|piece| piece.len() <= GENESIS_PIECE_BYTES);
            if fits { Ok(piece) } else { Err("it sent a piece that is too long".to_owned()) }
        }
        Ok(_) => Err("asked for the genesis, it sent the answer to another question".to_owned()),
        Err(error) => Err(format!("its answer cannot be read: {error}")),
    }
}

/// Checks that the bytes are the genesis of the chain, and that it keeps all rules.
fn check(chain: ChainId, bytes: &[u8], address: &Multiaddr) -> Result<Genesis, FetchError> {
    let found = ChainId(Hash::of(Domain::Genesis, &[bytes]));
    if found != chain {
        let reason = format!("it sent a genesis of chain {found}, expected {chain}");
        return Err(FetchError::Hostile { address: address.clone(), reason });
    }
    // By their hash these bytes are the genesis of the link. If they are wrong, that is no fault of
    // the node that sent them.
    let unusable = |reason: String| FetchError::Unusable { chain, reason };
    let genesis: Genesis = codec::decode(bytes, GENESIS_BYTES_MAX)
        .map_err(|error| unusable(format!("it cannot be read: {error}")))?;
    let problems = genesis.problems();
    if !problems.is_empty() {
        return Err(FetchError::Rules { chain, error: GenesisError { problems } });
    }
    // The home holds the genesis as a file, which must give the same chain.
    match Genesis::from_json(genesis.to_json().as_bytes()) {
        Ok(read) if read == genesis => Ok(genesis),
        Ok(_) => Err(unusable("a file of it gives another genesis".to_owned())),
        Err(error) => Err(FetchError::Rules { chain, error }),
    }
}

#[cfg(test)]
mod tests;
