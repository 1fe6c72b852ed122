//! Asks whether other hosts may reach a new node.

use std::io::{self, IsTerminal};

use super::place::Place;
use crate::screen::say;

/// Returns the place unchanged if the person at the terminal agrees, else the same place on
/// loopback. Without a terminal nobody is asked, and the place is on loopback.
pub(super) fn consent(place: Place) -> io::Result<Place> {
    let open = place.ip;
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        say(&format!(
            "this node listens on loopback, so other hosts cannot reach it; with --yes it listens \
             on {open}"
        ));
        return Ok(place.on_loopback());
    }
    say(&format!(
        "Other nodes can reach this one, and fetch history from it, if it listens on all \
         interfaces ({open})."
    ));
    say("Listen on all interfaces? [y/N]");
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    Ok(if is_yes(&answer) { place } else { place.on_loopback() })
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        for (answer, yes) in
            [("y\n", true), ("Yes\r\n", true), ("\n", false), ("", false), ("n\n", false)]
        {
            assert_eq!(is_yes(answer), yes, "{answer:?}");
        }
    }
}
