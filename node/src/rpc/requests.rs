//! The body of a request: bounded in size, time and memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::{self, HeaderMap};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::BODY_BYTES_MAX;
use super::error::RpcError;
use super::pool::Room;

/// Longest time for a body: 1 MiB at one Mbit per second takes a little less.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);
/// A body that is refused is read and discarded up to this many bytes, since many clients read the
/// answer only once they have sent everything. Beyond it the connection is closed.
const DRAIN_BYTES_MAX: usize = 64 << 20;
/// Content types of JSON-RPC over HTTP. A web page of another origin can send none of them without
/// a CORS preflight.
const TYPES: [&str; 3] = ["application/json", "application/json-rpc", "application/jsonrequest"];

type Refusal = (StatusCode, RpcError);

/// Reads a call or batch, and reserves memory for it.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    room: &mut Room<'_>,
) -> Result<Vec<u8>, Refusal> {
    let text = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let length = text(header::CONTENT_LENGTH).and_then(|length| length.parse::<usize>().ok());
    let refusal = check(headers)
        .or_else(|| length.filter(|length| *length > BODY_BYTES_MAX).map(|_| too_large()));
    if let Some(refusal) = refusal {
        // A client that sends `Expect: 100-continue` has sent no body yet.
        if text(header::EXPECT).is_none() {
            let _in_time = timeout(BODY_TIME_MAX, drain(&mut body, 0)).await;
        }
        return Err(refusal);
    }
    match timeout(BODY_TIME_MAX, collect(&mut body, room)).await {
        Ok(outcome) => outcome,
        Err(_) => Err((StatusCode::REQUEST_TIMEOUT, RpcError::body_too_slow(BODY_TIME_MAX))),
    }
}

/// Why the headers of a body are refused.
fn check(headers: &HeaderMap) -> Option<Refusal> {
    let text = |name| {
        headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes())).unwrap_or_default()
    };
    let kind = text(header::CONTENT_TYPE);
    let name = kind.split(';').next().unwrap_or_default().trim();
    if !TYPES.iter().any(|known| name.eq_ignore_ascii_case(known)) {
        let error = RpcError::invalid_request(format!(
            "content-type is {kind:?}, expected \"application/json\""
        ));
        return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    let encoding = text(header::CONTENT_ENCODING);
    if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
        let error =
            RpcError::invalid_request(format!("content-encoding is {encoding:?}, expected none"));
        return Some((StatusCode::UNSUPPORTED_MEDIA_TYPE, error));
    }
    None
}

async fn collect(body: &mut Body, room: &mut Room<'_>) -> Result<Vec<u8>, Refusal> {
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, RpcError::parse(error)))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            drain(body, bytes.len()).await;
            return Err(too_large());
        }
        if !room.take(data.len()) {
            drain(body, bytes.len()).await;
            return Err((StatusCode::SERVICE_UNAVAILABLE, RpcError::busy()));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Reads the rest of a body and discards it.
async fn drain(body: &mut Body, mut read: usize) {
    while let Some(Ok(frame)) = body.frame().await {
        read = read.saturating_add(frame.data_ref().map_or(0, |data| data.len()));
        if read > DRAIN_BYTES_MAX {
            return;
        }
    }
}

fn too_large() -> Refusal {
    (StatusCode::PAYLOAD_TOO_LARGE, RpcError::body_too_large(BODY_BYTES_MAX))
}
