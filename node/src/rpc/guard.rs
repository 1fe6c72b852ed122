//! Who may call: programs that use an allowed host name, and web pages that the operator allows.
//! Other web pages may not.
//!
//! A web page can make its visitor's browser call any address that the browser reaches. The
//! `Origin` header of such a call names the page's origin. A page may also make its own host name
//! point to this machine (DNS rebinding). The browser then takes page and server for the same
//! origin, but the `Host` header still has the page's host name.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// CORS headers: what a browser may send and read for an allowed page.
const CORS: [(HeaderName, &str); 3] = [
    (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type"),
    (header::ACCESS_CONTROL_MAX_AGE, "600"),
];

/// The host names by which this server may be called, and the origins of web pages that may call
/// it.
#[derive(Debug)]
pub(super) struct Guard {
    listen: IpAddr,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Guard {
    pub(super) fn new(listen: SocketAddr, hosts: &[String], origins: &[String]) -> Self {
        let lower =
            |names: &[String]| names.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        Self { listen: listen.ip(), hosts: lower(hosts), origins: lower(origins) }
    }

    /// Checks the headers of a request. Returns the foreign origin that may read the answer, or why
    /// the request is refused.
    fn check<'a>(&self, headers: &'a HeaderMap) -> Result<Option<&'a HeaderValue>, String> {
        let host = single(headers, &header::HOST)?.ok_or("the Host header is missing")?;
        if !self.allows_host(host) {
            return Err(format!(
                "host {host:?} is not allowed here; use the listening address or localhost, or add \
                 the name to rpc.allowed_hosts"
            ));
        }
        match single(headers, &header::ORIGIN)? {
            None => Ok(None),
            // The page came from this server.
            Some(origin)
                if origin
                    .strip_prefix("http://")
                    .is_some_and(|of| of.eq_ignore_ascii_case(host)) =>
            {
                Ok(None)
            }
            Some(origin) if self.origins.contains(&origin.to_ascii_lowercase()) => {
                Ok(headers.get(header::ORIGIN))
            }
            Some(origin) => Err(format!(
                "web pages of {origin:?} are not allowed here; add the origin to \
                 rpc.allowed_origins"
            )),
        }
    }

    fn allows_host(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let literal =
            name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&name);
        match literal.parse::<IpAddr>() {
            // A host that is an IP address cannot be rebound by DNS. A server that listens on all
            // addresses accepts every one, since it does not know those of this machine.
            Ok(ip) => {
                ip.is_loopback()
                    || ip == self.listen
                    || self.listen.is_unspecified()
                    || self.hosts.contains(&name)
            }
            Err(_) => name == "localhost" || self.hosts.contains(&name),
        }
    }
}

/// The text of a header that may occur once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, String> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(Some).map_err(|_| format!("header {name} is not plain text"))
        }
        (Some(_), Some(_)) => Err(format!("header {name} is given twice")),
    }
}

/// Removes the port from `name:port` or `[v6]:port`, if there is one.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port))
            if port.bytes().all(|byte| byte.is_ascii_digit()) && !host.ends_with(']') =>
        {
            name
        }
        _ => host,
    }
}

/// Middleware that checks each request before any handler sees it.
pub(super) async fn layer(
    State(guard): State<Arc<Guard>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = match guard.check(request.headers()) {
        Ok(origin) => origin.cloned(),
        Err(reason) => return (StatusCode::FORBIDDEN, reason + "\n").into_response(),
    };
    let Some(origin) = origin else { return next.run(request).await };
    let mut response = if request.method() == Method::OPTIONS {
        (StatusCode::NO_CONTENT, CORS, Body::empty()).into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("origin"));
    response
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn check(listen: &str, headers: &[(&str, &str)]) -> Result<bool, String> {
        let (hosts, origins) = (["Node.Example".to_owned()], ["https://wallet.example".to_owned()]);
        let guard = Guard::new(listen.parse().unwrap(), &hosts, &origins);
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        guard.check(&map).map(|origin| origin.is_some())
    }

    #[test]
    fn hosts() {
        for (listen, host, allowed) in [
            ("127.0.0.1:7701", "127.0.0.1:7701", true),
            ("127.0.0.1:7701", "127.0.0.1", true),
            ("127.0.0.1:7701", "LocalHost:9", true),
            ("127.0.0.1:7701", "[::1]:7701", true),
            ("127.0.0.1:7701", "[::1]", true),
            ("127.0.0.1:7701", "node.example:7701", true),
            ("127.0.0.1:7701", "node.example.evil:7701", false),
            ("127.0.0.1:7701", "localhost.evil", false),
            ("127.0.0.1:7701", "evil.localhost.evil:7701", false),
            ("127.0.0.1:7701", "127.0.0.1.evil", false),
            ("127.0.0.1:7701", "10.0.0.5", false),
            ("127.0.0.1:7701", "", false),
            ("10.0.0.5:7701", "10.0.0.5:7701", true),
            ("10.0.0.5:7701", "10.0.0.6:7701", false),
            ("0.0.0.0:7701", "10.0.0.6:7701", true),
            ("0.0.0.0:7701", "evil.example", false),
            ("[::]:7701", "[2001:db8::1]:7701", true),
        ] {
            assert_eq!(check(listen, &[("host", host)]).is_ok(), allowed, "{listen} {host}");
        }
        assert!(check("127.0.0.1:1", &[]).is_err());
        assert!(check("127.0.0.1:1", &[("host", "localhost"), ("host", "localhost")]).is_err());
    }

    #[test]
    fn origins() {
        for (origin, expected) in [
            ("https://wallet.example", Some(true)),
            ("http://localhost:7701", Some(false)),
            ("https://localhost:7701", None),
            ("http://localhost:7702", None),
            ("http://wallet.example", None),
            ("https://wallet.example.evil", None),
            ("null", None),
            ("", None),
        ] {
            let headers = [("host", "localhost:7701"), ("origin", origin)];
            assert_eq!(check("127.0.0.1:7701", &headers).ok(), expected, "{origin}");
        }
    }
}
