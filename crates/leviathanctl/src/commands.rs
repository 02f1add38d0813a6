//! The commands, one in each file.

mod artifact;
mod attempts_list;
mod attempts_show;
mod cancel;
mod doctor;
mod events_tail;
mod failures_recent;
mod graph_summary;
mod invalidate;
mod log;
mod pause;
mod resume;
mod scheduler_pass;
mod steering;
mod targets_list;
mod targets_register;
mod targets_unregister;
mod tasks_list;

use api::Client;
use api::types::AttemptsQuery;
use model::AttemptId;

use crate::failure::Failure;
use crate::terminal::Screen;

/// What can be asked and ordered.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    GraphSummary(graph_summary::Arguments),
    AttemptsList(attempts_list::Arguments),
    AttemptsShow(attempts_show::Arguments),
    FailuresRecent(failures_recent::Arguments),
    Invalidate(invalidate::Arguments),
    Cancel(cancel::Arguments),
    #[command(visible_alias = "tasks")]
    TasksList(tasks_list::Arguments),
    TargetsList(targets_list::Arguments),
    TargetsRegister(targets_register::Arguments),
    TargetsUnregister(targets_unregister::Arguments),
    EventsTail(events_tail::Arguments),
    Artifact(artifact::Arguments),
    Log(Box<log::Arguments>),
    Pause(pause::Arguments),
    Resume(resume::Arguments),
    SchedulerPass(scheduler_pass::Arguments),
    Doctor(doctor::Arguments),
}

impl Command {
    /// Asks and answers. The client comes as a result, so that what is wrong with a file is said even where
    /// no control plane can be asked.
    pub(crate) async fn run(
        self,
        client: Result<Client, Failure>,
        log_vkey: Option<&str>,
        screen: &mut Screen<'_>,
    ) -> Result<(), Failure> {
        match self {
            Self::GraphSummary(arguments) => graph_summary::run(arguments, &client?, screen).await,
            Self::AttemptsList(arguments) => attempts_list::run(arguments, &client?, screen).await,
            Self::AttemptsShow(arguments) => attempts_show::run(arguments, &client?, screen).await,
            Self::FailuresRecent(arguments) => failures_recent::run(arguments, &client?, screen).await,
            Self::Invalidate(arguments) => invalidate::run(arguments, &client?, screen).await,
            Self::Cancel(arguments) => cancel::run(arguments, &client?, screen).await,
            Self::TasksList(arguments) => tasks_list::run(arguments, &client?, screen).await,
            Self::TargetsList(arguments) => targets_list::run(arguments, &client?, screen).await,
            Self::TargetsRegister(arguments) => targets_register::run(arguments, client, screen).await,
            Self::TargetsUnregister(arguments) => targets_unregister::run(arguments, &client?, screen).await,
            Self::EventsTail(arguments) => events_tail::run(arguments, &client?, screen).await,
            Self::Artifact(arguments) => artifact::run(arguments, &client?, screen).await,
            Self::Log(arguments) => log::run(*arguments, client, log_vkey, screen).await,
            Self::Pause(arguments) => pause::run(arguments, &client?, screen).await,
            Self::Resume(arguments) => resume::run(arguments, &client?, screen).await,
            Self::SchedulerPass(arguments) => scheduler_pass::run(arguments, &client?, screen).await,
            Self::Doctor(arguments) => doctor::run(arguments, &client?, screen).await,
        }
    }
}

/// The attempt that `given` names: a whole id, or as much of its beginning or end as no other attempt has.
async fn attempt_named(given: &str, client: &Client) -> Result<AttemptId, Failure> {
    let whole = AttemptId::parse(given).ok().filter(AttemptId::is_whole);
    if let Some(id) = whole {
        return Ok(id);
    }
    let query = AttemptsQuery { id: Some(given.to_owned()), limit: Some(10), ..AttemptsQuery::default() };
    let found = client.attempts(&query).await?;
    let ids: Vec<_> = found.attempts.into_iter().map(|attempt| attempt.attempt_id).collect();
    if let Some(exact) = ids.iter().find(|id| id.as_str() == given) {
        return Ok(exact.clone());
    }
    match ids.as_slice() {
        [] => Err(Failure::No(format!(
            "there is no attempt `{given}`; `leviathanctl attempts-list` shows those there are"
        ))),
        [only] => Ok(only.clone()),
        [..] => Err(Failure::No(format!(
            "`{given}` fits {} attempts, among them {}; give more of the id",
            found.total,
            ids.iter().map(AttemptId::as_str).collect::<Vec<_>>().join(", "),
        ))),
    }
}
