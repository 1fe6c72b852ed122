//! Asks over links for heads and chunks of files, without end: of the file of the field, if there
//! is one, and of files that nobody has.

use ledger::codec;
use ledger::hash::FileId;
use ledger::units::SegmentIndex;
use node::network::{LinkEvent, PeerId};
use protocol::swarm::message::{CollectionId, CollectionNumber, SyncMessage, Update};
use tokio::time::Instant;

use super::garbage_proposals::random;
use super::peer::Peer;
use super::{Field, Rate, requests};

/// Messages a second of each identity.
const RATE: f64 = 250.0;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    requests::each(field, |peer, number| ask(peer, field.file, until, number)).await
}

async fn ask(
    mut peer: Peer,
    file: Option<FileId>,
    until: Instant,
    number: u64,
) -> anyhow::Result<f64> {
    let (mut rate, mut linked, mut sent) = (Rate::start(), Vec::<PeerId>::new(), 0u64);
    while Instant::now() < until {
        rate.due(RATE).await;
        peer.drain();
        // What the nodes send is thrown away.
        while let Ok(event) = peer.inbox.links.try_recv() {
            match event {
                LinkEvent::Opened(peer) => linked.push(peer),
                LinkEvent::Closed(peer) => linked.retain(|other| *other != peer),
                LinkEvent::Message(..) | LinkEvent::Data(..) | LinkEvent::Written(_) => {}
            }
        }
        if linked.is_empty() {
            continue;
        }
        sent += 1;
        let to = linked[usize::try_from(rate.count)? % linked.len()];
        let id = file.unwrap_or_else(|| FileId(random(number, sent)));
        peer.network.send_message(to, codec::encode(&message(id, number, sent)));
    }
    Ok(sent as f64 / rate.start.elapsed().as_secs_f64())
}

/// In turn: opens the file, opens one that nobody has, wants a chunk with unlimited credit, does
/// not want it any more, and asks four times for a head.
fn message(id: FileId, number: u64, turn: u64) -> SyncMessage {
    let file = CollectionNumber(0);
    let chunk = file.segment(SegmentIndex(0)).chunk((turn / 8 % 16) as u32);
    match turn % 8 {
        0 => SyncMessage::Open(file, CollectionId(id.0)),
        1 => {
            let other = CollectionNumber(1 + (turn / 8 % 100) as u16);
            SyncMessage::Open(other, CollectionId(random(number, turn)))
        }
        2 => {
            let update = Update { add: vec![chunk], allowed: u64::MAX, ..Update::default() };
            SyncMessage::Update(update)
        }
        3 => {
            let update = Update { remove: vec![chunk], allowed: u64::MAX, ..Update::default() };
            SyncMessage::Update(update)
        }
        _ => SyncMessage::GetFileHead(id, SegmentIndex(turn % 3)),
    }
}
