//! The RPC server: JSON-RPC over HTTP and WebSocket, metrics and health, on one port.
//!
//! Readers get snapshots and final blocks; a submission is put to the driver like any other input. Nothing here changes the
//! chain, and everything is bounded: connections, requests, answers, waits, reads of the store.

mod convert;
mod error;
mod guard;
mod json_rpc;
mod listener;
mod methods;
mod socket;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{self, HeaderMap};
use axum::http::{StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use ledger::api;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::convert::block_summary;
use self::error::RpcError;
use self::guard::Guard;
pub(crate) use self::listener::CONNECTIONS_MAX;
use self::listener::{Bounded, IDLE_MAX};
use self::methods::{Caller, Methods};
use crate::view::View;

/// Most bytes of a request.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Read buffer of a WebSocket connection. The usual 128 KiB are for streams of large messages.
const SOCKET_BUFFER_BYTES: usize = 16 << 10;
/// How long connections may take to finish when the node stops. The rest are cut.
const STOP_MAX: Duration = Duration::from_secs(2);

/// Where the server listens and who may call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcConfig {
    /// Address and port; port 0 takes any that is free.
    pub listen: SocketAddr,
    /// Host names, without port, by which it may be called besides loopback names and the listening address itself.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call it, such as `https://wallet.example`. None by default.
    pub allowed_origins: Vec<String>,
    /// Connections at the same time. Further ones wait to be accepted.
    pub connections_max: usize,
}

/// The server does not start.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for RPC on {address}: {source}{}", hint(source))]
pub struct BindError {
    /// Where it was to listen.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; does another node run here? choose another port or stop it",
        _ => "",
    }
}

/// A port that is ours but not served yet.
pub struct RpcListener {
    listener: TcpListener,
    address: SocketAddr,
    guard: Guard,
    connections_max: usize,
}

impl RpcListener {
    /// Where it listens, with the port that was chosen.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Takes the port. Callers wait unanswered until [`serve`].
///
/// # Errors
/// `BindError` names the address, mostly because another process has the port.
pub async fn bind(config: &RpcConfig) -> Result<RpcListener, BindError> {
    let fail = |source| BindError { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let guard = Guard::new(address, &config.allowed_hosts, &config.allowed_origins);
    Ok(RpcListener { listener, address, guard, connections_max: config.connections_max })
}

/// Serves until `shutdown` is ready; then waiting callers are told, and the task ends within two seconds.
pub fn serve(
    listener: RpcListener,
    view: View,
    registry: Arc<Registry>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let (stop, stopping) = watch::channel(false);
    let methods = Arc::new(Methods::new(view.clone(), stopping.clone()));
    let app = router(App { view, methods, registry, stopping: stopping.clone() }, listener.guard);
    let connections = Bounded::new(listener.listener, listener.connections_max, IDLE_MAX);
    tokio::spawn(async move {
        let mut stopping = stopping;
        let signal = async move {
            shutdown.await;
            stop.send_replace(true);
        };
        let serving = axum::serve(connections, app).with_graceful_shutdown(signal).into_future();
        let cut = async {
            let _ = stopping.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(STOP_MAX).await;
        };
        tokio::select! {
            // Accepting never fails for good, see `Bounded`.
            _ = serving => {}
            () = cut => tracing::debug!("some RPC connections did not finish in time"),
        }
    })
}

/// What the handlers share.
#[derive(Clone)]
struct App {
    view: View,
    methods: Arc<Methods>,
    registry: Arc<Registry>,
    stopping: watch::Receiver<bool>,
}

fn router(app: App, guard: Guard) -> Router {
    Router::new()
        .route("/", get(on_get).post(on_post))
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { axum_json(StatusCode::OK, &json!({"status": "ok"})) }))
        .route("/ready", get(ready))
        .fallback(not_found)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(from_fn_with_state(Arc::new(guard), guard::layer))
        .with_state(app)
}

fn axum_json(status: StatusCode, body: &impl ToString) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// A call or batch over HTTP.
async fn on_post(State(app): State<App>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let refuse = |status, error| axum_json(status, &json_rpc::failure(&Value::Null, &error));
    // A form of a web page can send other types without the browser asking first.
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json") {
        let error = RpcError::invalid_request(format!("content-type is {kind:?}, expected \"application/json\""));
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, error);
    }
    let body = match body {
        Ok(body) => body,
        Err(error) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            return refuse(StatusCode::PAYLOAD_TOO_LARGE, RpcError::body_too_large(BODY_BYTES_MAX));
        }
        Err(error) => return refuse(error.status(), RpcError::parse(error)),
    };
    match json_rpc::answer(&app.methods, &Caller::new(None), &body).await {
        Some(answer) => axum_json(StatusCode::OK, &answer),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// A WebSocket connection; or a short word to whoever looks with a browser.
async fn on_get(
    State(app): State<App>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    match upgrade {
        Ok(upgrade) => upgrade
            .max_message_size(BODY_BYTES_MAX)
            .max_frame_size(BODY_BYTES_MAX)
            .read_buffer_size(SOCKET_BUFFER_BYTES)
            .write_buffer_size(0)
            .on_upgrade(move |socket| socket::serve(socket, app.view, app.methods, app.stopping)),
        Err(rejection) if headers.contains_key(header::UPGRADE) => rejection.into_response(),
        Err(_) => welcome(&app.view),
    }
}

fn welcome(view: &View) -> Response {
    let body = json!({
        "interface": "JSON-RPC 2.0: POST a call here, or connect by WebSocket",
        "node": concat!("cairn-node ", env!("CARGO_PKG_VERSION")),
        "network": view.chain.genesis().network,
        "chain_id": view.chain.id().to_string(),
        "methods": api::METHODS.iter().map(|method| method.name).collect::<Vec<_>>(),
        "try": r#"{"jsonrpc":"2.0","id":1,"method":"rpc_methods"}"#,
        "see_also": ["/metrics", "/health", "/ready"],
    });
    axum_json(StatusCode::OK, &body)
}

async fn metrics(State(app): State<App>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &app.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => {
            tracing::error!("cannot write metrics: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// Whether this node's answers are up to date, as far as it can know.
async fn ready(State(app): State<App>) -> Response {
    match not_ready(&app.view) {
        None => axum_json(StatusCode::OK, &json!({"status": "ready"})),
        Some(reason) => axum_json(StatusCode::SERVICE_UNAVAILABLE, &json!({"status": "not ready", "reason": reason})),
    }
}

fn not_ready(view: &View) -> Option<String> {
    let activity = *view.activity.borrow();
    let height = view.tip.borrow().state.tip().height;
    if activity.syncing {
        return Some(format!("syncing: at height {height}, a peer has proved {}", activity.best_peer_height));
    }
    view.is_cut_off().then(|| "no peer is connected".to_owned())
}

async fn not_found(uri: Uri) -> Response {
    let body = json!({"error": format!("nothing at {}", uri.path()), "see": ["/", "/metrics", "/health", "/ready"]});
    axum_json(StatusCode::NOT_FOUND, &body)
}
