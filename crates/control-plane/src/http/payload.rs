//! Reading what a request carries: its body within the limit of its route, its query, and the ids in its path.

use api::{ErrorCode, Route};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use model::IdError;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::guard;

/// The whole body, not longer than its route takes.
pub(super) struct Payload(pub(super) Bytes);

/// A body of JSON.
pub(super) struct Json<T>(pub(super) T);

/// The parameters after the `?`.
pub(super) struct Filters<T>(pub(super) T);

/// The one id in the path.
pub(super) struct Id<T>(pub(super) T);

impl<S: Send + Sync> FromRequest<S> for Payload {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let route = *request
            .extensions()
            .get::<&'static Route>()
            .ok_or_else(|| Failure::internal("a route is not behind the guard"))?;
        match Limited::new(request.into_body(), route.body_limit).collect().await {
            Ok(body) => Ok(Self(body.to_bytes())),
            Err(error) if error.is::<LengthLimitError>() => Err(guard::too_large(route)),
            Err(error) => {
                Err(Failure::new(ErrorCode::BadRequest, format!("the body cannot be read: {error}")))
            }
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let Payload(bytes) = Payload::from_request(request, state).await?;
        parse(&bytes).map(Json)
    }
}

/// Reads JSON: 400 when it is none, 422 when it says something that cannot be.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|problem| {
        let code = match problem.classify() {
            serde_json::error::Category::Data => ErrorCode::Invalid,
            serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof
            | serde_json::error::Category::Io => ErrorCode::BadRequest,
        };
        Failure::new(code, format!("the body does not fit: {problem}"))
            .with_hint("GET /openapi.json says what this route takes")
    })
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Filters<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        match Query::<T>::try_from_uri(&parts.uri) {
            Ok(Query(filters)) => Ok(Self(filters)),
            Err(problem) => Err(Failure::new(ErrorCode::Invalid, problem.body_text())
                .with_hint("GET /openapi.json lists the parameters of this route")),
        }
    }
}

impl<S: Send + Sync, T: std::str::FromStr<Err = IdError>> FromRequestParts<S> for Id<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(text) = Path::<String>::from_request_parts(parts, state)
            .await
            .map_err(|problem| Failure::new(ErrorCode::BadRequest, problem.body_text()))?;
        match text.parse() {
            Ok(id) => Ok(Self(id)),
            Err(problem) => Err(Failure::new(ErrorCode::Invalid, problem.to_string())),
        }
    }
}
