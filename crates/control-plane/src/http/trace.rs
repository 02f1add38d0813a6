//! The span of a request, for a collector: what it is told of the request, and whose trace it belongs to.
//!
//! It is told the route and never the path, and no query, header or body: nothing that a caller wrote but the ids of its
//! own trace. Where no collector is configured the span is disabled, and all of this is one look at a flag.

use api::trace::{HEADER, TARGET};
use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::TraceContextExt;
use opentelemetry::{Context, TraceId};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The span of a request that just came, in the trace of the caller if it named one.
pub(super) fn begin(request: &Request, id: uuid::fmt::Simple) -> Span {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let method = known(request.method());
    let span = tracing::info_span!(
        target: TARGET,
        "request",
        otel.name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}")),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        request.id = %id,
    );
    if !span.is_disabled() && request.headers().contains_key(HEADER) {
        // It fails only for a span that has begun or that nobody sees.
        let _ = span.set_parent(caller(request.headers()));
    }
    span
}

/// The trace that a span belongs to, if anybody sees it.
pub(super) fn trace_of(span: &Span) -> Option<TraceId> {
    if span.is_disabled() {
        return None;
    }
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| context.trace_id())
}

/// How the request was answered.
pub(super) fn end(span: &Span, status: StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// A method, if it is one of those that are spoken here: anything else is a word of the caller.
fn known(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        _ => "_OTHER",
    }
}

/// The span that the caller names. Its `tracestate`, which may hold any text, is left alone.
fn caller(headers: &HeaderMap) -> Context {
    TraceContextPropagator::new().extract_with_context(&Context::new(), &TraceParent(headers))
}

struct TraceParent<'a>(&'a HeaderMap);

impl Extractor for TraceParent<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == HEADER).then(|| self.0.get(HEADER)?.to_str().ok()).flatten()
    }

    fn keys(&self) -> Vec<&str> {
        vec![HEADER]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_believed_its_trace_and_nothing_else() {
        let mut headers = HeaderMap::new();
        headers.insert("tracestate", "vendor=a-secret".parse().unwrap());
        assert!(!caller(&headers).span().span_context().is_valid());
        for (value, is_valid) in [
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", true),
            ("00-00000000000000000000000000000000-00f067aa0ba902b7-01", false),
            ("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false),
            ("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false),
            ("my-password", false),
            ("", false),
        ] {
            headers.insert(HEADER, value.parse().unwrap());
            let context = caller(&headers);
            let span = context.span();
            assert_eq!(span.span_context().is_valid(), is_valid, "{value}");
            assert_eq!(span.span_context().trace_state().header(), "", "{value}");
        }
    }
}
