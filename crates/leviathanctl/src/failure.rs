//! Why a command did not do what was asked, and the exit code that says so to programs.

use std::io;
use std::process::ExitCode;

use api::{ClientError, ErrorBody, ErrorCode};

/// Every way in which a command ends early. Each text says what happened, to what, and what to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The question was understood and the answer is no. Exit code 1.
    No(String),
    /// The question could not be asked or answered. Exit code 2.
    NotRun(String),
    /// Whoever read the output has seen enough. Exit code 0, and nothing to say.
    ReaderGone,
}

impl Failure {
    /// What to say on standard error, and the exit code.
    pub(crate) fn report(self) -> (Option<String>, ExitCode) {
        match self {
            Self::No(text) => (Some(text), ExitCode::from(1)),
            Self::NotRun(text) => (Some(text), ExitCode::from(2)),
            Self::ReaderGone => (None, ExitCode::SUCCESS),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused { body, .. } => refused(body),
            ClientError::Unreachable { .. } | ClientError::Unreadable { .. } | ClientError::Unusable(_) => {
                Self::NotRun(error.to_string())
            }
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::NotRun(format!("the output cannot be written: {error}"))
        }
    }
}

fn refused(body: ErrorBody) -> Failure {
    let hint = body.hint.clone().or_else(|| next_step(body.code).map(str::to_owned));
    let mut text = body.detail.clone();
    if let Some(hint) = hint {
        text.push_str(&format!("; {hint}"));
    }
    if let Some(request) = &body.request_id {
        text.push_str(&format!(" (request {request})"));
    }
    match body.code {
        ErrorCode::Forbidden
        | ErrorCode::NotFound
        | ErrorCode::IllegalStep
        | ErrorCode::EventConflict
        | ErrorCode::Fenced
        | ErrorCode::NotClaimable
        | ErrorCode::TooLarge
        | ErrorCode::Invalid => Failure::No(text),
        ErrorCode::BadRequest
        | ErrorCode::Unauthenticated
        | ErrorCode::MethodNotAllowed
        | ErrorCode::Timeout
        | ErrorCode::Busy
        | ErrorCode::Internal
        | ErrorCode::Unavailable
        | ErrorCode::DiskFull => Failure::NotRun(text),
    }
}

/// What to do about a refusal that the control plane gave no hint for.
fn next_step(code: ErrorCode) -> Option<&'static str> {
    match code {
        ErrorCode::Unauthenticated => {
            Some("set LEVIATHAN_CONTROL_PLANE_TOKEN to the token that the control plane was started with")
        }
        ErrorCode::Forbidden => Some("use the operator's token, not that of an attempt"),
        ErrorCode::BadRequest | ErrorCode::MethodNotAllowed => {
            Some("use a leviathanctl of the same version as the control plane")
        }
        ErrorCode::Timeout | ErrorCode::Busy => Some("try again in a moment"),
        ErrorCode::Internal => Some("look for the request in the log of the control plane"),
        ErrorCode::Unavailable => Some("restart the control plane; reads still work"),
        ErrorCode::DiskFull => Some("free space on the control plane's disk, then try again"),
        ErrorCode::NotFound
        | ErrorCode::IllegalStep
        | ErrorCode::EventConflict
        | ErrorCode::Fenced
        | ErrorCode::NotClaimable
        | ErrorCode::TooLarge
        | ErrorCode::Invalid => None,
    }
}
