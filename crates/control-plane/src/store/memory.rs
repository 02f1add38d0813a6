//! A log that lasts as long as the process: for trying things out, and as the reference for the other stores.

use std::sync::{PoisonError, RwLock};

use journal::{Bundle, BundleId, CanonicalBody, Head, Record};

use super::{AppendError, EventStore, ReadError};

/// Keeps records in memory. Durable only in the sense that nothing can fail.
pub(crate) struct MemoryStore {
    genesis: Head,
    records: RwLock<Vec<Record>>,
}

impl MemoryStore {
    /// An empty log named `origin`.
    pub(crate) fn new(origin: &str) -> Self {
        Self { genesis: Head::genesis(origin), records: RwLock::default() }
    }
}

impl EventStore for MemoryStore {
    fn head(&self) -> Head {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.last().map_or(self.genesis, Record::head)
    }

    fn append(
        &self,
        expected: Head,
        id: BundleId,
        bodies: Vec<CanonicalBody>,
    ) -> Result<Bundle, AppendError> {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        let actual = records.last().map_or(self.genesis, Record::head);
        if actual != expected {
            return Err(AppendError::Stale { expected, actual });
        }
        let bundle = Bundle::after(actual, id, bodies)?;
        records.extend_from_slice(bundle.records());
        Ok(bundle)
    }

    fn read(&self, from: u64, limit: usize) -> Result<Vec<Record>, ReadError> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        let skipped = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX);
        Ok(records.iter().skip(skipped).take(limit).cloned().collect())
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
