//! The repository that is operated: git, what changed in it, what is written back to it, and its forge.
//!
//! This crate knows git objects and forges. It does not know why a change is wanted, whether it is permitted, who
//! runs an agent or a check, or where events go. It believes nothing that an agent could have written except
//! the bytes of the files in its tree.
//!
//! In the order of an attempt:
//!
//! 1. [`Git::find`] once; [`Remote::new`] says how a target's address is reached; [`Mirror`] holds its objects
//!    on this machine, and [`Mirror::fetch`] answers with the base commit.
//! 2. [`spec::read`] reads the three documents from that commit.
//! 3. [`Repository::init_borrowing`] makes the attempt's own repository; [`export()`] writes the plain tree.
//!    [`Prepared::read`] remembers what `setup` left there before the agent comes.
//! 4. [`snapshot()`] turns the tree, when every process is dead, into a [`model::change::ChangeSet`] and one
//!    commit. [`changes_between`] measures the same from objects alone, for whoever looks a second time.
//! 5. [`candidate::pack`] and [`candidate::receive`] carry the commit to another repository and prove it there.
//! 6. [`push()`] creates exactly one branch.
//! 7. [`pull_request::PullRequestText`] says what was measured, and [`forge::Forge`] opens the pull request, finds
//!    it again and tells how it stands.
//! 8. [`write_back()`] marks the task completed once a human has merged; [`propose`] where that is refused.
//!
//! All of it but the forge blocks; async callers use a blocking thread.

mod base_files;
pub mod candidate;
mod changes;
mod export;
pub mod forge;
mod git;
mod import;
mod integrity;
mod mirror;
mod provenance;
pub mod pull_request;
mod push;
mod remote;
mod repository;
mod snapshot;
pub mod spec;
pub mod write_back;

pub use base_files::with_files_of_base;
pub use changes::{changes_between, reads_as_diff};
pub use export::{ExportError, Exported, export};
pub use git::{Git, GitError, Network};
pub use integrity::weakenings_of;
pub use mirror::{Mirror, MirrorError};
pub use provenance::{IDENTITY, Provenance, attempt_of};
pub use push::{Occupant, PushOutcome, Rejection, delete_branch, push};
pub use remote::Remote;
pub use repository::{CommitFacts, Expected, ObjectFormat, Repository, TreeEntry};
pub use snapshot::{PrepareError, Prepared, Snapshot, SnapshotError, SnapshotLimits, snapshot};
pub use write_back::{BacklogEdit, Proposal, WriteBack, WriteBackError, propose, write_back};
