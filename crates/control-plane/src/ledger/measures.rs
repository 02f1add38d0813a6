//! What the ledger measures of itself.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::NotRecorded;

/// Counted since the process began.
#[derive(Debug)]
pub(crate) struct Measures {
    events: Counter,
    bundles: Counter,
    batches: Counter,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
    append_seconds: Histogram,
    batch_events: Histogram,
}

impl Default for Measures {
    fn default() -> Self {
        Self {
            events: Counter::default(),
            bundles: Counter::default(),
            batches: Counter::default(),
            refused: Family::default(),
            // From 50 us to 1.6 s: a write and sync to memory, and to a disk in trouble.
            append_seconds: Histogram::new(exponential_buckets(0.000_05, 2.0, 16)),
            batch_events: Histogram::new(exponential_buckets(1.0, 2.0, 12)),
        }
    }
}

impl Measures {
    /// A batch was made durable.
    pub(super) fn appended(&self, bundles: usize, events: usize, took: Duration) {
        self.batches.inc();
        self.bundles.inc_by(bundles as u64);
        self.events.inc_by(events as u64);
        self.append_seconds.observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "a batch has a few thousand events at most")]
        self.batch_events.observe(events as f64);
    }

    /// Somebody was told no.
    pub(super) fn refused(&self, error: &NotRecorded) {
        let reason = match error {
            NotRecorded::Conflict { .. } | NotRecorded::Ambiguous { .. } => "conflict",
            NotRecorded::Illegal { .. } => "illegal_step",
            NotRecorded::Fenced(_) => "fenced",
            NotRecorded::Denied(_) => "denied",
            NotRecorded::NotAdmitted(_) | NotRecorded::Bundle(_) => "invalid",
            NotRecorded::Busy => "busy",
            NotRecorded::Full => "disk_full",
            NotRecorded::Unavailable { .. } => "unavailable",
            NotRecorded::Stopped { .. } => "stopped",
        };
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }

    /// How many events were made durable together, on average.
    pub(crate) fn mean_batch(&self) -> f64 {
        self.events.get() as f64 / self.batches.get() as f64
    }

    /// Shows them to a scraper.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let journal = registry.sub_registry_with_prefix("journal");
        journal.register("events", "Events that were recorded", self.events.clone());
        journal.register("bundles", "Bundles that were recorded", self.bundles.clone());
        journal.register("refused", "Proposals of which nothing was recorded", self.refused.clone());
        journal.register_with_unit(
            "append",
            "How long it took to write a batch and make it durable",
            Unit::Seconds,
            self.append_seconds.clone(),
        );
        journal.register(
            "batch_events",
            "How many events were made durable together",
            self.batch_events.clone(),
        );
    }
}
