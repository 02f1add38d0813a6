//! The far side of S3: one bucket, path-style requests, every signature verified.
//!
//! Only what a client of content-addressed objects needs is there: GET, HEAD and PUT of one object. A request that
//! S3 would refuse is refused in S3's words. [`S3::next`] lets the following requests fail in chosen ways.

mod signature;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, Method, Response, StatusCode};

use signature::Signed;

/// The key that is let in.
pub const KEY_ID: &str = "AKIATESTTESTTESTTEST";
/// Its secret.
pub const SECRET: &str = "secret/of+the+tests/0123456789abcdefghij";
/// The region of the bucket.
pub const REGION: &str = "eu-test-1";
/// The bucket.
pub const BUCKET: &str = "leviathan-test";

/// What becomes of a request instead of what should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This status, and nothing is done.
    Status(u16),
    /// It is carried out, and the connection ends without an answer.
    LostAnswer,
    /// No answer, for as long as the client waits.
    Silence,
    /// The answer has one bit that the object has not.
    FlippedBit,
}

/// A running store. It stops when it is dropped.
pub struct S3 {
    endpoint: String,
    shared: Arc<Mutex<Shared>>,
    task: tokio::task::JoinHandle<Result<(), std::io::Error>>,
}

#[derive(Default)]
struct Shared {
    objects: BTreeMap<String, Bytes>,
    faults: VecDeque<Fault>,
    knows_no_conditions: bool,
    is_gone: bool,
    seen: Vec<String>,
}

impl S3 {
    /// Starts a store with an empty bucket on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        let listener =
            tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port on the loopback");
        let endpoint = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
        let shared = Arc::default();
        let app =
            Router::new().fallback(answer).layer(DefaultBodyLimit::disable()).with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move { axum::serve(listener, app).await });
        Self { endpoint, shared, task }
    }

    /// The variables with which a client is let in.
    pub fn variables(&self) -> [(&'static str, String); 4] {
        [
            ("AWS_ENDPOINT_URL", self.endpoint.clone()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ]
    }

    /// The next requests meet these faults, one each; those after them are answered well.
    pub fn next(&self, faults: &[Fault]) {
        self.shared().faults.extend(faults);
    }

    /// From now on a PUT on a condition is refused with 501, as by stores that do not know it.
    pub fn know_no_conditions(&self) {
        self.shared().knows_no_conditions = true;
    }

    /// The bytes under a key.
    pub fn object(&self, key: &str) -> Option<Bytes> {
        self.shared().objects.get(key).cloned()
    }

    /// The keys of all objects.
    pub fn keys(&self) -> Vec<String> {
        self.shared().objects.keys().cloned().collect()
    }

    /// Puts other bytes under a key, past every check.
    pub fn replace(&self, key: &str, bytes: &[u8]) {
        self.shared().objects.insert(key.to_owned(), Bytes::copy_from_slice(bytes));
    }

    /// Each request so far: method, key, status; or the fault that it met.
    pub fn seen(&self) -> Vec<String> {
        self.shared().seen.clone()
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.task.abort();
        // Connections outlive the task that accepted them.
        self.shared().is_gone = true;
    }
}

/// A refusal in S3's words.
struct Refusal(u16, &'static str, &'static str);

async fn answer(State(shared): State<Arc<Mutex<Shared>>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let lock = || shared.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if lock().is_gone {
        hang_up();
    }
    let fault = lock().faults.pop_front();
    if let Some(fault) = fault {
        lock().seen.push(format!("{} met {fault:?}", parts.method));
    }
    match fault {
        Some(Fault::Status(status)) => return refusal(&Refusal(status, "InternalError", "Try again.")),
        Some(Fault::Silence) => std::future::pending().await,
        Some(Fault::LostAnswer | Fault::FlippedBit) | None => {}
    }
    let signed = Signed { method: &parts.method, uri: &parts.uri, headers: &parts.headers, body: &body };
    let outcome = signed
        .verify(KEY_ID, SECRET, REGION)
        .and_then(|()| carry_out(&mut lock(), &parts.method, parts.uri.path(), &parts.headers, &body));
    match fault {
        Some(Fault::LostAnswer) => hang_up(),
        Some(Fault::FlippedBit) => object(&parts.method, &flipped(&outcome.unwrap_or_default())),
        Some(Fault::Status(_) | Fault::Silence) | None => {
            let response = match outcome {
                Ok(bytes) => object(&parts.method, &bytes),
                Err(refused) => refusal(&refused),
            };
            lock().seen.push(format!("{} {} {}", parts.method, parts.uri.path(), response.status().as_u16()));
            response
        }
    }
}

/// Ends the task of this connection, and with it the connection, without a word.
fn hang_up() -> ! {
    std::panic::resume_unwind(Box::new("the connection ends here"))
}

/// The object after the request.
fn carry_out(
    shared: &mut Shared,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Bytes, Refusal> {
    let (bucket, key) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
    if bucket != BUCKET {
        return Err(Refusal(404, "NoSuchBucket", "The specified bucket does not exist"));
    }
    match *method {
        Method::GET | Method::HEAD => {
            let found = shared.objects.get(key).cloned();
            found.ok_or(Refusal(404, "NoSuchKey", "The specified key does not exist."))
        }
        Method::PUT => {
            let condition = headers.get("if-none-match").map(|value| value == "*");
            if shared.knows_no_conditions && condition.is_some() {
                return Err(Refusal(
                    501,
                    "NotImplemented",
                    "A header implies functionality that is not there.",
                ));
            }
            if condition == Some(true) && shared.objects.contains_key(key) {
                return Err(Refusal(
                    412,
                    "PreconditionFailed",
                    "At least one of the conditions did not hold",
                ));
            }
            shared.objects.insert(key.to_owned(), body.clone());
            Ok(body.clone())
        }
        _ => Err(Refusal(405, "MethodNotAllowed", "The method is not allowed against this resource.")),
    }
}

fn object(method: &Method, bytes: &Bytes) -> Response<Body> {
    let body = if *method == Method::GET { Body::from(bytes.clone()) } else { Body::empty() };
    let mut response = Response::builder()
        .header("etag", format!("\"{}\"", &signature::sha256(bytes)[..32]))
        .header("last-modified", "Thu, 01 Jan 2026 00:00:00 GMT");
    if *method == Method::HEAD {
        response = response.header("content-length", bytes.len());
    }
    response.body(body).expect("these headers are valid")
}

fn refusal(Refusal(status, code, message): &Refusal) -> Response<Body> {
    let status = StatusCode::from_u16(*status).expect("a status");
    // S3 repeats a token that it does not take; so does this, for whoever writes answers into a log.
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><Token-0>{SECRET}</Token-0></Error>"
    );
    Response::builder().status(status).body(Body::from(body)).expect("these headers are valid")
}

fn flipped(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(byte) = bytes.first_mut() {
        *byte ^= 1;
    }
    bytes.into()
}
