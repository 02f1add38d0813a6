//! Real processes: an executor that is launched gets its environment and nothing else, outlives the scheduler,
//! is found again, and can be stopped.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use leviathan_scheduler::Launcher;
use leviathan_scheduler::launch::{Cause, End, ExecutorSight, LaunchError, Order, Worktree};
use model::{AttemptId, Epoch, TargetId, TaskId};
use secrecy::SecretString;

const PATIENCE: Duration = Duration::from_secs(30);

/// A data folder and a program that plays the executor.
struct Machine {
    data: tempfile::TempDir,
    program: PathBuf,
}

impl Machine {
    /// `script` runs by `sh` with the attempt's folder as `$folder`.
    fn new(script: &str) -> Self {
        let data = tempfile::tempdir().unwrap();
        let program = data.path().join("executor.sh");
        let head = "#!/bin/sh\nfolder=$LEVIATHAN_DATA_DIR/attempts/$LEVIATHAN_ATTEMPT_ID\n";
        fs::write(&program, format!("{head}{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Self { data, program }
    }

    fn launcher(&self) -> Launcher {
        let environment = vec![("PATH".into(), std::env::var("PATH").unwrap().into())];
        Launcher::Worktree(Worktree::new(
            self.program.clone(),
            self.data.path().to_owned(),
            "http://127.0.0.1:9".to_owned(),
            environment,
        ))
    }

    fn folder(&self) -> PathBuf {
        self.data.path().join("attempts/attempt-1")
    }

    async fn file(&self, name: &str) -> String {
        let path = self.folder().join(name);
        until(|| fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'))).await;
        fs::read_to_string(path).unwrap()
    }
}

fn attempt() -> AttemptId {
    AttemptId::parse("attempt-1").unwrap()
}

fn names() -> (AttemptId, TargetId, TaskId) {
    (attempt(), TargetId::parse("shop").unwrap(), TaskId::parse("task-1").unwrap())
}

fn order<'a>(
    attempt: &'a AttemptId,
    epoch: u32,
    token: &'a SecretString,
    target: &'a TargetId,
    task: &'a TaskId,
) -> Order<'a> {
    let timeout = Duration::from_secs(60);
    Order { attempt, epoch: Epoch(epoch), token, target, task, timeout, image: None }
}

async fn launch(launcher: &Launcher, epoch: u32) {
    let ((attempt, target, task), token) = (names(), SecretString::from("attempt-token"));
    launcher.launch(order(&attempt, epoch, &token, &target, &task)).await.unwrap();
}

/// A process of this machine is looked at without waiting.
fn observe(launcher: &Launcher, attempt: &AttemptId) -> Result<ExecutorSight, LaunchError> {
    let look = launcher.look(&[attempt], jiff::Timestamp::UNIX_EPOCH).now_or_never();
    let (mut sights, errors) = look.expect("it does not wait");
    sights.remove(attempt).ok_or_else(|| errors.into_iter().next().expect("a sight or an error"))
}

/// Polls a condition until it holds.
async fn until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not happen in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn is_running(pid: &str) -> bool {
    let stat = fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

#[tokio::test]
async fn an_executor_gets_what_the_contract_names_and_nothing_else() {
    let machine = Machine::new(
        "echo \"$0 $*\" > $folder/arguments; env > $folder/environment.new; echo said; mv $folder/environment.new $folder/environment",
    );
    let launcher = machine.launcher();
    assert_eq!(observe(&launcher, &attempt()).unwrap(), ExecutorSight::Absent);
    launch(&launcher, 1).await;
    let environment = machine.file("environment").await;
    // What a shell sets by itself does not count.
    let mut names: Vec<_> = environment.lines().filter_map(|line| line.split_once('=')).collect();
    names.retain(|(name, _)| !["PWD", "OLDPWD", "SHLVL", "_"].contains(name));
    names.sort_unstable();
    let data = machine.data.path().display().to_string();
    assert_eq!(
        names,
        [
            ("LEVIATHAN_ATTEMPT_ID", "attempt-1"),
            ("LEVIATHAN_CONTROL_PLANE_TOKEN", "attempt-token"),
            ("LEVIATHAN_CONTROL_PLANE_URL", "http://127.0.0.1:9"),
            ("LEVIATHAN_DATA_DIR", &data),
            ("PATH", &std::env::var("PATH").unwrap()),
        ]
    );
    assert!(machine.file("arguments").await.ends_with("executor.sh executor\n"));
    assert_eq!(machine.file("executor.log").await, "said\n");
    until(|| {
        observe(&launcher, &attempt()).unwrap()
            == ExecutorSight::Gone { epoch: Epoch(1), end: End::new(Cause::Ended, "") }
    })
    .await;
}

#[tokio::test]
async fn an_executor_is_found_by_the_next_scheduler_and_leads_its_own_session() {
    let machine = Machine::new("echo $$ > $folder/pid; exec sleep 1000");
    let first = machine.launcher();
    launch(&first, 1).await;
    let pid = machine.file("pid").await;
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
    let session = stat.rsplit_once(')').unwrap().1.split_ascii_whitespace().nth(3).unwrap().to_owned();
    assert_eq!(session, pid.trim());

    let next = machine.launcher();
    assert_eq!(observe(&next, &attempt()).unwrap(), ExecutorSight::Alive { epoch: Epoch(1) });
    next.stop(&attempt(), PATIENCE).await.unwrap();
    assert!(!is_running(&pid));
    assert_eq!(
        observe(&next, &attempt()).unwrap(),
        ExecutorSight::Gone { epoch: Epoch(1), end: End::new(Cause::Ended, "") }
    );
}

#[tokio::test]
async fn whoever_holds_the_folders_lock_is_alive_whatever_the_record_says() {
    let machine = Machine::new("exec 9> $folder/lock; flock 9; echo $$ > $folder/pid; exec sleep 1000");
    let launcher = machine.launcher();
    launch(&launcher, 1).await;
    let pid = machine.file("pid").await;
    let record = machine.folder().join("launched.json");
    let whole = fs::read(&record).unwrap();
    // As if the scheduler had died between the start and the note of the process.
    fs::write(&record, r#"{"attempt_id":"attempt-1","epoch":1}"#).unwrap();
    assert_eq!(observe(&launcher, &attempt()).unwrap(), ExecutorSight::Alive { epoch: Epoch(1) });
    fs::write(&record, whole).unwrap();
    launcher.stop(&attempt(), PATIENCE).await.unwrap();
    assert!(!is_running(&pid));
}

#[tokio::test]
async fn one_that_does_not_obey_is_ended_with_its_group() {
    let machine = Machine::new(
        "trap '' TERM; (trap '' TERM; sleep 1000) & echo $! > $folder/child; echo $$ > $folder/pid; wait; sleep 1000",
    );
    let launcher = machine.launcher();
    launch(&launcher, 1).await;
    let (pid, child) = (machine.file("pid").await, machine.file("child").await);
    launcher.stop(&attempt(), Duration::from_millis(100)).await.unwrap();
    assert!(!is_running(&pid));
    until(|| !is_running(&child)).await;
}

#[tokio::test]
async fn a_new_epoch_takes_the_place_of_the_old() {
    let machine = Machine::new("echo $$ >> $folder/pids; exec sleep 1000");
    let launcher = machine.launcher();
    launch(&launcher, 1).await;
    let first = machine.file("pids").await;
    launch(&launcher, 2).await;
    assert!(!is_running(&first));
    assert_eq!(observe(&launcher, &attempt()).unwrap(), ExecutorSight::Alive { epoch: Epoch(2) });
    launcher.stop(&attempt(), PATIENCE).await.unwrap();
}

#[tokio::test]
async fn whoever_waits_is_woken_when_the_last_executor_ends() {
    let machine = Machine::new("until test -e $folder/go; do sleep 0.01; done");
    let launcher = machine.launcher();
    let mut running = launcher.running();
    launch(&launcher, 1).await;
    assert_eq!(*running.borrow(), 1);
    fs::write(machine.folder().join("go"), "").unwrap();
    tokio::time::timeout(PATIENCE, running.wait_for(|running| *running == 0)).await.unwrap().unwrap();
    assert_eq!(
        observe(&launcher, &attempt()).unwrap(),
        ExecutorSight::Gone { epoch: Epoch(1), end: End::new(Cause::Ended, "") }
    );
}

#[tokio::test]
async fn a_number_that_another_process_has_now_is_not_the_executor() {
    let machine = Machine::new("exit 0");
    let launcher = machine.launcher();
    fs::create_dir_all(machine.folder()).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let (pid, boot) = (std::process::id(), boot.trim());
    let record = format!(r#"{{"attempt_id":"attempt-1","epoch":1,"pid":{pid},"started":1,"boot":"{boot}"}}"#);
    fs::write(machine.folder().join("launched.json"), record).unwrap();
    assert_eq!(
        observe(&launcher, &attempt()).unwrap(),
        ExecutorSight::Gone { epoch: Epoch(1), end: End::new(Cause::Ended, "") }
    );
    // Nobody is signalled: this test would not survive it.
    launcher.stop(&attempt(), Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_folder_of_another_attempt_and_a_missing_program_are_said() {
    let machine = Machine::new("exit 0");
    let launcher = machine.launcher();
    fs::create_dir_all(machine.folder()).unwrap();
    let record = machine.folder().join("launched.json");
    fs::write(&record, r#"{"attempt_id":"attempt-2","epoch":1}"#).unwrap();
    let found = observe(&launcher, &attempt());
    assert!(matches!(found, Err(LaunchError::OtherIdentity { .. })), "{found:?}");

    fs::remove_file(&record).unwrap();
    fs::remove_file(&machine.program).unwrap();
    let (id, target, task) = names();
    let token = SecretString::from("t");
    let message = launcher.launch(order(&id, 1, &token, &target, &task)).await.unwrap_err().to_string();
    assert!(message.contains("attempt-1") && message.contains("executor.sh"), "{message}");
    assert_eq!(
        observe(&launcher, &id).unwrap(),
        ExecutorSight::Gone { epoch: Epoch(1), end: End::new(Cause::Ended, "") }
    );
}
