//! The context of every command: the home, the node, the chain, and where passwords come from.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use ledger::address::{decode_address, encode_address};
use ledger::chain::Chain;
use ledger::genesis::Genesis;
use ledger::signature::PublicKey;
use ledger::units::Timestamp;

use crate::error::WalletError;
use crate::home::{Home, HomeError, read_genesis};
use crate::keystore::{KdfParams, Key, Keystore, Password, Unlocked};
use crate::mnemonic::Mnemonic;
use crate::rpc::Node;
use crate::terminal::{ask_new_password, ask_password, note, read_password};

/// The wallet of one run of the program.
pub(crate) struct Wallet {
    pub(crate) home: Home,
    pub(crate) node: Node,
    pub(crate) json: bool,
    password_file: Option<PathBuf>,
}

impl Wallet {
    /// Reads and writes no file and makes no connection.
    pub(crate) const fn new(
        home: Home,
        node: Node,
        json: bool,
        password_file: Option<PathBuf>,
    ) -> Self {
        Self { home, node, json, password_file }
    }

    /// The chain that this wallet is for. A wallet without a pinned genesis pins the one in `file`,
    /// or else the node's. In a wallet with a pinned genesis, the one in `file` must be the same.
    pub(crate) fn chain(&self, file: Option<&Path>) -> Result<Arc<Chain>, WalletError> {
        let genesis = match (file, self.home.genesis()?) {
            (Some(file), _) => {
                let genesis = read_genesis(file)?;
                self.home.pin(&genesis)?;
                genesis
            }
            (None, Some(pinned)) => pinned,
            (None, None) => self.pin_nodes_genesis()?,
        };
        Ok(Chain::new(genesis))
    }

    fn pin_nodes_genesis(&self) -> Result<Genesis, WalletError> {
        let text = self.node.genesis()?.to_string();
        let path = PathBuf::from(self.node.url());
        let genesis = Genesis::from_json(text.as_bytes())
            .map_err(|error| HomeError::Genesis { path, error })?;
        self.home.pin(&genesis)?;
        note(&format!(
            "note: this wallet is now for the network {:?}, chain {}, as told by {}.\n\
             Compare the chain id with one from a source you trust: everything is checked against \
             it from now on.",
            genesis.network,
            genesis.chain_id(),
            self.node.url()
        ));
        Ok(genesis)
    }

    /// The keystore. In the wallet of a local test network, the first call makes it.
    ///
    /// # Errors
    /// `NoKeys` if there is none.
    pub(crate) fn keystore(&self, chain: &Chain) -> Result<Keystore, WalletError> {
        let keystore = self.home.keystore(chain.genesis())?;
        keystore.ok_or_else(|| WalletError::NoKeys(self.home.dir().to_owned()))
    }

    /// Names and public keys; empty if there is no keystore.
    pub(crate) fn keys(&self, chain: &Chain) -> Result<Vec<Key>, WalletError> {
        let keystore = self.home.keystore(chain.genesis())?;
        Ok(keystore.iter().flat_map(Keystore::keys).collect())
    }

    /// Opens a keystore with its password. The password comes from `--password-file`, from the
    /// wallet of a local test network, or from the terminal.
    pub(crate) fn unlock(
        &self,
        chain: &Chain,
        keystore: &Keystore,
    ) -> Result<Unlocked, WalletError> {
        let password = match self.password_from_file(chain)? {
            Some(password) => password,
            None => ask_password("Password of the keystore: ")?,
        };
        Ok(keystore.unlock(&password)?)
    }

    /// Makes a keystore with this phrase.
    pub(crate) fn create(
        &self,
        chain: &Chain,
        mnemonic: Mnemonic,
    ) -> Result<Unlocked, WalletError> {
        let password = match self.password_from_file(chain)? {
            Some(password) => password,
            None => ask_new_password()?,
        };
        // Guessing must be slow, except for the public password of a local test network. The
        // network's name alone does not make the password public: a node may have invented the
        // name, and people reuse passwords.
        let is_public =
            self.password_file.is_none() && self.home.template_password(chain.genesis()).is_some();
        let work = if is_public { KdfParams::LOCAL } else { KdfParams::DEFAULT };
        Ok(Keystore::create(self.home.dir(), &password, mnemonic, work)?)
    }

    fn password_from_file(&self, chain: &Chain) -> Result<Option<Password>, WalletError> {
        let template = || self.home.template_password(chain.genesis());
        let file = self.password_file.clone().or_else(template);
        Ok(file.map(|path| read_password(&path)).transpose()?)
    }

    /// The key of this name.
    pub(crate) fn key(keys: &[Key], name: &str) -> Result<Key, WalletError> {
        let key = keys.iter().find(|key| key.name.as_str() == name);
        key.cloned().ok_or_else(|| {
            WalletError::Usage(format!("no key is named {name:?}; {}", Self::names(keys)))
        })
    }

    /// The account that a text names: a key of this wallet by its name, or any account by its
    /// address.
    pub(crate) fn account(
        chain: &Chain,
        keys: &[Key],
        text: &str,
    ) -> Result<PublicKey, WalletError> {
        if let Some(key) = keys.iter().find(|key| key.name.as_str() == text) {
            return Ok(PublicKey(key.public_key));
        }
        decode_address(&chain.genesis().address_prefix, text).map_err(|error| {
            WalletError::Usage(format!(
                "{text:?} is neither one of this wallet's keys nor an address\n  as a key: {}\n  \
                 as an address: {error}",
                Self::names(keys)
            ))
        })
    }

    fn names(keys: &[Key]) -> String {
        let names: Vec<&str> = keys.iter().map(|key| key.name.as_str()).collect();
        if names.is_empty() {
            "this wallet has none".to_owned()
        } else {
            format!("this wallet has {}", names.join(", "))
        }
    }
}

/// The address of a key.
pub(crate) fn address(chain: &Chain, key: &Key) -> String {
    encode_address(&chain.genesis().address_prefix, &PublicKey(key.public_key))
}

/// This machine's clock.
pub(crate) fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}
