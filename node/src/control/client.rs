//! A connection to a running node or network.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fd::{BorrowedFd, OwnedFd};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use super::passing::{Reader, write_line};
use super::place::{failed_at, socket_of};
use super::{ANSWER_BYTES_MAX, ControlError, Failure};

/// A connection to the process that runs in a home or in a network's directory.
///
/// A call has no time limit: the caller sets one. A client whose call was given up must be dropped,
/// since the answer may still come.
pub(crate) struct Client {
    socket: PathBuf,
    reader: BufReader<Reader>,
    writer: OwnedWriteHalf,
    calls: u64,
}

/// An answer. A result of `null` and a missing one are the same here.
#[derive(Deserialize)]
struct Envelope {
    id: Value,
    #[serde(default)]
    result: Value,
    #[serde(default)]
    error: Option<Failure>,
}

impl Client {
    /// Connects to the process that runs in the home or network's directory `root`.
    ///
    /// # Errors
    /// [`ControlError::Absent`] if no process runs there; `Io` and `Unsafe` if the socket cannot be
    /// reached or trusted.
    pub(crate) async fn connect(root: &Path) -> Result<Self, ControlError> {
        let socket = socket_of(root)?;
        let stream = match UnixStream::connect(&socket).await {
            // A killed process has left its socket.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
                ) =>
            {
                return Err(ControlError::Absent { root: root.to_owned() });
            }
            stream => stream.map_err(failed_at(&socket))?,
        };
        let (reader, writer) = stream.into_split();
        let reader = BufReader::new(Reader::new(reader));
        Ok(Self { socket, reader, writer, calls: 0 })
    }

    /// Calls a method, and waits for the answer.
    ///
    /// # Errors
    /// `Io` if the connection breaks, `Malformed` for an answer that cannot be read, `Refused` if
    /// the process answers with an error.
    pub(crate) async fn call<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: Value,
    ) -> Result<T, ControlError> {
        let (result, _file) = self.call_with_file(method, params, None).await?;
        Ok(result)
    }

    /// As [`call`](Self::call), with an open file for the process. Returns the file that came with
    /// the answer too.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub(crate) async fn call_with_file<T: DeserializeOwned>(
        &mut self,
        method: &str,
        params: Value,
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(T, Option<OwnedFd>), ControlError> {
        self.calls += 1;
        let request =
            json!({"jsonrpc": "2.0", "id": self.calls, "method": method, "params": params});
        // A server whose connections are all in use answers before it reads, and closes. So a
        // request that cannot be sent may still have an answer.
        let sent = write_line(&mut self.writer, format!("{request}\n").as_bytes(), file).await;
        let line = self.read_answer().await?;
        if line.is_empty() {
            sent.map_err(failed_at(&self.socket))?;
            let error =
                io::Error::new(io::ErrorKind::UnexpectedEof, "it has ended without an answer");
            return Err(failed_at(&self.socket)(error));
        }
        let envelope: Envelope =
            serde_json::from_slice(&line).map_err(|error| self.malformed(error))?;
        if let Some(failure) = envelope.error {
            return Err(ControlError::Refused(failure));
        }
        if envelope.id != json!(self.calls) {
            return Err(self.malformed("the answer belongs to another call"));
        }
        let result =
            serde_json::from_value(envelope.result).map_err(|error| self.malformed(error))?;
        Ok((result, self.reader.get_mut().take_file()))
    }

    /// Waits until the process closes the connection, which it does when it ends.
    pub(crate) async fn closed(mut self) {
        while self.read_answer().await.is_ok_and(|line| !line.is_empty()) {}
    }

    async fn read_answer(&mut self) -> Result<Vec<u8>, ControlError> {
        let mut line = Vec::new();
        match read_line(&mut self.reader, &mut line, ANSWER_BYTES_MAX).await {
            Ok(true) => Ok(line),
            Ok(false) => {
                Err(self.malformed(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")))
            }
            // The process was killed while our request was unread.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Vec::new()),
            Err(error) => Err(failed_at(&self.socket)(error)),
        }
    }

    fn malformed(&self, reason: impl ToString) -> ControlError {
        ControlError::Malformed { path: self.socket.clone(), reason: reason.to_string() }
    }
}

/// Reads the rest of a line into `line`, without its line feed. If the stream ends before a line
/// feed, `line` is empty. Returns whether the line has at most `bytes_max` bytes; a longer one is
/// not read to its end.
pub(super) async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    line: &mut Vec<u8>,
    bytes_max: usize,
) -> io::Result<bool> {
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            line.clear();
            return Ok(true);
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if line.len() + part.len() > bytes_max {
            return Ok(false);
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(true);
        }
    }
}
