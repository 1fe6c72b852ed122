//! Serves the socket.
//!
//! A connection that sends half a line or does not read its answers is closed after some seconds,
//! and an idle one after some minutes. So the most that a hostile client takes is one of the
//! connections, and the memory for one request and one answer.

use std::io;
use std::panic;
use std::sync::Arc;
use std::time::Duration;

use rustix::fd::{AsFd, OwnedFd};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::client::read_line;
use super::passing::{Reader, write_line};
use super::{ANSWER_BYTES_MAX, Failure, Listener, Methods, REQUEST_BYTES_MAX, code};
use crate::files::own_uid;

/// Most connections at a time. One more is told so and closed.
pub(super) const CONNECTIONS_MAX: usize = 16;

/// How long a request may take to arrive once its first byte is here, and an answer to be read.
const LINE_TIME: Duration = Duration::from_secs(10);

/// How long a connection may stay without a request.
const IDLE_TIME: Duration = Duration::from_secs(300);

/// How long calls may go on once the server was told to end, so that the answer to the call that
/// ends the process arrives.
const END_TIME: Duration = Duration::from_millis(300);

/// How often a call checks whether its client is still there.
const CLIENT_INTERVAL: Duration = Duration::from_millis(500);

/// How long the server accepts no connection after accepting one has failed. The usual reason is
/// that the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop` resolves, and then for a moment until the calls under way are answered. Then
/// the socket is removed.
pub(crate) async fn serve(
    listener: Listener,
    methods: Arc<dyn Methods>,
    stop: impl Future<Output = ()>,
) {
    tracing::debug!(socket = %listener.socket().display(), "the operator's socket is open");
    let (stopping, is_stopping) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop => break,
            Some(ended) = connections.join_next() => pass_on_panic(ended),
            accepted = listener.listener.accept() => match accepted {
                Ok((stream, _)) if !is_allowed(&stream) => {}
                Ok((stream, _)) if connections.len() >= CONNECTIONS_MAX => turn_away(stream),
                Ok((stream, _)) => {
                    connections.spawn(talk(stream, Arc::clone(&methods), is_stopping.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "the operator's socket accepts no connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    let _none_left = stopping.send(true);
    let rest = async {
        while let Some(ended) = connections.join_next().await {
            pass_on_panic(ended);
        }
    };
    // Connections that still wait after that are dropped.
    let _out_of_time = timeout(END_TIME, rest).await;
}

fn pass_on_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && let Ok(reason) = error.try_into_panic()
    {
        panic::resume_unwind(reason);
    }
}

/// Whether the user at the other end may use this process.
fn is_allowed(stream: &UnixStream) -> bool {
    let allowed = |uid| uid == 0 || uid == own_uid();
    match stream.peer_cred() {
        Ok(peer) if allowed(peer.uid()) => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "the operator's socket refused another user");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "the operator's socket does not know who connects");
            false
        }
    }
}

/// Tells a client that all connections are in use. The answer fits into the buffer of a new
/// connection.
fn turn_away(stream: UnixStream) {
    let message = format!("all {CONNECTIONS_MAX} connections are in use: try again later");
    let answer = response(&Value::Null, Err(Failure::new(code::BUSY, message)));
    // The stream stays non-blocking, so this write never waits. A write through the runtime would
    // first wait for the runtime to learn that the stream is writable.
    if let Ok(mut stream) = stream.into_std() {
        let _unread = io::Write::write(&mut stream, answer.as_bytes());
    }
}

/// Answers the requests of one connection in order.
async fn talk(
    stream: UnixStream,
    methods: Arc<dyn Methods>,
    mut is_stopping: watch::Receiver<bool>,
) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(Reader::new(reader));
    let mut line = Vec::new();
    loop {
        let first = tokio::select! {
            biased;
            first = timeout(IDLE_TIME, reader.fill_buf()) => first,
            _ = is_stopping.wait_for(|stopping| *stopping) => return,
        };
        if !matches!(first, Ok(Ok(bytes)) if !bytes.is_empty()) {
            return;
        }
        line.clear();
        let read = timeout(LINE_TIME, read_line(&mut reader, &mut line, REQUEST_BYTES_MAX)).await;
        let answer = match read {
            Ok(Ok(true)) if line.iter().all(u8::is_ascii_whitespace) => continue,
            Ok(Ok(true)) => {
                let file = reader.get_mut().take_file();
                tokio::select! {
                    answer = respond(&*methods, &line, file) => answer,
                    () = client_gone(&writer) => return,
                }
            }
            Ok(Ok(false)) => {
                let message = format!("a request of more than {REQUEST_BYTES_MAX} bytes");
                let refusal = Failure::new(code::INVALID_REQUEST, message);
                let _last = write(&mut writer, &response(&Value::Null, Err(refusal)), None).await;
                return;
            }
            Ok(Err(_)) | Err(_) => return,
        };
        if let Some((answer, file)) = answer
            && write(&mut writer, &answer, file).await.is_err()
        {
            return;
        }
        // A large request's buffer does not stay for as long as the connection does.
        line.shrink_to(REQUEST_BYTES_MAX / 64);
    }
}

async fn write(writer: &mut OwnedWriteHalf, answer: &str, file: Option<OwnedFd>) -> io::Result<()> {
    let file = file.as_ref().map(AsFd::as_fd);
    timeout(LINE_TIME, write_line(writer, answer.as_bytes(), file)).await?
}

/// Resolves when the client has closed the connection. A client that has closed only its sending
/// half still waits for answers.
async fn client_gone(writer: &OwnedWriteHalf) {
    loop {
        sleep(CLIENT_INTERVAL).await;
        match writer.ready(Interest::WRITABLE).await {
            Ok(ready) if !ready.is_write_closed() => {}
            _ => return,
        }
    }
}

/// A request as it arrives.
#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    jsonrpc: Value,
    /// Missing in a notification, which is not answered.
    #[serde(default, deserialize_with = "present")]
    id: Option<Value>,
    #[serde(default)]
    method: Value,
    #[serde(default)]
    params: Value,
}

/// Distinguishes an id of `null`, which is present, from a missing one.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// Calls the method of a request, and returns the line of its answer and the file that goes with
/// it. `None` for a notification.
async fn respond(
    methods: &dyn Methods,
    line: &[u8],
    file: Option<OwnedFd>,
) -> Option<(String, Option<OwnedFd>)> {
    let (id, call) = read(line);
    let (result, file) = match call {
        Ok((method, params)) => match methods.call_with_file(&method, params, file).await {
            Ok((value, file)) => (Ok(value), file),
            Err(failure) => (Err(failure), None),
        },
        Err(failure) => (Err(failure), None),
    };
    id.map(|id| (response(&id, result), file))
}

/// The id of a request, and its method and parameters. An invalid request is answered too: with its
/// own id, or with `null` if it has no valid one.
fn read(line: &[u8]) -> (Option<Value>, Result<(String, Value), Failure>) {
    let invalid = |reason: &str| Failure::new(code::INVALID_REQUEST, reason);
    let value: Value = match serde_json::from_slice(line) {
        Ok(value) => value,
        Err(error) => {
            let failure = Failure::new(code::PARSE, format!("the request is not JSON: {error}"));
            return (Some(Value::Null), Err(failure));
        }
    };
    let request: Request = match value {
        Value::Object(_) => match serde_json::from_value(value) {
            Ok(request) => request,
            Err(error) => return (Some(Value::Null), Err(invalid(&error.to_string()))),
        },
        _ => return (Some(Value::Null), Err(invalid("a request is a JSON object"))),
    };
    let Request { jsonrpc, id, method, params } = request;
    if id.as_ref().is_some_and(|id| !(id.is_null() || id.is_number() || id.is_string())) {
        return (Some(Value::Null), Err(invalid("id must be a number, a text or null")));
    }
    let call = match (method, params) {
        _ if jsonrpc != "2.0" => Err(invalid("jsonrpc must be \"2.0\"")),
        (Value::String(method), Value::Null) => Ok((method, json!({}))),
        (Value::String(method), params @ (Value::Object(_) | Value::Array(_))) => {
            Ok((method, params))
        }
        (Value::String(_), _) => Err(invalid("params must be an object or an array")),
        _ => Err(invalid("method must be a text")),
    };
    // An invalid request without an id is not taken for a notification.
    let id = if call.is_err() { Some(id.unwrap_or_default()) } else { id };
    (id, call)
}

/// The line of an answer.
fn response(id: &Value, result: Result<Value, Failure>) -> String {
    let line = match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string(),
        Err(failure) => json!({"jsonrpc": "2.0", "id": id, "error": failure}).to_string(),
    };
    if line.len() <= ANSWER_BYTES_MAX {
        return line + "\n";
    }
    let message =
        format!("the answer has {} bytes, at most {ANSWER_BYTES_MAX} are sent", line.len());
    let id = if id.to_string().len() < 1_000 { id } else { &Value::Null };
    let failure = Failure::new(code::INTERNAL, message);
    json!({"jsonrpc": "2.0", "id": id, "error": failure}).to_string() + "\n"
}
