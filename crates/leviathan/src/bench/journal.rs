//! `leviathan bench journal`: what it costs to record, against the disk that it is recorded on.

use anyhow::Context;
use control_plane::measure;

use super::{Goal, machine, median, print_row, print_verdicts, show};
use crate::Answer;

/// Under load the ledger may take so little of what the disk takes.
const INGEST_TARGET: f64 = 0.5;
/// While nothing else happens an answer may take so many times what the disk takes,
const IDLE_FACTOR: f64 = 1.5;
/// and so many seconds beside.
const IDLE_EXTRA: f64 = 0.000_3;

/// What `leviathan bench journal` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many events are recorded under load
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=1_000_000))]
    events: u64,
    /// How many of them are under way at once
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=1_024))]
    in_flight: u64,
    /// How many single events are recorded while nothing else happens
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    rounds: u32,
    /// Write JSON objects, one a line, instead of the table
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and says whether the goals are met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let folder = tempfile::Builder::new().prefix("leviathan-bench-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let (ingest, idle) = runtime.block_on(async {
        let ingest = measure::ingest(folder.path(), arguments.events, arguments.in_flight).await?;
        anyhow::Ok((ingest, measure::idle(folder.path(), usize::try_from(arguments.rounds)?).await?))
    })?;
    let (answer, raw) = (median(idle.answers), median(idle.raw));
    let goals = [
        Goal::at_least(INGEST_TARGET, "G1", ingest.per_second, ingest.raw_per_second),
        Goal::at_most(1.0, "G2", answer, IDLE_FACTOR * raw + IDLE_EXTRA),
    ];
    show(&goals, arguments.json, || {
        anstream::println!("{}\n", machine());
        anstream::println!("{} events, {} in flight", ingest.events, arguments.in_flight);
        print_row("recorded, events a second", ingest.per_second);
        print_row("events in one write, on average", ingest.mean_batch);
        print_row("as many bytes written and synced, events a second", ingest.raw_per_second);
        anstream::println!("\none event after the other, {} times, milliseconds", arguments.rounds);
        print_row("answered, median", answer * 1e3);
        print_row("as many bytes written and synced, median", raw * 1e3);
        print_verdicts(&goals);
    })
}
