//! One attempt, in two stages: `work` lets an agent change a tree, judges the change and runs the checks;
//! `publish` verifies the candidate again and opens the pull request. On one machine a supervisor runs them; in a
//! pod, four containers.
//!
//! The crate knows how to carry out an attempt that the control plane has recorded. It does not choose tasks,
//! does not know who started it, and cannot merge: there is no call for that in it.

pub mod agent;
pub mod attack;
pub mod candidate;
pub mod checks;
pub mod contain;
mod courier;
pub mod fault;
pub mod folder;
pub mod job;
pub mod network;
pub mod pod;
pub mod publish;
pub mod sandbox;
pub mod spool;
mod stage;
pub mod supervise;
pub mod toolbox;
pub mod work;
