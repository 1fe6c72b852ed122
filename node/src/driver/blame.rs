//! Turns offences of the protocol into charges of the network.

use protocol::Offence;
use protocol::offence::Severity as Gravity;

use crate::network::{Charge, Severity};

/// The charge for an offence.
pub(crate) fn charge(offence: &Offence) -> Charge {
    let severity = match offence.severity() {
        Gravity::Mistake => Severity::Mistake,
        Gravity::Lie => Severity::Lie,
    };
    Charge { offence: offence.name().to_owned(), detail: offence.to_string(), severity }
}
