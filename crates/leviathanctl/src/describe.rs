//! Each event in one line for people.

use std::collections::BTreeMap;
use std::io;

use api::types::RecordedEvent;
use model::EventKind;
use model::event::{NetworkAnswer, NetworkReported, Subject, WriteBackOutcome};

use crate::terminal::{Look, Screen, Span, cut, faint, plain};
use crate::words;

/// What happened takes at most so many columns; the whole text is in the JSON of the event.
const LONGEST: usize = 160;

/// Writes one line for each event: seq, time, type, what it is about, what happened.
pub(crate) fn events<'a>(
    events: impl Iterator<Item = &'a RecordedEvent>,
    screen: &mut Screen<'_>,
) -> io::Result<()> {
    for recorded in events {
        line(recorded, &format!("{}  ", subject(&recorded.event.subject)), screen)?;
    }
    Ok(())
}

/// The same for events that are all about one attempt, which is named above them.
pub(crate) fn timeline<'a>(
    events: impl Iterator<Item = &'a RecordedEvent>,
    screen: &mut Screen<'_>,
) -> io::Result<()> {
    for recorded in events {
        line(recorded, "", screen)?;
    }
    Ok(())
}

fn line(recorded: &RecordedEvent, about: &str, screen: &mut Screen<'_>) -> io::Result<()> {
    let kind = &recorded.event.kind;
    screen.line(&[
        faint(format!("{:>6}  {}  ", recorded.seq.0, words::utc(recorded.event.timestamp))),
        Span { text: format!("{:<20}  ", kind.event_type()), look: look(kind) },
        plain(about),
        faint(cut(&detail(kind), LONGEST)),
    ])
}

/// The narrowest thing that an event is about.
fn subject(subject: &Subject) -> String {
    match (&subject.target_id, &subject.task_id, &subject.attempt_id) {
        (_, Some(task), Some(attempt)) => format!("{attempt} {task}"),
        (Some(target), Some(task), None) => format!("{target} {task}"),
        (Some(target), None, None) => target.to_string(),
        (None, None, None) => "everything".to_owned(),
        (_, None, Some(attempt)) => attempt.to_string(),
        (None, Some(task), None) => task.to_string(),
    }
}

fn look(kind: &EventKind) -> Look {
    match kind {
        EventKind::PolicyViolated(_)
        | EventKind::InvariantFailed(_)
        | EventKind::TargetRejected(_)
        | EventKind::AttemptFailed(_)
        | EventKind::AttemptLost(_) => Look::Bad,
        EventKind::PrMerged(_) | EventKind::AttemptCompleted(_) | EventKind::TaskCompleted(_) => Look::Good,
        EventKind::PrCreated(_)
        | EventKind::PrHumanOwned(_)
        | EventKind::PublishParked(_)
        | EventKind::SchedulerPaused(_)
        | EventKind::TargetUnregistered(_)
        | EventKind::AttemptCancelled(_)
        | EventKind::AttemptInvalidated(_) => Look::Waiting,
        EventKind::TargetRegistered(_)
        | EventKind::TaskCreated(_)
        | EventKind::TaskUpdated(_)
        | EventKind::TaskBlocked(_)
        | EventKind::TaskRemoved(_)
        | EventKind::AttemptCreated(_)
        | EventKind::AttemptClaimed(_)
        | EventKind::AttemptLaunched(_)
        | EventKind::AttemptStarted(_)
        | EventKind::SandboxReported(_)
        | EventKind::NetworkReported(_)
        | EventKind::AgentFinished(_)
        | EventKind::ChangePermitted(_)
        | EventKind::InvariantPassed(_)
        | EventKind::ChangeVerified(_)
        | EventKind::ArtifactStored(_)
        | EventKind::BranchPushed(_)
        | EventKind::PrReviewed(_)
        | EventKind::PrClosed(_)
        | EventKind::AttemptSuperseded(_)
        | EventKind::BacklogUpdated(_)
        | EventKind::SchedulerResumed(_) => Look::Plain,
    }
}

/// How many requests had which answer, the first place of each.
fn network(it: &NetworkReported) -> String {
    let mut by_answer: BTreeMap<NetworkAnswer, (u64, String)> = BTreeMap::new();
    for request in &it.requests {
        let place = || (0, format!("{}:{}", request.host, request.port));
        by_answer.entry(request.answer).or_insert_with(place).0 += request.count;
    }
    let told = by_answer.iter().map(|(answer, (count, place))| format!("{count} {answer} ({place})"));
    let omitted = (it.omitted > 0).then(|| format!("{} not listed", it.omitted));
    told.chain(omitted).collect::<Vec<_>>().join(", ")
}

fn detail(kind: &EventKind) -> String {
    match kind {
        EventKind::TargetRegistered(it) => format!("{} at {}", it.name, it.repo_url),
        EventKind::TaskCreated(it) | EventKind::TaskUpdated(it) => it.title.clone(),
        EventKind::TaskCompleted(it) => match &it.attempt_id {
            Some(attempt) => format!("by {attempt}"),
            None => "as a human wrote in backlog.yaml".to_owned(),
        },
        EventKind::TaskBlocked(it) => it.reason.clone().unwrap_or_default(),
        EventKind::TaskRemoved(it) => format!("not in the backlog at {}", words::short(it.commit.as_str())),
        EventKind::AttemptCreated(it) => {
            format!("attempt {} at {} by {}", it.n, words::short(it.base_commit.as_str()), it.agent)
        }
        EventKind::AttemptClaimed(it) => format!("epoch {} by {}", it.epoch, it.launcher),
        EventKind::AttemptLaunched(it) => format!("epoch {} as {}", it.epoch, it.name),
        EventKind::TargetRejected(it) => {
            let first = it.problems.first().map(String::as_str).unwrap_or_default();
            format!("{}: {first}", it.source)
        }
        EventKind::AttemptStarted(it) => format!("epoch {} on {}", it.epoch, it.executor),
        EventKind::SandboxReported(it) => {
            let held = it.layers.iter().filter(|layer| layer.holds).count();
            format!("{}: {held} of {} layers hold", it.profile, it.layers.len())
        }
        EventKind::NetworkReported(it) => network(it),
        EventKind::AgentFinished(it) => {
            let spent = words::dollars(it.usage.cost_micro_usd);
            let claim =
                if it.summary.is_empty() { String::new() } else { format!("; claims: {}", it.summary) };
            format!("round {}, {}, {spent}{claim}", it.round, words::duration(it.duration_ms))
        }
        EventKind::PolicyViolated(it) => {
            let first = it.violations.first().map(|violation| violation.message.as_str()).unwrap_or_default();
            format!(
                "round {}, {} refused: {first}",
                it.round,
                words::counted(it.violations.len() as u64, "path")
            )
        }
        EventKind::ChangePermitted(it) => format!(
            "round {}, {}, {} as {}",
            it.round,
            words::counted(it.files.len() as u64, "file"),
            words::bytes(it.patch_bytes),
            words::short(it.candidate.as_str())
        ),
        EventKind::InvariantPassed(it) | EventKind::InvariantFailed(it) => {
            format!("{}: {} after {}", it.name, it.outcome, words::duration(it.duration_ms))
        }
        EventKind::ChangeVerified(it) => words::short(it.candidate.as_str()).to_owned(),
        EventKind::ArtifactStored(it) => format!("{}, {}", it.name, words::bytes(it.size)),
        EventKind::PublishParked(it) => format!("until {} UTC: {}", words::utc(it.not_before), it.reason),
        EventKind::BranchPushed(it) => format!("{} at {}", it.branch, words::short(it.commit.as_str())),
        EventKind::PrCreated(it) => format!("#{} {}", it.number, it.url),
        EventKind::AttemptCompleted(it) => {
            format!("after {}, {}", words::duration(it.duration_ms), words::dollars(it.usage.cost_micro_usd))
        }
        EventKind::PrReviewed(it) => format!("#{} {} by {}", it.number, it.verdict, it.by),
        EventKind::PrHumanOwned(it) => format!("#{}: {}", it.number, it.reason),
        EventKind::PrMerged(it) => {
            format!("#{} by {} as {}", it.number, it.by, words::short(it.commit.as_str()))
        }
        EventKind::PrClosed(it) => format!("#{} by {}", it.number, it.by),
        EventKind::AttemptFailed(it) => format!("{} in stage {}: {}", it.reason, it.stage, it.detail),
        EventKind::TargetUnregistered(it)
        | EventKind::AttemptCancelled(it)
        | EventKind::AttemptLost(it)
        | EventKind::AttemptSuperseded(it)
        | EventKind::AttemptInvalidated(it)
        | EventKind::SchedulerPaused(it)
        | EventKind::SchedulerResumed(it) => it.reason.clone(),
        EventKind::BacklogUpdated(it) => {
            let outcome = match it.outcome {
                WriteBackOutcome::Committed => "committed",
                WriteBackOutcome::AlreadyDone => "already done",
                WriteBackOutcome::PullRequest => "by a pull request",
                WriteBackOutcome::Skipped => "skipped",
            };
            format!("{outcome}: {}", it.detail)
        }
    }
}
