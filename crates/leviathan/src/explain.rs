//! `leviathan explain`: which paths a task may change, and which rule says so.

use std::path::PathBuf;

use anstyle::{AnsiColor, Style};
use model::{PathRules, RepoPath, RuleRef, TaskId, Verdict, Violation};

use crate::{Answer, local_documents};

const PERMITTED: Style = AnsiColor::Green.on_default();
const DENIED: Style = AnsiColor::Red.on_default();

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The task whose rules are asked
    #[arg(long, value_name = "ID")]
    task: TaskId,
    /// The repository; its documents are in `.leviathan/`
    #[arg(long = "dir", value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// An operator's policy that tightens the repository's
    #[arg(long, value_name = "FILE")]
    operator_policy: Option<PathBuf>,
    /// Paths of files, relative to the root of the repository
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let spec = match local_documents::read(&arguments.directory, arguments.operator_policy.as_deref())? {
        Ok(spec) => spec,
        Err(problems) => return Ok(refused(&problems.to_string())),
    };
    let Some(task) = spec.backlog.task(&arguments.task) else {
        return Ok(refused(&format!("the backlog has no task `{}`", arguments.task)));
    };
    let rules = PathRules::for_task(&spec, task);
    let lines: Vec<Line> = arguments.paths.iter().map(|path| Line::of(path, &rules)).collect();
    for line in &lines {
        line.print();
    }
    let all_permitted = lines.iter().all(|line| line.is_permitted);
    Ok(if all_permitted { Answer::Yes } else { Answer::No })
}

/// Where the rules cannot be had, no path is permitted.
fn refused(why: &str) -> Answer {
    anstream::eprintln!("{why}");
    Answer::No
}

struct Line {
    is_permitted: bool,
    /// As it was given, escaped.
    path: String,
    reason: String,
}

impl Line {
    fn of(text: &str, rules: &PathRules) -> Self {
        let path: String = text.chars().flat_map(visible).collect();
        let verdict = RepoPath::parse(text).map(|path| rules.judge_path(&path));
        let (is_permitted, reason) = match verdict {
            Ok(Verdict::Permitted { rules }) => (true, joined(&rules)),
            Ok(Verdict::Denied(violation)) => (false, because(&violation)),
            Err(error) => (false, error.to_string()),
        };
        Self { is_permitted, path, reason }
    }

    fn print(&self) {
        let (style, word) = if self.is_permitted { (PERMITTED, "permitted") } else { (DENIED, "denied") };
        anstream::println!("{style}{word}{style:#}\t{}\t{}", self.path, self.reason);
    }
}

fn visible(c: char) -> Vec<char> {
    if c.is_control() { c.escape_default().collect() } else { vec![c] }
}

fn joined(rules: &[RuleRef]) -> String {
    rules.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
}

fn because(violation: &Violation) -> String {
    match &violation.rule {
        Some(rule) => format!("{rule}: {}", violation.message),
        None => violation.message.clone(),
    }
}
