//! The target crate on real repositories, through its public functions.

#![expect(clippy::unwrap_used, reason = "a test that cannot prepare its ground has failed")]

mod candidate;
mod clean_room;
mod export;
mod gate;
mod ground;
mod hardening;
mod left_out;
mod mirror;
mod push;
mod spec;
mod write_back;
