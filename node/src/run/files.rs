//! The methods of a node's socket for files: share, get, unshare, and the list of files.

use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::ensure;
use ledger::file::FileId;
use rustix::fd::OwnedFd;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::config::FilesConfig;
use crate::control::{AnswerWithFile, Failure, read};
use crate::home::Home;
use crate::shared_files::{Cancel, FILES_MAX, FilesError, Limits, Reader, SharedFiles, ToFiles};

/// How often the sender of a private file is looked after while it sends nothing.
const SENDER_INTERVAL: Duration = Duration::from_millis(500);

/// The files of a home, and what they tell the driver of `swarm`.
pub(super) struct Files {
    pub(super) store: SharedFiles,
    pub(super) messages: mpsc::Receiver<ToFiles>,
}

/// Opens the files of a home; `None` if files are off.
///
/// # Errors
/// The home is a validator's, or the folder cannot be opened.
pub(super) fn open(
    home: &Home,
    config: &FilesConfig,
    is_validator: bool,
) -> anyhow::Result<Option<Files>> {
    if !config.enabled {
        return Ok(None);
    }
    ensure!(
        !is_validator,
        "a validator neither shares nor fetches files, since they would delay its votes: set \
         files.enabled = false, or share them from another node"
    );
    let limits = Limits { quota: config.quota, reserve: config.reserve };
    let (store, messages, problems) = SharedFiles::open(&home.files_path(), limits)?;
    for problem in problems {
        tracing::warn!("a file in {} cannot be used: {problem}", home.files_path().display());
    }
    Ok(Some(Files { store, messages }))
}

/// Descriptors of this process that files take.
pub(super) const fn descriptors(config: &FilesConfig) -> usize {
    if config.enabled { 2 * FILES_MAX } else { 0 }
}

/// Begins a method for files; `None` if there is no such method. `files` is `None` if files are
/// off.
pub(super) fn call(
    files: Option<&SharedFiles>,
    method: &str,
    params: &Value,
    file: Option<OwnedFd>,
) -> Option<Result<AnswerWithFile, Failure>> {
    let method = method.strip_prefix("files_")?;
    let off = || {
        Failure::failed(
            "files are off: set files.enabled = true in config.toml (a validator shares no files)",
        )
    };
    Some(files.cloned().ok_or_else(off).and_then(|files| begin(files, method, params, file)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Share {
    name: String,
    /// For a private file: the bytes that come over the stream that goes with the request.
    #[serde(default)]
    sealed_bytes: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Get {
    id: String,
    name: String,
    /// The first and the last byte of each range; none for all.
    #[serde(default)]
    ranges: Vec<(u64, u64)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn begin(
    files: SharedFiles,
    method: &str,
    params: &Value,
    file: Option<OwnedFd>,
) -> Result<AnswerWithFile, Failure> {
    let params = params.clone();
    match method {
        "share" => {
            let Share { name, sealed_bytes } = read(params)?;
            let file = file.ok_or_else(|| Failure::bad_params("no file came with the request"))?;
            Ok(share(files, name, sealed_bytes, file))
        }
        "get" => {
            let Get { id, name, ranges } = read(params)?;
            let id = parse(&id)?;
            if let Some((first, last)) = ranges.iter().find(|(first, last)| first > last) {
                return Err(Failure::bad_params(format!("{first}-{last} is no range")));
            }
            Ok(work(move || files.get(id, &ranges, &name).map(|()| (Value::Null, None))))
        }
        "info" => {
            let id = parse(&read::<One>(params)?.id)?;
            Ok(work(move || match files.info(&id) {
                Some(info) => Ok((json!(info), None)),
                None => Err(FilesError::Unknown(id)),
            }))
        }
        "open" => {
            let id = parse(&read::<One>(params)?.id)?;
            Ok(work(move || {
                let bytes = files.open_bytes(&id)?;
                Ok((json!(files.info(&id)), Some(bytes.into())))
            }))
        }
        "unshare" => {
            let id = parse(&read::<One>(params)?.id)?;
            Ok(work(move || files.unshare(&id).map(|()| (Value::Null, None))))
        }
        "list" => {
            let Nothing {} = read(params)?;
            Ok(work(move || Ok((json!(files.list()), None))))
        }
        _ => Err(Failure::unknown_method(&format!("files_{method}"))),
    }
}

fn parse(id: &str) -> Result<FileId, Failure> {
    id.parse().map_err(Failure::bad_params)
}

/// Shares a file. The work ends soon after the client has gone.
fn share(
    files: SharedFiles,
    name: String,
    sealed_bytes: Option<u64>,
    file: OwnedFd,
) -> AnswerWithFile {
    let cancel = Cancel::default();
    let reader = cancel.reading();
    let done = work(move || {
        let (id, shared) = match sealed_bytes {
            Some(bytes) => files.receive(stream(file)?, bytes, &name, &reader)?,
            None => files.share(file.into(), &name, &reader)?,
        };
        let (bytes, chunks) = (shared.bytes, shared.chunks);
        Ok((json!({"id": id.to_string(), "bytes": bytes, "chunks": chunks}), None))
    });
    Box::pin(async move {
        let _cancel = cancel;
        done.await
    })
}

/// The stream of a command that seals a private file. It is a socket, so that a read of it ends.
fn stream(file: OwnedFd) -> Result<UnixStream, FilesError> {
    let stream = UnixStream::from(file);
    stream.set_read_timeout(Some(SENDER_INTERVAL))?;
    Ok(stream)
}

/// Does work that may wait for the disk.
fn work(
    work: impl FnOnce() -> Result<(Value, Option<OwnedFd>), FilesError> + Send + 'static,
) -> AnswerWithFile {
    let done = tokio::task::spawn_blocking(work);
    Box::pin(async move {
        match done.await {
            Ok(done) => done.map_err(Failure::failed),
            Err(error) => match error.try_into_panic() {
                Ok(reason) => std::panic::resume_unwind(reason),
                Err(error) => Err(Failure::failed(error)),
            },
        }
    })
}

/// Hashes what may be lost since the system was started anew, and then waits for the end.
pub(super) async fn check(store: SharedFiles, stop: impl Future<Output = ()>) {
    let cancel = Cancel::default();
    let reader: Reader = cancel.reading();
    let checking = tokio::task::spawn_blocking(move || match store.check(&reader) {
        Ok(()) | Err(FilesError::GivenUp) => {}
        Err(error) => tracing::warn!("files cannot be checked: {error}"),
    });
    stop.await;
    drop(cancel);
    let _ended = checking.await;
}
