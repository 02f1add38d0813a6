//! Tells the events of the demo as they happen, in one line each.

use std::fmt::Write as _;

use model::event::{EventKind, WriteBackOutcome};
use model::{Event, FailureReason};

/// How a line is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// Work goes on.
    Plain,
    /// Something succeeded.
    Good,
    /// Something was refused or failed, as it should.
    Refused,
    /// Something for the reader to look at.
    Notable,
}

/// The line for one event; none for what would only distract.
pub(super) fn line(event: &Event) -> Option<(Tone, String)> {
    let task = event.subject.task_id.as_ref().map_or("", |task| task.as_str());
    let (tone, text) = tell(&event.kind)?;
    Some((tone, format!("{task:<9} {text}")))
}

fn tell(kind: &EventKind) -> Option<(Tone, String)> {
    Some(match kind {
        EventKind::TargetRegistered(target) => {
            (Tone::Plain, format!("target registered: {}", target.repo_url))
        }
        EventKind::TaskCreated(facts) => (
            Tone::Plain,
            format!("found in backlog.yaml: {} ({} priority)", facts.title, word(&facts.priority)),
        ),
        EventKind::AttemptCreated(created) => (
            Tone::Plain,
            format!("attempt {} claimed, to be done by {}", created.n, first_line(&created.agent)),
        ),
        EventKind::AgentFinished(done) => (Tone::Plain, format!("agent finished round {}", done.round)),
        EventKind::PolicyViolated(violated) => (Tone::Refused, violations(violated)),
        EventKind::ChangePermitted(change) => (Tone::Good, permitted(change)),
        EventKind::InvariantPassed(check) => {
            let place = if check.round == 0 { " on the base" } else { "" };
            (Tone::Good, format!("invariant passed{place}: {} ({} ms)", check.name, check.duration_ms))
        }
        EventKind::InvariantFailed(check) => {
            (Tone::Refused, format!("invariant FAILED: {}: `{}` {}", check.name, check.check, check.outcome))
        }
        EventKind::ChangeVerified(verified) => {
            (Tone::Good, format!("every invariant passed at commit {}", short(verified.candidate.as_str())))
        }
        EventKind::BranchPushed(pushed) => (Tone::Plain, format!("branch pushed: {}", pushed.branch)),
        EventKind::PrCreated(pr) => {
            (Tone::Notable, format!("PULL REQUEST #{} for a human to review: {}", pr.number, pr.title))
        }
        EventKind::AttemptFailed(failed) => (Tone::Refused, failure(failed.reason, &failed.detail)),
        EventKind::AttemptCancelled(why) => (Tone::Refused, format!("cancelled: {}", why.reason)),
        EventKind::AttemptLost(why) => (Tone::Refused, format!("lost: {}", why.reason)),
        EventKind::PrMerged(merged) => {
            (Tone::Notable, format!("a human ({}) merged pull request #{}", merged.by, merged.number))
        }
        EventKind::PrClosed(closed) => (Tone::Notable, format!("pull request #{} was closed", closed.number)),
        EventKind::BacklogUpdated(updated) => (Tone::Notable, write_back(updated.outcome, &updated.detail)),
        EventKind::TaskCompleted(_) => (Tone::Good, "completed".to_owned()),
        EventKind::TaskUpdated(_)
        | EventKind::TaskBlocked(_)
        | EventKind::TaskRemoved(_)
        | EventKind::AttemptClaimed(_)
        | EventKind::AttemptLaunched(_)
        | EventKind::TargetUnregistered(_)
        | EventKind::TargetRejected(_)
        | EventKind::AttemptStarted(_)
        | EventKind::SandboxReported(_)
        | EventKind::NetworkReported(_)
        | EventKind::ArtifactStored(_)
        | EventKind::PublishParked(_)
        | EventKind::AttemptCompleted(_)
        | EventKind::PrReviewed(_)
        | EventKind::PrHumanOwned(_)
        | EventKind::AttemptSuperseded(_)
        | EventKind::AttemptInvalidated(_)
        | EventKind::SchedulerPaused(_)
        | EventKind::SchedulerResumed(_) => return None,
    })
}

fn violations(violated: &model::event::PolicyViolated) -> String {
    let mut text = "change REFUSED:".to_owned();
    for violation in &violated.violations {
        let rule = violation.rule.as_ref().map(|rule| format!(": {rule}")).unwrap_or_default();
        let _ = write!(text, "\n            {}: {}{rule}", violation.path, violation.message);
    }
    text
}

fn permitted(change: &model::event::ChangePermitted) -> String {
    let mut text = "change permitted:".to_owned();
    for file in &change.files {
        let _ = write!(
            text,
            "\n            {} {} (+{} -{}) by {}",
            file.change, file.path, file.added_lines, file.removed_lines, file.rule
        );
    }
    text
}

fn failure(reason: FailureReason, detail: &str) -> String {
    format!("no pull request: {reason}: {}", first_line(detail))
}

fn write_back(outcome: WriteBackOutcome, detail: &str) -> String {
    match outcome {
        WriteBackOutcome::Committed => "backlog.yaml on main now says status: completed".to_owned(),
        WriteBackOutcome::AlreadyDone | WriteBackOutcome::PullRequest | WriteBackOutcome::Skipped => {
            format!("backlog.yaml: {detail}")
        }
    }
}

fn word(priority: &model::Priority) -> &'static str {
    match priority {
        model::Priority::High => "high",
        model::Priority::Medium => "medium",
        model::Priority::Low => "low",
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or("").trim()
}

fn short(commit: &str) -> &str {
    &commit[..commit.len().min(12)]
}
