//! Turns the protocol's notices into log lines, with the names that the genesis gives to
//! validators.

use ledger::genesis::Genesis;
use ledger::signature::PublicKey;
use protocol::live::Notice;
use tracing::Level;

/// Rounds below this one are ordinary when a proposer is down, so they are logged at `debug` only.
const ORDINARY_ROUNDS: u32 = 3;

/// Logs a notice.
pub(crate) fn report(notice: &Notice, genesis: &Genesis) {
    let (level, text) = line(notice, genesis);
    match level {
        Level::WARN => tracing::warn!("{text}"),
        Level::INFO => tracing::info!("{text}"),
        _ => tracing::debug!("{text}"),
    }
}

/// The validator's name in the genesis, else its key.
fn name(genesis: &Genesis, key: &PublicKey) -> String {
    let found = genesis.validators.iter().find(|validator| validator.key == *key);
    found.map_or_else(|| key.to_string(), |validator| validator.name.clone())
}

fn names(genesis: &Genesis, keys: &[PublicKey]) -> String {
    keys.iter().map(|key| name(genesis, key)).collect::<Vec<_>>().join(", ")
}

fn line(notice: &Notice, genesis: &Genesis) -> (Level, String) {
    match notice {
        Notice::Behind(tip, best) => {
            (Level::INFO, format!("catching up from height {tip} to {best}"))
        }
        Notice::CaughtUp(height) => (Level::INFO, format!("caught up at height {height}")),
        Notice::Fetching(height, block) => (
            Level::INFO,
            format!("height {height} is decided; fetching its block {block} from peers"),
        ),
        Notice::Round(height, round) if round.0 < ORDINARY_ROUNDS => {
            (Level::DEBUG, format!("height {height} goes to round {round}"))
        }
        Notice::Round(height, round) => (
            Level::WARN,
            format!("height {height} goes to round {round}: validators are missing or slow"),
        ),
        Notice::NotSigning(reason) => {
            (Level::WARN, format!("this validator does not sign yet: {reason}"))
        }
        Notice::Signing(height) => {
            (Level::INFO, format!("this validator signs from height {height} on"))
        }
        Notice::InvalidBlock(height, block, reason) => (
            Level::WARN,
            format!("a proposal for height {height} breaks the rules: {reason} (block {block})"),
        ),
        Notice::ClockOff(offset) => {
            let (size, side) =
                (offset.unsigned_abs(), if *offset < 0 { "behind" } else { "ahead of" });
            let cure = "set the clock, or its votes and proposals come too late";
            (
                Level::WARN,
                format!("this machine's clock is {size} ms {side} most peers' clocks: {cure}"),
            )
        }
        Notice::ClockRight(offset) => {
            let size = offset.unsigned_abs();
            (
                Level::INFO,
                format!("this machine's clock is within {size} ms of most peers' clocks again"),
            )
        }
        Notice::NoQuorum(height, missing) => {
            let missing = names(genesis, missing);
            (
                Level::WARN,
                format!(
                    "no quorum at height {height}: no votes are heard from the validators {missing}"
                ),
            )
        }
        Notice::Quorum(height) => (Level::INFO, format!("a quorum votes again at height {height}")),
        Notice::Equivocation(keys) => {
            let who = names(genesis, keys);
            (
                Level::WARN,
                format!(
                    "validators that signed two different messages for one round: {who}; the proof \
                     is in the store"
                ),
            )
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use ledger::units::{Height, Round};

    use super::*;

    #[test]
    fn validators_have_the_names_of_the_genesis() {
        let genesis = Genesis::from_json(include_bytes!("../../../../genesis.json")).unwrap();
        let (known, stranger) = (&genesis.validators[0], PublicKey([7; 32]));
        let both = format!("{}, {stranger}", known.name);
        let keys = vec![known.key, stranger];
        for (notice, level, part) in [
            (Notice::NoQuorum(Height(5), keys.clone()), Level::WARN, both.as_str()),
            (Notice::Equivocation(keys), Level::WARN, &both),
            (Notice::ClockOff(-3_600_000), Level::WARN, "3600000 ms behind most"),
            (Notice::ClockOff(700), Level::WARN, "700 ms ahead of most"),
            (Notice::Round(Height(5), Round(2)), Level::DEBUG, "round 2"),
            (Notice::Round(Height(5), Round(3)), Level::WARN, "missing or slow"),
        ] {
            let (found, text) = line(&notice, &genesis);
            assert!(found == level && text.contains(part), "{found} {text}");
        }
    }
}
