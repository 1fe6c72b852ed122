//! The user's password, and how much work one guess at it costs.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The user's password. Wiped when dropped; never shown by `Debug`.
pub struct Password(Zeroizing<String>);

impl Password {
    /// Normalizes the text to Unicode NFKD, as BIP-39 does, so that an accent typed on another
    /// keyboard still matches.
    #[must_use]
    pub fn new(text: String) -> Self {
        let text = Zeroizing::new(text);
        let mut normal = std::borrow::Cow::Borrowed(text.as_str());
        bip39::Mnemonic::normalize_utf8_cow(&mut normal);
        Self(Zeroizing::new(normal.into_owned()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// How much work one guess at the password costs (Argon2id, version 0x13). The parameters are
/// stored in the file, which may be hostile, so each is bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KdfParams {
    /// Memory in KiB: at least 8 for each lane, at most 1 GiB.
    pub memory_kib: u32,
    /// Passes over that memory, 1 to 16.
    pub passes: u32,
    /// Lanes, 1 to 16.
    pub lanes: u32,
}

/// A parameter outside its bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Argon2id {parameter} of {got}, expected {min} to {max}")]
pub struct KdfError {
    /// Name of the parameter.
    pub parameter: &'static str,
    /// Its value.
    pub got: u32,
    /// Least allowed.
    pub min: u32,
    /// Most allowed.
    pub max: u32,
}

impl KdfParams {
    /// For passwords that people choose: 64 MiB and 3 passes, the second recommended option of RFC
    /// 9106 but with one lane. A guess takes a few tenths of a second.
    pub const DEFAULT: Self = Self { memory_kib: 64 << 10, passes: 3, lanes: 1 };
    /// For local test networks, whose keys hold nothing of value: 8 MiB, 1 pass.
    pub const LOCAL: Self = Self { memory_kib: 8 << 10, passes: 1, lanes: 1 };

    /// Checks that each parameter is within its bounds.
    ///
    /// # Errors
    /// `KdfError`, for the first parameter outside its bounds.
    pub fn check(self) -> Result<(), KdfError> {
        let within = |parameter, got, min, max| match (min..=max).contains(&got) {
            true => Ok(()),
            false => Err(KdfError { parameter, got, min, max }),
        };
        within("lanes", self.lanes, 1, 16)?;
        within("passes", self.passes, 1, 16)?;
        within("memory_kib", self.memory_kib, 8 * self.lanes, 1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_bounded_on_both_sides() {
        let check = |memory_kib, passes, lanes, refused: Option<&str>| {
            let got = KdfParams { memory_kib, passes, lanes }.check();
            assert_eq!(
                got.err().map(|error| error.parameter),
                refused,
                "{memory_kib} {passes} {lanes}"
            );
        };
        check(8, 1, 1, None);
        check(7, 1, 1, Some("memory_kib"));
        check(1 << 20, 16, 16, None);
        check((1 << 20) + 1, 1, 1, Some("memory_kib"));
        check(u32::MAX, 1, 1, Some("memory_kib"));
        check(128, 1, 16, None);
        check(127, 1, 16, Some("memory_kib"));
        check(8, 0, 1, Some("passes"));
        check(8, 17, 1, Some("passes"));
        check(8, 1, 0, Some("lanes"));
        check(8, 1, u32::MAX, Some("lanes"));
        for params in [KdfParams::DEFAULT, KdfParams::LOCAL] {
            assert_eq!(params.check(), Ok(()));
        }
    }
}
