//! What commands asked of the network, and what they were answered: the evidence.

use std::collections::BTreeMap;
use std::mem;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use model::event::{NetworkAnswer, NetworkRequest, NetworkUse};

/// Different answers that are told apart. A command that asks for more is counted without its words.
const MOST: usize = 200;

/// Counts the requests of the commands of one attempt. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Tally(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    requests: BTreeMap<Request, Arc<Counts>>,
    /// How many requests had no place in the list.
    omitted: u64,
}

/// Requests that are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Request {
    pub(super) used_by: NetworkUse,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) answer: NetworkAnswer,
}

/// What is counted of them.
#[derive(Debug, Default)]
pub(super) struct Counts {
    requests: AtomicU64,
    pub(super) sent_bytes: AtomicU64,
    pub(super) received_bytes: AtomicU64,
}

impl Tally {
    /// Counts a request; what it carries is to be added to the result.
    pub(super) fn count(&self, request: Request) -> Arc<Counts> {
        let mut counted = self.counted();
        let is_known = counted.requests.contains_key(&request);
        if !is_known && counted.requests.len() >= MOST {
            counted.omitted += 1;
            return Arc::default();
        }
        let counts = Arc::clone(counted.requests.entry(request).or_default());
        counts.requests.fetch_add(1, Ordering::Relaxed);
        counts
    }

    /// What was counted since the last time, and how many requests are missing in it. No command may run.
    pub fn take(&self) -> (Vec<NetworkRequest>, u64) {
        let Counted { requests, omitted } = mem::take(&mut *self.counted());
        let told =
            requests.into_iter().map(|(Request { used_by, host, port, answer }, counts)| NetworkRequest {
                used_by,
                host,
                port,
                answer,
                count: counts.requests.load(Ordering::Relaxed),
                sent_bytes: counts.sent_bytes.load(Ordering::Relaxed),
                received_bytes: counts.received_bytes.load(Ordering::Relaxed),
            });
        (told.collect(), omitted)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        // Nothing that holds the lock can panic half way.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_different_requests_is_counted_and_bounded() {
        let tally = Tally::default();
        for number in 0..1000 {
            let host = format!("host-{number:04}.example");
            let (used_by, answer) = (NetworkUse::Agent, NetworkAnswer::NotPermitted);
            for _ in 0..2 {
                tally.count(Request { used_by, host: host.clone(), port: 443, answer });
            }
        }
        let (requests, omitted) = tally.take();
        assert_eq!((requests.len(), omitted), (MOST, 2 * (1000 - MOST as u64)));
        assert!(requests.iter().all(|request| request.count == 2));
        assert_eq!(tally.take(), (Vec::new(), 0));
    }
}
