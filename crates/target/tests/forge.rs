//! The promises of a forge, kept by every one of them: the same story is told to a bare repository and to GitHub.

mod verified;

use std::sync::Arc;
use std::time::{Duration, Instant};

use leviathan_target::forge::{
    Error, Forge, GitHubAccess, HumanTouch, Pace, PullRequest, PullRequestState, ReviewVerdict,
};
use leviathan_target::pull_request::{Facts, PullRequestText};
use leviathan_target::{Expected, Git, IDENTITY, Mirror, PushOutcome, Remote, push};
use model::{AttemptId, BranchName, CommitId, RepoUrl, TargetSpec, VerifiedChange};
use test_support::github::{Fault, GitHub};
use test_support::repository::{Entry, MergeKind, Origin};
use verified::{documents, verified};

const TOKEN: &str = "token-of-the-tests";
const BRANCH: &str = "leviathan/task-deps-2024-01-a1";
const ADA: &str = "ada@example.com";

/// A repository with one branch of ours, ready to be proposed, and the forge of its pull requests.
struct World {
    origin: Arc<Origin>,
    github: Option<GitHub>,
    forge: Forge,
    base: String,
    commit: String,
}

impl World {
    fn local() -> Self {
        Self::new(None)
    }

    fn github() -> Self {
        Self::new(Some(TOKEN))
    }

    fn both() -> [Self; 2] {
        [Self::local(), Self::github()]
    }

    fn new(token: Option<&str>) -> Self {
        let origin = Arc::new(Origin::with_files(&[("requirements.txt", "requests==1\n"), ("other", "1\n")]));
        let github = token.map(|_| GitHub::start(Arc::clone(&origin), "owner", "my-repo", TOKEN));
        let base = origin.resolve("main").expect("main");
        let commit = push_ours(&origin, BRANCH, "requests==2\n");
        let forge = forge(&origin, github.as_ref(), token);
        Self { origin, github, forge, base, commit }
    }

    fn fake(&self) -> &GitHub {
        self.github.as_ref().expect("this world has a GitHub")
    }

    fn change(&self) -> VerifiedChange {
        verified(&spec(&self.origin), &self.base, &self.commit, &["requirements.txt"])
    }

    async fn open(&self) -> Result<PullRequest, Error> {
        self.forge.open(&self.change(), &text(&self.change()), &branch(BRANCH)).await
    }

    async fn opened(&self) -> PullRequest {
        self.open().await.expect("a pull request")
    }

    fn merge(&self, number: u64, kind: MergeKind) -> String {
        match &self.github {
            Some(github) => github.merge(number, kind, "ada"),
            None => self.origin.merge(BRANCH, kind),
        }
    }

    fn ada(&self) -> &str {
        if self.github.is_some() { "ada" } else { ADA }
    }
}

/// One commit of ours on top of `main`, on a branch of its own.
fn push_ours(origin: &Origin, branch: &str, content: &str) -> String {
    origin.set_branch(branch, &origin.resolve("main").expect("main"));
    origin.commit_by(IDENTITY, branch, "Update dependencies", &[Entry::file("requirements.txt", content)])
}

fn forge(origin: &Origin, github: Option<&GitHub>, token: Option<&str>) -> Forge {
    let mut spec = spec(origin);
    if let Some(github) = github {
        spec.contract.repo_url = RepoUrl::parse(&github.repo_url()).expect("an address");
    }
    let pace = Pace { between_writes: Duration::from_millis(1), lag: Duration::from_millis(1) };
    let access = GitHubAccess { token: token.map(Into::into), pace, ..GitHubAccess::default() };
    Forge::of_contract(&spec.contract, &git(), access).expect("a forge")
}

fn spec(origin: &Origin) -> TargetSpec {
    documents(&origin.url(), &["requirements.txt"], &[("Tests must pass", "pytest tests/")])
}

fn text(change: &VerifiedChange) -> PullRequestText {
    let spec = spec(&Origin::empty());
    PullRequestText::new(&Facts {
        spec: &spec,
        task: &spec.backlog.tasks[0],
        attempt: &AttemptId::parse("attempt-abc123").expect("an attempt"),
        executor: "worktree",
        change,
        agent: Default::default(),
        sandbox: &model::event::SandboxReported { profile: "standard".into(), layers: Vec::new() },
        network: &[],
        model: None,
        usage: &Default::default(),
        weakenings: &[],
        redactor: &Default::default(),
    })
}

fn branch(name: &str) -> BranchName {
    BranchName::parse(name).expect("a branch")
}

fn commit(id: &str) -> CommitId {
    CommitId::parse(id).expect("a commit")
}

fn git() -> Git {
    Git::find().expect("git")
}

#[tokio::test]
async fn a_pull_request_of_a_cancelled_attempt_is_labelled_once_and_stays_open() {
    for world in World::both() {
        let opened = world.opened().await;
        for _ in 0..2 {
            world.forge.mark_cancelled(opened.number).await.expect("a label");
        }
        let labels = match &world.github {
            Some(github) => github.labels(opened.number),
            None => {
                let meta = world.origin.read_git(&["cat-file", "blob", "refs/pull/1/meta"]);
                let meta: serde_json::Value = serde_json::from_str(&meta).expect("a record");
                serde_json::from_value(meta["labels"].clone()).expect("labels")
            }
        };
        assert_eq!(labels, ["leviathan-cancelled"]);
        let state = world.forge.state(opened.number).await.expect("a state");
        assert!(matches!(state, PullRequestState::Open { .. }), "{state:?}");
        assert_eq!(world.opened().await.number, opened.number, "it is still found by its branch");
        assert!(world.forge.mark_cancelled(999).await.is_err());
    }
}

#[tokio::test]
async fn an_opened_pull_request_is_open_and_found_again() {
    for world in World::both() {
        let opened = world.opened().await;
        assert_eq!((opened.number, &opened.head_branch), (1, &branch(BRANCH)));
        assert_eq!(opened.head_commit, commit(&world.commit));
        let expected = PullRequestState::Open {
            head_commit: commit(&world.commit),
            base_branch: branch("main"),
            human_owned: None,
            reviews: Vec::new(),
        };
        assert_eq!(opened.state, expected);
        assert_eq!(world.forge.state(1).await, Ok(expected));
        assert_eq!(world.forge.find_by_branch(&branch(BRANCH)).await, Ok(Some(opened)));
        assert_eq!(world.forge.find_by_branch(&branch("leviathan/other-a1")).await, Ok(None));
        let none = world.forge.state(7).await.unwrap_err();
        assert!(matches!(none, Error::NoSuchPullRequest { number: 7, .. }), "{none}");
    }
}

#[tokio::test]
async fn opening_again_adopts_in_whatever_state_humans_left_it() {
    for world in World::both() {
        let opened = world.opened().await;
        assert_eq!(world.opened().await, opened, "open");
        let merged = world.merge(1, MergeKind::Squash);
        let adopted = world.opened().await;
        assert_eq!(adopted.number, 1);
        assert!(
            matches!(&adopted.state, PullRequestState::Merged { commit, .. } if commit.as_str() == merged),
            "{adopted:?}"
        );
    }
}

#[tokio::test]
async fn many_at_once_open_one_pull_request_for_a_branch_and_a_number_for_each_branch() {
    for world in World::both() {
        let change = world.change();
        let text = text(&change);
        let first = branch(BRANCH);
        let same = futures_join(4, |_| world.forge.open(&change, &text, &first)).await;
        assert!(same.iter().all(|number| *number == 1), "{same:?}");

        let spec = spec(&world.origin);
        let branches: Vec<BranchName> = (0..6).map(|n| branch(&format!("leviathan/other-a{n}"))).collect();
        let changes: Vec<VerifiedChange> = branches
            .iter()
            .map(|name| {
                let id = push_ours(&world.origin, name.as_str(), &format!("{name}\n"));
                verified(&spec, &world.base, &id, &["requirements.txt"])
            })
            .collect();
        let mut numbers = futures_join(6, |n| world.forge.open(&changes[n], &text, &branches[n])).await;
        numbers.sort_unstable();
        assert_eq!(numbers, [2, 3, 4, 5, 6, 7]);
    }
}

/// The numbers of the pull requests that `count` openings at once return.
async fn futures_join<'a, F>(count: usize, open: impl Fn(usize) -> F) -> Vec<u64>
where
    F: Future<Output = Result<PullRequest, Error>> + 'a,
{
    futures_util::future::join_all((0..count).map(open))
        .await
        .into_iter()
        .map(|opened| opened.expect("a pull request").number)
        .collect()
}

#[tokio::test]
async fn a_merge_is_seen_with_who_and_which_commit_however_it_was_done() {
    for kind in [MergeKind::Merge, MergeKind::Squash, MergeKind::Rebase] {
        for base_moves in [false, true] {
            for world in World::both() {
                let opened = world.opened().await;
                if base_moves {
                    world.origin.commit("main", "other work", &[Entry::file("other", "2\n")]);
                }
                let tip = world.merge(opened.number, kind);
                world.origin.commit("main", "later work", &[Entry::file("other", "3\n")]);
                let expected = PullRequestState::Merged {
                    by: Some(world.ada().into()),
                    commit: commit(&tip),
                    approved_by: Vec::new(),
                };
                assert_eq!(
                    world.forge.state(opened.number).await,
                    Ok(expected.clone()),
                    "{kind:?} {base_moves}"
                );
                world.origin.delete_branch(BRANCH);
                assert_eq!(world.forge.state(opened.number).await, Ok(expected), "{kind:?} without branch");
            }
        }
    }
}

#[tokio::test]
async fn a_closed_pull_request_can_be_opened_again_by_a_human() {
    for world in World::both() {
        let number = world.opened().await.number;
        let (by, tip) = match &world.github {
            Some(github) => {
                github.close(number, "ada");
                (Some("ada".to_owned()), None)
            }
            None => {
                world.origin.delete_branch(BRANCH);
                (None, Some(&world.commit))
            }
        };
        assert_eq!(world.forge.state(number).await, Ok(PullRequestState::Closed { by }));
        match (&world.github, tip) {
            (Some(github), _) => github.reopen(number),
            (None, Some(tip)) => world.origin.set_branch(BRANCH, tip),
            (None, None) => unreachable!("the local branch was remembered"),
        }
        let state = world.forge.state(number).await.unwrap();
        assert!(matches!(state, PullRequestState::Open { human_owned: None, .. }), "{state:?}");
    }
}

#[tokio::test]
async fn a_human_commit_makes_the_pull_request_the_humans() {
    for world in World::both() {
        let number = world.opened().await.number;
        let theirs =
            world.origin.commit(BRANCH, "by hand", &[Entry::file("requirements.txt", "requests==3\n")]);
        let state = world.forge.state(number).await.unwrap();
        let touched =
            HumanTouch::ForeignCommit { commit: commit(&theirs), by: "Ada Human <ada@example.com>".into() };
        assert!(
            matches!(&state, PullRequestState::Open { human_owned: Some(touch), head_commit, .. }
                if *touch == touched && head_commit.as_str() == theirs),
            "{state:?}"
        );
        let error = world.open().await.unwrap_err();
        let expected = Error::HeadMoved {
            branch: branch(BRANCH),
            expected: commit(&world.commit),
            found: commit(&theirs),
        };
        assert_eq!(error, expected);

        // The human's commit is part of what is merged, also when it is squashed and the branch is gone.
        let tip = world.merge(number, MergeKind::Squash);
        world.origin.delete_branch(BRANCH);
        let state = world.forge.state(number).await.unwrap();
        assert!(
            matches!(&state, PullRequestState::Merged { commit, .. } if commit.as_str() == tip),
            "{state:?}"
        );
        world.origin.set_branch(BRANCH, &world.commit);
        assert_eq!(world.open().await, Err(expected), "a second one is not opened beside it");
    }
}

#[tokio::test]
async fn a_branch_that_is_not_what_was_verified_is_not_proposed() {
    for world in World::both() {
        let theirs =
            world.origin.commit(BRANCH, "by hand", &[Entry::file("requirements.txt", "requests==3\n")]);
        let error = world.open().await.unwrap_err();
        assert!(matches!(&error, Error::HeadMoved { found, .. } if found.as_str() == theirs), "{error}");
        assert_eq!(world.forge.find_by_branch(&branch(BRANCH)).await, Ok(None), "nothing was opened");

        let world_base = world.origin.resolve("main").unwrap();
        let spec = spec(&world.origin);
        let missing = verified(&spec, &world.base, &world.commit, &["requirements.txt"]);
        let error =
            world.forge.open(&missing, &text(&missing), &branch("leviathan/missing-a1")).await.unwrap_err();
        assert!(matches!(error, Error::Refused { .. }), "{error}");
        world.origin.set_branch("leviathan/nothing-a1", &world_base);
        let nothing = verified(&spec, &world.base, &world_base, &["requirements.txt"]);
        let error =
            world.forge.open(&nothing, &text(&nothing), &branch("leviathan/nothing-a1")).await.unwrap_err();
        assert!(error.to_string().to_lowercase().contains("no commits between"), "{error}");
    }
}

#[tokio::test]
async fn the_rolling_backlog_pull_request_is_one_while_it_is_open() {
    for world in World::both() {
        let text = PullRequestText::for_backlog(&[]);
        let first = push_ours(&world.origin, "leviathan/backlog", "one\n");
        let opened = world.forge.open_backlog(&commit(&first), &text).await.unwrap();
        let second = world.origin.commit_by(
            IDENTITY,
            "leviathan/backlog",
            "two",
            &[Entry::file("requirements.txt", "two\n")],
        );
        let rolled = world.forge.open_backlog(&commit(&second), &text).await.unwrap();
        assert_eq!((rolled.number, rolled.head_commit.as_str()), (opened.number, second.as_str()));
        match &world.github {
            Some(github) => drop(github.merge(opened.number, MergeKind::Merge, "ada")),
            None => drop(world.origin.merge("leviathan/backlog", MergeKind::Merge)),
        }
        let third = push_ours(&world.origin, "leviathan/backlog", "three\n");
        let next = world.forge.open_backlog(&commit(&third), &text).await.unwrap();
        assert_eq!((next.number, next.head_commit.as_str()), (opened.number + 1, third.as_str()));
    }
}

#[tokio::test]
async fn a_forge_that_is_down_is_unavailable_and_works_again_later() {
    for mut world in World::both() {
        let number = world.opened().await.number;
        match &mut world.github {
            Some(github) => github.stop(),
            None => std::fs::remove_dir_all(world.origin.dir()).unwrap(),
        }
        for error in [world.forge.state(number).await.unwrap_err(), world.open().await.unwrap_err()] {
            assert!(matches!(error, Error::Unavailable { .. }) && error.is_transient(), "{error}");
        }
    }
}

#[tokio::test]
async fn a_retargeted_pull_request_is_the_humans() {
    let world = World::github();
    let number = world.opened().await.number;
    world.origin.set_branch("release", &world.base);
    world.fake().retarget(number, "release");
    let state = world.forge.state(number).await.unwrap();
    let touched = HumanTouch::Retargeted { base_branch: "release".into() };
    assert!(
        matches!(&state, PullRequestState::Open { human_owned: Some(touch), .. } if *touch == touched),
        "{state:?}"
    );
}

#[tokio::test]
async fn reviews_are_told_and_only_approvals_of_what_was_merged_count() {
    let world = World::github();
    let number = world.opened().await.number;
    for (by, state) in [
        ("ada", "CHANGES_REQUESTED"),
        ("ada", "COMMENTED"),
        ("ada", "APPROVED"),
        ("bob", "APPROVED"),
        ("bob", "CHANGES_REQUESTED"),
        ("eve", "COMMENTED"),
        ("kim", "APPROVED"),
        ("kim", "COMMENTED"),
    ] {
        world.fake().review(number, by, state);
    }
    let PullRequestState::Open { reviews, .. } = world.forge.state(number).await.unwrap() else {
        panic!("open")
    };
    let said: Vec<(&str, ReviewVerdict)> =
        reviews.iter().map(|review| (review.by.as_str(), review.verdict)).collect();
    let expected = [
        ("ada", ReviewVerdict::Approved),
        ("bob", ReviewVerdict::ChangesRequested),
        ("eve", ReviewVerdict::Commented),
        ("kim", ReviewVerdict::Approved),
    ];
    assert_eq!(said, expected);

    // Ada approves what is merged; Kim approved an earlier head.
    world.origin.commit(BRANCH, "by hand", &[Entry::file("requirements.txt", "requests==3\n")]);
    world.fake().review(number, "ada", "APPROVED");
    world.fake().merge(number, MergeKind::Merge, "bob");
    let state = world.forge.state(number).await.unwrap();
    assert!(
        matches!(&state, PullRequestState::Merged { by: Some(by), approved_by, .. } if by == "bob" && *approved_by == ["ada"]),
        "{state:?}"
    );
}

#[tokio::test]
async fn more_reviews_than_fit_on_a_page_are_read() {
    let world = World::github();
    let number = world.opened().await.number;
    for _ in 0..100 {
        world.fake().review(number, "eve", "COMMENTED");
    }
    world.fake().review(number, "ada", "APPROVED");
    let PullRequestState::Open { reviews, .. } = world.forge.state(number).await.unwrap() else {
        panic!("open")
    };
    assert_eq!(reviews.len(), 2, "{reviews:?}");
}

#[tokio::test]
async fn a_lost_answer_to_an_opening_leaves_one_pull_request() {
    for fault in [Fault::DropAfterOpening, Fault::ReadsLag(3), Fault::BranchLags(2)] {
        let world = World::github();
        world.fake().inject(fault);
        assert_eq!(world.opened().await.number, 1, "{fault:?}");
        assert_eq!(world.opened().await.number, 1, "{fault:?}");
        assert_eq!(world.fake().numbers(), [1], "{fault:?}");
    }
    let world = World::github();
    world.fake().inject(Fault::DropAfterOpening);
    world.fake().inject(Fault::ReadsLag(2));
    assert_eq!(world.opened().await.number, 1);
    assert_eq!(world.fake().numbers(), [1]);
}

#[tokio::test]
async fn a_rate_limit_silences_the_forge_until_it_is_over() {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    for (fault, least, most) in [(Fault::SecondaryLimit(40), 40, 40), (Fault::AllowanceUsedUp(600), 590, 600)]
    {
        let world = World::github();
        world.fake().inject(fault);
        let error = world.open().await.unwrap_err();
        let Error::RateLimited { wait, .. } = &error else { panic!("{fault:?}: {error}") };
        assert!((least..=most).contains(&wait.as_secs()), "{fault:?}: {wait:?}");
        assert_eq!(error.not_before(now), Some(now + *wait));
        let requests = world.fake().seen().len();
        let again = world.forge.state(1).await.unwrap_err();
        assert!(matches!(again, Error::RateLimited { .. }), "{again}");
        assert_eq!(world.fake().seen().len(), requests, "nothing was sent");
        assert_eq!(world.fake().numbers(), [] as [u64; 0]);
    }
    let world = World::github();
    world.fake().inject(Fault::SecondaryLimit(1));
    world.open().await.unwrap_err();
    let deadline = Instant::now() + Duration::from_secs(20);
    let opened = loop {
        match world.open().await {
            Err(Error::RateLimited { wait, .. }) if Instant::now() < deadline => {
                tokio::time::sleep(wait).await
            }
            other => break other,
        }
    };
    assert_eq!(opened.expect("the limit is over").number, 1);
}

#[tokio::test]
async fn a_stumbling_github_is_read_again_but_written_once() {
    let world = World::github();
    let number = world.opened().await.number;
    world.fake().inject(Fault::BadGateway);
    world.fake().inject(Fault::BadGateway);
    assert!(world.forge.state(number).await.is_ok());

    let world = World::github();
    world.fake().inject(Fault::BadCredentials);
    assert_eq!(world.opened().await.number, 1, "a token may be a moment too new");
    let posts = world.fake().seen().iter().filter(|seen| seen.method == "POST").count();
    assert_eq!(posts, 1);
}

#[tokio::test]
async fn a_wrong_or_missing_token_is_said_to_be_one() {
    let world = World::github();
    let stranger = forge(&world.origin, world.github.as_ref(), Some("another-token"));
    let error = stranger.open(&world.change(), &text(&world.change()), &branch(BRANCH)).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
    assert!(error.to_string().contains("GITHUB_TOKEN"), "{error}");
    assert!(!format!("{error} {error:?} {stranger:?}").contains("another-token"));
    assert_eq!(world.fake().seen().len(), 2, "once more, and no further");

    let mut contract = spec(&world.origin).contract;
    contract.repo_url = RepoUrl::parse(&world.fake().repo_url()).unwrap();
    let error = Forge::of_contract(&contract, &git(), GitHubAccess::default()).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn polling_what_did_not_change_costs_nothing() {
    let world = World::github();
    let number = world.opened().await.number;
    let first = world.forge.state(number).await;
    let before = world.fake().seen().len();
    assert_eq!(world.forge.state(number).await, first);
    let polls = &world.fake().seen()[before..];
    assert!(!polls.is_empty() && polls.iter().all(|seen| seen.status == 304), "{polls:?}");
    world.fake().merge(number, MergeKind::Merge, "ada");
    assert!(matches!(world.forge.state(number).await, Ok(PullRequestState::Merged { .. })));
}

#[tokio::test]
async fn writes_keep_their_distance() {
    let mut world = World::github();
    let mut contract = spec(&world.origin).contract;
    contract.repo_url = RepoUrl::parse(&world.fake().repo_url()).unwrap();
    let pace = Pace { between_writes: Duration::from_millis(300), lag: Duration::from_millis(1) };
    let access = GitHubAccess { token: Some(TOKEN.into()), pace, ..GitHubAccess::default() };
    world.forge = Forge::of_contract(&contract, &git(), access).unwrap();
    let other = push_ours(&world.origin, "leviathan/other-a1", "other\n");
    let other = verified(&spec(&world.origin), &world.base, &other, &["requirements.txt"]);
    let started = Instant::now();
    world.opened().await;
    world.forge.open(&other, &text(&other), &branch("leviathan/other-a1")).await.unwrap();
    assert!(started.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn what_is_written_is_what_was_measured() {
    let world = World::github();
    let number = world.opened().await.number;
    let expected = text(&world.change());
    assert_eq!(world.fake().text(number), (expected.title().to_owned(), expected.body().to_owned()));
    assert_eq!(world.fake().labels(number), [] as [&str; 0]);
}

#[tokio::test]
async fn a_fast_forward_is_a_merge_by_whoever_the_reflog_names() {
    for keeps_reflog in [true, false] {
        let world = World::local();
        let number = world.opened().await.number;
        if keeps_reflog {
            world.origin.read_git(&["config", "core.logAllRefUpdates", "true"]);
            // The log of a ref begins with its next move: a human's, before the merge.
            world.origin.set_branch("main", &world.base);
        }
        world.origin.set_branch("main", &world.commit);
        world.origin.commit("main", "later work", &[Entry::file("other", "3\n")]);
        let state = world.forge.state(number).await.unwrap();
        let expected = PullRequestState::Merged {
            by: keeps_reflog.then(|| ADA.to_owned()),
            commit: commit(&world.commit),
            approved_by: Vec::new(),
        };
        assert_eq!(state, expected);
    }
}

#[tokio::test]
async fn several_commits_are_merged_when_all_of_them_are_rebased_or_squashed_into_one() {
    for kind in [MergeKind::Rebase, MergeKind::Squash] {
        let world = World::local();
        let number = world.opened().await.number;
        world.origin.commit(BRANCH, "binary", &[Entry::file("logo.png", [0, 159, 146, 150])]);
        world.origin.commit(BRANCH, "odd name", &[Entry::file(":(glob)*[x]", "1\n")]);
        world.origin.commit("main", "other work", &[Entry::file("other", "2\n")]);
        world.merge(number, kind);
        world.origin.delete_branch(BRANCH);
        // The branch was never looked at while it held the human's commits, so only ours is known to be merged.
        let state = world.forge.state(number).await.unwrap();
        match kind {
            MergeKind::Rebase => assert!(matches!(state, PullRequestState::Merged { .. }), "{state:?}"),
            MergeKind::Squash | MergeKind::Merge => {
                assert!(matches!(state, PullRequestState::Closed { .. }), "{state:?}");
            }
        }
        world.origin.set_branch(BRANCH, &world.commit);

        let world = World::local();
        let number = world.opened().await.number;
        world.origin.commit(BRANCH, "binary", &[Entry::file("logo.png", [0, 159, 146, 150])]);
        world.origin.commit(BRANCH, "odd name", &[Entry::file(":(glob)*[x]", "1\n")]);
        world.forge.state(number).await.unwrap();
        world.origin.commit("main", "other work", &[Entry::file("other", "2\n")]);
        let seen = world.merge(number, kind);
        world.origin.delete_branch(BRANCH);
        let state = world.forge.state(number).await.unwrap();
        assert!(
            matches!(&state, PullRequestState::Merged { commit, .. } if commit.as_str() == seen),
            "{state:?}"
        );
    }
}

#[tokio::test]
async fn part_of_a_change_is_not_the_change() {
    let world = World::local();
    let number = world.opened().await.number;
    world.origin.commit(BRANCH, "more", &[Entry::file("more", "1\n")]);
    world.forge.state(number).await.unwrap();
    // A human takes one of the two commits by hand.
    world.origin.commit("main", "by hand", &[Entry::file("requirements.txt", "requests==2\n")]);
    let state = world.forge.state(number).await.unwrap();
    assert!(matches!(state, PullRequestState::Open { .. }), "{state:?}");
}

#[tokio::test]
async fn a_record_that_is_none_is_reported_and_a_retargeted_one_is_the_humans() {
    let world = World::local();
    let number = world.opened().await.number;
    let json = world.origin.read_git(&["cat-file", "blob", "refs/pull/1/meta"]);
    let write = |content: &str| {
        let file = world.origin.dir().join("record.json");
        std::fs::write(&file, content).unwrap();
        let blob = world.origin.read_git(&["hash-object", "-w", file.to_str().unwrap()]);
        world.origin.read_git(&["update-ref", "refs/pull/1/meta", blob.trim()]);
    };
    world.origin.set_branch("release", &world.base);
    write(&json.replace("\"base_branch\": \"main\"", "\"base_branch\": \"release\""));
    let state = world.forge.state(number).await.unwrap();
    let touched = HumanTouch::Retargeted { base_branch: "release".into() };
    assert!(
        matches!(&state, PullRequestState::Open { human_owned: Some(touch), .. } if *touch == touched),
        "{state:?}"
    );
    for broken in ["{", &json.replace("\"version\": 1", "\"version\": 9")] {
        write(broken);
        let error = world.forge.state(number).await.unwrap_err();
        assert!(error.to_string().contains("refs/pull/1/meta"), "{error}");
    }
}

#[tokio::test]
async fn a_token_is_not_sent_where_others_could_read_it() {
    let world = World::github();
    let mut contract = spec(&world.origin).contract;
    contract.repo_url = RepoUrl::parse("git@github.com:owner/my-repo.git").unwrap();
    for api_url in ["http://ghe.example/api/v3", "ftp://127.0.0.1", "nonsense"] {
        let access = GitHubAccess {
            api_url: Some(api_url.into()),
            token: Some(TOKEN.into()),
            ..GitHubAccess::default()
        };
        let error = Forge::of_contract(&contract, &git(), access).unwrap_err();
        assert!(error.to_string().contains(api_url), "{error}");
    }
}

#[tokio::test]
async fn one_address_serves_git_and_pull_requests_with_one_token() {
    let world = World::github();
    let url = RepoUrl::parse(&world.fake().repo_url()).unwrap();
    let data = tempfile::tempdir().unwrap();
    let fetched = |token: &str| {
        let mirror = Mirror::of(&git(), data.path(), &"my-repo".parse().unwrap());
        let remote = Remote::new(&url, Some(token.into()));
        mirror.fetch(&remote, &branch("main")).map(|base| (mirror, remote, base))
    };
    fetched("another-token").map(|(_, _, base)| base).unwrap_err();
    let (mirror, remote, base) = fetched(TOKEN).unwrap();
    assert_eq!(base.as_str(), world.base);

    // A commit of ours that the far side does not have under this name yet.
    mirror.fetch_ref(&remote, &branch(BRANCH).to_ref()).unwrap();
    let name = branch("leviathan/pushed-a1");
    world.fake().pushes().drop_next_answer();
    let push =
        || push(&mirror.repository().unwrap(), &remote, &name, &commit(&world.commit), &Expected::Absent);
    if push().is_err() {
        assert_eq!(push().unwrap(), PushOutcome::AlreadyThere, "what was lost is the answer, not the push");
    }
    let opened = world.forge.open(&world.change(), &text(&world.change()), &name).await.unwrap();
    assert_eq!(opened.head_commit.as_str(), world.commit);
}
