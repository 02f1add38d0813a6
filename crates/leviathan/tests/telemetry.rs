//! What a collector of OpenTelemetry is told by the roles, as processes; and that nobody waits for it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it stands")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::Duration;

use api::Client;
use rustix::process::{Pid, Signal, kill_process};
use secrecy::SecretString;
use test_support::collector::{Collector, Span};

const TOKEN: &str = "operator-token-of-the-tests";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A control plane in a process of its own; killed when the test is done with it.
struct Process {
    child: Child,
    client: Client,
    address: String,
    log: BufReader<ChildStderr>,
    said: String,
}

impl Process {
    fn start(data: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = leviathan("control-plane", data, variables);
        command.env("LEVIATHAN_LISTEN", "127.0.0.1:0").stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
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
        Self { child, client, address, log, said }
    }

    /// The status of the answer to a request, whose path and headers are sent as they are.
    fn ask(&self, method: &str, path: &str, headers: &str) -> u16 {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let host = &self.address;
        let request =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap().parse().unwrap()
    }

    /// Ends it in order. What it said.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        let mut said = std::mem::take(&mut self.said);
        self.log.read_to_string(&mut said).unwrap();
        assert!(self.child.wait().unwrap().success(), "{said}");
        said
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A role with nothing in its environment but these variables.
fn leviathan(role: &str, data: &Path, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_leviathan"));
    command.arg(role).env_clear().stdin(Stdio::null());
    command.env("PATH", std::env::var("PATH").unwrap());
    command.env("LEVIATHAN_CONTROL_PLANE_TOKEN", TOKEN).env("LEVIATHAN_DATA_DIR", data);
    command.envs(variables.iter().copied());
    command
}

fn of_route<'a>(route: &'a str) -> impl Fn(&Span) -> bool + use<'a> {
    move |span| span.attributes.get("http.route").is_some_and(|of| of == route)
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_is_told_by_its_route_in_the_trace_of_its_caller_and_with_nobodys_words() {
    let (collector, data) = (Collector::start().await, tempfile::tempdir().unwrap());
    let process = Process::start(
        data.path(),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-collector-key=a-key-of-the-collector"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
            ("OTEL_BSP_SCHEDULE_DELAY", "50"),
        ],
    );
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: vendor=word-of-a-vendor\r\n");
    let asked =
        process.ask("GET", "/v1/events?target=word-in-a-query", &format!("{parent}{}", bearer(TOKEN)));
    assert_eq!(asked, 200);
    let span = collector.span(of_route("/v1/events")).await;
    assert_eq!((span.name.as_str(), span.kind), ("GET /v1/events", 2));
    assert_eq!((span.trace_id.as_str(), span.parent.as_str()), (TRACE, PARENT));
    assert!(!span.failed);
    assert_eq!(span.events, 0, "lines of the log stay in the log");
    assert_eq!(span.attributes["http.request.method"], "GET");
    assert_eq!(span.attributes["http.response.status_code"], "200");
    assert_eq!(span.attributes["request.id"].len(), 32);
    assert_eq!(span.resource["service.name"], "leviathan-control-plane");
    assert_eq!(span.resource["deployment.environment.name"], "test");
    assert!(collector.was_sent("x-collector-key", "a-key-of-the-collector"));

    // Whatever a caller writes is nobody's business: tokens, paths, methods, broken names of traces.
    let wrong = bearer("a-token-that-nobody-knows");
    assert_eq!(process.ask("GET", "/v1/attempts/word-in-a-path", &wrong), 401);
    assert_eq!(process.ask("GET", "/word-at-no-route", "traceparent: 00-broken\r\n"), 404);
    assert_eq!(process.ask("WORDASMETHOD", "/v1/tasks", &bearer(TOKEN)), 405);
    let refused = collector.span(of_route("/v1/attempts/{attempt_id}")).await;
    assert_eq!(refused.attributes["http.response.status_code"], "401");
    assert!(refused.parent.is_empty() && refused.trace_id != TRACE, "it is the first of a trace of its own");
    let status = |code: &'static str| {
        move |span: &Span| span.attributes.get("http.response.status_code").is_some_and(|is| is == code)
    };
    let nowhere = collector.span(status("404")).await;
    assert_eq!((nowhere.name.as_str(), nowhere.attributes.contains_key("http.route")), ("GET", false));
    let odd = collector.span(status("405")).await;
    assert_eq!(odd.attributes["http.request.method"], "_OTHER");
    let said = process.stop();
    for words in ["word-", "WORDASMETHOD", TOKEN, "a-token-that-nobody-knows", "a-key-of-the-collector"] {
        assert!(!collector.was_told(words), "the collector was told {words}");
    }
    // The log names the trace beside the request, and nothing else of the spans.
    let id = &refused.attributes["request.id"];
    let line = said.lines().find(|line| line.contains(id.as_str())).unwrap();
    assert!(line.contains(&format!("trace_id={}", refused.trace_id)), "{line}");
    assert!(!said.contains("leviathan_trace") && !said.contains("otel."), "{said}");
    assert!(!said.contains("a-key-of-the-collector"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_role_did_last_is_sent_before_it_ends() {
    let (collector, data) = (Collector::start().await, tempfile::tempdir().unwrap());
    // It would be sent in an hour.
    let hour = ("OTEL_BSP_SCHEDULE_DELAY", "3600000");
    let traces = format!("{}/v1/traces", collector.url());
    let process = Process::start(
        data.path(),
        &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &traces), hour, ("OTEL_SERVICE_NAME", "mine")],
    );
    assert_eq!(process.ask("GET", "/healthz", ""), 200);
    process.stop();
    let spans = collector.spans();
    assert_eq!(spans.len(), 1, "{spans:?}");
    assert_eq!(spans[0].resource["service.name"], "mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_waits_for_a_collector_that_answers_nothing_or_is_not_there() {
    let collector = Collector::start().await;
    collector.fall_silent();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for endpoint in [collector.url(), &format!("http://{nobody}")] {
        let data = tempfile::tempdir().unwrap();
        let process = Process::start(
            data.path(),
            &[
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
                ("OTEL_BSP_SCHEDULE_DELAY", "1"),
                ("OTEL_BSP_MAX_QUEUE_SIZE", "8"),
                // Longer than the test may take.
                ("OTEL_EXPORTER_OTLP_TIMEOUT", "3600000"),
            ],
        );
        // More than the queue holds, most of them while a call to the collector is under way.
        for _ in 0..200 {
            process.client.health().await.unwrap();
        }
        let said = process.stop();
        assert!(!said.contains("panicked"), "{said}");
    }
    assert!(collector.calls() > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_refuses_is_complained_of_once() {
    let data = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://user:word-as-password@{nobody}");
    let process = Process::start(
        data.path(),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
            ("OTEL_BSP_SCHEDULE_DELAY", "1"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10"),
        ],
    );
    for _ in 0..50 {
        process.client.health().await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let said = process.stop();
    assert_eq!(said.matches("The collector does not take spans").count(), 1, "{said}");
    assert!(!said.contains("word-as-password"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_unless_it_is_asked_for() {
    let collector = Collector::start().await;
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    for (variables, words) in [
        (&[("OTEL_SERVICE_NAME", "mine")][..], ""),
        (&[endpoint, ("OTEL_SDK_DISABLED", "true")], ""),
        (&[endpoint, ("OTEL_TRACES_EXPORTER", "none")], ""),
        (&[endpoint, ("OTEL_TRACES_SAMPLER", "always_off")], ""),
        (&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "No spans are sent to a collector"),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "no url")], "No spans are sent to a collector"),
    ] {
        let data = tempfile::tempdir().unwrap();
        let process = Process::start(data.path(), variables);
        assert_eq!(process.ask("GET", "/v1/tasks", ""), 401);
        let said = process.stop();
        assert!(said.contains(words), "{variables:?}:\n{said}");
        let is_traced = variables.iter().any(|(_, value)| *value == "always_off");
        assert_eq!(said.contains("trace_id="), is_traced, "{variables:?}:\n{said}");
    }
    assert_eq!(collector.calls(), 0);
}

/// What a scheduler asks in a pass belongs to the trace of that pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pass_is_a_span_and_its_requests_are_in_its_trace() {
    let (collector, data) = (Collector::start().await, tempfile::tempdir().unwrap());
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url()), ("OTEL_BSP_SCHEDULE_DELAY", "50")];
    let process = Process::start(data.path(), &variables);
    let mut scheduler = leviathan("scheduler", data.path(), &variables);
    scheduler.env("LEVIATHAN_CONTROL_PLANE_URL", format!("http://{}", process.address)).arg("--once");
    let output = scheduler.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pass = collector.span(|span| span.name == "scheduler pass").await;
    assert_eq!(pass.resource["service.name"], "leviathan-scheduler");
    assert_eq!((pass.attributes["pass.launched"].as_str(), pass.failed), ("0", false));
    assert!(pass.attributes["scheduler.name"].starts_with("scheduler@"));
    let request = collector.span(|span| of_route("/v1/events")(span) && span.parent == pass.span_id).await;
    assert_eq!(request.trace_id, pass.trace_id);
    process.stop();
}
