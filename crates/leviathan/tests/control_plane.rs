//! `leviathan control-plane` as a process: how it starts, stops, and what survives when it is killed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use api::types::EventsQuery;
use api::{Client, ClientError, ErrorCode};
use model::event::{EventKind, Reason, Subject, Timestamp};
use model::{ActorId, Event, EventId};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use test_support::postgres::Postgres;
use test_support::witness::Witness;

const TOKEN: &str = "operator-token-of-the-tests";

/// A control plane in a process of its own; killed when the test is done with it.
struct Process {
    child: Child,
    client: Client,
    log: Option<BufReader<ChildStderr>>,
    said: String,
}

impl Process {
    fn start(data: &Path) -> Self {
        Self::start_by(command(data))
    }

    /// Starts the process and waits until it says where it listens.
    fn start_by(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let before = said.len();
            assert!(log.read_line(&mut said).unwrap() > 0, "it ended before it was ready:\n{said}");
            if let Some((_, address)) = said[before..].split_once("is ready. address=") {
                break address.trim().to_owned();
            }
        };
        let client = Client::new(&format!("http://{address}"), SecretString::from(TOKEN)).unwrap();
        Self { child, client, log: Some(log), said }
    }

    /// Waits until it has seen the record `head`, which another process may have written.
    async fn follow(&self, head: u64) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.client.graph_summary().await.unwrap().head < head {
            assert!(Instant::now() < deadline, "it does not follow");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Lets it say as much as it likes meanwhile; all of it comes out once it has ended.
    fn listen(&mut self) -> JoinHandle<String> {
        let (mut said, mut log) = (std::mem::take(&mut self.said), self.log.take().unwrap());
        std::thread::spawn(move || {
            log.read_to_string(&mut said).unwrap();
            said
        })
    }

    /// How it ended, and what it said until then.
    fn end(mut self) -> (ExitStatus, String) {
        let mut said = std::mem::take(&mut self.said);
        if let Some(mut log) = self.log.take() {
            log.read_to_string(&mut said).unwrap();
        }
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(data: &Path) -> Command {
    with(data, "--listen", "127.0.0.1:0")
}

fn with(data: &Path, flag: &str, value: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leviathan"));
    command
        .args(["control-plane", flag, value])
        .env_clear()
        .env("LEVIATHAN_LISTEN", "127.0.0.1:0")
        .env("LEVIATHAN_CONTROL_PLANE_TOKEN", TOKEN)
        .env("LEVIATHAN_DATA_DIR", data);
    command
}

fn event(id: &str, reason: &str) -> Event {
    Event {
        event_id: EventId::parse(id).unwrap(),
        timestamp: Timestamp::new(jiff::Timestamp::UNIX_EPOCH),
        actor_id: ActorId::parse("operator").unwrap(),
        subject: Subject::everything(),
        kind: EventKind::SchedulerPaused(Reason { reason: reason.to_owned() }),
    }
}

/// Every event of the log, in order.
async fn everything(client: &Client) -> Vec<String> {
    let mut ids = Vec::new();
    loop {
        let query = EventsQuery { after: Some(ids.len() as u64), ..EventsQuery::default() };
        let page = client.events(&query).await.unwrap();
        if page.events.is_empty() {
            return ids;
        }
        for recorded in page.events {
            assert_eq!(recorded.seq.0, ids.len() as u64 + 1);
            ids.push(recorded.event.event_id.to_string());
        }
    }
}

/// A bundle that was answered for, as its sender saw it.
struct Answered {
    asked: Instant,
    heard: Instant,
    /// The places of its two events.
    seqs: [u64; 2],
    /// What it is called; its events are this with `-a` and `-b`.
    name: String,
}

/// How often the process is killed.
const ROUNDS: u64 = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_under_many_clients_it_keeps_what_it_answered_for_once_whole_and_in_order() {
    let data = tempfile::tempdir().unwrap();
    let mut answered: Vec<Answered> = Vec::new();
    for round in 0..ROUNDS {
        let process = Process::start(data.path());
        let wanted = process.client.graph_summary().await.unwrap().head + 1 + round * 7 % 40;
        let clients: Vec<_> = (0..8)
            .map(|sender| tokio::spawn(send_until_it_dies(process.client.clone(), round, sender)))
            .collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        while process.client.graph_summary().await.unwrap().head < wanted {
            assert!(Instant::now() < deadline, "nothing moves");
        }
        process.signal(Signal::KILL);
        for client in clients {
            answered.extend(client.await.unwrap());
        }
        let (status, _) = process.end();
        assert!(!status.success());
    }
    let process = Process::start(data.path());
    let kept = everything(&process.client).await;
    assert!(answered.len() as u64 > ROUNDS, "{}", answered.len());
    for Answered { seqs, name, .. } in &answered {
        let found = seqs.map(|seq| kept.get(seq as usize - 1).map(String::as_str));
        assert_eq!(found, [Some(&*format!("{name}-a")), Some(&*format!("{name}-b"))], "{seqs:?}");
    }
    let distinct: BTreeSet<_> = kept.iter().collect();
    assert_eq!(distinct.len(), kept.len(), "each event is there once");
    // Bundles of two: whole and together, or not at all.
    for bundle in kept.chunks(2) {
        let name = bundle[0].strip_suffix("-a").expect("a bundle begins with its first event");
        assert_eq!(bundle[1], format!("{name}-b"));
    }
    in_the_order_of_time(&mut answered);
    // What was not answered for may be sent again, whether it was recorded or not.
    let last = kept.last().unwrap().trim_end_matches("-b").to_owned();
    let again = vec![event(&format!("{last}-a"), "a"), event(&format!("{last}-b"), "b")];
    assert_eq!(process.client.ingest(again).await.unwrap().duplicates, 2);
}

/// Whoever asked after another had been answered comes after that one in the log.
fn in_the_order_of_time(answered: &mut [Answered]) {
    let mut heard: Vec<(Instant, u64)> =
        answered.iter().map(|bundle| (bundle.heard, bundle.seqs[1])).collect();
    heard.sort();
    answered.sort_by_key(|bundle| bundle.asked);
    let (mut heard, mut newest) = (heard.into_iter().peekable(), 0);
    for bundle in answered {
        while let Some((_, seq)) = heard.next_if(|(at, _)| *at < bundle.asked) {
            newest = newest.max(seq);
        }
        assert!(bundle.seqs[0] > newest, "{} was asked for after number {newest} was answered", bundle.name);
    }
}

/// Sends bundles of two until nobody answers; what was answered for.
async fn send_until_it_dies(client: Client, round: u64, sender: u32) -> Vec<Answered> {
    let mut answered = Vec::new();
    for n in 0.. {
        let name = format!("{round}-{sender}-{n}");
        let bundle = vec![event(&format!("{name}-a"), "a"), event(&format!("{name}-b"), "b")];
        let asked = Instant::now();
        match client.ingest(bundle).await {
            Ok(response) => {
                let seqs = [response.seqs[0].0, response.seqs[1].0];
                answered.push(Answered { asked, heard: Instant::now(), seqs, name });
            }
            Err(ClientError::Unreachable { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
    answered
}

/// Control planes on one database, by their clients; the processes come and go.
struct Replicas {
    server: Postgres,
    database: String,
    data: tempfile::TempDir,
    clients: Mutex<Vec<Client>>,
    answered: Mutex<Vec<(u64, String)>>,
    is_over: AtomicBool,
    logs: Mutex<Vec<JoinHandle<String>>>,
}

impl Replicas {
    fn start_one(&self) -> Process {
        let mut command = with(self.data.path(), "--backend", "postgres");
        command
            .env("LEVIATHAN_POSTGRES_URL", self.server.url("log_daily", &self.database))
            .env("LEVIATHAN_POSTGRES_OWNER_URL", self.server.url("log_owner", &self.database));
        let mut process = Process::start_by(command);
        self.logs.lock().unwrap().push(process.listen());
        process
    }

    /// How many records the database holds, now that nobody sends any more.
    fn head(&self) -> u64 {
        let found = self.server.sql("postgres", &self.database, "SELECT seq FROM leviathan.chain_head");
        found.unwrap().parse().unwrap()
    }

    /// Sends bundles of two, each to another replica and until it is answered for.
    async fn send(&self, sender: usize) {
        for n in 0.. {
            let id = format!("{sender}-{n}");
            let bundle = vec![event(&format!("{id}-a"), "a"), event(&format!("{id}-b"), "b")];
            for turn in n.. {
                let client = {
                    let clients = self.clients.lock().unwrap();
                    clients[(sender + turn) % clients.len()].clone()
                };
                match client.ingest(bundle.clone()).await {
                    Ok(response) => {
                        let mut answered = self.answered.lock().unwrap();
                        answered.push((response.seqs[0].0, format!("{id}-a")));
                        answered.push((response.seqs[1].0, format!("{id}-b")));
                        break;
                    }
                    Err(error) => assert!(
                        matches!(error, ClientError::Unreachable { .. })
                            || matches!(error.code(), Some(ErrorCode::Unavailable | ErrorCode::Timeout)),
                        "{error}"
                    ),
                }
                if self.is_over.load(Ordering::Relaxed) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if self.is_over.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Waits until so many more events were answered for.
    async fn progress(&self, events: usize) {
        let count = || self.answered.lock().unwrap().len();
        let (wanted, deadline) = (count() + events, Instant::now() + Duration::from_secs(60));
        while count() < wanted {
            assert!(Instant::now() < deadline, "nothing moves");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_on_one_database_lose_nothing_when_it_and_they_are_killed() {
    let server = Postgres::start();
    let database = server.create_database("log_owner");
    server.create_role("log_daily");
    let replicas = Arc::new(Replicas {
        server,
        database,
        data: tempfile::tempdir().unwrap(),
        clients: Mutex::default(),
        answered: Mutex::default(),
        is_over: AtomicBool::new(false),
        logs: Mutex::default(),
    });
    let mut processes: Vec<Process> = (0..3).map(|_| replicas.start_one()).collect();
    replicas.clients.lock().unwrap().extend(processes.iter().map(|process| process.client.clone()));
    let senders: Vec<_> = (0..6)
        .map(|sender| {
            let replicas = Arc::clone(&replicas);
            tokio::spawn(async move { replicas.send(sender).await })
        })
        .collect();
    for (round, process) in processes.iter_mut().enumerate() {
        replicas.progress(60).await;
        let died = Arc::clone(&replicas);
        let restart = move || {
            died.server.kill();
            died.server.restart();
        };
        tokio::task::spawn_blocking(restart).await.unwrap();
        replicas.progress(60).await;
        process.signal(Signal::KILL);
        let new = replicas.start_one();
        replicas.clients.lock().unwrap()[round] = new.client.clone();
        *process = new;
    }
    replicas.progress(30).await;
    replicas.is_over.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.await.unwrap();
    }

    let head = replicas.head();
    for process in &processes {
        process.follow(head).await;
    }
    let kept = everything(&processes[0].client).await;
    assert_eq!(kept.len() as u64, head);
    for (seq, id) in &*replicas.answered.lock().unwrap() {
        assert_eq!(kept.get(*seq as usize - 1), Some(id), "answered for as number {seq}");
    }
    let distinct: BTreeSet<_> = kept.iter().collect();
    assert_eq!(distinct.len(), kept.len(), "each event is there once");
    for bundle in kept.chunks(2) {
        assert_eq!(bundle[0].strip_suffix("-a"), bundle[1].strip_suffix("-b"), "bundles are whole");
    }
    for process in &processes[1..] {
        assert_eq!(everything(&process.client).await, kept);
    }
    drop(processes);
    for log in replicas.logs.lock().unwrap().drain(..) {
        let said = log.join().unwrap();
        assert!(said.contains("PostgreSQL") && !said.contains("postgres://"), "no URL is logged: {said}");
    }
}

#[tokio::test]
async fn a_torn_tail_is_set_aside_and_reported() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path());
    process.client.ingest(vec![event("one", "a")]).await.unwrap();
    process.client.ingest(vec![event("two", "b")]).await.unwrap();
    process.signal(Signal::KILL);
    process.end();
    let segment = data.path().join("journal/00000000000000000001.ndjson");
    let bytes = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, &bytes[..bytes.len() - 20]).unwrap();

    let process = Process::start(data.path());
    assert!(process.said.contains("was set aside"), "{}", process.said);
    assert_eq!(everything(&process.client).await, ["one"]);
    assert_eq!(std::fs::read_dir(data.path().join("journal/torn")).unwrap().count(), 1);
    process.client.ingest(vec![event("two", "b")]).await.unwrap();
}

#[tokio::test]
async fn told_to_stop_it_ends_well() {
    let data = tempfile::tempdir().unwrap();
    for signal in [Signal::TERM, Signal::INT] {
        let process = Process::start(data.path());
        process.client.health().await.unwrap();
        process.signal(signal);
        let (status, said) = process.end();
        assert!(status.success(), "{said}");
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_stops_writes_keeps_reads_and_ends_in_failure() {
    let data = tempfile::tempdir().unwrap();
    // No file may grow beyond a few tens of kilobytes: some write ends half way, with an error that is not that
    // of a full disk.
    let server = with(data.path(), "--read-only-for", "3");
    let mut limited = Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 64; exec \"$0\" \"$@\""]).arg(server.get_program());
    limited.args(server.get_args()).env_clear();
    limited.envs(server.get_envs().filter_map(|(key, value)| value.map(|value| (key, value))));
    let process = Process::start_by(limited);
    let mut answered = 0;
    let refused = loop {
        match process.client.ingest(vec![event(&format!("e-{answered}"), &"x".repeat(3_000))]).await {
            Ok(_) => answered += 1,
            Err(error) => break error,
        }
        assert!(answered < 100);
    };
    assert_eq!(refused.code(), Some(ErrorCode::Unavailable), "{refused}");
    assert!(answered > 2);
    let again = process.client.ingest(vec![event("small", "x")]).await.unwrap_err();
    assert_eq!(again.code(), Some(ErrorCode::Unavailable));
    assert_eq!(process.client.readiness().await.unwrap_err().code(), Some(ErrorCode::Unavailable));
    assert_eq!(everything(&process.client).await.len(), answered);
    // Nobody tells it to: it ends by itself, so that whoever watches it notices.
    let (status, said) = process.end();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("can no longer be written"), "{said}");

    let process = Process::start(data.path());
    assert_eq!(everything(&process.client).await.len(), answered);
    process.client.ingest(vec![event("small", "x")]).await.unwrap();
}

/// One sample of what Prometheus is told.
fn sample(client: &Client, name: &str) -> f64 {
    let address = client.base().strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "GET /metrics HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let samples = answer.lines().filter_map(|line| line.split_once(' '));
    let mut found = samples.filter(|(sample, _)| *sample == name).map(|(_, value)| value.parse().unwrap());
    found.next().unwrap_or_else(|| panic!("no {name} in {answer}"))
}

#[tokio::test]
async fn that_signing_fails_is_said_once_and_that_it_works_again_once() {
    let data = tempfile::tempdir().unwrap();
    let mut process = Process::start(data.path());
    let log = process.listen();
    let obstacle = data.path().join("journal/checkpoint.new");
    std::fs::create_dir(&obstacle).unwrap();
    process.client.ingest(vec![event("e-1", "x")]).await.unwrap();
    while sample(&process.client, "leviathan_checkpoint_failures_total") < 3.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    std::fs::remove_dir(&obstacle).unwrap();
    while sample(&process.client, "leviathan_checkpoint_lag_events") > 0.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    process.signal(Signal::TERM);
    let (status, _) = process.end();
    assert!(status.success());
    let said = log.join().unwrap();
    for (words, times) in [
        ("The log goes on, but without a new checkpoint", 1),
        ("The log is signed again", 1),
        ("Stopped without a checkpoint", 0),
    ] {
        assert_eq!(said.matches(words).count(), times, "{words} in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_the_witness_is_away_is_said_once_and_that_it_is_back_once() {
    let (witness, data) = (Witness::start().await, tempfile::tempdir().unwrap());
    let mut command = command(data.path());
    command.env("LEVIATHAN_WITNESS_URL", witness.url()).env("LEVIATHAN_WITNESS_KEY", witness.vkey());
    let mut process = Process::start_by(command);
    let log = process.listen();
    witness.know(&process.client.log_vkey().await.unwrap());
    let cosigned = async |process: &Process| {
        while sample(&process.client, "leviathan_witness_lag_events") > 0.0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    process.client.ingest(vec![event("e-1", "x")]).await.unwrap();
    cosigned(&process).await;
    let away = witness.stop().await;
    process.client.ingest(vec![event("e-2", "x")]).await.unwrap();
    while sample(&process.client, "leviathan_witness_failures_total") < 2.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _witness = away.come_back().await;
    cosigned(&process).await;
    process.signal(Signal::TERM);
    let (status, _) = process.end();
    assert!(status.success());
    let said = log.join().unwrap();
    for (words, times) in [
        ("its checkpoints are not cosigned", 1),
        ("it does not answer", 1),
        ("The witness cosigns again", 1),
        ("The witness contradicts this log", 0),
    ] {
        assert_eq!(said.matches(words).count(), times, "{words} in:\n{said}");
    }
}

#[test]
fn what_it_cannot_be_started_with_is_said_with_the_way_out() {
    let data = tempfile::tempdir().unwrap();
    let process = Process::start(data.path());
    let occupied = process.client.base().trim_start_matches("http://").to_owned();
    let other = tempfile::tempdir().unwrap();
    let mut without_token = command(other.path());
    without_token.env_remove("LEVIATHAN_CONTROL_PLANE_TOKEN");
    let rows = [
        (command(data.path()), "in use by process"),
        (with(other.path(), "--listen", &occupied), "is another control plane running?"),
        (with(other.path(), "--backend", "postgres"), "LEVIATHAN_POSTGRES_URL is not set"),
        (with(other.path(), "--backend", "paper"), "possible values: ndjson, postgres, memory"),
        (with(other.path(), "--listen", "nonsense"), "invalid socket address"),
        (with(other.path(), "--token", "short"), "shorter than 8 characters"),
        (without_token, "LEVIATHAN_CONTROL_PLANE_TOKEN is not set"),
        (with(other.path(), "--witness-url", "https://witness.example"), "--witness-key <VKEY>"),
        (with(other.path(), "--witness-url", "ftp://witness.example"), "is not the URL of a witness"),
        (with(other.path(), "--witness-key", "no+0123abcd+key"), "is not the key of a witness"),
    ];
    for (mut command, expected) in rows {
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{expected}: {said}");
        assert!(!said.contains(TOKEN), "{said}");
    }
}

#[test]
fn plan_asks_with_the_token_that_is_kept_in_the_data_folder() {
    let data = tempfile::tempdir().unwrap();
    let plane = Process::start(data.path());
    let plan = || {
        let mut plan = Command::new(env!("CARGO_BIN_EXE_leviathan"));
        plan.arg("plan").env_remove("LEVIATHAN_CONTROL_PLANE_TOKEN").env("LEVIATHAN_DATA_DIR", data.path());
        plan.env("LEVIATHAN_CONTROL_PLANE_URL", plane.client.base());
        let output = plan.output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let (code, said) = plan();
    assert!(code == Some(2) && said.contains("there is no"), "{said}");
    std::fs::write(data.path().join("token"), format!("{TOKEN}\n")).unwrap();
    assert_eq!(plan().0, Some(0), "{}", plan().1);
}

#[tokio::test]
async fn the_log_moves_into_a_database_and_back_byte_for_byte() {
    let (original, back) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let process = Process::start(original.path());
    for n in 0..20 {
        process
            .client
            .ingest(vec![event(&format!("{n}-a"), "a"), event(&format!("{n}-b"), "b")])
            .await
            .unwrap();
    }
    process.signal(Signal::TERM);
    assert!(process.end().0.success());
    let server = Postgres::start();
    let database = server.create_database("log_owner");
    let copy = |from: &str, into: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_leviathan"));
        command.args(["copy-log", from, into]).env_clear();
        command.env("LEVIATHAN_POSTGRES_URL", server.url("log_owner", &database));
        let output = command.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), said)
    };
    let [from, into] = [&original, &back].map(|folder| folder.path().to_str().unwrap());
    let (code, said) = copy(from, "postgres");
    assert!(code == Some(0) && said.contains("Copied 40 records"), "{said}");
    let (code, said) = copy("postgres", into);
    assert!(code == Some(0), "{said}");
    for name in ["00000000000000000001.ndjson", "origin", "checkpoint"] {
        let read = |folder: &str| std::fs::read(Path::new(folder).join("journal").join(name)).unwrap();
        assert!(read(from) == read(into), "{name}");
    }
    let nowhere = back.path().join("nowhere");
    for (from, into, told) in [
        (from, "postgres", "is not empty"),
        (from, into, "is not empty"),
        (from, from, "the same place"),
        (nowhere.to_str().unwrap(), "postgres", "has no journal"),
        ("postgres://role:secret@localhost/log", into, "LEVIATHAN_POSTGRES_URL"),
    ] {
        let (code, said) = copy(from, into);
        assert!(code == Some(2) && said.contains(told), "{told}: {said}");
    }
    assert!(!nowhere.exists());
}
