//! From a YAML tree to values, field by field. Each function reports what it does not accept and goes on.

use std::collections::BTreeSet;

use super::findings::{Findings, Placed, Position};
use super::yaml::{Entry, Mapping, Node, Value, shown};

/// The fields of one mapping, taken by name. Those that nobody took are reported by [`Fields::finish`].
pub(super) struct Fields<'tree> {
    /// What the mapping is, with its article: `a task`.
    what: &'static str,
    at: Position,
    entries: Vec<&'tree Entry>,
    known: BTreeSet<&'static str>,
}

impl<'tree> Fields<'tree> {
    /// The fields of `node`, when it is a mapping.
    pub(super) fn of(what: &'static str, node: &'tree Node, findings: &mut Findings) -> Option<Self> {
        let mapping = mapping(what, node, findings)?;
        Some(Self { what, at: node.at, entries: mapping.entries.iter().collect(), known: BTreeSet::new() })
    }

    /// Where the mapping begins.
    pub(super) fn at(&self) -> Position {
        self.at
    }

    /// Takes a field that must be there.
    pub(super) fn required<T>(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
        decode: impl FnOnce(&str, &Node, &mut Findings) -> Option<T>,
    ) -> Option<T> {
        if let Some(node) = self.take(name) {
            return decode(name, node, findings);
        }
        self.missing(name, findings);
        None
    }

    /// Takes a field that may be absent. The outer option is empty when the value was refused.
    pub(super) fn optional<T>(
        &mut self,
        name: &'static str,
        findings: &mut Findings,
        decode: impl FnOnce(&str, &Node, &mut Findings) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.take(name) {
            Some(node) => decode(name, node, findings).map(Some),
            None => Some(None),
        }
    }

    /// Reports that the field `name` is not there.
    pub(super) fn missing(&self, name: &str, findings: &mut Findings) {
        let message = format!("{} has no `{name}`; expected the field `{name}`", self.what);
        findings.problem(self.at, message, None);
    }

    /// Reports the fields that are not known, except those that begin with `x-`.
    pub(super) fn finish(self, findings: &mut Findings) {
        for entry in self.entries.iter().filter(|entry| !entry.key.starts_with("x-")) {
            let known: Vec<&str> = self.known.iter().copied().collect();
            let message =
                format!("`{}` is no field of {}; expected {}", shown(&entry.key), self.what, one_of(&known));
            findings.problem(entry.at, message, did_you_mean(&entry.key, &known));
        }
    }

    fn take(&mut self, name: &'static str) -> Option<&'tree Node> {
        self.known.insert(name);
        let index = self.entries.iter().position(|entry| entry.key == name)?;
        Some(&self.entries.remove(index).value)
    }
}

/// A mapping.
pub(super) fn mapping<'tree>(
    what: &str,
    node: &'tree Node,
    findings: &mut Findings,
) -> Option<&'tree Mapping> {
    match &node.value {
        Value::Mapping(mapping) => Some(mapping),
        Value::Plain(_) | Value::Text(_) | Value::Sequence(_) | Value::Refused => {
            wrong_type(what, node, "a mapping of fields", findings);
            None
        }
    }
}

/// A list. Each item is decoded by `item`; those that are refused are left out, after they were reported.
pub(super) fn list<T>(
    name: &str,
    node: &Node,
    findings: &mut Findings,
    mut item: impl FnMut(&str, &Node, &mut Findings) -> Option<T>,
) -> Option<Vec<T>> {
    let Value::Sequence(nodes) = &node.value else {
        wrong_type(&format!("`{name}`"), node, "a list", findings);
        return None;
    };
    let item_name = format!("an item of {name}");
    Some(nodes.iter().filter_map(|node| item(&item_name, node, findings)).collect())
}

/// Text of one line or more, not empty.
pub(super) fn text(name: &str, node: &Node, findings: &mut Findings) -> Option<String> {
    let text = match &node.value {
        Value::Text(text) => text,
        Value::Plain(text) if other_type(text).is_none() => text,
        Value::Plain(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Refused => {
            wrong_type(&quoted(name), node, "text", findings);
            return None;
        }
    };
    if text.trim().is_empty() {
        findings.problem(node.at, format!("{} is empty; expected text", quoted(name)), None);
        return None;
    }
    if let Some(hidden) = text.chars().find(|c| is_misleading(*c)) {
        let message = format!(
            "{} holds the control or invisible character U+{:04X}; expected visible text",
            quoted(name),
            u32::from(hidden)
        );
        findings.problem(node.at, message, None);
        return None;
    }
    Some(text.clone())
}

/// Text of one line, not empty.
pub(super) fn line(name: &str, node: &Node, findings: &mut Findings) -> Option<String> {
    let text = text(name, node, findings)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.contains(['\n', '\t']) {
        findings.problem(node.at, format!("{} has several lines; expected one line", quoted(name)), None);
        return None;
    }
    Some(text.to_owned())
}

/// Text of one line that `parse` accepts; its error says what is expected.
pub(super) fn parsed<T, E: std::fmt::Display>(
    name: &str,
    node: &Node,
    findings: &mut Findings,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Option<T> {
    let text = line(name, node, findings)?;
    match parse(&text) {
        Ok(value) => Some(value),
        Err(error) => {
            findings.problem(node.at, format!("{}: {error}", quoted(name)), None);
            None
        }
    }
}

/// A plain or quoted scalar that `parse` accepts; `expected` says which.
pub(super) fn quantity<T>(
    name: &str,
    node: &Node,
    findings: &mut Findings,
    expected: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Option<T> {
    let value = match &node.value {
        Value::Plain(text) | Value::Text(text) => parse(text),
        Value::Sequence(_) | Value::Mapping(_) | Value::Refused => None,
    };
    if value.is_none() {
        wrong_type(&quoted(name), node, expected, findings);
    }
    value
}

/// A whole number from 1 that fits.
pub(super) fn count(name: &str, node: &Node, findings: &mut Findings) -> Option<u32> {
    let value = match &node.value {
        Value::Plain(text) => text.parse().ok().filter(|number| *number > 0),
        Value::Text(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Refused => None,
    };
    if value.is_none() {
        wrong_type(&quoted(name), node, "a whole number from 1", findings);
    }
    value
}

/// `true` or `false`.
pub(super) fn boolean(name: &str, node: &Node, findings: &mut Findings) -> Option<bool> {
    match &node.value {
        Value::Plain(text) if text == "true" => Some(true),
        Value::Plain(text) if text == "false" => Some(false),
        Value::Plain(_) | Value::Text(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Refused => {
            wrong_type(&quoted(name), node, "`true` or `false`", findings);
            None
        }
    }
}

/// One of some words.
pub(super) fn choice<T: Copy>(
    name: &str,
    node: &Node,
    findings: &mut Findings,
    choices: &[(&str, T)],
) -> Option<T> {
    let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
    if let Value::Plain(text) | Value::Text(text) = &node.value {
        if let Some((_, value)) = choices.iter().find(|(word, _)| word == text) {
            return Some(*value);
        }
        let message = format!("{} is `{}`; expected {}", quoted(name), shown(text), one_of(&words));
        findings.problem(node.at, message, did_you_mean(text, &words));
        return None;
    }
    wrong_type(&quoted(name), node, &one_of(&words), findings);
    None
}

/// The value of `decode` with the place of its node.
pub(super) fn placed<T>(
    decode: impl Fn(&str, &Node, &mut Findings) -> Option<T>,
) -> impl Fn(&str, &Node, &mut Findings) -> Option<Placed<T>> {
    move |name, node, findings| decode(name, node, findings).map(|value| Placed { value, at: node.at })
}

/// Reports that a node is not what is expected, and how to quote what was meant as text.
pub(super) fn wrong_type(what: &str, node: &Node, expected: &str, findings: &mut Findings) {
    let found = match &node.value {
        Value::Refused => return,
        Value::Sequence(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
        Value::Text(text) => format!("the text `{}`", shown(text)),
        Value::Plain(text) => match other_type(text) {
            Some("nothing") => "left empty".to_owned(),
            Some(kind) => format!("{kind} `{}`", shown(text)),
            None => format!("`{}`", shown(text)),
        },
    };
    let hint = match &node.value {
        Value::Plain(text) if expected == "text" && other_type(text) != Some("nothing") => {
            Some(format!("write it in quotes: \"{}\"", shown(text)))
        }
        Value::Plain(text) if expected == "a list" && other_type(text) == Some("nothing") => {
            Some("write `[]` for an empty list".to_owned())
        }
        Value::Plain(_) | Value::Text(_) | Value::Sequence(_) | Value::Mapping(_) | Value::Refused => None,
    };
    findings.problem(node.at, format!("{what} is {found}; expected {expected}"), hint);
}

/// Characters that hide text or turn its direction. Joiners and variation selectors only shape letters and
/// emoji, which names of files must not hold but sentences may.
fn is_misleading(c: char) -> bool {
    let shapes_text = matches!(c, '\n' | '\t' | '\u{200c}' | '\u{200d}' | '\u{fe0e}' | '\u{fe0f}');
    crate::path::is_hidden(c) && !shapes_text
}

/// What YAML takes a plain scalar for, when that is not text.
fn other_type(plain: &str) -> Option<&'static str> {
    match plain {
        "" | "~" | "null" | "Null" | "NULL" => Some("nothing"),
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Some("the boolean"),
        _ if is_number(plain) => Some("the number"),
        _ => None,
    }
}

fn is_number(plain: &str) -> bool {
    let unsigned = plain.strip_prefix(['-', '+']).unwrap_or(plain);
    let has_digit = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    has_digit && (unsigned.parse::<f64>().is_ok() || is_radix(unsigned))
        || matches!(unsigned, ".inf" | ".nan")
}

fn is_radix(unsigned: &str) -> bool {
    let holds = |digits: Option<&str>, radix| {
        digits.is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix)))
    };
    holds(unsigned.strip_prefix("0x"), 16) || holds(unsigned.strip_prefix("0o"), 8)
}

/// `allowed_paths` in quotes; `an item of allowed_paths` as it is.
fn quoted(name: &str) -> String {
    if name.contains(' ') { name.to_owned() } else { format!("`{name}`") }
}

pub(super) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.as_slice() {
        [] => "nothing".to_owned(),
        [only] => only.clone(),
        [front @ .., last] => format!("{} or {last}", front.join(", ")),
    }
}

/// The nearest of some words, when one is near.
pub(super) fn did_you_mean(found: &str, words: &[&str]) -> Option<String> {
    let found = found.to_lowercase();
    let nearest = words.iter().map(|word| (distance(&found, word), *word)).min()?;
    let is_near = nearest.0 <= 1 + nearest.1.len() / 5;
    is_near.then(|| format!("did you mean `{}`?", nearest.1))
}

/// How many characters must be added, removed, replaced or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 40;
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > LONGEST {
        return usize::MAX;
    }
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = match (i, j) {
                (0, _) => j,
                (_, 0) => i,
                (_, _) => {
                    let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                    let shortest = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                    let is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
                    if is_swap { shortest.min(rows[i - 2][j - 2] + 1) } else { shortest }
                }
            };
        }
    }
    rows[a.len()][b.len()]
}
