//! How a commit of Leviathan is known: its fixed author and committer, and its trailers.
//!
//! The date is given, never read from a clock, so that the same change made again is the same commit.

use jiff::Timestamp;
use model::{AttemptId, Digest, TaskId};
use serde::{Deserialize, Serialize};

use crate::pull_request::plain_line;
use crate::repository::CommitFacts;

/// The author and the committer of every commit that Leviathan makes.
pub const IDENTITY: &str = "Leviathan <leviathan@noreply.invalid>";

/// The longest first line that forges show whole.
const TITLE_CHARACTERS: usize = 72;

/// Where a candidate commit comes from. With the same base and the same files it determines the commit's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The task's title as its human wrote it; it becomes the first line, made harmless.
    pub title: String,
    /// The task.
    pub task: TaskId,
    /// The attempt.
    pub attempt: AttemptId,
    /// The policy that the change was judged by.
    pub policy: Digest,
    /// The date of the commit. Take the attempt's creation, so that a repeat gives the same commit.
    pub at: Timestamp,
}

impl Provenance {
    /// The commit message: the title on one line, and the trailers.
    pub fn message(&self) -> String {
        let Self { title, task, attempt, policy, at: _ } = self;
        let title = one_line(&plain_line(title, usize::MAX));
        let title = if title.is_empty() { format!("Task {task}") } else { title };
        format!(
            "{title}\n\nLeviathan-Task: {task}\nLeviathan-Attempt: {attempt}\nLeviathan-Policy: {policy}\n"
        )
    }

    /// The ref that keeps the commit in the repository where it was made or received.
    pub(crate) fn reference(&self) -> String {
        format!("refs/leviathan/attempts/{}", self.attempt)
    }

    /// Whether a commit says exactly this of itself.
    pub fn is_of(&self, facts: &CommitFacts) -> bool {
        is_ours(facts)
            && facts.message == self.message()
            && facts.author_seconds == self.at.as_second()
            && facts.committer_seconds == self.at.as_second()
    }
}

/// The attempt that made this commit; none when author, committer or trailers are not Leviathan's.
pub fn attempt_of(facts: &CommitFacts) -> Option<AttemptId> {
    let trailers = facts.message.trim_end().rsplit("\n\n").next().filter(|_| is_ours(facts))?;
    let value = trailers.lines().find_map(|line| line.strip_prefix("Leviathan-Attempt: "))?;
    AttemptId::parse(value).ok()
}

fn is_ours(facts: &CommitFacts) -> bool {
    facts.author == IDENTITY && facts.committer == IDENTITY
}

/// The text without control characters and runs of white space, shortened. One line can forge no trailer.
pub(crate) fn one_line(text: &str) -> String {
    let visible: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let words: Vec<&str> = visible.split_whitespace().collect();
    let line = words.join(" ");
    match line.char_indices().nth(TITLE_CHARACTERS) {
        None => line,
        Some(_) => {
            let kept: String = line.chars().take(TITLE_CHARACTERS - 1).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn provenance(title: &str) -> Provenance {
        Provenance {
            title: title.to_owned(),
            task: TaskId::parse("task-001").unwrap(),
            attempt: AttemptId::parse("attempt-1").unwrap(),
            policy: Digest::of(b"policy"),
            at: Timestamp::from_second(1_700_000_000).unwrap(),
        }
    }

    #[test]
    fn a_title_cannot_forge_a_trailer_or_a_second_line() {
        let message = provenance("Fix\n\nSigned-off-by: Eve <eve@example.com>\r\u{1b}[31m").message();
        assert_eq!(message.lines().next(), Some("Fix Signed-off-by: Eve <eve@ example.com> ‹U+001B›(31m"));
        assert_eq!(message.lines().filter(|line| !line.starts_with("Leviathan-")).count(), 2, "{message}");
    }

    #[test]
    fn a_title_mentions_nobody_closes_nothing_and_skips_no_checks() {
        let message = provenance("Fixes #1 and GH-2 for @octocat [skip ci]").message();
        assert_eq!(message.lines().next(), Some("Fixes # 1 and GH- 2 for @ octocat (skip ci)"));
    }

    #[test]
    fn long_and_empty_titles_become_one_short_line() {
        assert!(provenance("").message().starts_with("Task task-001\n\n"));
        let long = provenance(&"word ".repeat(40)).message();
        assert!(long.lines().next().unwrap().chars().count() <= TITLE_CHARACTERS);
    }
}
