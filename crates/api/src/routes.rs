//! Every route, once: the server mounts this table, the client calls it, and the OpenAPI document is made of it.

use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::types;

/// An HTTP method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Acts.
    Post,
    /// Stores under a known name; the same again changes nothing.
    Put,
}

impl Method {
    /// The word in the request line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
        }
    }
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody who reaches the listener.
    Public,
    /// Whoever bears the operator's token.
    Operator,
    /// The operator, and an attempt's executor within its own attempt and epoch.
    Executor,
}

/// What a body holds.
#[derive(Debug, Clone, Copy)]
pub enum Body {
    /// Nothing.
    Empty,
    /// JSON of this schema.
    Json(fn(&mut SchemaGenerator) -> Schema),
    /// Bytes.
    Bytes,
    /// Text of this media type.
    Text(&'static str),
}

/// Text for people and for programs that know its format.
const PLAIN: Body = Body::Text("text/plain");
/// One JSON value in each line.
const LINES: Body = Body::Text("application/x-ndjson");

/// One route.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// How it is called.
    pub method: Method,
    /// Its path; `{name}` stands for one segment, `{*name}` for all that follow.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// Its query parameters, as the schema of an object.
    pub query: Option<fn(&mut SchemaGenerator) -> Schema>,
    /// What the request's body holds.
    pub request: Body,
    /// What the body of a success holds.
    pub response: Body,
    /// The largest request body, in bytes.
    pub body_limit: usize,
}

/// The largest body of an ordinary request.
const SMALL: usize = 2 << 20;
/// The largest bundle of events.
const BUNDLE: usize = 4 << 20;
/// The largest artifact.
const ARTIFACT: usize = 64 << 20;

const fn get(path: &'static str, access: Access, summary: &'static str, response: Body) -> Route {
    Route {
        method: Method::Get,
        path,
        access,
        summary,
        query: None,
        request: Body::Empty,
        response,
        body_limit: 0,
    }
}

const fn post(
    path: &'static str,
    access: Access,
    summary: &'static str,
    request: Body,
    response: Body,
) -> Route {
    Route { method: Method::Post, path, access, summary, query: None, request, response, body_limit: SMALL }
}

impl Route {
    /// Its path as OpenAPI spells it, which has no word for several segments.
    pub fn template(&self) -> String {
        self.path.replace("{*", "{")
    }

    const fn query(self, query: fn(&mut SchemaGenerator) -> Schema) -> Self {
        Self { query: Some(query), ..self }
    }

    const fn put(self, body_limit: usize) -> Self {
        Self { method: Method::Put, body_limit, ..self }
    }

    const fn limit(self, body_limit: usize) -> Self {
        Self { body_limit, ..self }
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn object<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    T::json_schema(generator)
}

const fn json<T: JsonSchema>() -> Body {
    Body::Json(schema::<T>)
}

/// Every route of the control plane.
pub const ROUTES: &[Route] = &[
    get("/healthz", Access::Public, "Whether the process answers.", json::<types::Health>()),
    get(
        "/readyz",
        Access::Public,
        "Whether the log can be written, and how far it was verified.",
        json::<types::Readiness>(),
    ),
    get("/metrics", Access::Operator, "What is to be watched, for Prometheus.", Body::Text("application/openmetrics-text")),
    get("/openapi.json", Access::Public, "This document.", json::<serde_json::Value>()),
    post(
        "/v1/events/ingest",
        Access::Executor,
        "Records a bundle of events: all of them durably, or none.",
        json::<types::IngestRequest>(),
        json::<types::IngestResponse>(),
    )
    .limit(BUNDLE),
    get("/v1/events", Access::Operator, "The log, filtered and in order.", json::<types::EventsPage>())
        .query(object::<types::EventsQuery>),
    get(
        "/v1/events/stream",
        Access::Operator,
        "The log from `after` or `Last-Event-ID` on, filtered, then every event as it is recorded: `id` is its seq, \
         `data` the event. `limit` and `newest` do not fit.",
        Body::Text("text/event-stream"),
    )
    .query(object::<types::EventsQuery>),
    get(
        "/v1/log/checkpoint",
        Access::Operator,
        "Size and root of the log at its newest checkpoint, signed: a note as C2SP tlog-checkpoint has it, with the cosignature of the witness if there is one.",
        PLAIN,
    )
    .query(object::<types::CheckpointQuery>),
    get("/v1/log/vkey", Access::Operator, "The key that verifies the log's checkpoints.", PLAIN),
    get(
        "/v1/log/tile/{*path}",
        Access::Operator,
        "Hashes of the tree over the log: the tile `LEVEL/INDEX`, or `LEVEL/INDEX.p/WIDTH`, as C2SP tlog-tiles has it.",
        Body::Bytes,
    ),
    get(
        "/v1/log/proof",
        Access::Operator,
        "The proof that an event is in the log: a text as C2SP tlog-proof has it. Waits for the checkpoint that covers the event.",
        PLAIN,
    )
    .query(object::<types::ProofQuery>),
    get(
        "/v1/log/consistency",
        Access::Operator,
        "The proof that the log of one size begins with that of another: hashes in base64, as RFC 6962 orders them.",
        json::<Vec<String>>(),
    )
    .query(object::<types::ConsistencyQuery>),
    get(
        "/v1/log/entries",
        Access::Operator,
        "Records of the log, each in the bytes that the journal keeps and hashes.",
        LINES,
    )
    .query(object::<types::LogEntriesQuery>),
    get(
        "/v1/graph/summary",
        Access::Operator,
        "How much of everything there is, and the newest events.",
        json::<types::GraphSummary>(),
    ),
    get("/v1/attempts", Access::Operator, "Attempts, newest first.", json::<types::AttemptList>())
        .query(object::<types::AttemptsQuery>),
    get(
        "/v1/attempts/{attempt_id}",
        Access::Operator,
        "What one attempt touched, who allowed it, what was checked, what it cost.",
        json::<types::AttemptDetail>(),
    ),
    get("/v1/failures", Access::Operator, "Failures, newest first.", json::<types::FailureList>())
        .query(object::<types::AttemptsQuery>),
    get("/v1/tasks", Access::Operator, "Every task, and why it does not run now.", json::<types::TaskList>())
        .query(object::<types::TasksQuery>),
    get("/v1/targets", Access::Operator, "Every registered target.", json::<types::TargetList>()),
    post(
        "/v1/targets",
        Access::Operator,
        "Registers a target by its contract.",
        json::<types::RegisterTarget>(),
        json::<types::TargetRegisteredResponse>(),
    ),
    post(
        "/v1/targets/{target_id}/observation",
        Access::Operator,
        "Says what a scheduler saw of a target.",
        json::<types::TargetObservation>(),
        Body::Empty,
    )
    .put(SMALL),
    post(
        "/v1/targets/{target_id}/unregister",
        Access::Operator,
        "Begins nothing more of a target; what is under way goes on.",
        json::<types::ReasonRequest>(),
        json::<types::Steered>(),
    ),
    post(
        "/v1/targets/rejected",
        Access::Operator,
        "Records that a scheduler found a registration which is not accepted.",
        json::<types::RejectTarget>(),
        json::<types::Steered>(),
    ),
    get(
        "/v1/scheduler/passes",
        Access::Operator,
        "Which passes were asked for and made; waits for either on request.",
        json::<types::Passes>(),
    )
    .query(object::<types::PassesQuery>),
    post(
        "/v1/scheduler/passes",
        Access::Operator,
        "Asks the schedulers for a pass.",
        Body::Empty,
        json::<types::PassRequested>(),
    ),
    post(
        "/v1/scheduler/passes",
        Access::Operator,
        "Says that a scheduler made a pass which began after that request.",
        json::<types::PassReport>(),
        Body::Empty,
    )
    .put(SMALL),
    post(
        "/v1/attempts/claim",
        Access::Operator,
        "Claims a task for a new attempt, if nothing forbids it now.",
        json::<types::ClaimRequest>(),
        json::<types::Dispatched>(),
    ),
    post(
        "/v1/attempts/{attempt_id}/dispatch",
        Access::Operator,
        "Hands a waiting attempt out again, with a new epoch.",
        json::<types::DispatchRequest>(),
        json::<types::Dispatched>(),
    ),
    get(
        "/v1/attempts/{attempt_id}/assignment",
        Access::Executor,
        "Everything that the executor of an attempt must know.",
        json::<types::Assignment>(),
    ),
    post(
        "/v1/attempts/{attempt_id}/heartbeat",
        Access::Executor,
        "Keeps the lease of an attempt; 409 tells the executor to stop.",
        json::<types::HeartbeatRequest>(),
        json::<types::HeartbeatResponse>(),
    ),
    post(
        "/v1/attempts/{attempt_id}/lost",
        Access::Operator,
        "Records that the executor of an attempt is gone.",
        json::<types::LostRequest>(),
        json::<types::Steered>(),
    ),
    post(
        "/v1/attempts/{attempt_id}/cancel",
        Access::Operator,
        "Stops an attempt.",
        json::<types::ReasonRequest>(),
        json::<types::Steered>(),
    ),
    post(
        "/v1/attempts/{attempt_id}/invalidate",
        Access::Operator,
        "Declares an attempt void, stopping it first when it is live; its task may run again.",
        json::<types::ReasonRequest>(),
        json::<types::Steered>(),
    ),
    post(
        "/v1/pause",
        Access::Operator,
        "Stops new attempts, everywhere or for one target.",
        json::<types::ReasonRequest>(),
        json::<types::Steered>(),
    ),
    post(
        "/v1/resume",
        Access::Operator,
        "Lets new attempts run again, everywhere or for one target.",
        json::<types::ReasonRequest>(),
        json::<types::Steered>(),
    ),
    post(
        "/v1/artifacts/{sha256}",
        Access::Executor,
        "Stores bytes under their SHA-256.",
        Body::Bytes,
        json::<types::ArtifactReceipt>(),
    )
    .put(ARTIFACT),
    get(
        "/v1/artifacts/{sha256}",
        Access::Executor,
        "The bytes of that SHA-256, verified when read; for an executor, if its own attempt stored them.",
        Body::Bytes,
    ),
];
