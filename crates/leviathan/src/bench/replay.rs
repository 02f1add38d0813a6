//! `leviathan bench replay`: what a long log costs, at the start and after it.

use anyhow::Context;
use control_plane::measure::{self, Asked};

use super::{Goal, machine, median, print_row, print_verdicts, show};
use crate::Answer;

/// A start may spend so much less than reading and hashing the events alone would.
const REPLAY_TARGET: f64 = 0.7;
/// A million events take so many seconds on two free cores.
const COLD_PER_MILLION: f64 = 2.0;
/// With a snapshot they take so many.
const RESUMED_PER_MILLION: f64 = 0.3;
/// Two threads verify so many times what one does.
const TWO_THREADS_TARGET: f64 = 1.8;
/// Verifying may be so much slower than hashing.
const VERIFY_TARGET: f64 = 0.8;
/// With a long log an append may take so many times what it takes with a short one,
const APPEND_TARGET: f64 = 1.1;
/// and a look-up so many times.
const FIND_TARGET: f64 = 1.2;

/// What `leviathan bench replay` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many events the log has
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(10_000..=100_000_000))]
    events: u64,
    /// Write JSON objects, one a line, instead of the table
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and says whether the goals are met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let folder = tempfile::Builder::new().prefix("leviathan-bench-").tempdir()?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let long = runtime.block_on(measure::replay(folder.path(), arguments.events))?;
    let events = long.events as f64;
    let of_both = |times: fn(&Asked) -> &[f64]| {
        (median(times(&long.asked_short).to_vec()), median(times(&long.asked).to_vec()))
    };
    let append = of_both(|asked| &asked.appends);
    let summary = of_both(|asked| &asked.summaries);
    let find = of_both(|asked| &asked.finds);
    let goals = [
        Goal::at_least(REPLAY_TARGET, "G4-replay", events / long.cold_cpu, events / long.parse_and_hash),
        Goal::at_most(1.0, "G4-cold", long.cold, COLD_PER_MILLION * events / 1e6),
        Goal::at_most(1.0, "G4-snapshot", long.resumed, RESUMED_PER_MILLION * events / 1e6),
        Goal::at_least(VERIFY_TARGET, "G5-verify", events / long.verify, events / long.hash),
        Goal::at_least(
            TWO_THREADS_TARGET,
            "G5-two-threads",
            events / long.verify_by_two,
            events / long.verify,
        ),
        Goal::at_most(APPEND_TARGET, "G6-append", append.1, append.0),
        Goal::at_most(FIND_TARGET, "G6-summary", summary.1, summary.0),
        Goal::at_most(FIND_TARGET, "G6-find", find.1, find.0),
    ];
    show(&goals, arguments.json, || {
        anstream::println!("{}\n", machine());
        anstream::println!("{} events, {} MiB", long.events, long.bytes >> 20);
        print_row("a start, seconds", long.cold);
        print_row("of these processor seconds", long.cold_cpu);
        print_row("reading and hashing every event, processor seconds", long.parse_and_hash);
        print_row("a start from a snapshot, seconds", long.resumed);
        print_row("of these processor seconds", long.resumed_cpu);
        print_row("verifying after it what was not read, seconds", long.verified_behind);
        print_row("nobody could record while a snapshot was taken, seconds", long.snapshot_held);
        print_row("writing it after that, seconds", long.snapshot_written);
        print_row("its size, MiB", long.snapshot_bytes as f64 / f64::from(1 << 20));
        print_row("verifying the files, seconds", long.verify);
        print_row("verifying the files with two threads, seconds", long.verify_by_two);
        print_row("hashing the files, seconds", long.hash);
        print_row("most memory so far, MiB", most_memory());
        anstream::println!("\nwith {} and with {} events, microseconds", measure::SHORT, long.events);
        for (what, (short, long)) in [
            ("one durable event", append),
            ("the numbers of the summary", summary),
            ("the events of one attempt", find),
        ] {
            print_row(what, short * 1e6);
            print_row("", long * 1e6);
        }
        print_verdicts(&goals);
    })
}

/// The most memory that this process ever had, in MiB.
fn most_memory() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    kib.map_or(f64::NAN, |kib| kib / 1024.0)
}
