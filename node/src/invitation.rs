//! The link by which a node is invited to a network: `cairn-net:CHAINID@/dns4/HOST/tcp/PORT`.
//!
//! Only the chain id of a link has to be believed. It is the hash of the genesis, so the genesis
//! that the named node sends is either the right one or refused. The address only says which node
//! to ask.

use std::fmt;
use std::str::FromStr;

use ledger::hash::ChainId;

use crate::network::{Endpoint, Multiaddr};

/// How a link begins.
const PREFIX: &str = "cairn-net:";
/// Most bytes of a link. The longest has 75 bytes before the address, a host name of 253 bytes, and
/// a peer id.
const LINK_BYTES_MAX: usize = 512;
/// Most characters of a wrong part that an error shows.
const SHOWN_CHARS_MAX: usize = 80;

/// A chain, and a node of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invitation {
    /// The chain.
    pub(crate) chain: ChainId,
    /// Where a node of the chain is reached. Its port is not 0.
    pub(crate) endpoint: Endpoint,
}

/// The text is not a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvitationError {
    #[error("{got} bytes, expected at most {LINK_BYTES_MAX}: is more than the link pasted?")]
    TooLong { got: usize },
    #[error("a space or a line break inside the link: was it broken over two lines?")]
    Space,
    #[error("expected a link that `cairn-node invite` prints: cairn-net:CHAINID@ADDRESS")]
    NoLink,
    #[error("{got:?} is not a chain id, expected 64 hexadecimal digits after {PREFIX:?}")]
    Chain { got: String },
    #[error(
        "{got:?} is not the address of a node, expected /ip4/ADDRESS/tcp/PORT, \
         /ip6/ADDRESS/tcp/PORT or /dns4/HOST/tcp/PORT, perhaps with /p2p/ID after it"
    )]
    Address { got: String },
}

impl FromStr for Invitation {
    type Err = InvitationError;

    fn from_str(text: &str) -> Result<Self, InvitationError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(InvitationError::TooLong { got: text.len() });
        }
        let rest = text.strip_prefix(PREFIX).ok_or(InvitationError::NoLink)?;
        if rest.contains(char::is_whitespace) {
            return Err(InvitationError::Space);
        }
        let shown = |part: &str| part.chars().take(SHOWN_CHARS_MAX).collect();
        let (chain, address) = rest.split_once('@').ok_or(InvitationError::NoLink)?;
        let chain = chain.parse().map_err(|_| InvitationError::Chain { got: shown(chain) })?;
        let endpoint = address.parse::<Multiaddr>().ok().and_then(|parsed| Endpoint::of(&parsed));
        let endpoint = endpoint
            .filter(|endpoint| endpoint.port > 0)
            .ok_or_else(|| InvitationError::Address { got: shown(address) })?;
        Ok(Self { chain, endpoint })
    }
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}@{}", self.chain, self.endpoint)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: &str = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";

    fn chain() -> String {
        "0123456789abcdef".repeat(4)
    }

    #[test]
    fn a_link_comes_back_as_it_was_printed() {
        for address in [
            "/ip4/127.0.0.1/tcp/7700",
            "/ip6/fd00::1/tcp/1",
            "/dns4/node.example/tcp/65535",
            "/dns6/node.example/tcp/7700",
            "/dns/node.example/tcp/7700",
            &format!("/ip4/10.0.0.1/tcp/7700/p2p/{PEER}"),
            &format!("/dns4/{}/tcp/65535/p2p/{PEER}", vec!["a".repeat(63); 3].join(".")),
        ] {
            let link = format!("cairn-net:{}@{address}", chain());
            let invitation: Invitation = link.parse().unwrap();
            assert_eq!(invitation.to_string(), link);
            for pasted in [format!(" {link}\n"), format!("\t{link}\r\n\n")] {
                assert_eq!(pasted.parse(), Ok(invitation.clone()), "{pasted:?}");
            }
            let capitals = link.replace(&chain(), &chain().to_uppercase());
            assert_eq!(capitals.parse(), Ok(invitation), "{capitals}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        let good = format!("cairn-net:{}@/ip4/127.0.0.1/tcp/7700", chain());
        for (link, part) in [
            (String::new(), "`cairn-node invite` prints"),
            ("/ip4/127.0.0.1/tcp/7700".to_owned(), "`cairn-node invite` prints"),
            (good.replace("cairn-net", "cairn"), "`cairn-node invite` prints"),
            (good.replace('@', "/"), "`cairn-node invite` prints"),
            (good.replace("0123", "123"), "is not a chain id, expected 64"),
            (good.replace("0123", "x123"), "is not a chain id, expected 64"),
            (good.replace("cdef0123", "cdef\n0123"), "a line break"),
            (format!("{good} --home x"), "a space"),
            (good.replace("/tcp/7700", ""), "is not the address of a node"),
            (good.replace("/tcp/7700", "/tcp/0"), "is not the address of a node"),
            (good.replace("/tcp/7700", "/tcp/77000"), "is not the address of a node"),
            (good.replace("/tcp/7700", "/udp/7700"), "is not the address of a node"),
            (good.replace("127.0.0.1", "127.0.0.256"), "is not the address of a node"),
            (format!("{good}/p2p/12D3"), "is not the address of a node"),
            (format!("{good}/ws"), "is not the address of a node"),
            (format!("cairn-net:{}@10.0.0.1:7700", chain()), "is not the address of a node"),
            (format!("cairn-net:{}@", chain()), "is not the address of a node"),
            (format!("{good}{}", "/".repeat(500)), "expected at most 512"),
        ] {
            let error = link.parse::<Invitation>().unwrap_err().to_string();
            assert!(error.contains(part) && error.len() < 400, "{link:?}: {error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in "\\PC*", tail in "[/a-z0-9.@:]*") {
            let _ = text.parse::<Invitation>();
            let link = format!("cairn-net:{}@{tail}", chain());
            if let Ok(invitation) = link.parse::<Invitation>() {
                prop_assert_eq!(invitation.to_string().parse(), Ok(invitation));
            }
        }
    }
}
