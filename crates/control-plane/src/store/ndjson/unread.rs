//! The part of a log that a start did not read, to be verified after it.

use std::ops::ControlFlow;
use std::sync::Arc;

use journal::{Damage, DamageProblem, Head, Record};

use super::{Index, SegmentReader, bundles_of};
use crate::store::ReadError;

/// Everything before the record with which reading began.
#[derive(Clone)]
pub(crate) struct Unread {
    genesis: Head,
    /// Each segment, and how many of its bytes were passed over.
    segments: Vec<(Arc<SegmentReader>, u64)>,
    head: Head,
}

impl Unread {
    pub(super) fn before(origin: &str, index: &Index) -> Self {
        let segments = index.segments.iter().map(|segment| (Arc::clone(&segment.file), segment.end));
        Self { genesis: Head::genesis(origin), segments: segments.collect(), head: index.head }
    }

    /// The last record that is to be verified.
    pub(crate) fn head(&self) -> Head {
        self.head
    }

    /// Reads and verifies all of it, and hands the records of each bundle to `each`, until that has enough.
    pub(crate) fn verify(
        &self,
        each: &mut dyn FnMut(Vec<Record>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ReadError> {
        let mut head = self.genesis;
        for (segment, end) in &self.segments {
            let before = head;
            match bundles_of(segment, *end, before, &mut |bundle| each(bundle.into_records()))? {
                ControlFlow::Continue(reached) => head = reached,
                ControlFlow::Break(()) => return Ok(ControlFlow::Break(())),
            }
        }
        match self.segments.last() {
            Some((segment, end)) if head != self.head => {
                let problem = DamageProblem::Order { found: head.seq };
                let damage = Damage { offset: *end, seq: self.head.seq, problem };
                Err(ReadError::Damaged { segment: segment.path.clone(), damage })
            }
            Some(_) | None => Ok(ControlFlow::Continue(())),
        }
    }
}
