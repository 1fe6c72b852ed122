//! Frames on a stream: a length as little-endian `u32`, then that many bytes.

use std::io;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep_until, timeout};

use super::socket::Taken;

/// Bytes allocated for a frame at first. The buffer then doubles as it fills.
const FIRST_BYTES: usize = 4 << 10;

/// Most bytes handed to a stream at a time.
const STEP_BYTES: usize = 64 << 10;

/// Most bytes handed to a stream at a time if the frame is paced by a rate or by the count of bytes
/// that the system has taken in. One frame of the multiplexer has this size.
const PACED_BYTES: usize = 16 << 10;

/// How many bytes may have been handed to the stream beyond those that the operating system has
/// taken in. With this many at hand the system never waits for us.
const AHEAD_BYTES: u64 = 32 << 10;

/// Reads one frame of at most `bytes_max` bytes. Before the buffer grows, `has_room` is called with
/// its new length. Memory grows with the bytes that arrive, never with the announced length.
///
/// # Errors
/// As [`read_length`] and [`read_part`], and `QuotaExceeded` if there is no room.
pub(crate) async fn read_frame_within<T>(
    io: &mut T,
    bytes_max: usize,
    mut has_room: impl FnMut(usize) -> bool + Send,
) -> io::Result<Vec<u8>>
where
    T: AsyncRead + Unpin + Send,
{
    let announced = read_length(io, bytes_max, None, None).await?;
    let mut frame = Vec::new();
    while frame.len() < announced {
        let length = next_length(frame.len(), announced);
        if !has_room(length) {
            return Err(io::Error::new(
                io::ErrorKind::QuotaExceeded,
                "no room for the whole frame",
            ));
        }
        read_part(io, &mut frame, length, None).await?;
    }
    Ok(frame)
}

/// Reads the length of a frame. At most `begins` may pass until its first byte, and then at most
/// `stall` until the length is complete. `None` is unlimited.
///
/// # Errors
/// `ConnectionRefused` if the stream ends before the first byte, `UnexpectedEof` if it ends later,
/// `InvalidData` if the announced length is too large, `TimedOut` if nothing arrives in time.
pub(crate) async fn read_length<T>(
    io: &mut T,
    bytes_max: usize,
    begins: Option<Duration>,
    stall: Option<Duration>,
) -> io::Result<usize>
where
    T: AsyncRead + Unpin + Send,
{
    let mut prefix = [0u8; 4];
    let first = within(begins, io.read(&mut prefix)).await?;
    if first == 0 {
        return Err(io::Error::new(
            io::ErrorKind::ConnectionRefused,
            "the stream ended where a frame could begin",
        ));
    }
    within(stall, io.read_exact(&mut prefix[first..])).await?;
    let announced = usize::try_from(u32::from_le_bytes(prefix)).unwrap_or(usize::MAX);
    if announced > bytes_max {
        let reason =
            format!("a frame of {announced} bytes was announced, at most {bytes_max} are allowed");
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(announced)
}

/// The length to which the buffer of a frame grows next. The buffer doubles, so it never has more
/// than [`FIRST_BYTES`] or twice the bytes that have arrived.
pub(crate) fn next_length(filled: usize, announced: usize) -> usize {
    announced.min(FIRST_BYTES.max(filled.saturating_mul(2)))
}

/// Reads until the frame has `length` bytes. At most `stall` may pass without a byte; `None` is
/// unlimited.
///
/// # Errors
/// `UnexpectedEof` if the stream ends, `TimedOut` if nothing arrives in time.
pub(crate) async fn read_part<T>(
    io: &mut T,
    frame: &mut Vec<u8>,
    length: usize,
    stall: Option<Duration>,
) -> io::Result<()>
where
    T: AsyncRead + Unpin + Send,
{
    let mut filled = frame.len();
    frame.reserve_exact(length.saturating_sub(filled));
    frame.resize(length, 0);
    while filled < length {
        match within(stall, io.read(&mut frame[filled..])).await? {
            0 => {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the frame was cut short",
                ));
            }
            read => filled += read,
        }
    }
    Ok(())
}

/// A stream that counts the bytes read from it or written to it.
pub(crate) struct Counted<'a, T> {
    pub(crate) io: &'a mut T,
    pub(crate) moved: Arc<AtomicUsize>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<'_, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = ready!(Pin::new(&mut *self.io).poll_read(cx, bytes))?;
        self.moved.fetch_add(read, Ordering::Relaxed);
        Poll::Ready(Ok(read))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<'_, T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.io).poll_write(cx, bytes))?;
        self.moved.fetch_add(written, Ordering::Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.io).poll_close(cx)
    }
}

/// How fast frames are written.
#[derive(Default)]
pub(crate) struct Pace {
    /// Bytes a second; `None` is unlimited.
    pub(crate) rate: Option<NonZeroU64>,
    /// How many bytes of the connection the operating system has taken in so far. `None` if it is
    /// unknown or does not matter.
    pub(crate) taken: Option<Taken>,
    /// The least value of `taken` at which all frames written so far have left.
    pub(crate) end: u64,
}

/// Writes one frame.
///
/// The peer may take nothing for at most `stall`; `None` is unlimited. With a `rate` or a `taken`
/// count, at most 16 KiB are written at a time, so that frames of other streams wait behind few
/// bytes of this one. With a `taken` count, the writer is never ahead of it by more than
/// [`AHEAD_BYTES`] and one step. So when this returns, nearly all of the frame has left.
///
/// # Errors
/// `TimedOut` if the peer takes nothing for too long, or the error of the stream.
pub(crate) async fn write_frame<T>(
    io: &mut T,
    frame: &[u8],
    stall: Option<Duration>,
    pace: &mut Pace,
) -> io::Result<()>
where
    T: AsyncWrite + Unpin + Send,
{
    let (begun, mut sent) = (Instant::now(), 0);
    let Pace { rate, taken, end } = pace;
    // The system takes in the rest of the previous frame first.
    let before = taken.as_ref().map_or(0, |taken| *taken.borrow()).max(*end);
    let most = if rate.is_some() || taken.is_some() { PACED_BYTES } else { STEP_BYTES };
    let length =
        u32::try_from(frame.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // Each write becomes at least one encrypted frame of the multiplexer, so the length is written
    // together with the first bytes.
    let prefix = length.to_le_bytes();
    let total = prefix.len() + frame.len();
    // All steps have about the same size. A small last step would cost one more frame of the
    // multiplexer.
    let step_bytes = total.div_ceil(total.div_ceil(most));
    let (first, rest) = frame.split_at(step_bytes - prefix.len());
    let head = [&prefix, first].concat();
    for mut step in std::iter::once(head.as_slice()).chain(rest.chunks(step_bytes)) {
        if let Some(rate) = *rate {
            sleep_until(begun + Duration::from_micros(sent * 1_000_000 / rate)).await;
        }
        sent += step.len() as u64;
        while !step.is_empty() {
            match within(stall, io.write(step)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => step = &step[written..],
            }
        }
        if let Some(taken) = taken.as_mut() {
            // An error means that the connection has ended, which the stream reports.
            let _ = taken.wait_for(|taken| before + sent <= *taken + AHEAD_BYTES).await;
        }
    }
    *end = before + sent;
    within(stall, io.flush()).await
}

async fn within<T>(
    limit: Option<Duration>,
    step: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match limit {
        Some(limit) => timeout(limit, step).await?,
        None => step.await,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::io::Cursor;
    use tokio::sync::watch;

    use super::*;

    async fn read(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, io::ErrorKind> {
        read_frame_within(&mut Cursor::new(bytes), bytes_max, |_| true)
            .await
            .map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn little_of_a_frame_is_ahead_of_what_the_system_has_taken() {
        let frame = vec![7; 200 << 10];
        let (taken, reader) = watch::channel(5_000);
        let mut pace = Pace { taken: Some(reader), ..Pace::default() };
        let mut bytes = Vec::new();
        for round in 0..40 {
            // Tokio lets a task do only so much before it yields, so this one yields every round.
            tokio::task::yield_now().await;
            let most = (round * 10_000 + AHEAD_BYTES) as usize + PACED_BYTES;
            let mut io = Cursor::new(&mut bytes);
            // Each round writes the frame again, after the system has taken in more.
            pace.end = 0;
            let done = {
                let mut write = std::pin::pin!(write_frame(&mut io, &frame, None, &mut pace));
                let first = futures::poll!(&mut write).is_ready();
                taken.send_modify(|taken| *taken += round * 10_000);
                first || futures::poll!(&mut write).is_ready()
            };
            let written = io.position() as usize;
            assert!(
                written <= most && written + PACED_BYTES >= most.min(frame.len()),
                "{round}: {written} of {most}"
            );
            assert_eq!(
                done,
                written == frame.len() + 4 && round * 10_000 + AHEAD_BYTES >= written as u64,
                "{round}"
            );
        }
        // The part of the first frame that the system has not taken in holds up the second frame.
        pace.end = 0;
        taken.send_modify(|taken| *taken += AHEAD_BYTES);
        let mut io = Cursor::new(&mut bytes);
        let short = vec![7; AHEAD_BYTES as usize - 4];
        write_frame(&mut io, &short, None, &mut pace).await.unwrap();
        let second = futures::poll!(std::pin::pin!(write_frame(&mut io, &short, None, &mut pace)));
        assert!(second.is_pending() && io.position() < 2 * AHEAD_BYTES, "{}", io.position());

        drop(taken);
        let mut io = Cursor::new(&mut bytes);
        write_frame(&mut io, &frame, None, &mut pace).await.unwrap();
        assert_eq!(
            io.position() as usize,
            frame.len() + 4,
            "a connection that is gone holds up nothing"
        );
    }

    #[tokio::test]
    async fn frames_are_bounded() {
        use io::ErrorKind::{ConnectionRefused, InvalidData, UnexpectedEof};
        let cases = [
            (vec![0, 0, 0, 0], Ok(vec![])),
            (vec![3, 0, 0, 0, 7, 8, 9], Ok(vec![7, 8, 9])),
            (vec![4, 0, 0, 0, 7, 8, 9, 10], Ok(vec![7, 8, 9, 10])),
            (vec![5, 0, 0, 0, 7, 8, 9, 10, 11], Err(InvalidData)),
            (vec![255, 255, 255, 255], Err(InvalidData)),
            (vec![], Err(ConnectionRefused)),
            (vec![4, 0], Err(UnexpectedEof)),
            (vec![4, 0, 0, 0, 7, 8, 9], Err(UnexpectedEof)),
        ];
        for (bytes, expected) in cases {
            assert_eq!(read(&bytes, 4).await, expected, "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        for length in
            [0, 1, STEP_BYTES - 5, STEP_BYTES - 4, STEP_BYTES - 3, STEP_BYTES, 5 * STEP_BYTES + 3]
        {
            let frame: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut bytes = Vec::new();
            write_frame(&mut bytes, &frame, None, &mut Pace::default()).await.unwrap();
            assert_eq!(bytes.len(), length + 4);
            assert_eq!(read(&bytes, 4 << 20).await, Ok(frame));
        }
    }

    /// With a rate the steps are small, and the writer waits between them. Without one it writes as
    /// fast as the other side takes the bytes.
    #[tokio::test(start_paused = true)]
    async fn a_rate_spreads_a_frame_over_time() {
        struct Link(tokio::time::Instant, Vec<(usize, Duration)>);
        impl AsyncWrite for Link {
            fn poll_write(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let at = self.0.elapsed();
                self.1.push((bytes.len(), at));
                Poll::Ready(Ok(bytes.len()))
            }
            fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
            fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                Poll::Ready(Ok(()))
            }
        }
        let frame = vec![7; 128 << 10];
        for (rate, seconds) in [(1 << 20, 0.111), (16 << 10, 7.111), (0, 0.0)] {
            let mut link = Link(tokio::time::Instant::now(), Vec::new());
            write_frame(
                &mut link,
                &frame,
                None,
                &mut Pace { rate: NonZeroU64::new(rate), ..Pace::default() },
            )
            .await
            .unwrap();
            let mut before = 0;
            for (bytes, at) in &link.1 {
                assert!(
                    *bytes <= if rate > 0 { PACED_BYTES } else { STEP_BYTES },
                    "{bytes} at a time"
                );
                assert!(
                    before as f64 <= rate as f64 * at.as_secs_f64() + 1.0 || rate == 0,
                    "{before} bytes before {at:?}"
                );
                before += bytes;
            }
            let (_, last) = link.1[link.1.len() - 1];
            assert_eq!(before, frame.len() + 4);
            assert!((last.as_secs_f64() - seconds).abs() < 0.01, "{last:?}, expected {seconds} s");
        }
    }

    /// A peer that announces 4 MiB and sends nothing costs one small buffer, and only until the
    /// timeout.
    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_times_out() {
        struct Silent<'a>(&'a [u8]);
        impl AsyncRead for Silent<'_> {
            fn poll_read(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
                buffer: &mut [u8],
            ) -> Poll<io::Result<usize>> {
                let count = self.0.len().min(buffer.len());
                if count == 0 {
                    return Poll::Pending;
                }
                assert!(buffer.len() <= FIRST_BYTES, "memory was taken for bytes that never came");
                buffer[..count].copy_from_slice(&self.0[..count]);
                self.0 = &self.0[count..];
                Poll::Ready(Ok(count))
            }
        }
        let announced = [0, 0, 64, 0, 1, 2, 3];
        let (begins, stall) = (Duration::from_secs(30), Duration::from_secs(20));
        for (sent, waits) in [(0, begins), (2, stall), (4, stall), (7, stall)] {
            let start = tokio::time::Instant::now();
            let mut silent = Silent(&announced[..sent]);
            let read = async {
                let announced =
                    read_length(&mut silent, 4 << 20, Some(begins), Some(stall)).await?;
                read_part(&mut silent, &mut Vec::new(), next_length(0, announced), Some(stall))
                    .await
            };
            let error = read.await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "after {sent} bytes");
            assert_eq!(start.elapsed(), waits, "after {sent} bytes");
        }
    }
}
