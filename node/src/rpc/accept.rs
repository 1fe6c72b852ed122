//! Accepts connections. Each gets a place and is served over HTTP/1.1 until it ends, is evicted or
//! the server stops.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::places::{Place, Places};
use super::socket;
use super::stream::Stream;
use super::{App, STOP_MAX};

/// How long a connection may go without a complete request head, since it was accepted or last
/// answered. A head that arrives byte by byte does not extend it.
const HEAD_MAX: Duration = Duration::from_secs(10);
/// How long a client may go without reading a byte of its answer.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a request head, and about how much of an answer a connection buffers.
const BUFFER_BYTES: usize = 64 << 10;
/// Pause after the system has failed to accept a connection, for example for lack of file
/// descriptors.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);
/// Least time between two log lines about such failures.
const REFUSED_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// The connection of a request.
pub(super) struct Session {
    pub(super) place: Place,
    /// Set by the request that turns the connection into a WebSocket.
    pub(super) upgrade: Mutex<Option<OnUpgrade>>,
}

/// Accepts connections until the server stops. Then open connections have [`STOP_MAX`] to finish.
pub(super) async fn run(
    listener: TcpListener,
    places: Arc<Places>,
    app: App,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    let mut logged: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopping.wait_for(|stopping| *stopping) => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok((tcp, address)) => {
                // Without a place the connection is closed at once.
                let Some(place) = places.take(address.ip()) else { continue };
                connections.spawn(serve(tcp, place, app.clone(), router.clone(), stopping.clone()));
            }
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                // The store and peers need descriptors more than an idle client does.
                places.give_way();
                if logged.is_none_or(|at| at.elapsed() > REFUSED_LOG_INTERVAL) {
                    tracing::warn!("cannot accept a connection for RPC: {error}");
                    logged = Some(Instant::now());
                }
                sleep(REFUSED_PAUSE).await;
            }
        }
    }
    // From here on connections to the port are refused.
    drop(listener);
    if timeout(STOP_MAX, async { while connections.join_next().await.is_some() {} }).await.is_err()
    {
        tracing::debug!("some RPC connections did not finish in time");
    }
}

async fn accept(listener: &TcpListener, places: &Places) -> io::Result<(TcpStream, SocketAddr)> {
    places.settled().await;
    listener.accept().await
}

/// Whether the client went away before its connection was accepted.
fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn serve(
    tcp: TcpStream,
    place: Place,
    app: App,
    router: Router,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are written whole, so waiting for more bytes (Nagle's algorithm) only delays them.
    let _ = tcp.set_nodelay(true);
    let session = Arc::new(Session { place, upgrade: Mutex::default() });
    let (router, of_request) = (TowerToHyperService::new(router), Arc::clone(&session));
    let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(Arc::clone(&of_request));
        router.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_MAX)
        .max_buf_size(BUFFER_BYTES)
        .serve_connection(TokioIo::new(Stream::new(tcp, STALL_MAX)), service)
        .with_upgrades();
    {
        let mut connection = pin!(connection);
        let stopped = async {
            let _ = stopping.wait_for(|stopping| *stopping).await;
        };
        tokio::select! {
            _ended = connection.as_mut() => {}
            () = session.place.cut() => return,
            () = stopped => {
                connection.as_mut().graceful_shutdown();
                let _ended = connection.await;
            }
        }
    }
    let upgrade = session.upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(upgrade) = upgrade
        && let Ok(upgraded) = upgrade.await
    {
        socket::serve(upgraded, &session.place, &app).await;
    }
}
