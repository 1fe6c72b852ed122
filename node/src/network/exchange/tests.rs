#![allow(clippy::unwrap_used)]

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant as Moment;

use futures::FutureExt;
use futures::io::Cursor;
use libp2p::PeerId;
use libp2p::request_response::Codec;
use tokio::time::{Instant, Sleep, advance, sleep};

use super::*;
use crate::network::intake::GRACE;
use crate::network::requests::Requests;

static PROTOCOL: StreamProtocol = StreamProtocol::new("/test");

/// A peer that sends or takes some bytes at once, and then one byte at a time.
pub(in crate::network) struct Slow {
    at_once: usize,
    every: Duration,
    wait: Pin<Box<Sleep>>,
    moved: usize,
    /// The length that it announces first. All bytes after it are zeros.
    length: u32,
}

impl Slow {
    pub(in crate::network) fn new(at_once: usize, every: Duration, length: usize) -> Self {
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
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
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
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_move(cx, bytes.len()).map(Ok)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub(in crate::network) const TRICKLE: Duration = Duration::from_secs(19);

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
    // Length of the answer in bytes, and how long it may take in milliseconds.
    for (length, time) in [(1 << 10, 20_031), (2 << 20, 84_000), (4 << 20, 148_000)] {
        let begun = Instant::now();
        let response = Response::new(vec![0; length], None);
        let mut slow = Slow::new(256, TRICKLE, 0);
        let error =
            Frames::default().write_response(&PROTOCOL, &mut slow, response).await.unwrap_err();
        let expected = Duration::from_millis(time);
        assert_eq!(
            (error.kind(), begun.elapsed()),
            (io::ErrorKind::TimedOut, expected),
            "{length} bytes"
        );

        let begun = Instant::now();
        let mut slow = Slow::new(256, TRICKLE, length);
        let error = Frames::default().read_response(&PROTOCOL, &mut slow).await.unwrap_err();
        assert_eq!(
            (error.kind(), begun.elapsed()),
            (io::ErrorKind::TimedOut, expected),
            "{length} bytes received"
        );
    }
    let mut fast = Slow::new(usize::MAX, TRICKLE, 2 << 20);
    assert_eq!(
        Frames::default().read_response(&PROTOCOL, &mut fast).await.unwrap().bytes.len(),
        2 << 20
    );
}

/// [`Requests`] counts the sent bytes of an answer. When it gives the answer up, the sending ends.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_given_up_ends_at_once() {
    let mut requests = Requests::<u64, u64>::new();
    assert!(requests.on_request(1, PeerId::random(), 9));
    let sending = requests.may_respond(1, 2 << 20, Moment::now()).unwrap();
    let sent = Arc::clone(&sending.sent);
    let response = Response::new(vec![0; 2 << 20], Some(sending));
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
            assert!(
                refused.is_none_or(|read| read.unwrap_err().kind() == io::ErrorKind::QuotaExceeded)
            );
            streams.push(read);
        }
    }
    let held = frames.all.load(Ordering::Relaxed);
    assert!(
        (UNFINISHED.all / 2..UNFINISHED.all + CONNECTIONS * UNFINISHED.floor).contains(&held),
        "{held} bytes"
    );
    let mut whole = Slow::new(usize::MAX, TRICKLE, REQUEST_BYTES_MAX);
    let request = frames.clone().read_request(&PROTOCOL, &mut whole).await.unwrap();
    assert_eq!(request.bytes.len(), REQUEST_BYTES_MAX, "a request of another peer has room");
    assert_eq!(
        frames.all.load(Ordering::Relaxed),
        held + REQUEST_BYTES_MAX,
        "until it is in the books"
    );
    drop((streams, request));
    assert_eq!(frames.all.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_longer_than_its_request_allows_is_refused() {
    for most in [100, 128 << 10, RESPONSE_BYTES_MAX] {
        for (length, is_allowed) in [(most, true), (most + 1, false), (u32::MAX as usize, false)] {
            let mut stream = Frames::default().clone();
            let request = Request::new(vec![1], most);
            stream.write_request(&PROTOCOL, &mut Cursor::new(Vec::new()), request).await.unwrap();
            let mut whole = Slow::new(usize::MAX, TRICKLE, length);
            match stream.read_response(&PROTOCOL, &mut whole).await {
                Ok(response) => {
                    assert!(is_allowed && response.bytes.len() == length, "{length} of {most}")
                }
                Err(error) => {
                    assert!(
                        !is_allowed && error.kind() == io::ErrorKind::InvalidData,
                        "{length} of {most}: {error}"
                    );
                    let expected = format!(
                        "a frame of {length} bytes was announced, at most {most} are allowed"
                    );
                    assert_eq!(
                        RequestError::from(OutboundFailure::Io(error)),
                        RequestError::Other(expected)
                    );
                }
            }
        }
    }
}

/// A hundred peers send most of the largest answer on each of four streams, and then next to
/// nothing.
#[tokio::test(start_paused = true)]
async fn unfinished_answers_hold_a_bounded_number_of_bytes_and_let_others_in() {
    const CONNECTIONS: usize = 100;
    let frames = Frames::default();
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let connection = frames.clone();
        for _ in 0..4 {
            let mut stream = connection.clone();
            let mut slow = Slow::new(3 << 20, TRICKLE, RESPONSE_BYTES_MAX);
            let mut read = async move { stream.read_response(&PROTOCOL, &mut slow).await }.boxed();
            match (&mut read).now_or_never() {
                Some(refused) => {
                    assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::QuotaExceeded)
                }
                None => streams.push(read),
            }
        }
    }
    let Share { all, floor } = ANSWERS.share;
    let held = frames.answers.total();
    assert!((all / 2..=all + CONNECTIONS * floor).contains(&held), "{held} bytes");

    let honest = frames.clone();
    let answer = async |length: usize| {
        let mut whole = Slow::new(usize::MAX, TRICKLE, length);
        honest.clone().read_response(&PROTOCOL, &mut whole).await
    };
    assert_eq!(
        answer(floor).await.unwrap().bytes.len(),
        floor,
        "an answer of the usual size has room"
    );
    let refused = answer(RESPONSE_BYTES_MAX).await.unwrap_err();
    assert_eq!(
        RequestError::from(OutboundFailure::Io(refused)),
        RequestError::Busy,
        "nobody is known to be slow yet"
    );
    advance(GRACE).await;
    let large = answer(RESPONSE_BYTES_MAX).await.unwrap();
    assert_eq!(large.bytes.len(), RESPONSE_BYTES_MAX, "a slow one gives way");
    let mut ended: Vec<_> = streams.iter_mut().filter_map(FutureExt::now_or_never).collect();
    assert_eq!(ended.len(), 1);
    let gave_way = ended.remove(0).unwrap_err();
    assert_eq!(RequestError::from(OutboundFailure::Io(gave_way)), RequestError::Busy);
    assert!(frames.answers.total() <= held, "{} bytes", frames.answers.total());
    drop((streams, large));
    assert_eq!(frames.answers.total(), 0);
}
