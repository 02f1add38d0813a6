//! How long each executor still counts as alive.
//!
//! Heartbeats are not events: they are kept in memory and say nothing that outlives the process. After a start
//! every attempt under way gets one whole lease, because its executor could not reach us while we were away. Where
//! several processes share the log, the others' heartbeats are not known here: an attempt that this one has never
//! heard of gets one whole lease when somebody first wants to declare it lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use model::{AttemptId, Graph};

/// The leases of all attempts under way, by this process's monotonic clock.
#[derive(Debug)]
pub(crate) struct Leases {
    length: Duration,
    started: Instant,
    renewed: HashMap<AttemptId, Instant>,
    activities: HashMap<AttemptId, String>,
    /// How many leases there are when it is worth looking for those of attempts that have ended.
    crowded: usize,
}

impl Leases {
    /// No lease is known yet; the process starts `now`.
    pub(crate) fn new(length: Duration, now: Instant) -> Self {
        Self { length, started: now, renewed: HashMap::new(), activities: HashMap::new(), crowded: 0 }
    }

    /// How long a lease lasts.
    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    /// Begins the lease of an attempt anew: it was handed out, or its executor said something.
    pub(crate) fn renew(&mut self, attempt: &AttemptId, now: Instant) {
        self.renewed.insert(attempt.clone(), now);
    }

    /// Remembers what the executor of an attempt says it is at.
    pub(crate) fn tell(&mut self, attempt: &AttemptId, activity: String) {
        self.activities.insert(attempt.clone(), activity);
    }

    /// What the executor of an attempt last said it is at.
    pub(crate) fn activity(&self, attempt: &AttemptId) -> Option<String> {
        self.activities.get(attempt).cloned()
    }

    /// How long the executor of `attempt` still counts as alive; zero once the lease has run out.
    pub(crate) fn remaining(&self, attempt: &AttemptId, now: Instant) -> Duration {
        let since = self.renewed.get(attempt).copied().unwrap_or(self.started);
        (since + self.length).saturating_duration_since(now)
    }

    /// The same for a verdict, by a process that may not have been the one that the executor spoke to: silence
    /// counts only from when it is first asked about.
    pub(crate) fn remaining_for_a_verdict(&mut self, attempt: &AttemptId, now: Instant) -> Duration {
        self.renewed.entry(attempt.clone()).or_insert(now);
        self.remaining(attempt, now)
    }

    /// Forgets attempts that have ended, once there are twice as many as were live the last time: looking at each of
    /// a thousand in every claim takes longer than the rest of the claim.
    pub(crate) fn forget_ended(&mut self, graph: &Graph) {
        if self.renewed.len() < self.crowded {
            return;
        }
        let is_live = |id: &AttemptId| graph.attempt(id).is_some_and(|it| !it.state.is_terminal());
        self.renewed.retain(|id, _| is_live(id));
        self.activities.retain(|id, _| is_live(id));
        self.crowded = 2 * self.renewed.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_runs_out_unless_it_is_renewed() {
        let length = Duration::from_secs(120);
        let start = Instant::now();
        let attempt = AttemptId::parse("attempt-a").unwrap();
        let mut leases = Leases::new(length, start);
        // Nothing was heard since the start: one whole lease of grace.
        assert_eq!(leases.remaining(&attempt, start + Duration::from_secs(20)), Duration::from_secs(100));
        leases.renew(&attempt, start + Duration::from_secs(100));
        assert_eq!(leases.remaining(&attempt, start + Duration::from_secs(130)), Duration::from_secs(90));
        assert_eq!(leases.remaining(&attempt, start + Duration::from_secs(220)), Duration::ZERO);
        assert_eq!(leases.remaining(&attempt, start + Duration::from_secs(999)), Duration::ZERO);
        leases.forget_ended(&Graph::default());
        assert_eq!(leases.remaining(&attempt, start + Duration::from_secs(130)), Duration::ZERO);
    }

    #[test]
    fn ended_attempts_are_forgotten_when_there_are_many() {
        let now = Instant::now();
        let mut leases = Leases::new(Duration::from_secs(120), now);
        leases.crowded = 2;
        let nothing_is_live = Graph::default();
        for (id, kept) in [("attempt-a", 1), ("attempt-b", 0), ("attempt-c", 0)] {
            leases.renew(&AttemptId::parse(id).unwrap(), now);
            leases.forget_ended(&nothing_is_live);
            assert_eq!(leases.renewed.len(), kept, "{id}");
        }
    }

    #[test]
    fn a_verdict_grants_a_lease_to_an_executor_that_spoke_to_another_process() {
        let (length, start) = (Duration::from_secs(120), Instant::now());
        let attempt = AttemptId::parse("attempt-a").unwrap();
        let mut leases = Leases::new(length, start);
        let asked = start + Duration::from_secs(1_000);
        assert_eq!(leases.remaining(&attempt, asked), Duration::ZERO);
        assert_eq!(leases.remaining_for_a_verdict(&attempt, asked), length);
        assert_eq!(leases.remaining_for_a_verdict(&attempt, asked + length), Duration::ZERO);
    }
}
