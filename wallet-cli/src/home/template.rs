//! The wallet of a local test network. Its keys are public, so the wallet makes them itself at
//! first use.

use std::path::Path;

use ledger::genesis::{TEMPLATE_ACCOUNTS, template_seed};
use serde::Deserialize;

use super::{Home, HomeError, SMALL_FILE_BYTES_MAX, TEMPLATE, damaged, read};
use crate::keystore::{KdfParams, KeyName, Keystore, KeystoreError};
use crate::mnemonic::Mnemonic;
use crate::terminal::read_password;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    accounts: Vec<KeyName>,
}

/// Makes the keystore if there is none, and imports those of the listed accounts that are missing.
/// Two processes that do this at once wait for each other. If one is killed half-way, the next one
/// completes its work.
pub(super) fn put_in(home: &Home, password: &Path) -> Result<(), HomeError> {
    let path = home.path(TEMPLATE);
    let bytes = read(&path, SMALL_FILE_BYTES_MAX)?.unwrap_or_default();
    let Template { accounts } =
        serde_json::from_slice(&bytes).map_err(|error| damaged(&path, error.to_string()))?;
    if let Some(stranger) = accounts.iter().find(|name| !TEMPLATE_ACCOUNTS.contains(&name.as_str()))
    {
        return Err(damaged(
            &path,
            format!(
                "{stranger} is not an account of the template, expected one of \
                 {TEMPLATE_ACCOUNTS:?}"
            ),
        ));
    }
    if home.open_keystore()?.is_some_and(|store| missing(&store, &accounts).is_empty()) {
        return Ok(());
    }
    let _lock = home.lock()?;
    let password = read_password(password).map_err(|error| damaged(&path, error.to_string()))?;
    let mut unlocked = match home.open_keystore()? {
        Some(store) if missing(&store, &accounts).is_empty() => return Ok(()),
        Some(store) => store.unlock(&password)?,
        None => {
            // `create` refuses a directory that is open to others. Closing it now is early enough,
            // since all keys in it are public.
            #[cfg(unix)]
            let _ = std::fs::set_permissions(
                home.dir(),
                std::os::unix::fs::PermissionsExt::from_mode(0o700),
            );
            let mnemonic = Mnemonic::generate()
                .map_err(|error| KeystoreError::NoRandomness(error.to_string()))?;
            Keystore::create(home.dir(), &password, mnemonic, KdfParams::LOCAL)?
        }
    };
    for name in accounts {
        let seed = template_seed(name.as_str());
        match unlocked.import_seed(name, &seed) {
            // If the user gave the key another name, that name stays.
            Ok(_) | Err(KeystoreError::NameTaken(_) | KeystoreError::KeyExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn missing<'a>(store: &Keystore, accounts: &'a [KeyName]) -> Vec<&'a KeyName> {
    accounts.iter().filter(|name| !store.keys().any(|key| key.name == **name)).collect()
}
