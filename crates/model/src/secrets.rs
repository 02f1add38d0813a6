//! Secrets: what looks like one, and the ones that a process itself holds in every spelling they may come in.
//!
//! One [`Redactor`] serves everything that leaves a process (events, artifacts, logs, pull requests), and the gate,
//! which refuses a change that adds a secret. It works on streams of any length in constant memory, and where a
//! stream happens to be cut into chunks never changes what it finds. It knows no file and no environment: who holds
//! a secret tells it. It does not know which files may hold what looks like a secret; that is the path rules' part.

mod shapes;
mod spellings;
mod stream;

use std::fmt;
use std::sync::Arc;

use aho_corasick::AhoCorasick;
use serde_json::Value;

use crate::Digest;
use crate::change::SecretFound;
pub use stream::{Scan, Stream};

/// What stands where a secret stood.
pub const REDACTED: &str = "[redacted]";

/// The rule by which a secret of the process itself is found.
const OURS: &str = "own-secret";

/// Finds secrets, and takes them out of what leaves a process.
///
/// The default knows no secret of its own and finds what looks like one. A copy shares everything.
#[derive(Clone, Default)]
pub struct Redactor {
    ours: Option<Arc<AhoCorasick>>,
}

/// One secret in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Match {
    /// Where what was recognised begins; the name before a value belongs to it.
    start: usize,
    /// Where the secret itself begins.
    secret: usize,
    /// Where it ends.
    end: usize,
    rule: &'static str,
}

/// A secret that a scan came across: where it is, and a digest by which the same one is known again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    line: u64,
    rule: &'static str,
    digest: Digest,
}

impl Redactor {
    /// Knows these secrets of the process beside what looks like one. Values of fewer than eight characters are
    /// passed over: they would tear ordinary text apart.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let spellings: Vec<Vec<u8>> = secrets.into_iter().flat_map(spellings::of).collect();
        if spellings.is_empty() {
            return Self::default();
        }
        let matcher = AhoCorasick::builder()
            .match_kind(aho_corasick::MatchKind::LeftmostLongest)
            .build(spellings)
            .expect("a few short patterns fit into an automaton");
        Self { ours: Some(Arc::new(matcher)) }
    }

    /// The text without any secret.
    pub fn clean(&self, text: &str) -> String {
        let mut stream = self.stream();
        let mut cleaned = Vec::with_capacity(text.len());
        stream.push(text.as_bytes(), &mut cleaned);
        stream.finish(&mut cleaned);
        String::from_utf8(cleaned).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
    }

    /// The text without the secrets of the process itself. What looks like a secret stays: whoever works on a
    /// repository must see its files as they are.
    pub fn clean_ours(&self, text: &str) -> String {
        match &self.ours {
            Some(ours) if ours.is_match(text) => {
                let replacements = vec![REDACTED; ours.patterns_len()];
                ours.replace_all(text, &replacements)
            }
            Some(_) | None => text.to_owned(),
        }
    }

    /// Cleans every text in a JSON value, the names of its fields too.
    pub fn clean_value(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.clean(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.clean_value(value)),
            Value::Object(object) => {
                let cleaned = std::mem::take(object).into_iter().map(|(name, mut value)| {
                    self.clean_value(&mut value);
                    (self.clean(&name), value)
                });
                *object = cleaned.collect();
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// Cleans bytes as they come.
    pub fn stream(&self) -> Stream {
        Stream::new(self.clone())
    }

    /// Looks for secrets in bytes as they come.
    pub fn scan(&self) -> Scan {
        Scan::new(self.clone())
    }

    /// Every secret in `text` that begins in `from..limit`, in order. Bytes before `from` are context.
    fn matches<'a>(&'a self, text: &'a [u8], from: usize, limit: usize) -> impl Iterator<Item = Match> + 'a {
        let mut shapes = shapes::present_in(text);
        let mut ours = Ours { matcher: self.ours.as_deref(), next: None };
        let mut at = from;
        std::iter::from_fn(move || {
            let shaped = shapes.iter_mut().filter_map(|source| source.next_from(text, at));
            let shaped = shaped.min_by_key(|found| (found.start, usize::MAX - found.end));
            let first = match (shaped, ours.next_from(text, at)) {
                (Some(shaped), Some(own)) if shaped.end <= own.start => shaped,
                (Some(shaped), Some(own)) if shaped.start < own.end => ours.united_with(text, shaped),
                (_, Some(own)) => own,
                (shaped, None) => shaped?,
            };
            at = first.end;
            (first.start < limit).then_some(first)
        })
    }
}

/// The search for the secrets of the process itself in one text.
struct Ours<'a> {
    matcher: Option<&'a AhoCorasick>,
    next: Option<Match>,
}

impl Ours<'_> {
    fn next_from(&mut self, text: &[u8], from: usize) -> Option<Match> {
        if self.next.is_none_or(|next| next.start < from) {
            let found = self.matcher?.find(aho_corasick::Input::new(text).range(from..));
            self.next = found.map(|found| Match {
                start: found.start(),
                secret: found.start(),
                end: found.end(),
                rule: OURS,
            });
        }
        self.next
    }

    /// What looks like a secret and holds one of ours, or a part of one, is ours.
    fn united_with(&mut self, text: &[u8], shaped: Match) -> Match {
        let mut whole = Match { rule: OURS, ..shaped };
        while let Some(own) = self.next.filter(|own| own.start < shaped.end) {
            whole.start = whole.start.min(own.start);
            whole.secret = whole.secret.min(own.start);
            whole.end = whole.end.max(own.end);
            self.next_from(text, own.end);
        }
        whole
    }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.ours.is_some() { "Redactor(with secrets)" } else { "Redactor(shapes alone)" })
    }
}

/// The secrets of the new content of a file that its old content does not hold, or not as often.
pub fn added(after: Vec<Sighting>, before: &[Sighting]) -> Vec<SecretFound> {
    let mut known: Vec<&Sighting> = before.iter().collect();
    let mut added = Vec::new();
    for Sighting { line, rule, digest } in after {
        match known.iter().position(|one| one.rule == rule && one.digest == digest) {
            Some(place) => {
                known.swap_remove(place);
            }
            None => added.push(SecretFound { line, rule: rule.to_owned(), is_ours: rule == OURS }),
        }
    }
    added
}
