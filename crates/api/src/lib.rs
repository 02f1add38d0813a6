//! What crosses the wire between Leviathan's roles: routes, requests, responses, errors, tokens, and the one
//! client that speaks them.
//!
//! The control plane serves these routes; the scheduler, the executor and `leviathanctl` call them through
//! [`Client`]. The crate knows nothing of how events are stored or attempts are run.

mod client;
mod error;
pub mod http;
mod openapi;
mod routes;
pub mod token;
pub mod trace;
pub mod types;

pub use client::{Client, ClientError};
pub use error::{ErrorBody, ErrorCode};
pub use openapi::openapi;
pub use routes::{Access, Method, ROUTES, Route};
