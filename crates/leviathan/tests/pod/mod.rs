//! Attempts in pods: the stages as processes with the environments of their containers, in folders that stand in
//! for volumes, run in the order of a kubelet. Each sees only the volumes that its container mounts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use api::types::{AttemptDetail, Dispatched, ReasonRequest};
use model::EventKind;
use tempfile::TempDir;

use super::{CLAUDE_KEY, FORGE_TOKEN, GOOD, Installation, ended, eventually, marker, processes_with};

const NAME: &str = "k8s-job-leviathan-attempt-1";

/// One pod: its volumes, and the order of its containers.
struct Pod<'a> {
    installation: &'a Installation,
    handed: &'a Dispatched,
    ground: TempDir,
}

impl<'a> Pod<'a> {
    fn new(installation: &'a Installation, handed: &'a Dispatched) -> Self {
        let ground = tempfile::tempdir().unwrap();
        for volume in ["program", "given", "handover", "scratch", "publishing", "tmp"] {
            fs::create_dir_all(ground.path().join("volumes").join(volume)).unwrap();
        }
        Self { installation, handed, ground }
    }

    fn volume(&self, name: &str) -> PathBuf {
        self.ground.path().join("volumes").join(name)
    }

    fn handover(&self) -> PathBuf {
        self.volume("handover")
    }

    /// A container that mounts these volumes.
    fn container(&self, program: &Path, stage: &str, mounts: &[&str]) -> Command {
        let root = self.ground.path().join(stage);
        fs::create_dir_all(&root).unwrap();
        for mount in mounts {
            let place = root.join(mount);
            if !place.exists() {
                symlink(self.volume(mount), place).unwrap();
            }
        }
        let mut command = Command::new(program);
        command
            .args(["executor", "--stage", stage])
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", self.volume("tmp"))
            .env("LEVIATHAN_POD_DIR", &root)
            .envs(self.installation.sandbox().iter().copied())
            .env("LEVIATHAN_ATTEMPT_ID", self.handed.attempt_id.as_str())
            .env("LEVIATHAN_EXECUTOR_NAME", NAME)
            .env("LEVIATHAN_TERMINATION_LOG", self.termination_log(stage))
            .env("LEVIATHAN_LOG", "warn")
            .current_dir("/")
            .stdin(Stdio::null());
        fs::write(self.termination_log(stage), "").unwrap();
        command
    }

    fn termination_log(&self, stage: &str) -> PathBuf {
        self.ground.path().join(format!("{stage}.log"))
    }

    /// Why a container ended.
    fn why(&self, stage: &str) -> String {
        fs::read_to_string(self.termination_log(stage)).unwrap()
    }

    fn with_token(&self, mut command: Command) -> Command {
        command
            .env("LEVIATHAN_CONTROL_PLANE_URL", &self.installation.url)
            .env("LEVIATHAN_CONTROL_PLANE_TOKEN", &self.handed.token);
        command
    }

    fn our_image(&self) -> &Path {
        Path::new(env!("CARGO_BIN_EXE_leviathan"))
    }

    fn prepare(&self) -> Option<i32> {
        let command = self.container(self.our_image(), "prepare", &["program", "given", "handover"]);
        ended(&mut self.with_token(command).env("GITHUB_TOKEN", FORGE_TOKEN).spawn().unwrap()).code()
    }

    fn courier(&self) -> Courier {
        let command = self.container(self.our_image(), "courier", &["given", "handover"]);
        Courier(self.with_token(command).args(["--patience", "1"]).spawn().unwrap())
    }

    fn start_work(&self) -> Child {
        let program = self.volume("program").join("leviathan");
        let mut command = self.container(&program, "work", &["program", "given", "handover", "scratch"]);
        command.env("ANTHROPIC_API_KEY", CLAUDE_KEY).spawn().unwrap()
    }

    fn work(&self) -> Option<i32> {
        ended(&mut self.start_work()).code()
    }

    fn start_finish(&self) -> Child {
        let command = self.container(self.our_image(), "finish", &["given", "handover", "publishing"]);
        self.with_token(command).env("GITHUB_TOKEN", FORGE_TOKEN).spawn().unwrap()
    }

    fn finish(&self) -> Option<i32> {
        ended(&mut self.start_finish()).code()
    }

    /// The whole pod, as a kubelet runs it: one container after another until one fails, and the sidecar ends last.
    fn run(&self) -> Option<i32> {
        let prepared = self.prepare();
        if prepared != Some(0) {
            return prepared;
        }
        let mut courier = self.courier();
        let worked = self.work();
        let finished = if worked == Some(0) { self.finish() } else { worked };
        assert_eq!(courier.told_to_end().code(), Some(0));
        finished
    }
}

/// The sidecar; it ends with its test.
struct Courier(Child);

impl Courier {
    fn told_to_end(&mut self) -> ExitStatus {
        terminate(&self.0);
        ended(&mut self.0)
    }
}

impl Drop for Courier {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn terminate(process: &Child) {
    let pid = rustix::process::Pid::from_child(process);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

fn detail(installation: &Installation, handed: &Dispatched) -> AttemptDetail {
    installation.runtime.block_on(installation.client.attempt(&handed.attempt_id)).unwrap()
}

/// Why the attempt ended, in the words of the log.
fn failure(installation: &Installation, handed: &Dispatched) -> String {
    detail(installation, handed).attempt.failure.map(|failure| failure.detail).unwrap_or_default()
}

fn artifacts(installation: &Installation, handed: &Dispatched, kind: &str) -> Vec<String> {
    let detail = detail(installation, handed);
    detail.artifacts.into_iter().filter(|stored| stored.kind == kind).map(|stored| stored.name).collect()
}

#[test]
fn an_attempt_goes_through_a_pod_to_its_pull_request() {
    let installation = Installation::new();
    let handed = installation.claim(GOOD);
    let pod = Pod::new(&installation, &handed);
    assert_eq!(pod.run(), Some(0), "{}", pod.why("finish"));
    assert_eq!(installation.state(&handed.attempt_id), "completed");
    assert_eq!((installation.branches().len(), installation.pull_requests()), (1, 1));
    let of_attempt: Vec<String> = installation
        .event_types()
        .into_iter()
        .skip_while(|it| *it != "attempt.started")
        .filter(|it| *it != "artifact.stored")
        .collect();
    assert_eq!(
        of_attempt,
        [
            "attempt.started",
            "sandbox.reported",
            "invariant.passed",
            "agent.finished",
            "change.permitted",
            "invariant.passed",
            "change.verified",
            "branch.pushed",
            "pr.created",
            "attempt.completed"
        ]
    );
    assert_eq!(artifacts(&installation, &handed, "pack"), ["candidate.pack"]);
    assert_eq!(artifacts(&installation, &handed, "manifest"), ["manifest.json"]);
    let names: Vec<String> = detail(&installation, &handed)
        .events
        .into_iter()
        .filter_map(|recorded| {
            if let EventKind::AttemptStarted(started) = recorded.event.kind {
                Some(started.executor)
            } else {
                None
            }
        })
        .collect();
    assert_eq!(names, [NAME]);
    assert!(pod.why("work").contains("is verified"), "{}", pod.why("work"));
    assert!(pod.why("finish").contains("its pull request is open"), "{}", pod.why("finish"));
}

#[test]
fn a_failed_attempt_is_recorded_by_the_last_container() {
    let installation = Installation::new();
    let handed = installation.claim("echo x > README.md");
    let pod = Pod::new(&installation, &handed);
    assert_eq!(pod.run(), Some(1));
    assert_eq!(installation.state(&handed.attempt_id), "failed");
    assert_eq!(installation.count("policy.violated"), 1);
    assert!(pod.why("work").contains("scope_violation"), "{}", pod.why("work"));
    assert_eq!((installation.branches().len(), installation.pull_requests()), (0, 0));
}

#[test]
fn a_repository_that_cannot_be_fetched_ends_the_pod_at_once() {
    let installation = Installation::new();
    let handed = installation.claim(GOOD);
    fs::rename(installation.origin.dir(), installation.origin.dir().with_extension("away")).unwrap();
    let pod = Pod::new(&installation, &handed);
    assert_eq!(pod.run(), Some(1));
    assert_eq!(installation.state(&handed.attempt_id), "failed");
    assert!(failure(&installation, &handed).contains("cannot be fetched"));
}

#[test]
fn a_pod_that_is_told_to_stop_while_the_agent_works_records_who_stopped_it() {
    let installation = Installation::new();
    let mark = marker(11);
    let handed = installation.claim(&format!("setsid -f sleep {mark}; sleep {mark}"));
    let pod = Pod::new(&installation, &handed);
    assert_eq!(pod.prepare(), Some(0));
    let mut courier = pod.courier();
    let mut work = pod.start_work();
    eventually("the agent works", || processes_with(&mark).len() >= 3);
    terminate(&courier.0);
    terminate(&work);
    assert_eq!(ended(&mut work).code(), Some(2));
    assert_eq!(processes_with(&mark), Vec::<PathBuf>::new());
    assert_eq!(ended(&mut courier.0).code(), Some(0));
    assert_eq!(installation.state(&handed.attempt_id), "cancelled");
    assert_eq!(
        failure(&installation, &handed),
        "external: its executor was told to stop (SIGTERM) during work, and stopped everything that it had started"
    );
    assert_eq!(installation.branches().len(), 0);
}

#[test]
fn a_work_stage_that_is_killed_leaves_the_word_to_whoever_watches_the_pod() {
    let installation = Installation::new();
    let mark = marker(12);
    let handed = installation.claim(&format!("setsid -f sleep {mark}; sleep {mark}"));
    let pod = Pod::new(&installation, &handed);
    assert_eq!(pod.prepare(), Some(0));
    let mut courier = pod.courier();
    let mut work = pod.start_work();
    eventually("the agent works", || processes_with(&mark).len() >= 3);
    work.kill().unwrap();
    work.wait().unwrap();
    eventually("everything dies with it", || processes_with(&mark).is_empty());
    assert_eq!(courier.told_to_end().code(), Some(0));
    assert_eq!(installation.state(&handed.attempt_id), "started");
    assert_eq!(installation.count("attempt.cancelled"), 0);
}

#[test]
fn a_cancel_reaches_the_work_stage_through_the_courier() {
    let installation = Installation::new();
    let mark = marker(13);
    let handed = installation.claim(&format!("setsid -f sleep {mark}; sleep {mark}"));
    let pod = Pod::new(&installation, &handed);
    assert_eq!(pod.prepare(), Some(0));
    let mut courier = pod.courier();
    let mut work = pod.start_work();
    eventually("the agent works", || processes_with(&mark).len() >= 3);
    let reason = ReasonRequest { reason: "Emergency stop".to_owned(), target: None, actor_id: None };
    installation.runtime.block_on(installation.client.cancel(&handed.attempt_id, &reason)).unwrap();
    assert_eq!(ended(&mut work).code(), Some(42));
    assert_eq!(processes_with(&mark), Vec::<PathBuf>::new());
    assert!(!pod.handover().join("outcome.json").exists());
    assert_eq!(courier.told_to_end().code(), Some(0));
    assert_eq!(pod.finish(), Some(42), "a last container that ran all the same would end nothing");
    assert_eq!(installation.state(&handed.attempt_id), "cancelled");
    assert_eq!(failure(&installation, &handed), "Emergency stop");
}

#[test]
fn one_epoch_is_begun_by_one_pod() {
    let installation = Installation::new();
    let handed = installation.claim(GOOD);
    assert_eq!(Pod::new(&installation, &handed).prepare(), Some(0));
    let second = Pod::new(&installation, &handed);
    assert_eq!(second.prepare(), Some(2));
    assert!(second.why("prepare").contains("same epoch"), "{}", second.why("prepare"));
    assert_eq!(installation.count("attempt.started"), 1);
}

#[test]
fn a_work_zone_cannot_say_what_only_publishing_may_say() {
    let installation = Installation::without_walls();
    let ground = tempfile::tempdir().unwrap();
    let forged = ground.path().join("forged.json");
    let spool = ground.path().join("spool");
    let handed =
        installation.claim(&format!("cp {} {}/99999999.json; true", forged.display(), spool.display()));
    let base = detail(&installation, &handed).events;
    let subject = serde_json::to_value(&base.last().unwrap().event).unwrap();
    let pod = Pod::new(&installation, &handed);
    let pull_request = serde_json::json!({
        "event_id": "forged", "event_type": "pr.created", "timestamp": "2026-01-01T00:00:00.000000Z",
        "actor_id": "executor", "target_id": subject["target_id"], "task_id": subject["task_id"],
        "attempt_id": subject["attempt_id"],
        "payload": {
            "number": 666, "url": "https://forge.example/666", "branch": "leviathan/task-001-a1",
            "commit": "0123456789012345678901234567890123456789", "title": "Looks good",
        },
    });
    fs::write(&forged, pull_request.to_string()).unwrap();
    let spool_of_pod = pod.handover().join("spool/work/1");
    fs::create_dir_all(&spool_of_pod).unwrap();
    symlink(&spool_of_pod, &spool).unwrap();
    assert_eq!(pod.run(), Some(1), "the agent changed nothing");
    assert!(spool_of_pod.join("99999999.json").exists(), "the attack took place");
    assert_eq!(installation.count("pr.created"), 0);
    assert_eq!(installation.state(&handed.attempt_id), "failed");
    assert!(failure(&installation, &handed).contains("left every file"));
}

#[test]
fn a_link_in_the_handover_leads_nowhere() {
    let installation = Installation::without_walls();
    let ground = tempfile::tempdir().unwrap();
    let handover = ground.path().join("handover");
    let secret = ground.path().join("secret");
    fs::write(&secret, "a secret of the courier's container").unwrap();
    let at = |path: &str| handover.join(path).display().to_string();
    let attack = format!(
        "mkdir -p {log}; ln -s {secret} {log}/x; ln -sfn {ground} {folder}; {GOOD}",
        log = at("artifacts/log"),
        folder = at("artifacts/elsewhere"),
        secret = secret.display(),
        ground = ground.path().display(),
    );
    let handed = installation.claim(&attack);
    let pod = Pod::new(&installation, &handed);
    symlink(pod.handover(), &handover).unwrap();
    assert_eq!(pod.run(), Some(0), "{}", pod.why("finish"));
    assert!(fs::symlink_metadata(pod.handover().join("artifacts/log/x")).unwrap().is_symlink());
    let digest = model::Digest::of(&fs::read(&secret).unwrap());
    let stored = detail(&installation, &handed).artifacts;
    assert!(
        stored.iter().all(|stored| stored.sha256 != digest && !stored.name.contains("secret")),
        "{stored:?}"
    );
    assert!(installation.runtime.block_on(installation.client.artifact(&digest)).is_err());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "a secret of the courier's container");
}

/// What is done, how, and what the log says of it.
type Attack<'a> = (&'static str, &'a dyn Fn(&Pod<'_>), &'static str);

#[test]
fn what_a_work_zone_came_to_is_believed_only_as_far_as_it_can_be() {
    let elsewhere = tempfile::tempdir().unwrap();
    let genuine = |pod: &Pod<'_>| fs::read_to_string(pod.handover().join("outcome.json")).unwrap();
    let attacks: [Attack<'_>; 6] = [
        (
            "a link",
            &|pod| {
                let outcome = elsewhere.path().join("outcome.json");
                fs::write(&outcome, genuine(pod)).unwrap();
                fs::remove_file(pod.handover().join("outcome.json")).unwrap();
                symlink(outcome, pod.handover().join("outcome.json")).unwrap();
            },
            "symbolic link",
        ),
        (
            "the word of another stage",
            &|pod| {
                let published = r#"{"published":{"usage":{}}}"#;
                fs::write(pod.handover().join("outcome.json"), published).unwrap();
            },
            "outcome of the work stage cannot be used",
        ),
        (
            "another commit",
            &|pod| {
                let outcome: serde_json::Value = serde_json::from_str(&genuine(pod)).unwrap();
                let candidate = outcome["verified"]["candidate"].as_str().unwrap();
                let other = genuine(pod).replace(candidate, &"1".repeat(40));
                fs::write(pod.handover().join("outcome.json"), other).unwrap();
            },
            "is verified, but recorded is",
        ),
        (
            "another manifest",
            &|pod| {
                let manifest = pod.handover().join("candidate/manifest.json");
                let changed = fs::read_to_string(&manifest).unwrap().replace("\"usage\"", " \"usage\"");
                fs::write(&manifest, changed).unwrap();
            },
            "manifest is not that of",
        ),
        (
            "no objects",
            &|pod| fs::remove_file(pod.handover().join("candidate/candidate.pack")).unwrap(),
            "objects",
        ),
        (
            "nothing",
            &|pod| fs::remove_file(pod.handover().join("outcome.json")).unwrap(),
            "ended without one",
        ),
    ];
    for (name, attack, expected) in attacks {
        let installation = Installation::new();
        let handed = installation.claim(GOOD);
        let pod = Pod::new(&installation, &handed);
        assert_eq!(pod.prepare(), Some(0), "{name}");
        assert_eq!(pod.work(), Some(0), "{name}");
        attack(&pod);
        assert_eq!(pod.finish(), Some(1), "{name}: {}", pod.why("finish"));
        let failure = failure(&installation, &handed);
        assert!(failure.contains(expected), "{name}: {failure}");
        assert_eq!((installation.branches().len(), installation.pull_requests()), (0, 0), "{name}");
    }
}

#[test]
fn a_pod_that_is_told_to_stop_while_it_publishes_says_so() {
    let installation = Installation::new();
    let handed = installation.claim(GOOD);
    // A push that does not come to its end.
    let mark = marker(14);
    installation.origin.install_hook("pre-receive", &format!("sleep {mark}"));
    let pod = Pod::new(&installation, &handed);
    assert_eq!(pod.prepare(), Some(0));
    let mut courier = pod.courier();
    assert_eq!(pod.work(), Some(0));
    let mut finish = pod.start_finish();
    eventually("the push is under way", || !processes_with(&mark).is_empty());
    terminate(&finish);
    assert_eq!(ended(&mut finish).code(), Some(2));
    eventually("nothing of it survives", || processes_with(&mark).is_empty());
    assert_eq!(courier.told_to_end().code(), Some(0));
    assert_eq!(installation.state(&handed.attempt_id), "cancelled");
    assert!(failure(&installation, &handed).contains("during publish"));
    assert_eq!(installation.pull_requests(), 0);
}

/// A pod whose agent does its work and takes the forge away; its publishing waits.
fn parked(installation: &Installation) -> Dispatched {
    let origin = installation.origin.dir().display().to_string();
    let handed = installation.claim(&format!("{GOOD}; rm -rf {origin}.away; mv {origin} {origin}.away"));
    let pod = Pod::new(installation, &handed);
    assert_eq!(pod.run(), Some(0), "{}", pod.why("finish"));
    assert!(pod.why("finish").contains("waits for the forge"), "{}", pod.why("finish"));
    assert_eq!(installation.state(&handed.attempt_id), "verified");
    handed
}

fn bring_back(installation: &Installation) {
    let origin = installation.origin.dir();
    fs::rename(format!("{}.away", origin.display()), origin).unwrap();
}

#[test]
fn a_later_pod_publishes_what_an_earlier_one_verified() {
    let installation = Installation::without_walls();
    let handed = parked(&installation);
    // The forge is still away: nothing is lost, and nothing is done again.
    let second = installation.dispatch(&handed);
    assert_eq!(Pod::new(&installation, &second).run(), Some(0));
    assert_eq!(installation.count("publish.parked"), 2);
    bring_back(&installation);
    let third = installation.dispatch(&second);
    let pod = Pod::new(&installation, &third);
    assert_eq!(pod.run(), Some(0), "{}{}", pod.why("prepare"), pod.why("finish"));
    assert!(pod.why("work").contains("nothing left"), "{}", pod.why("work"));
    assert_eq!(installation.state(&handed.attempt_id), "completed");
    assert_eq!((installation.branches().len(), installation.pull_requests()), (1, 1));
    for once in ["agent.finished", "change.verified", "branch.pushed", "pr.created"] {
        assert_eq!(installation.count(once), 1, "{once}");
    }
    let merged = installation.origin.read("leviathan/task-001-a1", "requirements.txt").unwrap();
    assert_eq!(merged, b"flask==3.0\n");
}

#[test]
fn one_epoch_publishes_once() {
    let installation = Installation::without_walls();
    let handed = parked(&installation);
    bring_back(&installation);
    let next = installation.dispatch(&handed);
    assert_eq!(Pod::new(&installation, &next).prepare(), Some(0));
    let second = Pod::new(&installation, &next);
    assert_eq!(second.prepare(), Some(2));
    assert!(second.why("prepare").contains("has begun with epoch 2"), "{}", second.why("prepare"));
}

#[test]
fn a_candidate_that_nobody_kept_ends_its_attempt_as_lost() {
    let installation = Installation::without_walls();
    let handed = parked(&installation);
    bring_back(&installation);
    let detail = detail(&installation, &handed);
    let pack = detail.artifacts.iter().find(|stored| stored.kind == "pack").unwrap();
    let name = pack.sha256.as_str();
    fs::remove_file(installation.data().join("artifacts/sha256").join(&name[..2]).join(name)).unwrap();
    let next = installation.dispatch(&handed);
    assert_eq!(Pod::new(&installation, &next).run(), Some(1));
    assert_eq!(installation.state(&handed.attempt_id), "failed");
    let failure = failure(&installation, &handed);
    assert!(failure.contains("has to be done again"), "{failure}");
    assert_eq!(installation.pull_requests(), 0);
}

#[test]
fn a_stage_says_where_it_belongs() {
    let installation = Installation::new();
    let handed = installation.claim(GOOD);
    let pod = Pod::new(&installation, &handed);
    let said = |command: &mut Command| {
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    let stage = pod.container(pod.our_image(), "finish", &[]);
    assert!(said(pod.with_token(stage).env_remove("LEVIATHAN_POD_DIR")).contains("LEVIATHAN_POD_DIR"));
    let mut without_stage = super::leviathan(&["executor"]);
    without_stage.env("LEVIATHAN_POD_DIR", "/leviathan").env("LEVIATHAN_ATTEMPT_ID", "attempt-1");
    assert!(said(&mut without_stage).contains("--stage"));
}
