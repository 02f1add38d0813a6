//! Git as an attacker would have it: a poisoned environment, a poisoned repository, a remote that lies.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use leviathan_target::{
    Expected, MirrorError, PushOutcome, Remote, Repository, changes_between, export, push, snapshot,
};
use model::{BranchName, CommitId, RepoUrl};
use secrecy::SecretString;
use tempfile::TempDir;
use test_support::repository::Origin;

use crate::ground::{Room, git, main_branch, mirror, provenance, remote, sample};

/// Fetch, export, snapshot, second look and push, as an attempt does them.
#[test]
fn a_whole_round_says_and_does_the_right_thing() {
    let origin = sample();
    let data = tempfile::tempdir().unwrap();
    let mirror = mirror(data.path());
    let base = mirror.fetch(&remote(&origin), &main_branch()).unwrap();
    let own =
        Repository::init_borrowing(&data.path().join("own.git"), &mirror.repository().unwrap()).unwrap();
    round(&origin, &own, &base, data.path());
}

fn round(origin: &Origin, own: &Repository, base: &CommitId, folder: &Path) {
    let tree = folder.join("tree");
    export(own, base, &tree).unwrap();
    assert_eq!(fs::read_to_string(tree.join("src/a.py")).unwrap(), "a = 1\n");
    fs::write(tree.join("src/a.py"), "a = 2\n").unwrap();
    let changes = snapshot(
        own,
        base,
        &tree,
        &Default::default(),
        &provenance(),
        &Default::default(),
        &Default::default(),
    );
    let changes = changes.unwrap().change;
    let paths: Vec<&str> = changes.changes().iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["src/a.py"]);
    assert_eq!(changes.changes()[0].added_lines, 1);
    assert_eq!(changes_between(own, base, changes.candidate(), &Default::default()).unwrap(), changes);
    let branch = BranchName::parse("leviathan/task-001-a1").unwrap();
    let outcome = push(own, &remote(origin), &branch, changes.candidate(), &Expected::Absent).unwrap();
    assert_eq!(outcome, PushOutcome::Pushed);
    assert_eq!(origin.refs().len(), 2);
}

/// A folder with programs that leave a mark when anybody runs them.
struct Trap {
    folder: TempDir,
}

impl Trap {
    fn new() -> Self {
        let trap = Self { folder: tempfile::tempdir().unwrap() };
        let shell = format!("#!/bin/sh\necho \"$0 $*\" >> {}\nexit 0\n", trap.mark().display());
        for name in ["git", "evil", "ssh"] {
            let program = trap.folder.path().join(name);
            fs::write(&program, &shell).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        trap
    }

    fn mark(&self) -> PathBuf {
        self.folder.path().join("mark")
    }

    fn program(&self) -> String {
        self.folder.path().join("evil").display().to_string()
    }

    /// Settings that run the program wherever git can be told to run one.
    fn configuration(&self) -> String {
        let program = self.program();
        format!(
            "[core]\n\tfsmonitor = {program}\n\thooksPath = {hooks}\n\tpager = {program}\n\teditor = {program}\n\
             \tsshCommand = {program}\n\tgitProxy = {program}\n\taskPass = {program}\n\
             \talternateRefsCommand = {program}\n\tattributesFile = {hooks}/attributes\n\
             [diff]\n\texternal = {program}\n\trenames = copies\n\tnoprefix = true\n\
             [diff \"evil\"]\n\tcommand = {program}\n\ttextconv = {program}\n\tbinary = true\n\
             [filter \"evil\"]\n\tclean = {program}\n\tsmudge = {program}\n\tprocess = {program}\n\trequired = true\n\
             [gpg]\n\tprogram = {program}\n[commit]\n\tgpgSign = true\n[push]\n\tfollowTags = true\n\tgpgSign = true\n\
             [credential]\n\thelper = {program}\n[uploadpack]\n\tpackObjectsHook = {program}\n\
             [gc]\n\tauto = 1\n[user]\n\tname = Eve\n\temail = eve@example.com\n",
            hooks = self.folder.path().join("hooks").display(),
        )
    }

    fn plant_hooks(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for hook in [
            "pre-push",
            "post-commit",
            "pre-commit",
            "reference-transaction",
            "post-checkout",
            "post-index-change",
        ] {
            fs::copy(self.folder.path().join("evil"), folder.join(hook)).unwrap();
        }
        fs::write(folder.join("attributes"), "* filter=evil diff=evil binary\n").unwrap();
    }

    #[track_caller]
    fn assert_untouched(&self) {
        let mark = fs::read_to_string(self.mark()).unwrap_or_default();
        assert_eq!(mark, "", "something ran the trap");
    }
}

#[test]
fn nothing_of_the_environment_reaches_git() {
    let trap = Trap::new();
    let folder = trap.folder.path();
    trap.plant_hooks(&folder.join("hooks"));
    trap.plant_hooks(&folder.join("template/hooks"));
    fs::write(folder.join(".gitconfig"), trap.configuration()).unwrap();
    fs::create_dir_all(folder.join("git-xdg/git")).unwrap();
    fs::write(folder.join("git-xdg/git/config"), trap.configuration()).unwrap();
    let (program, here) = (trap.program(), folder.display().to_string());
    let trace = folder.join("trace").display().to_string();
    let parameters = format!("'core.fsmonitor'='{program}'");
    let poison = [
        ("PATH", here.as_str()),
        ("HOME", &here),
        ("XDG_CONFIG_HOME", &format!("{here}/git-xdg")),
        ("GIT_ALLOW_PROTOCOL", "ext:fd"),
        ("GIT_ALTERNATE_OBJECT_DIRECTORIES", &here),
        ("GIT_ASKPASS", &program),
        ("GIT_ATTR_SOURCE", "HEAD"),
        ("GIT_AUTHOR_NAME", "Eve"),
        ("GIT_COMMITTER_DATE", "1 +0000"),
        ("GIT_COMMITTER_NAME", "Eve"),
        ("GIT_COMMON_DIR", "/nonexistent"),
        ("GIT_CONFIG_COUNT", "1"),
        ("GIT_CONFIG_GLOBAL", &format!("{here}/.gitconfig")),
        ("GIT_CONFIG_KEY_0", "core.fsmonitor"),
        ("GIT_CONFIG_PARAMETERS", &parameters),
        ("GIT_CONFIG_SYSTEM", &format!("{here}/.gitconfig")),
        ("GIT_CONFIG_VALUE_0", &program),
        ("GIT_DEFAULT_HASH", "sha256"),
        ("GIT_DIFF_OPTS", "-u0"),
        ("GIT_DIR", "/nonexistent"),
        ("GIT_EXEC_PATH", &here),
        ("GIT_EXTERNAL_DIFF", &program),
        ("GIT_GRAFT_FILE", &trace),
        ("GIT_INDEX_FILE", &trace),
        ("GIT_NAMESPACE", "elsewhere"),
        ("GIT_OBJECT_DIRECTORY", "/nonexistent"),
        ("GIT_PROXY_COMMAND", &program),
        ("GIT_REPLACE_REF_BASE", "refs/heads/"),
        ("GIT_SHALLOW_FILE", &trace),
        ("GIT_SSH", &program),
        ("GIT_SSH_COMMAND", &program),
        ("GIT_TEMPLATE_DIR", &format!("{here}/template")),
        ("GIT_TRACE", &trace),
        ("GIT_TRACE2_EVENT", &trace),
        ("GIT_WORK_TREE", &here),
        ("https_proxy", "http://127.0.0.1:1"),
        ("SSH_ASKPASS", &program),
    ];
    let again = "hardening::a_whole_round_says_and_does_the_right_thing";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", again])
        .envs(poison)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    trap.assert_untouched();
    assert!(!folder.join("trace").exists());
}

#[test]
fn nothing_of_a_repositorys_own_settings_runs_or_changes_an_answer() {
    let trap = Trap::new();
    let origin = sample();
    let data = tempfile::tempdir().unwrap();
    let mirror = mirror(data.path());
    let base = mirror.fetch(&remote(&origin), &main_branch()).unwrap();
    let own =
        Repository::init_borrowing(&data.path().join("own.git"), &mirror.repository().unwrap()).unwrap();
    for dir in [own.dir(), mirror.repository().unwrap().dir()] {
        trap.plant_hooks(&dir.join("hooks"));
        trap.plant_hooks(&trap.folder.path().join("hooks"));
        fs::create_dir_all(dir.join("info")).unwrap();
        fs::write(dir.join("info/attributes"), "* filter=evil diff=evil eol=crlf ident binary\n").unwrap();
        fs::write(dir.join("info/exclude"), "*\n").unwrap();
        let config = fs::read_to_string(dir.join("config")).unwrap();
        fs::write(dir.join("config"), config + &trap.configuration()).unwrap();
    }
    // A replacement for the file and for the commit.
    let replaced = origin.resolve("main:src/a.py").unwrap();
    let other = own.write_blob(b"replaced\n").unwrap();
    fs::create_dir_all(own.dir().join("refs/replace")).unwrap();
    fs::write(own.dir().join("refs/replace").join(replaced), format!("{other}\n")).unwrap();
    round(&origin, &own, &base, data.path());
    trap.assert_untouched();
}

#[test]
fn an_agents_own_repository_runs_nothing() {
    let trap = Trap::new();
    let origin = sample();
    let room = Room::new(&origin);
    let dot_git = room.tree().join(".git");
    trap.plant_hooks(&dot_git.join("hooks"));
    fs::write(dot_git.join("config"), trap.configuration()).unwrap();
    fs::write(dot_git.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    fs::create_dir_all(dot_git.join("objects/info")).unwrap();
    fs::create_dir_all(dot_git.join("refs")).unwrap();
    fs::write(dot_git.join("objects/info/alternates"), "/nonexistent\n").unwrap();
    room.write(".gitattributes", "* filter=evil diff=evil\n");
    room.write("src/a.py", "a = 2\n");
    assert_eq!(room.snapshot().changes().len(), 2);
    trap.assert_untouched();
}

/// An HTTP server that answers every request alike and keeps the request heads.
struct FalseRemote {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl FalseRemote {
    fn answering(answer: impl Fn(&str) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let heads = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heads);
        // The thread ends with the test process: it only ever waits for a connection.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let lines = BufReader::new(&stream).lines().map_while(Result::ok);
                let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
                let head = head.join("\n");
                let body = answer(&head);
                kept.lock().unwrap().push(head);
                let _ = stream.write_all(body.as_bytes());
            }
        });
        Self { address, heads }
    }

    fn remote(&self) -> Remote {
        let url = RepoUrl::parse(&format!("{}/owner/repo.git", self.address)).unwrap();
        Remote::new(&url, Some(SecretString::from("t0ken-t0ken")))
    }

    fn fetch_error(&self) -> leviathan_target::GitError {
        let data = tempfile::tempdir().unwrap();
        match mirror(data.path()).fetch(&self.remote(), &main_branch()) {
            Err(MirrorError::Git(error)) => error,
            other => panic!("{other:?}"),
        }
    }
}

fn answer(status: &str, header: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{header}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[test]
fn the_token_goes_to_the_remote_that_asks_and_is_in_no_message() {
    let remote =
        FalseRemote::answering(|_| answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\""));
    let error = remote.fetch_error();
    assert!(error.is_denied(), "{error}");
    assert!(!error.to_string().contains("t0ken"), "{error}");
    let heads = remote.heads.lock().unwrap().join("\n\n");
    // `x-access-token:t0ken-t0ken`
    assert!(heads.contains("Authorization: Basic eC1hY2Nlc3MtdG9rZW46dDBrZW4tdDBrZW4="), "{heads}");
}

#[test]
fn a_redirect_to_another_host_is_not_followed() {
    let thief = FalseRemote::answering(|_| answer("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\""));
    let location = format!("Location: {}/owner/repo.git/info/refs?service=git-upload-pack", thief.address);
    let remote = FalseRemote::answering(move |_| answer("302 Found", &location));
    let _ = remote.fetch_error();
    assert!(thief.heads.lock().unwrap().is_empty());
}

#[test]
fn a_remote_that_is_down_is_told_from_one_that_says_no() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let down = FalseRemote { address, heads: Arc::default() };
    for remote in [down, FalseRemote::answering(|_| answer("503 Service Unavailable", "Retry-After: 1"))] {
        let error = remote.fetch_error();
        assert!(error.is_unreachable() && !error.is_denied(), "{error}");
    }
}

#[test]
fn the_roles_start_git_in_one_place_only() {
    /// At a user's terminal, `init` asks the user's own git, and the demo plays a human with theirs.
    const FOR_THE_USER: [&str; 1] = ["leviathan/src/plain_git.rs"];
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut waiting = vec![crates.to_owned()];
    let mut offenders = Vec::new();
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("tests") && !path.ends_with("target/target") {
                waiting.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text: String = fs::read_to_string(&path).unwrap().split_whitespace().collect();
                if text.contains("Command::new(\"git\"")
                    && !FOR_THE_USER.iter().any(|file| path.ends_with(file))
                {
                    offenders.push(path);
                }
            }
        }
    }
    assert_eq!(offenders, Vec::<PathBuf>::new(), "only `target::Git` starts git");
    // The door itself: `Git::find` answers with an absolute path.
    assert!(format!("{:?}", git()).contains("/git\""));
}
