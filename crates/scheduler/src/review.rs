//! Asks the forges how pull requests stand. What is asked here is the truth; a webhook could only make it earlier.
//! A forge that asks for a pause is left alone until it is over.

use std::collections::BTreeMap;
use std::time::Instant;

use model::event::Timestamp;
use model::graph::{Attempt, PullRequestState as Known};
use model::{AttemptId, AttemptState, TargetId};
use target::forge::{Forge, HumanTouch, PullRequestState};

use crate::history::History;
use crate::observe::Repositories;
use crate::{Config, Report};

/// Every so many looks, pull requests that were closed are looked at too: a human may have opened one again.
const CLOSED_EVERY: u64 = 10;

/// When the forges were asked last, and when they may be asked again.
#[derive(Debug, Default)]
pub(crate) struct Reviews {
    looked: Option<Instant>,
    looks: u64,
    not_before: BTreeMap<TargetId, Timestamp>,
}

impl Reviews {
    /// How the pull requests that wait for a human stand, as far as it is time to ask.
    pub(crate) async fn look(
        &mut self,
        config: &Config,
        history: &History,
        repositories: &Repositories,
        report: &mut Report,
    ) -> BTreeMap<AttemptId, PullRequestState> {
        let is_due = self.looked.is_none_or(|looked| looked.elapsed() >= config.review_interval);
        if is_due {
            self.looked = Some(Instant::now());
            self.looks += 1;
        }
        let with_closed = self.looks % CLOSED_EVERY == 1;
        let mut states = BTreeMap::new();
        for (id, target) in history.graph().targets() {
            let Some(repository) = repositories.get(id) else { continue };
            let forge = &repository.forge;
            if !self.may_ask(id, forge, is_due) {
                continue;
            }
            let open = target.in_review.iter().filter_map(|id| history.graph().attempt(id));
            let closed =
                history.graph().attempts().filter(|a| with_closed && a.target_id == *id && is_declined(a));
            for attempt in open.chain(closed) {
                let Some(known) = &attempt.pull_request else { continue };
                match forge.state(known.number).await {
                    Ok(state) => {
                        let state = leave_to_humans(forge, attempt, state, report).await;
                        states.insert(attempt.id.clone(), state);
                    }
                    Err(error) => {
                        let now = jiff::Timestamp::now();
                        self.not_before
                            .extend(error.not_before(now).map(|at| (id.clone(), Timestamp::new(at))));
                        report.problems.push(format!("target {id}: {error}"));
                        break;
                    }
                }
            }
        }
        states
    }

    /// A forge on this machine costs nothing and is asked in every pass.
    fn may_ask(&self, target: &TargetId, forge: &Forge, is_due: bool) -> bool {
        let is_awake = self.not_before.get(target).is_none_or(|until| crate::now() >= *until);
        let is_near = match forge {
            Forge::Local(_) => true,
            Forge::GitHub(_) => false,
        };
        is_awake && (is_due || is_near)
    }
}

/// A pull request whose attempt was cancelled or declared void stays open: it is labelled once, and from then on
/// counts as the humans'.
async fn leave_to_humans(
    forge: &Forge,
    attempt: &Attempt,
    mut state: PullRequestState,
    report: &mut Report,
) -> PullRequestState {
    let is_void = attempt.state == AttemptState::Cancelled || attempt.invalidated.is_some();
    let Some(known) = attempt.pull_request.as_ref().filter(|known| is_void && known.human_owned.is_none())
    else {
        return state;
    };
    if let PullRequestState::Open { human_owned: owned @ None, .. } = &mut state {
        match forge.mark_cancelled(known.number).await {
            // It is tried again when it is looked at again.
            Err(error) if error.is_transient() => report.problems.push(error.to_string()),
            Err(error) => {
                tracing::warn!(pull_request.url = known.url, "{error}");
                *owned = Some(HumanTouch::Cancelled);
            }
            Ok(()) => *owned = Some(HumanTouch::Cancelled),
        }
    }
    state
}

fn is_declined(attempt: &Attempt) -> bool {
    attempt.pull_request.as_ref().is_some_and(|pr| matches!(pr.state, Known::Closed { .. }))
}
