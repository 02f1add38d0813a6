//! The README's way for one's own repository, as a stranger types it: init, edit, check, explain, plan, push, up,
//! register, look. No variable is set but HOME and PATH; the token is the one that `up` makes.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use leviathan_stories::{Entry, Finished, Origin, Program, eventually, program};

const BACKLOG: &str = "tasks:
  - task_id: task-001
    title: Say hello
    scope: text
    priority: high
    estimated_size: small
    allowed_paths: [hello.txt]
    acceptance_criteria: [hello.txt says hello]
    agent: {command: 'echo hello > hello.txt'}
    status: pending
";

const POLICY: &str = "scopes:
  text:
    allowed_paths: ['*.txt']
invariants:
  - name: Hello is said
    check: test -e readme.txt
";

/// A stranger at a terminal.
struct Stranger {
    home: tempfile::TempDir,
    url: Option<String>,
}

impl Stranger {
    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let path = std::env::var("PATH").unwrap();
        let programs = program("leviathan").parent().unwrap().display().to_string();
        let mut command = Command::new(name);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", format!("{programs}:{path}"))
            .env("HOME", self.home.path())
            .envs(self.url.iter().map(|url| ("LEVIATHAN_CONTROL_PLANE_URL", url)))
            .current_dir(self.repository())
            .stdin(Stdio::null());
        command
    }

    fn repository(&self) -> std::path::PathBuf {
        self.home.path().join("my-repo")
    }

    /// Types `line`; what it says, if it ends well.
    #[track_caller]
    fn types(&self, line: &str) -> String {
        Finished::of(&mut self.command("sh", &["-ec", line])).succeeded().stdout
    }

    fn writes(&self, path: &str, content: &str) {
        std::fs::write(self.repository().join(path), content).unwrap();
    }

    /// `leviathan up` in another terminal, on a free port.
    fn starts_leviathan(&mut self) -> Program {
        let mut up = self
            .command("leviathan", &["up", "--listen", "127.0.0.1:0", "--interval", "200ms"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(up.stdout.take().unwrap()).lines();
        let first = lines.next().expect("it says where it is").unwrap();
        self.url = Some(first[first.find("http://").unwrap()..].trim().to_owned());
        std::thread::spawn(move || lines.for_each(drop));
        up.into()
    }
}

#[test]
fn a_stranger_gets_a_pull_request_by_the_commands_of_the_readme() {
    let origin = Origin::empty();
    origin.commit("main", "Mine", &[Entry::file("readme.txt", "mine\n")]);
    let mut stranger = Stranger { home: tempfile::tempdir().unwrap(), url: None };
    std::fs::create_dir(stranger.repository()).unwrap();
    stranger.types(&format!(
        "git clone --quiet {} . && git config user.name me && git config user.email me@localhost",
        origin.url()
    ));

    stranger.types("leviathan init");
    stranger.writes(".leviathan/backlog.yaml", BACKLOG);
    stranger.writes(".leviathan/policy.yaml", POLICY);
    stranger.types("leviathan check");
    assert!(
        stranger.types("leviathan explain --task task-001 hello.txt").starts_with("permitted\thello.txt\t")
    );
    assert!(stranger.types("leviathan plan").contains("task-001"));
    stranger.types("git add .leviathan && git commit --quiet -m 'Opt in to Leviathan' && git push --quiet");

    let mut up = stranger.starts_leviathan();
    only_its_user_reads_the_token(&stranger.home.path().join(".leviathan/token"));
    stranger.types("leviathanctl targets-register .leviathan/contract.yaml");
    eventually("the task is in review", || stranger.types("leviathanctl tasks-list").contains("in_review"));
    assert!(stranger.types("leviathanctl attempts-list").contains("completed"));
    assert_eq!(origin.read("leviathan/task-001-a1", "hello.txt").unwrap(), b"hello\n");

    stranger.types(&format!("kill -TERM {}", up.pid()));
    assert_eq!(up.ended(), Some(0));
}

fn only_its_user_reads_the_token(token: &Path) {
    let mode = std::fs::metadata(token).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "{mode:o}");
}
