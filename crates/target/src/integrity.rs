//! What a change takes away from the tests and tells the checks to overlook, read from git objects.

use model::change::{ChangeSet, Entry};
use model::integrity::{Weakening, weakenings};

use crate::git::GitError;
use crate::repository::Repository;

/// Larger texts are not looked at; a person would not write them.
const LARGEST_TEXT: u64 = 1 << 20;

/// Every weakening in the changed texts, in the order of their paths.
pub fn weakenings_of(repository: &Repository, change: &ChangeSet) -> Result<Vec<Weakening>, GitError> {
    let mut found = Vec::new();
    for change in change.changes().iter().filter(|change| !change.is_binary) {
        let before = text_of(repository, change.before.as_ref())?;
        let after = text_of(repository, change.after.as_ref())?;
        found.extend(weakenings(&change.path, &before, &after));
    }
    Ok(found)
}

fn text_of(repository: &Repository, entry: Option<&Entry>) -> Result<String, GitError> {
    match entry.filter(|entry| entry.mode.is_file() && entry.size <= LARGEST_TEXT) {
        None => Ok(String::new()),
        Some(entry) => {
            let bytes = repository.read_blob(&entry.object, LARGEST_TEXT)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        }
    }
}
