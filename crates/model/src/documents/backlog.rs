//! Reading backlog.yaml.

use std::collections::HashMap;
use std::time::Duration;

use super::decode::{Fields, choice, count, line, list, parsed, placed, quantity, text, wrong_type};
use super::findings::{Findings, Placed, Position};
use super::quantity::{DURATION_FORM, parse_duration};
use super::yaml::{self, Node, Value};
use super::{AgentChoice, Backlog, PathRule, Priority, Size, Status, Task};
use crate::TaskId;
use crate::pattern::PathPattern;

/// A backlog with the places that the cross-check needs.
pub(super) struct ReadBacklog {
    /// The tasks without a problem.
    pub(super) backlog: Backlog,
    /// What every task declares, those with problems included.
    pub(super) declared: Vec<DeclaredTask>,
}

pub(super) struct DeclaredTask {
    pub(super) task_id: Placed<TaskId>,
    pub(super) scope: Option<Placed<String>>,
    pub(super) depends_on: Vec<Placed<TaskId>>,
}

pub(super) fn read(content: &[u8], findings: &mut Findings) -> Option<ReadBacklog> {
    let root = yaml::read(content, findings)?;
    let mut fields = Fields::of("the backlog", &root, findings)?;
    let mut declared = Vec::new();
    let tasks = fields.required("tasks", findings, |name, node, findings| {
        list(name, node, findings, |_, node, findings| task(node, findings, &mut declared))
    });
    fields.finish(findings);
    check_unique(&declared, findings);
    check_dependencies(&declared, findings);
    Some(ReadBacklog { backlog: Backlog { tasks: tasks? }, declared })
}

fn task(node: &Node, findings: &mut Findings, declared: &mut Vec<DeclaredTask>) -> Option<Task> {
    let mut fields = Fields::of("a task", node, findings)?;
    let task_id = fields.required("task_id", findings, placed(task_id));
    let status = fields.optional("status", findings, status);
    let title = fields.optional("title", findings, line);
    let description = fields.optional("description", findings, text);
    let scope = fields.optional("scope", findings, placed(line));
    let priority = fields.optional("priority", findings, priority);
    let estimated_size = fields.optional("estimated_size", findings, size);
    let allowed_paths = fields.optional("allowed_paths", findings, path_rules);
    let acceptance_criteria = fields.optional("acceptance_criteria", findings, texts);
    let blocked_reason = fields.optional("blocked_reason", findings, text);
    let depends_on = fields.optional("depends_on", findings, |name, node, findings| {
        list(name, node, findings, placed(self::task_id))
    });
    let max_attempts = fields.optional("max_attempts", findings, count);
    let timeout = fields.optional("timeout", findings, duration);
    let agent = fields.optional("agent", findings, agent);
    if status.flatten().unwrap_or_default() == Status::Pending {
        let absent = [("title", title == Some(None)), ("scope", scope == Some(None))];
        for (name, _) in absent.iter().filter(|(_, is_absent)| *is_absent) {
            fields.missing(name, findings);
        }
    }
    fields.finish(findings);

    let depends_on = depends_on.map(Option::unwrap_or_default);
    if let Some(task_id) = &task_id {
        declared.push(DeclaredTask {
            task_id: task_id.clone(),
            scope: scope.clone().flatten(),
            depends_on: depends_on.clone().unwrap_or_default(),
        });
    }
    let task_id = task_id?.value;
    let task = Task {
        title: title?.unwrap_or_else(|| task_id.to_string()),
        task_id,
        description: description?,
        scope: scope?.map(|scope| scope.value).unwrap_or_default(),
        priority: priority?.unwrap_or_default(),
        estimated_size: estimated_size?,
        allowed_paths: allowed_paths?.unwrap_or_default(),
        acceptance_criteria: acceptance_criteria?.unwrap_or_default(),
        status: status?.unwrap_or_default(),
        blocked_reason: blocked_reason?,
        depends_on: depends_on?.into_iter().map(|task_id| task_id.value).collect(),
        max_attempts: max_attempts?,
        timeout: timeout?,
        agent: agent?,
        line: node.at.line,
    };
    check_size(&task, node.at, findings);
    Some(task)
}

/// What the log keeps of a task must fit into one of its events.
fn check_size(task: &Task, at: Position, findings: &mut Findings) {
    const LARGEST: usize = 64 << 10;
    let size = serde_json::to_vec(task).map_or(0, |json| json.len());
    if size > LARGEST {
        let message = format!("the task `{}` has {size} bytes; expected at most {LARGEST}", task.task_id);
        let hint = "split it, or name a folder as `dir/**` instead of each of its files";
        findings.problem(at, message, Some(hint.to_owned()));
    }
}

fn task_id(name: &str, node: &Node, findings: &mut Findings) -> Option<TaskId> {
    parsed(name, node, findings, |text| TaskId::parse(text))
}

pub(super) fn status(name: &str, node: &Node, findings: &mut Findings) -> Option<Status> {
    let choices =
        [("pending", Status::Pending), ("completed", Status::Completed), ("blocked", Status::Blocked)];
    choice(name, node, findings, &choices)
}

fn priority(name: &str, node: &Node, findings: &mut Findings) -> Option<Priority> {
    let choices = [("high", Priority::High), ("medium", Priority::Medium), ("low", Priority::Low)];
    choice(name, node, findings, &choices)
}

fn size(name: &str, node: &Node, findings: &mut Findings) -> Option<Size> {
    let choices = [("small", Size::Small), ("medium", Size::Medium), ("large", Size::Large)];
    choice(name, node, findings, &choices)
}

fn agent(name: &str, node: &Node, findings: &mut Findings) -> Option<AgentChoice> {
    match &node.value {
        Value::Mapping(_) => {
            let mut fields = Fields::of("an agent", node, findings)?;
            let command = fields.required("command", findings, text);
            fields.finish(findings);
            command.map(AgentChoice::Command)
        }
        Value::Plain(word) | Value::Text(word) if word == "claude" => Some(AgentChoice::Claude),
        Value::Plain(_) | Value::Text(_) | Value::Sequence(_) | Value::Refused => {
            wrong_type(&format!("`{name}`"), node, "`claude` or `{command: \"…\"}`", findings);
            None
        }
    }
}

pub(super) fn texts(name: &str, node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    list(name, node, findings, text)
}

pub(super) fn path_rules(name: &str, node: &Node, findings: &mut Findings) -> Option<Vec<PathRule>> {
    list(name, node, findings, |name, node, findings| {
        let pattern = parsed(name, node, findings, PathPattern::parse)?;
        Some(PathRule { pattern, file: findings.file.clone(), line: node.at.line, column: node.at.column })
    })
}

pub(super) fn duration(name: &str, node: &Node, findings: &mut Findings) -> Option<Duration> {
    quantity(name, node, findings, DURATION_FORM, parse_duration)
}

/// Task ids become branch names, and some file systems hold branches that differ by case for one.
fn check_unique(declared: &[DeclaredTask], findings: &mut Findings) {
    let mut seen: HashMap<String, &Placed<TaskId>> = HashMap::new();
    for task in declared {
        let task_id = &task.task_id;
        if let Some(first) = seen.get(&task_id.value.as_str().to_ascii_lowercase()) {
            let message = format!(
                "the task id `{}` is taken by `{}` in line {}; expected ids that differ, also when case is ignored",
                task_id.value, first.value, first.at.line
            );
            findings.problem(task_id.at, message, None);
        } else {
            seen.insert(task_id.value.as_str().to_ascii_lowercase(), task_id);
        }
    }
}

fn check_dependencies(declared: &[DeclaredTask], findings: &mut Findings) {
    let index: HashMap<&TaskId, usize> =
        declared.iter().enumerate().map(|(index, task)| (&task.task_id.value, index)).collect();
    let mut edges: Vec<Vec<(usize, Position)>> = vec![Vec::new(); declared.len()];
    for (from, task) in declared.iter().enumerate() {
        for dependency in &task.depends_on {
            match index.get(&dependency.value) {
                Some(to) => edges[from].push((*to, dependency.at)),
                None => {
                    let message = format!(
                        "`depends_on` names `{}`; expected the id of a task in this backlog",
                        dependency.value
                    );
                    findings.problem(dependency.at, message, None);
                }
            }
        }
    }
    for cycle in cycles(&edges) {
        let names: Vec<&str> = cycle.path.iter().map(|task| declared[*task].task_id.value.as_str()).collect();
        let message = format!(
            "the tasks wait for each other: {}; expected dependencies without a circle",
            names.join(" → ")
        );
        findings.problem(cycle.closed_at, message, None);
    }
}

/// A circle of dependencies: its tasks, the first once more at the end, and where it closes.
struct Cycle {
    path: Vec<usize>,
    closed_at: Position,
}

/// One circle for each dependency that closes one, found by walking depth first without recursion: a backlog
/// may be one chain of thousands of tasks.
fn cycles(edges: &[Vec<(usize, Position)>]) -> Vec<Cycle> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        Unseen,
        OnPath,
        Done,
    }
    let mut marks = vec![Mark::Unseen; edges.len()];
    let mut found = Vec::new();
    for root in 0..edges.len() {
        if marks[root] != Mark::Unseen {
            continue;
        }
        marks[root] = Mark::OnPath;
        let mut path = vec![(root, 0)];
        while let Some((task, next)) = path.last_mut() {
            let Some((to, at)) = edges[*task].get(*next).copied() else {
                marks[*task] = Mark::Done;
                path.pop();
                continue;
            };
            *next += 1;
            match marks[to] {
                Mark::Unseen => {
                    marks[to] = Mark::OnPath;
                    path.push((to, 0));
                }
                Mark::OnPath => {
                    let circle = path.iter().map(|(task, _)| *task).skip_while(|task| *task != to);
                    found.push(Cycle { path: circle.chain([to]).collect(), closed_at: at });
                }
                Mark::Done => {}
            }
        }
    }
    found
}
