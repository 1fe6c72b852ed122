#![allow(clippy::unwrap_used)]

use std::future::poll_fn;

use libp2p::tcp::tokio::TcpStream;

use super::*;
use crate::network::tests::within;

type Side = Muxer<TcpStream>;

/// A number of streams that is more than enough to fill the budget, and less than [`STREAMS_MAX`].
const MANY: usize = 300;

async fn connected(server: &Yamux) -> (Side, Side) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (out, accepted) = tokio::join!(
        tokio::net::TcpStream::connect(listener.local_addr().unwrap()),
        listener.accept()
    );
    let client = Yamux::default().connection(TcpStream(out.unwrap()), yamux::Mode::Client);
    (server.clone().connection(TcpStream(accepted.unwrap().0), yamux::Mode::Server), client)
}

/// Opens at most `most` streams and fills their windows until `done` is true of the server.
async fn fill(
    server: &mut Side,
    client: &mut Side,
    streams: &mut Vec<Stream>,
    most: usize,
    done: impl Fn(&Side) -> bool,
) {
    let filling = poll_fn(|cx| {
        loop {
            let mut moved = false;
            if streams.len() < most
                && let Poll::Ready(stream) = Pin::new(&mut *client).poll_outbound(cx)
            {
                streams.push(stream.unwrap());
                moved = true;
            }
            for stream in &mut *streams {
                // Streams that the other side has reset take nothing.
                while let Poll::Ready(Ok(_)) = Pin::new(&mut *stream).poll_write(cx, &[7; 16 << 10])
                {
                    moved = true;
                }
            }
            assert!(Pin::new(&mut *client).poll(cx).is_pending());
            assert!(Pin::new(&mut *server).poll(cx).is_pending());
            if done(server) {
                return Poll::Ready(());
            }
            if !moved {
                return Poll::Pending;
            }
        }
    });
    within("filled", filling).await;
}

fn waits(side: &Side) -> bool {
    side.book.lock().waiting.is_some()
}

#[tokio::test]
async fn a_connection_whose_streams_are_not_read_waits_and_goes_on_when_they_are() {
    let yamux = Yamux::default();
    let all = Arc::clone(&yamux.unread);
    let (mut server, mut client) = connected(&yamux).await;
    let mut streams = Vec::new();
    fill(&mut server, &mut client, &mut streams, MANY, waits).await;
    let total = all.load(Ordering::Relaxed);
    assert!((UNREAD.all / 2..UNREAD.all / 2 + (1 << 20)).contains(&total), "{total} bytes wait");
    assert!(streams.len() > 100, "{} streams", streams.len());

    // Another connection still has its share. When the first one's streams are dropped, their bytes
    // no longer count.
    let (mut other, mut other_client) = connected(&yamux).await;
    let mut others = Vec::new();
    fill(&mut other, &mut other_client, &mut others, MANY, waits).await;
    let both = all.load(Ordering::Relaxed);
    assert!(
        (UNREAD.all * 3 / 4..UNREAD.all * 3 / 4 + (2 << 20)).contains(&both),
        "{both} bytes wait"
    );

    server.inward.clear();
    assert!(!waits(&server));
    assert_eq!(all.load(Ordering::Relaxed), both - total);
    // The streams were reset, and new ones can be opened. At first there are few, as the old ones
    // count until the reset is processed.
    streams.clear();
    fill(&mut server, &mut client, &mut streams, 8, |server| !server.inward.is_empty()).await;
    drop((server, other));
    assert_eq!(all.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn what_a_stream_holds_is_counted_until_it_is_read() {
    let yamux = Yamux::default();
    let (mut server, mut client) = connected(&yamux).await;
    // However much others hold, one window has room.
    yamux.unread.store(10 * UNREAD.all, Ordering::Relaxed);
    let mut streams = Vec::new();
    fill(&mut server, &mut client, &mut streams, MANY, waits).await;
    let held = server.book.lock().total;
    assert!((UNREAD.floor..UNREAD.floor + (64 << 10)).contains(&held), "{held}");
    let mut stream = server.inward.pop_front().unwrap();
    let mut bytes = vec![0; 100];
    let read = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut bytes)).await.unwrap();
    assert_eq!((read, server.book.lock().total), (100, held - 100));
    assert_eq!(yamux.unread.load(Ordering::Relaxed), 10 * UNREAD.all + held - 100);
}

#[test]
fn frames_are_found_however_they_are_cut() {
    let frame = |kind: u8, flags: u8, stream: u8, length: u8, body: usize| {
        let mut bytes = vec![0, kind, 0, flags, 0, 0, 0, stream, 0, 0, 0, length];
        bytes.resize(HEADER_BYTES + body, 9);
        bytes
    };
    // Among the frames are data that opens a stream, a window update that opens another one, a
    // ping, and data for a stream that does not exist.
    let bytes = [
        frame(DATA, 1, 3, 200, 200),
        frame(1, 1, 5, 77, 0),
        frame(DATA, 0, 5, 0, 0),
        frame(2, 1, 0, 9, 0),
        frame(DATA, 0, 5, 30, 30),
        frame(DATA, 0, 7, 50, 50),
        frame(DATA, 0, 3, 1, 1),
    ]
    .concat();
    for step in 1..bytes.len() {
        let book = Arc::new(Book { all: Arc::default(), unread: Mutex::default() });
        let mut wire = Wire {
            io: (),
            book: Arc::clone(&book),
            header: [0; HEADER_BYTES],
            filled: 0,
            body: None,
        };
        bytes.chunks(step).for_each(|part| wire.on_bytes(part));
        let unread = book.lock();
        assert_eq!(
            (unread.streams[&3], unread.streams[&5], unread.total),
            (201, 30, 231),
            "{step} at a time"
        );
        assert_eq!(unread.streams.len(), 2);
    }
}

#[tokio::test]
async fn what_gossip_writes_is_counted() {
    let (_server, mut client) = connected(&Yamux::default()).await;
    let (written, peer) = (Written::default(), PeerId::random());
    written.count(peer, &mut client);
    let mut write = async |parts: &[&[u8]]| {
        let mut stream = poll_fn(|cx| Pin::new(&mut client).poll_outbound(cx)).await.unwrap();
        let before = written.to(&peer);
        for part in parts {
            assert_eq!(
                poll_fn(|cx| Pin::new(&mut stream).poll_write(cx, part)).await.unwrap(),
                part.len()
            );
        }
        written.to(&peer) - before
    };
    assert_eq!(write(&[b"\x13/multistream/1.0.0\n\x0f/meshsub/1.3.0\n", &[0; 5_000]]).await, 5_036);
    assert_eq!(
        write(&[b"\x13/multistream/1.0.0\n", b"\x0f/meshsub/1.3.0\n", &[0; 5_000]]).await,
        5_016
    );
    assert_eq!(
        write(&[b"\x13/multistream/1.0.0\n\x09/cairn/1\n", &[0; 5_000], b"/meshsub/"]).await,
        0
    );
    // A second connection with the peer adds to the same count, which is forgotten when both are
    // gone.
    let (_other_server, mut other) = connected(&Yamux::default()).await;
    let before = written.to(&peer);
    written.count(peer, &mut other);
    assert_eq!(written.to(&peer), before);
    drop((client, other));
    assert_eq!(written.to(&peer), 0);
}
