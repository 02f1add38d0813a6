//! `leviathan bench attempt`: what an attempt costs beside the agent and the checks.
//!
//! Real attempts go through the product on a large repository of the benchmark's own making: a control plane in
//! this process, one scheduler pass for each attempt, an executor with its stages as processes, a local forge.
//! Between them the same change is made by git as a person types it; that is the limit. What an attempt took is
//! read from the log, by the times that its own events carry.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use api::Client;
use api::types::{EventsQuery, RegisterTarget};
use control_plane::Server;
use model::Event;
use model::event::{EventKind, Timestamp};
use tokio::sync::watch;

use super::{Goal, large_repository, machine, median, print_row, show};
use crate::plain_git::git;
use crate::scheduler::Settings;
use crate::{Answer, up};

/// An attempt may take so many times what git takes for the same change.
const TARGET: f64 = 2.0;
/// How many files each change touches.
const CHANGED_FILES: usize = 10;

/// What `leviathan bench attempt` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many files the repository has
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    files: u32,
    /// How many commits it has
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    commits: u32,
    /// How many attempts are measured, after one that is not
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Write one JSON object instead of the table
    #[arg(long)]
    json: bool,
}

/// Measures, prints, and says whether the goal is met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    let rounds = runtime.block_on(measure(arguments))?;
    let total =
        |times: fn(&Round) -> &[f64]| median(rounds.iter().map(|it| times(it).iter().sum()).collect());
    let goal =
        Goal::at_most(TARGET, "attempt-overhead", total(|round| &round.attempt), total(|round| &round.git));
    show(std::slice::from_ref(&goal), arguments.json, || print_table(arguments, &rounds, &goal))
}

/// What one round took, in seconds: by [`GIT_STEPS`] and by [`ATTEMPT_STEPS`].
struct Round {
    git: [f64; GIT_STEPS.len()],
    attempt: [f64; ATTEMPT_STEPS.len()],
}

/// The limit is the sum of these.
const GIT_STEPS: [&str; 3] = ["git worktree add", "git diff", "git push"];

/// The steps of an attempt: each begins where the one before it ended, with the event of the given type, and
/// what the agent or the check took that the event reports is not part of it.
const ATTEMPT_STEPS: [(&str, &str); 8] = [
    ("start the executor", "attempt.started"),
    ("prepare, export for the agent", "agent.finished"),
    ("snapshot and gate", "change.permitted"),
    ("export for the checks", "invariant.passed"),
    ("pack the candidate", "change.verified"),
    ("verify it again and push", "branch.pushed"),
    ("open the pull request", "pr.created"),
    ("complete the attempt", "attempt.completed"),
];

/// Makes the repository, and takes turns: git first, then an attempt. The first turn of both only warms up.
async fn measure(arguments: &Arguments) -> anyhow::Result<Vec<Round>> {
    let folder = tempfile::Builder::new().prefix("leviathan-bench-").tempdir()?;
    let site = Site { folder: folder.path().canonicalize()? };
    site.make(arguments)?;
    let (stop, mut stopped) = watch::channel(false);
    let server = Server::bind(site.control_plane()?).await?;
    let client = Client::new(&format!("http://{}", server.address()), up::kept_token(&site.data())?)?;
    let serving = tokio::spawn(server.run(async move {
        let _ = stopped.wait_for(|stop| *stop).await;
    }));
    let contract = git(&site.origin(), &["show", "main:.leviathan/contract.yaml"])?;
    client.register_target(&RegisterTarget::of_contract(contract)).await?;
    let mut rounds = Vec::new();
    for number in 0..=arguments.rounds {
        let git = site.change_by_git(arguments, number)?;
        let attempt = site.change_by_attempt(&client, number).await?;
        if number > 0 {
            rounds.push(Round { git, attempt });
        }
    }
    stop.send_replace(true);
    serving.await.context("the control plane met a bug")??;
    Ok(rounds)
}

/// The folder that the benchmark happens in.
struct Site {
    folder: PathBuf,
}

impl Site {
    fn origin(&self) -> PathBuf {
        self.folder.join("origin.git")
    }

    /// Where git's branches go, so that the attempts find an origin without them.
    fn copy(&self) -> PathBuf {
        self.folder.join("copy.git")
    }

    /// What git works from, as an attempt works from the product's own mirror.
    fn mirror(&self) -> PathBuf {
        self.folder.join("mirror.git")
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn make(&self, arguments: &Arguments) -> anyhow::Result<()> {
        let files = usize::try_from(arguments.files)?;
        let documents = [
            (".leviathan/contract.yaml", contract(&self.origin())),
            (".leviathan/policy.yaml", policy(arguments.rounds)),
            (".leviathan/backlog.yaml", backlog(arguments)),
        ];
        large_repository::make(&self.origin(), files, usize::try_from(arguments.commits)?, &documents)?;
        for bare in [self.copy(), self.mirror()] {
            let (from, to) = (text(&self.origin())?.to_owned(), text(&bare)?.to_owned());
            git(&self.folder, &["clone", "--quiet", "--mirror", &from, &to])?;
        }
        Ok(std::fs::create_dir_all(self.data())?)
    }

    fn control_plane(&self) -> anyhow::Result<control_plane::Config> {
        let data = self.data();
        let token = up::kept_token(&data)?;
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(control_plane::Config { listen, ..control_plane::Config::new(data, token) })
    }

    /// The limit: the same change by git alone. The edit and the commit are not counted. The working tree stays
    /// until the end: a file system that has just removed many files may be slow to make new ones.
    fn change_by_git(&self, arguments: &Arguments, number: u32) -> anyhow::Result<[f64; GIT_STEPS.len()]> {
        let (mirror, tree) = (self.mirror(), self.folder.join(format!("tree-{number}")));
        let branch = format!("bench-{number}");
        let add = ["worktree", "add", "--quiet", "--no-track", "-b", &branch, text(&tree)?, "main"];
        let add = timed(|| git(&mirror, &add))?;
        git_shell(&tree, &edit(arguments, number))?;
        let diff = timed(|| git(&tree, &["diff"]))?;
        git(&tree, &["commit", "--quiet", "--all", "--message", "The change of the benchmark"])?;
        let copy = format!("file://{}", text(&self.copy())?);
        let push = timed(|| git(&tree, &["push", "--quiet", &copy, &branch]))?;
        Ok([add, diff, push])
    }

    /// One attempt: a pass of the scheduler claims the next task, starts its executor and waits for it.
    async fn change_by_attempt(
        &self,
        client: &Client,
        number: u32,
    ) -> anyhow::Result<[f64; ATTEMPT_STEPS.len()]> {
        let config = Settings::from_environment()?.config(client.clone(), self.data())?;
        let (_go_on, stop) = watch::channel(false);
        let report = scheduler::run_once(config, stop).await?;
        let query = EventsQuery { task: Some(task_id(number).parse()?), ..EventsQuery::default() };
        let events: Vec<Event> =
            client.events(&query).await?.events.into_iter().map(|recorded| recorded.event).collect();
        steps_of(&events)
            .with_context(|| format!("an attempt did not go as it should: {}", report.problems.join("; ")))
    }
}

/// How long each step of the attempt took, by its events in the order of the log.
fn steps_of(events: &[Event]) -> anyhow::Result<[f64; ATTEMPT_STEPS.len()]> {
    let moment_of = |event_type: &str| {
        let Some(event) = events.iter().find(|event| event.kind.event_type() == event_type) else {
            bail!("the log has no {event_type}{}", why_it_failed(events));
        };
        Ok((event.timestamp, not_ours(&event.kind)))
    };
    let (mut begun, _) = moment_of("attempt.created")?;
    let mut steps = [0.0; ATTEMPT_STEPS.len()];
    for (step, (_, event_type)) in steps.iter_mut().zip(ATTEMPT_STEPS) {
        let (ended, not_ours) = moment_of(event_type)?;
        *step = seconds_between(begun, ended) - not_ours;
        begun = ended;
    }
    Ok(steps)
}

/// The seconds that the agent or the check took by itself.
fn not_ours(kind: &EventKind) -> f64 {
    let milliseconds = if let EventKind::AgentFinished(finished) = kind {
        finished.duration_ms
    } else if let EventKind::InvariantPassed(checked) = kind {
        checked.duration_ms
    } else {
        0
    };
    std::time::Duration::from_millis(milliseconds).as_secs_f64()
}

fn why_it_failed(events: &[Event]) -> String {
    let failed = events.iter().find_map(|event| {
        let EventKind::AttemptFailed(failed) = &event.kind else { return None };
        Some(format!(": {} ({})", failed.detail, failed.reason))
    });
    failed.unwrap_or_default()
}

fn seconds_between(begun: Timestamp, ended: Timestamp) -> f64 {
    ended.moment().duration_since(begun.moment()).as_secs_f64()
}

fn timed<T>(work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn contract(origin: &Path) -> String {
    format!(
        "\
target_id: bench
name: Benchmark
repo_url: file://{}
default_branch: main
description: \"A large repository\"
owner: you
",
        origin.display()
    )
}

fn policy(rounds: u32) -> String {
    format!(
        "\
scopes:
  everything:
    allowed_paths:
      - src/**
invariants:
  - name: \"The sources are there\"
    check: \"test -d src\"
baseline: false
limits:
  max_concurrent: 1
  max_open_prs: {}
",
        rounds + 2
    )
}

fn backlog(arguments: &Arguments) -> String {
    let task = |number| {
        format!(
            "  - task_id: {}
    title: \"Change a few files\"
    scope: everything
    priority: high
    estimated_size: small
    allowed_paths:
      - src/**
    acceptance_criteria:
      - \"A few files are changed\"
    agent:
      command: \"{}\"
    status: pending
",
            task_id(number),
            edit(arguments, number)
        )
    };
    format!("tasks:\n{}", (0..=arguments.rounds).map(task).collect::<String>())
}

fn task_id(number: u32) -> String {
    format!("task-{number:03}")
}

/// The shell command that makes the change of a round.
fn edit(arguments: &Arguments, number: u32) -> String {
    let step = usize::try_from(arguments.files).unwrap_or(usize::MAX) / CHANGED_FILES;
    let files: Vec<String> = (0..CHANGED_FILES).map(|file| large_repository::path(file * step)).collect();
    format!("for file in {}; do echo changed in round {number} >> $file; done", files.join(" "))
}

fn git_shell(folder: &Path, command: &str) -> anyhow::Result<()> {
    let status = std::process::Command::new("sh").args(["-c", command]).current_dir(folder).status()?;
    if status.success() { Ok(()) } else { bail!("`{command}` ended with {status}") }
}

fn text(path: &Path) -> anyhow::Result<&str> {
    path.to_str().with_context(|| format!("{} is not valid UTF-8; choose another TMPDIR", path.display()))
}

fn print_table(arguments: &Arguments, rounds: &[Round], goal: &Goal) {
    let Arguments { files, commits, .. } = arguments;
    anstream::println!("{files} files, {commits} commits; medians of {} measured, in seconds", rounds.len());
    anstream::println!("{}\n", machine());
    anstream::println!("git, as a person types it");
    for (index, name) in GIT_STEPS.iter().enumerate() {
        print_row(name, median(rounds.iter().map(|round| round.git[index]).collect()));
    }
    print_row("together", goal.limit);
    anstream::println!("an attempt, beside the agent and the checks");
    for (index, (name, _)) in ATTEMPT_STEPS.iter().enumerate() {
        print_row(name, median(rounds.iter().map(|round| round.attempt[index]).collect()));
    }
    print_row("together", goal.measured);
    anstream::println!("\n{}", goal.verdict());
}
