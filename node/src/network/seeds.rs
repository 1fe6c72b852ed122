//! Seeds: DNS names under which addresses of nodes are published.
//!
//! `/dnsaddr/NAME` stands for the addresses in the TXT records of `_dnsaddr.NAME`, each the text
//! `dnsaddr=` and a multiaddr. A seed is a way into the network and not a peer: its addresses are
//! dialed like those that a peer gave, and whoever answers takes an ordinary place. It is asked
//! only while no peer is connected, so its owner does not learn when a node that knows peers is
//! online.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::{BoxFuture, FutureExt};
use futures::stream::{FuturesUnordered, StreamExt};
use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;
use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

use super::NetworkConfig;
use super::address::is_dialable;

/// Most addresses of one answer that are dialed, chosen at random if there are more.
const ADDRESSES_MAX: usize = 16;

/// Delay between two queries while no peer is connected. It doubles each time.
const DELAY_MIN: Duration = Duration::from_secs(5);
/// The longest such delay.
const DELAY_MAX: Duration = Duration::from_secs(300);

/// What is wrong with a seed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeedError {
    /// There are no such records, or no server answers.
    #[error("{0}")]
    Unresolved(String),
    /// The records have no address that may be dialed.
    #[error("its records have no address that may be dialed")]
    Empty,
}

/// A seed's answer.
pub(crate) type Found = (String, Result<Vec<Multiaddr>, SeedError>);

/// The configured seeds.
pub(crate) struct Seeds {
    names: Vec<String>,
    name_server: Option<SocketAddr>,
    private: bool,
    next: Instant,
    delay: Duration,
    asked: FuturesUnordered<BoxFuture<'static, Found>>,
}

/// The name of a seed. `None` if the address is not a seed.
pub(crate) fn seed_name(address: &Multiaddr) -> Option<String> {
    let mut parts = address.iter();
    match (parts.next(), parts.next()) {
        (Some(Protocol::Dnsaddr(name)), None) => Some(name.into_owned()),
        _ => None,
    }
}

impl Seeds {
    /// The seeds among the configured addresses. A node that knows other nodes tries these first.
    pub(crate) fn new(config: &NetworkConfig, knows_others: bool, now: Instant) -> Self {
        Self {
            names: config.bootstrap.iter().filter_map(seed_name).collect(),
            name_server: config.name_server,
            private: config.private,
            next: if knows_others { now + DELAY_MIN } else { now },
            delay: DELAY_MIN,
            asked: FuturesUnordered::new(),
        }
    }

    /// Asks all seeds, if that is due.
    pub(crate) fn ask(&mut self, is_alone: bool, now: Instant) {
        if !is_alone {
            (self.next, self.delay) = (now + DELAY_MIN, DELAY_MIN);
        } else if now >= self.next && self.asked.is_empty() {
            (self.next, self.delay) = (now + self.delay, (2 * self.delay).min(DELAY_MAX));
            for name in self.names.clone() {
                let (server, private) = (self.name_server, self.private);
                let found = async move {
                    let found = resolve(&name, server).await.and_then(|mut found| {
                        found.retain(|address| is_dialable(address, private));
                        if found.is_empty() { Err(SeedError::Empty) } else { Ok(some(found)) }
                    });
                    (name, found)
                };
                self.asked.push(found.boxed());
            }
        }
    }

    /// The next answer. Never resolves while no seed is asked. Cancel safe.
    pub(crate) async fn found(&mut self) -> Found {
        match self.asked.next().await {
            Some(found) => found,
            None => std::future::pending().await,
        }
    }
}

/// At most [`ADDRESSES_MAX`] of these addresses, beginning at a random one.
fn some(mut addresses: Vec<Multiaddr>) -> Vec<Multiaddr> {
    let random = getrandom::u32().map_or(0, |random| random as usize);
    let start = random.checked_rem(addresses.len()).unwrap_or(0);
    addresses.rotate_left(start);
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// The addresses in the records of a seed.
async fn resolve(name: &str, server: Option<SocketAddr>) -> Result<Vec<Multiaddr>, SeedError> {
    let unresolved = |error: &dyn std::fmt::Display| SeedError::Unresolved(error.to_string());
    let builder = match server {
        None => TokioResolver::builder_tokio().map_err(|error| unresolved(&error))?,
        Some(server) => {
            let mut connection = ConnectionConfig::udp();
            connection.port = server.port();
            let server = NameServerConfig::new(server.ip(), true, vec![connection]);
            let config = ResolverConfig::from_parts(None, vec![], vec![server]);
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
        }
    };
    let resolver = builder.build().map_err(|error| unresolved(&error))?;
    // The dot at the end keeps the search domains of this machine out.
    let records = resolver.txt_lookup(format!("_dnsaddr.{name}.")).await;
    let records = records.map_err(|error| unresolved(&error))?;
    let texts = records.answers().iter().filter_map(|record| match &record.data {
        RData::TXT(text) => text.txt_data.first(),
        _ => None,
    });
    Ok(texts.filter_map(|text| parse(text)).collect())
}

/// The address in a TXT record.
fn parse(text: &[u8]) -> Option<Multiaddr> {
    std::str::from_utf8(text).ok()?.strip_prefix("dnsaddr=")?.parse().ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::UdpSocket;

    use super::*;
    use crate::network::tests::{Node, config, within, without_peer};

    /// A name server that answers each question with these TXT records. Returns its address.
    async fn name_server(texts: Vec<String>) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            loop {
                let (length, from) = socket.recv_from(&mut buffer).await.unwrap();
                let asked = &buffer[..length];
                // The name in the question ends with an empty label. Type and class follow.
                let end = 12 + asked[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
                let count = u8::try_from(texts.len()).unwrap();
                let mut answer = asked[..2].to_vec();
                answer.extend([0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0]);
                answer.extend(&asked[12..end]);
                for text in &texts {
                    let length = u8::try_from(text.len()).unwrap();
                    // The name of the question, TXT, class IN, 60 s.
                    answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60, 0, length + 1, length]);
                    answer.extend(text.as_bytes());
                }
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        address
    }

    async fn seeded(private: bool, texts: &[String]) -> NetworkConfig {
        NetworkConfig {
            private,
            bootstrap: vec!["/dnsaddr/seed.example".parse().unwrap()],
            name_server: Some(name_server(texts.to_vec()).await),
            ..config(&[])
        }
    }

    #[tokio::test]
    async fn a_node_joins_by_a_seed() {
        let there = Node::start(NetworkConfig { private: true, ..config(&[]) }).await;
        let texts = [
            "v=spf1 -all".to_owned(),
            "dnsaddr=/ip4/127.0.0.1/tcp/1".to_owned(),
            "dnsaddr=nonsense".to_owned(),
            format!("dnsaddr={}", there.address()),
        ];
        let mut node = Node::start(seeded(true, &texts).await).await;
        node.connected(there.id()).await;
    }

    #[tokio::test]
    async fn of_a_seed_only_some_addresses_are_dialed_and_none_of_our_own_network() {
        let text = |number: u32| format!("dnsaddr=/ip4/1.1.1.{number}/tcp/7700");
        for (private, texts, expected) in [
            (false, (1..=3).map(text).collect::<Vec<_>>(), Some(3)),
            (false, (1..=10).map(text).collect(), Some(10)),
            (
                false,
                (1..=12).flat_map(|_| ["dnsaddr=/ip4/10.0.0.1/tcp/1".to_owned()]).collect(),
                None,
            ),
            (true, vec!["dnsaddr=/ip4/10.0.0.1/tcp/1".to_owned()], Some(1)),
            (true, vec!["dnsaddr=/dns4/node.example/tcp/1".to_owned()], None),
            (false, vec![], None),
        ] {
            let config = seeded(private, &texts).await;
            let now = Instant::now();
            let mut seeds = Seeds::new(&config, false, now);
            seeds.ask(true, now);
            let (name, found) = within("an answer", seeds.found()).await;
            assert_eq!(name, "seed.example");
            assert_eq!(found.ok().map(|found| found.len()), expected, "{texts:?}");
        }
        let many = (1..=200).map(|number| text(number).trim_start_matches("dnsaddr=").parse());
        assert_eq!(some(many.map(Result::unwrap).collect()).len(), ADDRESSES_MAX);
    }

    #[tokio::test]
    async fn a_seed_is_asked_only_while_no_peer_is_connected() {
        let (config, start) = (seeded(true, &[]).await, Instant::now());
        for (knows_others, is_alone, after, is_asked) in [
            (false, true, Duration::ZERO, true),
            (false, false, Duration::ZERO, false),
            (true, true, Duration::ZERO, false),
            (true, true, DELAY_MIN, true),
        ] {
            let mut seeds = Seeds::new(&config, knows_others, start);
            seeds.ask(is_alone, start + after);
            assert_eq!(!seeds.asked.is_empty(), is_asked, "{knows_others} {is_alone} {after:?}");
        }
        let mut seeds = Seeds::new(&config, false, start);
        let mut asked = Vec::new();
        for second in 0..1_000 {
            seeds.ask(true, start + Duration::from_secs(second));
            if !seeds.asked.is_empty() {
                asked.push(second);
                seeds.asked.clear();
            }
        }
        assert_eq!(asked, [0, 5, 15, 35, 75, 155, 315, 615, 915]);
        let named = without_peer(&"/ip4/1.1.1.1/tcp/1/p2p-circuit".parse().unwrap());
        assert_eq!(seed_name(&named), None);
    }
}
