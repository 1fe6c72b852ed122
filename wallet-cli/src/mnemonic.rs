//! The 24 words that back up a wallet: BIP-39, English.

use std::fmt;

use bip39::{Error as Bip39Error, Language};
use zeroize::{Zeroize, Zeroizing};

/// Words of a phrase: 256 bits of entropy and 8 bits of checksum, in words of 11 bits.
pub const WORDS: usize = 24;

/// A valid phrase of 24 words. Wiped from memory when dropped; never shown by `Debug`.
pub struct Mnemonic(bip39::Mnemonic);

/// Why a text is not a phrase, or why no phrase could be made. No message repeats a word of the
/// phrase: errors end up in logs and terminals.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MnemonicError {
    /// Not 24 words.
    #[error("a phrase has {WORDS} words, this one has {got}")]
    WordCount {
        /// Words given.
        got: usize,
    },
    /// A word outside the list.
    #[error("word {position} is not in the English BIP-39 list")]
    UnknownWord {
        /// Place of the first such word, counted from 1.
        position: usize,
    },
    /// All words are in the list, but the checksum does not hold.
    #[error("the checksum does not fit: a word is mistaken for another one, or two are swapped")]
    Checksum,
    /// The operating system gave no randomness.
    #[error("no randomness from the operating system: {0}")]
    NoRandomness(String),
}

impl Mnemonic {
    /// A new phrase, from 32 random bytes of the operating system.
    ///
    /// # Errors
    /// `MnemonicError::NoRandomness`.
    pub fn generate() -> Result<Self, MnemonicError> {
        let mut entropy = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *entropy)
            .map_err(|error| MnemonicError::NoRandomness(error.to_string()))?;
        Ok(Self::from_entropy(&entropy))
    }

    /// The phrase that encodes these 32 bytes. Each value has exactly one.
    #[must_use]
    pub fn from_entropy(entropy: &[u8; 32]) -> Self {
        match bip39::Mnemonic::from_entropy_in(Language::English, entropy) {
            Ok(mnemonic) => Self(mnemonic),
            Err(error) => panic!("32 bytes are a size of entropy that BIP-39 allows: {error}"),
        }
    }

    /// Parses a phrase as people write it: any white space between words, in upper or lower case.
    ///
    /// # Errors
    /// `WordCount`, `UnknownWord` for the first word outside the list, or `Checksum`.
    pub fn parse(text: &str) -> Result<Self, MnemonicError> {
        let got = text.split_whitespace().count();
        if got != WORDS {
            return Err(MnemonicError::WordCount { got });
        }
        let lower = Zeroizing::new(text.to_ascii_lowercase());
        bip39::Mnemonic::parse_in_normalized(Language::English, &lower).map(Self).map_err(|error| {
            match error {
                Bip39Error::UnknownWord(index) => {
                    MnemonicError::UnknownWord { position: index.saturating_add(1) }
                }
                Bip39Error::BadWordCount(got) => MnemonicError::WordCount { got },
                Bip39Error::InvalidChecksum
                | Bip39Error::BadEntropyBitCount(_)
                | Bip39Error::AmbiguousLanguages(_) => MnemonicError::Checksum,
            }
        })
    }

    /// The 32 bytes that the words encode.
    #[must_use]
    pub fn entropy(&self) -> Zeroizing<[u8; 32]> {
        let (mut bytes, _) = self.0.to_entropy_array();
        let mut entropy = Zeroizing::new([0; 32]);
        entropy.copy_from_slice(&bytes[..32]);
        bytes.zeroize();
        entropy
    }

    /// The words in order, one space between them.
    #[must_use]
    pub fn phrase(&self) -> Zeroizing<String> {
        // Words of the list have at most 8 letters. The whole capacity is reserved at once, because
        // a string that grows leaves copies of the secret in memory.
        let mut phrase = Zeroizing::new(String::with_capacity(WORDS * 9));
        for word in self.0.words() {
            if !phrase.is_empty() {
                phrase.push(' ');
            }
            phrase.push_str(word);
        }
        phrase
    }

    /// The seed of 64 bytes from which keys derive: PBKDF2-HMAC-SHA512, 2,048 rounds (BIP-39). `""`
    /// stands for no passphrase.
    #[must_use]
    pub fn seed(&self, passphrase: &str) -> Zeroizing<[u8; 64]> {
        Zeroizing::new(self.0.to_seed(passphrase))
    }
}

impl fmt::Debug for Mnemonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mnemonic(..)")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vectors {
        passphrase: String,
        vectors: Vec<Vector>,
    }

    #[derive(serde::Deserialize)]
    struct Vector {
        entropy: String,
        phrase: String,
        seed: String,
    }

    fn vectors() -> Vectors {
        serde_json::from_str(include_str!("../tests/vectors/bip39-english-24.json")).unwrap()
    }

    #[test]
    fn official_vectors() {
        let Vectors { passphrase, vectors } = vectors();
        assert_eq!(vectors.len(), 8);
        for vector in vectors {
            let entropy = hex::decode(&vector.entropy).unwrap().try_into().unwrap();
            let made = Mnemonic::from_entropy(&entropy);
            let read = Mnemonic::parse(&vector.phrase).unwrap();
            assert_eq!(*made.phrase(), vector.phrase);
            assert_eq!(*read.entropy(), entropy);
            assert_eq!(hex::encode(*read.seed(&passphrase)), vector.seed);
        }
    }

    #[test]
    fn spaces_and_capitals_do_not_matter() {
        let phrase = &vectors().vectors[4].phrase;
        let untidy = format!("  {}\n", phrase.to_ascii_uppercase().replace(' ', " \n\t"));
        assert_eq!(*Mnemonic::parse(&untidy).unwrap().phrase(), *phrase);
    }

    #[test]
    fn refusals_name_the_place_and_no_word() {
        let good: Vec<String> = vectors().vectors[4].phrase.split(' ').map(str::to_owned).collect();
        let check = |edit: &dyn Fn(&mut Vec<String>), expected: MnemonicError| {
            let mut words = good.clone();
            edit(&mut words);
            let error = Mnemonic::parse(&words.join(" ")).unwrap_err();
            assert_eq!(error, expected);
            assert!(
                words
                    .iter()
                    .filter(|word| word.len() > 5)
                    .all(|word| !error.to_string().contains(word.as_str()))
            );
        };
        check(&Vec::clear, MnemonicError::WordCount { got: 0 });
        check(&|words| words.truncate(12), MnemonicError::WordCount { got: 12 });
        check(&|words| words.truncate(23), MnemonicError::WordCount { got: 23 });
        check(&|words| words.push("abandon".into()), MnemonicError::WordCount { got: 25 });
        check(&|words| words[0] = "hamsters".into(), MnemonicError::UnknownWord { position: 1 });
        check(&|words| words[23] = "lengthy".into(), MnemonicError::UnknownWord { position: 24 });
        check(
            &|words| words[7] = "fleisch\u{e9}".into(),
            MnemonicError::UnknownWord { position: 8 },
        );
        check(&|words| words.swap(0, 1), MnemonicError::Checksum);
        check(&|words| words[23] = "zoo".into(), MnemonicError::Checksum);
    }

    #[test]
    fn generated_phrases_differ_and_stay_hidden() {
        let (one, other) = (Mnemonic::generate().unwrap(), Mnemonic::generate().unwrap());
        assert_ne!(one.entropy(), other.entropy());
        assert_eq!(one.phrase().split(' ').count(), WORDS);
        assert_eq!(Mnemonic::parse(&one.phrase()).unwrap().entropy(), one.entropy());
        assert_eq!(format!("{one:?}"), "Mnemonic(..)");
    }

    #[test]
    fn words_are_wiped_on_drop() {
        // This compiles only if bip39 is built with its `zeroize` feature.
        fn check<T: zeroize::ZeroizeOnDrop>() {}
        check::<bip39::Mnemonic>();
    }
}
