//! The way from a transcript back to the commit: the recorded uses of tools, made again on the same base, without a
//! model and without a network.
//!
//! What the model wanted is taken from the transcript, what it does to the tree is done anew. If the tree comes to the
//! same commit, then the transcript tells the whole of what the agent did. What the tools say this time is compared
//! with what they said then; a command may say the time of day, so that it decides nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use model::secrets::Redactor;
use model::{CommitId, PathRules, TargetSpec};
use serde::Deserialize;
use serde_json::Value;
use target::{Prepared, Provenance, Repository, SnapshotLimits, export, snapshot, spec};
use tokio::sync::watch;
use tokio::time::Instant;

use super::TRANSCRIPT_FORMAT;
use super::api::ToolCall;
use super::tools::{Request, Said, Tools};
use crate::checks::{SetUp, set_up};
use crate::contain::{Containment, end_all_descendants};
use crate::toolbox::{Bounds, Shell, Toolbox, Tree};

/// How long all of it may take.
const LONGEST: Duration = Duration::from_secs(60 * 60);

/// What a replay stands on.
pub struct Ground<'a> {
    /// Has the base commit, and is only read.
    pub repository: &'a Repository,
    /// An empty folder; the tree comes into it.
    pub folder: &'a Path,
    /// How the recorded commands are contained.
    pub containment: &'a Containment,
    /// Whether the policy's `setup` runs first, as it did then.
    pub setup: bool,
}

/// What a round came to this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Round {
    /// How many uses of tools were made again.
    pub uses: u32,
    /// Those of them that said something else.
    pub differences: Vec<Difference>,
    /// The commit that the transcript names.
    pub recorded: CommitId,
    /// The commit that was made now.
    pub made: CommitId,
}

/// A use of a tool that said something else than it did then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The line of the transcript, from 1.
    pub line: usize,
    /// The tool.
    pub tool: String,
}

/// Makes the recorded uses of tools again, and tells for each round the commit then and now. Fails when the transcript
/// is of another form or incomplete, or the repository lacks the base.
pub async fn replay(transcript: &[u8], ground: &Ground<'_>) -> anyhow::Result<Vec<Round>> {
    let Script { base, tree, provenance, steps } = read(transcript)?;
    let stage = Stage::build(ground, &base, provenance).await?;
    let tools = Tools {
        toolbox: &stage.toolbox,
        permitted_paths: String::new(),
        check_names: Vec::new(),
        redactor: Redactor::default(),
    };
    let places = Places { then: tree, now: stage.toolbox.tree.path().to_owned() };
    let mut rounds = Vec::new();
    let (mut uses, mut differences) = (0, Vec::new());
    for step in steps {
        match step {
            Step::Use { line, call, said } => {
                let Some(now) = again(&tools, &places, call.clone(), &said).await? else { continue };
                uses += 1;
                if now != said {
                    differences.push(Difference { line, tool: call.name });
                }
            }
            Step::Candidate { commit } => {
                let made = stage.commit()?;
                rounds.push(Round { uses, differences, recorded: commit, made });
                (uses, differences) = (0, Vec::new());
            }
        }
    }
    ensure!(
        !rounds.is_empty(),
        "the transcript names no commit: its agent did not come to the end of a round"
    );
    Ok(rounds)
}

/// What a transcript tells.
struct Script {
    base: CommitId,
    /// The tree in which the agent worked then.
    tree: PathBuf,
    provenance: Provenance,
    steps: Vec<Step>,
}

enum Step {
    /// A use of a tool, and what it said.
    Use { line: usize, call: ToolCall, said: Said },
    /// The end of a round.
    Candidate { commit: CommitId },
}

/// The lines that a replay needs, each with the fields that it needs.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Line {
    Conversation {
        format: String,
    },
    Attempt {
        base: CommitId,
        tree: PathBuf,
        provenance: Provenance,
    },
    ToolIntent {
        id: String,
        name: String,
        input: Value,
    },
    ToolResult {
        id: String,
        is_error: bool,
        text: String,
    },
    Candidate {
        commit: CommitId,
    },
    #[serde(other)]
    Other,
}

/// Reads a transcript from its last beginning: what came before belongs to a process that was lost, and to another tree.
fn read(transcript: &[u8]) -> anyhow::Result<Script> {
    let (mut attempt, mut steps, mut intent) = (None, Vec::new(), None);
    let lines = transcript.split(|byte| *byte == b'\n').enumerate();
    for (index, text) in lines.filter(|(_, text)| !text.is_empty()) {
        let line = index + 1;
        // A crash may have cut a line off; what follows begins anew.
        let Ok(read) = serde_json::from_slice(text) else { continue };
        match read {
            Line::Conversation { format } if format == TRANSCRIPT_FORMAT => {
                (attempt, steps, intent) = (None, Vec::new(), None);
            }
            Line::Conversation { format } => {
                bail!("line {line}: its form is `{format}`, and this version reads `{TRANSCRIPT_FORMAT}`")
            }
            Line::Attempt { base, tree, provenance } => attempt = Some((base, tree, provenance)),
            Line::ToolIntent { id, name, input } => {
                let input = input.as_object().cloned().ok_or_else(|| input.to_string());
                intent = Some((line, ToolCall { id, name, input }));
            }
            Line::ToolResult { id, is_error, text } => match intent.take() {
                Some((line, call)) if call.id == id => {
                    steps.push(Step::Use { line, call, said: Said { text, is_error } });
                }
                Some(_) | None => bail!("line {line}: a result without its use of a tool"),
            },
            Line::Candidate { commit } => steps.push(Step::Candidate { commit }),
            Line::Other => {}
        }
    }
    let (base, tree, provenance) =
        attempt.context("this is no transcript of an attempt: it does not say which commit it began with")?;
    Ok(Script { base, tree, provenance, steps })
}

/// The tree was elsewhere then.
struct Places {
    then: PathBuf,
    now: PathBuf,
}

impl Places {
    /// The input with this time's place in it.
    fn of_now(&self, input: Value) -> Value {
        match input {
            Value::String(text) => Value::String(replaced(&text, &self.then, &self.now)),
            Value::Array(list) => list.into_iter().map(|value| self.of_now(value)).collect(),
            Value::Object(fields) => {
                fields.into_iter().map(|(name, value)| (name, self.of_now(value))).collect()
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => input,
        }
    }

    fn of_then(&self, said: Said) -> Said {
        Said { text: replaced(&said.text, &self.now, &self.then), ..said }
    }
}

fn replaced(text: &str, from: &Path, to: &Path) -> String {
    text.replace(&*from.to_string_lossy(), &to.to_string_lossy())
}

/// Does what a call did. `None` when it did nothing to the tree then, or cannot do anything to it.
async fn again(
    tools: &Tools<'_>,
    places: &Places,
    call: ToolCall,
    then: &Said,
) -> anyhow::Result<Option<Said>> {
    let input = call.input.map(|fields| places.of_now(Value::Object(fields)));
    let Ok(Value::Object(fields)) = input else { return Ok(None) };
    let Ok(request) = Request::parse(&ToolCall { input: Ok(fields), ..call }) else { return Ok(None) };
    let is_made_again = match &request {
        // A refused edit changed nothing, whatever refused it.
        Request::Edit(_) => !then.is_error,
        Request::Bash(_) | Request::ReadFile(_) | Request::Grep(_) | Request::Glob(_) => true,
        Request::RunCheck(_) | Request::Finish(_) => false,
    };
    if !is_made_again {
        return Ok(None);
    }
    let said = tools.run(request).await.map_err(anyhow::Error::new)?;
    Ok(Some(places.of_then(said)))
}

/// A tree that began as the attempt's did.
struct Stage {
    own: Repository,
    base: CommitId,
    provenance: Provenance,
    prepared: Prepared,
    toolbox: Toolbox,
    /// While it is open, nobody cancels.
    _open: watch::Sender<bool>,
}

impl Stage {
    async fn build(ground: &Ground<'_>, base: &CommitId, provenance: Provenance) -> anyhow::Result<Self> {
        let Ground { repository, folder, containment, setup } = ground;
        let own = Repository::init_borrowing(&folder.join("own.git"), repository)?;
        let known = own.resolve(base.as_str())?;
        ensure!(known.as_ref() == Some(base), "this repository has no commit {base}: fetch it first");
        let documents = spec::Registered { contract: None, policy: None, backlog: None };
        let spec = spec::read(&own, base, documents).context("the documents at the base commit")?;
        let rules = rules(&spec, &provenance)?;
        let tree = folder.join("tree");
        export(&own, base, &tree)?;
        let (open, cancelled) = watch::channel(false);
        let bounds = Bounds::new(Instant::now() + LONGEST, cancelled);
        let scratch = folder.join("agent");
        std::fs::create_dir_all(&scratch)?;
        let mut prepared = Prepared::default();
        if *setup && !spec.policy.setup.is_empty() {
            match set_up(containment, &spec.policy.setup, &tree, &scratch, &scratch, &bounds).await? {
                SetUp::Done => prepared = Prepared::read(&own, base, &tree)?,
                SetUp::Failed { problem, .. } => bail!("{problem}. Leave it out with --without-setup"),
            }
        }
        let toolbox = Toolbox {
            tree: Tree::open(&tree)?,
            rules: Arc::new(rules),
            shell: Shell::new((*containment).clone(), scratch),
            check: Arc::new(|_| Box::pin(async { None })),
            bounds,
        };
        Ok(Self { own, base: base.clone(), provenance, prepared, toolbox, _open: open })
    }

    /// The commit of the tree as it is now.
    fn commit(&self) -> anyhow::Result<CommitId> {
        end_all_descendants(|_, _| {})?;
        let (tree, limits) = (self.toolbox.tree.path(), SnapshotLimits::default());
        let Self { own, base, provenance, prepared, .. } = self;
        let taken = snapshot(own, base, tree, prepared, provenance, &limits, &Redactor::default())?;
        Ok(taken.change.candidate().clone())
    }
}

fn rules(spec: &TargetSpec, provenance: &Provenance) -> anyhow::Result<PathRules> {
    let task = spec.backlog.task(&provenance.task);
    let task = task.with_context(|| format!("the backlog at the base has no task `{}`", provenance.task))?;
    Ok(PathRules::for_task(spec, task))
}
