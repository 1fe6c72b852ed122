//! Opens WebSockets that ask for large answers and read nothing.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Field;

const SOCKETS: usize = 40;
/// Calls of each socket.
const CALLS: u64 = 4;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    // Only the RPC of the first validator is attacked.
    let address = field.targets[0].rpc;
    let mut all = JoinSet::new();
    for _ in 0..SOCKETS {
        all.spawn(async move {
            let mut was_open = false;
            while Instant::now() < until {
                if let Ok(stream) = ask(address).await {
                    was_open = true;
                    // Reads nothing. A write fails once the node has hung up.
                    let mut stream = stream;
                    while Instant::now() < until && stream.write_all(&ping()).await.is_ok() {
                        sleep(Duration::from_secs(1)).await;
                    }
                }
                sleep(Duration::from_millis(100)).await;
            }
            was_open
        });
    }
    sleep_until(until).await;
    let mut reached = 0;
    while let Some(was_open) = all.join_next().await {
        reached += usize::from(was_open?);
    }
    Ok(reached as f64)
}

async fn ask(address: std::net::SocketAddr) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let upgrade = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(upgrade.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
        anyhow::ensure!(head.len() < 4_096, "the node's answer has no end");
    }
    anyhow::ensure!(head.starts_with(b"HTTP/1.1 101"), "no WebSocket");
    for id in 0..CALLS {
        let params = json!({"height": (id + 1).to_string()});
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "chain_block", "params": params});
        stream.write_all(&text_frame(call.to_string().as_bytes())).await?;
    }
    Ok(stream)
}

/// A client's text frame of less than 64 KiB, masked with zeros (RFC 6455, section 5.2).
fn text_frame(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes();
    [&[0x81, 0xfe], &length[..], &[0; 4], text].concat()
}

fn ping() -> [u8; 6] {
    [0x89, 0x80, 0, 0, 0, 0]
}
