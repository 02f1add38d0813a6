//! The tools that a model is offered: a closed list, each with its limits.
//!
//! What a model sends is hostile until it is parsed. A tool never ends an attempt: whatever goes wrong becomes
//! an error result that says what to do instead. Whether the agent is stuck is for others to judge.

mod edit;
mod search;
mod shell;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::api::ToolCall;
use model::secrets::Redactor;

use crate::agent::{CriterionNote, FailureCause, Outcome};
use crate::toolbox::Toolbox;

/// The tools of one round.
pub(super) struct Tools<'a> {
    pub(super) toolbox: &'a Toolbox,
    /// What may be changed, in words, for a refused write.
    pub(super) permitted_paths: String,
    /// The names of the invariants.
    pub(super) check_names: Vec<String>,
    pub(super) redactor: Redactor,
}

/// What the model wants, understood.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Request {
    Edit(edit::Edit),
    Bash(shell::Bash),
    ReadFile(edit::ReadFile),
    Grep(search::Grep),
    Glob(search::Glob),
    RunCheck(RunCheck),
    Finish(Finish),
}

/// What a tool says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) is_error: bool,
}

/// The input of `run_check`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunCheck {
    name: String,
}

/// The input of `finish`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Finish {
    pub(super) outcome: Outcome,
    #[serde(default)]
    pub(super) summary: String,
    #[serde(default)]
    pub(super) criteria: Vec<CriterionNote>,
}

/// The list as the API wants it. The same bytes for every request, so that it can be cached.
pub(super) fn definitions() -> Value {
    let text = |description: &str| json!({ "type": "string", "description": description });
    let number = |description: &str| json!({ "type": "integer", "description": description });
    let custom = |name: &str, description: &str, properties: Value, required: Value| {
        json!({
            "name": name,
            "description": description,
            "input_schema": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            },
        })
    };
    json!([
        { "type": "bash_20250124", "name": "bash" },
        custom(
            "finish",
            "Ends your work on the task. Call it alone, when nothing is left to do.",
            json!({
                "outcome": {
                    "type": "string",
                    "enum": ["finished", "gave_up"],
                    "description": "`finished` when the task is done; `gave_up` when it cannot be done",
                },
                "summary": text("What you did and what you could not verify, in a few plain sentences"),
                "criteria": {
                    "type": "array",
                    "description": "Your note on each acceptance criterion, for the reviewer",
                    "items": {
                        "type": "object",
                        "properties": { "criterion": text("The criterion"), "note": text("How it is met") },
                        "required": ["criterion", "note"],
                        "additionalProperties": false,
                    },
                },
            }),
            json!(["outcome", "summary"])
        ),
        custom(
            "glob",
            "Lists the files whose paths match a pattern; `**` crosses folders, `*` does not.",
            json!({ "pattern": text("For example `src/**/*.py`") }),
            json!(["pattern"])
        ),
        custom(
            "grep",
            "Finds the lines that match a regular expression, as path:line:text.",
            json!({
                "pattern": text("A regular expression without look-around and back-references"),
                "path": text("A file or folder to search in; without it the whole repository"),
                "glob": text("Only files whose paths match this pattern"),
                "ignore_case": { "type": "boolean" },
            }),
            json!(["pattern"])
        ),
        custom(
            "read_file",
            "Reads a text file without line numbers.",
            json!({
                "path": text("The file"),
                "first_line": number("The first line to read, 1 for the beginning"),
                "lines": number("How many lines to read"),
            }),
            json!(["path"])
        ),
        custom(
            "run_check",
            "Runs one of the task's checks on the files as they are now, just as it will run in the end.",
            json!({ "name": text("The name of the check") }),
            json!(["name"])
        ),
        { "type": "text_editor_20250728", "name": "str_replace_based_edit_tool" },
    ])
}

impl Request {
    /// Understands a call, or says what is wrong with it.
    pub(super) fn parse(call: &ToolCall) -> Result<Self, String> {
        let input = call.input.as_ref().map_err(|problem| format!("`{}`: {problem}", call.name))?;
        match call.name.as_str() {
            "bash" => parsed(call, input).map(Self::Bash),
            "finish" => parsed(call, input).map(Self::Finish),
            "glob" => parsed(call, input).map(Self::Glob),
            "grep" => parsed(call, input).map(Self::Grep),
            "read_file" => parsed(call, input).map(Self::ReadFile),
            "run_check" => parsed(call, input).map(Self::RunCheck),
            "str_replace_based_edit_tool" => parsed(call, input).map(Self::Edit),
            unknown => Err(format!(
                "there is no tool `{}`; the tools are bash, finish, glob, grep, read_file, run_check and \
                 str_replace_based_edit_tool",
                unknown.chars().take(80).collect::<String>()
            )),
        }
    }
}

/// Whether a model that sends this input to the tool of this name is understood, or what it is told instead. Nothing is done.
pub fn understand(name: &str, input: &[u8]) -> Result<(), String> {
    let input: Map<String, Value> = serde_json::from_slice(input)
        .map_err(|error| format!("`{name}`: the input is no JSON object: {error}"))?;
    let call = ToolCall { id: String::new(), name: name.to_owned(), input: Ok(input) };
    Request::parse(&call).map(drop)
}

impl Tools<'_> {
    /// Does what the model wants. An error means that the attempt must stop, not that the tool failed.
    pub(super) async fn run(&self, request: Request) -> Result<Said, FailureCause> {
        let said = match request {
            Request::Edit(edit) => edit.run(self),
            Request::ReadFile(read) => read.run(self),
            Request::Bash(bash) => bash.run(self).await?,
            Request::Grep(grep) => self.search(move |tree| grep.run(&tree)).await?,
            Request::Glob(glob) => self.search(move |tree| glob.run(&tree)).await?,
            Request::RunCheck(check) => self.run_check(check).await?,
            Request::Finish(_) => Said::text("Your report is taken."),
        };
        Ok(Said { text: self.redactor.clean_ours(&said.text), is_error: said.is_error })
    }

    async fn run_check(&self, check: RunCheck) -> Result<Said, FailureCause> {
        let report = self.toolbox.bounds.hold((self.toolbox.check)(check.name.clone())).await?;
        Ok(match report {
            Some(report) => Said { text: report.text, is_error: !report.passed },
            None => Said::error(format!(
                "there is no check `{}`; the checks are: {}",
                check.name,
                self.check_names.join(", ")
            )),
        })
    }

    /// Reads the tree on a thread of its own, which ends by itself after [`search::LONGEST`].
    async fn search(
        &self,
        search: impl FnOnce(crate::toolbox::Tree) -> Said + Send + 'static,
    ) -> Result<Said, FailureCause> {
        let tree = self.toolbox.tree.clone();
        let done = self.toolbox.bounds.hold(tokio::task::spawn_blocking(move || search(tree))).await?;
        Ok(done.unwrap_or_else(|error| Said::error(format!("the search failed: {error}"))))
    }

    /// A path of the model's as one relative to the tree. The text is not yet safe; opening it is.
    fn relative(&self, given: &str) -> String {
        let root = self.toolbox.tree.path().to_string_lossy();
        let beneath_root = given.strip_prefix(root.trim_end_matches('/')).filter(|rest| {
            // `/tree` and `/tree/x`, but not `/tree-of-somebody-else`.
            rest.is_empty() || rest.starts_with('/')
        });
        let relative = beneath_root.map_or(given, |rest| rest.trim_start_matches('/'));
        let relative = relative.strip_prefix("./").unwrap_or(relative);
        if relative == "." { String::new() } else { relative.trim_end_matches('/').to_owned() }
    }

    /// The path, if the rules permit that it changes.
    fn writable(&self, given: &str) -> Result<model::RepoPath, Said> {
        let path = model::RepoPath::parse(&self.relative(given)).map_err(|e| Said::error(e.to_string()))?;
        match self.toolbox.rules.judge_path(&path).violation() {
            None => Ok(path),
            Some(violation) => Err(Said::error(format!(
                "refused, and nothing was changed: {violation}\n{}",
                self.permitted_paths
            ))),
        }
    }
}

impl Said {
    fn text(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: false }
    }

    pub(super) fn error(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_error: true }
    }
}

fn parsed<T: for<'de> Deserialize<'de>>(call: &ToolCall, input: &Map<String, Value>) -> Result<T, String> {
    T::deserialize(input).map_err(|error| format!("`{}`: {error}", call.name))
}
