//! How long each executor still counts as alive.
//!
//! Heartbeats are not events: they are kept in memory and say nothing that outlives the process. After a start
//! every attempt under way gets one whole lease, because its executor could not reach us while we were away. Where
//! several processes share the log they hear each other's heartbeats; an attempt of which nobody has said anything
//! gets one whole lease when somebody first wants to declare it lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use model::{AttemptId, Graph};

/// The leases of all attempts under way, by this process's monotonic clock.
#[derive(Debug)]
pub(crate) struct Leases {
    length: Duration,
    /// Since when silence counts: the start of the process, or when it began to hear again.
    listening: Instant,
    renewed: HashMap<AttemptId, Instant>,
    activities: HashMap<AttemptId, String>,
    /// How many leases there are when it is worth looking for those of attempts that have ended.
    crowded: usize,
}

impl Leases {
    /// No lease is known yet; the process starts `now`.
    pub(crate) fn new(length: Duration, now: Instant) -> Self {
        Self { length, listening: now, renewed: HashMap::new(), activities: HashMap::new(), crowded: 0 }
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

    /// Grants every attempt a whole lease: whoever spoke meanwhile could not be heard here.
    pub(crate) fn grant_all(&mut self, now: Instant) {
        self.listening = now;
    }

    /// Takes in what another process heard of an attempt at a time that may be long ago.
    pub(crate) fn hear(&mut self, attempt: &AttemptId, told: Instant, activity: Option<String>) {
        if self.renewed.get(attempt).is_some_and(|known| *known >= told) {
            return;
        }
        self.renew(attempt, told);
        if let Some(activity) = activity {
            self.tell(attempt, activity);
        }
    }

    /// What the executor of an attempt last said it is at.
    pub(crate) fn activity(&self, attempt: &AttemptId) -> Option<String> {
        self.activities.get(attempt).cloned()
    }

    /// How long the executor of `attempt` still counts as alive; zero once the lease has run out.
    pub(crate) fn remaining(&self, attempt: &AttemptId, now: Instant) -> Duration {
        let since = self.renewed.get(attempt).map_or(self.listening, |renewed| self.listening.max(*renewed));
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
    fn what_others_heard_counts_from_when_it_was_said() {
        let (length, start) = (Duration::from_secs(120), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let attempt = AttemptId::parse("attempt-a").unwrap();
        let mut leases = Leases::new(length, start);
        leases.hear(&attempt, at(100), Some("building".to_owned()));
        assert_eq!(leases.remaining(&attempt, at(130)), Duration::from_secs(90));
        // Older news, and what comes back of our own, change nothing.
        leases.renew(&attempt, at(140));
        leases.hear(&attempt, at(110), Some("waiting".to_owned()));
        assert_eq!(leases.remaining(&attempt, at(140)), length);
        assert_eq!(leases.activity(&attempt).as_deref(), Some("building"));
        // That it was handed out says nothing of what it is at.
        leases.hear(&attempt, at(150), None);
        assert_eq!(leases.activity(&attempt).as_deref(), Some("building"));
        // News of before our start take nothing from the grace of the start.
        let mut restarted = Leases::new(length, at(1_000));
        restarted.hear(&attempt, at(150), None);
        assert_eq!(restarted.remaining(&attempt, at(1_010)), Duration::from_secs(110));
        // Nor does silence count while nobody could be heard.
        restarted.grant_all(at(2_000));
        assert_eq!(restarted.remaining(&attempt, at(2_010)), Duration::from_secs(110));
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
