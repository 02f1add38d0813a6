//! A log that lasts as long as the process: for trying things out, and as the reference for the other stores.

use std::ops::ControlFlow;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use journal::{Bundle, BundleId, Head, Record, Unchained};

use super::{AppendError, EventStore, ReadError, Turn};

/// Keeps records in memory. Durable only in the sense that nothing can fail.
pub(crate) struct MemoryStore {
    origin: String,
    records: RwLock<Vec<Record>>,
    /// The name of each bundle and how many records it has.
    bundles: Mutex<Vec<(BundleId, usize)>>,
    turn: Mutex<()>,
}

impl MemoryStore {
    /// An empty log named `origin`.
    pub(crate) fn new(origin: &str) -> Self {
        Self {
            origin: origin.to_owned(),
            records: RwLock::default(),
            bundles: Mutex::default(),
            turn: Mutex::default(),
        }
    }
}

impl EventStore for MemoryStore {
    fn head(&self) -> Head {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.last().map_or_else(|| Head::genesis(&self.origin), Record::head)
    }

    fn origin(&self) -> &str {
        &self.origin
    }

    fn turn(&self) -> Result<Box<dyn Turn + '_>, AppendError> {
        let turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Box::new(MemoryTurn { store: self, _turn: turn }))
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        Ok(records.iter().skip(skipped).take(limit).cloned().collect())
    }

    fn bundles(&self, each: &mut dyn FnMut(Unchained, Head) -> ControlFlow<()>) -> Result<(), ReadError> {
        let bundles = self.bundles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let mut rest = &records[..];
        for (id, size) in bundles {
            let (own, after) = rest.split_at(size);
            rest = after;
            let bodies = own.iter().map(|record| record.body().clone()).collect();
            let bundle = Unchained::new(id, bodies).expect("it was a bundle when it was appended");
            let head = own.last().expect("a bundle is never empty").head();
            if each(bundle, head).is_break() {
                break;
            }
        }
        Ok(())
    }
}

struct MemoryTurn<'a> {
    store: &'a MemoryStore,
    _turn: MutexGuard<'a, ()>,
}

impl Turn for MemoryTurn<'_> {
    fn head(&self) -> Head {
        self.store.head()
    }

    fn append(self: Box<Self>, bundles: Vec<Unchained>) -> Result<Vec<Bundle>, AppendError> {
        let bundles = super::chained(self.head(), bundles);
        let mut records = self.store.records.write().unwrap_or_else(PoisonError::into_inner);
        let mut kept = self.store.bundles.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(bundles.iter().map(|bundle| (bundle.id().clone(), bundle.records().len())));
        records.extend(bundles.iter().flat_map(|bundle| bundle.records()).cloned());
        Ok(bundles)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::conformance;

    #[test]
    fn it_keeps_the_contract_of_a_store() {
        conformance::check(|| Box::new(MemoryStore::new("test/memory")));
    }
}
