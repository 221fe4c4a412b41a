//! From requests to responses.

use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};

use super::{BODY_TIME, Server};

/// Bytes of a request's body: a scenario and its changes.
const MOST_BODY: usize = 128 << 10;

/// Headers of every response: nobody else may show, read or keep it.
const HEADERS: [(&str, &str); 5] = [
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// A status with a text.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) kind: &'static str,
    pub(super) text: String,
}

impl Reply {
    pub(super) fn json(status: StatusCode, value: &Value) -> Self {
        Self { status, kind: "application/json", text: value.to_string() }
    }

    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({ "error": message }))
    }
}

/// Answers a request; nothing that it says makes this fail.
pub(super) async fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let head = request.method() == Method::HEAD;
    let reply = route(&server, request).await;
    let text = if head { String::new() } else { reply.text };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = reply.status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(reply.kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if reply.status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    }
    Ok(response)
}

async fn route(server: &Arc<Server>, request: Request<Incoming>) -> Reply {
    if !server.hosts.meant(request.headers()) {
        return Reply::error(
            StatusCode::MISDIRECTED_REQUEST,
            "this server is not the host that the request names",
        );
    }
    if !server.hosts.own(request.headers()) {
        return Reply::error(StatusCode::FORBIDDEN, "requests from other pages are not answered");
    }
    let path = request.uri().path().to_owned();
    let wrong_method = || Reply::error(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method");
    if path == "/api/predict" {
        return if request.method() == Method::POST {
            predict(server, request).await
        } else {
            wrong_method()
        };
    }
    let reads = request.method() == Method::GET || request.method() == Method::HEAD;
    match (path.as_str(), path.strip_prefix("/scenarios/")) {
        ("/" | "/index.html", _) if reads => {
            Reply { status: StatusCode::OK, kind: "text/html; charset=utf-8", text: server.page.clone() }
        }
        (_, Some(name)) if reads => match decoded(name).and_then(|name| server.folder.scenario(&name)) {
            Some(text) => Reply { status: StatusCode::OK, kind: "text/plain; charset=utf-8", text },
            None => Reply::error(StatusCode::NOT_FOUND, "the folder has no such scenario"),
        },
        ("/" | "/index.html", _) | (_, Some(_)) => wrong_method(),
        _ => Reply::error(StatusCode::NOT_FOUND, "there is nothing here"),
    }
}

/// A path's piece without its percent signs; none where they are wrong.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
            bytes.push((digit()? * 16 + digit()?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

async fn predict(server: &Arc<Server>, request: Request<Incoming>) -> Reply {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return Reply::error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must be application/json");
    }
    let too_large = || {
        let message = format!("the body may have {MOST_BODY} bytes");
        Reply::error(StatusCode::PAYLOAD_TOO_LARGE, &message)
    };
    if request.body().size_hint().lower() > MOST_BODY as u64 {
        return too_large();
    }
    let body = Limited::new(request.into_body(), MOST_BODY).collect();
    let body = match tokio::time::timeout(BODY_TIME, body).await {
        Err(_) => return Reply::error(StatusCode::REQUEST_TIMEOUT, "the body took too long"),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return too_large(),
        Ok(Err(_)) => return Reply::error(StatusCode::BAD_REQUEST, "the body broke off"),
        Ok(Ok(body)) => body.to_bytes(),
    };
    server.desk.predict(server, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded_or_refused() {
        assert_eq!(decoded("a%20b.toml").as_deref(), Some("a b.toml"));
        assert_eq!(decoded("..%2f..%2Fetc").as_deref(), Some("../../etc"));
        for wrong in ["%", "%2", "%zz", "%ff"] {
            assert_eq!(decoded(wrong), None, "{wrong}");
        }
    }
}
