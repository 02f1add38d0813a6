//! Targets on one machine: each `targets/NAME.yaml` of the data folder is a contract, and `NAME.policy.yaml` beside
//! it the operator's own policy. What a human puts there is registered; what is broken is shown, and the target
//! stays as it was registered last. A file that goes away unregisters nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use api::types::RegisterTarget;
use api::{Client, ClientError};

/// The folder of contracts, and what was made of each.
#[derive(Debug)]
pub(crate) struct TargetFolder {
    folder: PathBuf,
    seen: BTreeMap<PathBuf, Seen>,
}

/// A file as it was last sent, and why it was not accepted.
#[derive(Debug)]
struct Seen {
    request: RegisterTarget,
    problem: Option<String>,
}

impl TargetFolder {
    /// The folder `targets` of a data folder. It need not exist.
    pub(crate) fn of_data(data: &Path) -> Self {
        Self { folder: data.join("targets"), seen: BTreeMap::new() }
    }

    /// Registers what is new or changed, and says what is wrong with the rest.
    pub(crate) async fn register(&mut self, client: &Client) -> Result<Vec<String>, ClientError> {
        let mut problems = Vec::new();
        for path in self.contracts(&mut problems) {
            match read(&path) {
                Ok(request) => {
                    let problem = self.send(client, &path, request).await?;
                    problems.extend(problem.map(|problem| format!("{}: {problem}", path.display())));
                }
                Err(error) => problems.push(format!("{} cannot be read: {error}", path.display())),
            }
        }
        Ok(problems)
    }

    async fn send(
        &mut self,
        client: &Client,
        path: &Path,
        request: RegisterTarget,
    ) -> Result<Option<String>, ClientError> {
        if let Some(seen) = self.seen.get(path).filter(|seen| seen.request == request) {
            return Ok(seen.problem.clone());
        }
        let problem = match client.register_target(&request).await {
            Ok(registered) => {
                if registered.changed {
                    tracing::info!(target.id = %registered.target_id, file = %path.display(), "registered a target");
                }
                None
            }
            Err(ClientError::Refused { status: 400..=499, body }) => Some(body.to_string()),
            Err(error) => return Err(error),
        };
        self.seen.insert(path.to_owned(), Seen { request, problem: problem.clone() });
        Ok(problem)
    }

    fn contracts(&self, problems: &mut Vec<String>) -> Vec<PathBuf> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                problems.push(format!("{} cannot be read: {error}", self.folder.display()));
                return Vec::new();
            }
        };
        let mut paths: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| is_contract(path))
            .collect();
        paths.sort();
        paths
    }
}

fn is_contract(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.starts_with('.') && name.ends_with(".yaml") && !name.ends_with(".policy.yaml")
}

fn read(path: &Path) -> io::Result<RegisterTarget> {
    let operator_policy = match fs::read_to_string(path.with_extension("policy.yaml")) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    Ok(RegisterTarget { contract: fs::read_to_string(path)?, operator_policy })
}
