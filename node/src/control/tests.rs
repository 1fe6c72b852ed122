#![allow(clippy::unwrap_used)]

use std::fs::{self, File, Permissions};
use std::io::{IoSlice, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::server::CONNECTIONS_MAX;
use super::*;
use crate::files::own_uid;

/// Long enough for a loaded machine, short enough to notice that something hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// Methods of a process that tells by `stop` when it is asked to end.
#[derive(Default)]
struct Sample {
    stop: Mutex<Option<oneshot::Sender<()>>>,
    dropped: Mutex<Option<oneshot::Sender<()>>>,
}

impl Methods for Sample {
    fn call(&self, method: &str, params: Value) -> Answer {
        match method {
            "echo" => Box::pin(async { Ok(params) }),
            "slow" => Box::pin(async {
                // Requests that were served at the same time would overtake this one.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                Ok(params)
            }),
            "fail" => Box::pin(async { Err(Failure::new(code::NOT_IN_TIME, "too late")) }),
            "large" => {
                let bytes = usize::try_from(params["bytes"].as_u64().unwrap()).unwrap();
                Box::pin(async move { Ok(json!("x".repeat(bytes))) })
            }
            "stop" => {
                drop(self.stop.lock().unwrap().take());
                Box::pin(async { Ok(Value::Null) })
            }
            "endless" => {
                let dropped = self.dropped.lock().unwrap().take();
                Box::pin(async move {
                    std::future::pending::<()>().await;
                    drop(dropped);
                    Ok(Value::Null)
                })
            }
            "params" => Box::pin(async { Err(Failure::bad_params("expected none")) }),
            method => {
                let failure = Failure::unknown_method(method);
                Box::pin(async { Err(failure) })
            }
        }
    }

    fn call_with_file(&self, method: &str, params: Value, file: Option<OwnedFd>) -> AnswerWithFile {
        if method == "exchange" {
            // Answers with the text of the file, and with a file of its own.
            let text = file.map(|file| content(file.into()));
            return Box::pin(async move { Ok((json!(text), Some(with("theirs").into()))) });
        }
        let answer = self.call(method, params);
        Box::pin(async { answer.await.map(|value| (value, None)) })
    }
}

/// A file without a name that holds a text.
fn with(text: &str) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.rewind().unwrap();
    file
}

fn content(mut file: File) -> String {
    let mut text = String::new();
    file.read_to_string(&mut text).unwrap();
    text
}

/// A served socket of a home.
struct Served {
    home: TempDir,
    socket: PathBuf,
    server: JoinHandle<()>,
    /// Resolves when the endless call was dropped.
    dropped: oneshot::Receiver<()>,
}

impl Served {
    fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let listener = Listener::bind(home.path()).unwrap();
        let socket = listener.socket().to_owned();
        let (stop, stopped) = oneshot::channel();
        let (drops, dropped) = oneshot::channel();
        let sample = Sample { stop: Mutex::new(Some(stop)), dropped: Mutex::new(Some(drops)) };
        let server = tokio::spawn(serve(listener, Arc::new(sample), async {
            let _dropped = stopped.await;
        }));
        Self { home, socket, server, dropped }
    }

    async fn client(&self) -> Client {
        Client::connect(self.home.path()).await.unwrap()
    }

    async fn raw(&self) -> UnixStream {
        UnixStream::connect(&self.socket).await.unwrap()
    }

    /// What the server answers to these bytes, after which the client sends nothing.
    async fn answers(&self, request: &[u8]) -> Vec<Value> {
        let mut stream = self.raw().await;
        stream.write_all(request).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        within("the end", stream.read_to_string(&mut text)).await.unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

async fn is_absent(root: &Path) -> bool {
    matches!(Client::connect(root).await, Err(ControlError::Absent { .. }))
}

#[tokio::test]
async fn a_home_has_a_socket_for_its_user_alone_while_it_is_served() {
    let served = Served::start();
    let root = served.home.path().to_owned();
    assert_eq!((mode(&root.join("run")), mode(&root.join("run/control"))), (0o700, 0o600));
    let mut client = served.client().await;
    for number in 0..3 {
        let other_type = client.call::<u64>("echo", json!([number])).await;
        assert!(matches!(other_type, Err(ControlError::Malformed { .. })), "{other_type:?}");
        assert_eq!(client.call::<[u64; 1]>("echo", json!([number])).await.unwrap(), [number]);
    }
    client.call::<()>("stop", json!({})).await.unwrap();
    within("the end of the connection", client.closed()).await;
    within("the end of the server", served.server).await.unwrap();
    assert!(!root.join("run/control").exists());
    let error = Client::connect(&root).await.err().unwrap();
    assert_eq!(error.exit_code(), 3);
    assert_eq!(error.to_string(), format!("nothing runs in {}", root.display()));
}

#[tokio::test]
async fn a_stale_socket_is_taken_over_and_never_removed_by_its_former_owner() {
    let home = tempfile::tempdir().unwrap();
    let first = Listener::bind(home.path()).unwrap();
    let second = Listener::bind(home.path()).unwrap();
    drop(first);
    assert!(home.path().join("run/control").exists(), "it is the second one's by now");
    // A killed process leaves its socket.
    let socket = second.socket().to_owned();
    drop(second);
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(is_absent(home.path()).await);
    let _third = Listener::bind(home.path()).unwrap();
    assert!(Client::connect(home.path()).await.is_ok());
}

/// A home whose path is too long for a socket, in a folder that is to be dropped last.
fn long_home() -> (TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("x".repeat(120));
    let runtime = folder.path().join("r");
    fs::create_dir(&home).unwrap();
    fs::create_dir(&runtime).unwrap();
    (folder, home, runtime)
}

#[tokio::test]
async fn the_socket_of_a_long_path_lies_in_a_folder_of_its_own() {
    let (_folder, home, runtime) = long_home();
    let long = runtime.join("y".repeat(100));
    let folders = [long.clone(), runtime.clone()];
    assert!(is_absent(&home).await);
    let listener = Listener::bind_in(&home, &folders).unwrap();
    let socket = listener.socket().to_owned();
    let own = socket.parent().unwrap();
    assert_eq!(own.parent().unwrap(), runtime);
    assert_eq!((mode(own), mode(&socket)), (0o700, 0o600));
    assert_eq!(fs::read_to_string(home.join("run/control")).unwrap(), socket.to_str().unwrap());
    assert!(Client::connect(&home).await.is_ok());

    // A killed process leaves both. The next one removes them.
    std::mem::forget(listener);
    let next = Listener::bind_in(&home, &folders).unwrap();
    assert!(!own.exists() && next.socket().exists());
    assert!(Client::connect(&home).await.is_ok());
    drop(next);
    assert_eq!(fs::read_dir(&runtime).unwrap().count(), 0);
    assert_eq!(fs::read_dir(home.join("run")).unwrap().count(), 0);

    let error = Listener::bind_in(&home, &[long]).unwrap_err().to_string();
    assert!(error.contains("at most 100 bytes") && error.contains("XDG_RUNTIME_DIR"), "{error}");
}

#[tokio::test]
async fn a_socket_is_not_trusted_in_a_folder_that_others_could_use() {
    let (_folder, home, runtime) = long_home();
    let listener = Listener::bind_in(&home, std::slice::from_ref(&runtime)).unwrap();
    let own = listener.socket().parent().unwrap().to_owned();
    let refused = async |part: &str| {
        let error = Client::connect(&home).await.err().unwrap();
        assert!(matches!(error, ControlError::Unsafe { .. }), "{error:?}");
        assert!(error.to_string().contains(part), "{error}");
    };
    for mode in [0o755, 0o770, 0o777, 0o1777] {
        set_mode(&own, mode);
        refused("expected 0700").await;
    }
    set_mode(&own, 0o700);
    if own_uid() == 0 {
        std::os::unix::fs::chown(&own, Some(12_345), None).unwrap();
        refused("belongs to user 12345").await;
        std::os::unix::fs::chown(&own, Some(0), None).unwrap();
    }
    assert!(Client::connect(&home).await.is_ok());
    let elsewhere = runtime.join("elsewhere");
    fs::rename(&own, &elsewhere).unwrap();
    symlink(&elsewhere, &own).unwrap();
    refused("not a folder").await;
}

#[tokio::test]
async fn the_folder_in_a_home_is_closed_and_not_followed() {
    let home = tempfile::tempdir().unwrap();
    let run = home.path().join("run");
    let elsewhere = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), &run).unwrap();
    let error = Listener::bind(home.path()).unwrap_err();
    assert!(matches!(error, ControlError::Unsafe { .. }), "{error:?}");
    assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    fs::remove_file(&run).unwrap();

    // Another user may listen in a folder that is open to others.
    fs::create_dir(&run).unwrap();
    let strange = std::os::unix::net::UnixListener::bind(run.join("control")).unwrap();
    set_mode(&run, 0o777);
    let error = Client::connect(home.path()).await.err().unwrap();
    assert!(matches!(error, ControlError::Unsafe { .. }), "{error:?}");
    drop(strange);
    fs::remove_dir_all(&run).unwrap();

    // A copy of a home may have lost the mode.
    fs::create_dir(&run).unwrap();
    set_mode(&run, 0o755);
    fs::write(run.join("control"), "/no/such/socket").unwrap();
    assert!(is_absent(home.path()).await);
    let listener = Listener::bind(home.path()).unwrap();
    assert_eq!(mode(&run), 0o700);
    drop(listener);
    fs::write(run.join("control"), "not a path").unwrap();
    let error = Client::connect(home.path()).await.err().unwrap().to_string();
    assert!(error.contains("names no socket"), "{error}");
    fs::remove_file(run.join("control")).unwrap();
    fs::create_dir(run.join("control")).unwrap();
    let error = Listener::bind(home.path()).unwrap_err().to_string();
    assert!(error.contains("is a folder"), "{error}");
}

#[tokio::test]
async fn errors_have_the_codes_of_json_rpc() {
    let served = Served::start();
    let nested = "[".repeat(100_000);
    for (line, expected, part) in [
        ("{", -32_700, "not JSON"),
        ("\u{0}", -32_700, "not JSON"),
        (nested.as_str(), -32_700, "not JSON"),
        ("[]", -32_600, "is a JSON object"),
        ("7", -32_600, "is a JSON object"),
        ("{}", -32_600, "jsonrpc must be"),
        (r#"{"jsonrpc":"2.0","id":[],"method":"echo"}"#, -32_600, "id must be"),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, -32_600, "method must be"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"echo","params":7}"#, -32_600, "params must be"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"nothing"}"#, -32_601, "no method \"nothing\""),
        (r#"{"jsonrpc":"2.0","id":1,"method":"params"}"#, -32_602, "wrong parameters"),
        (r#"{"jsonrpc":"2.0","id":1,"method":"fail"}"#, 5, "too late"),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"large","params":{"bytes":4194304}}"#,
            -32_603,
            "at most 4194304 are sent",
        ),
    ] {
        let answers = served.answers(format!("{line}\n").as_bytes()).await;
        let shown: String = line.chars().take(100).collect();
        assert_eq!(answers.len(), 1, "{shown}");
        let error = &answers[0]["error"];
        assert_eq!(error["code"], expected, "{shown}");
        assert!(error["message"].as_str().unwrap().contains(part), "{shown}: {error}");
    }
    let error = served.client().await.call::<()>("fail", json!({})).await.unwrap_err();
    assert_eq!((error.exit_code(), error.to_string()), (5, "too late".to_owned()));
}

#[tokio::test]
async fn requests_are_answered_in_order_and_notifications_are_not() {
    let served = Served::start();
    let lines = [
        r#"{"jsonrpc":"2.0","id":"a","method":"slow"}"#,
        r#"{"jsonrpc":"2.0","method":"echo"}"#,
        "",
        r#"{"jsonrpc":"2.0","id":null,"method":"echo","params":[1]}"#,
        r#"{"jsonrpc":"2.0","id":3,"method":"echo"}"#,
        // The client goes away within this line.
        r#"{"jsonrpc":"2.0","id":4,"method":"ec"#,
    ];
    let answers = served.answers(lines.join("\n").as_bytes()).await;
    let expected = [
        json!({"jsonrpc": "2.0", "id": "a", "result": {}}),
        json!({"jsonrpc": "2.0", "id": null, "result": [1]}),
        json!({"jsonrpc": "2.0", "id": 3, "result": {}}),
    ];
    assert_eq!(answers, expected);
}

#[tokio::test]
async fn a_request_without_end_is_refused() {
    let served = Served::start();
    let mut stream = served.raw().await;
    // The server closes the connection before it has read all of this.
    let _cut_off = stream.write_all(&vec![b' '; 2 << 20]).await;
    let mut answer = [0; 100];
    let count = within("an answer", stream.read(&mut answer)).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..count]);
    assert!(answer.contains("-32600"), "{answer}");
    let largest = "x".repeat(REQUEST_BYTES_MAX - 100);
    let mut client = served.client().await;
    assert_eq!(client.call::<[String; 1]>("echo", json!([largest])).await.unwrap(), [largest]);
}

/// The paused clock jumps ahead whenever all tasks wait.
#[tokio::test(start_paused = true)]
async fn hostile_clients_hold_nothing_but_a_place_for_a_while() {
    let served = Served::start();
    let mut hostile = Vec::new();
    for number in 0..CONNECTIONS_MAX {
        let mut stream = served.raw().await;
        match number % 3 {
            // Half a line.
            0 => stream.write_all(br#"{"jsonrpc""#).await.unwrap(),
            // Answers that are not read.
            1 => {
                let line =
                    r#"{"jsonrpc":"2.0","id":1,"method":"large","params":{"bytes":4000000}}"#;
                stream.write_all(format!("{line}\n{line}\n").as_bytes()).await.unwrap();
            }
            // Nothing.
            _ => {}
        }
        hostile.push(stream);
    }
    // A connection is accepted in its turn, so this one is the last.
    let error = served.client().await.call::<()>("echo", json!({})).await.unwrap_err();
    assert!(error.to_string().contains("all 16 connections are in use"), "{error}");
    // Each is closed in its time: a read that waits ends.
    for (number, stream) in hostile.iter_mut().enumerate().filter(|(number, _)| number % 3 != 1) {
        let mut rest = Vec::new();
        let read = timeout(2 * PATIENCE * 10, stream.read_to_end(&mut rest)).await;
        assert!(read.is_ok(), "{number} is still open");
    }
    for (number, stream) in hostile.iter_mut().enumerate().filter(|(number, _)| number % 3 == 1) {
        let mut rest = Vec::new();
        let _reset = stream.read_to_end(&mut rest).await;
        assert!(rest.len() < 4_000_000, "{number} was read by nobody, and got {}", rest.len());
    }
    let mut client = served.client().await;
    assert_eq!(client.call::<Value>("echo", json!([])).await.unwrap(), json!([]));
}

#[tokio::test]
async fn a_call_ends_when_its_client_goes_away() {
    let mut served = Served::start();
    let mut stream = served.raw().await;
    stream.write_all(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"endless\"}\n").await.unwrap();
    assert!(timeout(Duration::from_millis(100), &mut served.dropped).await.is_err());
    // A client that has only ended its requests still waits for the answer.
    stream.shutdown().await.unwrap();
    assert!(timeout(Duration::from_millis(1_200), &mut served.dropped).await.is_err());
    drop(stream);
    let _dropped = within("the end of the call", &mut served.dropped).await;
}

#[tokio::test]
async fn the_end_of_the_server_waits_for_no_call() {
    let served = Served::start();
    let mut waiting = served.client().await;
    let mut idle = served.client().await;
    idle.call::<Value>("echo", json!({})).await.unwrap();
    let waits = tokio::spawn(async move { waiting.call::<()>("endless", json!({})).await });
    let mut client = served.client().await;
    client.call::<()>("stop", json!({})).await.unwrap();
    within("the end", served.server).await.unwrap();
    let error = within("an error", waits).await.unwrap().unwrap_err();
    assert!(matches!(error, ControlError::Io { .. }), "{error}");
}

#[tokio::test]
async fn wrong_answers_are_told_apart() {
    let large = "x".repeat(ANSWER_BYTES_MAX + 1);
    for (answer, part) in [
        ("", "ended without an answer"),
        ("hello\n", "does not answer like a Cairn process"),
        ("{\"jsonrpc\":\"2.0\",\"id\":9,\"result\":null}\n", "belongs to another call"),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":7}\n", "invalid type"),
        (large.as_str(), "an answer of more than"),
    ] {
        let home = tempfile::tempdir().unwrap();
        let listener = Listener::bind(home.path()).unwrap();
        let mut client = Client::connect(home.path()).await.unwrap();
        let (mut stream, _) = listener.listener.accept().await.unwrap();
        let answers = async {
            let mut request = [0; 1_000];
            assert_ne!(stream.read(&mut request).await.unwrap(), 0);
            let _closed_early = stream.write_all(answer.as_bytes()).await;
            drop(stream);
        };
        let call = async {
            let error = client.call::<()>("echo", json!({})).await.unwrap_err().to_string();
            drop(client);
            error
        };
        let ((), error) = within("an answer", async { tokio::join!(answers, call) }).await;
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn open_files_travel_with_requests_and_answers() {
    let served = Served::start();
    let mut client = served.client().await;
    let ours = with("ours");
    for _ in 0..2 {
        (&ours).rewind().unwrap();
        let called = client.call_with_file("exchange", json!({}), Some(ours.as_fd())).await;
        let (text, file): (Option<String>, _) = called.unwrap();
        assert_eq!(text.as_deref(), Some("ours"));
        assert_eq!(content(file.unwrap().into()), "theirs");
        // A file belongs to one request alone.
        let (text, file): (Option<String>, _) =
            client.call_with_file("exchange", json!({}), None).await.unwrap();
        assert!(text.is_none() && file.is_some());
    }
    // A method that takes no file closes it, so that the end of a pipe is seen.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let called = client.call_with_file::<Value>("echo", json!([1]), Some(writer.as_fd())).await;
    assert!(matches!(called, Ok((_, None))));
    drop(writer);
    assert_eq!(reader.read(&mut [0]).unwrap(), 0);
}

#[tokio::test]
async fn of_many_files_one_is_kept_and_the_others_are_closed() {
    let served = Served::start();
    let stream = std::os::unix::net::UnixStream::connect(&served.socket).unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let kept = with("kept");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let files = [kept.as_fd(), writer.as_fd(), writer.as_fd()];
    assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&files)));
    let line = b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"exchange\"}\n";
    let flags = rustix::net::SendFlags::empty();
    rustix::net::sendmsg(&stream, &[IoSlice::new(line)], &mut control, flags).unwrap();
    drop(writer);
    let closed = tokio::task::spawn_blocking(move || reader.read(&mut [0]).unwrap());
    assert_eq!(within("the end of the pipe", closed).await.unwrap(), 0);
    let mut line = [0; 100];
    let read = tokio::task::spawn_blocking(move || (&stream).read(&mut line).map(|_| line));
    let answer = within("an answer", read).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&answer).contains("\"kept\""));
}
