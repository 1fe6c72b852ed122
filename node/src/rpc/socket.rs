//! A WebSocket connection: calls as over HTTP, and blocks pushed to subscribers.
//!
//! One task per connection does it all: it reads a call only while few are under way, and nothing while an answer is being
//! written. A client that does not read is not read from, so it cannot make answers pile up here.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ledger::api::{self, BlockSummary};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::error::RpcError;
use super::json_rpc::{answer, notification};
use super::methods::{Caller, Methods};
use super::subscriptions::Subscriptions;
use crate::view::View;

/// Most calls of a connection under way at once; further ones wait unread.
const CALLS_MAX: usize = 4;
/// How often a silent client is asked for a sign of life.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// How long a client may be silent. Above the longest wait, during which it may not be read from.
const SILENCE_MAX: Duration = Duration::from_secs(70);
/// How long one message may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(30);

/// Serves a connection until it closes, falls silent or the server stops.
pub(super) async fn serve(
    mut socket: WebSocket,
    view: View,
    methods: Arc<Methods>,
    mut stopping: watch::Receiver<bool>,
) {
    let subscriptions = Subscriptions::default();
    let mut blocks = view.blocks.subscribe();
    // The sender lives in the view: a closed channel is told by the stop signal.
    drop(view);
    let mut calls = FuturesUnordered::new();
    let mut heard = Instant::now();
    let mut ping = interval(PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let outgoing = tokio::select! {
            incoming = socket.recv(), if calls.len() < CALLS_MAX => {
                heard = Instant::now();
                let call = match incoming {
                    Some(Ok(Message::Text(text))) => axum::body::Bytes::from(text),
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                let (methods, subscriptions) = (&methods, &subscriptions);
                calls.push(async move { answer(methods, &Caller::new(Some(subscriptions)), &call).await });
                continue;
            }
            Some(text) = calls.next() => text.map(Message::text).into_iter().collect(),
            block = blocks.recv() => match block {
                Ok(block) => pushes(&subscriptions.active(), &block),
                Err(RecvError::Lagged(missed)) => farewells(&subscriptions.clear(), missed),
                Err(RecvError::Closed) => return,
            },
            _ = ping.tick() => {
                if heard.elapsed() > SILENCE_MAX {
                    return;
                }
                vec![Message::Ping(axum::body::Bytes::new())]
            }
            () = stopped(&mut stopping) => {
                let reason = CloseFrame { code: close_code::AWAY, reason: "the node is stopping".into() };
                let _ = timeout(WRITE_MAX, socket.send(Message::Close(Some(reason)))).await;
                return;
            }
        };
        for message in outgoing {
            if !matches!(timeout(WRITE_MAX, socket.send(message)).await, Ok(Ok(()))) {
                return;
            }
        }
    }
}

/// Ready once the server stops.
async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error means that the server is gone, which is as good.
    let _ = stopping.wait_for(|stopping| *stopping).await;
}

/// A block for each subscription.
fn pushes(subscriptions: &[u32], block: &BlockSummary) -> Vec<Message> {
    each(subscriptions, "result", &json!(block))
}

/// Told to each subscription that missed blocks: memory stays bounded, and a gap is never silent.
fn farewells(subscriptions: &[u32], missed: u64) -> Vec<Message> {
    each(subscriptions, "error", &json!(RpcError::lagged(missed)))
}

fn each(subscriptions: &[u32], field: &str, content: &serde_json::Value) -> Vec<Message> {
    let message = |number: &u32| Message::text(notification(api::CHAIN_SUBSCRIBE, *number, field, content));
    subscriptions.iter().map(message).collect()
}
