//! Who may do what, and how little is read before that is known.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use api::types::{HeartbeatRequest, ReasonRequest};
use api::{Access, ErrorCode, Method, ROUTES};
use serde_json::json;

use crate::support::*;

/// A path of this route with ids that are well formed.
fn concrete(path: &str) -> String {
    path.replace("{attempt_id}", "attempt-xyz")
        .replace("{target_id}", "nowhere")
        .replace("{sha256}", DIGEST)
        .replace("{*path}", "0/000.p/1")
}

fn request(plane: &Plane, method: Method, path: &str) -> reqwest::RequestBuilder {
    let url = format!("{}{}", plane.base, concrete(path));
    match method {
        Method::Get => http().get(url),
        Method::Post => http().post(url),
        Method::Put => http().put(url),
    }
}

#[tokio::test]
async fn every_route_of_the_table_is_there_and_closed_to_strangers() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    for route in ROUTES {
        let stranger = request(&plane, route.method, route.path);
        for (refused, why) in [
            (stranger.try_clone().unwrap(), "no token"),
            (stranger.try_clone().unwrap().bearer_auth("wrong-token"), "a wrong token"),
            (stranger.try_clone().unwrap().bearer_auth(format!("{TOKEN}x")), "a longer token"),
            (stranger.try_clone().unwrap().bearer_auth(""), "an empty token"),
            (stranger.try_clone().unwrap().basic_auth("operator", Some(TOKEN)), "another scheme"),
            (stranger.try_clone().unwrap().header("authorization", TOKEN), "no scheme"),
        ] {
            let response = refused.send().await.unwrap();
            let expected = if route.access == Access::Public { 200 } else { 401 };
            assert_eq!(response.status(), expected, "{} {} with {why}", route.method.as_str(), route.path);
            if expected == 401 {
                assert_eq!(response.headers()["www-authenticate"], "Bearer");
                assert!(response.headers().contains_key("x-request-id"));
            }
        }
        let known = stranger.bearer_auth(TOKEN).body("{}").send().await.unwrap();
        let body = known.text().await.unwrap();
        assert!(
            !body.contains("there is nothing at") && !body.contains("takes no"),
            "{}: {body}",
            route.path
        );
    }
    plane.stop().await;
}

#[tokio::test]
async fn what_is_not_in_the_table_is_told_so() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let (status, body) = answer(http().get(format!("{}/v2/x%1b[31m", plane.base))).await;
    assert_eq!((status, body["code"].as_str()), (404, Some("not_found")));
    assert!(body["hint"].as_str().unwrap().contains("/openapi.json"));
    let (status, body) = answer(http().delete(format!("{}/v1/targets", plane.base)).bearer_auth(TOKEN)).await;
    assert_eq!((status, body["code"].as_str()), (405, Some("method_not_allowed")));
    let (status, body) = answer(http().get(format!("{}/openapi.json", plane.base))).await;
    assert_eq!((status, body), (200, api::openapi()));
    plane.stop().await;
}

#[tokio::test]
async fn a_stranger_is_refused_before_the_body_is_read() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let address = plane.base.trim_start_matches("http://").to_owned();
    let first_line = move |headers: String| {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(headers.as_bytes()).unwrap();
        // Not one byte of the body is sent, and the answer comes all the same.
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer.to_vec()).unwrap()
    };
    let head = |token: &str, length: usize| {
        format!(
            "POST /v1/events/ingest HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\ncontent-length: {length}\r\n\r\n"
        )
    };
    let answers = tokio::task::spawn_blocking(move || {
        [first_line(head("wrong", 64 << 20)), first_line(head(TOKEN, 64 << 20))]
    });
    assert_eq!(answers.await.unwrap(), ["HTTP/1.1 401", "HTTP/1.1 413"]);
    plane.stop().await;
}

#[tokio::test]
async fn a_body_that_does_not_say_its_length_is_cut_off_at_the_limit() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let piece = bytes::Bytes::from(vec![b' '; 1 << 20]);
    let pieces = futures_util::stream::iter((0..8).map(move |_| Ok::<_, std::io::Error>(piece.clone())));
    let (status, body) = answer(post(&plane, "/v1/pause", reqwest::Body::wrap_stream(pieces))).await;
    assert_eq!((status, body["code"].as_str()), (413, Some("too_large")));
    assert!(body["detail"].as_str().unwrap().contains("at most 2097152 bytes"), "{body}");
    plane.stop().await;
}

#[tokio::test]
async fn an_executor_may_do_nothing_but_its_own_attempt() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2"]).await;
    let (own, other) = (plane.claim("t1").await.unwrap(), plane.claim("t2").await.unwrap());
    let executor = plane.client_with(&own.token);
    let before = head(&plane.client).await;

    let beat = HeartbeatRequest { activity: "testing".to_owned() };
    let forbidden = [
        refusal(executor.heartbeat(&other.attempt_id, &beat).await),
        refusal(executor.assignment(&other.attempt_id).await),
        refusal(executor.ingest(vec![step(&other.attempt_id, "t2", "attempt.started")]).await),
        refusal(
            executor
                .ingest(vec![
                    step(&own.attempt_id, "t1", "attempt.started"),
                    step(&other.attempt_id, "t2", "attempt.started"),
                ])
                .await,
        ),
        refusal(executor.ingest(vec![paused("x")]).await),
        refusal(executor.ingest(vec![task_created("t3", 3)]).await),
        refusal(executor.ingest(vec![step(&own.attempt_id, "t1", "pr.merged")]).await),
        refusal(
            executor
                .ingest(vec![step_with(&own.attempt_id, "t1", "attempt.lost", json!({ "reason": "x" }))])
                .await,
        ),
        refusal(
            executor
                .ingest(vec![step_with(
                    &own.attempt_id,
                    "t1",
                    "attempt.claimed",
                    json!({ "epoch": 2, "launcher": "worktree" }),
                )])
                .await,
        ),
        refusal({
            let mut disguised = step(&own.attempt_id, "t1", "attempt.started");
            disguised.actor_id = model::ActorId::parse("operator").unwrap();
            executor.ingest(vec![disguised]).await
        }),
        refusal(executor.graph_summary().await),
        refusal(executor.claim(&claim_request("t2")).await),
        refusal(executor.cancel(&own.attempt_id, &reason("x")).await),
        refusal(executor.artifact(&model::Digest::parse(DIGEST).unwrap()).await),
        // Only an executor has a lease to keep.
        refusal(plane.client.heartbeat(&own.attempt_id, &beat).await),
    ];
    for (status, code, text) in forbidden {
        assert_eq!((status, code), (403, ErrorCode::Forbidden), "{text}");
    }
    assert_eq!(head(&plane.client).await, before);

    assert_eq!(executor.assignment(&own.attempt_id).await.unwrap().attempt_id, own.attempt_id);
    assert!(!executor.heartbeat(&own.attempt_id, &beat).await.unwrap().paused);
    executor.ingest(vec![step(&own.attempt_id, "t1", "attempt.started")]).await.unwrap();
    executor.put_artifact("a log".into()).await.unwrap();
    plane.stop().await;
}

fn reason(text: &str) -> ReasonRequest {
    ReasonRequest { reason: text.to_owned(), target: None, actor_id: None }
}
