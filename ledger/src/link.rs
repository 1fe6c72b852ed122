//! Links to files: `cairn:ID`, or `cairn:ID#KEY` for a private file.
//!
//! `ID` is the content id of the file and `KEY` the key that it is sealed with, both as 64
//! lower-case hexadecimal digits. Whoever has a link with a key can read the file, for ever.
//! Requests for payments begin with `cairn:pay?`, so no text is both. See `docs/protocol/links.md`.

use std::fmt;
use std::str::FromStr;

use crate::file::FileId;
use crate::hash::Hash;

/// How each link begins.
pub const PREFIX: &str = "cairn:";
/// Hexadecimal digits of an id, and of a key.
const DIGITS: usize = 64;
/// Most bytes of a link.
pub const LINK_BYTES_MAX: usize = PREFIX.len() + DIGITS + 1 + DIGITS;

/// The key of a private file. `Debug` does not show it; only the text of a [`Link`] does.
#[derive(Clone, PartialEq, Eq)]
pub struct LinkKey(pub [u8; 32]);

impl fmt::Debug for LinkKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkKey")
    }
}

/// A link to a file. Its text has one form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The file.
    pub id: FileId,
    /// The key that the file is sealed with. `None` for a file that everybody can read.
    pub key: Option<LinkKey>,
}

/// Why a text is not a link. The message never shows a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// It does not begin as links do.
    #[error("expected a link as `share` prints it: cairn:ID or cairn:ID#KEY")]
    NoLink,
    /// No id follows the prefix.
    #[error("expected 64 lower-case hexadecimal digits after \"cairn:\"")]
    Id,
    /// No key follows `#`.
    #[error("expected 64 lower-case hexadecimal digits after \"#\": was the link cut off?")]
    Key,
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Self, LinkError> {
        let rest = text.strip_prefix(PREFIX).ok_or(LinkError::NoLink)?;
        let (id, key) = match rest.split_once('#') {
            Some((id, key)) => (id, Some(key)),
            None => (rest, None),
        };
        let id = FileId(Hash(digits(id).ok_or(LinkError::Id)?));
        let key = key.map(|key| digits(key).map(LinkKey).ok_or(LinkError::Key)).transpose()?;
        Ok(Self { id, key })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", self.id)?;
        match &self.key {
            Some(LinkKey(key)) => write!(f, "#{}", hex::encode(key)),
            None => Ok(()),
        }
    }
}

/// 32 bytes from 64 lower-case digits.
fn digits(text: &str) -> Option<[u8; 32]> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let mut bytes = [0; 32];
    (text.len() == DIGITS && text.bytes().all(is_digit)).then_some(())?;
    hex::decode_to_slice(text, &mut bytes).ok()?;
    Some(bytes)
}

/// The file that a memo anchors in the chain: the memo is exactly a link without a key.
#[must_use]
pub fn anchor(memo: &[u8]) -> Option<FileId> {
    let link: Link = std::str::from_utf8(memo).ok()?.parse().ok()?;
    link.key.is_none().then_some(link.id)
}

/// Whether a memo has a link with a key anywhere in it. Everybody can read a memo, for ever, so
/// programs refuse to sign or submit one. This is not a rule of the chain. Upper-case digits count
/// too, since they give the key away as well.
#[must_use]
pub fn gives_key_away(memo: &[u8]) -> bool {
    let is_digits = |part: &[u8]| part.iter().all(u8::is_ascii_hexdigit);
    memo.windows(LINK_BYTES_MAX).any(|part| {
        let (prefix, rest) = part.split_at(PREFIX.len());
        let (id, rest) = rest.split_at(DIGITS);
        let Some((b'#', key)) = rest.split_first() else { return false };
        prefix.eq_ignore_ascii_case(PREFIX.as_bytes()) && is_digits(id) && is_digits(key)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn public() -> String {
        format!("cairn:{}", "0123456789abcdef".repeat(4))
    }

    fn private() -> String {
        format!("{}#{}", public(), "b7".repeat(32))
    }

    #[test]
    fn a_link_has_one_text() {
        for text in [public(), private()] {
            let link: Link = text.parse().unwrap();
            assert_eq!(link.to_string(), text);
            assert!(text.len() <= LINK_BYTES_MAX);
        }
        let link: Link = private().parse().unwrap();
        assert_eq!(link.key, Some(LinkKey([0xb7; 32])));
        assert!(!format!("{link:?}").contains("183"), "a key is shown by nothing but its link");
    }

    #[test]
    fn mistakes_are_named_without_the_key() {
        let (public, private) = (public(), private());
        for (text, error) in [
            (String::new(), LinkError::NoLink),
            (public.replace("cairn:", "cairn-net:"), LinkError::NoLink),
            (public.replace("cairn:", "Cairn:"), LinkError::NoLink),
            (format!(" {public}"), LinkError::NoLink),
            ("cairn:pay?to=x".to_owned(), LinkError::Id),
            (public.replace('b', "B"), LinkError::Id),
            (public.replace('b', "g"), LinkError::Id),
            (public[..public.len() - 1].to_owned(), LinkError::Id),
            (format!("{public}0"), LinkError::Id),
            (format!("{public}\n"), LinkError::Id),
            (format!("{public}#"), LinkError::Key),
            (private.replace("b7", "B7"), LinkError::Key),
            (private[..private.len() - 2].to_owned(), LinkError::Key),
            (format!("{private}00"), LinkError::Key),
            (format!("{private}#{}", "00".repeat(32)), LinkError::Key),
        ] {
            assert_eq!(text.parse::<Link>(), Err(error), "{text:?}");
            assert!(!error.to_string().contains("b7b7"));
        }
    }

    #[test]
    fn a_memo_that_is_exactly_a_public_link_is_an_anchor() {
        let id = public().parse::<Link>().unwrap().id;
        assert_eq!(anchor(public().as_bytes()), Some(id));
        for memo in
            [private(), String::new(), format!("{} ", public()), format!("see {}", public())]
        {
            assert_eq!(anchor(memo.as_bytes()), None, "{memo:?}");
        }
        assert_eq!(anchor(&[0xff; 70]), None);
    }

    #[test]
    fn a_key_in_a_memo_is_found_anywhere_and_in_capitals() {
        let private = private();
        let around = |text: &str| [b"\xff", text.as_bytes(), b"\0"].concat();
        for memo in [private.as_bytes(), private.to_uppercase().as_bytes(), &around(&private)] {
            assert!(gives_key_away(memo), "{memo:?}");
        }
        for memo in [
            public().as_bytes(),
            &private.as_bytes()[1..],
            &private.as_bytes()[..private.len() - 1],
            private.replace('#', ":").as_bytes(),
            b"",
        ] {
            assert!(!gives_key_away(memo), "{memo:?}");
        }
    }
}
