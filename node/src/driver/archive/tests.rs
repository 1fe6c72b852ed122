//! The driver with a store of three whole eras, and a network of its own.
#![allow(clippy::unwrap_used)]

use prometheus_client::registry::Registry;

use super::*;
use crate::driver::made::Made;
use crate::network::{NetworkConfig, PeerEvent};

const EVERYTHING: Sharing = Sharing {
    keep: Keep::Full,
    is_private: true,
    gone_counts: Duration::from_secs(10),
    upload_rate: Some(1 << 14),
};

fn network() -> (Network, network::Inbox) {
    let listen = vec!["/ip4/127.0.0.1/tcp/0".parse().unwrap()];
    let config = NetworkConfig { chain: "aa".into(), listen, ..NetworkConfig::default() };
    let (network, inbox, _task) = network::start(config, &mut Registry::default()).unwrap();
    (network, inbox)
}

/// The driver, the way to it, and what it tells `swarm`.
fn driver(
    store: &Store,
    tip: TipView,
    network: Network,
) -> (Driver, mpsc::Sender<ToArchive>, mpsc::Receiver<ToSwarm>) {
    let (to_archive, inbox) = mpsc::channel(16);
    let (swarm, from_archive) = mpsc::channel(16);
    let parts = Parts {
        clock: Clock::start(),
        chain: Arc::clone(tip.state.chain()),
        store: store.clone(),
        network,
        sharing: EVERYTHING,
        inbox,
        swarm,
        tip: watch::channel(Arc::new(tip)).1,
        sync: watch::channel(Arc::default()).1,
        view: watch::channel(Arc::default()).0,
        stop: watch::channel(false).1,
    };
    (Driver::new(parts).unwrap(), to_archive, from_archive)
}

#[tokio::test]
async fn one_era_goes_from_the_disk_and_then_peers_have_a_turn() {
    let Made { folder: _folder, store, tip, .. } = Made::new(97, 0);
    let (mut driver, to_archive, _swarm) = driver(&store, tip, network().0);
    let withdrawn =
        vec![Effect::Withdraw(vec![Era(0), Era(1)]), Effect::Drop(vec![Era(0), Era(1)])];
    driver.perform(withdrawn).await;
    assert_eq!(store.kept(), [0..=47], "the thread is not held");
    for _ in 0..3 {
        to_archive.send(ToArchive::Began).await.unwrap();
    }
    let era = driver.dropping.pop_front().unwrap();
    driver.drop_one(era).await;
    assert_eq!((store.kept(), to_archive.capacity()), (vec![16..=47], 16));
    // It is fetched again before its turn to go.
    driver.perform(vec![Effect::Fetch(Era(1))]).await;
    assert_eq!((store.kept(), driver.dropping.len()), (vec![32..=47], 0));
}

#[tokio::test]
async fn audits_and_dropped_eras_are_counted() {
    let Made { folder: _folder, store, tip, .. } = Made::new(97, 0);
    let (mut driver, _to_archive, _swarm) = driver(&store, tip, network().0);
    let peer = PeerId(1);
    driver.ids.insert(peer, network::PeerId::random());
    for answer in [Err(RequestError::Timeout), Ok(codec::encode(&Response::NotKept))] {
        let shows = driver.choose(Era(0), 0);
        let asked = Asked { peer, request: RequestId(0), at: Duration::ZERO, shows };
        driver.on_answer(asked, answer).await;
    }
    driver.perform(vec![Effect::Drop(vec![Era(0), Era(1)])]).await;
    driver.show();
    let work = ArchiveWork {
        audits_failed: 1,
        audits_unanswered: 1,
        eras_dropped: 2,
        ..ArchiveWork::default()
    };
    assert_eq!(driver.parts.view.borrow().work, work);
}

/// The store began with a snapshot and lacks two eras. No peer is connected.
#[tokio::test]
async fn a_node_with_a_budget_shows_the_eras_that_it_would_fetch() {
    let Made { folder: _folder, store, tip, .. } = Made::new(97, 64);
    let (mut driver, _to_archive, _swarm) = driver(&store, tip, network().0);
    driver.parts.sharing.keep = Keep::Bytes(1 << 30);
    driver.tick().await;
    let missing = driver.parts.view.borrow().missing.clone();
    assert_eq!(missing.below(Era(9)).collect::<Vec<_>>(), [Era(0), Era(1)]);
}

/// A file cannot be read, and a peer asks for a chunk in it.
#[tokio::test]
async fn a_damaged_era_is_announced_no_more() {
    let Made { folder, store, tip, .. } = Made::new(97, 0);
    let (mut driver, _to_archive, mut swarm) = driver(&store, tip, network().0);
    assert!(driver.machine.announcement().eras.contains(Era(1)));
    std::fs::write(folder.path().join("db/history/1/20.blocks"), b"").unwrap();
    assert_eq!(driver.chunk(SegmentIndex(20), 0), Response::NotKept);
    driver.tick().await;
    assert!(!driver.machine.announcement().eras.contains(Era(1)));
    assert!(matches!(swarm.try_recv(), Ok(ToSwarm::Dropped(1))));
    assert_eq!(store.chunk(21, 0, &driver.rules).unwrap(), Kept::NotKept, "of the same era");
    assert_eq!(store.kept(), [0..=47], "it may be the last copy");
}

/// A peer audits this node as fast as it can.
#[tokio::test]
async fn audits_use_up_the_rate_of_uploads() {
    let Made { folder: _folder, store, tip, .. } = Made::new(97, 0);
    let ((network, mut inbox), (other, _other_inbox)) = (network(), network());
    let mut addresses = network.addresses();
    addresses.wait_for(|addresses| !addresses.is_empty()).await.unwrap();
    let address = addresses.borrow()[0].clone();
    let id = network.local_peer();
    let (mut driver, _to_archive, mut swarm) = driver(&store, tip, network);
    other.dial(address);
    other.peers().wait_for(|peers| peers.iter().any(|peer| peer.id == id)).await.unwrap();
    for number in 0..3 {
        other.request(id, codec::encode(&Request::Chunk(SegmentIndex(0), 0)));
        let (ticket, from) = loop {
            if let PeerEvent::Request { ticket, from, .. } = inbox.events.recv().await.unwrap() {
                break (ticket, from);
            }
        };
        let (segment, chunk) = (SegmentIndex(0), 0);
        driver.on_message(ToArchive::Chunk { ticket, from, segment, chunk }).await;
        let uploaded = matches!(swarm.try_recv(), Ok(ToSwarm::Uploaded(bytes)) if bytes > 100);
        assert_eq!(uploaded, number == 0, "{number}");
        // As much as an answer of 1 GB.
        driver.shown.take(1 << 30);
    }
}
