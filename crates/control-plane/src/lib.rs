//! What happened: the event store, its only writer, the graph that follows from it, and the HTTP server in front.
//!
//! Other crates see [`Server`], [`copy_log`], and what [`measure`] measures for benchmarks. Inside, data flows one way:
//! `http` reads requests and hands proposals to the `ledger`, which decides on one thread what is recorded, makes it
//! durable in the `store`, takes it into the `history`, and only then answers. Behind it, `checkpoints` signs what is
//! durable, and `witness` shows that to somebody elsewhere. This crate never touches a target's repository and starts no attempt: it records, refuses and tells.

mod admission;
mod artifacts;
mod cache;
mod checkpoints;
mod durable;
mod history;
mod http;
mod ledger;
pub mod measure;
mod presence;
mod server;
mod snapshots;
mod start;
mod steering;
mod store;
mod trouble;
mod verification;
mod witness;

pub use artifacts::{ArtifactPlace, BucketAccess, BucketUrl, InvalidBucketUrl};
pub use journal::WitnessKey;
pub use server::{Backend, Config, Database, Server, copy_log, serve};
pub use witness::{InvalidWitnessUrl, WitnessAccess, WitnessUrl};
