//! What is found while one document is read: everything at once, each with its place.

use std::sync::Arc;

use super::Problem;

/// How many problems of one document are reported.
const MOST_PROBLEMS: usize = 500;

/// A place in a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position {
    /// From 1.
    pub(super) line: u32,
    /// From 1, in characters.
    pub(super) column: u32,
}

impl Position {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: Position,
}

/// The problems and warnings of one document.
#[derive(Debug)]
pub(super) struct Findings {
    pub(super) file: Arc<str>,
    pub(super) problems: Vec<Problem>,
    pub(super) warnings: Vec<Problem>,
}

impl Findings {
    pub(super) fn of(file: &str) -> Self {
        Self { file: file.into(), problems: Vec::new(), warnings: Vec::new() }
    }

    /// Notes what makes the document unusable. `message` says what was found and what is expected. A hostile
    /// document of one mistake after the other is not answered in full.
    pub(super) fn problem(&mut self, at: Position, message: String, hint: Option<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            let problem = self.place(at, message, hint);
            self.problems.push(problem);
        } else if self.problems.len() == MOST_PROBLEMS {
            let message =
                format!("there are more problems than the {MOST_PROBLEMS} above; correct those first");
            let problem = self.place(at, message, None);
            self.problems.push(problem);
        }
    }

    /// Notes what is suspicious without being wrong.
    pub(super) fn warning(&mut self, at: Position, message: String, hint: Option<String>) {
        let warning = self.place(at, message, hint);
        self.warnings.push(warning);
    }

    fn place(&self, at: Position, message: String, hint: Option<String>) -> Problem {
        Problem { file: self.file.clone(), line: at.line, column: at.column, message, hint }
    }
}
