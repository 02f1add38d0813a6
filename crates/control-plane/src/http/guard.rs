//! What every request passes before its handler sees it: who asks, for how much, and for how long.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::token::Bearer;
use api::{Access, ErrorBody, ErrorCode, ROUTES, Route};
use axum::Json;
use axum::extract::{MatchedPath, Request, State};
use axum::http::Uri;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use model::{AttemptId, Epoch};
use tracing::Instrument;
use uuid::fmt::Simple;

use super::App;
use super::caller::Caller;
use super::failure::{Failure, no_such_method};
use super::trace;

/// How long a request may take from its first byte to its answer.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// How long `min_seq` waits.
const CATCH_UP: Duration = Duration::from_secs(5);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Lets a request through to its route if the table of routes and the caller's token allow it. A path that is
/// mounted but not in the table is closed. Nothing of the body is read before the caller is known.
pub(super) async fn admit(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let began = Instant::now();
    let (route, caller) = match check(&app, &request) {
        Ok(admitted) => admitted,
        Err(failure) => return failure.into_response(),
    };
    request.extensions_mut().insert(route);
    if caller != Caller::Anybody
        && let Err(failure) = catch_up(&app, request.uri_mut()).await
    {
        return failure.into_response();
    }
    if let Caller::Executor { attempt, epoch } = &caller {
        hear_of(&app, attempt, *epoch).await;
    }
    request.extensions_mut().insert(caller);
    let response = match tokio::time::timeout(TIME_LIMIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Failure::new(ErrorCode::Timeout, "the request took longer than 60 s").into_response(),
    };
    app.requests.answered(route, response.status().as_u16(), began.elapsed());
    response
}

fn check(app: &App, request: &Request) -> Result<(&'static Route, Caller), Failure> {
    let path = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
    let method = match request.method().as_str() {
        "HEAD" => "GET",
        other => other,
    };
    let route = ROUTES.iter().find(|route| route.path == path && route.method.as_str() == method);
    let Some(route) = route else {
        return Err(no_such_method(request.method(), request.uri()));
    };
    let caller = admit_caller(app, route.access, request.headers())?;
    if declared_length(request.headers()).is_some_and(|length| length > route.body_limit as u64) {
        return Err(too_large(route));
    }
    Ok((route, caller))
}

/// Takes `min_seq=N` out of a query, on every route, and waits until this process has seen record N. With several
/// control planes on one log, that is how to read what was recorded through another.
async fn catch_up(app: &App, uri: &mut Uri) -> Result<(), Failure> {
    let Some((wanted, rest)) = uri.query().and_then(split_min_seq) else { return Ok(()) };
    let invalid = || {
        let told = format!("min_seq is no number: {}", wanted.chars().take(80).collect::<String>());
        Failure::new(ErrorCode::Invalid, told).with_hint("give the `head` of an earlier answer")
    };
    let wanted: u64 = wanted.parse().map_err(|_| invalid())?;
    let path = if rest.is_empty() { uri.path().to_owned() } else { format!("{}?{rest}", uri.path()) };
    *uri = path.parse().map_err(|_| Failure::internal("a URI without min_seq is none"))?;
    let mut seen = app.ledger.seen();
    let caught_up = async { seen.wait_for(|seen| *seen >= wanted).await.is_ok() };
    if tokio::time::timeout(CATCH_UP, caught_up).await == Ok(true) {
        return Ok(());
    }
    let told = format!("record {wanted} was asked for, but only {} are known here", *seen.borrow());
    Err(Failure::new(ErrorCode::Unavailable, told).with_hint("ask again in a second, or without min_seq"))
}

/// An executor may turn to another control plane than the one that handed its attempt out. Waits until this one has
/// heard of it, so that it is not told to stop.
async fn hear_of(app: &App, attempt: &AttemptId, epoch: Epoch) {
    if !app.ledger.is_shared() {
        return;
    }
    let mut seen = app.ledger.seen();
    let is_known = || app.ledger.history().graph().attempt(attempt).is_some_and(|it| it.epoch.0 >= epoch.0);
    let known = async { while !is_known() && seen.changed().await.is_ok() {} };
    // If it is not known by then, the fence says so.
    let _ = tokio::time::timeout(CATCH_UP, known).await;
}

/// The value of `min_seq`, and the query without it.
fn split_min_seq(query: &str) -> Option<(String, String)> {
    let parts = || query.split('&');
    let wanted = parts().find_map(|part| part.strip_prefix("min_seq="))?;
    let rest: Vec<&str> = parts().filter(|part| !part.starts_with("min_seq=")).collect();
    Some((wanted.to_owned(), rest.join("&")))
}

fn admit_caller(app: &App, access: Access, headers: &HeaderMap) -> Result<Caller, Failure> {
    match access {
        Access::Public => Ok(Caller::Anybody),
        Access::Operator => match authenticate(app, headers)? {
            Bearer::Operator => Ok(Caller::Operator),
            Bearer::Executor { attempt, .. } => Err(Failure::new(
                ErrorCode::Forbidden,
                format!("the token of {attempt} may do nothing but report on its own attempt"),
            )),
        },
        Access::Executor => match authenticate(app, headers)? {
            Bearer::Operator => Ok(Caller::Operator),
            Bearer::Executor { attempt, epoch } => Ok(Caller::Executor { attempt, epoch }),
        },
    }
}

fn authenticate(app: &App, headers: &HeaderMap) -> Result<Bearer, Failure> {
    let unauthenticated = |detail| {
        Failure::new(ErrorCode::Unauthenticated, detail)
            .with_hint("send `Authorization: Bearer` with LEVIATHAN_CONTROL_PLANE_TOKEN")
    };
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let (scheme, token) = value
        .and_then(|value| value.split_once(' '))
        .ok_or_else(|| unauthenticated("the request bears no token"))?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthenticated("the request bears no token"));
    }
    app.keyring.bearer(token.trim()).ok_or_else(|| unauthenticated("the token is not known here"))
}

fn declared_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

pub(super) fn too_large(route: &Route) -> Failure {
    let (method, path, limit) = (route.method.as_str(), route.path, route.body_limit);
    Failure::new(ErrorCode::TooLarge, format!("{method} {path} takes at most {limit} bytes"))
        .with_hint("send it in parts, or store large content as an artifact")
}

/// Gives each request an id, and each failure its body with that id. A handler that panics is a bug of ours, and
/// an answer all the same.
pub(super) async fn answer(request: Request, next: Next) -> Response {
    let id = uuid::Uuid::new_v4().simple();
    let told = trace::begin(&request, id);
    let span = tracing::info_span!(
        "request",
        request.id = %id,
        trace_id = tracing::field::Empty,
        http.method = %request.method(),
        http.path = %request.uri().path()
    );
    if let Some(trace_id) = trace::trace_of(&told) {
        span.record("trace_id", tracing::field::display(trace_id));
    }
    let handling = next.run(request).instrument(span.clone()).instrument(told.clone());
    let handled = AssertUnwindSafe(handling).catch_unwind().await;
    let response = handled.unwrap_or_else(|_| Failure::internal("a handler panicked").into_response());
    trace::end(&told, response.status());
    let _entered = span.entered();
    let mut response = finish(response, id);
    if let Ok(value) = HeaderValue::from_str(id.encode_lower(&mut uuid::Uuid::encode_buffer())) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

fn finish(mut response: Response, id: Simple) -> Response {
    let Some(Failure { body, internal }) = response.extensions_mut().remove::<Failure>() else {
        tracing::debug!(http.status = response.status().as_u16(), "Answered a request.");
        return response;
    };
    let status = response.status();
    match internal {
        Some(text) => tracing::error!(http.status = status.as_u16(), error = ?text, "A request failed."),
        None => tracing::info!(http.status = status.as_u16(), detail = ?body.detail, "Refused a request."),
    }
    let code = body.code;
    let body = ErrorBody { request_id: Some(id.to_string()), ..body };
    let mut response = (status, Json(body)).into_response();
    match code {
        ErrorCode::Unauthenticated => {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        ErrorCode::Busy => {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        ErrorCode::BadRequest
        | ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::MethodNotAllowed
        | ErrorCode::Timeout
        | ErrorCode::IllegalStep
        | ErrorCode::EventConflict
        | ErrorCode::Fenced
        | ErrorCode::NotClaimable
        | ErrorCode::TooLarge
        | ErrorCode::Invalid
        | ErrorCode::Internal
        | ErrorCode::Unavailable
        | ErrorCode::DiskFull => {}
    }
    response
}
