//! How people write accounts and amounts: bech32m addresses with the network's prefix, and decimal
//! amounts with a unit.

use bech32::primitives::decode::{
    CharError, CheckedHrpstring, CheckedHrpstringError, UncheckedHrpstringError,
};
use bech32::{Bech32m, Hrp};

use crate::signature::{KeyError, PublicKey};
use crate::units::Amount;

/// A text that is not an address of this network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not bech32m, or not the bytes of exactly one key: a typing error, a truncated text or
    /// another format.
    #[error(
        "not an address: {reason}; expected {prefix}1 and 58 more characters (bech32m, BIP-350)"
    )]
    Malformed {
        /// What the decoder found.
        reason: String,
        /// The prefix of this network.
        prefix: String,
    },
    /// A valid address of another network.
    #[error("address of another network: prefix {got:?}, expected {expected:?}")]
    ForeignPrefix {
        /// Prefix found.
        got: String,
        /// Prefix of this network.
        expected: String,
    },
    /// A key that no account may have.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Writes an account as an address (BIP-350).
///
/// # Panics
/// Never for the prefix of a checked genesis.
#[must_use]
pub fn encode_address(prefix: &str, account: &PublicKey) -> String {
    let text =
        Hrp::parse(prefix).ok().and_then(|hrp| bech32::encode::<Bech32m>(hrp, &account.0).ok());
    text.unwrap_or_else(|| {
        panic!("a genesis holds only prefixes that bech32 allows, got {prefix:?}")
    })
}

/// Reads an address of the network with this prefix.
///
/// # Errors
/// `AddressError` says what was wrong with the text.
pub fn decode_address(prefix: &str, text: &str) -> Result<PublicKey, AddressError> {
    let malformed = |reason: String| AddressError::Malformed { reason, prefix: prefix.to_owned() };
    let checked =
        CheckedHrpstring::new::<Bech32m>(text).map_err(|error| malformed(explain(&error)))?;
    let hrp = checked.hrp().to_lowercase();
    if hrp != prefix {
        return Err(AddressError::ForeignPrefix { got: hrp, expected: prefix.to_owned() });
    }
    // The 52 characters of a key hold 260 bits, four more than the key. If those four bits could be
    // other than zero, a key would have sixteen addresses.
    let padded = |_| {
        malformed(
            "the padding bits of the last character before its checksum are not zero".to_owned(),
        )
    };
    checked.validate_segwit_padding().map_err(padded)?;
    let bytes: Vec<u8> = checked.byte_iter().collect();
    let key: [u8; 32] = bytes
        .try_into()
        .map_err(|bytes: Vec<u8>| malformed(format!("{} bytes, expected 32", bytes.len())))?;
    let key = PublicKey(key);
    key.check_account()?;
    Ok(key)
}

/// What is wrong with a text that is not bech32m, in words.
fn explain(error: &CheckedHrpstringError) -> String {
    match error {
        CheckedHrpstringError::Parse(UncheckedHrpstringError::Char(error)) => match error {
            CharError::MissingSeparator => "it has no separator 1 after a prefix".to_owned(),
            CharError::NothingAfterSeparator => "nothing follows its prefix".to_owned(),
            CharError::InvalidChar(found) => {
                format!("the character {found:?} does not occur in addresses")
            }
            CharError::MixedCase => "it mixes capital and small letters".to_owned(),
            _ => "a character is wrong".to_owned(),
        },
        CheckedHrpstringError::Parse(_) => {
            "the text before its last 1 is not a valid prefix".to_owned()
        }
        // The checksum does not hold. It does not tell which character is wrong.
        _ => "its checksum does not hold: a character is wrong, missing or too many".to_owned(),
    }
}

/// The coin of a network, which determines how amounts are written.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Coin {
    /// Unit of the decimal form, e.g. `CRN`.
    pub symbol: String,
    /// Digits after the point, at most 18.
    pub decimals: u8,
}

/// A text that is not an amount.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an amount: {text:?}: {reason}; expected e.g. \"1.5 {symbol}\" or \"1500 pebbles\"")]
pub struct AmountError {
    text: String,
    reason: String,
    symbol: String,
}

impl Coin {
    /// Writes an amount: `1.5 CRN`.
    #[must_use]
    pub fn format(&self, amount: Amount) -> String {
        let digits =
            format!("{:0width$}", amount.0, width = usize::from(self.decimals).saturating_add(1));
        let (whole, fraction) =
            digits.split_at(digits.len().saturating_sub(usize::from(self.decimals)));
        match fraction.trim_end_matches('0') {
            "" => format!("{whole} {}", self.symbol),
            fraction => format!("{whole}.{fraction} {}", self.symbol),
        }
    }

    /// Reads `1.5 CRN` or `1500 pebbles`. The unit is required, since a bare number could mean
    /// either.
    ///
    /// # Errors
    /// `AmountError` if the number is negative or not decimal, if the unit is missing or unknown,
    /// or if the amount has more decimals than the unit allows or more than 64 bits of base units.
    pub fn parse(&self, text: &str) -> Result<Amount, AmountError> {
        let fail = |reason: String| AmountError {
            text: text.chars().take(80).collect(),
            reason,
            symbol: self.symbol.clone(),
        };
        let trimmed = text.trim();
        if trimmed.starts_with('-') {
            return Err(fail("it is negative".to_owned()));
        }
        let number_end =
            trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(number_end);
        let decimals = match unit.trim() {
            unit if unit.eq_ignore_ascii_case(&self.symbol) => usize::from(self.decimals),
            "pebble" | "pebbles" => 0,
            "" => return Err(fail("the unit is missing".to_owned())),
            other => return Err(fail(format!("unknown unit {other:?}"))),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let all_digits =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !all_digits(whole) || (number.contains('.') && !all_digits(fraction)) {
            return Err(fail("the number is not decimal".to_owned()));
        }
        if fraction.len() > decimals {
            return Err(fail(match decimals {
                0 => "a number of pebbles has no fraction".to_owned(),
                _ => format!("more than {decimals} digits after the point"),
            }));
        }
        let base_units = format!("{whole}{fraction:0<decimals$}");
        base_units
            .parse()
            .map(Amount)
            .map_err(|_| fail("more than 64 bits of base units".to_owned()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn amounts_round_trip_and_refuse_what_is_ambiguous() {
        let coin = Coin { symbol: "CRN".to_owned(), decimals: 9 };
        for (text, amount, shown) in [
            ("1.5 CRN", 1_500_000_000, "1.5 CRN"),
            ("1.5CRN", 1_500_000_000, "1.5 CRN"),
            ("0 crn", 0, "0 CRN"),
            ("1 pebble", 1, "0.000000001 CRN"),
            ("0.000000001 CRN", 1, "0.000000001 CRN"),
            ("18446744073.709551615 CRN", u64::MAX, "18446744073.709551615 CRN"),
        ] {
            assert_eq!(coin.parse(text), Ok(Amount(amount)), "{text}");
            assert_eq!(coin.format(Amount(amount)), shown);
        }
        for bad in [
            "",
            "1.5",
            "1,5 CRN",
            "-1 CRN",
            "1.5 BTC",
            "1. CRN",
            ".5 CRN",
            "1.0000000001 CRN",
            "1.5 pebbles",
            "1.2.3 CRN",
        ] {
            assert!(coin.parse(bad).is_err(), "{bad}");
        }
        assert!(coin.parse("18446744073.709551616 CRN").is_err());
    }

    #[test]
    fn addresses_round_trip_and_name_foreign_prefixes() {
        let key = crate::signature::SigningKey::from_seed(&[7; 32]).public();
        let text = encode_address("crn", &key);
        assert_eq!(decode_address("crn", &text), Ok(key));
        assert_eq!(decode_address("crn", &text.to_uppercase()), Ok(key));
        assert!(matches!(decode_address("tcrn", &text), Err(AddressError::ForeignPrefix { .. })));
        let mut typo = text.clone().into_bytes();
        typo[10] = if typo[10] == b'q' { b'p' } else { b'q' };
        let typo = String::from_utf8(typo).unwrap();
        assert!(matches!(decode_address("crn", &typo), Err(AddressError::Malformed { .. })));
        assert!(matches!(decode_address("crn", "alice"), Err(AddressError::Malformed { .. })));
        let identity =
            encode_address("crn", &PublicKey(super::super::signature::PublicKey([0; 32]).0));
        assert!(matches!(decode_address("crn", &identity), Err(AddressError::Key(_))));
        let no_point = PublicKey(std::array::from_fn(|place| if place == 0 { 2 } else { 0 }));
        let refused = decode_address("crn", &encode_address("crn", &no_point));
        assert_eq!(refused, Err(AddressError::Key(KeyError::NoPoint(no_point))));
    }

    #[test]
    fn a_text_that_is_no_address_is_told_why_in_words() {
        let good =
            encode_address("crn", &crate::signature::SigningKey::from_seed(&[7; 32]).public());
        let mixed = good[..10].to_owned() + &good[10..].to_uppercase();
        for (text, reason) in [
            ("ace", "it has no separator 1 after a prefix"),
            ("", "it has no separator 1 after a prefix"),
            ("crn1b", "the character 'b' does not occur in addresses"),
            (&mixed, "it mixes capital and small letters"),
            (
                &good[..good.len() - 1],
                "its checksum does not hold: a character is wrong, missing or too many",
            ),
        ] {
            let expected = format!(
                "not an address: {reason}; expected crn1 and 58 more characters (bech32m, BIP-350)"
            );
            assert_eq!(decode_address("crn", text).unwrap_err().to_string(), expected);
        }
    }

    /// The last character before the checksum holds four bits that are not part of the key. They
    /// must be zero (BIP-173).
    #[test]
    fn of_sixteen_spellings_of_an_address_one_is_an_address() {
        use bech32::primitives::iter::{ByteIterExt, Fe32IterExt};

        let key = crate::signature::SigningKey::from_seed(&[7; 32]).public();
        let hrp = Hrp::parse("crn").unwrap();
        let spelling = |padding: u8| -> String {
            let mut symbols: Vec<bech32::Fe32> = key.0.iter().copied().bytes_to_fes().collect();
            let last = symbols.pop().unwrap().to_u8() | padding;
            symbols.push(bech32::Fe32::try_from(last).unwrap());
            symbols.into_iter().with_checksum::<Bech32m>(&hrp).chars().collect()
        };
        assert_eq!(spelling(0), encode_address("crn", &key));
        for padding in 0..16 {
            let text = spelling(padding);
            let bytes = bech32::decode(&text).unwrap().1;
            assert_eq!(bytes, key.0, "{text} has a checksum that holds, and the bytes of the key");
            assert_eq!(decode_address("crn", &text).is_ok(), padding == 0, "{text}");
        }
    }
}
