//! `leviathan demo`: the main job, end to end, on a small repository of its own making. No key, no server, no network.
//!
//! The roles run in this process as `leviathan up` runs them, and executors as processes; the demo itself only
//! watches the log, as any operator could.

mod human;
mod narrator;
mod outcomes;
mod sample;

use std::io::{IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, bail};
use api::Client;
use api::types::{AttemptsQuery, EventsQuery, RegisterTarget, TasksQuery};

use crate::installation::Installation;
use crate::scheduler::Settings;
use crate::{Answer, up};
use narrator::Tone;
use outcomes::Outcomes;

/// How often the log is looked at.
const POLL: Duration = Duration::from_millis(150);
/// How long the demo waits for what it promises. An attempt takes seconds; a model may take minutes.
const PATIENCE: Duration = Duration::from_secs(1800);

/// What `leviathan demo` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Keep everything in this folder (`origin.git`, `data/`); an existing demo goes on [default: a new folder]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// End by itself: exit 0 only if every promised outcome was seen
    #[arg(long)]
    exit: bool,
    /// Merge the pull request as a human would, and wait until the task is completed
    #[arg(long)]
    merge: bool,
}

/// Shows the main job, then waits for the human.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    runtime.block_on(show(arguments))
}

async fn show(arguments: &Arguments) -> anyhow::Result<Answer> {
    let stage = Stage::prepare(arguments.dir.as_deref())?;
    if arguments.merge && stage.is_shown_elsewhere() {
        return stage.merge_for_the_other();
    }
    let installation = stage.start().await?;
    let client = installation.client();
    stage.introduce(installation.url());
    register(client, &stage).await?;
    let mut watch = Watch::new(client.clone());
    let seen = tokio::select! {
        seen = watch.until_ready_for_the_human() => seen,
        interrupted = tokio::signal::ctrl_c() => { interrupted?; Ok(false) }
    };
    let answer = match seen {
        Ok(true) => stage.leave_to_the_human(arguments, &mut watch).await,
        Ok(false) => Ok(watch.explain_what_is_missing()),
        Err(error) => Err(error),
    };
    installation.stop().await?;
    answer
}

async fn register(client: &Client, stage: &Stage) -> anyhow::Result<()> {
    let contract = crate::plain_git::git(&stage.origin(), &["show", "main:.leviathan/contract.yaml"])?;
    client.register_target(&RegisterTarget::of_contract(contract)).await?;
    Ok(())
}

/// The folder that the demo happens in.
struct Stage {
    dir: PathBuf,
}

impl Stage {
    fn prepare(dir: Option<&Path>) -> anyhow::Result<Self> {
        let dir = match dir {
            Some(dir) => dir.to_owned(),
            None => tempfile::Builder::new().prefix("leviathan-demo-").tempdir()?.keep(),
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let stage = Self { dir: dir.canonicalize()? };
        if !stage.origin().exists() {
            if stage.dir.read_dir()?.next().is_some() {
                bail!("{} is not empty and holds no demo; choose another --dir", stage.dir.display());
            }
            human::make_repository(&stage.origin(), std::env::var_os("ANTHROPIC_API_KEY").is_some())?;
        }
        Ok(stage)
    }

    fn origin(&self) -> PathBuf {
        self.dir.join("origin.git")
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Whether another process shows this demo: it holds the journal's lock.
    fn is_shown_elsewhere(&self) -> bool {
        let Ok(lock) = std::fs::File::open(self.data().join("journal/LOCK")) else { return false };
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockShared).is_err()
    }

    /// The human's merge, for a demo that runs in another terminal and sees it by itself.
    fn merge_for_the_other(&self) -> anyhow::Result<Answer> {
        let branches = crate::plain_git::git(
            &self.origin(),
            &["for-each-ref", "--format=%(refname:short)", "refs/heads/leviathan/"],
        )?;
        let wanted = format!("leviathan/{}-", sample::WANTED);
        let Some(branch) = branches.lines().find(|branch| branch.starts_with(&wanted)) else {
            bail!("there is no pull request to merge yet; wait for it in the other terminal");
        };
        human::merge(&self.origin(), branch)?;
        anstream::println!("Merged {branch} into main. The other terminal shows what follows.");
        Ok(Answer::Yes)
    }

    /// Both roles, with a token of this demo's own and short waits.
    async fn start(&self) -> anyhow::Result<Installation> {
        std::fs::create_dir_all(self.data())?;
        let data = self.data();
        let config = control_plane::Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            ..control_plane::Config::new(data.clone(), up::kept_token(&data)?)
        };
        let settings = Settings::from_environment()?;
        Installation::start(config, |client| {
            let mut config = settings.config(client, data)?;
            config.interval = Duration::from_millis(500);
            config.review_interval = Duration::from_millis(500);
            Ok(config)
        })
        .await
    }

    fn introduce(&self, url: &str) {
        anstream::println!("A sample repository: {}", self.origin().display());
        anstream::println!("Log, artifacts and attempts: {}", self.data().display());
        anstream::println!("The control plane answers at {url}\n");
    }

    /// Says how to look and how to merge; then merges, waits, or ends, as it was told.
    async fn leave_to_the_human(&self, arguments: &Arguments, watch: &mut Watch) -> anyhow::Result<Answer> {
        let (Some(branch), Some(number)) = (watch.outcomes.proposed.clone(), watch.outcomes.number) else {
            bail!("the pull request was seen, but not its branch");
        };
        self.say_what_to_do(branch.as_str(), number);
        if arguments.merge && !watch.outcomes.are_complete() {
            human::merge(&self.origin(), branch.as_str())?;
            anstream::println!("\nMerged, as you asked with --merge.");
        } else if arguments.exit && !arguments.merge {
            anstream::println!("\nEvery promised outcome was seen.");
            return Ok(Answer::Yes);
        } else {
            anstream::println!("\nWaiting for your merge. Ctrl-C ends the demo; nothing is lost.");
        }
        let completed = tokio::select! {
            completed = watch.until_complete() => completed?,
            interrupted = tokio::signal::ctrl_c() => { interrupted?; return Ok(Answer::Yes) }
        };
        let says_so = human::backlog(&self.origin())?.contains("status: completed");
        if !(completed && says_so) {
            anstream::println!("The merge was not followed by `status: completed` in backlog.yaml.");
            return Ok(Answer::No);
        }
        anstream::println!(
            "\nThat is the whole job. `git -C {} log main` shows the merge and the write-back.",
            self.origin().display()
        );
        Ok(Answer::Yes)
    }

    fn say_what_to_do(&self, branch: &str, number: u64) {
        let origin = self.origin();
        let origin = origin.display();
        anstream::println!("\n{HEADING}Look at the pull request{HEADING:#}");
        anstream::println!("  git -C {origin} diff main...{branch}");
        anstream::println!("  git -C {origin} cat-file blob refs/pull/{number}/meta");
        anstream::println!("\n{HEADING}Merge it, as the human{HEADING:#} (Leviathan cannot)");
        for command in human::merge_commands(&self.origin(), branch) {
            anstream::println!("  {command}");
        }
        anstream::println!("or: leviathan demo --dir {} --merge", self.dir.display());
    }
}

const HEADING: Style = Style::new().bold();

/// Follows the log and tells what happens.
struct Watch {
    client: Client,
    after: u64,
    outcomes: Outcomes,
    waiting: Waiting,
}

impl Watch {
    fn new(client: Client) -> Self {
        Self { client, after: 0, outcomes: Outcomes::default(), waiting: Waiting::default() }
    }

    async fn until_ready_for_the_human(&mut self) -> anyhow::Result<bool> {
        self.until(Outcomes::are_ready_for_the_human).await
    }

    /// Until the merge was followed up and nothing runs any more: the merge sets the waiting task free.
    async fn until_complete(&mut self) -> anyhow::Result<bool> {
        let is_complete = self.until(Outcomes::are_complete).await?;
        let live = AttemptsQuery { status: Some("live".to_owned()), ..AttemptsQuery::default() };
        while is_complete && self.client.attempts(&live).await?.total > 0 {
            self.look().await?;
            tokio::time::sleep(POLL).await;
        }
        self.look().await?;
        Ok(is_complete)
    }

    /// Tells what happens until `done`, or until something happened that should not; whether it was `done`.
    async fn until(&mut self, done: fn(&Outcomes) -> bool) -> anyhow::Result<bool> {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            self.look().await?;
            if done(&self.outcomes) {
                return Ok(true);
            }
            if !self.outcomes.surprises.is_empty() {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(false)
    }

    /// Shows what is being worked on while nothing else happens.
    async fn show_activity(&mut self) -> anyhow::Result<()> {
        if !std::io::stdout().is_terminal() {
            return Ok(());
        }
        let live = AttemptsQuery { status: Some("live".to_owned()), ..AttemptsQuery::default() };
        let attempts = self.client.attempts(&live).await?.attempts;
        let doing =
            attempts.iter().find_map(|it| Some(format!("{:<9} {}", it.task_id, it.activity.as_ref()?)));
        self.waiting.show(doing);
        Ok(())
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        let query = EventsQuery { after: Some(self.after), ..EventsQuery::default() };
        let page = self.client.events(&query).await?;
        self.after = page.next_after;
        if page.events.is_empty() {
            self.show_activity().await?;
        } else {
            self.waiting.clear();
        }
        for recorded in &page.events {
            self.outcomes.see(&recorded.event);
            if let Some((tone, line)) = narrator::line(&recorded.event) {
                say(tone, &line);
            }
        }
        for task in self.client.tasks(&TasksQuery::default()).await?.tasks {
            if let Some(code) = &task.reason
                && self.outcomes.see_wait(task.task_id.as_str(), code)
            {
                self.waiting.clear();
                let detail = task.detail.as_deref().unwrap_or_default();
                say(Tone::Notable, &format!("{:<9} waits ({code}): {detail}", task.task_id));
            }
        }
        Ok(())
    }

    fn explain_what_is_missing(&self) -> Answer {
        for surprise in &self.outcomes.surprises {
            anstream::println!("This should not have happened: {surprise}");
        }
        for missing in self.outcomes.missing_before_merge() {
            anstream::println!("Not seen: {missing}");
        }
        Answer::No
    }
}

/// The one line on a terminal that overwrites itself.
#[derive(Default)]
struct Waiting {
    doing: Option<(String, Instant)>,
}

impl Waiting {
    /// Shows what is done, and for how long it has been.
    fn show(&mut self, doing: Option<String>) {
        let Some(doing) = doing else { return self.clear() };
        let since = match self.doing.take() {
            Some((before, since)) if before == doing => since,
            Some(_) | None => Instant::now(),
        };
        // The activity is the executor's word and may hold anything.
        let text: String = doing.chars().filter(|c| !c.is_control()).take(100).collect();
        overwrite(&format!("{text} … {} s", since.elapsed().as_secs()));
        self.doing = Some((doing, since));
    }

    fn clear(&mut self) {
        if self.doing.take().is_some() {
            overwrite("");
        }
    }
}

/// Puts `text` in the place of the terminal's last line. A line that does not appear harms nobody.
fn overwrite(text: &str) {
    let mut terminal = std::io::stdout();
    let _ = write!(terminal, "\r\x1b[2K{text}").and_then(|()| terminal.flush());
}

fn say(tone: Tone, line: &str) {
    let style = match tone {
        Tone::Plain => Style::new(),
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Refused => AnsiColor::Red.on_default(),
        Tone::Notable => AnsiColor::Cyan.on_default().bold(),
    };
    anstream::println!("{style}{line}{style:#}");
}
