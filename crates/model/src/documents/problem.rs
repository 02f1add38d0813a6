//! What is wrong with a document, where, and what to write instead.

use std::fmt;
use std::sync::Arc;

/// One thing that is wrong in a document, or suspicious.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Problem {
    /// The file as the caller named it.
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What was found, and after `; expected` what would be right.
    pub message: String,
    /// What to do, when more than the message can be said.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; hint: {hint}"))
    }
}

/// Everything that is wrong in the documents, sorted by file and place, and what is suspicious beside it.
/// There is always at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems {
    /// Sorts what was found; none when nothing is wrong.
    pub(super) fn of(mut problems: Vec<Problem>, warnings: &[Problem]) -> Option<Self> {
        problems.sort();
        problems.dedup();
        (!problems.is_empty()).then(|| Self { problems, warnings: warnings.to_vec() })
    }

    /// What is suspicious without being wrong, as far as it could be seen beside the problems.
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// Each problem, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.problems.iter()
    }

    /// How many there are; at least one.
    #[expect(clippy::len_without_is_empty, reason = "there is always at least one problem")]
    pub fn len(&self) -> usize {
        self.problems.len()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
