//! What the targets' repositories say: fetched into their mirrors, their documents read at the tip of the default
//! branch. A repository that cannot be read, or whose documents do not hold, lets nothing run: its problems are
//! shown instead.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::event::TargetRegistered;
use model::{CommitId, Contract, Document, Graph, TargetId};
use target::forge::{Forge, GitHubAccess};
use target::spec::{self, Registered, SpecError};
use target::{Git, Mirror, Remote};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::plan::TargetSight;

/// How messages name the contract that was registered.
const CONTRACT: &str = "contract.yaml (as registered)";
/// How many repositories are fetched at once.
const FETCHES: usize = 4;

/// How repositories and forges are reached.
#[derive(Debug, Clone)]
pub struct RepositoryAccess {
    /// The git of this machine.
    pub git: Git,
    /// GitHub, and the token that is also used to fetch and push.
    pub github: GitHubAccess,
}

/// One target's repository: where it is, its mirror here, and its pull requests.
#[derive(Debug)]
pub(crate) struct TargetRepository {
    pub(crate) contract: Contract,
    pub(crate) remote: Remote,
    pub(crate) mirror: Mirror,
    pub(crate) forge: Forge,
    registered: TargetRegistered,
}

/// Every registered target's repository, and what was seen there last.
#[derive(Debug)]
pub(crate) struct Repositories {
    data: PathBuf,
    access: RepositoryAccess,
    repositories: BTreeMap<TargetId, Arc<TargetRepository>>,
    seen: BTreeMap<TargetId, Seen>,
}

/// What the documents said at a commit. They say the same as long as neither it nor the registration changes.
#[derive(Debug, Clone)]
struct Seen {
    repository: Arc<TargetRepository>,
    commit: CommitId,
    sight: TargetSight,
}

impl Repositories {
    pub(crate) fn new(data: &Path, access: RepositoryAccess) -> Self {
        Self { data: data.to_owned(), access, repositories: BTreeMap::new(), seen: BTreeMap::new() }
    }

    /// The repository of a target, unless its registration cannot be used.
    pub(crate) fn get(&self, target: &TargetId) -> Option<&Arc<TargetRepository>> {
        self.repositories.get(target)
    }

    /// Looks at every registered target's repository.
    pub(crate) async fn look(&mut self, graph: &Graph) -> BTreeMap<TargetId, TargetSight> {
        let mut sights = BTreeMap::new();
        let mut looks = JoinSet::new();
        let places = Arc::new(Semaphore::new(FETCHES));
        for (id, target) in graph.targets() {
            let repository = match self.repository(id, &target.registered) {
                Ok(repository) => repository,
                Err(problems) => {
                    self.repositories.remove(id);
                    sights.insert(id.clone(), TargetSight::Problems(problems));
                    continue;
                }
            };
            let (id, places, seen) = (id.clone(), places.clone(), self.seen.get(id).cloned());
            looks.spawn(async move {
                let _place = places.acquire_owned().await;
                let look = tokio::task::spawn_blocking(move || look(repository, seen)).await;
                (id, look.expect("looking at a repository does not panic, and is not aborted"))
            });
        }
        while let Some(looked) = looks.join_next().await {
            let (id, look) = looked.expect("looking at a repository does not panic, and is not aborted");
            match look {
                Ok(seen) => {
                    sights.insert(id.clone(), seen.sight.clone());
                    self.seen.insert(id, seen);
                }
                Err(problem) => {
                    sights.insert(id, TargetSight::Problems(vec![problem]));
                }
            }
        }
        sights
    }

    fn repository(
        &mut self,
        id: &TargetId,
        registered: &TargetRegistered,
    ) -> Result<Arc<TargetRepository>, Vec<String>> {
        if let Some(known) = self.repositories.get(id).filter(|known| known.registered == *registered) {
            return Ok(known.clone());
        }
        let contract = Contract::parse(CONTRACT, registered.contract.as_bytes())
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let RepositoryAccess { git, github } = &self.access;
        let forge =
            Forge::of_contract(&contract, git, github.clone()).map_err(|error| vec![error.to_string()])?;
        let repository = Arc::new(TargetRepository {
            remote: Remote::new(&contract.repo_url, github.token.clone()),
            mirror: Mirror::of(git, &self.data, id),
            forge,
            contract,
            registered: registered.clone(),
        });
        self.repositories.insert(id.clone(), repository.clone());
        Ok(repository)
    }
}

/// Fetches, and reads the documents unless they were read at this very commit. The error is for people.
fn look(repository: Arc<TargetRepository>, seen: Option<Seen>) -> Result<Seen, String> {
    let contract = &repository.contract;
    let commit = repository
        .mirror
        .fetch(&repository.remote, &contract.default_branch)
        .map_err(|error| format!("{} cannot be fetched: {error}", contract.repo_url))?;
    let is_seen = |seen: &Seen| seen.commit == commit && Arc::ptr_eq(&seen.repository, &repository);
    if let Some(seen) = seen.filter(is_seen) {
        return Ok(seen);
    }
    let sight = read(&repository, &commit)?;
    Ok(Seen { repository, commit, sight })
}

fn read(repository: &TargetRepository, commit: &CommitId) -> Result<TargetSight, String> {
    let TargetRegistered { contract, operator_policy, backlog, .. } = &repository.registered;
    let document = |file, text| Document { file, content: Some(str::as_bytes(text)) };
    let registered = Registered {
        contract: Some(document(CONTRACT, contract)),
        policy: operator_policy.as_ref().map(|text| document("policy.yaml (the operator's)", text)),
        backlog: backlog.as_ref().map(|text| document("backlog.yaml (as registered)", text)),
    };
    let mirror = repository.mirror.repository().map_err(|error| error.to_string())?;
    let spec = match spec::read(&mirror, commit, registered) {
        Ok(spec) => spec,
        Err(SpecError::Git(error)) => return Err(error.to_string()),
        Err(SpecError::Problems(problems)) => {
            return Ok(TargetSight::Problems(problems.iter().map(ToString::to_string).collect()));
        }
        Err(
            error @ (SpecError::NotAFile { .. }
            | SpecError::TooLarge { .. }
            | SpecError::OtherContract { .. }),
        ) => {
            return Ok(TargetSight::Problems(vec![error.to_string()]));
        }
    };
    Ok(TargetSight::Spec(Arc::new(spec)))
}
