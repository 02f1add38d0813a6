//! Finding files and lines.

use std::time::{Duration, Instant};

use globset::{GlobBuilder, GlobMatcher};
use regex::RegexBuilder;
use serde::Deserialize;

use super::Said;
use crate::toolbox::Tree;

/// The most paths that `glob` returns.
const MOST_PATHS: usize = 200;
/// The most bytes that `grep` returns.
const LONGEST_ANSWER: usize = 50_000;
/// The most characters of one line.
const LONGEST_LINE: usize = 2_000;
/// Larger files are passed over.
const LARGEST_FILE: u64 = 2 << 20;
/// A search that takes longer returns what it has.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// The input of `grep`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Grep {
    pattern: String,
    path: Option<String>,
    glob: Option<String>,
    #[serde(default)]
    ignore_case: bool,
}

/// The input of `glob`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Glob {
    pattern: String,
}

impl Glob {
    pub(super) fn run(&self, tree: &Tree) -> Said {
        let pattern = match matcher(&self.pattern) {
            Ok(pattern) => pattern,
            Err(error) => return error,
        };
        let (mut found, mut ending) = (Vec::new(), Ending::default());
        let walked = tree.walk("", |name| {
            if ending.must_stop() {
                return false;
            }
            if pattern.is_match(&name.path) {
                if found.len() == MOST_PATHS {
                    ending.more = true;
                    return false;
                }
                found.push(name.path.clone());
            }
            true
        });
        match walked {
            Ok(()) => ending.told(found.join("\n")),
            Err(error) => Said::error(error.to_string()),
        }
    }
}

impl Grep {
    pub(super) fn run(&self, tree: &Tree) -> Said {
        let pattern =
            RegexBuilder::new(&self.pattern).case_insensitive(self.ignore_case).size_limit(1 << 20).build();
        let pattern = match pattern {
            Ok(pattern) => pattern,
            Err(error) => return Said::error(format!("the pattern is no regular expression: {error}")),
        };
        let only = match self.glob.as_deref().map(matcher).transpose() {
            Ok(only) => only,
            Err(error) => return error,
        };
        let (mut found, mut ending) = (String::new(), Ending::default());
        let mut search = |path: &str| {
            if ending.must_stop() {
                return false;
            }
            if only.as_ref().is_some_and(|only| !only.is_match(path)) {
                return true;
            }
            let Ok(bytes) = tree.read(path, LARGEST_FILE) else { return true };
            // A file with a zero byte is not text.
            if bytes.contains(&0) {
                return true;
            }
            for (number, line) in String::from_utf8_lossy(&bytes).lines().enumerate() {
                if pattern.is_match(line) {
                    let line: String = line.chars().take(LONGEST_LINE).collect();
                    let line = format!("{path}:{}:{line}\n", number + 1);
                    if found.len() + line.len() > LONGEST_ANSWER {
                        ending.more = true;
                        return false;
                    }
                    found.push_str(&line);
                }
            }
            true
        };
        let within = self.path.as_deref().unwrap_or("").trim_start_matches("./").trim_end_matches('/');
        let within = if within == "." { "" } else { within };
        match tree.walk(within, |name| !name.is_file || search(&name.path)) {
            Ok(()) => ending.told(found),
            // Not a folder: perhaps a single file.
            Err(_) if tree.read(within, LARGEST_FILE).is_ok() => {
                search(within);
                ending.told(found)
            }
            Err(error) => Said::error(error.to_string()),
        }
    }
}

/// Why a search ended, if it did not reach the end.
struct Ending {
    began: Instant,
    more: bool,
    late: bool,
}

impl Default for Ending {
    fn default() -> Self {
        Self { began: Instant::now(), more: false, late: false }
    }
}

impl Ending {
    fn must_stop(&mut self) -> bool {
        self.late = self.began.elapsed() > LONGEST;
        self.late
    }

    fn told(&self, found: String) -> Said {
        let found = found.trim_end();
        Said::text(match (self.more, self.late, found.is_empty()) {
            (true, ..) => format!("{found}\n[there is more; make the pattern narrower]"),
            (_, true, _) => format!("{found}\n[stopped after {} seconds]", LONGEST.as_secs()),
            (_, _, true) => "Nothing was found.".to_owned(),
            _ => found.to_owned(),
        })
    }
}

fn matcher(pattern: &str) -> Result<GlobMatcher, Said> {
    let glob = GlobBuilder::new(pattern.trim_start_matches("./")).literal_separator(true).build();
    glob.map(|glob| glob.compile_matcher()).map_err(|error| Said::error(format!("`{pattern}`: {error}")))
}
