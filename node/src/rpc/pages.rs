//! Pages beside JSON-RPC: for operators, their monitors, and people with a browser.

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::http::header::{self, HeaderMap};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use ledger::api;
use serde_json::json;

use super::accept::Session;
use super::budget::cost;
use super::{App, json_response};
use crate::clock::wall_ms;
use crate::metrics::exposition::Format;
use crate::view::View;

/// Whether the process runs.
pub(super) async fn health() -> Response {
    json_response(StatusCode::OK, json!({"status": "ok"}).to_string())
}

/// Whether this node's answers are up to date, as far as the node can know.
pub(super) async fn ready(State(app): State<App>) -> Response {
    match not_ready(&app.view) {
        None => json_response(StatusCode::OK, json!({"status": "ready"}).to_string()),
        Some(reason) => {
            let body = json!({"status": "not ready", "reason": reason});
            json_response(StatusCode::SERVICE_UNAVAILABLE, body.to_string())
        }
    }
}

fn not_ready(view: &View) -> Option<String> {
    let activity = *view.activity.borrow();
    let height = view.tip.borrow().state.tip().height;
    if activity.syncing {
        return Some(format!(
            "syncing: this node is at height {height}, a peer has proved height {}",
            activity.best_peer_height
        ));
    }
    if view.is_cut_off() {
        return Some("no peer is connected".to_owned());
    }
    let quorum = view.quorum.borrow().clone();
    if !quorum.ok {
        let missing = view.validator_names(&quorum.missing).join(", ");
        let seconds = wall_ms().saturating_sub(quorum.since_ms.unwrap_or_else(wall_ms)) / 1_000;
        return Some(format!(
            "no quorum of validators has been heard for {seconds} s: missing {missing}"
        ));
    }
    let offset = view.clock_error_ms()?;
    let direction = if offset < 0 { "behind" } else { "ahead of" };
    Some(format!(
        "this machine's clock is {} ms {direction} the clocks of most peers: set the clock",
        offset.unsigned_abs()
    ))
}

/// The metrics, in the format that the client prefers.
pub(super) async fn metrics(
    State(app): State<App>,
    Extension(session): Extension<Arc<Session>>,
    headers: HeaderMap,
) -> Response {
    let _work = session.place.work();
    if let Err(wait) = app.scrape_budgets.spend(session.place.origin, cost::SCRAPE) {
        let seconds = wait.as_secs() + 1;
        let body = json!({"error": format!("too many scrapes: try again in {seconds} s")});
        let mut response = json_response(StatusCode::TOO_MANY_REQUESTS, body.to_string());
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        return response;
    }
    let accept: Vec<_> =
        headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::accepted(&accept.join(","));
    let Ok(permit) = Arc::clone(&app.scrapes).acquire_owned().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    // A blocking thread, because files of the system are read.
    let writing = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        format.write(&app.registry)
    });
    match writing.await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Ok(Err(error)) => failed(&error),
        Err(error) => failed(&error),
    }
}

fn failed(error: &dyn std::error::Error) -> Response {
    tracing::error!("cannot write metrics: {error}");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

pub(super) fn welcome(view: &View) -> Response {
    let body = json!({
        "interface": "JSON-RPC 2.0: POST a call here, or connect by WebSocket",
        "node": concat!("cairn-node ", env!("CARGO_PKG_VERSION")),
        "network": view.chain.genesis().network,
        "chain_id": view.chain.id().to_string(),
        "methods": api::METHODS.iter().map(|method| method.name).collect::<Vec<_>>(),
        "try": r#"{"jsonrpc":"2.0","id":1,"method":"rpc_methods"}"#,
        "see_also": ["/metrics", "/health", "/ready"],
    });
    json_response(StatusCode::OK, body.to_string())
}

pub(super) async fn not_found(uri: Uri) -> Response {
    let body = json!({
        "error": format!("nothing at {}", uri.path()),
        "see": ["/", "/metrics", "/health", "/ready"],
    });
    json_response(StatusCode::NOT_FOUND, body.to_string())
}
