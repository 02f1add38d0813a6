//! `leviathan check`: every problem and every warning of the three documents, at once; and with `--diff` the gate
//! by itself, for a change that is committed already.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use model::{Problem, TargetSpec, TaskId};

use crate::{Answer, local_documents};

mod gate;

const PROBLEM: Style = AnsiColor::Red.on_default();
const WARNING: Style = AnsiColor::Yellow.on_default();

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The repository; its documents are in `.leviathan/`
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// An operator's policy that tightens the repository's
    #[arg(long, value_name = "FILE")]
    operator_policy: Option<PathBuf>,
    /// Judge what this range of commits changes, by the documents at BASE, instead of checking the documents
    #[arg(long, value_name = "BASE..HEAD", requires = "task")]
    diff: Option<gate::Range>,
    /// The task whose rules the change is judged by
    #[arg(long, value_name = "ID", requires = "diff")]
    task: Option<TaskId>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    match (&arguments.diff, &arguments.task) {
        (Some(range), Some(task)) => gate::run(arguments, range, task),
        (Some(_), None) | (None, Some(_)) | (None, None) => check_documents(arguments),
    }
}

fn check_documents(arguments: &Arguments) -> anyhow::Result<Answer> {
    match local_documents::read(&arguments.directory, arguments.operator_policy.as_deref())? {
        Ok(spec) => {
            print_each("warning", WARNING, &spec.warnings);
            anstream::println!("ok: {}", summary(&spec));
            Ok(Answer::Yes)
        }
        Err(problems) => {
            let found: Vec<Problem> = problems.iter().cloned().collect();
            print_each("problem", PROBLEM, &found);
            print_each("warning", WARNING, problems.warnings());
            anstream::eprintln!(
                "{}; {}",
                counted(found.len(), "problem"),
                counted(problems.warnings().len(), "warning")
            );
            Ok(Answer::No)
        }
    }
}

fn print_each(kind: &str, style: Style, problems: &[Problem]) {
    for problem in problems {
        let Problem { file, line, column, message, hint } = problem;
        let hint = hint.as_ref().map(|hint| format!("; hint: {hint}")).unwrap_or_default();
        anstream::println!("{file}:{line}:{column}: {style}{kind}{style:#}: {message}{hint}");
    }
}

fn summary(spec: &TargetSpec) -> String {
    format!(
        "target {} with {}, {} and {}; {}",
        spec.contract.target_id,
        counted(spec.backlog.tasks.len(), "task"),
        counted(spec.policy.scopes.len(), "scope"),
        counted(spec.policy.invariants.len(), "invariant"),
        counted(spec.warnings.len(), "warning"),
    )
}

fn counted(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}
