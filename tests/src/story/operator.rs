//! The operator's socket of a node or a local network.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

/// Calls a method of the node or local network that runs in this directory, and returns the whole
/// answer.
///
/// # Panics
/// When nothing runs there, or it does not answer.
pub fn call_operator(dir: &Path, method: &str, params: Value) -> Value {
    let mut stream =
        UnixStream::connect(dir.join("run/control")).expect("a node or network runs there");
    let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    writeln!(stream, "{request}").expect("it reads its requests");
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).expect("it answers");
    serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}
