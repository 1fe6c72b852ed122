//! A node's local settings: `config.toml`. Everything that nodes must agree on is in the genesis,
//! never here.

mod address;
mod files;
mod keep;
mod rate;
mod size;
mod text;

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use protocol::archive::Keep;
use serde::{Deserialize, Deserializer, Serialize, de};

pub use address::{P2pAddress, P2pAddressError};
pub use files::FilesConfig;
pub use keep::{KeepError, keep_text, parse_keep};
pub(crate) use rate::parse_rate;

/// Default peer-to-peer port.
pub const P2P_PORT: u16 = 7700;
/// Default RPC port.
pub const RPC_PORT: u16 = 7701;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system answered.
        error: io::Error,
    },
    /// The file is not TOML, or has an unknown key or a value of the wrong type. The message names
    /// line, key and expectation.
    #[error("{}: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where the error is, and what was expected.
        error: Box<toml::de::Error>,
    },
    /// A value has the right type but is not allowed.
    #[error("{key}: {reason}")]
    Value {
        /// Key with its section, such as `mempool.bytes_max`.
        key: &'static str,
        /// What was found and what was expected.
        reason: String,
    },
}

/// All local settings. Each has a default, so an empty file is valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The peer-to-peer network.
    pub p2p: P2pConfig,
    /// The interface for wallets and people.
    pub rpc: RpcConfig,
    /// The log on stderr.
    pub log: LogConfig,
    /// Waiting transactions.
    pub mempool: MempoolConfig,
    /// Transfer of history in chunks.
    pub sync: SyncConfig,
    /// The part of history that this node keeps.
    pub history: HistoryConfig,
    /// Files that are shared and fetched.
    pub files: FilesConfig,
}

/// The network of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct P2pConfig {
    /// The address on which this node listens for peers.
    pub listen: P2pAddress,
    /// Peers to stay connected to. The node finds other peers through them.
    pub peers: Vec<P2pAddress>,
    /// Addresses at which nodes elsewhere reach this one, if they are not those of its interfaces.
    pub external: Vec<P2pAddress>,
    /// Look for nodes on the local network by multicast.
    pub mdns: bool,
    /// All nodes are on one machine or private network. Then private addresses are passed on to
    /// peers, and any number of nodes may share one address.
    pub private: bool,
    /// The network is a handful of nodes, so each message is sent to fewer peers at once.
    pub small: bool,
}

impl Default for P2pConfig {
    fn default() -> Self {
        Self {
            listen: P2pAddress::from(SocketAddr::from(([127, 0, 0, 1], P2P_PORT))),
            peers: Vec::new(),
            external: Vec::new(),
            mdns: false,
            private: false,
            small: false,
        }
    }
}

/// The interface for wallets and people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RpcConfig {
    /// The address on which RPC listens. Anyone who can reach it may use it: keep it on loopback or
    /// behind a proxy.
    #[serde(deserialize_with = "socket_address")]
    pub listen: SocketAddr,
    /// Further host names that requests may name (`Host` header). `localhost`, loopback addresses
    /// and the listening address are always allowed.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may use RPC, such as `https://wallet.example`.
    pub allowed_origins: Vec<String>,
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], RPC_PORT)),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
        }
    }
}

/// The log on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `error`, `warn`, `info`, `debug`, `trace` or `off` for the node itself, or filter directives
    /// such as `info,node::network=debug`.
    pub level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

/// Waiting transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MempoolConfig {
    /// Most bytes of waiting transactions.
    #[serde(deserialize_with = "bytes")]
    pub bytes_max: u64,
}

/// Bounds of `mempool.bytes_max`. Below the lower one, not even one block of the largest size fits.
/// Above the upper one, memory runs out first.
const MEMPOOL_BYTES: (u64, u64) = (2 << 20, 8 << 30);

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { bytes_max: 64 << 20 }
    }
}

/// Transfer of history in chunks. Its limits do not apply to consensus, gossip and single blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncConfig {
    /// How a node without blocks joins its chain.
    pub mode: SyncMode,
    /// Most bytes per second to all peers together. `None`, in the file 0, means unlimited.
    #[serde(with = "rate")]
    pub upload_rate: Option<u64>,
    /// Most bytes per second from all peers together. `None`, in the file 0, means unlimited.
    #[serde(with = "rate")]
    pub download_rate: Option<u64>,
}

/// The part of history that a node keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistoryConfig {
    /// How much of history this node keeps, in its files `full`, a size or a number of eras.
    #[serde(with = "keep")]
    pub keep: Keep,
}

/// How a node without blocks joins its chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SyncMode {
    /// Load the state from a snapshot, follow the chain from there, and fetch the blocks before it
    /// after that
    #[default]
    Snapshot,
    /// Fetch and apply all blocks from the first one on
    Full,
}

/// Lowest rate limit, in bytes per second. With it, a chunk of the default size of 128 KiB takes 8
/// s. At a much lower rate a chunk would take longer than the 10 s that peers wait for one.
const RATE_MIN: u64 = 16 << 10;

fn bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    deserializer.deserialize_u64(Whole("a whole number of bytes"))
}

/// Visitor for a number that is not negative. Holds the description for error messages.
struct Whole(&'static str);

impl de::Visitor<'_> for Whole {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<u64, E> {
        u64::try_from(number).map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
    }
}

fn socket_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_socket_address(&text).map_err(de::Error::custom)
}

/// Parses an IP address and a port.
///
/// # Errors
/// The text, and what was expected.
pub(crate) fn parse_socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an address, expected IP:PORT, such as 127.0.0.1:{RPC_PORT}")
    })
}

impl SyncConfig {
    /// The limit for a rate in bytes per second. 0 means unlimited.
    #[must_use]
    pub fn limit(rate: u64) -> Option<u64> {
        (rate > 0).then_some(rate)
    }
}

impl Config {
    /// Reads a configuration file. Does not [`check`](Self::check) it.
    ///
    /// # Errors
    /// `ConfigError::Io`, `ConfigError::Malformed`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError::Io { path: path.to_owned(), error })?;
        toml::from_str(without_mark(&text)).map_err(|error| ConfigError::Malformed {
            path: path.to_owned(),
            error: Box::new(error),
        })
    }

    /// The content of the file, with comments. Reading it gives the same configuration.
    ///
    /// # Panics
    /// Never: every value has a TOML form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        text::commented(&self.plain(), &Self::default().plain())
    }

    /// The content of the file without comments: a line for each section and key.
    fn plain(&self) -> String {
        toml::to_string(self)
            .unwrap_or_else(|error| panic!("every configuration has a TOML form: {error}"))
    }

    /// Checks the rules that types cannot express. Call it on the effective configuration, since
    /// flags may have replaced values of the file.
    ///
    /// # Errors
    /// `ConfigError::Value`.
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.p2p.listen.is_ip() {
            let reason = format!(
                "{}, expected an IP address, such as \"0.0.0.0:{P2P_PORT}\"",
                self.p2p.listen
            );
            return Err(ConfigError::Value { key: "p2p.listen", reason });
        }
        if let Some(address) = self.p2p.external.iter().find(|address| !address.is_ip()) {
            let reason = format!(
                "{address}, expected an IP address and port, such as \"1.1.1.1:{P2P_PORT}\""
            );
            return Err(ConfigError::Value { key: "p2p.external", reason });
        }
        let bytes = self.mempool.bytes_max;
        if !(MEMPOOL_BYTES.0..=MEMPOOL_BYTES.1).contains(&bytes) {
            let reason =
                format!("{bytes}, expected {} to {} bytes", MEMPOOL_BYTES.0, MEMPOOL_BYTES.1);
            return Err(ConfigError::Value { key: "mempool.bytes_max", reason });
        }
        let rates = [
            ("sync.upload_rate", self.sync.upload_rate),
            ("sync.download_rate", self.sync.download_rate),
            ("files.upload_rate", self.files.upload_rate),
            ("files.download_rate", self.files.download_rate),
        ];
        for (key, rate) in rates {
            if let Some(rate) = rate.filter(|rate| *rate < RATE_MIN) {
                let reason = format!(
                    "{rate}, expected at least {RATE_MIN} bytes a second, or 0 for no limit"
                );
                return Err(ConfigError::Value { key, reason });
            }
        }
        if let Some(origin) = self.rpc.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            let reason =
                format!("{origin:?}, expected scheme and host, such as \"https://wallet.example\"");
            return Err(ConfigError::Value { key: "rpc.allowed_origins", reason });
        }
        if let Some(host) =
            self.rpc.allowed_hosts.iter().find(|host| host.is_empty() || host.contains(['/', ' ']))
        {
            let reason = format!("{host:?}, expected a host name, such as \"node.example\"");
            return Err(ConfigError::Value { key: "rpc.allowed_hosts", reason });
        }
        if let Err(reason) = crate::logging::check(&self.log.level) {
            return Err(ConfigError::Value { key: "log.level", reason });
        }
        Ok(())
    }
}

/// Removes the byte order mark that some editors write at the start of a file.
pub(crate) fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn an_empty_file_is_the_default_and_the_default_round_trips() {
        assert_eq!(parse(""), Ok(Config::default()));
        assert_eq!(parse(&Config::default().to_toml()), Ok(Config::default()));
        let mut config = Config::default();
        config.p2p.peers = vec!["/ip4/10.0.0.1/tcp/1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        config.rpc.allowed_origins = vec!["https://wallet.example".to_owned()];
        config.sync.upload_rate = Some(5 << 20);
        config.history.keep = Keep::Bytes(20 << 30);
        config.files = FilesConfig { enabled: true, quota: 5, ..FilesConfig::default() };
        assert_eq!(parse(&config.to_toml()), Ok(config));
    }

    #[test]
    fn errors_name_key_and_expectation() {
        for (text, expected) in [
            ("[p2p]\nlisten = 5", ["listen = 5", "expected a string"]),
            ("[p2p]\nlisten = \"here\"", ["listen = \"here\"", "expected e.g."]),
            ("[p2p]\npeers = [\"/ip4/1.2.3.4\"]", ["peers", "expected e.g."]),
            (
                "[p2p]\nlisten = \"localhost:7700\"",
                ["p2p.listen: /dns/localhost/tcp/7700", "expected an IP address"],
            ),
            ("[p2p]\nport = 7700", ["unknown field `port`", "expected one of `listen`"]),
            ("[network]", ["unknown field `network`", "expected one of `p2p`"]),
            (
                "[rpc]\nlisten = \"localhost\"",
                ["listen = \"localhost\"", "expected IP:PORT, such as 127.0.0.1:7701"],
            ),
            ("[rpc]\nallowed_origins = [\"wallet\"]", ["rpc.allowed_origins", "expected scheme"]),
            (
                "[rpc]\nallowed_hosts = [\"http://x\"]",
                ["rpc.allowed_hosts", "expected a host name"],
            ),
            ("[mempool]\nbytes_max = 0", ["mempool.bytes_max", "expected 2097152 to"]),
            (
                "[sync]\nupload_rate = 16383",
                ["sync.upload_rate: 16383", "expected at least 16384 bytes a second"],
            ),
            ("[sync]\ndownload_rate = 1", ["sync.download_rate: 1", "or 0 for no limit"]),
            (
                "[sync]\nupload_rate = \"1 MB\"",
                ["upload_rate = \"1 MB\"", "or a number with B/s, kB/s, MB/s"],
            ),
            ("[sync]\nupload_rate = -1", ["upload_rate = -1", "expected a whole number of bytes"]),
            ("[sync]\nupload_rate = 1.5", ["upload_rate = 1.5", "expected a whole number"]),
            (
                "[sync]\nupload_rate = \"16 kB/s\"",
                ["sync.upload_rate: 16000", "expected at least 16384 bytes a second"],
            ),
            ("[sync]\nrate = 1", ["unknown field `rate`", "expected one of `mode`, `upload_rate`"]),
            (
                "[history]\nkeep = \"20\"",
                ["keep = \"20\"", "\"20\" does not say how much to keep, expected \"full\""],
            ),
            ("[history]\nkeep = 20", ["keep = 20", "expected a string"]),
            ("[files]\nquota = 20", ["quota = 20", "expected a string"]),
            ("[files]\nquota = \"20\"", ["quota = \"20\"", "\"20\" is no size, expected"]),
            (
                "[files]\ndownload_rate = 1",
                ["files.download_rate: 1", "expected at least 16384 bytes a second"],
            ),
            ("[mempool]\nbytes_max = -1", ["bytes_max = -1", "expected a whole number of bytes"]),
            ("[log]\nlevel = \"loud\"", ["log.level", "expected error, warn"]),
        ] {
            let error = parse(text).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{part:?} not in {error}");
            }
        }
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        fs::write(&path, "\u{feff}[log]\r\nlevel = \"warn\"\r\n").unwrap();
        assert_eq!(Config::read(&path).unwrap().log.level, "warn");
    }

    #[test]
    fn rates_may_be_absent_or_zero_for_no_limit() {
        for (text, upload, download) in [
            ("[sync]", None, None),
            ("[sync]\nupload_rate = 0\ndownload_rate = 0", None, None),
            ("[sync]\nupload_rate = 16384", Some(16_384), None),
            ("[sync]\ndownload_rate = 5000000", None, Some(5_000_000)),
            (
                "[sync]\nupload_rate = \"16 KiB/s\"\ndownload_rate = \"1.5 MB/s\"",
                Some(16_384),
                Some(1_500_000),
            ),
            ("[sync]\nupload_rate = \"0 MB/s\"", None, None),
        ] {
            let rates = SyncConfig {
                upload_rate: upload,
                download_rate: download,
                ..SyncConfig::default()
            };
            assert_eq!(parse(text).map(|config| config.sync), Ok(rates), "{text}");
        }
        assert!(Config::default().plain().contains("\nupload_rate = 0\ndownload_rate = 0\n"));
    }
}
