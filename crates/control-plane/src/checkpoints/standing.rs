//! How far signing is behind recording, and what is in its way.
//!
//! When an event became durable is not written anywhere: its timestamp is what its sender said. So an age here is
//! counted from the last moment at which everything that could be seen was signed; the oldest event that is not signed
//! is at most that old, and not much less.

use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::Refused;
use crate::trouble::Trouble;

/// What is durable and not signed yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lag {
    /// How many events.
    pub(crate) events: u64,
    /// The most that the oldest of them can be old; zero if there are none.
    pub(crate) age: Duration,
    /// What the last try to sign met, in words that may be told to anybody: they name no file and no host.
    pub(crate) obstacle: Option<&'static str>,
}

/// What the signer knows of its own progress.
#[derive(Debug)]
pub(super) struct Standing {
    progress: Mutex<Progress>,
    failures: Counter,
}

#[derive(Debug)]
struct Progress {
    /// When everything that could be seen then was signed, last of all.
    complete_at: Instant,
    trouble: Trouble,
}

impl Standing {
    pub(super) fn new(now: Instant) -> Self {
        let progress = Progress { complete_at: now, trouble: Trouble::default() };
        Self { progress: Mutex::new(progress), failures: Counter::default() }
    }

    /// Everything that could be seen at `seen` is signed.
    pub(super) fn complete(&self, seen: Instant) {
        self.progress().complete_at = seen;
    }

    /// A try succeeded. How many failed before it.
    pub(super) fn succeeded(&self) -> Option<u32> {
        self.progress().trouble.over()
    }

    /// A try failed. Whether that is news.
    pub(super) fn failed(&self, problem: &Refused) -> bool {
        self.failures.inc();
        self.progress().trouble.met(problem.in_short())
    }

    /// How long to wait before the next try.
    pub(super) fn pause(&self, shortest: Duration, longest: Duration) -> Duration {
        self.progress().trouble.pause(shortest, longest)
    }

    /// What it means at `now` that so many events are not signed.
    pub(super) fn lag(&self, events: u64, now: Instant) -> Lag {
        let progress = self.progress();
        let age = match events {
            0 => Duration::ZERO,
            _ => now.saturating_duration_since(progress.complete_at),
        };
        Lag { events, age, obstacle: progress.trouble.now() }
    }

    /// Shows a lag to a scraper, and how often signing failed.
    pub(super) fn register(&self, lag: Lag, registry: &mut Registry) {
        let (events, age) = (Gauge::<u64, AtomicU64>::default(), Gauge::<f64, AtomicU64>::default());
        events.set(lag.events);
        age.set(lag.age.as_secs_f64());
        let checkpoint = registry.sub_registry_with_prefix("checkpoint");
        checkpoint.register(
            "lag_events",
            "Events that are durable and under no signed checkpoint yet",
            events,
        );
        checkpoint.register_with_unit(
            "lag",
            "The most that the oldest of these events can be old; 0 if there are none",
            Unit::Seconds,
            age,
        );
        checkpoint.register("failures", "Tries to sign a checkpoint that failed", self.failures.clone());
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_is_counted_from_when_all_was_signed_and_goes_on_while_signing_fails() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let standing = Standing::new(start);
        assert_eq!(standing.lag(0, at(9)), Lag { events: 0, age: Duration::ZERO, obstacle: None });
        standing.complete(at(10));
        assert_eq!(standing.lag(3, at(12)).age, Duration::from_secs(2));
        let cut = Refused::Cut { head: 3, signed: 5 };
        assert!(standing.failed(&cut) && !standing.failed(&cut), "it is told once");
        let lag = standing.lag(4, at(50));
        assert_eq!((lag.age, lag.obstacle), (Duration::from_secs(40), Some(cut.in_short())));
        assert_eq!(standing.succeeded(), Some(2));
        standing.complete(at(51));
        assert_eq!(standing.lag(0, at(60)), Lag { events: 0, age: Duration::ZERO, obstacle: None });
    }
}
