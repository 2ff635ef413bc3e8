//! Who may call the API: a token, and for those that need none, proof that no web page is behind it.
//!
//! A browser on the same host reaches a loopback address, too, on behalf of any page that is open in it. It
//! always says so, in ways that a page cannot change: `Origin` and `Sec-Fetch-Site` tell that a page asks,
//! `Host` which name the page has made up for this address, and neither a form nor a simple request can have a
//! content type of JSON or a header of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq as _;
use tracing::warn;

use super::problem::Problem;
use crate::telemetry::Seldom;

/// The header that says who acts.
pub const BY: &str = "x-postrider-by";

/// How long a name may be.
pub(super) const LONGEST_NAME: usize = 64;

/// Wrong tokens are answered one after the other, one in this time, however many ask.
const WRONG_TOKEN_EVERY: Duration = Duration::from_millis(250);

/// What callers have to show.
#[derive(Debug)]
pub(crate) struct Guard {
    /// The digest of the token. Digests are compared, so that not even its length can be measured.
    token: Option<[u8; 32]>,
    /// Requests without the right token, since the start.
    refused: AtomicU64,
    /// Whose turn it is to hear that a token was wrong.
    turn: tokio::sync::Mutex<()>,
    said: Seldom,
}

/// Who acts, as the request says: 1 to 64 printable characters.
#[derive(Debug, Clone)]
pub(crate) struct By(pub(crate) String);

impl Guard {
    pub(crate) fn new(token: Option<&str>) -> Self {
        Self {
            token: token.map(hashed),
            refused: AtomicU64::new(0),
            turn: tokio::sync::Mutex::new(()),
            said: Seldom::every(Duration::from_secs(1)),
        }
    }

    /// Whether every request has to show a token.
    pub(crate) fn needs_token(&self) -> bool {
        self.token.is_some()
    }

    /// Whether the request shows what it has to.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return true };
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let shown = shown.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        shown.is_some_and(|(_, shown)| hashed(shown.trim()).ct_eq(token).into())
    }

    /// Why the request may come from a web page that has no business here.
    fn suspects(&self, method: &Method, headers: &HeaderMap) -> Option<Problem> {
        let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or_default());
        let forbidden = |detail: String| Some(Problem::new(StatusCode::FORBIDDEN, detail));
        let host = text(HOST).unwrap_or_default();
        // With a token there is nothing to be gained by a made-up name: the page does not know the token.
        if self.token.is_none() && !is_loopback_name(host) {
            return Some(
                Problem::new(StatusCode::FORBIDDEN, format!("the host \"{host}\" is not this gateway's loopback address"))
                    .help("ask for 127.0.0.1, [::1] or localhost; behind a proxy, set admin.token"),
            );
        }
        if let Some(origin) = text(ORIGIN)
            && origin.split_once("://").is_none_or(|(_, authority)| !authority.eq_ignore_ascii_case(host))
        {
            return forbidden(format!("a page of \"{origin}\" may not use this API"));
        }
        if let Some(site) = headers.get("sec-fetch-site")
            && site != "same-origin"
            && site != "none"
        {
            return forbidden("a page of another site may not use this API".to_owned());
        }
        if method.is_safe() {
            return None;
        }
        let content_type = text(CONTENT_TYPE).unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !content_type.eq_ignore_ascii_case("application/json") {
            return Some(
                Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, format!("the content type is \"{content_type}\", not application/json"))
                    .help("send a body of JSON, {} if there is nothing to say"),
            );
        }
        By::read(headers).err()
    }
}

/// Lets a request pass that shows the token, and that no foreign web page can have sent.
pub(crate) async fn check(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    if let Some(problem) = guard.suspects(request.method(), request.headers()) {
        return problem.into_response();
    }
    if !guard.admits(request.headers()) {
        let refused = guard.refused.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(others) = guard.said.tell() {
            warn!(path = request.uri().path(), refused, others, "a request to the admin API without the right token");
        }
        let turn = guard.turn.lock().await;
        tokio::time::sleep(WRONG_TOKEN_EVERY).await;
        drop(turn);
        let problem = Problem::new(StatusCode::UNAUTHORIZED, "the token is missing or wrong")
            .help("send Authorization: Bearer TOKEN, with what [admin] token says");
        let mut response = problem.into_response();
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    next.run(request).await
}

impl By {
    fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let missing = |detail: &str| {
            Problem::bad(detail.to_owned())
                .help("the header X-Postrider-By says who acts, in 1 to 64 printable characters; the history keeps it")
        };
        let value = headers.get(BY).ok_or_else(|| missing("X-Postrider-By is missing"))?;
        let name = std::str::from_utf8(value.as_bytes()).map(str::trim).unwrap_or_default();
        if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(missing("X-Postrider-By is empty, too long, or not printable"));
        }
        Ok(Self(name.to_owned()))
    }
}

impl<S: Sync> FromRequestParts<S> for By {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::read(&parts.headers)
    }
}

fn hashed(token: &str) -> [u8; 32] {
    let mut octets = [0; 32];
    octets.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    octets
}

/// Whether a Host field names this host's loopback, whatever the port: a tunnel may have another.
fn is_loopback_name(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or(("", "x")),
        None => host.split_once(':').map_or((host, ""), |(name, port)| (name, port)),
    };
    let port = rest.trim_start_matches(':');
    port.chars().all(|c| c.is_ascii_digit())
        && (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_names_of_loopback_are_taken_without_a_token() {
        for good in ["127.0.0.1", "127.0.0.1:8025", "localhost:1", "LOCALHOST", "[::1]", "[::1]:8025", "127.1.2.3:9"] {
            assert!(is_loopback_name(good), "{good}");
        }
        for bad in
            ["", "evil.example", "evil.example:8025", "localhost.evil.example", "10.0.0.1", "[::2]:1", "127.0.0.1:80@x", "[::1", "[::1]x"]
        {
            assert!(!is_loopback_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_page_of_another_site_is_suspected_and_a_program_is_not() {
        let open = Guard::new(None);
        let act = [("host", "127.0.0.1:8025"), ("content-type", "application/json"), (BY, "anna")];
        let with = |more: &[(&'static str, &str)]| headers(&[&act[..], more].concat());
        assert!(open.suspects(&Method::POST, &with(&[])).is_none());
        assert!(open.suspects(&Method::POST, &with(&[("origin", "http://127.0.0.1:8025")])).is_none(), "its own page");
        for foreign in [
            ("origin", "http://evil.example"),
            ("origin", "null"),
            ("origin", "http://127.0.0.1:9"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            for method in [Method::GET, Method::POST] {
                assert!(open.suspects(&method, &with(&[foreign])).is_some(), "{foreign:?}");
            }
        }
        // What a form can send.
        for missing in 1..3 {
            let mut fields = act.to_vec();
            fields.remove(missing);
            assert!(open.suspects(&Method::POST, &headers(&fields)).is_some(), "{fields:?}");
            assert!(open.suspects(&Method::GET, &headers(&fields)).is_none(), "{fields:?}");
        }
        let rebound = headers(&[("host", "evil.example:8025")]);
        assert!(open.suspects(&Method::GET, &rebound).is_some());
        assert!(Guard::new(Some("0123456789abcdef")).suspects(&Method::GET, &rebound).is_none(), "the token protects");
    }

    #[test]
    fn the_token_must_be_the_whole_one() {
        let guard = Guard::new(Some("0123456789abcdef"));
        assert!(guard.admits(&headers(&[("authorization", "Bearer 0123456789abcdef")])));
        for wrong in ["Bearer 0123456789abcde", "Bearer 0123456789abcdefg", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer "] {
            assert!(!guard.admits(&headers(&[("authorization", wrong)])), "{wrong}");
        }
        assert!(!guard.admits(&headers(&[])));
        assert!(Guard::new(None).admits(&headers(&[])));
    }
}
