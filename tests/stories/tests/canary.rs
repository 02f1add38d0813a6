//! A hostile agent that has come by the secrets of the executor itself: it prints them, in every spelling, wherever it
//! can, and writes them into files. None of them is anywhere that people or other programs read.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use leviathan_stories::{Installation, Origin, files_below};
use test_support::github::GitHub;

/// Without the shape of any provider's tokens: only who holds it can know it.
const FORGE_TOKEN: &str = "canary-of-the-forge-5f0c1d7e";
const CLAUDE_KEY: &str = "canary-of-the-model-93ab20c4";

const FILES: &[(&str, &str)] = &[("src/app.py", "print(1)\n")];

/// How a secret may be written.
fn spellings(secret: &str) -> Vec<String> {
    let url = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let json = secret.bytes().map(|byte| format!("\\u{byte:04x}")).collect();
    vec![secret.to_owned(), STANDARD.encode(secret), hex::encode(secret), url, json]
}

fn all_spellings() -> Vec<String> {
    [FORGE_TOKEN, CLAUDE_KEY].into_iter().flat_map(spellings).collect()
}

#[test]
fn what_a_hostile_agent_tells_of_stolen_secrets_is_nowhere() {
    let stolen = tempfile::tempdir().unwrap();
    let list = stolen.path().join("list");
    std::fs::write(&list, all_spellings().join("\n") + "\n").unwrap();
    let list = list.to_str().unwrap();

    let tell = format!("cat {list}; cat {list} >&2; env; ");
    let tasks: Vec<(&str, String)> = vec![
        ("tells", format!("{tell} echo 'print(2)' > src/app.py")),
        ("writes-plain", format!("head -1 {list} >> src/app.py")),
        ("writes-base64", format!("sed -n 2p {list} >> src/app.py")),
        ("writes-hex", format!("sed -n 3p {list} >> src/new.py")),
        ("writes-name", format!("touch src/$(sed -n 3p {list})")),
        ("gives-up", format!("{tell} exit 1")),
    ];
    let backlog = tasks.iter().fold("tasks:\n".to_owned(), |text, (task, command)| {
        text + &format!(
            "  - {{task_id: {task}, title: T, scope: s, allowed_paths: ['src/**'], max_attempts: 1, agent: {{command: {}}}}}\n",
            serde_json::to_string(command).unwrap()
        )
    });
    let policy = format!(
        "scopes: {{s: {{allowed_paths: ['src/**']}}}}
limits: {{max_concurrent: 10, max_open_prs: 10}}
setup: ['cat {list}']
invariants: [{{name: tells, check: 'cat {list}; cat {list} >&2'}}]
"
    );

    let origin = Arc::new(Origin::empty());
    let github = GitHub::start(Arc::clone(&origin), "acme", "shop", FORGE_TOKEN);
    let mut story = Installation::at(origin, &github.repo_url(), FILES, &backlog, &policy);
    story.set("GITHUB_TOKEN", FORGE_TOKEN);
    story.set("GITHUB_API_URL", &github.api_url());
    story.set("ANTHROPIC_API_KEY", CLAUDE_KEY);
    story.set("LEVIATHAN_SANDBOX_READ", stolen.path().to_str().unwrap());
    let passes: Vec<_> = (0..2).map(|_| story.pass()).collect();

    // It told them, and worked: one task came to a pull request, four were refused for what their files hold.
    assert_eq!(github.numbers(), [1], "{}", story.ctl(&["failures-recent"]).stdout);
    let failures = story.json(&["failures-recent"]);
    let reasons: Vec<&str> = failures["failures"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["failure"]["reason"].as_str().unwrap())
        .collect();
    let count = |wanted: &str| reasons.iter().filter(|reason| **reason == wanted).count();
    assert_eq!((count("secret_found"), count("stuck")), (4, 1), "{failures}");
    let tells = story.event_types("tells");
    assert!(tells.iter().any(|kind| kind == "invariant.passed"), "{tells:?}");

    let (title, body) = github.text(1);
    let mut places = vec![
        ("the pull request".to_owned(), format!("{title}\n{body}").into_bytes()),
        ("the log".to_owned(), format!("{:?}", story.events()).into_bytes()),
        ("the failures".to_owned(), story.ctl(&["failures-recent"]).stdout.into_bytes()),
        ("the forge's objects".to_owned(), objects(&story.origin)),
    ];
    for pass in &passes {
        places.push(("what a pass said".to_owned(), format!("{}{}", pass.stdout, pass.stderr).into_bytes()));
    }
    places.extend(kept(&story.data()));
    let redacted =
        places.iter().any(|(place, content)| place.contains("artifact") && holds(content, "[redacted]"));
    assert!(redacted, "the logs in which they were told are kept");
    for (place, content) in &places {
        for spelling in all_spellings() {
            assert!(!holds(content, &spelling), "`{spelling}` is in {place}");
        }
    }
}

/// Every object of the forge's repository, whatever refers to it.
fn objects(origin: &Origin) -> Vec<u8> {
    let list =
        origin.read_git(&["cat-file", "--batch-all-objects", "--batch-check=%(objectname) %(objecttype)"]);
    let mut all = Vec::new();
    for line in list.lines() {
        let (name, kind) = line.split_once(' ').unwrap();
        if kind != "tree" {
            all.extend(origin.read_git(&["cat-file", kind, name]).into_bytes());
        } else {
            all.extend(origin.read_git(&["ls-tree", name]).into_bytes());
        }
    }
    all
}

/// Every file that is left in the data folder, but what an executor has on its own disk before it sends it on: there it is
/// as the agent said it.
fn kept(data: &Path) -> impl Iterator<Item = (String, Vec<u8>)> {
    let all = files_below(data).into_iter().map(|(path, content)| (path.display().to_string(), content));
    all.filter(|(path, _)| !path.contains("/spool/"))
}

fn holds(content: &[u8], text: &str) -> bool {
    content.windows(text.len()).any(|window| window == text.as_bytes())
}
