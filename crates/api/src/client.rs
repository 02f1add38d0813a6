//! The client of the control plane: one method for each route.

use std::time::Duration;

use model::{AttemptId, Digest, Event, TargetId};
use reqwest::{RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{ErrorBody, ErrorCode};
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
        "the control plane at {url} does not answer: {source}; start it with `leviathan up` or correct LEVIATHAN_CONTROL_PLANE_URL"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// What went wrong.
        #[source]
        source: reqwest::Error,
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
        // The error of a second installation only says that a provider is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(120))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("leviathan/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|problem| {
                ClientError::Unusable(format!("no HTTP client can be made here: {problem}"))
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
        let bytes = self.send(self.http.get(&url)).await?.bytes().await;
        let bytes = bytes.map_err(|source| ClientError::Unreachable { url: url.clone(), source })?;
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(ClientError::Unreadable { url, problem: format!("the bytes are not those of {digest}") })
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, query: &impl Serialize) -> Result<T, ClientError> {
        self.decode(self.send(self.http.get(self.url(path)).query(query)).await?).await
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.decode(self.send(self.http.post(self.url(path)).json(body)).await?).await
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, ClientError> {
        let request = request.bearer_auth(self.token.expose_secret());
        let response = request.send().await.map_err(|source| ClientError::Unreachable {
            url: self.base.clone(),
            source: source.without_url(),
        })?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    async fn refusal(&self, response: Response) -> ClientError {
        let status: StatusCode = response.status();
        let text = response.text().await.unwrap_or_default();
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(body) => ClientError::Refused { status: status.as_u16(), body },
            Err(_) => {
                ClientError::Unreadable { url: self.base.clone(), problem: format!("HTTP status {status}") }
            }
        }
    }

    async fn decode<T: DeserializeOwned>(&self, response: Response) -> Result<T, ClientError> {
        let bytes = response.bytes().await.map_err(|source| ClientError::Unreachable {
            url: self.base.clone(),
            source: source.without_url(),
        })?;
        serde_json::from_slice(&bytes).map_err(|problem| ClientError::Unreadable {
            url: self.base.clone(),
            problem: problem.to_string(),
        })
    }
}
