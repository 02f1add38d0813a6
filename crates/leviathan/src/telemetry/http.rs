//! How a collector is called: by the HTTP client of the house, on the thread that sends spans, and never for longer than
//! it was told.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use tokio::runtime::Runtime;

/// More than a collector has to say; what comes after it is not read.
const LONGEST_ANSWER: usize = 64 << 10;

/// Calls a collector. It has a runtime of its own, so that it works before, beside and after that of the role.
pub(super) struct Client {
    http: reqwest::Client,
    runtime: Option<Runtime>,
}

impl Client {
    /// For calls that take `timeout` at most; over TLS only if `is_secure`.
    pub(super) fn new(timeout: Duration, is_secure: bool) -> anyhow::Result<Self> {
        let http = api::http::builder(is_secure, timeout)
            .build()
            .context("no HTTP client for the collector can be made here")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.context("cannot start the runtime that calls the collector")?;
        Ok(Self { http, runtime: Some(runtime) })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// Whoever drops the last handle may be on an async thread, where no runtime may end by waiting.
impl Drop for Client {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[async_trait]
impl HttpClient for Client {
    /// Blocks the thread that sends spans, which has nothing else to do.
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let runtime = self.runtime.as_ref().ok_or("the client has ended")?;
        runtime.block_on(call(&self.http, request))
    }
}

async fn call(http: &reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (parts, body) = request.into_parts();
    let request = http.request(parts.method, parts.uri.to_string()).headers(parts.headers).body(body);
    // The words of the client name the URL, in which somebody may have put a password.
    let mut answer = request.send().await.map_err(reqwest::Error::without_url)?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        headers.extend(answer.headers().iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    let mut body = Vec::new();
    while let Some(piece) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        body.extend_from_slice(&piece);
        if body.len() > LONGEST_ANSWER {
            return Err("the collector answers more than 64 KiB".into());
        }
    }
    Ok(response.body(body.into())?)
}
