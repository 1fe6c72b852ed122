//! A connection to a node's RPC over WebSocket: calls, their answers, and blocks as they become
//! final.

use std::time::Duration;

use anyhow::{Context, bail};
use futures::{SinkExt, StreamExt};
use ledger::api::{BlockSummary, ErrorData};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

/// Longest time to connect, and to hand a call to the system.
const STEP_MAX: Duration = Duration::from_secs(5);

/// A connection.
pub(super) struct Link {
    socket: WebSocketStream<TcpStream>,
    calls: u64,
}

/// What a node sends.
pub(super) enum News {
    Answer {
        call: u64,
        result: Result<Box<RawValue>, Refusal>,
    },
    /// A block is final.
    Block(BlockSummary),
    /// The subscription has ended, since we were too slow.
    Lagged,
}

/// Why a node refuses a call.
#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) message: String,
    #[serde(default)]
    pub(super) data: Option<ErrorData>,
}

impl Refusal {
    /// The reason as a word for programs; empty without one.
    pub(super) fn reason(&self) -> &str {
        self.data.as_ref().map_or("", |data| &data.reason)
    }
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(default)]
    id: Option<u64>,
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    #[serde(default)]
    error: Option<Refusal>,
    #[serde(default)]
    params: Option<Pushed>,
}

#[derive(Deserialize)]
struct Pushed {
    #[serde(default)]
    result: Option<BlockSummary>,
    #[serde(default)]
    error: Option<IgnoredAny>,
}

impl Link {
    /// Connects to the node at a URL that begins with `http://`.
    pub(super) async fn open(url: &str) -> anyhow::Result<Self> {
        let host = url.strip_prefix("http://").map(|host| host.trim_end_matches('/'));
        let host = host.with_context(|| format!("{url}: expected http://HOST:PORT"))?;
        let open = async {
            let stream = TcpStream::connect(host).await?;
            stream.set_nodelay(true)?;
            let (socket, _) =
                tokio_tungstenite::client_async(format!("ws://{host}/"), stream).await?;
            anyhow::Ok(Self { socket, calls: 0 })
        };
        timeout(STEP_MAX, open).await.context("no answer in time")?
    }

    /// Sends a call. Returns the number that its answer will have.
    pub(super) async fn call(
        &mut self,
        method: &str,
        params: impl Serialize,
    ) -> anyhow::Result<u64> {
        self.calls += 1;
        let call =
            json!({"jsonrpc": "2.0", "id": self.calls, "method": method, "params": json!(params)});
        let sending = self.socket.send(Message::text(call.to_string()));
        timeout(STEP_MAX, sending).await.context("the node takes no calls")??;
        Ok(self.calls)
    }

    /// Waits for news. May be dropped while it waits: nothing is lost.
    pub(super) async fn next(&mut self) -> anyhow::Result<News> {
        loop {
            let text = match self.socket.next().await.context("the connection has ended")?? {
                Message::Text(text) => text,
                Message::Close(_) => bail!("the node has closed the connection"),
                _ => continue,
            };
            let incoming: Incoming<'_> = serde_json::from_str(&text)?;
            match incoming {
                Incoming { params: Some(Pushed { result: Some(block), .. }), .. } => {
                    return Ok(News::Block(block));
                }
                Incoming { params: Some(Pushed { error: Some(_), .. }), .. } => {
                    return Ok(News::Lagged);
                }
                Incoming { id: Some(call), error: Some(refusal), .. } => {
                    return Ok(News::Answer { call, result: Err(refusal) });
                }
                Incoming { id: Some(call), result: Some(result), .. } => {
                    return Ok(News::Answer { call, result: Ok(result.to_owned()) });
                }
                _ => {}
            }
        }
    }
}
