//! Every answer that is no success, in one shape; and the one place where an error becomes an HTTP status.

use api::{ErrorBody, ErrorCode};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use model::graph::Refusal;

use crate::artifacts::ArtifactError;
use crate::checkpoints::NotServed;
use crate::ledger::{Fenced, NotRecorded, ReplayError};
use crate::presence::BoardError;
use crate::steering::Denied;
use crate::store::ReadError;

/// What the caller hears, and what only the log of this process says.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) body: ErrorBody,
    pub(super) internal: Option<String>,
}

impl Failure {
    pub(super) fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { body: ErrorBody::new(code, detail), internal: None }
    }

    pub(super) fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { body: self.body.with_hint(hint), ..self }
    }

    /// A fault of ours or of this machine: the caller learns where to find its text, not the text.
    pub(super) fn internal(text: impl Into<String>) -> Self {
        let failure = Self::new(ErrorCode::Internal, "the control plane could not do this");
        let failure = failure.with_hint("look for this request id in the log of the control plane");
        Self { internal: Some(text.into()), ..failure }
    }
}

/// Not the body yet: [`super::guard::answer`] writes it, when it knows the request id.
impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status =
            StatusCode::from_u16(self.body.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

pub(super) async fn no_such_route(uri: Uri) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is nothing at {}", shown(uri.path())))
        .with_hint("GET /openapi.json lists every route")
}

pub(super) async fn method_not_allowed(method: Method, uri: Uri) -> Failure {
    no_such_method(&method, &uri)
}

pub(super) fn no_such_method(method: &Method, uri: &Uri) -> Failure {
    Failure::new(ErrorCode::MethodNotAllowed, format!("{} takes no {method}", shown(uri.path())))
        .with_hint("GET /openapi.json lists every route")
}

fn shown(path: &str) -> String {
    path.chars().take(200).flat_map(char::escape_debug).collect()
}

impl From<NotRecorded> for Failure {
    fn from(error: NotRecorded) -> Self {
        let detail = error.to_string();
        match error {
            NotRecorded::Conflict { .. } => Self::new(ErrorCode::EventConflict, detail)
                .with_hint("nothing of this bundle was recorded; give a new event its own id"),
            NotRecorded::Ambiguous { .. } => Self::new(ErrorCode::Invalid, detail)
                .with_hint("nothing of this bundle was recorded; give each event its own id"),
            NotRecorded::Illegal { .. } => {
                Self::new(ErrorCode::IllegalStep, detail).with_hint("nothing of this bundle was recorded")
            }
            NotRecorded::Fenced(fenced) => fenced.into(),
            NotRecorded::Denied(denied) => denied.into(),
            NotRecorded::NotAdmitted(_) => Self::new(ErrorCode::Invalid, detail),
            NotRecorded::Bundle(_) => Self::new(ErrorCode::TooLarge, detail),
            NotRecorded::Busy => Self::new(ErrorCode::Busy, detail).with_hint("try again in a second"),
            NotRecorded::Full => {
                Self::new(ErrorCode::DiskFull, detail).with_hint("free some space, then try again")
            }
            NotRecorded::Unavailable { reason } => Self {
                internal: Some(reason),
                ..Self::new(
                    ErrorCode::Unavailable,
                    "the journal cannot be reached; nobody knows yet whether this was recorded",
                )
                .with_hint(
                    "ask again in a second, with the same event ids: what was recorded is not recorded twice",
                )
            },
            NotRecorded::Stopped { reason } => Self {
                internal: Some(reason),
                ..Self::new(ErrorCode::Unavailable, "the journal takes no writes any more; reads still work")
                    .with_hint(
                        "the control plane stops by itself: restart it once its disk or database is well",
                    )
            },
        }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        let detail = denied.to_string();
        match denied {
            Denied::Unknown(refusal) => refusal.into(),
            Denied::NotClaimable { .. } | Denied::Edited(_) => Self::new(ErrorCode::NotClaimable, detail),
            Denied::Fenced(fenced) => fenced.into(),
            Denied::Alive { .. } | Denied::Ended { .. } => Self::new(ErrorCode::IllegalStep, detail),
            Denied::NoReason => Self::new(ErrorCode::Invalid, detail),
        }
    }
}

impl From<BoardError> for Failure {
    fn from(error: BoardError) -> Self {
        let failure = Self::new(
            ErrorCode::Unavailable,
            "the database cannot be reached, by which the control planes of this log tell each other what was asked",
        );
        Self { internal: Some(error.to_string()), ..failure.with_hint("ask again in a second") }
    }
}

impl From<Fenced> for Failure {
    fn from(fenced: Fenced) -> Self {
        let detail = fenced.to_string();
        match fenced {
            Fenced::Unknown(_) | Fenced::Epoch { .. } | Fenced::Ended { .. } => {
                Self::new(ErrorCode::Fenced, detail).with_hint("stop working on it")
            }
        }
    }
}

/// Of something that was asked for by its id.
impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::UnknownTarget(_) | Refusal::UnknownAttempt(_) => Self::new(ErrorCode::NotFound, detail),
            Refusal::UnknownTask { .. } => Self::new(ErrorCode::NotFound, detail)
                .with_hint("`leviathanctl tasks-list` shows those there are"),
            Refusal::OtherSubject(_) | Refusal::IllegalStep { .. } | Refusal::IllegalTaskStep { .. } => {
                Self::new(ErrorCode::IllegalStep, detail)
            }
        }
    }
}

impl From<ArtifactError> for Failure {
    fn from(error: ArtifactError) -> Self {
        let detail = error.to_string();
        match error {
            ArtifactError::Mismatch { .. } => Self::new(ErrorCode::Invalid, detail),
            ArtifactError::Missing(_) => Self::new(ErrorCode::NotFound, detail)
                .with_hint("`leviathanctl attempts-show ATTEMPT` lists the artifacts of an attempt"),
            ArtifactError::Full => Self::new(ErrorCode::DiskFull, detail).with_hint("free some space"),
            ArtifactError::Damaged { name, .. } => Self {
                internal: Some(detail),
                ..Self::new(ErrorCode::Internal, format!("the artifact {name} is damaged and is not served"))
                    .with_hint("restore it from a backup, or store it again")
            },
            ArtifactError::Unreachable { .. } => Self {
                internal: Some(detail),
                ..Self::new(ErrorCode::Unavailable, "the store of artifacts cannot be reached")
                    .with_hint("try again in a second; the log of the control plane says what it met")
            },
            ArtifactError::Io { .. } => Self::internal(detail),
        }
    }
}

impl From<NotServed> for Failure {
    fn from(error: NotServed) -> Self {
        let detail = error.to_string();
        match error {
            NotServed::Beyond { .. } => Self::new(ErrorCode::NotFound, detail)
                .with_hint("GET /v1/log/checkpoint says what is signed; new records follow within a second"),
            NotServed::Shrunk { .. } => Self::new(ErrorCode::Invalid, detail),
            NotServed::Failed(_) => Self::internal(detail),
        }
    }
}

impl From<ReplayError> for Failure {
    fn from(error: ReplayError) -> Self {
        let text = error.to_string();
        match error {
            ReplayError::Read(ReadError::Unavailable { .. }) => {
                let failure = Self::new(ErrorCode::Unavailable, "the journal cannot be reached");
                Self { internal: Some(text), ..failure.with_hint("ask again in a second") }
            }
            ReplayError::Read(
                ReadError::Io { .. } | ReadError::Damaged { .. } | ReadError::Altered { .. },
            )
            | ReplayError::Unknown(_) => Self::internal(text),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        Self::internal(error.to_string())
    }
}
