//! Attacks that a single call does not show: what a whole command leaves, floods or inherits.

use std::future::pending;
use std::time::{Duration, Instant};

use super::{Outcome, Seen};
use crate::contain::probe::Probe;
use crate::contain::{Command, Containment, End, Program};
use crate::sandbox::Canaries;

/// How a command attacks.
#[derive(Debug, Clone, Copy)]
pub(super) enum Trick {
    Orphan,
    ForkBomb,
    LogFlood,
    DiskFill,
    LateEdit,
    PathShim,
    Inherited,
    Descriptors,
}

/// From the end of its time a bomb must be gone so soon.
const SOON: Duration = Duration::from_secs(5);

/// Runs the command and looks at what came of it.
pub(super) async fn play(trick: Trick, containment: &Containment, canaries: &Canaries) -> Seen {
    match trick {
        Trick::Orphan => orphan(containment, canaries).await,
        Trick::ForkBomb => fork_bomb(containment, canaries).await,
        Trick::LogFlood => log_flood(containment, canaries).await,
        Trick::DiskFill => disk_fill(containment, canaries).await,
        Trick::LateEdit => late_edit(containment, canaries).await,
        Trick::PathShim => path_shim(containment, canaries).await,
        Trick::Inherited => inherited(containment, canaries).await,
        Trick::Descriptors => descriptors(containment, canaries).await,
    }
}

async fn orphan(containment: &Containment, canaries: &Canaries) -> Seen {
    if let Err(problem) = canaries.run(containment, &[Probe::Orphan(canaries.lock())]).await {
        return failed(problem);
    }
    judged(canaries.has_orphan(), "processes", "the lock of the orphan is free after its command".to_owned())
}

/// It doubles to 2048 processes if nobody ends it, so that a machine whose walls fail survives the answer. They hold
/// the lock of the tree, so that one that is left is seen.
async fn fork_bomb(containment: &Containment, canaries: &Canaries) -> Seen {
    let bomb = "f() { [ $1 = 11 ] && exec sleep 60; f $(($1+1)) & f $(($1+1)) & }; \
                command -v flock >/dev/null && { exec 9>orphan; flock 9; }; f 0; sleep 60";
    let mut command = shell(canaries, bomb);
    command.limits.timeout = Duration::from_secs(2);
    command.limits.processes = 400;
    let begun = Instant::now();
    let ended = match containment.run(&command, pending()).await {
        Err(error) => return failed(error.to_string()),
        Ok(outcome) => outcome,
    };
    let late = begun.elapsed().saturating_sub(ended.duration);
    let is_ended = matches!(ended.end, End::ProcessLimit | End::TimedOut);
    let left = canaries.has_orphan() || late > SOON || !is_ended;
    judged(left, "processes", format!("{:?}; all gone {} ms later", ended.end, late.as_millis()))
}

async fn log_flood(containment: &Containment, canaries: &Canaries) -> Seen {
    let mut command = shell(canaries, "yes");
    command.limits.log_bytes = 1 << 20;
    command.limits.output_bytes = 64 << 20;
    let end = match containment.run(&command, pending()).await {
        Err(error) => return failed(error.to_string()),
        Ok(outcome) => outcome.end,
    };
    let kept = std::fs::metadata(&command.log).map_or(u64::MAX, |found| found.len());
    judged(end != End::OutputLimit || kept > 2 << 20, "limits", format!("{end:?}, {kept} bytes are kept"))
}

/// It stops by itself at 512 MiB, so that a machine whose walls fail survives the answer.
async fn disk_fill(containment: &Containment, canaries: &Canaries) -> Seen {
    let fill = "i=0; while [ $i -lt 512 ]; do head -c 1048576 /dev/zero > $TMPDIR/$i; i=$((i+1)); done";
    let mut command = shell(canaries, fill);
    command.limits.disk_bytes = 32 << 20;
    let end = match containment.run(&command, pending()).await {
        Err(error) => return failed(error.to_string()),
        Ok(outcome) => outcome.end,
    };
    let emptied = std::fs::remove_dir_all(command.scratch.join("tmp"));
    if let Err(error) = emptied {
        return failed(format!("what it wrote cannot be removed: {error}"));
    }
    judged(end != End::DiskLimit, "limits", format!("{end:?}"))
}

async fn late_edit(containment: &Containment, canaries: &Canaries) -> Seen {
    let line = "setsid sh -c 'while :; do echo x >> late; done' & sleep 0.1";
    if let Err(error) = containment.run(&shell(canaries, line), pending()).await {
        return failed(error.to_string());
    }
    let late = canaries.tree().join("late");
    let length = || std::fs::metadata(&late).map_or(0, |found| found.len());
    let before = length();
    if before == 0 {
        return failed("the editor did not begin".to_owned());
    }
    // A round of the editor takes microseconds: it would be seen.
    tokio::time::sleep(Duration::from_millis(100)).await;
    judged(length() != before, "processes", "the file grows no more after the command".to_owned())
}

/// One command leaves a program in its own folders; the next must not find it. Only places of the command's own and a
/// name that nobody has are used: where no walls stand, an attack must not harm the machine.
async fn path_shim(containment: &Containment, canaries: &Canaries) -> Seen {
    let name = format!("leviathan-shim-{}", uuid::Uuid::new_v4());
    let plant = format!(
        "for place in $HOME/bin $HOME/.local/bin .; do mkdir -p $place && echo 'echo shim' > $place/{name} && \
         chmod +x $place/{name}; done"
    );
    if let Err(error) = containment.run(&shell(canaries, &plant), pending()).await {
        return failed(error.to_string());
    }
    match said_by(containment, &shell(canaries, &format!("echo $PATH; {name} 2>/dev/null"))).await {
        Err(problem) => failed(problem),
        Ok(said) => {
            judged(said.lines().any(|line| line == "shim"), "environment", format!("PATH is {}", said.trim()))
        }
    }
}

async fn inherited(containment: &Containment, canaries: &Canaries) -> Seen {
    match said_by(containment, &shell(canaries, "env")).await {
        Err(problem) => failed(problem),
        Ok(said) => {
            let ours = ["LD_", "GIT_", "ANTHROPIC_", "GITHUB_", "LEVIATHAN_", "SSH_", "AWS_"];
            let found = said.lines().find(|line| ours.iter().any(|prefix| line.starts_with(prefix)));
            let names = said.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name);
            judged(found.is_some(), "environment", names.collect::<Vec<_>>().join(" "))
        }
    }
}

async fn descriptors(containment: &Containment, canaries: &Canaries) -> Seen {
    match said_by(containment, &shell(canaries, "ls /proc/self/fd")).await {
        Err(problem) => failed(problem),
        Ok(said) => {
            let open: Vec<&str> = said.split_whitespace().collect();
            // The fourth is the folder that `ls` itself reads.
            judged(open != ["0", "1", "2", "3"], "environment", format!("open: {}", open.join(" ")))
        }
    }
}

fn shell(canaries: &Canaries, line: &str) -> Command {
    canaries.command(Program::Shell(line.to_owned()))
}

async fn said_by(containment: &Containment, command: &Command) -> Result<String, String> {
    containment.run(command, pending()).await.map_err(|error| error.to_string())?;
    let text = std::fs::read(&command.log).map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

fn judged(came_through: bool, by: &'static str, detail: String) -> Seen {
    if came_through { (Outcome::Succeeded, "", detail) } else { (Outcome::Stopped, by, detail) }
}

fn failed(problem: String) -> Seen {
    (Outcome::Failed, "", problem)
}
