//! `leviathan init`: the three documents with comments, for a human to fill in.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use model::{BranchName, RepoUrl, TargetId};

use crate::{Answer, local_documents, plain_git};

const CONTRACT: &str = include_str!("init/contract.yaml");
const BACKLOG: &str = include_str!("init/backlog.yaml");
const POLICY: &str = include_str!("init/policy.yaml");

/// Editors check the documents against these; they lie beside them so that no network is needed.
const SCHEMAS: &[(&str, &str)] = &[
    ("contract", include_str!("../../../docs/schemas/contract.schema.json")),
    ("backlog", include_str!("../../../docs/schemas/backlog.schema.json")),
    ("policy", include_str!("../../../docs/schemas/policy.schema.json")),
];

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The repository to make a target
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let directory = &arguments.directory;
    if !directory.is_dir() {
        bail!("there is no folder {}", directory.display());
    }
    let folder = local_documents::folder(directory);
    let files = files(&Repository::inferred(directory));
    refuse_existing(&folder, &files)?;
    for (name, content) in &files {
        write_new(&folder.join(name), content)?;
        anstream::println!("wrote {}", folder.join(name).display());
    }
    anstream::println!("next: fill in the places marked TODO, then run `leviathan check`");
    Ok(Answer::Yes)
}

/// What the contract says of the repository, as far as git knows it.
struct Repository {
    target_id: String,
    name: String,
    repo_url: Option<String>,
    default_branch: String,
}

impl Repository {
    fn inferred(directory: &Path) -> Self {
        let repo_url = git(directory, &["config", "--get", "remote.origin.url"]).map(|url| as_repo_url(&url));
        let repo_url = repo_url.filter(|url| RepoUrl::parse(url).is_ok());
        let name = repo_url.as_deref().and_then(last_component).or_else(|| folder_name(directory));
        let name = name.unwrap_or_else(|| "my-repo".to_owned());
        Self {
            target_id: target_id_from(&name),
            name,
            repo_url,
            default_branch: default_branch(directory).unwrap_or_else(|| "main".to_owned()),
        }
    }

    fn contract(&self) -> String {
        let repo_url = match &self.repo_url {
            Some(url) => url.clone(),
            None => {
                format!("https://github.com/owner/{}.git # TODO: where the repository is", self.target_id)
            }
        };
        CONTRACT
            .replace("{target_id}", &self.target_id)
            .replace("{name}", &serde_json::Value::from(self.name.as_str()).to_string())
            .replace("{repo_url}", &repo_url)
            .replace("{default_branch}", &self.default_branch)
    }
}

fn files(repository: &Repository) -> Vec<(String, String)> {
    let mut files = vec![
        ("contract.yaml".to_owned(), repository.contract()),
        ("backlog.yaml".to_owned(), BACKLOG.to_owned()),
        ("policy.yaml".to_owned(), POLICY.to_owned()),
    ];
    for (name, schema) in SCHEMAS {
        files.push((format!("schemas/{name}.schema.json"), (*schema).to_owned()));
    }
    files
}

/// Nothing is written when one of the documents is there already.
fn refuse_existing(folder: &Path, files: &[(String, String)]) -> anyhow::Result<()> {
    let existing =
        files.iter().map(|(name, _)| folder.join(name)).find(|path| path.symlink_metadata().is_ok());
    match existing {
        Some(path) => bail!("{} is there already; nothing was written", path.display()),
        None => Ok(()),
    }
}

fn write_new(path: &Path, content: &str) -> anyhow::Result<()> {
    let parent = path.parent().expect("a file in the folder has a parent");
    fs::create_dir_all(parent).with_context(|| format!("cannot make the folder {}", parent.display()))?;
    let written = OpenOptions::new().write(true).create_new(true).open(path);
    match written.and_then(|mut file| file.write_all(content.as_bytes())) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("{} is there already; it was not changed", path.display())
        }
        Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
    }
}

fn default_branch(directory: &Path) -> Option<String> {
    let of_origin = git(directory, &["symbolic-ref", "--short", "refs/remotes/origin/HEAD"])
        .and_then(|name| name.strip_prefix("origin/").map(str::to_owned));
    let branch = of_origin.or_else(|| git(directory, &["symbolic-ref", "--short", "HEAD"]))?;
    BranchName::parse(branch).ok().map(|branch| branch.to_string())
}

/// One line from the user's own git about the user's own repository; none when git or the answer is missing.
fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    let line = plain_git::git(directory, arguments).ok()?.trim().to_owned();
    (!line.is_empty()).then_some(line)
}

/// Git also takes a bare path; a contract says `file://`.
fn as_repo_url(remote: &str) -> String {
    if remote.starts_with('/') { format!("file://{remote}") } else { remote.to_owned() }
}

fn last_component(url: &str) -> Option<String> {
    let name = url.rsplit(['/', ':']).find(|part| !part.is_empty())?;
    Some(name.strip_suffix(".git").unwrap_or(name).to_owned())
}

fn folder_name(directory: &Path) -> Option<String> {
    directory.canonicalize().ok()?.file_name()?.to_str().map(str::to_owned)
}

/// The nearest text that is a target id.
fn target_id_from(name: &str) -> String {
    let slug: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' }).collect();
    let slug = slug.chars().take(63).collect::<String>();
    let slug = slug.trim_matches(['-', '_']);
    if TargetId::parse(slug).is_ok() { slug.to_owned() } else { "my-repo".to_owned() }
}
