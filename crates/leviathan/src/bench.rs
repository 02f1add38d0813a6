//! `leviathan bench`: what the product costs, as a ratio to a limit that is measured in the same run.
//!
//! A time alone says more of the machine than of the program; the ratio to what the work must cost at least is
//! the goal. What is measured, and how, is in `docs/performance.md`.

mod attempt;
mod gate;
mod http;
mod journal;
mod large_repository;
mod launch;
mod postgres;
mod replay;

use serde::Serialize;

use crate::Answer;

/// What `leviathan bench` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(clap::Subcommand)]
enum Subject {
    /// An attempt beside its agent and its checks, against `git worktree add`, `git diff` and `git push` of the
    /// same change
    Attempt(attempt::Arguments),
    /// Attempts launched as Jobs, until so many are live at once
    Launch(launch::Arguments),
    /// What it costs that nothing foreign is believed: a contained command against the same one started plainly, and the
    /// gate with its search for secrets on a large tree
    Gate(gate::Arguments),
    /// Events recorded under load and one by one, against plain writes and syncs
    Journal(journal::Arguments),
    /// Events recorded over HTTP, by what they cost the server, and many readers of the stream at once
    Http(http::Arguments),
    /// Events recorded in a database, against plain tables in the same one
    Postgres(postgres::Arguments),
    /// A start on a long log, and what questions and appends cost on it
    Replay(replay::Arguments),
}

/// Measures, and says whether the goal is met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    match &arguments.subject {
        Subject::Attempt(arguments) => attempt::run(arguments),
        Subject::Launch(arguments) => launch::run(arguments),
        Subject::Gate(arguments) => gate::run(arguments),
        Subject::Journal(arguments) => journal::run(arguments),
        Subject::Http(arguments) => http::run(arguments),
        Subject::Postgres(arguments) => postgres::run(arguments),
        Subject::Replay(arguments) => replay::run(arguments),
    }
}

/// A goal and what was measured of it.
#[derive(Debug, Clone, Serialize)]
struct Goal {
    goal: &'static str,
    /// What the product took in seconds, or came to per second.
    measured: f64,
    /// What it is held against, in the same unit.
    limit: f64,
    /// The first through the second.
    ratio: f64,
    /// The ratio at which the goal is met just so. None for what is told and is no goal.
    target: Option<f64>,
    met: Option<bool>,
    #[serde(skip)]
    bound: &'static str,
}

impl Goal {
    /// A goal to stay within `target` times `limit`.
    fn at_most(target: f64, goal: &'static str, measured: f64, limit: f64) -> Self {
        let told = Self::told(goal, measured, limit);
        Self { target: Some(target), met: Some(told.ratio <= target), bound: "at most", ..told }
    }

    /// A goal to reach `target` times `limit`.
    fn at_least(target: f64, goal: &'static str, measured: f64, limit: f64) -> Self {
        let told = Self::told(goal, measured, limit);
        Self { target: Some(target), met: Some(told.ratio >= target), bound: "at least", ..told }
    }

    /// What is worth knowing and decides nothing.
    fn told(goal: &'static str, measured: f64, limit: f64) -> Self {
        Self { goal, measured, limit, ratio: measured / limit, target: None, met: None, bound: "" }
    }

    /// The ratio, and what it comes to, in words.
    fn verdict(&self) -> String {
        let Self { ratio, bound, .. } = self;
        match (self.target, self.met) {
            (Some(target), Some(true)) => format!("ratio {ratio:.2}, {bound} {target:?}: met"),
            (Some(target), _) => format!("ratio {ratio:.2}, {bound} {target:?}: missed"),
            (None, _) => format!("ratio {ratio:.2}"),
        }
    }
}

/// Prints the goals as JSON objects, or what `print` has for people, and says whether all are met.
fn show(goals: &[Goal], json: bool, print: impl FnOnce()) -> anyhow::Result<Answer> {
    if json {
        for goal in goals {
            anstream::println!("{}", serde_json::to_string(goal)?);
        }
    } else {
        print();
    }
    let is_missed = goals.iter().any(|goal| goal.met == Some(false));
    Ok(if is_missed { Answer::No } else { Answer::Yes })
}

fn print_verdicts(goals: &[Goal]) {
    anstream::println!();
    for goal in goals {
        anstream::println!("{}: {}", goal.goal, goal.verdict());
    }
}

/// The middle one of some measurements, or the mean of the two in the middle.
fn median(mut measurements: Vec<f64>) -> f64 {
    measurements.sort_by(f64::total_cmp);
    match (measurements.len() / 2, measurements.len() % 2) {
        (_, _) if measurements.is_empty() => f64::NAN,
        (middle, 0) => f64::midpoint(measurements[middle - 1], measurements[middle]),
        (middle, _) => measurements[middle],
    }
}

/// The measurement that so large a part of all does not exceed.
fn percentile(mut measurements: Vec<f64>, part: f64) -> f64 {
    measurements.sort_by(f64::total_cmp);
    let within = |index: usize| index as f64 >= part * measurements.len() as f64;
    let index = (1..=measurements.len()).find(|index| within(*index));
    index.map_or(f64::NAN, |index| measurements[index - 1])
}

fn print_row(name: &str, number: f64) {
    anstream::println!("  {name:<48}{number:>9.3}");
}

/// What the numbers depend on, in words.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    let load = load.split(' ').next().unwrap_or_default();
    format!("{cores} cores, Linux {}, load {load} in the last minute", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_up_to_its_target_and_no_further() {
        for (measured, met) in [(0.5, true), (4.0, true), (4.1, false), (f64::NAN, false)] {
            assert_eq!(Goal::at_most(2.0, "some-goal", measured, 2.0).met, Some(met), "{measured}");
        }
        for (measured, met) in [(40.0, true), (20.0, true), (19.9, false), (f64::NAN, false)] {
            assert_eq!(Goal::at_least(1.0, "some-goal", measured, 20.0).met, Some(met), "{measured}");
        }
        assert_eq!(Goal::told("no-goal", 9.0, 3.0).verdict(), "ratio 3.00");
    }

    #[test]
    fn a_percentile_is_one_of_the_measurements() {
        let hundred = || (1..=100).rev().map(f64::from).collect();
        for (part, expected) in [(0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            assert_eq!(percentile(hundred(), part), expected);
        }
        assert_eq!(percentile(vec![7.0], 0.99), 7.0);
        assert!(percentile(Vec::new(), 0.5).is_nan());
    }

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        for (measurements, expected) in
            [(vec![3.0], 3.0), (vec![9.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0, 2.0, 100.0], 3.0)]
        {
            assert_eq!(median(measurements), expected);
        }
    }
}
