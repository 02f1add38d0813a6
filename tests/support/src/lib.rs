//! The far sides of our protocols, for tests. No crate of ours is known here: what is tested cannot help itself.

pub mod claude;
pub mod collector;
pub mod git_http;
pub mod github;
pub mod kubernetes;
pub mod postgres;
pub mod reference;
pub mod repository;
pub mod s3;
pub mod witness;
