//! How a journal in files becomes a store and the history that follows from it.

use std::path::Path;

use crate::history::{History, fold_while};
use crate::snapshots::{Claim, Resumed, Snapshots};
use crate::store::{NdjsonStore, Opening};

/// A journal that was opened, and what it says.
pub(crate) struct Started {
    pub(crate) store: NdjsonStore,
    pub(crate) history: History,
    /// What the start believed of the part that it did not read.
    pub(crate) claim: Option<Claim>,
}

/// Opens the journal in `folder`, from its newest snapshot on if one is of use, and otherwise all of it. Changes
/// nothing that is there.
pub(crate) fn start(folder: &Path, new_origin: &str) -> anyhow::Result<Started> {
    read(Opening::begin(folder, new_origin)?, folder)
}

fn read(mut opening: Opening, folder: &Path) -> anyhow::Result<Started> {
    let resumed = Snapshots::of(folder).resume(&mut opening);
    let (history, claim) =
        resumed.map_or_else(Default::default, |Resumed { history, claim }| (history, Some(claim)));
    let (store, history) = fold_while(history, |take| opening.read(take))?;
    Ok(Started { store: store?, history: history?, claim })
}

#[cfg(test)]
mod tests;
