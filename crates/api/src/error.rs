//! The one shape of every error answer.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    /// The code for machines.
    pub code: ErrorCode,
    /// What happened, to what.
    pub detail: String,
    /// What to do next, when something can be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Finds the internal text in the control plane's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// Why a request was not served. Each code has one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// 400: the request cannot be read.
    BadRequest,
    /// 401: no token, or one that is not known here.
    Unauthenticated,
    /// 403: the token may not do this.
    Forbidden,
    /// 404: there is no such thing.
    NotFound,
    /// 405: the route has no such method.
    MethodNotAllowed,
    /// 408: the request took too long to arrive.
    Timeout,
    /// 409: the step may not follow what is recorded.
    IllegalStep,
    /// 409: the event id was used for another body.
    EventConflict,
    /// 409: the attempt was handed to another executor, or has ended.
    Fenced,
    /// 409: the task may not be claimed now.
    NotClaimable,
    /// 413: the body is larger than the route takes.
    TooLarge,
    /// 422: the request was read, but says something that cannot be.
    Invalid,
    /// 429: too many requests wait; try again after `Retry-After` seconds.
    Busy,
    /// 500: a bug; the log has the internal text under the request id.
    Internal,
    /// 503: the event store takes no writes any more.
    Unavailable,
    /// 507: the disk is full; reads still work.
    DiskFull,
}

impl ErrorCode {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Timeout => 408,
            Self::IllegalStep | Self::EventConflict | Self::Fenced | Self::NotClaimable => 409,
            Self::TooLarge => 413,
            Self::Invalid => 422,
            Self::Busy => 429,
            Self::Internal => 500,
            Self::Unavailable => 503,
            Self::DiskFull => 507,
        }
    }
}

impl ErrorBody {
    /// An error without a hint.
    pub fn new(code: ErrorCode, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), hint: None, request_id: None }
    }

    /// The same error with what to do next.
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

impl fmt::Display for ErrorBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.detail)?;
        if let Some(hint) = &self.hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}
