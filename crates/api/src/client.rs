//! The client of the control plane: one method for each route.

use std::time::Duration;

use model::{AttemptId, Digest, Event, TargetId};
use reqwest::{ClientBuilder, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ErrorBody, ErrorCode};
use crate::http::{self, root_cause};
use crate::trace;
use crate::types;

/// Speaks to one control plane with one token. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    token: SecretString,
}

/// Why a call did not come back with what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The control plane answered, and the answer is no.
    #[error("{body}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What it said.
        body: ErrorBody,
    },
    /// No answer: nobody listens, the connection broke, or it took too long.
    #[error(
        "the control plane at {url} does not answer: {problem}; start it with `leviathan up` or correct LEVIATHAN_CONTROL_PLANE_URL"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What went wrong.
        problem: String,
    },
    /// An answer that is none of ours.
    #[error("{url} answers, but not as a control plane of this version: {problem}")]
    Unreadable {
        /// Where it came from.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The URL or the token cannot be used.
    #[error("{0}")]
    Unusable(String),
}

impl ClientError {
    /// The code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { body, .. } => Some(body.code),
            Self::Unreachable { .. } | Self::Unreadable { .. } | Self::Unusable(_) => None,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { body, .. } => matches!(
                body.code,
                ErrorCode::Busy
                    | ErrorCode::Unavailable
                    | ErrorCode::Timeout
                    | ErrorCode::DiskFull
                    | ErrorCode::Internal
            ),
            Self::Unreadable { .. } | Self::Unusable(_) => false,
        }
    }
}

impl Client {
    /// A client for the control plane at `base`, such as `http://127.0.0.1:8000`.
    pub fn new(base: &str, token: SecretString) -> Result<Self, ClientError> {
        let base = base.trim_end_matches('/').to_owned();
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(ClientError::Unusable(format!(
                "`{base}` is not the URL of a control plane: expected http://HOST:PORT or https://HOST:PORT"
            )));
        }
        if !token.expose_secret().bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ClientError::Unusable(
                "the token holds a space, a line end or another character that no request can carry; give it exactly as the control plane has it"
                    .to_owned(),
            ));
        }
        let http = builder(&base).build().map_err(|problem| {
            ClientError::Unusable(format!("no HTTP client can be made here: {}", root_cause(&problem)))
        })?;
        Ok(Self { http, base, token })
    }

    /// Where the control plane is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET /healthz`
    pub async fn health(&self) -> Result<types::Health, ClientError> {
        self.get("/healthz", &()).await
    }

    /// `GET /readyz`
    pub async fn readiness(&self) -> Result<types::Readiness, ClientError> {
        self.get("/readyz", &()).await
    }

    /// `POST /v1/events/ingest`
    pub async fn ingest(&self, events: Vec<Event>) -> Result<types::IngestResponse, ClientError> {
        self.post("/v1/events/ingest", &types::IngestRequest { bundle_id: None, events }).await
    }

    /// `GET /v1/events`
    pub async fn events(&self, query: &types::EventsQuery) -> Result<types::EventsPage, ClientError> {
        self.get("/v1/events", query).await
    }

    /// `GET /v1/log/checkpoint`
    pub async fn log_checkpoint(&self) -> Result<String, ClientError> {
        self.text("/v1/log/checkpoint", &()).await
    }

    /// `GET /v1/log/checkpoint?witnessed=true`
    pub async fn log_witnessed_checkpoint(&self) -> Result<String, ClientError> {
        self.text("/v1/log/checkpoint", &types::CheckpointQuery { witnessed: Some(true) }).await
    }

    /// `GET /v1/log/vkey`
    pub async fn log_vkey(&self) -> Result<String, ClientError> {
        self.text("/v1/log/vkey", &()).await
    }

    /// `GET /v1/log/tile/{path}`
    pub async fn log_tile(&self, path: &str) -> Result<bytes::Bytes, ClientError> {
        self.bytes(&format!("/v1/log/tile/{path}"), &()).await
    }

    /// `GET /v1/log/proof`
    pub async fn log_proof(&self, query: &types::ProofQuery) -> Result<String, ClientError> {
        self.text("/v1/log/proof", query).await
    }

    /// `GET /v1/log/consistency`
    pub async fn log_consistency(&self, query: &types::ConsistencyQuery) -> Result<Vec<String>, ClientError> {
        self.get("/v1/log/consistency", query).await
    }

    /// `GET /v1/log/entries`
    pub async fn log_entries(&self, query: &types::LogEntriesQuery) -> Result<bytes::Bytes, ClientError> {
        self.bytes("/v1/log/entries", query).await
    }

    /// `GET /v1/graph/summary`
    pub async fn graph_summary(&self) -> Result<types::GraphSummary, ClientError> {
        self.get("/v1/graph/summary", &()).await
    }

    /// `GET /v1/attempts`
    pub async fn attempts(&self, query: &types::AttemptsQuery) -> Result<types::AttemptList, ClientError> {
        self.get("/v1/attempts", query).await
    }

    /// `GET /v1/attempts/{id}`
    pub async fn attempt(&self, attempt: &AttemptId) -> Result<types::AttemptDetail, ClientError> {
        self.get(&format!("/v1/attempts/{attempt}"), &()).await
    }

    /// `GET /v1/failures`
    pub async fn failures(&self, query: &types::AttemptsQuery) -> Result<types::FailureList, ClientError> {
        self.get("/v1/failures", query).await
    }

    /// `GET /v1/tasks`
    pub async fn tasks(&self, query: &types::TasksQuery) -> Result<types::TaskList, ClientError> {
        self.get("/v1/tasks", query).await
    }

    /// `GET /v1/targets`
    pub async fn targets(&self) -> Result<types::TargetList, ClientError> {
        self.get("/v1/targets", &()).await
    }

    /// `POST /v1/targets/{id}/unregister`
    pub async fn unregister_target(
        &self,
        target: &TargetId,
        request: &types::ReasonRequest,
    ) -> Result<types::Steered, ClientError> {
        self.post(&format!("/v1/targets/{target}/unregister"), request).await
    }

    /// `POST /v1/targets/rejected`
    pub async fn reject_target(&self, request: &types::RejectTarget) -> Result<types::Steered, ClientError> {
        self.post("/v1/targets/rejected", request).await
    }

    /// `POST /v1/scheduler/passes`
    pub async fn request_pass(&self) -> Result<types::PassRequested, ClientError> {
        self.decode(self.send(self.http.post(self.url("/v1/scheduler/passes"))).await?).await
    }

    /// `GET /v1/scheduler/passes`
    pub async fn passes(&self, query: &types::PassesQuery) -> Result<types::Passes, ClientError> {
        self.get("/v1/scheduler/passes", query).await
    }

    /// `PUT /v1/scheduler/passes`
    pub async fn report_pass(&self, report: &types::PassReport) -> Result<(), ClientError> {
        let request = self.http.put(self.url("/v1/scheduler/passes")).json(report);
        self.send(request).await.map(|_| ())
    }

    /// `POST /v1/targets`
    pub async fn register_target(
        &self,
        request: &types::RegisterTarget,
    ) -> Result<types::TargetRegisteredResponse, ClientError> {
        self.post("/v1/targets", request).await
    }

    /// `PUT /v1/targets/{id}/observation`
    pub async fn observe_target(
        &self,
        target: &TargetId,
        observation: &types::TargetObservation,
    ) -> Result<(), ClientError> {
        let request = self.http.put(self.url(&format!("/v1/targets/{target}/observation"))).json(observation);
        self.send(request).await.map(|_| ())
    }

    /// `POST /v1/attempts/claim`
    pub async fn claim(&self, request: &types::ClaimRequest) -> Result<types::Dispatched, ClientError> {
        self.post("/v1/attempts/claim", request).await
    }

    /// `POST /v1/attempts/{id}/dispatch`
    pub async fn dispatch(
        &self,
        attempt: &AttemptId,
        request: &types::DispatchRequest,
    ) -> Result<types::Dispatched, ClientError> {
        self.post(&format!("/v1/attempts/{attempt}/dispatch"), request).await
    }

    /// `GET /v1/attempts/{id}/assignment`
    pub async fn assignment(&self, attempt: &AttemptId) -> Result<types::Assignment, ClientError> {
        self.get(&format!("/v1/attempts/{attempt}/assignment"), &()).await
    }

    /// `POST /v1/attempts/{id}/heartbeat`
    pub async fn heartbeat(
        &self,
        attempt: &AttemptId,
        request: &types::HeartbeatRequest,
    ) -> Result<types::HeartbeatResponse, ClientError> {
        self.post(&format!("/v1/attempts/{attempt}/heartbeat"), request).await
    }

    /// `POST /v1/attempts/{id}/lost`
    pub async fn lost(
        &self,
        attempt: &AttemptId,
        request: &types::LostRequest,
    ) -> Result<types::Steered, ClientError> {
        self.post(&format!("/v1/attempts/{attempt}/lost"), request).await
    }

    /// `POST /v1/attempts/{id}/cancel`
    pub async fn cancel(
        &self,
        attempt: &AttemptId,
        request: &types::ReasonRequest,
    ) -> Result<types::Steered, ClientError> {
        self.post(&format!("/v1/attempts/{attempt}/cancel"), request).await
    }

    /// `POST /v1/attempts/{id}/invalidate`
    pub async fn invalidate(
        &self,
        attempt: &AttemptId,
        request: &types::ReasonRequest,
    ) -> Result<types::Steered, ClientError> {
        self.post(&format!("/v1/attempts/{attempt}/invalidate"), request).await
    }

    /// `POST /v1/pause`
    pub async fn pause(&self, request: &types::ReasonRequest) -> Result<types::Steered, ClientError> {
        self.post("/v1/pause", request).await
    }

    /// `POST /v1/resume`
    pub async fn resume(&self, request: &types::ReasonRequest) -> Result<types::Steered, ClientError> {
        self.post("/v1/resume", request).await
    }

    /// `PUT /v1/artifacts/{sha256}`
    pub async fn put_artifact(&self, bytes: bytes::Bytes) -> Result<types::ArtifactReceipt, ClientError> {
        let digest = Digest::of(&bytes);
        let request = self.http.put(self.url(&format!("/v1/artifacts/{digest}"))).body(bytes);
        self.decode(self.send(request).await?).await
    }

    /// `GET /v1/artifacts/{sha256}`, verified against its name here too.
    pub async fn artifact(&self, digest: &Digest) -> Result<bytes::Bytes, ClientError> {
        let url = self.url(&format!("/v1/artifacts/{digest}"));
        let answer = self.send(self.http.get(&url)).await?;
        let bytes = answer.bytes().await.map_err(|problem| self.unreachable(&problem))?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(ClientError::Unreadable { url, problem: format!("the bytes are not those of {digest}") })
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, ClientError> {
        self.decode(self.send(self.http.get(self.url(path)).query(query)).await?).await
    }

    async fn bytes(&self, path: &str, query: &impl Serialize) -> Result<bytes::Bytes, ClientError> {
        let answer = self.send(self.http.get(self.url(path)).query(query)).await?;
        answer.bytes().await.map_err(|problem| self.unreachable(&problem))
    }

    async fn text(&self, path: &str, query: &impl Serialize) -> Result<String, ClientError> {
        let bytes = self.bytes(path, query).await?;
        String::from_utf8(bytes.into()).map_err(|problem| ClientError::Unreadable {
            url: self.base.clone(),
            problem: problem.to_string(),
        })
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.decode(self.send(self.http.post(self.url(path)).json(body)).await?).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let request = request.bearer_auth(self.token.expose_secret());
        let request = match trace::present() {
            Some(present) => request.header(trace::HEADER, present),
            None => request,
        };
        let response = request.send().await.map_err(|problem| self.unreachable(&problem))?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status: StatusCode = response.status();
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) => ClientError::Refused { status: status.as_u16(), body },
            // What stands between us and the control plane says that it cannot reach it either.
            Err(_) if matches!(status.as_u16(), 502..=504) => ClientError::Unreachable {
                url: self.base.clone(),
                problem: format!("something before it answers with HTTP status {status}"),
            },
            Err(_) => {
                ClientError::Unreadable { url: self.base.clone(), problem: format!("HTTP status {status}") }
            }
        }
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|problem| self.unreachable(&problem))?;
        serde_json::from_slice(&bytes).map_err(|problem| ClientError::Unreadable {
            url: self.base.clone(),
            problem: problem.to_string(),
        })
    }

    fn unreachable(&self, problem: &reqwest::Error) -> ClientError {
        ClientError::Unreachable { url: self.base.clone(), problem: root_cause(problem) }
    }
}

/// How long a connection may take to be made, and how long a whole call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// The token goes to the control plane alone.
fn builder(base: &str) -> ClientBuilder {
    http::builder(base.starts_with("https://"), CALL_TIMEOUT).connect_timeout(CONNECT_TIMEOUT)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A far side that answers one connection with these bytes and hangs up. Its URL.
    async fn far_side(answer: &'static [u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            let _ = connection.read(&mut [0; 4096]).await.unwrap();
            connection.write_all(answer).await.unwrap();
        });
        url
    }

    fn client(url: &str) -> Client {
        Client::new(url, SecretString::from("operator-token")).unwrap()
    }

    #[tokio::test]
    async fn each_way_of_not_answering_is_named_without_the_words_of_a_library() {
        let rows: [(&[u8], &str); 5] = [
            (b"", "does not answer: connection closed before message completed"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"status\":", "does not answer: "),
            (b"SSH-2.0-OpenSSH_9.9\r\n", "does not answer: invalid HTTP version parsed"),
            (
                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi",
                "not as a control plane of this version: expected value",
            ),
            (b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\nno", "HTTP status 404"),
        ];
        for (answer, expected) in rows {
            let error = client(&far_side(answer).await).health().await.unwrap_err().to_string();
            assert!(error.contains(expected), "{error} should contain {expected}");
            assert!(!error.contains("error sending request"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_says_how_to_start_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = client(&url).targets().await.unwrap_err();
        assert!(error.is_transient());
        assert_eq!(
            error.to_string(),
            format!(
                "the control plane at {url} does not answer: Connection refused (os error 111); start it with `leviathan up` or correct LEVIATHAN_CONTROL_PLANE_URL"
            )
        );
    }

    #[tokio::test]
    async fn a_refusal_keeps_its_code_and_a_redirect_is_not_followed() {
        let refusal = b"HTTP/1.1 409 Conflict\r\ncontent-length: 57\r\n\r\n{\"code\":\"not_claimable\",\"detail\":\"busy\",\"hint\":\"wait\"}   ";
        let error = client(&far_side(refusal).await).targets().await.unwrap_err();
        assert_eq!((error.code(), error.is_transient()), (Some(ErrorCode::NotClaimable), false));
        assert_eq!(error.to_string(), "busy; wait");
        let gateway = b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n";
        let error = client(&far_side(gateway).await).targets().await.unwrap_err();
        assert!(error.is_transient() && error.to_string().contains("HTTP status 502"), "{error}");
        let elsewhere = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n";
        let error = client(&far_side(elsewhere).await).targets().await.unwrap_err();
        assert!(error.to_string().contains("HTTP status 302"), "{error}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_before_anything_is_sent() {
        let rows = [
            ("127.0.0.1:8000", "t", "expected http://HOST:PORT or https://HOST:PORT"),
            ("ftp://control-plane", "t", "expected http://HOST:PORT"),
            ("http://127.0.0.1:8000", "two words", "the token holds a space"),
            ("http://127.0.0.1:8000", "line\n", "the token holds a space, a line end"),
        ];
        for (url, token, expected) in rows {
            let error = Client::new(url, SecretString::from(token)).err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("two words"), "a token is never shown: {error}");
        }
        assert!(Client::new("https://control-plane/", SecretString::from("t")).is_ok());
    }
}
