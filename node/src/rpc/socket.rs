//! A WebSocket connection (RFC 6455): calls as over HTTP, and blocks pushed to subscribers.
//!
//! One task serves a connection. It reads on while calls run, so that a ping or a close is
//! answered. It writes long answers in pieces, so that a pong fits between them. Beyond a few calls
//! in flight, calls wait in a short queue. A call is refused if the queue stays full, or if the
//! memory for the requests of all connections has no room for it. While a client does not read its
//! answers, its further calls are not read, and after some seconds the connection ends.

use std::collections::VecDeque;
use std::pin::pin;
use std::time::Duration;

use axum::body::Bytes;
use futures::stream::{FuturesUnordered, SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use ledger::api::{self, BlockSummary};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::error::RpcError;
use super::json_rpc::{answer, notification, turn_away};
use super::methods::Caller;
use super::places::Place;
use super::pool::{Held, Hold, Room};
use super::subscriptions::Subscriptions;
use super::{App, BODY_BYTES_MAX};

/// Most calls of a connection that are in flight, or whose answers still wait for the writer.
const CALLS_MAX: usize = 4;
/// Most calls in the queue, and the bytes of queued calls at which the queue counts as full.
const QUEUE_MAX: usize = 64;
const QUEUE_BYTES: usize = 1 << 20;
/// How long a full queue may stop the reading. After that, calls are read and refused, so that a
/// ping behind them is answered.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// While this many messages wait for the writer (answers, blocks and pings), nothing is read and no
/// block or ping is added. Answers of calls in flight, and one block for each subscription, may
/// still exceed the number.
const OUTGOING_MAX: usize = 16;
/// Time between two pings, and how long a client may be silent before its connection is closed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const SILENCE_MAX: Duration = Duration::from_secs(70);
/// Longest time for the closing handshake.
const CLOSE_MAX: Duration = Duration::from_secs(2);
/// Most bytes of a too large message that are read and discarded, so that its sender reads why the
/// connection is closed.
const DRAIN_BYTES_MAX: u64 = 64 << 20;
/// Read buffer of a connection. The default of 128 KiB is for streams of large messages.
const READ_BUFFER_BYTES: usize = 16 << 10;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

enum Outgoing {
    Text(Held),
    Ping,
}

/// Why a connection ends.
enum End {
    /// The client sent a close frame. The library answers it.
    Answered,
    /// We close, with this frame.
    Close(CloseFrame),
    /// The client broke the protocol, so its later bytes cannot be parsed. We send this frame.
    Broken(CloseFrame),
    /// The client is gone, or is dropped without a close frame.
    Gone,
}

/// Serves a connection until it closes, falls silent, is evicted or the server stops.
pub(super) async fn serve(upgraded: Upgraded, place: &Place, app: &App) {
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(0)
        .max_message_size(Some(BODY_BYTES_MAX))
        .max_frame_size(Some(BODY_BYTES_MAX));
    let socket =
        WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (sink, mut incoming) = socket.split();
    let (outgoing, messages) = mpsc::channel(1);
    let (close, closing) = oneshot::channel();
    let mut writer = pin!(write(sink, messages, closing));
    let end = tokio::select! {
        end = converse(&mut incoming, outgoing, place, app) => end,
        _sink = &mut writer => End::Gone,
    };
    let finish = async {
        match end {
            // Reading makes the library send its answer, and ends after that.
            End::Answered => while incoming.next().await.is_some() {},
            End::Close(frame) => {
                let _ = close.send(frame);
                let _sink = writer.await;
                while incoming.next().await.is_some() {}
            }
            End::Broken(frame) => {
                let _ = close.send(frame);
                let sink = writer.await;
                if let Ok(mut socket) = sink.reunite(incoming) {
                    let stream = socket.get_mut();
                    let _ = stream.shutdown().await;
                    let _ =
                        tokio::io::copy(&mut stream.take(DRAIN_BYTES_MAX), &mut tokio::io::sink())
                            .await;
                }
            }
            End::Gone => {}
        }
    };
    let _in_time = timeout(CLOSE_MAX, finish).await;
}

/// Reads calls, runs them and queues their answers, until the connection must end.
async fn converse(
    incoming: &mut SplitStream<Socket>,
    outgoing: mpsc::Sender<Outgoing>,
    place: &Place,
    app: &App,
) -> End {
    let mut stopping = app.stopping.clone();
    let mut blocks = app.view.blocks.subscribe();
    let subscriptions = Subscriptions::default();
    let run = |(bytes, holds): (Bytes, Vec<Hold>)| async {
        let _work = place.work();
        let answered =
            answer(&app.methods, &Caller::new(place, Some(&subscriptions)), &bytes).await;
        drop((bytes, holds));
        answered
    };
    let mut calls = FuturesUnordered::new();
    let (mut queue, mut queued_bytes) = (VecDeque::new(), 0);
    let mut ready = VecDeque::new();
    // `progress` is the time at which a call last finished. While the queue is full and no call has
    // finished for `PAUSE_MAX`, `refusing` is true: new calls are refused.
    let (mut progress, mut refusing) = (Instant::now(), false);
    let mut heard = Instant::now();
    let mut ping = interval_at(heard + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        while calls.len() + ready.len() < CALLS_MAX
            && let Some((bytes, holds)) = queue.pop_front()
        {
            queued_bytes -= Bytes::len(&bytes);
            calls.push(run((bytes, holds)));
        }
        let is_full = queue.len() >= QUEUE_MAX || queued_bytes >= QUEUE_BYTES;
        let is_reading = ready.len() < OUTGOING_MAX && (!is_full || refusing);
        tokio::select! {
            message = incoming.next(), if is_reading => {
                heard = Instant::now();
                let bytes = match call_of(message) {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => continue,
                    Err(end) => return end,
                };
                let mut room = Room::new(&app.requests, place);
                if !is_full && room.take(bytes.len()) {
                    queued_bytes += bytes.len();
                    queue.push_back((bytes, room.into_holds()));
                } else {
                    ready.extend(turn_away(&bytes, &RpcError::busy()).map(Outgoing::Text));
                }
            }
            () = sleep_until(progress + PAUSE_MAX), if is_full && !refusing => refusing = true,
            Some(answered) = calls.next() => {
                (progress, refusing) = (Instant::now(), false);
                ready.extend(answered.map(Outgoing::Text));
                place.subscribed(!subscriptions.is_empty());
            }
            permit = outgoing.reserve(), if !ready.is_empty() => match (permit, ready.pop_front()) {
                (Ok(permit), Some(message)) => permit.send(message),
                _ => return End::Gone,
            },
            block = blocks.recv(), if ready.len() < OUTGOING_MAX => match block {
                Ok(block) => ready.extend(pushes(&subscriptions.active(), &block)),
                Err(RecvError::Lagged(missed)) => {
                    ready.extend(farewells(&subscriptions.clear(), missed));
                    place.subscribed(false);
                }
                Err(RecvError::Closed) => return End::Close(stopped()),
            },
            _ = ping.tick(), if ready.len() < OUTGOING_MAX => {
                if heard.elapsed() > SILENCE_MAX {
                    return End::Gone;
                }
                ready.push_back(Outgoing::Ping);
            }
            () = place.cut() => return End::Gone,
            _ = stopping.wait_for(|stopping| *stopping) => return End::Close(stopped()),
        }
    }
}

/// The bytes of a call; `None` for a message that holds no call. The error ends the connection.
fn call_of(message: Option<Result<Message, Error>>) -> Result<Option<Bytes>, End> {
    match message {
        Some(Ok(Message::Text(text))) => Ok(Some(Bytes::from(text))),
        Some(Ok(Message::Binary(bytes))) => Ok(Some(bytes)),
        Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => Ok(None),
        Some(Ok(Message::Close(_))) => Err(End::Answered),
        Some(Err(error)) => Err(broken(&error)),
        None => Err(End::Gone),
    }
}

fn stopped() -> CloseFrame {
    CloseFrame { code: CloseCode::Away, reason: "the node is stopping".into() }
}

/// The close frame for a client that broke the protocol (codes: RFC 6455, section 7.4.1).
fn broken(error: &Error) -> End {
    let (code, reason) = match error {
        Error::Capacity(_) => (CloseCode::Size, "a message may have at most 1 MiB"),
        Error::Utf8(_) => (CloseCode::Invalid, "text must be UTF-8"),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return End::Gone,
        Error::Protocol(_) => (CloseCode::Protocol, "not WebSocket by RFC 6455"),
        _ => return End::Gone,
    };
    End::Broken(CloseFrame { code, reason: reason.into() })
}

/// Writes messages until it gets a close frame or a write fails. Returns the sink.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut messages: mpsc::Receiver<Outgoing>,
    mut closing: oneshot::Receiver<CloseFrame>,
) -> SplitSink<Socket, Message> {
    loop {
        let frame = tokio::select! {
            biased;
            frame = &mut closing => frame,
            Some(message) = messages.recv() => tokio::select! {
                biased;
                frame = &mut closing => frame,
                sent = send(&mut sink, message) => match sent {
                    Ok(()) => continue,
                    Err(_) => return sink,
                },
            },
        };
        if let Ok(frame) = frame {
            let _ = sink.send(Message::Close(Some(frame))).await;
        }
        return sink;
    }
}

/// Sends a message, in pieces if it is long. The TCP stream below ends with an error if the client
/// does not read.
async fn send(sink: &mut SplitSink<Socket, Message>, message: Outgoing) -> Result<(), Error> {
    let mut held = match message {
        Outgoing::Ping => return sink.send(Message::Ping(Bytes::new())).await,
        Outgoing::Text(held) => held,
    };
    let mut kind = Data::Text;
    while let Some(piece) = held.piece() {
        let frame = Frame::message(piece, OpCode::Data(kind), held.is_done());
        sink.send(Message::Frame(frame)).await?;
        kind = Data::Continue;
    }
    Ok(())
}

/// One message with the block for each subscription.
fn pushes(subscriptions: &[u32], block: &BlockSummary) -> Vec<Outgoing> {
    each(subscriptions, "result", &json!(block))
}

/// One error for each subscription that missed blocks. Memory stays bounded, and a gap is never
/// silent.
fn farewells(subscriptions: &[u32], missed: u64) -> Vec<Outgoing> {
    each(subscriptions, "error", &json!(RpcError::lagged(missed)))
}

fn each(subscriptions: &[u32], field: &str, content: &serde_json::Value) -> Vec<Outgoing> {
    let text = |number: &u32| notification(api::CHAIN_SUBSCRIBE, *number, field, content);
    subscriptions.iter().map(|number| Outgoing::Text(Held::small(text(number)))).collect()
}
