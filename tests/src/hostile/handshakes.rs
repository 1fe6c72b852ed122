//! Opens TCP connections that send nothing, and opens new ones when the node gives up on them.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::Field;

/// Connections at a time, to each node.
const CONNECTIONS: usize = 64;

pub(super) async fn run(field: &Field, until: Instant) -> anyhow::Result<f64> {
    let mut all = JoinSet::new();
    for target in &field.targets {
        for _ in 0..CONNECTIONS {
            let address = target.p2p;
            all.spawn(async move {
                let mut connected = 0u32;
                while Instant::now() < until {
                    if let Ok(mut stream) = TcpStream::connect(address).await {
                        connected += 1;
                        // Reads until the node hangs up, and sends nothing.
                        let mut bytes = [0; 256];
                        while let Ok(Ok(1..)) = timeout_at(until, stream.read(&mut bytes)).await {}
                    }
                    sleep(Duration::from_millis(20)).await;
                }
                connected
            });
        }
    }
    let mut held = 0;
    while let Some(connected) = all.join_next().await {
        held += usize::from(connected? > 0);
    }
    Ok(held as f64 / field.targets.len() as f64)
}
