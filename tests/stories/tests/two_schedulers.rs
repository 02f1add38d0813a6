//! Two schedulers and four executors at once on two hundred tasks of one target, killed and restarted at random:
//! each task gets exactly one pull request, no branch is made twice, and the log holds.

#![expect(clippy::unwrap_used, reason = "a story fails where it is told")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use leviathan_stories::{Installation, Program};
use sha2::{Digest, Sha256};

const TASKS: usize = 200;
/// How often something is killed, before the story is left to end in peace.
const KILLS: usize = 60;
/// How long the whole story may take before it counts as stuck.
const LONGEST: Duration = Duration::from_secs(1500);

const POLICY: &str = "scopes:
  notes:
    allowed_paths: ['notes/**']
invariants:
  - name: Notes are not empty
    check: \"test -s notes/first.txt\"
limits:
  max_concurrent: 4
  max_open_prs: 1000
";

#[test]
fn each_task_gets_exactly_one_pull_request() {
    let mut story = Installation::new(&[("notes/first.txt", "first\n")], &backlog(), POLICY);
    let mut schedulers = [start_scheduler(&story), start_scheduler(&story)];
    let mut chance = Chance::new();
    let deadline = Instant::now() + LONGEST;
    let mut kills = 0;
    while in_review(&story) < TASKS {
        assert!(
            Instant::now() < deadline,
            "stuck with {} of {TASKS}:\n{}",
            in_review(&story),
            waiting(&story)
        );
        std::thread::sleep(Duration::from_millis(500 + chance.below(1500)));
        if kills == KILLS {
            continue;
        }
        match chance.below(6) {
            victim @ (0 | 1) => {
                let victim = usize::try_from(victim).unwrap();
                schedulers[victim].kill();
                schedulers[victim] = start_scheduler(&story);
            }
            2 => {
                story.kill_control_plane();
                story.start_control_plane();
            }
            3 => kill_an_executor(&story, &mut chance),
            _ => continue,
        }
        kills += 1;
    }
    for scheduler in &mut schedulers {
        scheduler.kill();
    }
    println!("{kills} kills, seed {}", chance.seed);

    each_task_has_one_branch_and_one_pull_request(&story);
    no_task_was_worked_at_twice_at_once(&story);
    story.kill_control_plane();
    the_chain_on_disk_holds(&story);
    story.start_control_plane();
    let ready = story.get("/readyz");
    assert_eq!(ready["verified_to"], ready["head"]);
}

fn backlog() -> String {
    let tasks: String = (0..TASKS)
        .map(|n| {
            format!(
                "  - task_id: task-{n:03}
    title: Write note {n}
    scope: notes
    priority: medium
    estimated_size: small
    allowed_paths: [notes/{n}.txt]
    acceptance_criteria: [The note is there]
    agent: {{command: 'echo {n} > notes/{n}.txt'}}
    status: pending
"
            )
        })
        .collect();
    format!("tasks:\n{tasks}")
}

fn start_scheduler(story: &Installation) -> Program {
    story.start(&["scheduler", "--interval", "1s"])
}

fn in_review(story: &Installation) -> usize {
    let tasks = story.get("/v1/tasks");
    tasks["tasks"]
        .as_array()
        .map_or(0, |tasks| tasks.iter().filter(|task| task["state"] == "in_review").count())
}

fn waiting(story: &Installation) -> String {
    story.ctl(&["tasks-list"]).stdout
}

/// Kills one running executor of this installation; its pid stands in the attempt's folder.
fn kill_an_executor(story: &Installation, chance: &mut Chance) {
    let attempts = std::fs::read_dir(story.data().join("attempts")).into_iter().flatten().flatten();
    let running: Vec<u32> = attempts.filter_map(|attempt| running_executor(&attempt.path())).collect();
    if !running.is_empty() {
        let victim = running[usize::try_from(chance.below(running.len() as u64)).unwrap()];
        let _ = std::process::Command::new("kill").args(["-9", &victim.to_string()]).status();
    }
}

/// The pid of the executor, if the process of that pid is one of this very folder.
fn running_executor(attempt: &std::path::Path) -> Option<u32> {
    let launched = std::fs::read_to_string(attempt.join("launched.json")).ok()?;
    let launched: serde_json::Value = serde_json::from_str(&launched).ok()?;
    let pid = u32::try_from(launched["pid"].as_u64()?).ok()?;
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let id = attempt.file_name()?.to_str()?;
    String::from_utf8_lossy(&environment).contains(id).then_some(pid)
}

fn each_task_has_one_branch_and_one_pull_request(story: &Installation) {
    let mut numbers = BTreeSet::new();
    let mut tasks: BTreeMap<String, usize> = BTreeMap::new();
    for (name, _) in story.origin.refs() {
        if let Some(branch) = name.strip_prefix("refs/heads/leviathan/") {
            let task = branch.rsplit_once("-a").unwrap().0.to_owned();
            *tasks.entry(task).or_default() += 1;
        }
        if let Some(number) = name.strip_prefix("refs/pull/").and_then(|rest| rest.strip_suffix("/meta")) {
            assert!(numbers.insert(number.to_owned()), "number {number} was given twice");
        }
    }
    assert_eq!(tasks.len(), TASKS);
    let doubled: Vec<_> = tasks.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "more than one branch: {doubled:?}");
    assert_eq!(numbers.len(), TASKS);
    let opened = story.events().iter().filter(|event| event["event_type"] == "pr.created").count();
    assert_eq!(opened, TASKS);
}

fn no_task_was_worked_at_twice_at_once(story: &Installation) {
    const ENDS: [&str; 5] =
        ["attempt.completed", "attempt.failed", "attempt.cancelled", "attempt.lost", "attempt.superseded"];
    let mut live: BTreeMap<String, String> = BTreeMap::new();
    for event in story.events() {
        let (task, attempt) = (event["task_id"].to_string(), event["attempt_id"].to_string());
        let event_type = event["event_type"].as_str().unwrap();
        if event_type == "attempt.created" {
            assert_eq!(live.insert(task, attempt), None, "{event}");
        } else if ENDS.contains(&event_type) {
            assert_eq!(live.remove(&task), Some(attempt), "{event}");
        }
    }
}

/// Reads the journal as a stranger would, with nothing but the description of its format.
fn the_chain_on_disk_holds(story: &Installation) {
    let journal = story.data().join("journal");
    let mut segments: Vec<PathBuf> = std::fs::read_dir(journal)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ndjson"))
        .collect();
    segments.sort();
    let text: String = segments.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    let mut previous: Option<String> = None;
    let mut seq = 0_u64;
    for line in text.lines().filter(|line| line.starts_with("{\"body\":")) {
        seq += 1;
        let tail = line.rfind(",\"hash\":\"").unwrap();
        let body = &line["{\"body\":".len()..tail];
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["seq"], seq);
        let prev_hash = record["prev_hash"].as_str().unwrap();
        if let Some(previous) = &previous {
            assert_eq!(prev_hash, previous, "the chain is broken at {seq}");
        }
        let mut hash = Sha256::new();
        hash.update(b"leviathan-event-v1\n");
        hash.update(unhex(prev_hash));
        hash.update(seq.to_be_bytes());
        hash.update(u32::try_from(body.len()).unwrap().to_be_bytes());
        hash.update(body.as_bytes());
        let hash: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(record["hash"], hash, "event {seq} is not what was hashed");
        previous = Some(hash);
    }
    assert!(seq > TASKS as u64);
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A small generator, so that a run can be told by its seed.
struct Chance {
    seed: u64,
    state: u64,
}

impl Chance {
    fn new() -> Self {
        let given = std::env::var("STORY_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()) | 1);
        Self { seed, state: seed }
    }

    fn below(&mut self, end: u64) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % end
    }
}
