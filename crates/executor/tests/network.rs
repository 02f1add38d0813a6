//! Attacks on the way to permitted hosts: a real command within namespaces, the real proxy, a real server.
#![expect(clippy::unwrap_used, reason = "a failed expectation ends its test")]

use std::collections::BTreeMap;
use std::future::pending;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use leviathan_executor::contain::{Command, Containment, End, Error, Limits, Program, Walls, bubblewrap};
use leviathan_executor::network::{Hosts, PrivateHost, Proxy, Tally};
use model::event::{NetworkAnswer, NetworkRequest, NetworkUse};
use tempfile::TempDir;

const PROGRAM: &str = env!("CARGO_BIN_EXE_executor-under-test");

/// What a command inside has to talk with: `ask(text)` sends bytes to the proxy and returns all that comes back.
const INSIDE: &str = r#"
import os, socket, sys
def way():
    host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=30)
def ask(text, after=b""):
    end = way()
    end.sendall(text.encode() + after)
    said = b""
    try:
        while chunk := end.recv(4096):
            said += chunk
    except ConnectionResetError:
        said += b"(reset)"
    return said.decode(errors="replace")
def tunnel(place, after=b""):
    return ask(f"CONNECT {place} HTTP/1.1\r\nHost: {place}\r\n\r\n", after)
"#;

/// A policy that opens `hosts` for the agent, an operator who vouches for `private`, and a place to run commands in.
struct Bench {
    folder: TempDir,
    tally: Tally,
    containment: Containment,
}

impl Bench {
    fn new(hosts: &[&str], private: &[String]) -> Self {
        let bubblewrap = bubblewrap::find().expect("these tests need bubblewrap");
        Self::within(Walls::filters(Vec::new()).with_namespaces(bubblewrap), hosts, private)
    }

    fn within(walls: Walls, hosts: &[&str], private: &[String]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("tree")).unwrap();
        let tally = Tally::default();
        let hosts = Hosts::new(hosts.iter().map(|host| (*host).to_owned()).collect());
        let private = private.iter().map(|host| host.parse::<PrivateHost>().unwrap()).collect();
        let proxy = Proxy::new(NetworkUse::Agent, hosts, private, tally.clone());
        let containment = Containment::new(PROGRAM, BTreeMap::new()).within(walls).with_way_out(proxy);
        Self { folder, tally, containment }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn command(&self, program: Program, timeout: Duration) -> Command {
        Command {
            program,
            directory: self.folder.path().join("tree"),
            scratch: self.folder.path().join("scratch"),
            environment: BTreeMap::new(),
            stdin: Vec::new(),
            log: self.log(),
            stderr_log: None,
            limits: Limits { timeout, ..Limits::default() },
        }
    }

    /// Runs Python inside; what it printed.
    async fn python(&self, lines: &str) -> String {
        let program =
            Program::Direct(vec!["/usr/bin/python3".to_owned(), "-c".to_owned(), format!("{INSIDE}{lines}")]);
        let outcome = self.containment.run(&self.command(program, Duration::from_secs(60)), pending()).await;
        let said = String::from_utf8_lossy(&std::fs::read(self.log()).unwrap()).into_owned();
        assert_eq!(outcome.unwrap().end, End::Exited { code: 0 }, "{said}");
        said
    }

    /// What was asked for, with its answer.
    fn asked(&self) -> Vec<(String, u16, NetworkAnswer)> {
        let (requests, omitted) = self.tally.take();
        assert_eq!(omitted, 0);
        requests.into_iter().map(|NetworkRequest { host, port, answer, .. }| (host, port, answer)).collect()
    }
}

/// A server on the loopback address of the host that answers each connection with what it got, in capitals.
struct Server {
    port: u16,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                let mut connection = connection.unwrap();
                let mut chunk = [0; 1024];
                if let Ok(length) = connection.read(&mut chunk) {
                    let _ = connection.write_all(&chunk[..length].to_ascii_uppercase());
                }
            }
        });
        Self { port }
    }

    fn place(&self) -> String {
        format!("localhost:{}", self.port)
    }
}

#[tokio::test]
async fn a_permitted_host_is_reached_and_what_went_there_is_counted() {
    let server = Server::start();
    let bench = Bench::new(&["localhost"], &[server.place()]);
    let said = bench.python(&format!("print(tunnel('{}', b'hello'))", server.place())).await;
    assert!(said.starts_with("HTTP/1.1 200 ") && said.contains("HELLO"), "{said}");
    let (requests, omitted) = bench.tally.take();
    let expected = NetworkRequest {
        used_by: NetworkUse::Agent,
        host: "localhost".to_owned(),
        port: server.port,
        answer: NetworkAnswer::Connected,
        count: 1,
        sent_bytes: 5,
        received_bytes: 5,
    };
    assert_eq!((requests, omitted), (vec![expected], 0));
}

#[tokio::test]
async fn everything_else_is_refused_with_its_reason() {
    let server = Server::start();
    let port = server.port;
    // Whether a name leads into the machine's own network is asked of the name itself: `localhost` does everywhere.
    let bench = Bench::new(&["localhost", "allowed.example", "127.0.0.1.nip.example"], &[]);
    let rows: &[(&str, &str, NetworkAnswer)] = &[
        ("evil.example:443", "does not name evil.example", NetworkAnswer::NotPermitted),
        ("allowed.example.evil.example:443", "does not name", NetworkAnswer::NotPermitted),
        ("169.254.169.254:443", "does not name 169.254.169.254", NetworkAnswer::NotPermitted),
        ("127.0.0.1:443", "does not name 127.0.0.1", NetworkAnswer::NotPermitted),
        ("[::1]:443", "does not name ::1", NetworkAnswer::NotPermitted),
        ("allowed.example:22", "port 443", NetworkAnswer::PortNotPermitted),
        ("LOCALHOST.:443", "LEVIATHAN_PRIVATE_HOSTS", NetworkAnswer::AddressNotPermitted),
    ];
    for (place, reason, answer) in rows {
        let said = bench.python(&format!("print(tunnel('{place}'))")).await;
        assert!(said.starts_with("HTTP/1.1 403 ") && said.contains(reason), "{place}: {said}");
        let asked = bench.asked();
        assert!(matches!(&asked[..], [(_, _, told)] if told == answer), "{place}: {asked:?}");
    }
    let said = bench.python(&format!("print(tunnel('localhost:{port}'))")).await;
    assert!(said.contains("port 443"), "a private host has a port of its own only by the operator: {said}");
}

/// With `*` every public host is open; addresses of this machine and of a cloud's metadata are not.
#[tokio::test]
async fn a_star_opens_the_public_internet_alone() {
    let server = Server::start();
    let bench = Bench::new(&["*"], &["localhost:1".to_owned()]);
    for host in
        ["169.254.169.254", "127.0.0.1", "10.0.0.1", "[::1]", "[fd00:ec2::254]", "localhost", "0.0.0.0"]
    {
        let said = bench.python(&format!("print(tunnel('{host}:443'))")).await;
        assert!(said.starts_with("HTTP/1.1 403 "), "{host}: {said}");
        let asked = bench.asked();
        assert!(matches!(&asked[..], [(_, 443, NetworkAnswer::AddressNotPermitted)]), "{host}: {asked:?}");
    }
    let said = bench.python(&format!("print(tunnel('127.0.0.1:{}'))", server.port)).await;
    assert!(said.starts_with("HTTP/1.1 403 "), "{said}");
}

#[tokio::test]
async fn what_is_no_tunnel_is_refused_and_an_endless_request_ends() {
    let bench = Bench::new(&["*"], &[]);
    let rows = [
        ("ask('GET http://allowed.example/ HTTP/1.1\\r\\n\\r\\n')", "HTTP/1.1 405 "),
        ("ask('\\x05\\x01\\x00\\r\\n\\r\\n')", "HTTP/1.1 400 "),
        ("ask('CONNECT a b HTTP/1.1\\r\\n\\r\\n')", "HTTP/1.1 400 "),
    ];
    for (call, expected) in rows {
        let said = bench.python(&format!("print({call})")).await;
        assert!(said.starts_with(expected), "{call}: {said}");
    }
    // What it did not want to read may reset the connection before the answer is read.
    let said = bench.python("print(ask('x' * 100000))").await;
    assert!(said.starts_with("HTTP/1.1 400 ") || said.starts_with("(reset)"), "{said}");
    assert_eq!(bench.asked(), Vec::new(), "nothing of it names a place");
}

#[tokio::test]
async fn beside_the_proxy_there_is_no_way() {
    let server = Server::start();
    let bench = Bench::new(&["*"], &[server.place()]);
    let lines = format!(
        r#"
for family, address in [(socket.AF_INET, ("127.0.0.1", {port})), (socket.AF_INET, ("8.8.8.8", 53)),
                        (socket.AF_INET6, ("2001:4860:4860::8888", 53))]:
    try:
        socket.socket(family, socket.SOCK_STREAM).connect(address)
        print("reached", address)
    except OSError as error:
        print("refused", error.strerror)
try:
    socket.getaddrinfo("example.org", 443)
    print("reached a name server")
except OSError:
    print("refused")
"#,
        port = server.port
    );
    let said = bench.python(&lines).await;
    assert!(!said.contains("reached") && said.lines().count() == 4, "{said}");
}

/// Nothing that a command was connected to outlives it.
#[tokio::test]
async fn every_connection_ends_with_its_command() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = format!("localhost:{}", listener.local_addr().unwrap().port());
    let bench = Bench::new(&["localhost"], std::slice::from_ref(&place));
    let until_it_ended = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let mut said = Vec::new();
        connection.read_to_end(&mut said).unwrap();
        said
    });
    // The end is kept by a process that left its session, and the command itself ends at once.
    let lines = format!(
        "
end = way()
end.sendall(b'CONNECT {place} HTTP/1.1\\r\\n\\r\\nstill here')
end.recv(100)
if os.fork() == 0:
    os.setsid()
    __import__('time').sleep(600)
"
    );
    bench.python(&lines).await;
    assert_eq!(until_it_ended.join().unwrap(), b"still here");
}

/// More connections than the proxy serves at once wait, and each is served.
#[tokio::test]
async fn a_flood_of_connections_is_served_in_turn() {
    let server = Server::start();
    let bench = Bench::new(&["localhost"], &[server.place()]);
    let lines = format!(
        "
import threading
answers = []
def one():
    answers.append(tunnel('{place}', b'x'))
threads = [threading.Thread(target=one) for _ in range(200)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum('200' in answer and answer.endswith('X') for answer in answers))
",
        place = server.place()
    );
    assert_eq!(bench.python(&lines).await.trim(), "200");
    let (requests, _) = bench.tally.take();
    assert_eq!(requests[0].count, 200);
}

#[tokio::test]
async fn without_namespaces_a_command_that_needs_the_way_does_not_run() {
    let bench = Bench::within(Walls::filters(Vec::new()), &["*"], &[]);
    let command = bench.command(Program::Shell("touch ran".to_owned()), Duration::from_secs(60));
    let error = bench.containment.run(&command, pending()).await.unwrap_err();
    assert!(matches!(&error, Error::Setup(problem) if problem.contains("namespaces")), "{error}");
    assert!(!bench.folder.path().join("tree/ran").exists());
}
