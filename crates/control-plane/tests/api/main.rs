//! The control plane as its clients see it: real HTTP, real files, the real client.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

mod access;
mod artifacts;
mod attempts;
mod defects;
mod ingest;
mod log;
mod reading;
mod registration;
mod replicas;
mod shared_log;
mod signing;
mod starting;
mod streaming;
mod support;
mod watching;
mod witness;
