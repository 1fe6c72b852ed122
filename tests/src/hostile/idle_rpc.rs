//! Opens RPC connections that begin a request and send one byte of it per minute.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::Field;

const CONNECTIONS: usize = 600;
const BYTE_EVERY: Duration = Duration::from_secs(60);

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let address = field.targets[0].rpc;
    let mut all = JoinSet::new();
    for _ in 0..CONNECTIONS {
        all.spawn(async move {
            let mut was_open = false;
            while Instant::now() < until {
                if let Ok(mut stream) = TcpStream::connect(address).await
                    && stream.write_all(b"POST / HTTP/1.1\r\nHost: localhost\r\nX: ").await.is_ok()
                {
                    was_open = true;
                    let (mut reader, mut writer) = stream.split();
                    let trickle = async {
                        while writer.write_all(b"a").await.is_ok() {
                            sleep(BYTE_EVERY).await;
                        }
                    };
                    let mut bytes = [0; 64];
                    tokio::select! {
                        () = trickle => {}
                        // Any answer of the node ends this connection, and the next one begins.
                        _ = timeout_at(until, reader.read(&mut bytes)) => {}
                    }
                }
                sleep(Duration::from_millis(50)).await;
            }
            was_open
        });
    }
    let mut reached = 0;
    while let Some(was_open) = all.join_next().await {
        reached += usize::from(was_open?);
    }
    Ok(reached as f64)
}
