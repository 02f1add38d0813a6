//! Hosts that a policy opens, through the programs: the operator vouches for a mirror, `setup` reaches it, the agent does
//! not, and both are told to whoever asks.

use std::io::{Read, Write};
use std::net::TcpListener;

use leviathan_stories::Installation;

/// Asks the proxy for a tunnel, says a word through it, and prints the answer.
const ASK: &str = r#"import os, socket, sys
host, port = os.environ["HTTPS_PROXY"].removeprefix("http://").split(":")
end = socket.create_connection((host, int(port)))
end.sendall(f"CONNECT {sys.argv[1]} HTTP/1.1\r\n\r\n".encode())
answer = end.recv(1000).decode()
if " 200 " not in answer:
    sys.exit(answer)
end.sendall(b"hello")
print(end.recv(1000).decode())
"#;

#[test]
fn setup_reaches_a_vouched_mirror_the_agent_does_not_and_both_are_told() {
    let mirror = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("localhost:{}", mirror.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for connection in mirror.incoming() {
            let mut connection = connection.unwrap();
            let mut word = [0; 5];
            if connection.read_exact(&mut word).is_ok() {
                let _ = connection.write_all(b"a package");
            }
        }
    });
    let backlog = format!(
        "tasks:\n  - {{task_id: t, title: T, scope: s, allowed_paths: [hello.txt], agent: {{command: \"python3 ask.py {place}; python3 ask.py evil.example:443; echo hello > hello.txt\"}}}}\n"
    );
    let policy = format!(
        "scopes: {{s: {{allowed_paths: [hello.txt]}}}}
setup: ['python3 ask.py {place} > package && grep -q package package']
network: {{setup: [localhost], agent: [mirror.example]}}
baseline: false
invariants: [{{name: There, check: 'test -s package'}}]
"
    );
    let files = [("ask.py", ASK), (".gitignore", "package\n")];
    let mut story = Installation::new(&files, &backlog, &policy);
    story.set("LEVIATHAN_PRIVATE_HOSTS", &place);
    story.pass().succeeded();

    let attempt = story.json(&["attempts-list"])["attempts"][0].clone();
    let id = attempt["attempt_id"].as_str().unwrap();
    let shown = story.ctl(&["attempts-show", id]).succeeded().stdout;
    assert_eq!(attempt["status"], "completed", "{shown}");
    let answers: Vec<(String, String, String)> = story.json(&["attempts-show", id])["network"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| {
            let word = |name: &str| it[name].as_str().unwrap().to_owned();
            (word("used_by"), word("host"), word("answer"))
        })
        .collect();
    let told = |used_by: &str, host: &str, answer: &str| {
        answers.contains(&(used_by.to_owned(), host.to_owned(), answer.to_owned()))
    };
    assert!(told("setup", "localhost", "connected"), "{answers:?}");
    assert!(told("agent", "localhost", "not_permitted"), "{answers:?}");
    assert!(told("agent", "evil.example", "not_permitted"), "{answers:?}");
    assert!(shown.contains("evil.example:443") && shown.contains("not permitted by the policy"), "{shown}");

    let pull_request = story.origin.read_git(&["cat-file", "blob", "refs/pull/1/meta"]);
    let pull_request: serde_json::Value = serde_json::from_str(&pull_request).unwrap();
    let body = pull_request["body"].as_str().unwrap();
    assert!(body.contains(&format!("Network: reached `{place}`; asked in vain for")), "{body}");
    assert!(body.contains("`evil.example:443`"), "{body}");
}
