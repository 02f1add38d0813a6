//! The far side of C2SP tlog-witness: a witness that keeps the last checkpoint of each log that it knows.
//!
//! Whatever a real one refuses is refused, with the status that the protocol has for it. Notes, checkpoints and proofs
//! are judged by other people's code. [`Witness::meet`] lets requests fail in chosen ways, and [`Witness::stop`] lets
//! the witness go away and come back with what it remembers.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Response, StatusCode};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ed25519_dalek::{Signer as _, SigningKey};
use signed_note::{Note, NoteError, Signature, StandardVerifier, Verifier as _, VerifierList};
use tlog_tiles::{Checkpoint, Hash};
use tokio::sync::oneshot;

/// The byte that says an Ed25519 cosignature.
const COSIGNATURE: u8 = 0x04;

/// What becomes of requests instead of what should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// This status and these words, and nothing is done.
    Status(u16, &'static str),
    /// Status 200 and these words.
    Says(&'static str),
    /// 409, and this as the size.
    Knows(&'static str),
    /// Status 200 and words without an end.
    Endless,
    /// No answer, for as long as the client waits.
    Silence,
    /// The checkpoint is taken, and signed with another key.
    OtherKey,
}

/// A running witness. It stops when it is dropped.
pub struct Witness {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    leave: Option<oneshot::Sender<()>>,
    task: tokio::task::JoinHandle<Result<(), std::io::Error>>,
}

/// A witness that is away, with all that it remembers.
pub struct Away {
    address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    key: SigningKey,
    /// The verifier key of each log by its origin.
    logs: BTreeMap<String, String>,
    /// The size and root that were cosigned last, by origin.
    cosigned: BTreeMap<String, (u64, Hash)>,
    fault: Option<Fault>,
    seen: Vec<String>,
}

/// What a request asks for.
struct Asked {
    old: u64,
    proof: Vec<Hash>,
    note: Note,
    checkpoint: Checkpoint,
}

/// A refusal: its status, and what is said to it.
type Refused = (StatusCode, String);

impl Witness {
    /// Starts a witness that knows no log yet, on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let shared = Shared {
            key: SigningKey::from_bytes(&[9; 32]),
            logs: BTreeMap::new(),
            cosigned: BTreeMap::new(),
            fault: None,
            seen: Vec::new(),
        };
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Away { address: free, shared: Arc::new(Mutex::new(shared)) }.come_back().await
    }

    /// The prefix of its `add-checkpoint`.
    pub fn url(&self) -> String {
        format!("http://{}/w1", self.address)
    }

    /// The key that verifies what it signs.
    pub fn vkey(&self) -> String {
        let shared = self.shared();
        let key = typed(&shared.key);
        format!("{NAME}+{:08x}+{}", signed_note::key_id(NAME, &key), BASE64_STANDARD.encode(key))
    }

    /// From now on it cosigns checkpoints of the log whose verifier key this is.
    pub fn know(&self, vkey: &str) {
        let verifier = StandardVerifier::new(vkey.trim()).expect("the key of a log");
        self.shared().logs.insert(verifier.name().to_owned(), vkey.trim().to_owned());
    }

    /// From now on every request meets this, or nothing again.
    pub fn meet(&self, fault: Option<Fault>) {
        self.shared().fault = fault;
    }

    /// As if it had cosigned this of the log `origin` before.
    pub fn pretend(&self, origin: &str, size: u64, root: [u8; 32]) {
        self.shared().cosigned.insert(origin.to_owned(), (size, Hash(root)));
    }

    /// Forgets all checkpoints.
    pub fn forget(&self) {
        self.shared().cosigned.clear();
    }

    /// The size that it cosigned last of the log `origin`.
    pub fn size(&self, origin: &str) -> u64 {
        self.shared().cosigned.get(origin).map_or(0, |(size, _)| *size)
    }

    /// Each request so far: the sizes that it named, and the status; or the fault that it met.
    pub fn seen(&self) -> Vec<String> {
        self.shared().seen.clone()
    }

    /// Goes away: from now on nobody listens there.
    pub async fn stop(mut self) -> Away {
        // Connections that wait for another request are closed, as by a process that ends.
        drop(self.leave.take());
        let _ = (&mut self.task).await;
        Away { address: self.address, shared: Arc::clone(&self.shared) }
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        locked(&self.shared)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Away {
    /// Listens again where it did.
    pub async fn come_back(self) -> Witness {
        let Self { address, shared } = self;
        let listener = tokio::net::TcpListener::bind(address).await.expect("a free port on the loopback");
        let address = listener.local_addr().expect("a bound listener has an address");
        locked(&shared).fault = None;
        let app = Router::new().route("/w1/add-checkpoint", post(add)).with_state(Arc::clone(&shared));
        let (leave, left) = oneshot::channel::<()>();
        let left = async move { drop(left.await) };
        let task = tokio::spawn(async move { axum::serve(listener, app).with_graceful_shutdown(left).await });
        Witness { address, shared, leave: Some(leave), task }
    }
}

const NAME: &str = "witness.example/w1";

async fn add(State(shared): State<Arc<Mutex<Shared>>>, body: Bytes) -> Response<Body> {
    let fault = locked(&shared).fault.clone();
    if let Some(fault) = &fault {
        locked(&shared).seen.push(format!("{fault:?}"));
    }
    match fault {
        None => cosign(&mut locked(&shared), &body, None),
        Some(Fault::OtherKey) => cosign(&mut locked(&shared), &body, Some(&SigningKey::from_bytes(&[8; 32]))),
        Some(Fault::Status(status, words)) => {
            answer(StatusCode::from_u16(status).expect("a status"), words.to_owned())
        }
        Some(Fault::Says(words)) => answer(StatusCode::OK, words.to_owned()),
        Some(Fault::Knows(size)) => knows(size.to_owned()),
        Some(Fault::Endless) => {
            let pieces =
                futures_util::stream::repeat_with(|| Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 4096])));
            Response::new(Body::from_stream(pieces))
        }
        Some(Fault::Silence) => std::future::pending().await,
    }
}

/// Does what the protocol says, in one piece: nobody comes between the look at the last checkpoint and the next.
fn cosign(shared: &mut Shared, body: &[u8], other_key: Option<&SigningKey>) -> Response<Body> {
    let asked = match read(body) {
        Ok(asked) => asked,
        Err((status, words)) => {
            shared.seen.push(format!("{words} -> {status}"));
            return answer(status, words);
        }
    };
    let (old, size, origin) = (asked.old, asked.checkpoint.size(), asked.checkpoint.origin().to_owned());
    let known = shared.cosigned.get(&origin).copied();
    let judged = judge(&asked, shared.logs.get(&origin), known);
    let status = judged.as_ref().map_or_else(|(status, _)| *status, |()| StatusCode::OK);
    shared.seen.push(format!("{old} to {size} -> {}", status.as_u16()));
    match judged {
        Ok(()) => {
            shared.cosigned.insert(origin, (size, *asked.checkpoint.hash()));
            answer(StatusCode::OK, line(other_key.unwrap_or(&shared.key), &shared.key, asked.note.text()))
        }
        Err((StatusCode::CONFLICT, size)) => knows(size),
        Err((status, words)) => answer(status, words),
    }
}

fn read(body: &[u8]) -> Result<Asked, Refused> {
    let bad = |words: &str| (StatusCode::BAD_REQUEST, words.to_owned());
    let text = std::str::from_utf8(body).map_err(|_| bad("no text"))?;
    let (head, note) = text.split_once("\n\n").ok_or_else(|| bad("no empty line"))?;
    let mut lines = head.split('\n');
    let old = lines.next().and_then(|line| line.strip_prefix("old ")).ok_or_else(|| bad("no old size"))?;
    let size: u64 = old.parse().map_err(|_| bad("an old size that is no number"))?;
    if size.to_string() != old {
        return Err(bad("an old size that is spelled otherwise"));
    }
    let hash = |line: &str| Some(Hash(BASE64_STANDARD.decode(line).ok()?.try_into().ok()?));
    let proof: Option<Vec<Hash>> = lines.map(hash).collect();
    let proof = proof.ok_or_else(|| bad("a line of the proof that is no hash"))?;
    if proof.len() > 63 {
        return Err(bad("more than 63 lines of proof"));
    }
    let note = Note::from_bytes(note.as_bytes()).map_err(|_| bad("no signed note"))?;
    let checkpoint = Checkpoint::from_bytes(note.text()).map_err(|_| bad("no checkpoint"))?;
    Ok(Asked { old: size, proof, note, checkpoint })
}

fn judge(asked: &Asked, log: Option<&String>, known: Option<(u64, Hash)>) -> Result<(), Refused> {
    let Asked { old, proof, note, checkpoint } = asked;
    let (size, root) = (checkpoint.size(), *checkpoint.hash());
    let log = log.ok_or_else(|| (StatusCode::NOT_FOUND, "unknown log".to_owned()))?;
    let verifier = StandardVerifier::new(log).expect("it was one when it was told");
    note.verify(&VerifierList::new(vec![Box::new(verifier)]))
        .map_err(|problem: NoteError| (StatusCode::FORBIDDEN, problem.to_string()))?;
    if *old > size {
        return Err((StatusCode::BAD_REQUEST, "the old size is above the new one".to_owned()));
    }
    let (known_size, known_root) = known.unwrap_or((0, tlog_tiles::EMPTY_HASH));
    if *old != known_size {
        return Err((StatusCode::CONFLICT, format!("{known_size}\n")));
    }
    let holds = match *old {
        0 => proof.is_empty() && (size > 0 || root == tlog_tiles::EMPTY_HASH),
        old if old == size => proof.is_empty() && root == known_root,
        old => tlog_tiles::check_tree(proof, size, root, old, known_root).is_ok(),
    };
    if holds { Ok(()) } else { Err((StatusCode::UNPROCESSABLE_ENTITY, "the proof does not hold".to_owned())) }
}

/// The signature line below a checkpoint, in the name of `named` and made with `key`.
fn line(key: &SigningKey, named: &SigningKey, text: &[u8]) -> String {
    let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs());
    let signed = [format!("cosignature/v1\ntime {time}\n").as_bytes(), text].concat();
    let bytes = [&time.to_be_bytes()[..], &key.sign(&signed).to_bytes()].concat();
    let id = signed_note::key_id(NAME, &typed(named));
    let line = Signature::new(NAME.to_owned(), id, bytes).expect("the name of a key");
    String::from_utf8(line.to_bytes()).expect("a signature line is text")
}

fn typed(key: &SigningKey) -> Vec<u8> {
    [&[COSIGNATURE], key.verifying_key().as_bytes().as_slice()].concat()
}

fn answer(status: StatusCode, words: String) -> Response<Body> {
    let mut response = Response::new(Body::from(words));
    *response.status_mut() = status;
    response
}

fn knows(size: String) -> Response<Body> {
    let mut response = answer(StatusCode::CONFLICT, size);
    response.headers_mut().insert(CONTENT_TYPE, "text/x.tlog.size".parse().expect("a content type"));
    response
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
