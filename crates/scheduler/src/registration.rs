//! Registers what humans put where the scheduler looks: contracts in the data folder, and ConfigMaps of the cluster.
//!
//! What is new or changed is registered. What is broken is shown and recorded, and the target stays as it was
//! registered last. A ConfigMap that is removed unregisters its target.

mod config_maps;
mod folder;

use std::collections::BTreeMap;
use std::path::Path;

use api::types::{ReasonRequest, RegisterTarget, RejectTarget};
use api::{Client, ClientError};
use model::{ActorId, Contract, Digest, Graph, TargetId};

pub use config_maps::ConfigMaps;

use folder::TargetFolder;

/// The registration of one target, as a human wrote it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Documents {
    contract: String,
    backlog: Option<String>,
    operator_policy: Option<String>,
    executor_image: Option<String>,
}

/// Where registrations come from, and what was made of each.
#[derive(Debug)]
pub(crate) struct Registrations {
    actor: ActorId,
    folder: TargetFolder,
    config_maps: Option<ConfigMaps>,
    seen: BTreeMap<String, Seen>,
}

/// Documents as they were last sent, and why they were not accepted.
#[derive(Debug)]
struct Seen {
    documents: Documents,
    problem: Option<String>,
}

impl Registrations {
    pub(crate) fn new(actor: ActorId, data: &Path, config_maps: Option<ConfigMaps>) -> Self {
        Self { actor, folder: TargetFolder::of_data(data), config_maps, seen: BTreeMap::new() }
    }

    /// Registers what is new or changed, unregisters what was removed, and says what is wrong with the rest.
    pub(crate) async fn register(
        &mut self,
        client: &Client,
        graph: &Graph,
    ) -> Result<Vec<String>, ClientError> {
        let mut problems = Vec::new();
        for (source, documents) in self.folder.look(&mut problems) {
            problems.extend(self.send(client, &source, documents).await?);
        }
        let Some(config_maps) = &self.config_maps else { return Ok(problems) };
        let looked = config_maps.look().await;
        match looked {
            Ok(found) => {
                let found = config_maps::one_for_each_target(found, &mut problems);
                let sources = config_maps::targets(&found);
                for (source, documents) in found {
                    problems.extend(self.send_from_cluster(client, &source, documents).await?);
                }
                self.unregister_removed(client, graph, &sources).await?;
            }
            // Nothing is known of what is there: nothing is taken for removed.
            Err(problem) => problems.push(problem),
        }
        Ok(problems)
    }

    async fn send_from_cluster(
        &mut self,
        client: &Client,
        source: &str,
        documents: Result<Documents, String>,
    ) -> Result<Option<String>, ClientError> {
        match documents {
            Ok(documents) => self.send(client, source, documents).await,
            Err(problem) => {
                let digest = Digest::of(problem.as_bytes());
                self.reject(client, source, None, digest, &problem).await?;
                Ok(Some(format!("{source}: {problem}")))
            }
        }
    }

    async fn send(
        &mut self,
        client: &Client,
        source: &str,
        documents: Documents,
    ) -> Result<Option<String>, ClientError> {
        if let Some(seen) = self.seen.get(source).filter(|seen| seen.documents == documents) {
            return Ok(seen.problem.clone());
        }
        let request = self.request(source, &documents);
        let problem = match client.register_target(&request).await {
            Ok(registered) => {
                if registered.changed {
                    tracing::info!(target.id = %registered.target_id, source, "registered a target");
                }
                None
            }
            Err(ClientError::Refused { status: 400 | 409 | 413 | 422, body }) => {
                let target = target_of(&documents.contract);
                self.reject(client, source, target, documents.digest(), &body.to_string()).await?;
                Some(format!("{source}: {body}"))
            }
            Err(error) => return Err(error),
        };
        self.seen.insert(source.to_owned(), Seen { documents, problem: problem.clone() });
        Ok(problem)
    }

    fn request(&self, source: &str, documents: &Documents) -> RegisterTarget {
        let Documents { contract, backlog, operator_policy, executor_image } = documents.clone();
        RegisterTarget {
            contract,
            backlog,
            operator_policy,
            executor_image,
            source: Some(source.to_owned()),
            actor_id: Some(self.actor.clone()),
        }
    }

    async fn reject(
        &self,
        client: &Client,
        source: &str,
        target_id: Option<TargetId>,
        digest: Digest,
        problem: &str,
    ) -> Result<(), ClientError> {
        let rejected = RejectTarget {
            source: source.to_owned(),
            target_id,
            digest,
            problems: vec![problem.to_owned()],
            actor_id: Some(self.actor.clone()),
        };
        client.reject_target(&rejected).await.map(drop)
    }

    /// Targets whose ConfigMap is not there any more, also when it went while nobody looked.
    async fn unregister_removed(
        &mut self,
        client: &Client,
        graph: &Graph,
        sources: &BTreeMap<String, Option<TargetId>>,
    ) -> Result<(), ClientError> {
        for (id, target) in graph.targets() {
            let Some(source) = target.registered.source.as_deref() else { continue };
            let is_removed = config_maps::is_source(source)
                && sources.get(source).is_none_or(|named| named.as_ref().is_some_and(|named| named != id));
            if !is_removed || target.unregistered.is_some() {
                continue;
            }
            let reason = ReasonRequest {
                reason: format!("{source} was removed, or names another target now"),
                target: None,
                actor_id: Some(self.actor.clone()),
            };
            client.unregister_target(id, &reason).await?;
            self.seen.remove(source);
            tracing::info!(target.id = %id, source, "unregistered a target: its ConfigMap was removed");
        }
        Ok(())
    }
}

impl Documents {
    fn digest(&self) -> Digest {
        let Self { contract, backlog, operator_policy, executor_image } = self;
        let all = serde_json::json!([contract, backlog, operator_policy, executor_image]);
        Digest::of(all.to_string().as_bytes())
    }
}

/// The target that a contract names, even if the rest of it does not hold.
fn target_of(contract: &str) -> Option<TargetId> {
    Contract::parse("contract.yaml", contract.as_bytes()).ok().map(|contract| contract.target_id)
}
