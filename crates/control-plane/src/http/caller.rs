//! Who asks. Made by the guard; a handler that takes a [`Caller`] can rely on the table of routes.

use api::ErrorCode;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use model::{AttemptId, Epoch};

use super::failure::Failure;
use crate::ledger::Fence;

/// Whoever sent the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Caller {
    /// Nobody in particular: the route is public.
    Anybody,
    /// The operator or a scheduler.
    Operator,
    /// The executor of one attempt in one epoch.
    Executor {
        /// The attempt.
        attempt: AttemptId,
        /// The epoch.
        epoch: Epoch,
    },
}

impl Caller {
    /// The fence for something about `attempt`: none for the operator, the caller's own for its executor, and a
    /// refusal for everybody else.
    pub(super) fn fence_for(&self, attempt: &AttemptId) -> Result<Option<Fence>, Failure> {
        match self {
            Self::Operator => Ok(None),
            Self::Executor { attempt: own, epoch } if own == attempt => {
                Ok(Some(Fence { attempt: own.clone(), epoch: *epoch }))
            }
            Self::Executor { attempt: own, .. } => Err(Failure::new(
                ErrorCode::Forbidden,
                format!("the token of {own} may not act for {attempt}"),
            )),
            Self::Anybody => Err(Failure::internal("a public route asked for a fence")),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Failure::internal("a route is not behind the guard"))
    }
}
