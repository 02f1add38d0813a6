//! Recognises an agent that goes in circles.
//!
//! Only compares what was done with what came of it; it does not know what a tool is for.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// Tool inputs in a row that could not be read.
const MALFORMED_IN_A_ROW: u32 = 3;
/// The same call with the same answer, one right after the other.
const SAME_IN_A_ROW: usize = 4;
/// The same call, each time an error.
const SAME_ERROR_IN_A_ROW: usize = 3;
/// The same call with the same answer, anywhere among the last steps.
const SAME_IN_WINDOW: usize = 6;
const WINDOW: usize = 10;
/// Steps that make an A-B-A-B-A-B.
const ALTERNATION: usize = 6;
/// Turns in which no file changed.
const TURNS_WITHOUT_CHANGE: u32 = 40;

/// What has happened lately.
#[derive(Debug, Default)]
pub(super) struct Circles {
    steps: VecDeque<Step>,
    malformed: u32,
    unchanged_turns: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Step {
    call: u64,
    answer: u64,
    is_error: bool,
}

impl Circles {
    /// A tool was used. Returns in words why the agent is stuck, if it is.
    pub(super) fn observe(&mut self, call: &str, answer: &str, is_error: bool) -> Option<String> {
        self.malformed = 0;
        if self.steps.len() == WINDOW {
            self.steps.pop_front();
        }
        self.steps.push_back(Step { call: hash(call), answer: hash(answer), is_error });
        self.circle()
    }

    /// A tool call could not be read.
    pub(super) fn observe_malformed(&mut self) -> Option<String> {
        self.malformed += 1;
        (self.malformed >= MALFORMED_IN_A_ROW)
            .then(|| format!("{MALFORMED_IN_A_ROW} tool calls in a row could not be read"))
    }

    /// A turn is over.
    pub(super) fn end_turn(&mut self, tree_changed: bool) -> Option<String> {
        self.unchanged_turns = if tree_changed { 0 } else { self.unchanged_turns + 1 };
        (self.unchanged_turns >= TURNS_WITHOUT_CHANGE)
            .then(|| format!("no file changed in {TURNS_WITHOUT_CHANGE} turns"))
    }

    /// A new round begins: what was repeated before may be right now.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    fn circle(&self) -> Option<String> {
        let last = *self.steps.back()?;
        let in_a_row = self.steps.iter().rev().take_while(|step| **step == last).count();
        if in_a_row >= SAME_IN_A_ROW {
            return Some(format!("the same call had the same answer {in_a_row} times in a row"));
        }
        let is_same_error = |step: &&Step| step.call == last.call && step.is_error;
        let errors = self.steps.iter().rev().take_while(is_same_error).count();
        if errors >= SAME_ERROR_IN_A_ROW {
            return Some(format!("the same call failed {errors} times in a row"));
        }
        let in_window = self.steps.iter().filter(|step| **step == last).count();
        if in_window >= SAME_IN_WINDOW {
            return Some(format!(
                "the same call had the same answer in {in_window} of the last {WINDOW} steps"
            ));
        }
        let recent: Vec<_> = self.steps.iter().rev().take(ALTERNATION).collect();
        let alternates = recent.len() == ALTERNATION
            && recent[0] != recent[1]
            && recent.windows(3).all(|three| three[0] == three[2]);
        alternates.then(|| "two calls alternate with the same answers".to_owned())
    }
}

fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The step at which the agent counts as stuck. A step is `call`, or `call!` when it fails.
    fn stuck_at(steps: &str) -> Option<usize> {
        let mut circles = Circles::default();
        steps.split_whitespace().position(|step| match step.strip_suffix('!') {
            Some("?") => circles.observe_malformed().is_some(),
            Some(call) => circles.observe(call, step, true).is_some(),
            None => {
                let (call, answer) = step.split_once('=').unwrap_or((step, step));
                circles.observe(call, answer, false).is_some()
            }
        })
    }

    #[test]
    fn circles_are_seen_and_work_is_not() {
        let rows = [
            ("a b c d e f g h i j k l m", None),
            ("a a a", None),
            ("a a a a", Some(3)),
            ("a! a! a!", Some(2)),
            ("a! b a! c a!", None),
            ("t=fail1 e1 t=fail2 e2 t=fail3 e3 t=fail4 e4 t=fail5 e5 t=pass", None),
            ("t e1 t e2 t e3 t e4 t e5 t e6", None),
            ("t t t e1 t t t", Some(6)),
            ("a b a b a", None),
            ("a b a b a b", Some(5)),
            ("?! ?! a ?! ?!", None),
            ("?! ?! ?!", Some(2)),
        ];
        for (steps, expected) in rows {
            assert_eq!(stuck_at(steps), expected, "{steps}");
        }
    }

    #[test]
    fn turns_without_change_end_and_a_change_starts_the_count_anew() {
        let mut circles = Circles::default();
        let mut turn = |changed| circles.end_turn(changed).is_some();
        assert!((0..39).all(|_| !turn(false)));
        assert!(!turn(true));
        assert_eq!((0..100).position(|_| turn(false)), Some(39));
    }
}
