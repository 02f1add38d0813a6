//! The shapes of GitHub's answers, complete as its own description has them.

use serde_json::{Value, json};

use super::{Fate, Pull, Repository, commits_between};

/// Everything happened at this moment.
const MOMENT: &str = "2026-01-02T03:04:05Z";

/// A pull request by itself: its row, and what only the whole has.
pub(super) fn pull_json(repository: &Repository, pull: &Pull) -> Value {
    let merged_by = match &pull.fate {
        Fate::Merged { by, .. } => user(by),
        Fate::Open | Fate::Closed { .. } => Value::Null,
    };
    let is_merged = matches!(pull.fate, Fate::Merged { .. });
    let mut whole = row_json(repository, pull);
    let more = json!({
        "merged": is_merged,
        "mergeable": if is_merged { Value::Null } else { json!(true) },
        "rebaseable": null,
        "mergeable_state": "unknown",
        "merged_by": merged_by,
        "comments": 0,
        "review_comments": 0,
        "maintainer_can_modify": false,
        "commits": commits_between(&repository.origin, &pull.base_sha, &pull.head_sha).len(),
        "additions": 1,
        "deletions": 0,
        "changed_files": 1,
    });
    if let (Value::Object(whole), Value::Object(more)) = (&mut whole, more) {
        whole.extend(more);
    }
    whole
}

/// A pull request as a list shows it: without who merged it.
pub(super) fn row_json(repository: &Repository, pull: &Pull) -> Value {
    let url = pull_url(repository, pull.number);
    let issue = format!("{}/issues/{}", repository_url(repository), pull.number);
    let html = html_url(repository, pull.number);
    let merge_commit = match &pull.fate {
        Fate::Merged { commit, .. } => json!(commit),
        Fate::Open | Fate::Closed { .. } => Value::Null,
    };
    let is_merged = matches!(pull.fate, Fate::Merged { .. });
    let when = |happened: bool| if happened { json!(MOMENT) } else { Value::Null };
    let links = |path: &str| json!({ "href": format!("{url}{path}") });
    json!({
        "url": url,
        "id": pull.number,
        "node_id": format!("PR_{}", pull.number),
        "html_url": html,
        "diff_url": format!("{html}.diff"),
        "patch_url": format!("{html}.patch"),
        "issue_url": issue,
        "commits_url": format!("{url}/commits"),
        "review_comments_url": format!("{url}/comments"),
        "review_comment_url": format!("{}/pulls/comments{{/number}}", repository_url(repository)),
        "comments_url": format!("{issue}/comments"),
        "statuses_url": format!("{}/statuses/{}", repository_url(repository), pull.head_sha),
        "number": pull.number,
        "state": if pull.fate == Fate::Open { "open" } else { "closed" },
        "locked": false,
        "title": pull.title,
        "user": user(&pull.author),
        "body": pull.body,
        "labels": pull.labels.iter().map(|name| label(repository, name)).collect::<Vec<Value>>(),
        "milestone": null,
        "active_lock_reason": null,
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "closed_at": when(pull.fate != Fate::Open),
        "merged_at": when(is_merged),
        "merge_commit_sha": merge_commit,
        "assignee": null,
        "assignees": [],
        "requested_reviewers": [],
        "requested_teams": [],
        "head": end(repository, &pull.head, &pull.head_sha),
        "base": end(repository, &pull.base, &pull.base_sha),
        "_links": {
            "self": links(""),
            "html": { "href": html },
            "issue": { "href": issue },
            "comments": { "href": format!("{issue}/comments") },
            "review_comments": links("/comments"),
            "review_comment": links("/comments{/number}"),
            "commits": links("/commits"),
            "statuses": links("/statuses"),
        },
        "author_association": "COLLABORATOR",
        "auto_merge": null,
        "draft": false,
    })
}

pub(super) fn reviews_json(repository: &Repository, pull: &Pull) -> Value {
    let html = html_url(repository, pull.number);
    let url = pull_url(repository, pull.number);
    let reviews = pull.reviews.iter().enumerate().map(|(at, review)| {
        json!({
            "id": at + 1,
            "node_id": format!("PRR_{at}"),
            "user": user(&review.by),
            "body": "",
            "state": review.state,
            "html_url": format!("{html}#pullrequestreview-{at}"),
            "pull_request_url": url,
            "_links": { "html": { "href": html }, "pull_request": { "href": url } },
            "submitted_at": MOMENT,
            "commit_id": review.commit,
            "author_association": "MEMBER",
        })
    });
    reviews.collect()
}

pub(super) fn commits_json(repository: &Repository, pull: &Pull) -> Value {
    let commits = commits_between(&repository.origin, &pull.base_sha, &pull.head_sha);
    commits.iter().take(250).map(|sha| commit_json(repository, sha)).collect()
}

pub(super) fn commit_json(repository: &Repository, sha: &str) -> Value {
    let format = "--format=%an%x00%ae%x00%aI%x00%cn%x00%ce%x00%cI%x00%T%x00%P%x00%B";
    let shown = repository.origin.read_git(&["show", "-s", format, sha]);
    let fields: Vec<&str> = shown.trim_end().split('\0').collect();
    let [
        author,
        author_email,
        author_date,
        committer,
        committer_email,
        committer_date,
        tree,
        parents,
        message,
    ] = fields[..]
    else {
        panic!("git shows nine fields of a commit")
    };
    let url = format!("{}/commits/{sha}", repository_url(repository));
    let parents: Vec<Value> =
        parents.split(' ').map(|sha| json!({ "sha": sha, "url": url, "html_url": url })).collect();
    json!({
        "url": url,
        "sha": sha,
        "node_id": format!("C_{sha}"),
        "html_url": url,
        "comments_url": format!("{url}/comments"),
        "commit": {
            "url": url,
            "author": { "name": author, "email": author_email, "date": author_date },
            "committer": { "name": committer, "email": committer_email, "date": committer_date },
            "message": message,
            "comment_count": 0,
            "tree": { "sha": tree, "url": url },
            "verification": { "verified": false, "reason": "unsigned", "payload": null, "signature": null, "verified_at": null },
        },
        // No account belongs to these addresses.
        "author": null,
        "committer": null,
        "parents": parents,
    })
}

pub(super) fn issue_json(repository: &Repository, pull: &Pull) -> Value {
    let url = format!("{}/issues/{}", repository_url(repository), pull.number);
    let closed_by = match &pull.fate {
        Fate::Open => Value::Null,
        Fate::Closed { by } | Fate::Merged { by, .. } => user(by),
    };
    json!({
        "id": pull.number,
        "node_id": format!("I_{}", pull.number),
        "url": url,
        "repository_url": repository_url(repository),
        "labels_url": format!("{url}/labels{{/name}}"),
        "comments_url": format!("{url}/comments"),
        "events_url": format!("{url}/events"),
        "html_url": html_url(repository, pull.number),
        "number": pull.number,
        "state": if pull.fate == Fate::Open { "open" } else { "closed" },
        "title": pull.title,
        "body": pull.body,
        "user": user(&pull.author),
        "labels": [],
        "assignee": null,
        "assignees": [],
        "milestone": null,
        "locked": false,
        "comments": 0,
        "closed_at": if pull.fate == Fate::Open { Value::Null } else { json!(MOMENT) },
        "created_at": MOMENT,
        "updated_at": MOMENT,
        "author_association": "COLLABORATOR",
        "closed_by": closed_by,
    })
}

pub(super) fn end(repository: &Repository, branch: &str, sha: &str) -> Value {
    json!({
        "label": format!("{}:{branch}", repository.owner),
        "ref": branch,
        "sha": sha,
        "user": user(&repository.owner),
        "repo": repository_json(repository),
    })
}

pub(super) fn repository_json(repository: &Repository) -> Value {
    let Repository { owner, name, root, .. } = repository;
    let (api, html) = (repository_url(repository), format!("{root}/{owner}/{name}"));
    let mut fields = json!({
        "id": 1,
        "node_id": "R_1",
        "name": name,
        "full_name": format!("{owner}/{name}"),
        "private": true,
        "owner": user(owner),
        "html_url": html,
        "description": null,
        "fork": false,
        "url": api,
        "clone_url": format!("{html}.git"),
        "git_url": format!("{html}.git"),
        "ssh_url": format!("git@github.com:{owner}/{name}.git"),
        "svn_url": html,
        "mirror_url": null,
        "homepage": null,
        "language": null,
        "license": null,
        "archived": false,
        "disabled": false,
        "visibility": "private",
        "default_branch": "main",
        "pushed_at": MOMENT,
        "created_at": MOMENT,
        "updated_at": MOMENT,
    });
    for count in [
        "forks",
        "forks_count",
        "open_issues",
        "open_issues_count",
        "size",
        "stargazers_count",
        "watchers",
        "watchers_count",
    ] {
        fields[count] = json!(0);
    }
    for feature in ["has_downloads", "has_issues", "has_pages", "has_projects", "has_wiki"] {
        fields[feature] = json!(false);
    }
    for (field, below) in REPOSITORY_URLS {
        fields[*field] = json!(format!("{api}/{below}"));
    }
    fields
}

/// The addresses that a repository names, relative to its own.
const REPOSITORY_URLS: &[(&str, &str)] = &[
    ("archive_url", "{archive_format}{/ref}"),
    ("assignees_url", "assignees{/user}"),
    ("blobs_url", "git/blobs{/sha}"),
    ("branches_url", "branches{/branch}"),
    ("collaborators_url", "collaborators{/collaborator}"),
    ("comments_url", "comments{/number}"),
    ("commits_url", "commits{/sha}"),
    ("compare_url", "compare/{base}...{head}"),
    ("contents_url", "contents/{+path}"),
    ("contributors_url", "contributors"),
    ("deployments_url", "deployments"),
    ("downloads_url", "downloads"),
    ("events_url", "events"),
    ("forks_url", "forks"),
    ("git_commits_url", "git/commits{/sha}"),
    ("git_refs_url", "git/refs{/sha}"),
    ("git_tags_url", "git/tags{/sha}"),
    ("hooks_url", "hooks"),
    ("issue_comment_url", "issues/comments{/number}"),
    ("issue_events_url", "issues/events{/number}"),
    ("issues_url", "issues{/number}"),
    ("keys_url", "keys{/key_id}"),
    ("labels_url", "labels{/name}"),
    ("languages_url", "languages"),
    ("merges_url", "merges"),
    ("milestones_url", "milestones{/number}"),
    ("notifications_url", "notifications{?since,all,participating}"),
    ("pulls_url", "pulls{/number}"),
    ("releases_url", "releases{/id}"),
    ("stargazers_url", "stargazers"),
    ("statuses_url", "statuses/{sha}"),
    ("subscribers_url", "subscribers"),
    ("subscription_url", "subscription"),
    ("tags_url", "tags"),
    ("teams_url", "teams"),
    ("trees_url", "git/trees{/sha}"),
];

/// The account of the token, as it sees itself.
pub(super) fn own_account(login: &str) -> Value {
    let mut account = user(login);
    for unknown in ["name", "company", "blog", "location", "email", "hireable", "bio"] {
        account[unknown] = Value::Null;
    }
    for count in ["public_repos", "public_gists", "followers", "following"] {
        account[count] = json!(0);
    }
    for moment in ["created_at", "updated_at"] {
        account[moment] = json!(MOMENT);
    }
    account
}

pub(super) fn user(login: &str) -> Value {
    let url = format!("https://api.github.com/users/{login}");
    let below = |path: &str| format!("{url}/{path}");
    json!({
        "login": login,
        "id": 1,
        "node_id": format!("U_{login}"),
        "avatar_url": "",
        "gravatar_id": "",
        "url": url,
        "html_url": format!("https://github.com/{login}"),
        "followers_url": below("followers"),
        "following_url": below("following{/other_user}"),
        "gists_url": below("gists{/gist_id}"),
        "starred_url": below("starred{/owner}{/repo}"),
        "subscriptions_url": below("subscriptions"),
        "organizations_url": below("orgs"),
        "repos_url": below("repos"),
        "events_url": below("events{/privacy}"),
        "received_events_url": below("received_events"),
        "type": "User",
        "site_admin": false,
    })
}

pub(super) fn ref_json(repository: &Repository, branch: &str, sha: &str) -> Value {
    let api = repository_url(repository);
    json!({
        "ref": format!("refs/heads/{branch}"),
        "node_id": format!("REF_{branch}"),
        "url": format!("{api}/git/refs/heads/{branch}"),
        "object": { "type": "commit", "sha": sha, "url": format!("{api}/git/commits/{sha}") },
    })
}

pub(super) fn label(repository: &Repository, name: &str) -> Value {
    let url = format!("{}/labels/{name}", repository_url(repository));
    json!({ "id": 1, "node_id": "L_1", "url": url, "name": name, "description": "", "color": "ededed", "default": false })
}

pub(super) fn repository_url(repository: &Repository) -> String {
    format!("{}/api/v3/repos/{}/{}", repository.root, repository.owner, repository.name)
}

pub(super) fn pull_url(repository: &Repository, number: u64) -> String {
    format!("{}/pulls/{number}", repository_url(repository))
}

pub(super) fn html_url(repository: &Repository, number: u64) -> String {
    format!("{}/{}/{}/pull/{number}", repository.root, repository.owner, repository.name)
}
