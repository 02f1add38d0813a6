//! `leviathan bench`: what the product costs, as a ratio to a limit that is measured in the same run.
//!
//! A time alone says more of the machine than of the program; the ratio to what the work must cost at least is
//! the goal. What is measured, and how, is in `docs/performance.md`.

mod attempt;
mod large_repository;

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
}

/// Measures, and says whether the goal is met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    match &arguments.subject {
        Subject::Attempt(arguments) => attempt::run(arguments),
    }
}

/// A goal and what was measured of it.
#[derive(Debug, Clone, Serialize)]
struct Goal {
    goal: &'static str,
    /// What the product took, in seconds.
    measured: f64,
    /// What it is held against, in seconds.
    limit: f64,
    /// The first through the second.
    ratio: f64,
    /// The ratio at which the goal is met just so.
    target: f64,
    met: bool,
}

impl Goal {
    /// A goal to stay within `target` times `limit`.
    fn at_most(target: f64, goal: &'static str, measured: f64, limit: f64) -> Self {
        let ratio = measured / limit;
        Self { goal, measured, limit, ratio, target, met: ratio <= target }
    }

    fn answer(&self) -> Answer {
        if self.met { Answer::Yes } else { Answer::No }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_met_up_to_its_target_and_no_further() {
        for (measured, met) in [(0.5, true), (4.0, true), (4.1, false), (f64::NAN, false)] {
            assert_eq!(Goal::at_most(2.0, "some-goal", measured, 2.0).met, met, "{measured}");
        }
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
