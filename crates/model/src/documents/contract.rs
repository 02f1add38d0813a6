//! Reading contract.yaml.

use jiff::Timestamp;

use super::decode::{Fields, line, parsed, text};
use super::findings::Findings;
use super::yaml::{self, Node};
use super::{Contract, RepoUrl};
use crate::{BranchName, TargetId};

pub(super) fn read(content: &[u8], findings: &mut Findings) -> Option<Contract> {
    let root = yaml::read(content, findings)?;
    let mut fields = Fields::of("the contract", &root, findings)?;
    let target_id = fields.required("target_id", findings, target_id);
    let name = fields.required("name", findings, line);
    let repo_url = fields.required("repo_url", findings, repo_url);
    let default_branch = fields.required("default_branch", findings, branch);
    let description = fields.optional("description", findings, text);
    let owner = fields.optional("owner", findings, line);
    let created_at = fields.optional("created_at", findings, timestamp);
    fields.finish(findings);
    Some(Contract {
        target_id: target_id?,
        name: name?,
        repo_url: repo_url?,
        default_branch: default_branch?,
        description: description?,
        owner: owner?,
        created_at: created_at?,
    })
}

fn target_id(name: &str, node: &Node, findings: &mut Findings) -> Option<TargetId> {
    parsed(name, node, findings, |text| TargetId::parse(text))
}

fn repo_url(name: &str, node: &Node, findings: &mut Findings) -> Option<RepoUrl> {
    parsed(name, node, findings, RepoUrl::parse)
}

fn branch(name: &str, node: &Node, findings: &mut Findings) -> Option<BranchName> {
    parsed(name, node, findings, |text| BranchName::parse(text))
}

fn timestamp(name: &str, node: &Node, findings: &mut Findings) -> Option<Timestamp> {
    parsed(name, node, findings, |text| {
        let form = "expected a time with its zone such as `2024-01-01T00:00:00Z`";
        text.parse().map_err(|_| format!("`{}` is no time; {form}", yaml::shown(text)))
    })
}
