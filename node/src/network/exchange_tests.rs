#![allow(clippy::unwrap_used)]

use std::time::Instant as Moment;

use futures::FutureExt;
use libp2p::PeerId;
use libp2p::request_response::Codec;
use tokio::time::{Instant, Sleep, sleep};

use super::*;
use crate::network::requests::Requests;

static PROTOCOL: StreamProtocol = StreamProtocol::new("/test");

/// A peer that sends or takes some bytes at once, and then one byte at a time.
struct Slow {
    at_once: usize,
    every: Duration,
    wait: Pin<Box<Sleep>>,
    moved: usize,
    /// The bytes that it sends, over and over: a length and zeros.
    length: u32,
}

impl Slow {
    fn new(at_once: usize, every: Duration, length: usize) -> Self {
        let length = u32::try_from(length).unwrap();
        Self { at_once, every, wait: Box::pin(sleep(every)), moved: 0, length }
    }

    /// How many bytes may move now.
    fn poll_move(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<usize> {
        let count = if self.moved < self.at_once {
            most.min(self.at_once - self.moved)
        } else {
            ready!(self.wait.as_mut().poll(cx));
            let next = Instant::now() + self.every;
            self.wait.as_mut().reset(next);
            1
        };
        self.moved += count;
        Poll::Ready(count)
    }
}

impl AsyncRead for Slow {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let begun = self.moved;
        let most = if begun < 4 { 4 - begun } else { bytes.len() };
        let count = ready!(self.poll_move(cx, most.min(bytes.len())));
        let prefix = self.length.to_le_bytes();
        for (at, byte) in (begun..).zip(&mut bytes[..count]) {
            *byte = prefix.get(at).copied().unwrap_or(0);
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Slow {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_move(cx, bytes.len()).map(Ok)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

const TRICKLE: Duration = Duration::from_secs(19);

#[tokio::test(start_paused = true)]
async fn a_request_that_trickles_ends_after_20_s() {
    for at_once in [0, 3, 4, 100, 60 << 10] {
        let begun = Instant::now();
        let mut slow = Slow::new(at_once, TRICKLE, REQUEST_BYTES_MAX);
        let error = Frames::default().read_request(&PROTOCOL, &mut slow).await.unwrap_err();
        assert_eq!(
            (error.kind(), begun.elapsed()),
            (io::ErrorKind::TimedOut, Duration::from_secs(20)),
            "{at_once} bytes at once"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_trickles_ends_in_proportion_to_its_size() {
    // bytes, how long they may take
    for (length, time) in [(1 << 10, 20_031), (2 << 20, 84_000), (4 << 20, 148_000)] {
        let begun = Instant::now();
        let response = Response { bytes: vec![0; length], sending: None };
        let mut slow = Slow::new(256, TRICKLE, 0);
        let error = Frames::default().write_response(&PROTOCOL, &mut slow, response).await.unwrap_err();
        let expected = Duration::from_millis(time);
        assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, expected), "{length} bytes");
    }
    let begun = Instant::now();
    let mut slow = Slow::new(1 << 20, TRICKLE, RESPONSE_BYTES_MAX);
    let error = Frames::default().read_response(&PROTOCOL, &mut slow).await.unwrap_err();
    assert_eq!((error.kind(), begun.elapsed()), (io::ErrorKind::TimedOut, Duration::from_secs(178)));
    let mut fast = Slow::new(usize::MAX, TRICKLE, 2 << 20);
    assert_eq!(Frames::default().read_response(&PROTOCOL, &mut fast).await.unwrap().bytes.len(), 2 << 20);
}

/// An answer is counted while it is sent, and is cancelled when the books give it up.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_given_up_ends_at_once() {
    let mut requests = Requests::<u64, u64>::new();
    assert!(requests.on_request(1, PeerId::random(), 9));
    let sending = requests.may_respond(1, 2 << 20, Moment::now()).unwrap();
    let sent = Arc::clone(&sending.sent);
    let response = Response { bytes: vec![0; 2 << 20], sending: Some(sending) };
    let mut slow = Slow::new(300_000, TRICKLE, 0);
    let (begun, mut frames) = (Instant::now(), Frames::default());
    let mut write = Box::pin(frames.write_response(&PROTOCOL, &mut slow, response));
    assert!((&mut write).now_or_never().is_none());
    assert_eq!(sent.load(Ordering::Relaxed), 300_000);
    requests.on_served(1);
    assert_eq!(write.await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

/// Sixteen peers open as many streams as they can and send all but the end of a request on each.
#[tokio::test(start_paused = true)]
async fn unfinished_requests_hold_a_bounded_number_of_bytes() {
    const CONNECTIONS: usize = 16;
    let frames = Frames::default();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = frames.clone();
        for _ in 0..STREAMS_MAX {
            let mut stream = connection.clone();
            let mut slow = Slow::new(60 << 10, TRICKLE, REQUEST_BYTES_MAX);
            let mut read = async move { stream.read_request(&PROTOCOL, &mut slow).await }.boxed();
            let refused = (&mut read).now_or_never();
            assert!(refused.is_none_or(|read| read.unwrap_err().kind() == io::ErrorKind::QuotaExceeded));
            streams.push(read);
        }
    }
    let held = frames.all.load(Ordering::Relaxed);
    assert!((UNFINISHED.all / 2..UNFINISHED.all + CONNECTIONS * UNFINISHED.floor).contains(&held), "{held} bytes");
    let mut whole = Slow::new(usize::MAX, TRICKLE, REQUEST_BYTES_MAX);
    let request = frames.clone().read_request(&PROTOCOL, &mut whole).await.unwrap();
    assert_eq!(request.bytes.len(), REQUEST_BYTES_MAX, "a request of another peer has room");
    assert_eq!(frames.all.load(Ordering::Relaxed), held + REQUEST_BYTES_MAX, "until it is in the books");
    drop((streams, request));
    assert_eq!(frames.all.load(Ordering::Relaxed), 0);
}
