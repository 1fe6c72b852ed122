//! The RPC server: JSON-RPC over HTTP and WebSocket, metrics and health, on one port.
//!
//! Readers get snapshots and final blocks. A submission goes to the verifier like any other
//! transaction. Nothing here changes the chain. Everything is bounded: connections, requests,
//! answers, waits, reads of the store, and the work that one address may cause. When places run
//! out, the least useful connection is closed. When memory runs out, connections that have long
//! held unread answers or unfinished requests are closed.

mod accept;
mod answer;
mod budget;
mod convert;
mod counts;
mod error;
mod guard;
mod json_rpc;
mod methods;
mod pages;
mod params;
mod places;
mod pool;
mod reads;
mod requests;
mod socket;
mod stream;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::http::header;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, http};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Error as SocketError;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::server::create_response_with_body;
use tower_http::timeout::TimeoutLayer;

use self::accept::Session;
use self::budget::{Budgets, REFILL};
use self::counts::Counts;
use self::error::RpcError;
use self::guard::Guard;
use self::json_rpc::refusal;
use self::methods::{Caller, Methods, WAIT_MAX};
pub(crate) use self::places::CONNECTIONS_MAX;
use self::places::Places;
use self::pool::{ANSWERS_BYTES_MAX, Pool, REQUESTS_BYTES_MAX, Room};
use crate::view::View;

/// Most bytes of a request.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Send buffer of a connection. It bounds how much of an unread answer the system holds. Linux
/// doubles it to 256 KiB. Without this value Linux may hold 4 MiB a connection, or 2 GiB for all
/// 512 connections. At a round trip of 100 ms, 256 KiB allow 2.5 MB per second, which is enough.
const SEND_BUFFER_BYTES: u32 = 128 << 10;
/// Most connections that wait in the system to be accepted.
const BACKLOG: u32 = 1_024;
/// Longest time for a whole request: to arrive, to wait, and to be answered. Each of these parts
/// also has a shorter limit of its own.
const REQUEST_MAX: Duration = WAIT_MAX.saturating_mul(2);
/// How long connections may take to finish when the node stops. Then they are closed.
const STOP_MAX: Duration = Duration::from_secs(2);
/// Most scrapes of metrics at once: each reads files of the system.
const SCRAPES_MAX: usize = 2;

/// Where the server listens and who may call it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RpcConfig {
    /// Address and port. With port 0 the system chooses a free one.
    pub listen: SocketAddr,
    /// Further host names, without port, that requests may name. `localhost`, loopback addresses
    /// and the listening address are always allowed.
    pub allowed_hosts: Vec<String>,
    /// Origins of web pages that may call the server, such as `https://wallet.example`. By default
    /// there are none.
    pub allowed_origins: Vec<String>,
    /// Most connections at the same time. Some of their places are for pages only or are kept free.
    /// When no place for calls is free, the least useful connection is closed for a new one.
    pub connections_max: usize,
}

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for RPC on {address}: {source}{}", hint(source))]
pub struct BindError {
    /// The address that was tried.
    pub address: SocketAddr,
    /// What the operating system answered.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; does another node run here? choose another port or stop it",
        _ => "",
    }
}

/// A port that is bound but not served yet.
pub struct RpcListener {
    listener: TcpListener,
    address: SocketAddr,
    guard: Guard,
    connections_max: usize,
    bounds: Bounds,
}

/// Bounds that tests lower.
#[derive(Clone, Copy)]
struct Bounds {
    /// Most bytes of all unread answers.
    answers_bytes: usize,
    /// Microseconds of work per second that an address may cause; loopback may cause ten times as
    /// much.
    refill: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { answers_bytes: ANSWERS_BYTES_MAX, refill: REFILL }
    }
}

impl RpcListener {
    /// The listening address, with the actual port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Binds the port. Connections wait until [`serve`] accepts them.
///
/// # Errors
/// `BindError`, usually because another process has the port.
pub async fn bind(config: &RpcConfig) -> Result<RpcListener, BindError> {
    let fail = |source| BindError { address: config.listen, source };
    let listener = listen(config.listen).map_err(fail)?;
    let address = listener.local_addr().map_err(fail)?;
    let guard = Guard::new(address, &config.allowed_hosts, &config.allowed_origins);
    Ok(RpcListener {
        listener,
        address,
        guard,
        connections_max: config.connections_max,
        bounds: Bounds::default(),
    })
}

/// A listener whose connections have a small send buffer.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As in `TcpListener::bind`, so that a restarted node can bind its port again.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until `shutdown` is ready. Then waiting callers get an error, and the task ends within
/// two seconds.
pub fn serve(
    listener: RpcListener,
    view: View,
    mut registry: Registry,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let (stop, stopping) = watch::channel(false);
    let counts = Counts::register(&mut registry);
    let app = App {
        methods: Arc::new(Methods::new(view.clone(), stopping.clone(), counts, listener.bounds)),
        view,
        registry: Arc::new(registry),
        requests: Pool::new(REQUESTS_BYTES_MAX),
        scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
        scrape_budgets: Arc::new(Budgets::new(listener.bounds.refill)),
        stopping: stopping.clone(),
    };
    let router = router(app.clone(), listener.guard);
    let accepting = accept::run(
        listener.listener,
        Places::new(listener.connections_max),
        app,
        router,
        stopping,
    );
    tokio::spawn(async move {
        let signal = async {
            shutdown.await;
            stop.send_replace(true);
        };
        tokio::join!(accepting, signal);
    })
}

/// The handlers' shared state.
#[derive(Clone)]
struct App {
    view: View,
    methods: Arc<Methods>,
    registry: Arc<Registry>,
    /// Memory for requests until they are answered.
    requests: Arc<Pool>,
    scrapes: Arc<Semaphore>,
    /// Scrapes are paid from accounts of their own. Otherwise other calls from the monitor's
    /// address could use up its budget, and the monitor would not see the node any more.
    scrape_budgets: Arc<Budgets>,
    stopping: watch::Receiver<bool>,
}

fn router(app: App, guard: Guard) -> Router {
    Router::new()
        .route("/", get(on_get).post(on_post))
        .route("/metrics", get(pages::metrics))
        .route("/health", get(pages::health))
        .route("/ready", get(pages::ready))
        .fallback(pages::not_found)
        .layer(TimeoutLayer::with_status_code(StatusCode::SERVICE_UNAVAILABLE, REQUEST_MAX))
        .layer(from_fn_with_state(Arc::new(guard), guard::layer))
        .with_state(app)
}

fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.into()).into_response()
}

/// A call or batch over HTTP.
async fn on_post(
    State(app): State<App>,
    Extension(session): Extension<Arc<Session>>,
    request: Request,
) -> Response {
    let place = &session.place;
    let (head, body) = request.into_parts();
    let mut room = Room::new(&app.requests, place);
    let body = match requests::read(&head.headers, body, &mut room).await {
        Ok(_) if place.pages_only => Err((StatusCode::SERVICE_UNAVAILABLE, RpcError::busy())),
        read => read,
    };
    let body = match body {
        Ok(body) => body,
        Err((status, error)) => return json_response(status, refusal(&error)),
    };
    let _work = place.work();
    match json_rpc::answer(&app.methods, &Caller::new(place, None), &body).await {
        Some(answer) => json_response(StatusCode::OK, Body::new(answer)),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Opens a WebSocket connection, or answers a plain GET with a description of the server.
async fn on_get(
    State(app): State<App>,
    Extension(session): Extension<Arc<Session>>,
    mut request: Request,
) -> Response {
    if !request.headers().contains_key(header::UPGRADE) {
        return pages::welcome(&app.view);
    }
    let response = match create_response_with_body(&request, Body::empty) {
        Ok(response) => response,
        Err(error) => return no_socket(&error),
    };
    if session.place.pages_only || !session.place.become_socket() {
        return json_response(StatusCode::SERVICE_UNAVAILABLE, refusal(&RpcError::busy()));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    *session.upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(upgrade);
    response
}

fn no_socket(error: &SocketError) -> Response {
    let status = match error {
        SocketError::Protocol(ProtocolError::MissingSecWebSocketVersionHeader) => {
            StatusCode::UPGRADE_REQUIRED
        }
        _ => StatusCode::BAD_REQUEST,
    };
    let version = [(http::HeaderName::from_static("sec-websocket-version"), "13")];
    (status, version, format!("no WebSocket connection: {error}\n")).into_response()
}
