//! The log as evidence: a journal that a control plane wrote, and changed copies of it, judged by `leviathanctl
//! log` and by the verifier of the documentation, which shares no code with us.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use api::Client;
use control_plane::{Config, Server};
use journal::{Bundle, BundleId, CanonicalBody, ChainHash, Head, InclusionProof, Lines, Record, Unchained};
use model::Event;
use secrecy::SecretString;
use serde_json::json;

const TOKEN: &str = "operator-token";

/// A log of 300 events in bundles of three, and what was kept of it on the way.
struct Story {
    folder: tempfile::TempDir,
    vkey: String,
}

impl Story {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let story = Self { folder, vkey: String::new() };
        let vkey = story.while_running(|story, url| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let client = Client::new(url, SecretString::from(TOKEN)).unwrap();
            for n in 0..100 {
                let events = (0..3).map(|m| paused(&format!("event-{n}-{m}"))).collect();
                runtime.block_on(client.ingest(events)).unwrap();
                if n == 40 {
                    let proof = told(&story.asked(url, &["log", "proof", "event-40-2"]));
                    fs::write(story.path("early.proof"), proof).unwrap();
                    fs::write(
                        story.path("early.checkpoint"),
                        told(&story.asked(url, &["log", "checkpoint"])),
                    )
                    .unwrap();
                }
            }
            told(&story.asked(url, &["log", "vkey"])).trim().to_owned()
        });
        Self { vkey, ..story }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn journal(&self) -> PathBuf {
        self.path("data/journal")
    }

    /// Runs a control plane on the log, and ends it in order.
    fn while_running<T>(&self, act: impl FnOnce(&Self, &str) -> T) -> T {
        self.while_running_with(|_| {}, act)
    }

    fn while_running_with<T>(
        &self,
        adjust: impl FnOnce(&mut Config),
        act: impl FnOnce(&Self, &str) -> T,
    ) -> T {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut config = Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            ..Config::new(self.path("data"), SecretString::from(TOKEN))
        };
        adjust(&mut config);
        let server = loop {
            match runtime.block_on(Server::bind(config.clone())) {
                Ok(server) => break server,
                // A process that another test starts holds our lock for an instant.
                Err(error) => assert!(error.to_string().contains("in use"), "{error:#}"),
            }
        };
        let url = format!("http://{}", server.address());
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = runtime.spawn(server.run(async move {
            let _ = stopped.await;
        }));
        let outcome = act(self, &url);
        let _ = stop.send(());
        runtime.block_on(running).unwrap().unwrap();
        outcome
    }

    fn asked(&self, url: &str, arguments: &[&str]) -> Output {
        let mut command = leviathanctl(arguments);
        command.env("LEVIATHAN_CONTROL_PLANE_URL", url).env("LEVIATHAN_CONTROL_PLANE_TOKEN", TOKEN);
        command.output().unwrap()
    }

    /// What both verifiers say about a folder: their exit codes and words.
    fn judged(&self, journal: &Path) -> [(i32, String); 2] {
        let offline = ["log", "verify", "--key", &self.vkey, "--offline", journal.to_str().unwrap()];
        let ours = leviathanctl(&offline).output().unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verify_log.py");
        let theirs = Command::new("python3").arg(script).arg(journal).arg(&self.vkey).output().unwrap();
        [ours, theirs].map(|output| {
            let words = [output.stdout, output.stderr].concat();
            (output.status.code().unwrap(), String::from_utf8(words).unwrap())
        })
    }
}

fn paused(id: &str) -> Event {
    serde_json::from_value(json!({
        "event_id": id, "event_type": "scheduler.paused", "timestamp": "2026-01-31T12:00:00Z",
        "actor_id": "operator", "payload": { "reason": "because" },
    }))
    .unwrap()
}

/// The program with nothing in its environment.
fn leviathanctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leviathanctl"));
    command.args(arguments).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// The output of a command that must have done what it was told.
fn told(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// The bundles of a journal with one segment.
fn bundles(journal: &Path) -> (Head, Vec<Bundle>) {
    let genesis = Head::genesis(&fs::read_to_string(journal.join("origin")).unwrap());
    let mut bundles = Vec::new();
    journal::scan(&fs::read(segment(journal)).unwrap()[..], genesis, |bundle, _| {
        bundles.push(bundle);
        std::io::Result::Ok(())
    })
    .unwrap();
    (genesis, bundles)
}

fn segment(journal: &Path) -> PathBuf {
    journal.join("00000000000000000001.ndjson")
}

/// The log with these bodies, every hash computed anew: what somebody with our program and no key can write.
fn rewritten(genesis: Head, bodies: impl Iterator<Item = String>) -> Vec<u8> {
    let (mut head, mut lines) = (genesis, Lines::default());
    for (n, body) in bodies.enumerate() {
        let body = CanonicalBody::admit(body.as_bytes()).unwrap();
        let id = BundleId::parse(&format!("b-{n}")).unwrap();
        let bundle = Bundle::after(head, Unchained::new(id, vec![body]).unwrap());
        head = bundle.head();
        bundle.encode(&mut lines);
    }
    lines.bytes
}

#[test]
fn whatever_is_done_to_a_signed_journal_is_seen_by_two_independent_verifiers() {
    let story = Story::new();
    for (code, words) in story.judged(&story.journal()) {
        assert_eq!(code, 0, "{words}");
        assert!(words.contains("300 records"), "{words}");
    }
    let (genesis, bundles) = bundles(&story.journal());
    let bodies = || {
        let records = bundles.iter().flat_map(Bundle::records);
        records.map(|record: &Record| record.body().as_str().to_owned()).collect::<Vec<_>>()
    };
    let whole = fs::read_to_string(segment(&story.journal())).unwrap();
    let lines: Vec<&str> = whole.split_inclusive('\n').collect();
    let without = |n: usize| [&lines[..n], &lines[n + 1..]].concat().concat();
    let mut swapped = lines.clone();
    swapped.swap(4, 5);
    let mut bundles_swapped = lines.clone();
    bundles_swapped[..8].rotate_left(4);
    let cut: String = lines[..lines.len() - 4].concat();
    let mut forged = bodies();
    forged[7] = forged[7].replace("because", "no reason");
    let changes: Vec<(&str, Vec<u8>, &str)> = vec![
        ("an edit", whole.replacen("because", "because!", 1).into_bytes(), "record 1"),
        ("an edit of the last record", edit_last(&whole).into_bytes(), "record 300"),
        ("a deleted record", without(4).into_bytes(), "record 4"),
        ("a deleted bundle", [&lines[..4], &lines[8..]].concat().concat().into_bytes(), "record 4"),
        ("two records in another order", swapped.concat().into_bytes(), "record 4"),
        ("two bundles in another order", bundles_swapped.concat().into_bytes(), "record 1"),
        ("a cut end", cut.into_bytes(), "cut off"),
        ("a cut last line", whole.as_bytes()[..whole.len() - 9].to_vec(), "cut off"),
        ("a rewritten history", rewritten(genesis, forged.into_iter()), "history was rewritten"),
        ("a record less, all computed anew", rewritten(genesis, bodies().into_iter().skip(1)), "cut off"),
        ("a log of another name", rewritten(Head::genesis("other"), bodies().into_iter()), "record 1"),
    ];
    for (what, segment_bytes, word) in changes {
        let copy = copy_of(&story.journal());
        fs::write(segment(copy.path()), segment_bytes).unwrap();
        for (code, words) in story.judged(copy.path()) {
            assert_eq!(code, 1, "{what}: {words}");
            assert!(words.contains(word), "{what}: {words}");
        }
    }
    for (what, note) in [
        (
            "a checkpoint of another size",
            fs::read_to_string(story.journal().join("checkpoint")).unwrap().replacen("\n300\n", "\n299\n", 1),
        ),
        ("a checkpoint without its signature", "x\n0\n\n".to_owned()),
    ] {
        let copy = copy_of(&story.journal());
        fs::write(copy.path().join("checkpoint"), note).unwrap();
        for (code, words) in story.judged(copy.path()) {
            assert_eq!(code, 1, "{what}: {words}");
        }
    }
    let copy = copy_of(&story.journal());
    fs::remove_file(copy.path().join("checkpoint")).unwrap();
    for (code, words) in story.judged(copy.path()) {
        assert!(code == 1 && words.contains("there is no checkpoint"), "{words}");
    }
}

/// The last record with another body under its old hash.
fn edit_last(whole: &str) -> String {
    let at = whole.rfind("because").unwrap();
    format!("{}Because{}", &whole[..at], &whole[at + 7..])
}

fn copy_of(journal: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for name in ["origin", "checkpoint", "00000000000000000001.ndjson"] {
        fs::copy(journal.join(name), copy.path().join(name)).unwrap();
    }
    copy
}

#[test]
fn an_older_copy_with_its_own_checkpoint_is_seen_by_a_checkpoint_that_was_kept() {
    let story = Story::new();
    let backup = copy_of(&story.journal());
    story.while_running(|story, url| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = Client::new(url, SecretString::from(TOKEN)).unwrap();
        runtime.block_on(client.ingest(vec![paused("the-last")])).unwrap();
        told(&story.asked(url, &["log", "proof", "the-last"]));
        fs::write(story.path("late.checkpoint"), told(&story.asked(url, &["log", "checkpoint"]))).unwrap();
    });
    let (early, late) = (story.path("early.checkpoint"), story.path("late.checkpoint"));
    let verify = |journal: &Path, kept: &Path| {
        let journal = journal.to_str().unwrap();
        let kept = kept.to_str().unwrap();
        leviathanctl(&["log", "verify", "--key", &story.vkey, "--offline", journal, "--since", kept])
            .output()
            .unwrap()
    };
    assert!(told(&verify(&story.journal(), &late)).contains("301 records"));
    assert!(told(&verify(&story.journal(), &early)).contains("early.checkpoint"));
    for (code, words) in story.judged(backup.path()) {
        assert_eq!(code, 0, "by itself it looks well: {words}");
    }
    let refused = verify(backup.path(), &late);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("an older copy was put back"));
}

#[test]
fn a_log_is_verified_through_the_api_and_from_its_export() {
    let story = Story::new();
    let export = story.path("export.ndjson");
    let export_text = export.to_str().unwrap();
    story.while_running(|story, url| {
        let with_key = told(&story.asked(url, &["log", "verify", "--key", &story.vkey]));
        assert!(with_key.contains("300 records") && with_key.contains("the key signed"), "{with_key}");
        let without = told(&story.asked(url, &["log", "verify"]));
        assert!(without.contains("not proved") && without.contains("no key was given"), "{without}");
        let json = told(&story.asked(url, &["log", "verify", "--output", "json"]));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["records"], 300);
        told(&story.asked(url, &["log", "export", export_text]));
        let streamed = told(&story.asked(url, &["log", "export", "-"]));
        assert!(streamed == fs::read_to_string(&export).unwrap());
        let other = "other/log+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        assert_eq!(story.asked(url, &["log", "verify", "--key", other]).status.code(), Some(2));
        let foreign = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        assert_eq!(story.asked(url, &["log", "verify", "--key", foreign]).status.code(), Some(1));
    });
    let verify =
        || leviathanctl(&["log", "verify", "--key", &story.vkey, "--offline", export_text]).output().unwrap();
    assert!(told(&verify()).contains("300 records"));
    let whole = fs::read_to_string(&export).unwrap();
    for changed in [
        whole.replacen("because", "Because", 1),
        whole.trim_end().to_owned(),
        whole.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n",
    ] {
        fs::write(&export, changed).unwrap();
        assert_eq!(verify().status.code(), Some(1));
    }
}

#[test]
fn an_export_becomes_a_journal_that_goes_on() {
    let story = Story::new();
    let export = story.path("export.ndjson");
    story.while_running(|story, url| told(&story.asked(url, &["log", "export", export.to_str().unwrap()])));
    let whole = fs::read_to_string(&export).unwrap();
    let import = |folder: &Path| {
        let arguments =
            ["log", "import", "--key", &story.vkey, export.to_str().unwrap(), folder.to_str().unwrap()];
        leviathanctl(&arguments).output().unwrap()
    };
    // What does not verify leaves no journal.
    let damaged = [
        (whole.replacen("because", "Because", 1), "record 1"),
        (whole.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n", "cut off"),
        (whole.trim_end().to_owned(), "not whole"),
    ];
    for (text, word) in damaged {
        fs::write(&export, text).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let output = import(folder.path());
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && words.contains(word), "{words}");
        assert!(!folder.path().join("journal").exists());
    }

    fs::write(&export, &whole).unwrap();
    let original = story.path("data");
    let kept = story.path("kept");
    fs::rename(&original, &kept).unwrap();
    assert!(told(&import(&original)).contains("300 records"));
    assert_eq!(import(&original).status.code(), Some(2), "it is there already");
    for (code, words) in story.judged(&story.journal()) {
        assert_eq!(code, 0, "{words}");
    }
    fs::copy(kept.join("log-key"), original.join("log-key")).unwrap();
    story.while_running(|story, url| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = Client::new(url, SecretString::from(TOKEN)).unwrap();
        // It knows what was recorded before.
        let again = runtime.block_on(client.ingest(vec![paused("event-7-1"), paused("new")])).unwrap();
        assert_eq!((again.duplicates, again.head), (1, 301));
        let since = story.path("early.checkpoint");
        let verify = ["log", "verify", "--key", &story.vkey, "--since", since.to_str().unwrap()];
        assert!(told(&story.asked(url, &verify)).contains("early.checkpoint"));
    });
}

#[test]
fn a_key_is_made_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("log-key");
    let arguments = ["log", "keygen", "example.com/log", file.to_str().unwrap()];
    let vkey = told(&leviathanctl(&arguments).output().unwrap());
    let key = journal::SigningKey::parse(fs::read_to_string(&file).unwrap().trim()).unwrap();
    assert_eq!(key.verifier().to_string(), vkey.trim());
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // An old key is never written over, and no two are the same.
    assert_eq!(leviathanctl(&arguments).output().unwrap().status.code(), Some(2));
    fs::remove_file(&file).unwrap();
    assert_ne!(told(&leviathanctl(&arguments).output().unwrap()), vkey);
    let refused = leviathanctl(&["log", "keygen", "two words", "/nonexistent/key"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(2));
}

#[test]
fn a_proof_that_was_kept_holds_without_the_log() {
    let story = Story::new();
    let text = fs::read_to_string(story.path("early.proof")).unwrap();
    let proof = InclusionProof::parse(&text).unwrap();
    let (_, bundles) = bundles(&story.journal());
    let hashes: Vec<ChainHash> = bundles.iter().flat_map(Bundle::records).map(Record::hash).collect();
    let record = hashes[usize::try_from(proof.index).unwrap()];
    let checkpoint = proof.verify(record, &story.vkey.parse().unwrap()).unwrap();
    assert!(checkpoint.size > proof.index);
    assert!(proof.verify(hashes[0], &story.vkey.parse().unwrap()).is_err());
}

/// A log of five events that a witness has cosigned, while it runs.
#[test]
fn what_a_witness_cosigned_is_verified_by_its_key_alone() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let witness = runtime.block_on(test_support::witness::Witness::start());
    let (url, vkey) = (witness.url().parse().unwrap(), witness.vkey());
    let story = Story { folder: tempfile::tempdir().unwrap(), vkey: String::new() };
    let access = control_plane::WitnessAccess { url, key: vkey.parse().unwrap() };
    let key = story.while_running_with(
        |config| config.witness = Some(access),
        |story, url| {
            let client = Client::new(url, SecretString::from(TOKEN)).unwrap();
            let key = told(&story.asked(url, &["log", "vkey"])).trim().to_owned();
            let nothing_yet = story.asked(url, &["log", "verify", "--key", &key, "--witness", &vkey]);
            assert_eq!(nothing_yet.status.code(), Some(1), "{nothing_yet:?}");
            witness.know(&key);
            let events = (0..5).map(|n| paused(&format!("event-{n}"))).collect();
            runtime.block_on(client.ingest(events)).unwrap();
            while witness.size(key.split('+').next().unwrap()) < 5 {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            let keep = ["log", "checkpoint", "--key", &key, "--witness", &vkey];
            let mut kept = story.asked(url, &keep);
            while !kept.status.success() {
                kept = story.asked(url, &keep);
            }
            fs::write(story.path("kept"), told(&kept)).unwrap();
            let verified = told(&story.asked(url, &["log", "verify", "--key", &key, "--witness", &vkey]));
            assert!(verified.contains("The witness witness.example/w1 cosigned"), "{verified}");
            key
        },
    );
    let journal = story.journal();
    let journal = journal.to_str().unwrap();
    let kept = story.path("kept");
    let kept = kept.to_str().unwrap();
    let offline = ["log", "verify", "--key", &key, "--offline", journal, "--witness", &vkey];
    let without = leviathanctl(&offline).output().unwrap();
    let words = String::from_utf8(without.stderr).unwrap();
    assert!(
        without.status.code() == Some(1) && words.contains("no checkpoint here bears a cosignature"),
        "{words}"
    );
    let verified = told(&leviathanctl(&[&offline[..], &["--since", kept]].concat()).output().unwrap());
    assert!(verified.contains("The witness witness.example/w1 cosigned the checkpoint in"), "{verified}");
    // The line of a witness disturbs neither verifier, and a changed one is seen by whoever has its key.
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/verify_log.py");
    told(&Command::new("python3").args([script, journal, &key, kept]).output().unwrap());
    let note = fs::read_to_string(kept).unwrap();
    let line = note.rfind(' ').unwrap() + 20;
    let changed = if &note[line..=line] == "A" { "B" } else { "A" };
    fs::write(kept, format!("{}{changed}{}", &note[..line], &note[line + 1..])).unwrap();
    let refused = leviathanctl(&[&offline[..], &["--since", kept]].concat()).output().unwrap();
    let words = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && words.contains("is not to be believed"), "{words}");
}
