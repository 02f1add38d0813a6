//! The gate by itself: judges the difference of two commits as an attempt's candidate is judged, from git objects
//! alone and by the documents at the older one. No invariant runs here.

use std::str::FromStr;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use model::secrets::Redactor;
use model::{Change, CommitId, Document, PathRules, PermittedChange, Refused, TargetSpec, TaskId, Verdict};
use target::spec::{self, Registered, SpecError};
use target::{Git, Repository, changes_between};

use super::{Arguments, counted};
use crate::Answer;

const PERMITTED: Style = AnsiColor::Green.on_default();
const DENIED: Style = AnsiColor::Red.on_default();

/// Two commits as their user names them.
#[derive(Debug, Clone)]
pub(super) struct Range {
    base: String,
    head: String,
}

impl FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once("..") {
            Some((_, head)) if head.starts_with('.') => {
                Err("three dots mean the merge base; name it: `$(git merge-base BASE HEAD)..HEAD`".to_owned())
            }
            Some((base, head)) if !base.is_empty() && !head.is_empty() => {
                Ok(Self { base: base.to_owned(), head: head.to_owned() })
            }
            Some(_) | None => Err("expected two commits as BASE..HEAD, such as origin/main..HEAD".to_owned()),
        }
    }
}

/// Judges the range, and says each path with the rule that decided.
pub(super) fn run(arguments: &Arguments, range: &Range, task: &TaskId) -> anyhow::Result<Answer> {
    let directory = &arguments.directory;
    let repository = Repository::discover(&Git::find()?, directory)
        .with_context(|| format!("{} is in no git repository", directory.display()))?;
    let base = resolve(&repository, &range.base)?;
    let head = resolve(&repository, &range.head)?;
    let spec = read_documents(arguments, &repository, &base)?;
    let Some(task) = spec.backlog.task(task) else {
        bail!("the backlog at {} has no task `{task}`", range.base);
    };
    let rules = PathRules::for_task(&spec, task);
    match changes_between(&repository, &base, &head, &Redactor::default())?
        .permit(&rules, &spec.limits_for(task))
    {
        Ok(permitted) => {
            print_permitted(&permitted);
            Ok(Answer::Yes)
        }
        Err(refused) => {
            print_refused(&refused, &rules);
            Ok(Answer::No)
        }
    }
}

fn resolve(repository: &Repository, name: &str) -> anyhow::Result<CommitId> {
    repository
        .resolve(name)?
        .with_context(|| format!("`{name}` names no commit here; fetch it, or give its full name"))
}

fn read_documents(
    arguments: &Arguments,
    repository: &Repository,
    base: &CommitId,
) -> anyhow::Result<TargetSpec> {
    let path = arguments.operator_policy.as_deref();
    let content = path
        .map(|path| std::fs::read(path).with_context(|| format!("cannot read {}", path.display())))
        .transpose()?;
    let name = path.map(|path| path.display().to_string()).unwrap_or_default();
    let policy = content.as_deref().map(|content| Document { file: &name, content: Some(content) });
    match spec::read(repository, base, Registered { policy, ..Registered::default() }) {
        Ok(spec) => Ok(spec),
        Err(SpecError::Problems(problems)) => bail!("the documents at {base} have problems\n{problems}"),
        Err(error) => Err(error.into()),
    }
}

fn print_permitted(change: &PermittedChange) {
    for (file, verdict) in change.files() {
        print_file(file, verdict);
    }
    let count = change.change_set().changes().len();
    anstream::println!("ok: {} may be changed by this task", counted(count, "file"));
}

/// The permitted files too, so that nobody wonders about them; then every violation.
fn print_refused(refused: &Refused, rules: &PathRules) {
    for change in refused.change_set.changes() {
        let verdict = rules.judge(change);
        if verdict.violation().is_none() {
            print_file(change, &verdict);
        }
    }
    for violation in &refused.violations {
        let rule = violation.rule.as_ref().map(|rule| format!("{rule}: ")).unwrap_or_default();
        anstream::println!("{DENIED}denied{DENIED:#}\t{}\t{rule}{}", violation.path, violation.message);
    }
    anstream::eprintln!("{}: {}", refused.reason(), counted(refused.violations.len(), "violation"));
}

fn print_file(change: &Change, verdict: &Verdict) {
    let rules: Vec<String> = verdict.rules().iter().map(ToString::to_string).collect();
    anstream::println!("{PERMITTED}permitted{PERMITTED:#}\t{}\t{}", change.path, rules.join(" and "));
}
