//! Every command against a control plane that answers what each test says, with the whole output as it is read.

mod answers;
mod attacks;
mod output;
mod refusals;
mod steering;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use clap::Parser;
use secrecy::SecretString;
use serde::Serialize;

use crate::connection::Environment;
use crate::failure::Failure;
use crate::terminal::{Format, Screen};
use crate::{Arguments, run};

/// The moment of every test.
const NOW: &str = "2026-01-31T12:00:00Z";

/// One request that the control plane expects, and its answer.
struct Answer {
    /// Method, path and query: `GET /v1/attempts?limit=10`.
    request: &'static str,
    status: u16,
    body: Vec<u8>,
}

/// A success.
fn yes(request: &'static str, body: &impl Serialize) -> Answer {
    Answer { request, status: 200, body: serde_json::to_vec(body).unwrap() }
}

/// A refusal.
fn no(request: &'static str, body: &api::ErrorBody) -> Answer {
    Answer { request, status: body.code.status(), body: serde_json::to_vec(body).unwrap() }
}

/// What a command left behind.
struct Outcome {
    out: String,
    failure: Option<Failure>,
    /// Each request with its body.
    asked: Vec<String>,
}

impl Outcome {
    /// The output of a command that must have done what it was told.
    fn shown(self) -> String {
        assert_eq!(self.failure, None, "{}", self.out);
        self.out
    }

    /// What the command said when it did not, with its exit code's meaning.
    fn refused(self) -> String {
        assert_eq!(self.out, "", "nothing is shown beside a failure");
        match self.failure.expect("the command should have failed") {
            Failure::No(text) => format!("1: {text}"),
            Failure::NotRun(text) => format!("2: {text}"),
            Failure::ReaderGone => "0".to_owned(),
        }
    }
}

/// Runs a command line, such as `attempts-list --limit 2`, against these answers. On no terminal.
fn ask(command_line: &str, answers: Vec<Answer>) -> Outcome {
    ask_on(None, command_line, answers)
}

/// The same on a terminal of so many columns, without colours.
fn ask_on(width: Option<usize>, command_line: &str, answers: Vec<Answer>) -> Outcome {
    let words = split(command_line);
    let arguments = Arguments::try_parse_from(["leviathanctl".to_owned()].into_iter().chain(words)).unwrap();
    let mut out = Vec::new();
    let mut screen = Screen::new(&mut out, arguments.output, NOW.parse().unwrap());
    screen.width = width;
    screen.is_terminal = width.is_some();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let failure = runtime.block_on(async {
        let environment = Environment {
            control_plane_url: Some(serve(answers, Arc::clone(&asked)).await),
            token: Some(SecretString::from("operator-token")),
            ..Environment::default()
        };
        run(arguments, &environment, &mut screen).await.err()
    });
    drop(screen);
    let asked = std::mem::take(&mut *asked.lock().unwrap());
    Outcome { out: String::from_utf8(out).unwrap(), failure, asked }
}

/// Words of a command line; `'…'` keeps spaces.
fn split(command_line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (index, part) in command_line.split('\'').enumerate() {
        if index % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

/// A control plane on a free port, for as long as the runtime lives. Returns its URL.
async fn serve(answers: Vec<Answer>, asked: Arc<Mutex<Vec<String>>>) -> String {
    let answers = Arc::new(answers);
    let app = Router::new()
        .fallback(move |request: Request| answer(request, Arc::clone(&answers), Arc::clone(&asked)));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async { axum::serve(listener, app).await });
    url
}

async fn answer(request: Request, answers: Arc<Vec<Answer>>, asked: Arc<Mutex<Vec<String>>>) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    assert_eq!(request.headers()["authorization"], "Bearer operator-token");
    let body = to_bytes(request.into_body(), 1 << 20).await.unwrap();
    asked.lock().unwrap().push(format!("{line} {}", String::from_utf8_lossy(&body)).trim_end().to_owned());
    let found = answers.iter().find(|answer| answer.request == line);
    let (status, body) = match found {
        Some(answer) => (answer.status, answer.body.clone()),
        None => (500, format!("the test expects no {line}").into_bytes()),
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

#[test]
fn the_arguments_hold_together() {
    use clap::CommandFactory;
    Arguments::command().debug_assert();
    assert_eq!(Arguments::try_parse_from(["leviathanctl", "targets-list"]).unwrap().output, Format::Table);
}

#[test]
fn the_reference_in_docs_is_this_one() {
    use clap::CommandFactory;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/cli.md");
    let current = test_support::reference::markdown(Arguments::command());
    let document = std::fs::read_to_string(path).unwrap();
    let (kept, updated) = test_support::reference::section_of(&document, "leviathanctl", &current);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, updated).unwrap();
    } else {
        assert!(kept == current, "docs/cli.md is out of date; run `UPDATE=1 cargo test -p leviathanctl`");
    }
}

#[test]
fn every_variable_that_the_code_knows_is_documented() {
    let house = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    let documented = names(&std::fs::read_to_string(format!("{house}/docs/configuration.md")).unwrap());
    let mut sources = Vec::new();
    for part in std::fs::read_dir(format!("{house}/crates")).unwrap() {
        sources_in(&part.unwrap().path().join("src"), &mut sources);
    }
    assert!(sources.len() > 50, "the sources were found");
    for source in sources {
        for name in names(&std::fs::read_to_string(&source).unwrap()) {
            assert!(
                documented.contains(&name),
                "docs/configuration.md says nothing of {name}, which {} names",
                source.display()
            );
        }
    }
}

/// Every source file below `folder`, but for those of tests.
fn sources_in(folder: &std::path::Path, sources: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_in(&path, sources);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.ends_with("tests.rs") {
            sources.push(path);
        }
    }
}

/// The variables that a text names. A name for tests alone says so itself.
fn names(text: &str) -> std::collections::BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.len() > "LEVIATHAN_".len());
    let named = words.filter(|word| word.starts_with("LEVIATHAN_") && !word.starts_with("LEVIATHAN_TEST_"));
    named.map(str::to_owned).collect()
}
