//! What is planned from what is known: the crash table and the backlog, as rows of data.

mod support;

use leviathan_scheduler::launch::{Cause, End, ExecutorSight};
use leviathan_scheduler::plan::{Reconciliation, WriteBackStep};
use model::event::{BacklogUpdated, EventKind, Reason, WriteBackOutcome};
use model::{AttemptState, CommitId, Epoch, FailureReason, Stage};
use support::{Stage as Reached, Story, commit};
use target::forge::{HumanTouch, PullRequestState, Review, ReviewVerdict};

/// The plan in a line: the types of the events to record, and what is to be done about attempts.
fn told(plan: &Reconciliation) -> String {
    let mut words: Vec<String> =
        plan.record.iter().flatten().map(|event| event.kind.event_type().to_owned()).collect();
    words.extend(plan.lost.iter().map(|lost| format!("lost({:?})", lost.evidence)));
    words.extend(plan.dispatch.iter().map(|dispatch| format!("dispatch after {}", dispatch.epoch)));
    words.extend(plan.stop.iter().map(|_| "stop".to_owned()));
    words.join(", ")
}

const ALIVE: Option<ExecutorSight> = Some(ExecutorSight::Alive { epoch: Epoch(1) });
const ENDED: End = End { cause: Cause::Ended, words: String::new() };
const GONE: Option<ExecutorSight> = Some(ExecutorSight::Gone { epoch: Epoch(1), end: ENDED });
const ABSENT: Option<ExecutorSight> = Some(ExecutorSight::Absent);

#[test]
fn what_becomes_of_an_attempt_whose_executor_is_not_where_it_should_be() {
    let ours = "scheduler@here";
    let other = "scheduler@there";
    let rows = [
        // An executor that works is left alone, wherever it is.
        (Reached::Claimed, ours, ALIVE, Some(1), ""),
        (Reached::Started, ours, ALIVE, Some(1), ""),
        (Reached::Started, other, ABSENT, Some(1), ""),
        (Reached::Claimed, other, ABSENT, Some(1), ""),
        // Died right after the claim was recorded, or right after the start: the same attempt begins anew.
        (Reached::Claimed, ours, ABSENT, Some(1), "dispatch after 1"),
        (Reached::Claimed, ours, GONE, Some(1), "dispatch after 1"),
        // Died at work: lost, and the task may run again.
        (Reached::Started, ours, GONE, Some(1), "lost(ExecutorGone)"),
        (Reached::Permitted, ours, GONE, Some(1), "lost(ExecutorGone)"),
        (Reached::Started, ours, ABSENT, Some(1), "lost(ExecutorGone)"),
        // Fell silent, here or elsewhere.
        (Reached::Started, ours, ALIVE, Some(0), "lost(LeaseExpired)"),
        (Reached::Started, other, ABSENT, Some(0), "lost(LeaseExpired)"),
        (Reached::Claimed, other, ABSENT, Some(0), "lost(LeaseExpired)"),
        // The verified candidate is durable: it is published again, nothing is recomputed.
        (Reached::Verified, ours, GONE, Some(1), "dispatch after 1"),
        (Reached::Verified, ours, ALIVE, Some(0), "dispatch after 1"),
        (Reached::Pushed, ours, GONE, Some(1), "dispatch after 1"),
        (Reached::Verified, other, ABSENT, Some(0), "lost(LeaseExpired)"),
        (Reached::Verified, other, ABSENT, Some(1), ""),
        // The pull request is open: the last word is said on behalf of the executor.
        (Reached::Published, ours, ALIVE, Some(1), ""),
        (Reached::Published, ours, GONE, Some(1), "attempt.completed"),
        (Reached::Published, other, ABSENT, Some(0), "attempt.completed"),
        // Over is over.
        (Reached::Completed, ours, GONE, None, ""),
        (Reached::Completed, ours, ALIVE, None, ""),
    ];
    for (reached, by, executor, lease, expected) in rows {
        let mut story = Story::with_tasks(&["a"]);
        story.attempt_by("a", by, reached);
        story.sees(executor.clone(), lease);
        assert_eq!(told(&story.reconcile()), expected, "{reached:?} {by} {executor:?} {lease:?}");
    }
}

fn ended(cause: Cause) -> Option<ExecutorSight> {
    Some(ExecutorSight::Gone { epoch: Epoch(1), end: End::new(cause, "its words") })
}

fn stuck(cause: Cause) -> Option<ExecutorSight> {
    Some(ExecutorSight::Stuck { epoch: Epoch(1), end: End::new(cause, "its words") })
}

#[test]
fn what_becomes_of_an_attempt_whose_pod_is_not_well() {
    let rows = [
        // It waits for a node longer than a lease lasts; that wait has a clock of its own.
        (Reached::Claimed, ALIVE, Some(0), ""),
        (Reached::Claimed, stuck(Cause::Unschedulable), Some(0), "lost(ExecutorGone)"),
        (Reached::Claimed, stuck(Cause::NotStarting), Some(0), "lost(ExecutorGone)"),
        (Reached::Claimed, stuck(Cause::Image), Some(0), "attempt.failed"),
        (Reached::Claimed, stuck(Cause::NotLaunched), Some(1), "dispatch after 1"),
        (Reached::Claimed, ended(Cause::Exit), Some(1), "dispatch after 1"),
        (Reached::Claimed, ended(Cause::Evicted), Some(1), "dispatch after 1"),
        (Reached::Claimed, ended(Cause::OutOfMemory), Some(1), "attempt.failed"),
        // Somebody deleted the Job before or while the agent worked, or before it was published.
        (Reached::Claimed, ABSENT, Some(1), "attempt.cancelled"),
        (Reached::Started, ABSENT, Some(1), "attempt.cancelled"),
        (Reached::Verified, ABSENT, Some(1), "attempt.cancelled"),
        (Reached::Started, ended(Cause::Deleted), Some(1), "attempt.cancelled"),
        // Only what was the cluster's fault is tried again by itself.
        (Reached::Started, ended(Cause::Evicted), Some(1), "lost(ExecutorGone)"),
        (Reached::Started, ended(Cause::NodeLost), Some(1), "lost(ExecutorGone)"),
        (Reached::Started, ended(Cause::Exit), Some(1), "lost(ExecutorGone)"),
        (Reached::Started, ended(Cause::OutOfMemory), Some(1), "attempt.failed"),
        (Reached::Started, ended(Cause::Deadline), Some(1), "attempt.failed"),
        (Reached::Started, stuck(Cause::Image), Some(1), "attempt.failed"),
        (Reached::Started, ALIVE, Some(0), "lost(LeaseExpired)"),
        // The verified candidate is stored: another pod publishes it.
        (Reached::Verified, ended(Cause::Evicted), Some(1), "dispatch after 1"),
        (Reached::Verified, ended(Cause::OutOfMemory), Some(1), "dispatch after 1"),
        (Reached::Published, ABSENT, Some(1), "attempt.completed"),
        (Reached::Completed, ABSENT, None, ""),
    ];
    for (reached, executor, lease, expected) in rows {
        let mut story = Story::with_tasks(&["a"]).in_cluster();
        story.attempt("a", Reached::Claimed);
        story.launched();
        story.go_on("a", reached);
        story.sees(executor.clone(), lease);
        assert_eq!(told(&story.reconcile()), expected, "{reached:?} {executor:?} {lease:?}");
    }
}

#[test]
fn the_log_is_told_in_the_words_of_the_pod() {
    for (executor, reason) in [
        (stuck(Cause::Image), FailureReason::ConfigInvalid),
        (ended(Cause::OutOfMemory), FailureReason::ConfigInvalid),
        (ended(Cause::Deadline), FailureReason::TimedOut),
        (ended(Cause::Deleted), FailureReason::Cancelled),
    ] {
        let mut story = Story::with_tasks(&["a"]).in_cluster();
        story.attempt("a", Reached::Started);
        story.sees(executor, Some(1));
        let plan = story.reconcile();
        story.record(&plan);
        let failure = story.only_attempt().failure.unwrap();
        assert_eq!(failure.reason, reason);
        assert!(failure.detail.contains("its words"), "{}", failure.detail);
        // A time-out counts against the agent, which has a second attempt; nothing else runs again by itself.
        assert_eq!(story.chosen().is_empty(), reason != FailureReason::TimedOut);
    }
}

#[test]
fn a_job_that_was_never_made_is_made_by_whoever_sees_that() {
    let mut story = Story::with_tasks(&["a"]).in_cluster();
    story.attempt_by("a", "scheduler@there", Reached::Claimed);
    story.sees(ABSENT, Some(1));
    assert_eq!(told(&story.reconcile()), "", "the scheduler that claimed it may be about to make it");
    story.pass_seconds(60);
    assert_eq!(told(&story.reconcile()), "dispatch after 1");
}

#[test]
fn what_a_cluster_stopped_for_its_own_sake_may_run_again() {
    for (executor, expected) in [
        (ended(Cause::Evicted), "attempt.invalidated"),
        (ended(Cause::NodeLost), "attempt.invalidated"),
        (ended(Cause::Deleted), ""),
        (ABSENT, ""),
    ] {
        let mut story = Story::with_tasks(&["a"]).in_cluster();
        story.attempt("a", Reached::Started);
        story.cancelled_by("executor");
        story.sees(executor, None);
        let plan = story.reconcile();
        assert_eq!(told(&plan), expected);
        story.record(&plan);
        assert_eq!(told(&story.reconcile()), "", "once");
        assert_eq!(story.chosen().is_empty(), expected.is_empty());
    }
    // What a human cancelled stays cancelled, whatever becomes of its pod.
    let mut story = Story::with_tasks(&["a"]).in_cluster();
    story.attempt("a", Reached::Started);
    story.cancelled_by("operator");
    story.sees(ended(Cause::Evicted), None);
    assert_eq!(told(&story.reconcile()), "");
}

#[test]
fn an_executor_of_an_older_epoch_does_not_count() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Claimed);
    story.dispatched_again(2);
    story.sees(ALIVE, Some(1));
    assert_eq!(told(&story.reconcile()), "dispatch after 2");
}

#[test]
fn an_attempt_that_never_begins_is_given_up() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Claimed);
    for (epoch, expected) in [(1, "dispatch after 1"), (2, "dispatch after 2"), (3, "lost(ExecutorGone)")] {
        if epoch > 1 {
            story.dispatched_again(epoch);
        }
        story.sees(Some(ExecutorSight::Gone { epoch: Epoch(epoch), end: ENDED }), Some(1));
        assert_eq!(told(&story.reconcile()), expected);
    }
}

#[test]
fn nothing_begins_while_a_human_pauses_but_what_is_verified_is_published() {
    for (reached, expected) in [(Reached::Claimed, ""), (Reached::Verified, "dispatch after 1")] {
        let mut story = Story::with_tasks(&["a"]);
        story.attempt("a", reached);
        story.pause();
        story.sees(GONE, Some(1));
        assert_eq!(told(&story.reconcile()), expected, "{reached:?}");
        assert_eq!(story.chosen(), Vec::<String>::new());
    }
}

#[test]
fn a_parked_publish_waits_for_the_moment_that_the_forge_named() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Verified);
    story.park_for(300);
    story.sees(GONE, None);
    assert_eq!(told(&story.reconcile()), "");
    story.pass_seconds(299);
    assert_eq!(told(&story.reconcile()), "");
    story.pass_seconds(2);
    assert_eq!(told(&story.reconcile()), "dispatch after 1");
}

#[test]
fn publishing_is_tried_with_growing_pauses_and_then_given_up() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Verified);
    for epoch in 2..=12 {
        story.sees(Some(ExecutorSight::Gone { epoch: Epoch(epoch - 1), end: ENDED }), Some(1));
        story.pass_seconds(900);
        assert_eq!(told(&story.reconcile()), format!("dispatch after {}", epoch - 1));
        story.dispatched_again(epoch);
    }
    story.sees(Some(ExecutorSight::Gone { epoch: Epoch(12), end: ENDED }), Some(1));
    let plan = story.reconcile();
    assert_eq!(told(&plan), "attempt.failed");
    story.record(&plan);
    assert_eq!(story.only_attempt().failure.as_ref().unwrap().reason, FailureReason::PublishFailed);
}

#[test]
fn an_executor_that_outlives_its_attempt_is_stopped() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Started);
    story.step(EventKind::AttemptCancelled(Reason { reason: "enough".to_owned() }));
    story.sees(ALIVE, None);
    assert_eq!(told(&story.reconcile()), "", "it gets a moment to put its things away");
    story.pass_seconds(61);
    assert_eq!(told(&story.reconcile()), "stop");
}

#[test]
fn the_log_learns_what_humans_do_to_the_backlog_once() {
    let mut story = Story::with_tasks(&["a", "b", "c"]);
    let mut expect = |backlog: &[(&str, &str)], expected: &str| {
        story.push_backlog(backlog);
        let plan = story.reconcile();
        assert_eq!(told(&plan), expected, "{backlog:?}");
        story.record(&plan);
        assert_eq!(told(&story.reconcile()), "", "the same again after {backlog:?}");
    };
    let (a, b, c) = (("a", "pending"), ("b", "pending"), ("c", "pending"));
    expect(&[a, b, c], "");
    expect(&[a, ("b", "blocked"), c], "task.updated, task.blocked");
    expect(&[a, b, c], "task.updated");
    expect(&[a, b, ("c", "completed")], "task.updated, task.completed");
    expect(&[a, b], "task.removed");
    expect(&[a, b, c], "task.created");
    expect(&[b, a, c], "task.updated, task.updated");
    expect(&[a, b, c, ("d", "completed")], "task.updated, task.updated, task.created, task.completed");
    expect(&[], "task.removed, task.removed, task.removed, task.removed");
}

#[test]
fn two_schedulers_name_the_same_step_the_same() {
    let mut story = Story::with_tasks(&["a"]);
    story.push_backlog(&[("a", "blocked"), ("b", "pending")]);
    let ids = |plan: &Reconciliation| -> Vec<_> {
        plan.record.iter().flatten().map(|event| event.event_id.clone()).collect()
    };
    let (mine, theirs) = (ids(&story.reconcile()), ids(&story.reconcile_by("scheduler@there")));
    assert_eq!(mine, theirs);
    // Blocked, released and blocked again are three steps, also when the file is the same as before.
    let mut seen = mine;
    for _ in 0..3 {
        for backlog in [[("a", "blocked"), ("b", "pending")], [("a", "pending"), ("b", "pending")]] {
            story.push_backlog_at(commit('7'), &backlog);
            let plan = story.reconcile();
            story.record(&plan);
            seen.extend(ids(&plan));
        }
    }
    let count = seen.len();
    seen.sort();
    seen.dedup();
    // The first pass of the loop repeats the plan that was not recorded.
    assert_eq!(seen.len(), count - 3);
}

#[test]
fn what_humans_do_to_a_pull_request_is_recorded_once() {
    let open = |human_owned, reviews| PullRequestState::Open {
        head_commit: commit('c'),
        base_branch: "main".parse().unwrap(),
        human_owned,
        reviews,
    };
    let review = |by: &str, verdict| Review { by: by.to_owned(), verdict, commit: None };
    let merged = PullRequestState::Merged {
        by: Some("alice".to_owned()),
        commit: commit('d'),
        approved_by: vec!["bob".to_owned()],
    };
    let closed = PullRequestState::Closed { by: None };
    let touch = HumanTouch::Retargeted { base_branch: "next".to_owned() };
    let rows = [
        (open(None, vec![]), ""),
        (open(None, vec![review("bob", ReviewVerdict::Approved)]), "pr.reviewed"),
        (
            open(None, vec![review("bob", ReviewVerdict::Approved), review("eve", ReviewVerdict::Commented)]),
            "pr.reviewed, pr.reviewed",
        ),
        (open(Some(touch), vec![]), "pr.human_owned"),
        (merged, "pr.merged, task.completed"),
        (closed, "pr.closed"),
    ];
    for (state, expected) in rows {
        let mut story = Story::with_tasks(&["a"]);
        story.attempt("a", Reached::Completed);
        story.sees_pull_request(state.clone());
        let plan = story.reconcile();
        assert_eq!(told(&plan), expected, "{state:?}");
        story.record(&plan);
        assert_eq!(told(&story.reconcile()), "", "the same again: {state:?}");
    }
}

#[test]
fn a_pull_request_that_was_opened_again_and_merged_counts() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Completed);
    let (by, merge) = (Some("alice".to_owned()), commit('d'));
    for (state, expected) in [
        (PullRequestState::Closed { by: by.clone() }, "pr.closed"),
        (PullRequestState::Merged { by, commit: merge, approved_by: vec![] }, "pr.merged, task.completed"),
    ] {
        story.sees_pull_request(state);
        let plan = story.reconcile();
        assert_eq!(told(&plan), expected);
        story.record(&plan);
    }
}

#[test]
fn the_merge_of_a_task_that_left_the_backlog_completes_nothing() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Completed);
    story.push_backlog(&[]);
    let plan = story.reconcile();
    story.record(&plan);
    story.merge_seen();
    let plan = story.reconcile();
    assert_eq!(told(&plan), "pr.merged");
    story.record(&plan);
    let due = story.write_backs();
    assert!(matches!(due[..], [WriteBackStep::Settle(WriteBackOutcome::Skipped, _)]), "{due:?}");
}

#[test]
fn a_merge_and_an_edit_of_the_backlog_that_are_seen_at_once_complete_nothing() {
    let edit: fn(&mut Story) = |story| story.edit_title("a", "Something else");
    let removal: fn(&mut Story) = |story| story.push_backlog(&[]);
    for (change, expected) in [(edit, "task.updated, pr.merged"), (removal, "task.removed, pr.merged")] {
        let mut story = Story::with_tasks(&["a"]);
        story.attempt("a", Reached::Completed);
        change(&mut story);
        story.merge_seen();
        let plan = story.reconcile();
        assert_eq!(told(&plan), expected);
        story.record(&plan);
        assert_eq!(told(&story.reconcile()), "", "the same again");
    }
}

#[test]
fn a_completion_is_written_back_until_it_is_settled() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Completed);
    assert_eq!(story.write_backs(), []);
    story.merge();
    assert_eq!(story.write_backs(), [WriteBackStep::Edit]);

    let rows = [
        (WriteBackOutcome::Committed, vec![]),
        (WriteBackOutcome::AlreadyDone, vec![]),
        (WriteBackOutcome::Skipped, vec![]),
        (WriteBackOutcome::PullRequest, vec![WriteBackStep::Propose]),
    ];
    for (outcome, expected) in rows {
        let mut story = story.clone();
        story.task_event("a", updated(&story, outcome));
        assert_eq!(story.write_backs(), expected, "{outcome:?}");
    }
}

#[test]
fn nothing_is_written_back_while_the_backlog_is_the_registered_one() {
    for before in [None, Some(WriteBackOutcome::PullRequest)] {
        let mut story = Story::with_tasks(&["a"]);
        story.register_backlog();
        story.attempt("a", Reached::Completed);
        story.merge();
        if let Some(outcome) = before {
            story.task_event("a", updated(&story, outcome));
        }
        let due = story.write_backs();
        let [WriteBackStep::Settle(WriteBackOutcome::Skipped, why)] = due[..] else { panic!("{due:?}") };
        assert!(why.contains("the backlog is the registered one"), "{why}");
        story.task_event("a", updated(&story, WriteBackOutcome::Skipped));
        assert_eq!(story.write_backs(), []);
        assert_eq!(story.chosen(), Vec::<String>::new(), "completed all the same");
    }
}

#[test]
fn the_rolling_pull_request_is_over_once_the_default_branch_says_completed() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Completed);
    story.merge();
    story.task_event("a", updated(&story, WriteBackOutcome::PullRequest));
    story.push_backlog(&[("a", "completed")]);
    let plan = story.reconcile();
    assert_eq!(told(&plan), "task.updated", "the merge completed the task already");
    story.record(&plan);
    let due = story.write_backs();
    assert!(matches!(due[..], [WriteBackStep::Settle(WriteBackOutcome::AlreadyDone, _)]), "{due:?}");
}

#[test]
fn an_edited_task_is_not_marked_completed_by_the_merge_of_the_old_one() {
    let mut story = Story::with_tasks(&["a"]);
    story.attempt("a", Reached::Completed);
    story.edit_title("a", "Something else");
    let plan = story.reconcile();
    story.record(&plan);
    story.merge();
    let due = story.write_backs();
    assert!(matches!(due[..], [WriteBackStep::Settle(WriteBackOutcome::Skipped, _)]), "{due:?}");
    assert_eq!(story.chosen(), ["a"], "the edited task is a task to do");
}

#[test]
fn a_spend_limit_pauses_the_target_until_a_human_resumes_it() {
    let mut story = Story::with_tasks(&["a", "b"]);
    story.attempt("a", Reached::Started);
    story.fail(Stage::Agent, FailureReason::ProviderSpendLimit, "the monthly limit is reached");
    let plan = story.reconcile();
    assert_eq!(told(&plan), "scheduler.paused");
    story.record(&plan);
    assert_eq!(told(&story.reconcile()), "");
    assert_eq!(story.chosen(), Vec::<String>::new());
    story.resume();
    assert_eq!(told(&story.reconcile()), "", "the human's word holds");
    assert_eq!(story.chosen(), ["a"]);
}

#[test]
fn only_what_the_log_knows_is_claimed_and_never_more_than_the_policy_allows() {
    let mut story = Story::with_tasks(&["a", "b", "c"]);
    assert_eq!(story.chosen(), ["a"], "one attempt at once, by default");
    story.edit_title("a", "Edited and not yet recorded");
    assert_eq!(story.chosen(), Vec::<String>::new());
    let plan = story.reconcile();
    story.record(&plan);
    assert_eq!(story.chosen(), ["a"]);
    story.attempt("a", Reached::Started);
    story.sees(ALIVE, Some(1));
    assert_eq!(story.chosen(), Vec::<String>::new());
    assert_eq!(story.only_attempt().state, AttemptState::Started);
}

#[test]
fn a_target_with_problems_claims_nothing_and_forgets_nothing() {
    let mut story = Story::with_tasks(&["a"]);
    story.break_documents();
    assert_eq!(told(&story.reconcile()), "");
    assert_eq!(story.chosen(), Vec::<String>::new());
}

fn updated(story: &Story, outcome: WriteBackOutcome) -> EventKind {
    let commit: Option<CommitId> = None;
    EventKind::BacklogUpdated(BacklogUpdated {
        outcome,
        attempt_id: story.only_attempt().id.clone(),
        commit,
        detail: "so it was".to_owned(),
    })
}
