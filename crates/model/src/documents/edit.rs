//! Changing the status of one task in a backlog's text, and nothing else: every other byte stays.

use std::ops::Range;

use serde_json::Value as Json;

use super::findings::Findings;
use super::yaml::{self, Entry, Mapping, Node, Value};
use super::{Backlog, Problems, Status};
use crate::TaskId;

/// Why a backlog was not edited. The text is as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EditRefused {
    /// The text is no valid backlog.
    #[error("the backlog cannot be read: {0}")]
    Unreadable(Problems),
    /// A human removed or renamed the task.
    #[error("the backlog has no task `{0}`")]
    NoSuchTask(TaskId),
    /// A human changed the status.
    #[error("the task `{task}` is {found}, not {expected}: a human decided otherwise")]
    Unexpected {
        /// The task.
        task: TaskId,
        /// The status that it was taken to have.
        expected: Status,
        /// The status that it has.
        found: Status,
    },
    /// A place that cannot be changed without touching other bytes.
    #[error("the status of task `{0}` stands where it cannot be changed alone; edit it by hand")]
    NotAlone(TaskId),
}

impl Backlog {
    /// Changes the status of `task` in `text` from `expected` to `to`, keeping its quotes. A task without the
    /// field is pending and gets a line of its own below its id. The result is read again and must differ
    /// from `text` in that status alone.
    pub fn set_status(
        file: &str,
        text: &str,
        task: &TaskId,
        expected: Status,
        to: Status,
    ) -> Result<String, EditRefused> {
        let backlog = Self::parse(file, text.as_bytes()).map_err(EditRefused::Unreadable)?;
        let found = backlog.task(task).ok_or_else(|| EditRefused::NoSuchTask(task.clone()))?.status;
        if found != expected {
            return Err(EditRefused::Unexpected { task: task.clone(), expected, found });
        }
        let edited = edited(text, task, to).ok_or_else(|| EditRefused::NotAlone(task.clone()))?;
        if is_only_change(text, &edited, task, to) {
            Ok(edited)
        } else {
            Err(EditRefused::NotAlone(task.clone()))
        }
    }
}

fn edited(text: &str, task: &TaskId, to: Status) -> Option<String> {
    let root = tree(text)?;
    let fields = task_fields(&root, task)?;
    match entry(fields, "status") {
        Some(status) => replaced(text, &status.value.bytes, to),
        None if fields.is_flow => None,
        None => inserted(text, entry(fields, "task_id")?, to),
    }
}

fn replaced(text: &str, bytes: &Range<usize>, to: Status) -> Option<String> {
    let old = text.get(bytes.clone())?;
    let quote = match old.chars().next()? {
        quote @ ('"' | '\'') => quote.to_string(),
        _ => String::new(),
    };
    Some(format!("{}{quote}{to}{quote}{}", &text[..bytes.start], &text[bytes.end..]))
}

/// Puts `status: …` on a line of its own below the line of the task's id.
fn inserted(text: &str, task_id: &Entry, to: Status) -> Option<String> {
    let line_start = text[..task_id.start].rfind('\n').map_or(0, |at| at + 1);
    let before_key = text[line_start..task_id.start].trim_start_matches('\u{feff}');
    let indent = " ".repeat(before_key.chars().count());
    let rest = text.get(task_id.value.bytes.end..)?;
    let line_end = task_id.value.bytes.end + rest.find(['\r', '\n']).unwrap_or(rest.len());
    let newline = if text.contains("\r\n") { "\r\n" } else { "\n" };
    Some(format!("{}{newline}{indent}status: {to}{}", &text[..line_end], &text[line_end..]))
}

fn is_only_change(before: &str, after: &str, task: &TaskId, to: Status) -> bool {
    let (Some(before), Some(after)) = (tree(before), tree(after)) else { return false };
    let Some(index) = task_index(&before, task) else { return false };
    let mut expected = data(&before);
    expected["tasks"][index]["status"] = Json::String(to.to_string());
    expected == data(&after)
}

fn tree(text: &str) -> Option<Node> {
    let mut findings = Findings::of("");
    yaml::read(text.as_bytes(), &mut findings).filter(|_| findings.problems.is_empty())
}

fn task_fields<'tree>(root: &'tree Node, task: &TaskId) -> Option<&'tree Mapping> {
    mapping(tasks(root)?.get(task_index(root, task)?)?)
}

fn task_index(root: &Node, task: &TaskId) -> Option<usize> {
    tasks(root)?.iter().position(|node| {
        let task_id = mapping(node).and_then(|fields| entry(fields, "task_id"));
        task_id.is_some_and(|entry| scalar(&entry.value) == Some(task.as_str()))
    })
}

fn tasks(root: &Node) -> Option<&[Node]> {
    match &entry(mapping(root)?, "tasks")?.value.value {
        Value::Sequence(tasks) => Some(tasks),
        Value::Plain(_) | Value::Text(_) | Value::Mapping(_) | Value::Refused => None,
    }
}

fn entry<'tree>(mapping: &'tree Mapping, key: &str) -> Option<&'tree Entry> {
    mapping.entries.iter().find(|entry| entry.key == key)
}

fn mapping(node: &Node) -> Option<&Mapping> {
    match &node.value {
        Value::Mapping(mapping) => Some(mapping),
        Value::Plain(_) | Value::Text(_) | Value::Sequence(_) | Value::Refused => None,
    }
}

fn scalar(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Plain(text) | Value::Text(text) => Some(text),
        Value::Sequence(_) | Value::Mapping(_) | Value::Refused => None,
    }
}

/// What a tree says, without where it says it.
fn data(node: &Node) -> Json {
    match &node.value {
        Value::Plain(text) | Value::Text(text) => Json::String(text.clone()),
        Value::Sequence(items) => items.iter().map(data).collect(),
        Value::Mapping(mapping) => {
            mapping.entries.iter().map(|entry| (entry.key.clone(), data(&entry.value))).collect()
        }
        Value::Refused => Json::Null,
    }
}
