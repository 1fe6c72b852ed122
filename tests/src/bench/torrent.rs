//! The parts of BitTorrent that another program needs for the same transfer: a torrent, and a
//! tracker that knows all peers from the start.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use sha1::{Digest, Sha1};

use super::options;

/// Seconds between a client's announces.
const INTERVAL: u32 = 5;
/// Longest request that is read, bytes.
const REQUEST_BYTES_MAX: u64 = 16 << 10;

/// A torrent of one file (BEP 3).
pub(super) fn torrent(
    file: &Path,
    name: &str,
    piece_bytes: usize,
    tracker: &str,
) -> anyhow::Result<Vec<u8>> {
    let mut input = File::open(file).with_context(|| file.display().to_string())?;
    let (mut pieces, mut length, mut piece) = (Vec::new(), 0, Vec::with_capacity(piece_bytes));
    loop {
        piece.clear();
        let read = Read::by_ref(&mut input).take(piece_bytes as u64).read_to_end(&mut piece)?;
        if read == 0 {
            break;
        }
        length += read;
        pieces.extend_from_slice(&Sha1::digest(&piece));
    }
    // Keys in bencoding must be in order.
    let mut info = format!(
        "d6:lengthi{length}e4:name{}:{name}12:piece lengthi{piece_bytes}e6:pieces",
        name.len()
    );
    info += &format!("{}:", pieces.len());
    let start = format!("d8:announce{}:{tracker}4:info{info}", tracker.len());
    Ok([start.as_bytes(), &pieces, b"ee"].concat())
}

/// The tracker: answers every client with all peers, and prints a line for each client.
pub(super) fn track(options: &options::Tracker) -> anyhow::Result<()> {
    let listener = TcpListener::bind(options.listen)?;
    let answer = answer(&options.peers);
    println!("listens");
    // This process ends with its parent, which holds the other end of stdin.
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    for stream in listener.incoming() {
        // A client whose request fails announces again.
        if let Ok(who) = stream.and_then(|stream| serve(stream, &answer)) {
            println!("{who}");
        }
    }
    Ok(())
}

/// The tracker's HTTP answer, with all peers in compact form (BEP 23).
fn answer(peers: &[SocketAddrV4]) -> Vec<u8> {
    let compact =
        |peer: &SocketAddrV4| [&peer.ip().octets()[..], &peer.port().to_be_bytes()].concat();
    let peers: Vec<u8> = peers.iter().flat_map(compact).collect();
    let start = format!("d8:intervali{INTERVAL}e5:peers{}:", peers.len());
    let body = [start.as_bytes(), &peers, b"e"].concat();
    let head =
        format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), &body].concat()
}

fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<std::net::SocketAddr> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut reader = BufReader::new(Read::by_ref(&mut stream).take(REQUEST_BYTES_MAX));
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 && !line.trim_end().is_empty() {
        line.clear();
    }
    stream.write_all(answer)?;
    stream.peer_addr()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_names_its_pieces() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abcabca").unwrap();
        let made = torrent(file.path(), "x", 3, "http://t/").unwrap();
        let [abc, a] = [&b"abc"[..], b"a"].map(|piece| Sha1::digest(piece).to_vec());
        let expected = [
            &b"d8:announce9:http://t/4:infod6:lengthi7e4:name1:x12:piece lengthi3e6:pieces60:"[..],
            &abc,
            &abc,
            &a,
            b"ee",
        ];
        assert_eq!(made, expected.concat());
    }

    #[test]
    fn the_tracker_tells_of_everybody() {
        let answer = answer(&["10.0.0.1:258".parse().unwrap()]);
        assert!(answer.ends_with(b"\r\n\r\nd8:intervali5e5:peers6:\x0a\x00\x00\x01\x01\x02e"));
    }
}
