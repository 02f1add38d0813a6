//! Attacks on the containment with real processes.
#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use leviathan_executor::contain::{
    Command, Containment, End, Error, Limits, Outcome, Program, Walls, bubblewrap,
};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_executor-under-test");

/// A folder to run commands in, with their log and scratch.
struct Bench {
    folder: TempDir,
    containment: Containment,
}

impl Bench {
    fn new() -> Self {
        Self::within(Walls::filters(Vec::new()))
    }

    fn within(walls: Walls) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tree")).unwrap();
        Self { folder, containment: Containment::new(PROGRAM, BTreeMap::new()).within(walls) }
    }

    /// One for each way to wall a command in. Without bubblewrap there is no way with namespaces.
    fn every() -> Vec<Self> {
        let namespaces = bubblewrap::find().map(|found| Walls::filters(Vec::new()).with_namespaces(found));
        [Walls::none(), Walls::filters(Vec::new())].into_iter().chain(namespaces).map(Self::within).collect()
    }

    fn shell(&self, line: &str) -> Command {
        Command {
            program: Program::Shell(line.to_owned()),
            directory: self.folder.path().join("tree"),
            scratch: self.folder.path().join("scratch"),
            environment: BTreeMap::new(),
            stdin: Vec::new(),
            log: self.folder.path().join("log"),
            stderr_log: None,
            limits: Limits { timeout: Duration::from_secs(60), ..Limits::default() },
        }
    }

    async fn run(&self, command: &Command) -> Outcome {
        self.containment.run(command, pending()).await.unwrap()
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.folder.path().join("log")).unwrap()).into_owned()
    }
}

/// A name that no other process has in its command line, to find the processes of one test.
fn marker() -> String {
    format!("86{}", uuid::Uuid::new_v4().as_u128() % 10_000_000_000)
}

fn processes_with(marker: &str) -> usize {
    let is_marked = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.ok()?.path();
        let is_zombie = std::fs::read_to_string(path.join("stat")).ok()?.contains(") Z ");
        let line = std::fs::read(path.join("cmdline")).ok()?;
        (!is_zombie && String::from_utf8_lossy(&line).contains(marker)).then_some(())
    };
    std::fs::read_dir("/proc").unwrap().filter_map(is_marked).count()
}

#[track_caller]
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[tokio::test]
async fn every_way_to_end_is_told_apart() {
    let rows: &[(&str, End)] = &[
        ("true", End::Exited { code: 0 }),
        ("exit 3", End::Exited { code: 3 }),
        ("exit 126", End::Exited { code: 126 }),
        ("no-such-program-at-all", End::Exited { code: 127 }),
        ("kill -TERM $$", End::Signalled { signal: 15 }),
        ("kill -KILL $$", End::Signalled { signal: 9 }),
    ];
    for bench in Bench::every() {
        for (line, expected) in rows {
            assert_eq!(&bench.run(&bench.shell(line)).await.end, expected, "{line}");
        }
    }
}

#[tokio::test]
async fn a_command_that_cannot_start_says_why() {
    for bench in Bench::every() {
        let no_program =
            Command { program: Program::Direct(vec!["no-such-program".into()]), ..bench.shell("") };
        let no_folder = Command { directory: bench.folder.path().join("gone"), ..bench.shell("true") };
        for (command, word) in [(no_program, "no-such-program"), (no_folder, "gone")] {
            let end = bench.run(&command).await.end;
            assert!(matches!(&end, End::NotStarted { problem } if problem.contains(word)), "{end:?}");
        }
    }
}

#[tokio::test]
async fn output_of_both_streams_reaches_the_log_in_order() {
    for bench in Bench::every() {
        let outcome = bench.run(&bench.shell("echo one; echo two >&2; echo three")).await;
        assert_eq!(bench.log(), "one\ntwo\nthree\n");
        assert_eq!(outcome.output_bytes, 14);
    }
}

#[tokio::test]
async fn standard_error_can_have_a_log_of_its_own() {
    for bench in Bench::every() {
        let stderr_log = bench.folder.path().join("errors");
        let command = Command {
            stderr_log: Some(stderr_log.clone()),
            ..bench.shell("echo one; echo two >&2; echo three")
        };
        bench.run(&command).await;
        assert_eq!(bench.log(), "one\nthree\n");
        assert_eq!(std::fs::read_to_string(stderr_log).unwrap(), "two\n");
    }
}

#[tokio::test]
async fn standard_input_is_empty_or_what_was_given() {
    for bench in Bench::every() {
        bench.run(&bench.shell("wc -c; readlink /proc/self/fd/0")).await;
        assert_eq!(bench.log(), "0\n/dev/null\n");
        let given = vec![b'x'; 300_000];
        bench.run(&Command { stdin: given, ..bench.shell("wc -c") }).await;
        assert_eq!(bench.log(), "300000\n");
    }
}

#[tokio::test]
async fn nothing_is_inherited_but_what_is_listed() {
    for bench in Bench::every() {
        let mut command = bench.shell("env | sort; ls /proc/self/fd; tty; ulimit -c; umask");
        command.environment.insert("EXTRA".into(), "given".into());
        bench.run(&command).await;
        let log = bench.log();
        let names: Vec<&str> =
            log.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        let quiet_tools = ["MYPY_CACHE_DIR", "PYTEST_ADDOPTS", "PYTHONDONTWRITEBYTECODE", "RUFF_NO_CACHE"];
        let (quiet, others): (Vec<&str>, Vec<&str>) =
            names.into_iter().partition(|name| quiet_tools.contains(name));
        assert_eq!(quiet, quiet_tools);
        // `sh` itself sets PWD and OLDPWD.
        assert_eq!(others, ["EXTRA", "HOME", "LANG", "PATH", "PWD", "TMPDIR"], "{log}");
        // The fourth descriptor is the folder that `ls` itself reads.
        assert!(log.ends_with("0\n1\n2\n3\nnot a tty\n0\n0022\n"), "{log}");
    }
}

#[tokio::test]
async fn the_keeper_shows_nothing_of_the_caller() {
    for bench in Bench::every() {
        // Root may read it in spite of everything; then it is empty.
        bench.run(&bench.shell("cat /proc/$PPID/environ | wc -c")).await;
        assert!(bench.log().ends_with("0\n"), "{}", bench.log());
    }
}

#[tokio::test]
async fn a_folder_of_its_own_is_home_and_temporary() {
    for bench in Bench::every() {
        let outcome = bench.run(&bench.shell("touch \"$HOME/a\" && mktemp")).await;
        assert_eq!(outcome.end, End::Exited { code: 0 });
        assert!(bench.folder.path().join("scratch/home/a").exists());
        assert!(Path::new(bench.log().trim()).starts_with(bench.folder.path().join("scratch/tmp")));
    }
}

#[tokio::test]
async fn orphans_do_not_survive_their_command() {
    let lines = [
        "sleep MARK & exit 0",
        "(sleep MARK &) ; exit 0",
        "setsid sh -c 'sleep MARK & sleep MARK' & exit 0",
        "setsid -f setsid -f sh -c 'trap \"\" TERM HUP INT; sleep MARK; sleep MARK' & sleep 0.2; exit 0",
        "nohup setsid sh -c 'while :; do (setsid sleep MARK &); sleep 0.01; done' >/dev/null 2>&1 & sleep 0.3",
    ];
    for bench in Bench::every() {
        for line in lines {
            let mark = marker();
            let outcome = bench.run(&bench.shell(&line.replace("MARK", &mark))).await;
            assert_eq!(outcome.end, End::Exited { code: 0 }, "{line}");
            assert_eq!(processes_with(&mark), 0, "{line}");
        }
    }
}

#[tokio::test]
async fn a_daemon_cannot_write_after_its_command() {
    for bench in Bench::every() {
        bench.run(&bench.shell("setsid -f sh -c 'while :; do date +%N > late; done'; sleep 0.1")).await;
        let late = bench.folder.path().join("tree/late");
        std::fs::write(&late, "ours").unwrap();
        // One round of the daemon takes a few milliseconds; a real wait would only make this test slower.
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(std::fs::read_to_string(late).unwrap(), "ours");
    }
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_killed_with_all_it_started() {
    for bench in Bench::every() {
        let mark = marker();
        let line = format!("trap '' TERM; setsid sleep {mark} & sleep {mark}");
        let mut command = bench.shell(&line);
        command.limits.timeout = Duration::from_millis(300);
        let outcome = bench.run(&command).await;
        assert_eq!(outcome.end, End::TimedOut);
        assert!(outcome.duration >= Duration::from_millis(300), "{outcome:?}");
        assert_eq!(processes_with(&mark), 0);
    }
}

#[tokio::test]
async fn a_cancelled_command_is_killed() {
    for bench in Bench::every() {
        let mark = marker();
        let command = bench.shell(&format!("sleep {mark}"));
        let begun = Instant::now();
        let outcome = bench.containment.run(&command, ready(())).await.unwrap();
        assert_eq!(outcome.end, End::Cancelled);
        assert!(begun.elapsed() < Duration::from_secs(20));
        assert_eq!(processes_with(&mark), 0);
    }
}

#[tokio::test]
async fn a_command_nobody_waits_for_any_more_is_killed() {
    for bench in Bench::every() {
        let mark = marker();
        let command = bench.shell(&format!("sleep {mark}"));
        let run = bench.containment.run(&command, pending());
        let _ = tokio::time::timeout(Duration::from_millis(300), run).await;
        eventually("the command dies with the dropped future", || processes_with(&mark) == 0);
    }
}

#[tokio::test]
async fn endless_output_ends_the_command_and_keeps_beginning_and_end() {
    for bench in Bench::every() {
        let mut command = bench.shell("echo first; yes");
        command.limits.log_bytes = 100_000;
        command.limits.output_bytes = 50_000_000;
        let outcome = bench.run(&command).await;
        assert_eq!(outcome.end, End::OutputLimit);
        let log = bench.log();
        assert!(log.len() < 101_000, "{}", log.len());
        assert!(log.starts_with("first\ny\n") && log.contains("bytes were left out here"));
    }
}

#[tokio::test]
async fn a_flood_of_forks_is_ended() {
    for bench in Bench::every() {
        let mark = marker();
        // Doubles like a fork bomb, but would stop at 2048 if nobody ended it, so that a failing test spares the
        // machine. The second leaves its session at each step, so that no group holds it together.
        let bombs = [
            format!(
                "f() {{ [ $1 = 11 ] && exec sleep {mark}; f $(($1+1)) & f $(($1+1)) & }}; f 0; sleep {mark}"
            ),
            format!(
                "export f='[ $0 = 11 ] && exec sleep {mark}; for i in 1 2; do setsid sh -c \"$f\" $(($0+1)) & done'; sh -c \"$f\" 0; sleep {mark}"
            ),
        ];
        for bomb in bombs {
            let mut command = bench.shell(&bomb);
            command.limits.processes = 200;
            let outcome = bench.run(&command).await;
            assert_eq!(outcome.end, End::ProcessLimit, "{bomb}");
            assert_eq!(processes_with(&mark), 0, "{bomb}");
        }
    }
}

#[tokio::test]
async fn a_command_cannot_kill_its_keeper_and_where_it_can_that_is_told() {
    let line = "kill -9 $PPID; exit 0";
    let bench = Bench::within(Walls::none());
    let killed = bench.containment.run(&bench.shell(line), pending()).await;
    assert!(matches!(killed, Err(Error::KeeperKilled { signal: 9 })), "{killed:?}");
    // Older kernels have no wall for signals but namespaces.
    let scopes = leviathan_executor::contain::landlock::version().is_some_and(|version| version >= 6);
    for bench in Bench::every().into_iter().skip(if scopes { 1 } else { 2 }) {
        assert_eq!(bench.run(&bench.shell(line)).await.end, End::Exited { code: 0 }, "{}", bench.log());
    }
}

#[tokio::test]
async fn a_wall_that_cannot_be_put_up_lets_nothing_run() {
    let walls = Walls::filters(Vec::new()).with_namespaces("/bin/false".into());
    let bench = Bench::within(walls);
    let marker = bench.folder.path().join("tree/ran");
    let refused = bench.containment.run(&bench.shell("touch ran"), pending()).await;
    assert!(matches!(&refused, Err(Error::Setup(problem)) if problem.contains("bubblewrap")), "{refused:?}");
    assert!(!marker.exists());
}

#[tokio::test]
async fn a_file_larger_than_permitted_is_not_written() {
    for bench in Bench::every() {
        let mut command = bench.shell("head -c 2000000 /dev/zero > big");
        command.limits.file_bytes = 1_000_000;
        assert_ne!(bench.run(&command).await.end, End::Exited { code: 0 });
        assert!(bench.folder.path().join("tree/big").metadata().unwrap().len() <= 1_000_000);
    }
}

/// Many files within the limit of each, or many that are empty, fill a disk as well.
#[tokio::test]
async fn a_command_that_fills_the_disk_is_ended() {
    let fills = [
        "i=0; while :; do head -c 1000000 /dev/zero > $TMPDIR/$i; i=$((i+1)); done",
        "i=0; while :; do : > $i; i=$((i+1)); done",
    ];
    for bench in Bench::every() {
        for fill in fills {
            let mut command = bench.shell(fill);
            command.limits.disk_bytes = 20_000_000;
            command.limits.disk_files = 2_000;
            assert_eq!(bench.run(&command).await.end, End::DiskLimit, "{fill}");
        }
    }
}

/// What was there before, and what somebody else takes of the same disk meanwhile, is not the command's.
#[tokio::test]
async fn a_command_does_not_answer_for_what_others_take_of_the_disk() {
    let bench = Bench::new();
    let tree = bench.folder.path().join("tree");
    std::fs::write(tree.join("old"), vec![1; 40_000_000]).unwrap();
    // A file of an earlier second: the kernel's times tell no command that began in the same one.
    let written = std::fs::metadata(tree.join("old")).unwrap().ctime();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    eventually("the second is over", || now().cast_signed() > written);
    let mut command = bench.shell("touch began; while [ ! -e go ]; do sleep 0.05; done; sleep 0.2");
    command.limits.disk_bytes = 20_000_000;
    let others = async {
        while !tree.join("began").exists() {
            tokio::task::yield_now().await;
        }
        std::fs::write(bench.folder.path().join("others"), vec![1; 60_000_000]).unwrap();
        std::fs::write(tree.join("go"), "").unwrap();
    };
    let (outcome, ()) = tokio::join!(bench.run(&command), others);
    assert_eq!(outcome.end, End::Exited { code: 0 });
}

#[test]
fn nothing_survives_a_caller_that_is_killed() {
    let bench = Bench::new();
    let mark = marker();
    let mut caller = Process::new(PROGRAM)
        .arg("run-contained")
        .arg(bench.folder.path())
        .arg(format!("setsid -f sleep {mark}; echo ready; sleep {mark}"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the command runs", || processes_with(&mark) >= 2);
    caller.kill().unwrap();
    caller.wait().unwrap();
    eventually("everything dies with the caller", || processes_with(&mark) == 0);
}

#[test]
fn a_plan_that_is_no_plan_is_refused() {
    let mut keeper =
        Process::new(PROGRAM).arg("contain").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    keeper.stdin.take().unwrap().write_all(b"{}\n").unwrap();
    let mut report = String::new();
    BufReader::new(keeper.stdout.take().unwrap()).read_line(&mut report).unwrap();
    assert!(report.contains("the plan cannot be read"), "{report}");
    keeper.wait().unwrap();
}
