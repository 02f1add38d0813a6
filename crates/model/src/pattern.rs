//! Patterns of paths, in one dialect. `docs/path-rules.md` describes it; `tests/path-rules.vectors` shows it.
//!
//! `*` and `?` stay inside one component, `**` is a component of its own and stands for any number of them,
//! `[a-z]` is one of some characters, `{a,b}` is either. Everything else stands for itself, dots included.
//!
//! The matcher is written here because the dialect is a security boundary: it works on characters, not bytes
//! (`?` is one character in any script), its ignore-case matching folds all of Unicode, and its time grows
//! only with length of pattern × length of path. It knows nothing of rules or documents.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use unicode_normalization::UnicodeNormalization;

use crate::RepoPath;
use crate::path::collision_key;

mod overlap;
mod parse;

/// A pattern that matches paths of files, never of folders.
#[derive(Clone)]
pub struct PathPattern {
    text: String,
    alternatives: Vec<Alternative>,
}

/// Text that is not a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the pattern `{pattern}` is refused: {problem}")]
pub struct PatternError {
    /// The pattern, shortened and escaped.
    pub pattern: String,
    /// What is wrong with it and what to write instead.
    pub problem: Cow<'static, str>,
}

impl PathPattern {
    /// Reads a pattern. Everything that could be meant in two ways is an error.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        match parse::alternatives(text) {
            Ok(alternatives) => Ok(Self { text: text.to_owned(), alternatives }),
            Err(problem) => Err(PatternError { pattern: shortened(text), problem }),
        }
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it names `path` exactly, without any wildcard, choice or ending `/`.
    pub fn names_literally(&self, path: &RepoPath) -> bool {
        self.is_literal() && self.text.nfc().eq(path.as_str().chars())
    }

    /// Whether it can match one path only, because it holds no wildcard, no choice and no ending `/`.
    pub fn is_literal(&self) -> bool {
        !self.text.contains(['*', '?', '[', '{']) && !self.text.ends_with('/')
    }

    /// Whether no path is left out.
    pub fn matches_everything(&self) -> bool {
        let every_path = [Component::AnyDepth, Component::Name(vec![Token::AnyRun])];
        self.alternatives.iter().any(|alternative| alternative.exact == every_path)
    }

    /// Whether it matches `path` exactly as spelled: for rules that allow.
    pub fn matches(&self, path: &RepoPath) -> bool {
        self.matches_spelled(&Spelled::of(path))
    }

    /// Whether it matches `path` in any spelling that some file system holds for the same: for rules that deny.
    pub fn matches_any_spelling(&self, path: &RepoPath) -> bool {
        self.matches_any_spelling_of(&Spelled::of(path))
    }

    /// [`Self::matches`], for a path that is held against many patterns.
    pub(crate) fn matches_spelled(&self, path: &Spelled) -> bool {
        let mut ways = self.alternatives.iter();
        ways.any(|alternative| path_matches(&alternative.exact, &path.as_written, Spelling::Exact))
    }

    /// [`Self::matches_any_spelling`], for a path that is held against many patterns.
    pub(crate) fn matches_any_spelling_of(&self, path: &Spelled) -> bool {
        self.alternatives.iter().any(|alternative| {
            path_matches(&alternative.exact, &path.as_written, Spelling::Folded)
                || path_matches(&alternative.folded, &path.folded, Spelling::Folded)
        })
    }

    /// Whether some path could match both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.alternatives.iter().any(|ours| {
            other.alternatives.iter().any(|theirs| overlap::paths_overlap(&ours.exact, &theirs.exact))
        })
    }
}

/// A path in the two forms that patterns compare, made once for all of them.
#[derive(Debug)]
pub(crate) struct Spelled {
    as_written: Vec<Vec<char>>,
    folded: Vec<Vec<char>>,
}

impl Spelled {
    pub(crate) fn of(path: &RepoPath) -> Self {
        Self { as_written: names(path.as_str()), folded: names(&path.collision_key()) }
    }
}

/// One way through the `{…}` of a pattern.
#[derive(Debug, Clone)]
struct Alternative {
    exact: Vec<Component>,
    /// The same, its literal text case-folded: a fold can change the number of characters.
    folded: Vec<Component>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Component {
    /// `**`: any number of components, also none.
    AnyDepth,
    /// One component.
    Name(Vec<Token>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    Literal(char),
    /// `?`: one character.
    AnyCharacter,
    /// `*`: any number of characters, also none.
    AnyRun,
    /// `[…]`: one character of these ranges, ends included.
    Class(Vec<(char, char)>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spelling {
    Exact,
    Folded,
}

impl Token {
    fn accepts(&self, c: char, spelling: Spelling) -> bool {
        match self {
            Self::AnyCharacter | Self::AnyRun => true,
            Self::Literal(literal) => {
                *literal == c || spelling == Spelling::Folded && same_letter(*literal, c)
            }
            Self::Class(ranges) => {
                let holds = |c: char| ranges.iter().any(|(first, last)| (*first..=*last).contains(&c));
                holds(c) || spelling == Spelling::Folded && case_variants(c).any(holds)
            }
        }
    }
}

impl Alternative {
    fn new(exact: Vec<Component>) -> Self {
        let folded = exact.iter().map(folded_component).collect();
        Self { exact, folded }
    }
}

fn folded_component(component: &Component) -> Component {
    match component {
        Component::AnyDepth => Component::AnyDepth,
        Component::Name(tokens) => Component::Name(folded_tokens(tokens)),
    }
}

/// Folds each run of literal characters as a whole, since folding and composing look at neighbours.
fn folded_tokens(tokens: &[Token]) -> Vec<Token> {
    let mut folded = Vec::with_capacity(tokens.len());
    let mut run = String::new();
    for token in tokens {
        if let Token::Literal(c) = token {
            run.push(*c);
        } else {
            folded.extend(collision_key(&run).chars().map(Token::Literal));
            run.clear();
            folded.push(token.clone());
        }
    }
    folded.extend(collision_key(&run).chars().map(Token::Literal));
    folded
}

fn names(path: &str) -> Vec<Vec<char>> {
    path.split('/').map(|name| name.chars().collect()).collect()
}

fn path_matches(pattern: &[Component], names: &[Vec<char>], spelling: Spelling) -> bool {
    wildcard_match(
        pattern,
        names,
        |component| *component == Component::AnyDepth,
        |component, name| match component {
            Component::AnyDepth => true,
            Component::Name(tokens) => name_matches(tokens, name, spelling),
        },
    )
}

fn name_matches(tokens: &[Token], name: &[char], spelling: Spelling) -> bool {
    wildcard_match(tokens, name, |token| *token == Token::AnyRun, |token, c| token.accepts(*c, spelling))
}

/// Matches a sequence with wildcards that stand for any number of items, also none.
///
/// Each wildcard takes as little as it can, and only the latest one ever takes more: what an earlier one could
/// take instead, the later one can take as well. So each pair of pattern item and item is met at most once
/// for each wildcard's turn, and the time is the product of the lengths.
fn wildcard_match<P, I>(
    pattern: &[P],
    items: &[I],
    is_run: impl Fn(&P) -> bool,
    accepts: impl Fn(&P, &I) -> bool,
) -> bool {
    let (mut next_pattern, mut next_item) = (0, 0);
    let mut latest_run: Option<(usize, usize)> = None;
    while next_item < items.len() {
        match pattern.get(next_pattern) {
            Some(item) if is_run(item) => {
                latest_run = Some((next_pattern + 1, next_item));
                next_pattern += 1;
            }
            Some(item) if accepts(item, &items[next_item]) => {
                next_pattern += 1;
                next_item += 1;
            }
            Some(_) | None => {
                let Some((after_run, taken)) = latest_run else { return false };
                latest_run = Some((after_run, taken + 1));
                (next_pattern, next_item) = (after_run, taken + 1);
            }
        }
    }
    pattern[next_pattern..].iter().all(is_run)
}

fn same_letter(a: char, b: char) -> bool {
    // What ASCII holds has no other variants in ASCII, and is nearly everything that is ever compared.
    if a.is_ascii() && b.is_ascii() {
        return a.eq_ignore_ascii_case(&b);
    }
    case_variants(a).any(|variant| case_variants(b).any(|other| variant == other))
}

/// The character, and its lower and upper case where that is one character.
fn case_variants(c: char) -> impl Iterator<Item = char> {
    [Some(c), only(c.to_lowercase()), only(c.to_uppercase())].into_iter().flatten()
}

fn only(mut characters: impl Iterator<Item = char>) -> Option<char> {
    let first = characters.next();
    first.filter(|_| characters.next().is_none())
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 80;
    let escaped: String = text.chars().take(LONGEST).flat_map(escaped_if_hidden).collect();
    if text.chars().count() > LONGEST { format!("{escaped}…") } else { escaped }
}

fn escaped_if_hidden(c: char) -> Vec<char> {
    if crate::path::is_hidden(c) { c.escape_unicode().collect() } else { vec![c] }
}

impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathPattern {}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl FromStr for PathPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        Self::parse(text)
    }
}

impl Serialize for PathPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for PathPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for PathPattern {
    fn schema_name() -> Cow<'static, str> {
        "PathPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 1,
            "description": "A path or pattern: `*` and `?` stay inside a component, `**` is any number of components, `[a-z]` and `{a,b}` work, `folder/` is everything below.",
        })
    }
}
