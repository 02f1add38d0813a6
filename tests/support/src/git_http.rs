//! Real git over smart HTTP: `git http-backend` behind a small server on a loopback port, with basic authentication
//! by `x-access-token:TOKEN` as GitHub has it. The server runs on its own thread and stops when it is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

/// A bare repository served at `http://127.0.0.1:<port>/<owner>/<name>.git`; every owner and name is the same one.
#[derive(Debug)]
pub struct GitServer {
    server: Server,
    pushes: Pushes,
}

impl GitServer {
    /// Serves the bare repository in `dir` to whoever knows `token`.
    pub fn start(dir: &Path, token: &str) -> Self {
        let pushes = Pushes::default();
        let server = Server::start(router(dir, token, pushes.clone()));
        Self { server, pushes }
    }

    /// The address of the repository, as a contract writes it.
    pub fn url(&self, owner: &str, name: &str) -> String {
        format!("http://{}/{owner}/{name}.git", self.server.address)
    }

    /// What can be made to happen around pushes.
    pub fn pushes(&self) -> &Pushes {
        &self.pushes
    }
}

/// What happens around the pushes to a server. Clones share it.
#[derive(Clone, Default)]
pub struct Pushes(Arc<Mutex<Plans>>);

#[derive(Default)]
struct Plans {
    before_next: Option<Box<dyn FnOnce() + Send>>,
    drop_next_answer: bool,
    received: usize,
}

impl Pushes {
    /// Does something on the far side right before the next push is received, such as moving the base.
    pub fn before_next(&self, happening: impl FnOnce() + Send + 'static) {
        self.plans().before_next = Some(Box::new(happening));
    }

    /// Receives the next push as it should be, and then breaks the connection instead of saying so.
    pub fn drop_next_answer(&self) {
        self.plans().drop_next_answer = true;
    }

    /// How many pushes were received, the refused ones included.
    pub fn received(&self) -> usize {
        self.plans().received
    }

    fn plans(&self) -> std::sync::MutexGuard<'_, Plans> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Pushes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pushes").field("received", &self.received()).finish_non_exhaustive()
    }
}

/// An HTTP server on a loopback port and a thread of its own, which stops when it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(router: Router) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener.set_nonblocking(true).expect("a listener that tokio takes");
        let address = listener.local_addr().expect("the port");
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("inside the runtime");
                // Open connections must not keep the server alive: it ends with the test.
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Stops answering. The port refuses connections from then on.
    pub(crate) fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been printed; the test fails by what it asserts.
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers every path as git over HTTP of the bare repository in `dir`.
pub(crate) fn router(dir: &Path, token: &str, pushes: Pushes) -> Router {
    let backend = Backend { dir: dir.to_owned(), token: token.to_owned(), pushes };
    Router::new().fallback(serve).layer(DefaultBodyLimit::disable()).with_state(Arc::new(backend))
}

struct Backend {
    dir: PathBuf,
    token: String,
    pushes: Pushes,
}

async fn serve(State(backend): State<Arc<Backend>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if !backend.admits(&parts.headers) {
        let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"GitHub\"")];
        return (StatusCode::UNAUTHORIZED, ask, "Invalid username or token.").into_response();
    }
    // `/<owner>/<name>.git/<service>`: whose repository it is does not matter here.
    let Some(service) = parts.uri.path().splitn(4, '/').nth(3) else {
        return (StatusCode::NOT_FOUND, "Not Found").into_response();
    };
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    let is_push = service == "git-receive-pack";
    if is_push && let Some(happening) = backend.pushes.plans().before_next.take() {
        happening();
    }
    let query = parts.uri.query().unwrap_or_default();
    let answer = backend.run(parts.method.as_str(), service, query, &parts.headers, body).await;
    if is_push {
        let mut plans = backend.pushes.plans();
        plans.received += 1;
        if std::mem::take(&mut plans.drop_next_answer) {
            return broken();
        }
    }
    answer
}

impl Backend {
    fn admits(&self, headers: &HeaderMap) -> bool {
        let expected = format!("Basic {}", STANDARD.encode(format!("x-access-token:{}", self.token)));
        headers.get(header::AUTHORIZATION).is_some_and(|given| given.as_bytes() == expected.as_bytes())
    }

    async fn run(
        &self,
        method: &str,
        service: &str,
        query: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let root = self.dir.parent().expect("a repository is in a folder");
        let name = self.dir.file_name().expect("a repository has a name").to_string_lossy();
        let mut child = tokio::process::Command::new("git")
            .arg("http-backend")
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_PROJECT_ROOT", root)
            .env("GIT_HTTP_EXPORT_ALL", "1")
            .env("REMOTE_USER", "x-access-token")
            .env("PATH_INFO", format!("/{name}/{service}"))
            .env("REQUEST_METHOD", method)
            .env("QUERY_STRING", query)
            .env("CONTENT_TYPE", text("content-type"))
            .env("CONTENT_LENGTH", body.len().to_string())
            .env("HTTP_CONTENT_ENCODING", text("content-encoding"))
            .env("GIT_PROTOCOL", text("git-protocol"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("git runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let feed = async move {
            // The program may end without reading everything; its answer says why.
            let _ = stdin.write_all(&body).await;
        };
        let (_, output) = tokio::join!(feed, child.wait_with_output());
        as_response(&output.expect("git ends").stdout)
    }
}

/// A CGI program's output as a response.
fn as_response(output: &[u8]) -> Response {
    let Some(end) = output.windows(4).position(|four| four == b"\r\n\r\n") else {
        return (StatusCode::BAD_GATEWAY, "git http-backend gave no answer").into_response();
    };
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.eq_ignore_ascii_case("status") {
            true => response = response.status(value.split(' ').next().unwrap_or("500")),
            false => response = response.header(name, value),
        }
    }
    response.body(Body::from(output[end + 4..].to_vec())).expect("git's headers are headers")
}

/// A response that never ends: the client learns that something was accepted, and nothing more.
pub(crate) fn broken() -> Response {
    let cut =
        futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("the connection broke")) });
    Response::builder()
        .header(header::CONTENT_LENGTH, "1000")
        .body(Body::from_stream(cut))
        .expect("a response")
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Output};

    use super::*;
    use crate::repository::{Entry, Origin};

    struct Clone {
        folder: tempfile::TempDir,
        url: String,
    }

    impl Clone {
        fn of(server: &GitServer) -> Self {
            let url = server.url("owner", "my-repo").replace("http://", "http://x-access-token:secret@");
            let clone = Self { folder: tempfile::tempdir().expect("a folder"), url };
            let cloned = clone.git(&["clone", "--quiet", &clone.url, "."]);
            assert!(cloned.status.success(), "{cloned:?}");
            clone
        }

        fn git(&self, arguments: &[&str]) -> Output {
            Command::new("git")
                .args(["-c", "user.name=Ada", "-c", "user.email=ada@example.com"])
                .args(arguments)
                .current_dir(self.folder.path())
                .env("GIT_TERMINAL_PROMPT", "0")
                .env("GIT_CONFIG_NOSYSTEM", "1")
                .env("GIT_CONFIG_GLOBAL", "/dev/null")
                .output()
                .expect("git runs")
        }

        fn push(&self, branch: &str) -> Output {
            self.git(&["commit", "--quiet", "--allow-empty", "-m", "more"]);
            self.git(&["push", &self.url, &format!("HEAD:refs/heads/{branch}")])
        }
    }

    fn served() -> (Origin, GitServer) {
        let origin = Origin::with_files(&[("a", "1\n")]);
        let server = GitServer::start(origin.dir(), "secret");
        (origin, server)
    }

    #[test]
    fn who_knows_the_token_clones_and_pushes_and_nobody_else() {
        let (origin, server) = served();
        let clone = Clone::of(&server);
        assert!(clone.push("topic").status.success());
        assert!(origin.resolve("refs/heads/topic").is_some());
        let stranger = server.url("owner", "my-repo").replace("http://", "http://x-access-token:wrong@");
        let refused = clone.git(&["ls-remote", &stranger]);
        assert!(!refused.status.success(), "{refused:?}");
    }

    #[test]
    fn a_protected_branch_refuses_and_says_so() {
        let (origin, server) = served();
        origin.protect("main");
        let before = origin.resolve("main");
        let refused = Clone::of(&server).push("main");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("GH006"), "{refused:?}");
        assert_eq!(origin.resolve("main"), before);
    }

    #[test]
    fn a_push_can_land_without_an_answer_or_meet_a_moved_base() {
        let (origin, server) = served();
        let origin = Arc::new(origin);
        let clone = Clone::of(&server);
        server.pushes().drop_next_answer();
        let cut = clone.push("topic");
        assert!(!cut.status.success() && origin.resolve("refs/heads/topic").is_some(), "{cut:?}");

        let far_side = Arc::clone(&origin);
        server.pushes().before_next(move || {
            far_side.commit("main", "meanwhile", &[Entry::file("a", "2\n")]);
        });
        let late = clone.push("main");
        assert!(!late.status.success(), "{late:?}");
        assert_eq!(origin.read("main", "a").as_deref(), Some(b"2\n".as_slice()));
        // The HTTP client may have sent the first one again, on a fresh connection.
        assert!(server.pushes().received() >= 2);
    }
}
