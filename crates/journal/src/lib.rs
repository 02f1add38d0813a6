//! What a record of the log is, and how a log is proven whole.
//!
//! Everything here is pure: bytes in, values out. The crate knows how a body is spelled ([`CanonicalBody`]),
//! how each [`Record`] names the one before it by hash, how the records of a [`Bundle`] become lines of a file,
//! and how to read such lines back while believing none of them ([`scan`]). Bodies are opaque to it: it knows
//! nothing of tasks, attempts, HTTP, files or databases, and so the operator's binary can verify a log with the
//! same code that wrote it.
//!
//! The format, in full:
//!
//! ```text
//! genesis   = SHA-256("leviathan-genesis-v1\n" ‖ origin)
//! hash(n)   = SHA-256("leviathan-event-v1\n" ‖ hash(n-1)[32] ‖ u64be(n) ‖ u32be(len) ‖ body)      hash(0) = genesis
//! seal      = SHA-256("leviathan-commit-v1\n" ‖ hash(last)[32] ‖ u64be(first) ‖ u64be(last) ‖ u32be(len) ‖ bundle_id)
//! record    = {"body":<body>,"hash":"<hash>","prev_hash":"<hash>","seq":<n>}\n
//! commit    = {"commit":{"bundle_id":"<id>","first":<n>,"last":<n>,"hash":"<seal>"}}\n
//! ```
//!
//! Records count from 1 without gaps. A bundle is its records followed by its commit line; records without a
//! commit line do not exist. Each line has exactly one accepted spelling, so that every bit of a log is either
//! what was written or is found to be wrong. What a chain cannot see by itself is a log that was cut at the end
//! of a bundle, or rewritten from some record on: for that, something that names its head must be kept elsewhere.
//!
//! That is the [`Checkpoint`]: size and root of the RFC 6962 tree over the hashes of all records, signed with the
//! key of the log. With it, a few hashes prove to somebody who has nothing else that a record is in the log
//! ([`InclusionProof`]), or that a later log begins with an earlier one ([`verify_consistency`]). The hashes that
//! proofs are made of are kept in [`Tile`]s. A witness elsewhere may sign below a checkpoint that it was shown and
//! that continues what it saw before ([`WitnessKey`]).

mod bundle;
mod canonical;
mod chain;
mod checkpoint;
mod cosignature;
mod line;
mod merkle;
mod note;
mod proof;
mod scan;
mod spelling;
mod tile;

pub use bundle::{
    Bundle, BundleError, BundleId, BundleIdError, Lines, MAX_BUNDLE_BYTES, MAX_BUNDLE_EVENTS, Unchained,
};
pub use canonical::{BodyError, BodyProblem, CanonicalBody, MAX_BODY_BYTES, MAX_DEPTH};
pub use chain::{ChainHash, Head, Record};
pub use checkpoint::{Checkpoint, CheckpointError};
pub use cosignature::WitnessKey;
pub use line::{Commit, Line, LineError};
pub use merkle::{
    Frontier, FrontierError, Subtree, TreeHash, Unproven, prove_consistency, prove_inclusion, root_of,
    verify_consistency, verify_inclusion,
};
pub use note::{KeyError, KeyName, Note, NoteError, SigningKey, VerifierKey};
pub use proof::{InclusionProof, ProofError};
pub use scan::{Damage, DamageProblem, Scan, Tail, scan};
pub use tile::{TILE_WIDTH, Tile, TileHashes, TilePathError, TileSizeError, TileWriter, subtree_hash};

use line::decimal;
