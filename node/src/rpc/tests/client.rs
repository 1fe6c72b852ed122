use ledger::api;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fixture::{Fixture, LATE};

/// Opcodes of RFC 6455.
pub(super) const TEXT: u8 = 1;
pub(super) const CLOSE: u8 = 8;
pub(super) const PING: u8 = 9;
pub(super) const PONG: u8 = 10;

/// A WebSocket client without a library, so that a test sees each frame.
pub(super) struct Socket(pub(super) TcpStream, (u8, Vec<u8>));

impl Socket {
    pub(super) async fn connect(fixture: &Fixture) -> Self {
        let (socket, head) = Self::ask(fixture).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        socket
    }

    /// Asks for a WebSocket, and reads the head of the answer.
    pub(super) async fn ask(fixture: &Fixture) -> (Self, String) {
        let mut stream = TcpStream::connect(fixture.address).await.unwrap();
        let head =
            format!("GET / HTTP/1.1\r\nhost: {}\r\nconnection: upgrade\r\n", fixture.address);
        let more = "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: \
                    AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
        stream.write_all((head + more).as_bytes()).await.unwrap();
        let mut response = Vec::new();
        while !response.ends_with(b"\r\n\r\n") {
            response.push(stream.read_u8().await.unwrap());
        }
        (Self(stream, (0, Vec::new())), String::from_utf8(response).unwrap())
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.send_frame(TEXT, text.as_bytes()).await;
    }

    /// Sends a whole message or control frame. Its mask is all zeros, which is valid.
    pub(super) async fn send_frame(&mut self, opcode: u8, content: &[u8]) {
        let mut frame = vec![0x80 | opcode];
        match content.len() {
            length @ 0..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
            length @ 126..0x1_0000 => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
            length => {
                frame.push(0x80 | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.extend(content);
        // The server may close before it has read everything.
        let _ = self.0.write_all(&frame).await;
    }

    /// The next whole message or control frame, except pings: opcode and content. `None` once the
    /// server has closed.
    pub(super) async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let first = timeout(LATE, self.0.read_u8()).await.unwrap().ok()?;
            let length = match self.0.read_u8().await.unwrap() {
                126 => self.0.read_u16().await.unwrap().into(),
                127 => self.0.read_u64().await.unwrap(),
                length => length.into(),
            };
            let mut content = vec![0; usize::try_from(length).unwrap()];
            self.0.read_exact(&mut content).await.unwrap();
            match first & 0x0f {
                PING => {}
                opcode @ CLOSE.. => return Some((opcode, content)),
                // A control frame may come between the pieces of a message.
                0 => self.1.1.extend(content),
                opcode => self.1 = (opcode, content),
            }
            if first & 0x80 != 0 && first & 0x0f != PING {
                return Some(std::mem::take(&mut self.1));
            }
        }
    }

    /// The next text message; `None` once the server has closed or has sent a close frame.
    pub(super) async fn receive(&mut self) -> Option<Value> {
        loop {
            match self.frame().await? {
                (TEXT, content) => return Some(serde_json::from_slice(&content).unwrap()),
                (CLOSE, _) => return None,
                _ => {}
            }
        }
    }

    pub(super) async fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(
            &json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string(),
        )
        .await;
        self.receive().await.unwrap()["result"].take()
    }

    /// Begins a call that waits for half a minute.
    pub(super) async fn wait_for_nothing(&mut self) {
        let params = json!(["0".repeat(64), 30_000]);
        self.send(
            &json!({"jsonrpc": "2.0", "id": 1, "method": api::TX_GET, "params": params})
                .to_string(),
        )
        .await;
    }
}
