//! The vocabulary and the rules of Leviathan.
//!
//! Everything here is pure: no files, no network, no async, no clock (`now` is an argument), no environment.
//! The crate knows what the three documents mean, which change is permitted, which task comes next and which
//! step may follow which. It does not know how a change was read from git, how an event is stored, how a
//! pull request is opened or who runs a check.
//!
//! Ids and paths are types that cannot be built wrong, and a permission is a value that the next step needs:
//! [`ChangeSet`] becomes a [`PermittedChange`] only by the path rules, and that a [`VerifiedChange`] only by
//! a passing report of every invariant at that very commit.

pub mod attempt;
pub mod change;
pub mod compact;
pub mod documents;
pub mod event;
pub mod graph;
mod id;
pub mod integrity;
mod path;
pub mod pattern;
pub mod rules;
pub mod secrets;
pub mod select;
pub mod sharing;

pub use attempt::{AttemptState, FailureClass, FailureReason, Stage};
pub use change::{
    Change, ChangeSet, CheckOutcome, Entry, InvariantReport, Irregularity, IrregularityKind, Mode,
    PermittedChange, Refused, SecretFound, Unverified, VerifiedChange,
};
pub use documents::{
    AgentChoice, Backlog, Contract, Document, DocumentDigests, Documents, EditRefused, Example, Invariant,
    Limits, MicroDollars, Network, Overlap, PathRule, Policy, Priority, Problem, Problems, RepoUrl, Sandbox,
    Scope, Setup, Size, Status, TargetSpec, Task,
};
pub use event::{Event, EventKind};
pub use graph::Graph;
pub use id::{
    ActorId, AttemptId, BranchName, CommitId, Digest, Epoch, EventId, IdError, ObjectId, Seq, TargetId,
    TaskId,
};
pub use path::{RepoPath, RepoPathError, collision_key, is_hidden};
pub use pattern::{PathPattern, PatternError};
pub use rules::{PathRules, Protection, RuleRef, Verdict, Violation, ViolationKind};
