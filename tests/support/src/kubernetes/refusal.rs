//! Refusals, as the `Status` objects that Kubernetes answers with.

use serde_json::{Value, json};

use super::resources::Resource;

/// A request that was not carried out, and what is said about it.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: u16,
    reason: &'static str,
    message: String,
    details: Value,
}

/// A field that is not as it has to be.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    field: String,
    reason: &'static str,
    message: String,
}

impl Problem {
    pub(super) fn invalid(field: impl Into<String>, value: &Value, detail: impl std::fmt::Display) -> Self {
        let message = format!("Invalid value: {value}: {detail}");
        Self { field: field.into(), reason: "FieldValueInvalid", message }
    }

    pub(super) fn required(field: impl Into<String>, detail: &str) -> Self {
        let message = match detail {
            "" => "Required value".to_owned(),
            detail => format!("Required value: {detail}"),
        };
        Self { field: field.into(), reason: "FieldValueRequired", message }
    }

    pub(super) fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        let message = format!("Forbidden: {detail}");
        Self { field: field.into(), reason: "FieldValueForbidden", message }
    }

    pub(super) fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Duplicate value: {value}");
        Self { field: field.into(), reason: "FieldValueDuplicate", message }
    }

    pub(super) fn not_found(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Not found: {value}");
        Self { field: field.into(), reason: "FieldValueNotFound", message }
    }

    pub(super) fn unsupported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let supported: Vec<String> = supported.iter().map(|one| format!("{one:?}")).collect();
        let message = format!("Unsupported value: {value}: supported values: {}", supported.join(", "));
        Self { field: field.into(), reason: "FieldValueNotSupported", message }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

fn details(resource: &Resource, name: &str) -> Value {
    let mut details = json!({ "kind": resource.plural });
    if !name.is_empty() {
        details["name"] = name.into();
    }
    if !resource.group.is_empty() {
        details["group"] = resource.group.into();
    }
    details
}

impl Refusal {
    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self { code, reason, message, details: json!({}) }
    }

    pub(super) fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".into())
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }

    /// A path that nothing is served at.
    pub(super) fn no_such_path() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource".into())
    }

    pub(super) fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} not found", resource.qualified());
        Self { details: details(resource, name), ..Self::new(404, "NotFound", message) }
    }

    pub(super) fn no_such_namespace(namespace: &str) -> Self {
        let message = format!("namespaces {namespace:?} not found");
        let details = json!({ "name": namespace, "kind": "namespaces" });
        Self { details, ..Self::new(404, "NotFound", message) }
    }

    pub(super) fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", resource.qualified());
        Self { details: details(resource, name), ..Self::new(409, "AlreadyExists", message) }
    }

    pub(super) fn conflict(resource: &Resource, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", resource.qualified());
        Self { details: details(resource, name), ..Self::new(409, "Conflict", message) }
    }

    pub(super) fn forbidden(resource: &Resource, name: &str, why: &str) -> Self {
        let subject = match name {
            "" => resource.qualified(),
            name => format!("{} {name:?}", resource.qualified()),
        };
        let message = format!("{subject} is forbidden: {why}");
        Self { details: details(resource, name), ..Self::new(403, "Forbidden", message) }
    }

    pub(super) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message.into())
    }

    /// A version that history no longer reaches back to.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message.into())
    }

    pub(super) fn too_large() -> Self {
        Self::new(413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728".into())
    }

    pub(super) fn unsupported_media_type() -> Self {
        let message = "the body of the request was in an unknown format - accepted media types include: \
                       application/merge-patch+json, application/strategic-merge-patch+json";
        Self::new(415, "UnsupportedMediaType", message.into())
    }

    pub(super) fn invalid(resource: &Resource, name: &str, problems: &[Problem]) -> Self {
        let words: Vec<String> = problems.iter().map(Problem::to_string).collect();
        let words = if words.len() == 1 { words.join("") } else { format!("[{}]", words.join(", ")) };
        let message = format!("{} {name:?} is invalid: {words}", resource.qualified_kind());
        let causes: Vec<Value> = problems
            .iter()
            .map(|problem| {
                json!({ "reason": problem.reason, "message": problem.message, "field": problem.field })
            })
            .collect();
        let mut details = details(resource, name);
        details["kind"] = resource.kind.into();
        details["causes"] = causes.into();
        Self { details, ..Self::new(422, "Invalid", message) }
    }

    pub(super) fn too_many_requests(retry_after: u64) -> Self {
        let message = "Too many requests, please try again later.";
        let details = json!({ "retryAfterSeconds": retry_after });
        Self { details, ..Self::new(429, "TooManyRequests", message.into()) }
    }

    pub(super) fn internal(message: &str) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    pub(super) fn unavailable() -> Self {
        Self::new(503, "ServiceUnavailable", "apiserver is shutting down".into())
    }

    pub(super) fn timeout() -> Self {
        let message =
            "Timeout: request did not complete within requested timeout - context deadline exceeded";
        Self::new(504, "Timeout", message.into())
    }

    pub(super) fn version_from_the_future(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let causes =
            json!([{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }]);
        let details = json!({ "retryAfterSeconds": 1, "causes": causes });
        Self { details, ..Self::new(504, "Timeout", message) }
    }

    /// How many seconds the client is asked to wait.
    pub(super) fn retry_after(&self) -> Option<u64> {
        self.details["retryAfterSeconds"].as_u64()
    }

    /// What it says.
    pub(super) fn message(&self) -> &str {
        &self.message
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "details": self.details, "code": self.code,
        })
    }
}
