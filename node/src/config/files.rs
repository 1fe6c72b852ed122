//! Settings of the files that a node shares and fetches.

use serde::{Deserialize, Serialize};

use super::{rate, size};

/// Files that users of this node share with others and fetch from them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FilesConfig {
    /// Whether files are shared and fetched. Refused for validators.
    pub enabled: bool,
    /// Most bytes of all files in the home.
    #[serde(with = "size")]
    pub quota: u64,
    /// Bytes of the disk that files leave free.
    #[serde(with = "size")]
    pub reserve: u64,
    /// Most bytes of files a second to all peers together. `None`, in the file 0, means unlimited.
    #[serde(with = "rate")]
    pub upload_rate: Option<u64>,
    /// Most bytes of files a second from all peers together. `None`, in the file 0, means
    /// unlimited.
    #[serde(with = "rate")]
    pub download_rate: Option<u64>,
}

impl Default for FilesConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            quota: 20 << 30,
            reserve: 2 << 30,
            upload_rate: None,
            download_rate: None,
        }
    }
}
