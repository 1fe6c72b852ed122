//! The text of `config.toml`: each key with a comment that says what it is, its unit and its
//! default.

use toml_edit::{DocumentMut, Item};

/// The first lines of the file.
const HEAD: &str = "\
# Settings of this node alone. What all nodes of a network agree on is in genesis.json.
# The node reads this file when it starts. `cairn-node config show` prints the settings in effect.
";

/// What each section is about.
const SECTIONS: [(&str, &str); 7] = [
    ("p2p", "The network of nodes."),
    ("rpc", "The interface for wallets and people."),
    ("log", "The log on stderr."),
    ("mempool", "Transactions that wait for a block."),
    (
        "sync",
        "Transfer of history and snapshots. The limits do not apply to votes, gossip and single\n\
         blocks.",
    ),
    ("history", "The part of history that this node keeps."),
    ("files", "Files that are shared with other nodes and fetched from them."),
];

/// What each key is, with its section. Line breaks stand where lines would be too wide.
const KEYS: [(&str, &str); 19] = [
    (
        "p2p.listen",
        "Where this node listens for peers: IP:PORT or a multiaddr. 127.0.0.1 is this machine\n\
         alone, 0.0.0.0 every interface.",
    ),
    (
        "p2p.peers",
        "Peers to stay connected to, a list of \"HOST:PORT\" or multiaddrs. The node finds other\n\
         peers through them.",
    ),
    ("p2p.mdns", "Whether to look for nodes of the local network by multicast: true or false."),
    (
        "p2p.private",
        "Whether all nodes are on one machine or private network: true or false. If true, private\n\
         addresses are passed on to peers, and any number of nodes may share one address.",
    ),
    (
        "p2p.small",
        "Whether the network is a handful of nodes: true or false. If true, each message is sent\n\
         to fewer peers at once.",
    ),
    (
        "rpc.listen",
        "Where RPC listens: IP:PORT. Anyone who can reach it may use it: keep it on 127.0.0.1 or\n\
         behind a proxy.",
    ),
    (
        "rpc.allowed_hosts",
        "Further host names that requests may name, such as \"node.example\". localhost, loopback\n\
         addresses and the listening address are always allowed.",
    ),
    (
        "rpc.allowed_origins",
        "Origins of web pages that may use RPC, such as \"https://wallet.example\".",
    ),
    (
        "log.level",
        "error, warn, info, debug or trace, or directives such as \"info,node::network=debug\".",
    ),
    ("mempool.bytes_max", "Most bytes of waiting transactions, 2097152 to 8589934592."),
    (
        "sync.mode",
        "How a node without blocks joins its chain: \"snapshot\" loads the state and fetches\n\
         older blocks later, \"full\" applies all blocks from the first one on.",
    ),
    (
        "sync.upload_rate",
        "Most bytes a second to all peers together: a number, or text such as \"5 MB/s\" or\n\
         \"800 KiB/s\". At least 16384; 0 is unlimited.",
    ),
    (
        "sync.download_rate",
        "Most bytes a second from all peers together, as above. At least 16384; 0 is unlimited.",
    ),
    (
        "history.keep",
        "\"full\" for all of it, a size such as \"20GiB\" for eras that the nodes share out, or\n\
         \"recent 64 eras\" for the newest ones.",
    ),
    (
        "files.enabled",
        "Whether files are shared and fetched: true or false. No validator starts with true.",
    ),
    ("files.quota", "Most bytes of all files in the home, such as \"20GiB\"."),
    ("files.reserve", "Bytes of the disk that files leave free, such as \"2GiB\"."),
    (
        "files.upload_rate",
        "Most bytes of files a second to all peers together, as sync.upload_rate, which holds for\n\
         files too.",
    ),
    (
        "files.download_rate",
        "Most bytes of files a second from all peers together, as sync.download_rate, which holds\n\
         for files too.",
    ),
];

/// Puts a comment above each section and key of a configuration. `defaults` is a configuration in
/// the same form, which has all keys.
pub(super) fn commented(plain: &str, defaults: &str) -> String {
    let (mut document, defaults) = (parsed(plain), parsed(defaults));
    for (name, about) in SECTIONS {
        let Some(section) = document.get_mut(name).and_then(Item::as_table_mut) else { continue };
        section.decor_mut().set_prefix(format!("\n{}", comment(about)));
        for (path, about) in KEYS {
            let Some(key) = path.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else {
                continue;
            };
            let default = defaults[name][key].to_string();
            let about = comment(&format!("{about}\nDefault: {}", default.trim()));
            if let Some(mut key) = section.key_mut(key) {
                key.leaf_decor_mut().set_prefix(about);
            }
        }
    }
    format!("{HEAD}{document}")
}

fn parsed(plain: &str) -> DocumentMut {
    plain.parse().unwrap_or_else(|error| panic!("a configuration is written as TOML: {error}"))
}

fn comment(about: &str) -> String {
    about.lines().map(|line| format!("# {line}\n")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn each_section_and_key_has_its_comment() {
        let text = Config::default().to_toml();
        let (mut above, mut keys, mut sections) = (String::new(), 0, 0);
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
            if let Some(comment) = line.strip_prefix("# ") {
                assert!(!comment.is_empty(), "{text}");
                above = format!("{above}\n{comment}");
                continue;
            }
            if let Some((_, value)) = line.split_once(" = ") {
                keys += 1;
                let (about, default) = above.rsplit_once("\nDefault: ").unwrap();
                assert!(!about.is_empty(), "no comment above {line}");
                assert_eq!(default, value, "the default of {line}");
            } else if line.starts_with('[') {
                sections += 1;
                assert!(!above.is_empty(), "no comment above {line}");
            } else {
                assert!(line.is_empty(), "{line:?}");
            }
            above.clear();
        }
        assert_eq!((sections, keys), (SECTIONS.len(), KEYS.len()), "{text}");
    }

    #[test]
    fn a_comment_has_the_default_whatever_the_value() {
        let mut config = Config::default();
        let default = format!("# Default: {:?}\nlevel = \"debug\"\n", config.log.level);
        config.log.level = "debug".to_owned();
        let text = config.to_toml();
        assert!(text.contains(&default), "{default} in {text}");
    }

    #[test]
    fn values_may_hold_anything_and_read_back_equal() {
        let mut config = Config::default();
        config.log.level = "info,a = [b]=debug".to_owned();
        config.rpc.allowed_hosts = vec!["[p2p]\n".to_owned(), "= \"'# x".to_owned()];
        config.p2p.peers = (1..200).map(|n| format!("10.0.0.1:{n}").parse().unwrap()).collect();
        config.sync.download_rate = Some(u64::MAX / 4);
        let read: Config = toml::from_str(&config.to_toml()).unwrap();
        assert_eq!(read, config);
    }
}
