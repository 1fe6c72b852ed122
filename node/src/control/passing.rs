//! Open files that travel over the socket: at most one with a request, and one with its answer.
//!
//! A file goes with the first byte of its line (`SCM_RIGHTS`, `unix(7)`). The receiver gets a
//! descriptor of its own and follows no path, so the sender's rights alone decide what is read.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::cmsg_space;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncRead, AsyncWriteExt, Interest, ReadBuf};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// A received file is not for programs that this process starts. Where the system cannot say so
/// with the receipt, there is no flag.
#[cfg(any(target_os = "linux", target_os = "android"))]
const FLAGS: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const FLAGS: RecvFlags = RecvFlags::empty();

/// Reads the bytes of a connection, and keeps the file that came with them.
pub(super) struct Reader {
    half: OwnedReadHalf,
    /// The file that came last, until it is taken. One that came before it is closed.
    file: Option<OwnedFd>,
}

impl Reader {
    pub(super) const fn new(half: OwnedReadHalf) -> Self {
        Self { half, file: None }
    }

    /// The file that came with the line just read. The sender of a line waits for its answer before
    /// it sends the next one, so the file belongs to no other line.
    pub(super) const fn take_file(&mut self) -> Option<OwnedFd> {
        self.file.take()
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let stream = self.half.as_ref();
            ready!(stream.poll_read_ready(context))?;
            let free = buffer.initialize_unfilled();
            match stream.try_io(Interest::READABLE, || receive(stream, free)) {
                Ok((count, file)) => {
                    self.file = file.or_else(|| self.file.take());
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Receives bytes, and at most one file. Further ones are closed, here or by the system.
fn receive(stream: impl AsFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(stream, &mut [IoSliceMut::new(bytes)], &mut control, FLAGS)?;
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok((received.bytes, files.flatten().reduce(|first, _closed| first)))
}

/// Writes a line, and the file that goes with it.
pub(super) async fn write_line(
    writer: &mut OwnedWriteHalf,
    line: &[u8],
    file: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let Some(file) = file else { return writer.write_all(line).await };
    let stream = writer.as_ref();
    let sent = stream.async_io(Interest::WRITABLE, || send(stream, line, file)).await?;
    writer.write_all(&line[sent..]).await
}

fn send(stream: impl AsFd, bytes: &[u8], file: BorrowedFd<'_>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = [file];
    control.push(SendAncillaryMessage::ScmRights(&files));
    // Without the flag a peer that has gone away would end a program that does not ignore SIGPIPE.
    Ok(sendmsg(stream, &[IoSlice::new(bytes)], &mut control, SendFlags::NOSIGNAL)?)
}
