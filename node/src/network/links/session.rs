//! One open link: a task for each stream, and one that ends them together.

use std::num::NonZeroU64;
use std::time::Duration;
use std::{io, panic};

use libp2p::PeerId;
use libp2p::swarm::Stream;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};

use super::LinkEvent;
use super::outlet::{Frames, Outbox, Outlets};
use crate::network::frame::{Pace, write_frame};
use crate::network::intake::{Limits, Source};
use crate::network::meters::Meters;
use crate::network::share::Share;
use crate::network::socket::Taken;
use crate::network::wire::Lane;

/// Longest time over which a data frame is spread. If it were much longer, the peer would ask
/// another node for the chunk, and we would take its connection for a slow one.
const PACED: Duration = Duration::from_millis(150);

/// How long a frame of the peer that has begun may stand still. Its writer has all of the frame, so
/// only the connection delays it, and a connection that moves nothing for this long is about to
/// end.
const STALL: Duration = Duration::from_secs(60);

/// Limits of frames that are being received.
///
/// The floor of each link holds a chunk of the usual 128 KiB beside messages, so both arrive
/// however much room other peers hold. A larger frame that finds no room waits for it. It is not
/// refused, since a link with a missing frame is useless. The room for all is 40 MiB, and a node
/// gives credit for about 32 MiB of chunks at a time, so honest peers alone leave room. The rate is
/// low, since the frames of many peers may share a slow connection to the network.
pub(super) const FRAMES: Limits = Limits {
    begins: None,
    stall: STALL,
    rate: 8 << 10,
    share: Share { all: 40 << 20, floor: 320 << 10 },
    waits: true,
};

/// An open link.
pub(super) struct Session {
    pub(super) peer: PeerId,
    /// Our streams, to write on.
    pub(super) outward: [Stream; 2],
    /// The peer's streams, to read from: at most one per lane.
    pub(super) inward: mpsc::Receiver<(Lane, Stream)>,
    pub(super) outbox: Outbox,
    pub(super) outlets: Outlets,
    pub(super) events: mpsc::Sender<LinkEvent>,
    /// Reads the peer's frames.
    pub(super) source: Source,
    pub(super) meters: Meters,
    /// Rate limit of data frames, in bytes a second. `None` is unlimited.
    pub(super) rate: Option<NonZeroU64>,
    /// How many bytes of the connection the operating system has taken in, if it is known.
    pub(super) taken: Option<Taken>,
}

impl Session {
    /// Announces the link, moves frames until the link is closed or one of its streams ends, and
    /// announces the end. Returns the peer.
    pub(super) async fn run(mut self) -> PeerId {
        let opened = tokio::select! {
            biased;
            _ = &mut self.outbox.closed => false,
            sent = self.events.send(LinkEvent::Opened(self.peer)) => sent.is_ok(),
        };
        if !opened {
            return self.peer;
        }
        let Self {
            peer,
            outward,
            mut inward,
            outbox: Outbox { frames, mut closed },
            outlets,
            events,
            source,
            meters,
            rate,
            taken,
        } = self;
        let mut streams = JoinSet::new();
        for ((lane, stream), frames) in Lane::ALL.into_iter().zip(outward).zip(frames) {
            // Control frames are neither delayed nor spread.
            let pace = if lane == Lane::Data {
                Pace { rate, taken: taken.clone(), end: 0 }
            } else {
                Pace::default()
            };
            streams.spawn(write(peer, lane, stream, frames, events.clone(), meters.clone(), pace));
        }
        let reason = loop {
            tokio::select! {
                _ = &mut closed => break io::Error::other("it was closed"),
                Some((lane, stream)) = inward.recv() => {
                    let (source, events, meters) = (source.clone(), events.clone(), meters.clone());
                    streams.spawn(read(peer, lane, stream, source, events, meters));
                }
                Some(ended) = streams.join_next() => {
                    break end_of(ended).unwrap_or_else(|| io::Error::other("it was closed"));
                }
            }
        };
        tracing::debug!(%peer, %reason, "a link ends");
        // The order matters: no frame of this link may be queued or read after its end is
        // announced.
        drop(inward);
        outlets.remove(&peer);
        streams.abort_all();
        while let Some(ended) = streams.join_next().await {
            end_of(ended);
        }
        // An error means that the reader of events is gone.
        let _ = events.send(LinkEvent::Closed(peer)).await;
        peer
    }
}

/// Why a task ended. A panic in it is passed on.
fn end_of(ended: Result<io::Result<()>, JoinError>) -> Option<io::Error> {
    match ended {
        Ok(result) => result.err(),
        Err(error) => {
            if let Ok(reason) = error.try_into_panic() {
                panic::resume_unwind(reason);
            }
            None
        }
    }
}

/// The rate, in bytes a second, at which a frame of this length takes [`PACED`].
fn least_rate(length: usize) -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(length as u64 * 1_000 / PACED.as_millis() as u64)
}

/// Writes frames until the peer's queue of frames is removed. A slow peer has no timeout here. A
/// dead peer needs none: its connection ends, and the link with it.
async fn write(
    peer: PeerId,
    lane: Lane,
    mut stream: Stream,
    mut frames: Frames,
    events: mpsc::Sender<LinkEvent>,
    meters: Meters,
    mut pace: Pace,
) -> io::Result<()> {
    let limit = pace.rate;
    while let Some(frame) = frames.next().await {
        pace.rate =
            limit.map(|rate| rate.saturating_add(rate.get() / 8).max(least_rate(frame.len())));
        write_frame(&mut stream, &frame, None, &mut pace).await?;
        frames.on_written(frame.len());
        meters.link_bytes("out", lane, frame.len());
        if lane == Lane::Data {
            events
                .send(LinkEvent::Written(peer))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
    }
    Ok(())
}

/// Reads frames until the stream ends. When the reader of events is slow, reading waits, and the
/// stream's window slows down the peer.
async fn read(
    peer: PeerId,
    lane: Lane,
    mut stream: Stream,
    source: Source,
    events: mpsc::Sender<LinkEvent>,
    meters: Meters,
) -> io::Result<()> {
    loop {
        // The frame keeps its room in the intake until its event has been sent.
        let (frame, _arrival) = source.read(&mut stream, lane.bytes_max()).await?;
        meters.link_bytes("in", lane, frame.len());
        let event = match lane {
            Lane::Control => LinkEvent::Message(peer, frame),
            Lane::Data => LinkEvent::Data(peer, frame),
        };
        events.send(event).await.map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
    }
}
