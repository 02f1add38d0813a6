//! The log as evidence: what is signed and proven, and which changed logs are refused at the start.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use api::types::{ConsistencyQuery, LogEntriesQuery, ProofQuery};
use api::{Client, ErrorCode};
use journal::{
    Bundle, BundleId, CanonicalBody, Checkpoint, Frontier, Head, InclusionProof, KeyName, Line, Lines,
    SigningKey, Tile, TileHashes, TreeHash, Unchained, VerifierKey, verify_consistency,
};
use leviathan_control_plane::{Config, Server};
use model::EventId;
use secrecy::SecretString;

use crate::support::*;

/// A log of `count` events, written and signed by a control plane that has stopped in order.
async fn written(data: &Path, count: usize) {
    let plane = Plane::start(data).await;
    record(&plane.client, count).await;
    plane.stop().await;
}

async fn record(client: &Client, count: usize) {
    let events: Vec<_> = (0..count).map(|n| paused(&format!("reason {n}"))).collect();
    for bundle in events.chunks(100) {
        client.ingest(bundle.to_vec()).await.unwrap();
    }
}

/// Why a control plane does not start on this log.
async fn refused(data: &Path) -> String {
    let mut config = Config::new(data.to_owned(), SecretString::from(TOKEN));
    config.listen = "127.0.0.1:0".parse().unwrap();
    loop {
        match Server::bind(config.clone()).await {
            // Another test that starts a process holds the lock for an instant.
            Err(error) if error.to_string().contains("in use") => tokio::task::yield_now().await,
            Err(error) => return format!("{error:#}"),
            Ok(_) => panic!("it starts"),
        }
    }
}

fn segment(data: &Path) -> PathBuf {
    data.join("journal/00000000000000000001.ndjson")
}

async fn vkey(client: &Client) -> VerifierKey {
    client.log_vkey().await.unwrap().trim().parse().unwrap()
}

/// The checkpoint of the log once it covers `size`.
async fn checkpoint(client: &Client, size: u64) -> Checkpoint {
    let key = vkey(client).await;
    loop {
        let checkpoint = Checkpoint::open(&client.log_checkpoint().await.unwrap(), &key).unwrap();
        if checkpoint.size >= size {
            return checkpoint;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Every record, in the bytes of the journal.
async fn entries(client: &Client) -> Vec<u8> {
    let (mut all, mut from) = (Vec::new(), 1);
    loop {
        let query = LogEntriesQuery { from: Some(from), limit: Some(77) };
        let lines = client.log_entries(&query).await.unwrap();
        if lines.is_empty() {
            return all;
        }
        from += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        all.extend(lines);
    }
}

fn leaves(lines: &[u8]) -> Vec<TreeHash> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let decoded = lines.map(|line| match Line::decode(line).unwrap() {
        Line::Record(record) => TreeHash::leaf(record.hash()),
        Line::Commit(_) => panic!("only records are entries"),
    });
    decoded.collect()
}

fn root(leaves: &[TreeHash]) -> TreeHash {
    let mut frontier = Frontier::default();
    leaves.iter().for_each(|leaf| frontier.append(*leaf));
    frontier.root()
}

#[tokio::test]
async fn whoever_reads_the_log_can_check_every_root_and_proof() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let client = &plane.client;
    let empty = checkpoint(client, 0).await;
    assert_eq!((empty.size, empty.root), (0, TreeHash::empty()));
    record(client, 300).await;
    let old = checkpoint(client, 300).await;
    let late = paused("late");
    let event_id: EventId = late.event_id.clone();
    client.ingest(vec![late]).await.unwrap();

    // The proof waits for the checkpoint that covers the event.
    let text = client.log_proof(&ProofQuery { event_id }).await.unwrap();
    let proof = InclusionProof::parse(&text).unwrap();
    assert_eq!(proof.index, 300);
    let lines = entries(client).await;
    let Line::Record(last) =
        Line::decode(lines.trim_ascii_end().rsplit(|byte| *byte == b'\n').next().unwrap()).unwrap()
    else {
        panic!("only records are entries")
    };
    let new = proof.verify(last.hash(), &vkey(client).await).unwrap();
    let leaves = leaves(&lines);
    assert_eq!((new.size, new.root), (301, root(&leaves)));

    // The entries are the journal's own bytes.
    let journal = fs::read_to_string(segment(data.path())).unwrap();
    let records: String =
        journal.split_inclusive('\n').filter(|line| line.starts_with("{\"body\"")).collect();
    assert!(records.as_bytes() == lines);

    for (at, wanted) in [(0, 301), (1, 2), (255, 257), (300, 301), (301, 301)] {
        let query = ConsistencyQuery { old: at, new: wanted };
        let hashes = client.log_consistency(&query).await.unwrap();
        let hashes: Vec<_> = hashes.iter().map(|hash| TreeHash::from_base64(hash).unwrap()).collect();
        let at_size = |size: u64| root(&leaves[..usize::try_from(size).unwrap()]);
        assert_eq!(verify_consistency(at, at_size(at), wanted, at_size(wanted), &hashes), Ok(()));
    }
    assert_eq!(old.root, root(&leaves[..300]));

    for tile in Tile::between(0, 301).chain(Tile::parse("tile/0/001.p/3")) {
        let path = tile.to_string();
        let bytes = client.log_tile(path.strip_prefix("tile/").unwrap()).await.unwrap();
        let hashes = TileHashes::from_bytes(tile, &bytes).unwrap();
        if tile.level() == 0 {
            let start = usize::try_from(tile.index()).unwrap() * 256;
            assert_eq!(hashes.hashes(), &leaves[start..start + usize::from(tile.width())]);
        }
    }
    for (path, code) in [
        ("0/001", ErrorCode::NotFound),
        ("0/002", ErrorCode::NotFound),
        ("0/1", ErrorCode::Invalid),
        ("0/../../log-key", ErrorCode::Invalid),
        ("0/..%2f..%2flog-key", ErrorCode::Invalid),
    ] {
        let outcome = client.log_tile(path).await;
        assert!(
            outcome.is_err_and(|error| [Some(code), Some(ErrorCode::NotFound)].contains(&error.code())),
            "{path}"
        );
    }
    for (old, new, code) in [(2, 1, ErrorCode::Invalid), (1, 302, ErrorCode::NotFound)] {
        assert_eq!(refusal(client.log_consistency(&ConsistencyQuery { old, new }).await).1, code);
    }
    let unknown = ProofQuery { event_id: EventId::parse("nobody-sent-this").unwrap() };
    assert_eq!(refusal(client.log_proof(&unknown).await).1, ErrorCode::NotFound);
    plane.stop().await;
}

#[tokio::test]
async fn the_key_is_made_once_for_its_owner_alone_or_given() {
    let data = tempfile::tempdir().unwrap();
    written(data.path(), 1).await;
    let file = data.path().join("log-key");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let kept = fs::read_to_string(&file).unwrap();
    let plane = Plane::start(data.path()).await;
    let key = vkey(&plane.client).await;
    plane.stop().await;
    assert_eq!(SigningKey::parse(kept.trim()).unwrap().verifier(), key);

    fs::remove_file(&file).unwrap();
    assert!(refused(data.path()).await.contains("its key"), "a second key would make a second history");
    let given = SecretString::from(kept);
    let plane = Plane::start_with(data.path(), |config| config.log_key = Some(given)).await;
    assert_eq!(vkey(&plane.client).await, key);
    plane.stop().await;

    let other = SigningKey::from_seed(key.name().clone(), &[1; 32]);
    fs::write(&file, other.to_secret_text()).unwrap();
    assert!(refused(data.path()).await.contains("is not one that the key of this log signed"));
    let foreign = SigningKey::from_seed(KeyName::parse("other/log").unwrap(), &[1; 32]);
    fs::write(&file, foreign.to_secret_text()).unwrap();
    assert!(refused(data.path()).await.contains("the key is that of the log `other/log`"));

    let fresh = tempfile::tempdir().unwrap();
    let given = SecretString::from(foreign.to_secret_text());
    let plane = Plane::start_with(fresh.path(), |config| config.log_key = Some(given)).await;
    assert_eq!(vkey(&plane.client).await, foreign.verifier());
    assert_eq!(fs::read_to_string(fresh.path().join("journal/origin")).unwrap(), "other/log");
    plane.stop().await;
}

#[tokio::test]
async fn an_older_copy_of_the_segments_is_refused() {
    let data = tempfile::tempdir().unwrap();
    written(data.path(), 5).await;
    let backup = fs::read(segment(data.path())).unwrap();
    written(data.path(), 3).await;
    fs::write(segment(data.path()), &backup).unwrap();
    let told = refused(data.path()).await;
    assert!(told.contains("ends with record 5") && told.contains("when it had 8"), "{told}");
    assert!(told.contains("records 6 to 8 were cut off, or an older copy was put back"), "{told}");
    // Refusing changes nothing, not even what looks like the work of an interrupted write: the rest of what was cut.
    let cut = [&backup[..], b"{\"body\":{\"actor_id\""].concat();
    fs::write(segment(data.path()), &cut).unwrap();
    assert!(refused(data.path()).await.contains("ends with record 5"));
    assert_eq!(fs::read(segment(data.path())).unwrap(), cut);
    assert!(!data.path().join("journal/torn").exists());
    fs::remove_file(segment(data.path())).unwrap();
    assert!(refused(data.path()).await.contains("ends with record 0"));
}

/// The same log with the record `changed` another, every hash after it computed anew.
fn rewrite(data: &Path, changed: u64) {
    let origin = fs::read_to_string(data.join("journal/origin")).unwrap();
    let mut bodies = Vec::new();
    let old = fs::read(segment(data)).unwrap();
    journal::scan(&old[..], Head::genesis(&origin), |bundle, _| {
        bodies.extend(bundle.into_records());
        std::io::Result::Ok(())
    })
    .unwrap();
    let (mut head, mut lines) = (Head::genesis(&origin), Lines::default());
    for record in bodies {
        let body = record.body().as_str();
        let body =
            if record.seq() == changed { body.replace("\"reason ", "\"excuse ") } else { body.to_owned() };
        let body = CanonicalBody::admit(body.as_bytes()).unwrap();
        let id = BundleId::parse(&format!("b-{}", record.seq())).unwrap();
        let bundle = Bundle::after(head, Unchained::new(id, vec![body]).unwrap());
        head = bundle.head();
        bundle.encode(&mut lines);
    }
    fs::write(segment(data), lines.bytes).unwrap();
}

#[tokio::test]
async fn a_rewritten_history_is_refused_and_the_first_changed_record_named() {
    for with_tiles in [true, false] {
        let data = tempfile::tempdir().unwrap();
        written(data.path(), 9).await;
        rewrite(data.path(), 4);
        if !with_tiles {
            fs::remove_dir_all(data.path().join("journal/tiles")).unwrap();
        }
        let told = refused(data.path()).await;
        assert!(told.contains("the first 9 records of the journal are not those"), "{told}");
        assert_eq!(told.contains("first of all in record 4"), with_tiles, "{told}");
        // Nor does it help to take the checkpoint away.
        if with_tiles {
            fs::remove_file(data.path().join("journal/checkpoint")).unwrap();
            assert!(refused(data.path()).await.contains("is gone, but there are tiles"));
        }
    }
}

#[tokio::test]
async fn a_changed_checkpoint_is_refused() {
    let data = tempfile::tempdir().unwrap();
    written(data.path(), 2).await;
    let file = data.path().join("journal/checkpoint");
    let note = fs::read_to_string(&file).unwrap();
    for changed in [note.replacen("\n2\n", "\n1\n", 1), String::new(), note[..note.len() - 3].to_owned()] {
        assert_ne!(changed, note);
        fs::write(&file, changed).unwrap();
        assert!(refused(data.path()).await.contains("is not one that the key of this log signed"));
    }
}

/// Every file below a folder, with its content.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = fs::read(&path).unwrap();
            found.push((path, content));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn tiles_that_were_lost_or_damaged_are_made_again_at_the_start() {
    let data = tempfile::tempdir().unwrap();
    written(data.path(), 600).await;
    let tiles = data.path().join("journal/tiles");
    let whole = files(&tiles);
    let names: Vec<_> = whole.iter().map(|(path, _)| path.strip_prefix(&tiles).unwrap()).collect();
    assert_eq!(names, ["0/000", "0/001", "0/002.p/88", "1/000.p/2"].map(Path::new));
    fs::remove_dir_all(&tiles).unwrap();
    Plane::start(data.path()).await.stop().await;
    assert_eq!(files(&tiles), whole);
    for (path, content) in &whole {
        for damage in [Vec::new(), content[..content.len() - 1].to_vec()] {
            fs::write(path, damage).unwrap();
            Plane::start(data.path()).await.stop().await;
            assert_eq!(files(&tiles), whole);
        }
    }
}

#[tokio::test]
async fn a_damaged_tile_is_not_served_as_truth() {
    let data = tempfile::tempdir().unwrap();
    written(data.path(), 600).await;
    let plane = Plane::start(data.path()).await;
    let tiles = data.path().join("journal/tiles");
    for (path, content) in files(&tiles) {
        let name = path.strip_prefix(&tiles).unwrap().to_str().unwrap();
        let mut flipped = content.clone();
        flipped[7] ^= 1;
        for damaged in [flipped, Vec::new()] {
            fs::write(&path, &damaged).unwrap();
            assert_eq!(plane.client.log_tile(name).await.unwrap(), content, "{name}");
            assert_eq!(fs::read(&path).unwrap(), content, "{name}");
            fs::write(&path, &damaged).unwrap();
            let hashes = plane.client.log_consistency(&ConsistencyQuery { old: 1, new: 600 }).await.unwrap();
            assert!(!hashes.is_empty());
        }
        fs::write(&path, &content).unwrap();
    }
    plane.stop().await;
}

#[tokio::test]
async fn a_log_that_was_never_signed_is_signed_as_it_is() {
    let data = tempfile::tempdir().unwrap();
    written(data.path(), 4).await;
    for name in ["log-key", "journal/checkpoint"] {
        fs::remove_file(data.path().join(name)).unwrap();
    }
    fs::remove_dir_all(data.path().join("journal/tiles")).unwrap();
    let plane = Plane::start(data.path()).await;
    assert_eq!(checkpoint(&plane.client, 4).await.size, 4);
    plane.stop().await;
}
