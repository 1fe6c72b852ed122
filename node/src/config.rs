//! What is local to a node: `config.toml`. What nodes must agree on is in the genesis, never here.

use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::network::Multiaddr;

/// Peer-to-peer port when nobody says otherwise.
pub const P2P_PORT: u16 = 7700;
/// RPC port when nobody says otherwise.
pub const RPC_PORT: u16 = 7701;

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The operating system refused.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it answered.
        error: io::Error,
    },
    /// Not TOML, an unknown key, or a value of another type: names line, key and expectation.
    #[error("{}: {error}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// A value that has the right type and makes no sense.
    #[error("{key}: {reason}")]
    Value {
        /// Key with its section, such as `mempool.bytes_max`.
        key: &'static str,
        /// What was found and what was expected.
        reason: String,
    },
}

/// All local settings. Each has a default, so an empty file is a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The network of nodes.
    pub p2p: P2pConfig,
    /// The interface for wallets and people.
    pub rpc: RpcConfig,
    /// The log on stderr.
    pub log: LogConfig,
    /// Waiting transactions.
    pub mempool: MempoolConfig,
    /// History that travels in chunks.
    pub sync: SyncConfig,
}

/// The network of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct P2pConfig {
    /// Where others reach this node.
    pub listen: P2pAddress,
    /// Peers to stay connected to; the others are found through them.
    pub peers: Vec<P2pAddress>,
    /// Look for nodes on the local network by multicast.
    pub mdns: bool,
    /// All nodes are on one machine or private network: private addresses are passed on, and one address may hold any
    /// number of nodes.
    pub private: bool,
    /// A handful of nodes: each message goes to fewer peers at once.
    pub small: bool,
}

impl Default for P2pConfig {
    fn default() -> Self {
        Self {
            listen: P2pAddress::from(SocketAddr::from(([127, 0, 0, 1], P2P_PORT))),
            peers: Vec::new(),
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
    /// Where it answers. Whoever reaches it may use it: keep it on loopback or behind a proxy.
    pub listen: SocketAddr,
    /// Further names of this host that requests may be for; loopback names and addresses always may.
    pub allowed_hosts: Vec<String>,
    /// Web pages that may use it, such as `https://wallet.example`.
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
    /// `error`, `warn`, `info`, `debug` or `trace` for the node itself, or filter directives such as
    /// `info,node::network=debug`.
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
    pub bytes_max: u64,
}

/// Bounds of `mempool.bytes_max`: below, not even one full block of the largest size fits; above, memory runs out first.
const MEMPOOL_BYTES: (u64, u64) = (2 << 20, 8 << 30);

impl Default for MempoolConfig {
    fn default() -> Self {
        Self { bytes_max: 64 << 20 }
    }
}

/// History that travels in chunks. Consensus, gossip and single blocks are not limited.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncConfig {
    /// Most bytes a second to all peers together; none, in the file 0, is no limit.
    #[serde(with = "rate")]
    pub upload_rate: Option<u64>,
    /// Most bytes a second from all peers together; none, in the file 0, is no limit.
    #[serde(with = "rate")]
    pub download_rate: Option<u64>,
}

/// Least rate of chunks in bytes a second: at less, a single chunk takes longer than peers wait for one.
const RATE_MIN: u64 = 16 << 10;

/// Rates in the file: 0 is no limit, and shows that there could be one.
mod rate {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(rate: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(rate.unwrap_or(0))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        u64::deserialize(deserializer).map(super::SyncConfig::limit)
    }
}

impl SyncConfig {
    /// The limit that a number of bytes a second stands for: 0 for none.
    #[must_use]
    pub fn limit(rate: u64) -> Option<u64> {
        (rate > 0).then_some(rate)
    }
}

impl Config {
    /// Reads a configuration file.
    ///
    /// # Errors
    /// `ConfigError` names file, key and expectation.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|error| ConfigError::Io { path: path.to_owned(), error })?;
        toml::from_str(&text).map_err(|error| ConfigError::Malformed { path: path.to_owned(), error: Box::new(error) })
    }

    /// The file form. Reading it gives the same configuration.
    ///
    /// # Panics
    /// Never: every value has a TOML form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).unwrap_or_else(|error| panic!("every configuration has a TOML form: {error}"))
    }

    /// Checks what types cannot say. Of the effective configuration: flags may have replaced what the file had.
    ///
    /// # Errors
    /// `ConfigError::Value`.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bytes = self.mempool.bytes_max;
        if !(MEMPOOL_BYTES.0..=MEMPOOL_BYTES.1).contains(&bytes) {
            let reason = format!("{bytes}, expected {} to {} bytes", MEMPOOL_BYTES.0, MEMPOOL_BYTES.1);
            return Err(ConfigError::Value { key: "mempool.bytes_max", reason });
        }
        let rates = [("sync.upload_rate", self.sync.upload_rate), ("sync.download_rate", self.sync.download_rate)];
        for (key, rate) in rates {
            if let Some(rate) = rate.filter(|rate| *rate < RATE_MIN) {
                let reason = format!("{rate}, expected at least {RATE_MIN} bytes a second, or 0 for no limit");
                return Err(ConfigError::Value { key, reason });
            }
        }
        if let Some(origin) = self.rpc.allowed_origins.iter().find(|origin| !is_origin(origin)) {
            let reason = format!("{origin:?}, expected scheme and host, such as \"https://wallet.example\"");
            return Err(ConfigError::Value { key: "rpc.allowed_origins", reason });
        }
        if let Some(host) = self.rpc.allowed_hosts.iter().find(|host| host.is_empty() || host.contains(['/', ' '])) {
            let reason = format!("{host:?}, expected a host name, such as \"node.example\"");
            return Err(ConfigError::Value { key: "rpc.allowed_hosts", reason });
        }
        if let Err(reason) = crate::logging::check(&self.log.level) {
            return Err(ConfigError::Value { key: "log.level", reason });
        }
        Ok(())
    }
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    host.is_some_and(|host| !host.is_empty() && !host.contains(['/', ' ']))
}

/// Where a node listens or is reached: a multiaddr such as `/ip4/127.0.0.1/tcp/7700`. `IP:PORT` is read as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct P2pAddress(pub Multiaddr);

/// A text that is no address of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address, expected e.g. \"/ip4/127.0.0.1/tcp/7700\", \"127.0.0.1:7700\" or \"/dns4/node.example/tcp/7700/p2p/<peer id>\""
)]
pub struct P2pAddressError {
    text: String,
}

impl From<SocketAddr> for P2pAddress {
    fn from(address: SocketAddr) -> Self {
        let (kind, port) = (if address.is_ipv4() { "ip4" } else { "ip6" }, address.port());
        let text = format!("/{kind}/{}/tcp/{port}", address.ip());
        Self(
            text.parse()
                .unwrap_or_else(|error| panic!("every IP address and port is a multiaddr, got {text}: {error}")),
        )
    }
}

impl FromStr for P2pAddress {
    type Err = P2pAddressError;

    fn from_str(text: &str) -> Result<Self, P2pAddressError> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Ok(address.into());
        }
        // An empty text is an empty multiaddr, and one without a port leads nowhere.
        let address = if text.contains("/tcp/") { text.parse().ok() } else { None };
        address.map(Self).ok_or_else(|| P2pAddressError { text: text.chars().take(200).collect() })
    }
}

impl TryFrom<String> for P2pAddress {
    type Error = P2pAddressError;

    fn try_from(text: String) -> Result<Self, P2pAddressError> {
        text.parse()
    }
}

impl From<P2pAddress> for String {
    fn from(address: P2pAddress) -> Self {
        address.0.to_string()
    }
}

impl fmt::Display for P2pAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
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
        assert_eq!(parse(&config.to_toml()), Ok(config));
    }

    #[test]
    fn errors_name_key_and_expectation() {
        for (text, expected) in [
            ("[p2p]\nlisten = 5", ["listen = 5", "expected a string"]),
            ("[p2p]\nlisten = \"here\"", ["listen = \"here\"", "expected e.g."]),
            ("[p2p]\npeers = [\"/ip4/1.2.3.4\"]", ["peers", "expected e.g."]),
            ("[p2p]\nport = 7700", ["unknown field `port`", "expected one of `listen`"]),
            ("[network]", ["unknown field `network`", "expected one of `p2p`"]),
            ("[rpc]\nlisten = \"localhost\"", ["listen = \"localhost\"", "invalid socket address"]),
            ("[rpc]\nallowed_origins = [\"wallet\"]", ["rpc.allowed_origins", "expected scheme"]),
            ("[rpc]\nallowed_hosts = [\"http://x\"]", ["rpc.allowed_hosts", "expected a host name"]),
            ("[mempool]\nbytes_max = 0", ["mempool.bytes_max", "expected 2097152 to"]),
            ("[sync]\nupload_rate = 16383", ["sync.upload_rate: 16383", "expected at least 16384 bytes a second"]),
            ("[sync]\ndownload_rate = 1", ["sync.download_rate: 1", "or 0 for no limit"]),
            ("[sync]\nupload_rate = \"1 MB\"", ["upload_rate = \"1 MB\"", "expected u64"]),
            ("[sync]\nrate = 1", ["unknown field `rate`", "expected `upload_rate` or `download_rate`"]),
            ("[mempool]\nbytes_max = -1", ["bytes_max = -1", "expected u64"]),
            ("[log]\nlevel = \"loud\"", ["log.level", "expected error, warn"]),
        ] {
            let error = parse(text).unwrap_err();
            for part in expected {
                assert!(error.contains(part), "{part:?} not in {error}");
            }
        }
    }

    #[test]
    fn rates_may_be_absent_or_zero_for_no_limit() {
        for (text, upload, download) in [
            ("[sync]", None, None),
            ("[sync]\nupload_rate = 0\ndownload_rate = 0", None, None),
            ("[sync]\nupload_rate = 16384", Some(16_384), None),
            ("[sync]\ndownload_rate = 5000000", None, Some(5_000_000)),
        ] {
            let rates = SyncConfig { upload_rate: upload, download_rate: download };
            assert_eq!(parse(text).map(|config| config.sync), Ok(rates), "{text}");
        }
        assert!(Config::default().to_toml().contains("[sync]\nupload_rate = 0\ndownload_rate = 0\n"));
    }

    #[test]
    fn addresses_are_multiaddrs_or_ip_and_port() {
        for (text, shown) in [
            ("127.0.0.1:7700", Some("/ip4/127.0.0.1/tcp/7700")),
            ("[::1]:7700", Some("/ip6/::1/tcp/7700")),
            ("/dns4/node.example/tcp/7700", Some("/dns4/node.example/tcp/7700")),
            ("", None),
            ("/ip4/127.0.0.1", None),
            ("localhost:7700", None),
            ("/ip4/127.0.0.1/tcp/77000", None),
        ] {
            assert_eq!(text.parse::<P2pAddress>().ok().map(|address| address.to_string()).as_deref(), shown, "{text}");
        }
    }
}
