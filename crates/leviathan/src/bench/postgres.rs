//! `leviathan bench postgres`: what it costs to record in a database, against plain tables in the same one.

use anyhow::Context;
use control_plane::measure;
use secrecy::SecretString;

use super::{Goal, machine, median, print_row, print_verdicts, show};
use crate::Answer;

/// A bundle of 64 may reach so little of the rate of a plain insert of 64 rows.
const APPEND_TARGET: f64 = 0.6;
/// Requests that come together must be recorded at so many times the rate of a chain that each of them locks.
const TOGETHER_TARGET: f64 = 20.0;
/// How many events a bundle has.
const BUNDLE: f64 = 64.0;

/// What `leviathan bench postgres` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A database server on which a database may be made and removed again; no other is touched. Better given by the environment
    #[arg(long, env = "LEVIATHAN_POSTGRES_URL", value_name = "URL", hide_env_values = true)]
    postgres_url: Option<SecretString>,
    /// How many bundles of 64 events are recorded one after the other
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(5..=100_000))]
    bundles: u64,
    /// How many events are recorded by requests of their own, 64 at once
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    requests: u64,
    /// Write JSON objects, one a line, instead of the table
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and says whether the goals are met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let url = arguments.postgres_url.as_ref().context(
        "LEVIATHAN_POSTGRES_URL is not set: set it to a server on which this may make and remove a database, such as postgres://postgres@localhost/postgres",
    )?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let measured = runtime.block_on(measure::postgres(url, arguments.bundles, arguments.requests))?;
    let per_second = |seconds: Vec<f64>| BUNDLE / median(seconds);
    let (bundles, inserts) = (per_second(measured.bundles), per_second(measured.inserts));
    let (together, naive) = (measured.singles_per_second, measured.naive_per_second);
    let goals = [
        Goal::at_least(APPEND_TARGET, "G8-append", bundles, inserts),
        Goal::at_least(TOGETHER_TARGET, "G8-together", together, naive),
    ];
    show(&goals, arguments.json, || {
        anstream::println!("{}\n", machine());
        anstream::println!("{} bundles of 64, one after the other, events a second", arguments.bundles);
        print_row("recorded, by the median", bundles);
        print_row("inserted without a chain, by the median", inserts);
        anstream::println!("\n{} requests of one event, 64 at once, events a second", arguments.requests);
        print_row("recorded", together);
        print_row("by a chain that each request locks", naive);
        print_verdicts(&goals);
    })
}
