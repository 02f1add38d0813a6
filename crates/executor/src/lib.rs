//! One attempt, in two stages: `work` lets an agent change a tree, judges the change and runs the checks;
//! `publish` verifies the candidate again and opens the pull request.

pub mod agent;
pub mod toolbox;
