//! How soon what is recorded is under a signed checkpoint, and how soon it is proven to be.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use api::Client;
use api::types::ProofQuery;
use control_plane::measure;
use model::EventId;

use super::super::{median, percentile};
use super::served::Served;

/// How many clients record at once.
const SENDERS: u64 = 16;
/// How often it is asked what is signed.
const LOOK: Duration = Duration::from_millis(5);
/// How many proofs are asked for.
const PROOFS: usize = 500;

/// What was seen, in seconds.
pub(super) struct Measured {
    /// From an answer to the first sight of a checkpoint over it, for 99 of 100 events.
    pub(super) lag: f64,
    /// One proof of inclusion, from the request to the answer, by the median.
    pub(super) proof: f64,
}

/// Answers that no checkpoint was seen over yet: when they came, and the place of their event.
type Unsigned = Arc<Mutex<Vec<(Instant, u64)>>>;

/// Records at least `events` events, each a request of its own, and watches the checkpoint; then asks for proofs.
pub(super) async fn measure(plane: &Served, events: u64) -> anyhow::Result<Measured> {
    plane.client().ingest(vec![measure::target()]).await?;
    let unsigned = Unsigned::default();
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let (client, unsigned) = (plane.client().clone(), Arc::clone(&unsigned));
            tokio::spawn(send(client, sender, events.div_ceil(SENDERS), unsigned))
        })
        .collect();
    let mut lags = Vec::new();
    let mut ids = Vec::new();
    while senders.iter().any(|sender| !sender.is_finished()) {
        look(plane.client(), &unsigned, &mut lags).await?;
    }
    for sender in senders {
        ids.extend(sender.await??);
    }
    let patience = Instant::now() + Duration::from_secs(60);
    while !unsigned.lock().unwrap_or_else(PoisonError::into_inner).is_empty() {
        ensure!(Instant::now() < patience, "some events are under no checkpoint after a minute");
        look(plane.client(), &unsigned, &mut lags).await?;
    }
    let proof = prove(plane.client(), &ids).await?;
    Ok(Measured { lag: percentile(lags, 0.99), proof })
}

async fn send(client: Client, sender: u64, events: u64, unsigned: Unsigned) -> anyhow::Result<Vec<EventId>> {
    let lives = (sender..).step_by(SENDERS as usize).flat_map(measure::life);
    let mut ids = Vec::new();
    for event in lives.take(usize::try_from(events)?) {
        ids.push(event.event_id.clone());
        let answer = client.ingest(vec![event]).await?;
        let seq = answer.seqs.first().context("an event has a place")?.0;
        unsigned.lock().unwrap_or_else(PoisonError::into_inner).push((Instant::now(), seq));
    }
    Ok(ids)
}

/// Asks for the checkpoint once, and takes what it is over.
async fn look(client: &Client, unsigned: &Unsigned, lags: &mut Vec<f64>) -> anyhow::Result<()> {
    let note = client.log_checkpoint().await;
    // Before the first signature there is none.
    let size = note.ok().and_then(|note| note.lines().nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    let now = Instant::now();
    unsigned.lock().unwrap_or_else(PoisonError::into_inner).retain(|(answered, seq)| {
        let is_signed = *seq <= size;
        if is_signed {
            lags.push(now.saturating_duration_since(*answered).as_secs_f64());
        }
        !is_signed
    });
    tokio::time::sleep(LOOK).await;
    Ok(())
}

/// Asks for proofs of events from all over the log, one after the other.
async fn prove(client: &Client, ids: &[EventId]) -> anyhow::Result<f64> {
    let step = (ids.len() / PROOFS).max(1);
    let mut times = Vec::new();
    for event_id in ids.iter().step_by(step) {
        let begun = Instant::now();
        client.log_proof(&ProofQuery { event_id: event_id.clone() }).await?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(median(times))
}
