//! `leviathan bench gate`: what judging an agent's work costs. Each row is a module that knows one goal.

mod sandbox;
mod scan;

use super::{machine, print_row, print_verdicts, show};
use crate::Answer;

/// What `leviathan bench gate` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many files the repository has
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    files: u32,
    /// How many of them an agent changes
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    changed: u32,
    /// How often the gate is measured, after once that is not
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// How many commands are run in each way
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    commands: u32,
    /// Make no namespaces around commands, also where they can be made
    #[arg(long)]
    without_namespaces: bool,
    /// Write one JSON object a line instead of the table
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and says whether the goals are met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let (commands, scan) = (sandbox::measure(arguments)?, scan::measure(arguments)?);
    let goals = [commands.goal(), scan.goal()];
    show(&goals, arguments.json, || {
        let Arguments { files, changed, rounds, commands: count, .. } = arguments;
        anstream::println!("{}\n", machine());
        anstream::println!("median of {count} commands, in seconds; {}", commands.layers.join(", "));
        commands.rows().into_iter().for_each(|(name, seconds)| print_row(name, seconds));
        anstream::println!(
            "\n{files} files, {changed} of them changed, median of {rounds} rounds, in seconds"
        );
        scan.rows().into_iter().for_each(|(name, seconds)| print_row(name, seconds));
        print_verdicts(&goals);
    })
}
