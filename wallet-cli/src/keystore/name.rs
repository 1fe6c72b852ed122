//! Names of keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Name of a key: 1 to 32 characters of `a-z`, `0-9`, `_` and `-`. It must not begin with `-` or
/// look like an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyName(String);

/// Why a text is not a key name. No message repeats the text, which may be a secret typed in the
/// wrong place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Wrong length or characters.
    #[error(
        "a key name has 1 to 32 characters out of a-z, 0-9, _ and -, and does not begin with -"
    )]
    Characters,
    /// Begins as an address does.
    #[error("a key name must not look like an address")]
    LikeAddress,
}

impl KeyName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let allowed =
            |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_' || c == b'-';
        if !(1..=32).contains(&text.len()) || !text.bytes().all(allowed) || text.starts_with('-') {
            return Err(NameError::Characters);
        }
        if like_address(text) { Err(NameError::LikeAddress) } else { Ok(Self(text.to_owned())) }
    }
}

/// Whether a name looks like the beginning of an address on some network: letters, a `1`, and at
/// least six more characters, all of bech32's alphabet. A program cannot mistake a name for an
/// address, since a whole address is longer than any name. A person can, hence this rule.
fn like_address(text: &str) -> bool {
    let Some((prefix, data)) = text.split_once('1') else { return false };
    !prefix.is_empty()
        && prefix.bytes().all(|c| c.is_ascii_lowercase())
        && data.len() >= 6
        && data.bytes().all(|c| b"qpzry9x8gf2tvdw0s3jn54khce6mua7l".contains(&c))
}

impl TryFrom<String> for KeyName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<KeyName> for String {
    fn from(name: KeyName) -> Self {
        name.0
    }
}

impl fmt::Display for KeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_name_may_be() {
        let check = |text: &str, expected: Result<(), NameError>| {
            assert_eq!(text.parse::<KeyName>().map(|_| ()), expected, "{text:?}");
        };
        for good in [
            "a",
            "main",
            "cold-1",
            "_",
            "9",
            "alice1",
            "savings1account",
            "1qqqqqq",
            &"x".repeat(32),
        ] {
            check(good, Ok(()));
        }
        for bad in [
            "",
            "Main",
            "a b",
            "a.b",
            "a/b",
            "..",
            "-rf",
            "caf\u{e9}",
            "a\n",
            "a\0",
            &"x".repeat(33),
        ] {
            check(bad, Err(NameError::Characters));
        }
        for address in ["crn1qpzry9", "cairn1q0w5ss7ekfsyufd", "local1zzzzzz"] {
            check(address, Err(NameError::LikeAddress));
        }
        check(&format!("crn1{}", "q".repeat(58)), Err(NameError::Characters));
    }
}
