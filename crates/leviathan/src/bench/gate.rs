//! `leviathan bench gate`: what judging an agent's work costs. Each row is a module that knows one goal.

mod scan;

use super::{Goal, machine, print_row, print_verdicts, show};
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
    /// How often it is measured, after once that is not
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Write one JSON object a line instead of the table
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and says whether the goals are met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let scan = scan::measure(arguments)?;
    let goals: Vec<Goal> = vec![scan.goal()];
    show(&goals, arguments.json, || {
        let Arguments { files, changed, rounds, .. } = arguments;
        anstream::println!("{files} files, {changed} of them changed, median of {rounds} rounds, in seconds");
        anstream::println!("{}\n", machine());
        scan.rows().into_iter().for_each(|(name, seconds)| print_row(name, seconds));
        print_verdicts(&goals);
    })
}
