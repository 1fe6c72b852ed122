//! The result of a call as JSON, within the bytes that it may have.

use std::io::{self, Write};

use serde::Serialize;

use super::error::RpcError;

/// A result as JSON.
pub(super) type Answer = Result<String, RpcError>;

/// A writer that fails beyond `room` bytes.
struct Limited {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room - self.bytes.len() {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A result as JSON. Fails as soon as it is larger than `room` bytes.
pub(super) fn reply<T: Serialize + ?Sized>(room: usize, result: &T) -> Answer {
    let mut limited = Limited { bytes: Vec::new(), room };
    match serde_json::to_writer(&mut limited, result) {
        Ok(()) => String::from_utf8(limited.bytes).map_err(RpcError::internal),
        Err(error) if error.is_io() => Err(RpcError::response_too_large(room)),
        Err(error) => Err(RpcError::internal(error)),
    }
}

/// Bytes that were written for an answer. An answer that did not fit counts as `room` bytes.
pub(super) fn bytes_written(answer: &Answer, room: usize) -> usize {
    match answer {
        Ok(answer) => answer.len(),
        Err(error) if error.is_too_large() => room,
        Err(_) => 0,
    }
}
