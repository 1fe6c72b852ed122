#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;

use futures::AsyncRead;
use tokio::time::{Instant, advance, sleep, timeout};

use super::delay::{Delayed, HELD_BYTES_MAX, PEER_HELD_BYTES_MAX};
use super::*;

const fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

/// A stream whose other end the test holds.
#[derive(Clone, Default)]
struct Source(Arc<Mutex<Arrived>>);

#[derive(Default)]
struct Arrived {
    bytes: VecDeque<u8>,
    end: Option<io::ErrorKind>,
    is_closed: bool,
    waker: Option<Waker>,
    taken: usize,
}

impl Source {
    fn change(&self, change: impl FnOnce(&mut Arrived)) {
        let mut arrived = self.0.lock().unwrap();
        change(&mut arrived);
        arrived.waker.take().into_iter().for_each(Waker::wake);
    }

    fn push(&self, bytes: &[u8]) {
        self.change(|arrived| arrived.bytes.extend(bytes));
    }
}

impl AsyncRead for Source {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut arrived = self.0.lock().unwrap();
        let count = arrived.bytes.len().min(bytes.len());
        if count == 0 && arrived.is_closed {
            return Poll::Ready(arrived.end.map_or(Ok(0), |kind| Err(kind.into())));
        }
        if count == 0 {
            arrived.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        for (slot, byte) in bytes.iter_mut().zip(arrived.bytes.drain(..count)) {
            *slot = byte;
        }
        arrived.taken += count;
        Poll::Ready(Ok(count))
    }
}

/// A reader of a source, behind the faults of a peer.
struct Reader {
    source: Source,
    seat: Seat,
    delayed: Delayed,
}

impl Reader {
    fn new(latency: Duration) -> (Self, Source, Arc<Peer>) {
        let peer = Arc::new(Peer::default());
        peer.set(false, latency);
        let (reader, source) = Self::of(&peer);
        (reader, source, peer)
    }

    fn of(peer: &Arc<Peer>) -> (Self, Source) {
        let (source, seat) = (Source::default(), Seat::new(Arc::clone(peer)));
        let delayed = Delayed::new(Arc::clone(&peer.held_bytes));
        (Self { source: source.clone(), seat, delayed }, source)
    }

    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = [0; 100];
        let Self { source, seat, delayed } = self;
        let count = poll_fn(|cx| {
            std::task::ready!(seat.poll_uncut(Side::In, cx));
            delayed.poll_read(source, seat, cx, &mut bytes)
        });
        count.await.map(|count| bytes[..count].to_vec())
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_are_read_later_by_the_latency_and_in_order() {
    let (mut reader, source, _peer) = Reader::new(ms(100));
    let start = Instant::now();
    let reads = async {
        for (text, at) in [(&b"one"[..], 100), (b"two", 140), (b"three", 145), (b"", 200)] {
            assert_eq!(reader.read().await.unwrap(), text);
            assert_eq!(start.elapsed(), ms(at), "{text:?}");
        }
        assert_eq!(reader.read().await.unwrap(), b"", "the end stays the end");
    };
    let writes = async {
        source.push(b"one");
        sleep(ms(40)).await;
        source.push(b"two");
        sleep(ms(5)).await;
        source.push(b"three");
        sleep(ms(55)).await;
        source.change(|arrived| arrived.is_closed = true);
    };
    tokio::join!(reads, writes);
}

#[tokio::test(start_paused = true)]
async fn an_error_comes_after_the_bytes_before_it() {
    let (mut reader, source, _peer) = Reader::new(ms(100));
    source.push(b"last");
    source.change(|arrived| {
        (arrived.is_closed, arrived.end) = (true, Some(io::ErrorKind::ConnectionReset));
    });
    let start = Instant::now();
    assert_eq!(reader.read().await.unwrap(), b"last");
    assert_eq!(reader.read().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(start.elapsed(), ms(100));
}

#[tokio::test(start_paused = true)]
async fn a_change_of_latency_applies_to_what_waits() {
    let (mut reader, source, peer) = Reader::new(ms(10_000));
    source.push(b"one");
    let start = Instant::now();
    let changes = async {
        for (after, latency) in [(100, 5_000), (100, 300), (50, 0)] {
            sleep(ms(after)).await;
            peer.set(false, ms(latency));
        }
    };
    let (read, ()) = tokio::join!(reader.read(), changes);
    assert_eq!((read.unwrap(), start.elapsed()), (b"one".to_vec(), ms(250)));
    // Without latency nothing is held back.
    source.push(b"two");
    assert_eq!(reader.read().await.unwrap(), b"two");
    assert_eq!(start.elapsed(), ms(250));
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_bounded() {
    for piece in [1, 100_000] {
        let (mut reader, source, _peer) = Reader::new(ms(100));
        let mut pushed = 0;
        for _ in 0..3 * HELD_BYTES_MAX / piece.max(64) {
            source.push(&vec![7; piece]);
            pushed += piece;
            assert!(timeout(Duration::ZERO, reader.read()).await.is_err());
        }
        let taken = source.0.lock().unwrap().taken;
        assert!(taken < HELD_BYTES_MAX + 10_000 && taken < pushed, "{taken} of {pushed}");
        advance(ms(100)).await;
        let mut read = 0;
        while read < pushed {
            read += reader.read().await.unwrap().len();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_in_all_streams_of_a_peer_is_bounded() {
    let peer = Arc::new(Peer::default());
    peer.set(false, ms(100));
    let mut streams: Vec<_> = (0..40).map(|_| Reader::of(&peer)).collect();
    for (reader, source) in &mut streams {
        source.push(&[7; 500_000]);
        assert!(timeout(Duration::ZERO, reader.read()).await.is_err());
    }
    let taken: usize = streams.iter().map(|(_, source)| source.0.lock().unwrap().taken).sum();
    assert!((PEER_HELD_BYTES_MAX - 500_000..PEER_HELD_BYTES_MAX + 400_000).contains(&taken));
    // Each stream still goes on to its end.
    for (mut reader, _source) in streams {
        let mut read = 0;
        while read < 500_000 {
            read += reader.read().await.unwrap().len();
        }
    }
    assert_eq!(peer.held_bytes.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn a_cut_holds_a_reader_until_it_is_healed() {
    let (mut reader, source, peer) = Reader::new(Duration::ZERO);
    peer.set(true, Duration::ZERO);
    source.push(b"held");
    let start = Instant::now();
    let heal = async {
        sleep(ms(3_000_000)).await;
        peer.set(false, Duration::ZERO);
    };
    let (read, ()) = tokio::join!(reader.read(), heal);
    assert_eq!((read.unwrap(), start.elapsed()), (b"held".to_vec(), ms(3_000_000)));
    assert!(peer.lock().is_empty());
    peer.set(true, Duration::ZERO);
    assert!(timeout(ms(1), reader.read()).await.is_err());
    assert_eq!(peer.lock().len(), 1);
    drop(reader);
    assert!(peer.lock().is_empty(), "a stream that is gone waits for nothing");
}

#[test]
fn a_plan_has_limits() {
    let (local, peer) = (PeerId::random(), PeerId::random());
    let plan = |cut: &[PeerId], latency: &[(PeerId, Duration)]| FaultPlan {
        cut: cut.iter().copied().collect(),
        latency: latency.iter().copied().collect(),
    };
    for (given, expected) in [
        (plan(&[], &[]), Ok(plan(&[], &[]))),
        (plan(&[peer], &[(peer, LATENCY_MAX)]), Ok(plan(&[peer], &[(peer, LATENCY_MAX)]))),
        (plan(&[], &[(peer, Duration::ZERO)]), Ok(FaultPlan::default())),
        (plan(&[], &[(peer, LATENCY_MAX + ms(1))]), Err(FaultError::Latency(ms(10_001)))),
        (plan(&[peer, local], &[]), Err(FaultError::Itself(local))),
        (plan(&[], &[(local, ms(1))]), Err(FaultError::Itself(local))),
    ] {
        assert_eq!(given.checked(local), expected);
    }
    let peers: Vec<PeerId> = (0..=FAULTY_PEERS_MAX).map(|_| PeerId::random()).collect();
    assert_eq!(plan(&peers, &[]).checked(local), Err(FaultError::Peers(FAULTY_PEERS_MAX + 1)));
    assert!(plan(&peers[1..], &[]).checked(local).is_ok());
}

#[test]
fn a_new_connection_has_the_faults_that_are_set() {
    let (faults, id) = (Faults::default(), PeerId::random());
    faults.set(FaultPlan { cut: [id].into(), latency: [(id, ms(50))].into() });
    let seat = Seat::new(faults.peer(id));
    assert!(seat.peer.is_cut.load(Ordering::SeqCst));
    assert_eq!(seat.latency(), ms(50));
}
