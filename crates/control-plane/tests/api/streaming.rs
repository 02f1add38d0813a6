//! Following the log as it grows.

use std::collections::BTreeMap;
use std::time::Duration;

use api::types::EventsQuery;
use serde_json::Value;

use crate::support::*;

/// A connection to the stream, and what came of it that was not taken yet.
struct Reader {
    response: reqwest::Response,
    text: String,
}

impl Reader {
    async fn at(plane: &Plane, query: &str, last: Option<u64>) -> Self {
        let request = http().get(format!("{}/v1/events/stream{query}", plane.base)).bearer_auth(TOKEN);
        let request = last.into_iter().fold(request, |request, last| request.header("Last-Event-ID", last));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, text: String::new() }
    }

    /// The fields of the next message; `None` once the stream has ended.
    async fn next(&mut self) -> Option<BTreeMap<String, String>> {
        loop {
            if let Some((message, rest)) = self.text.split_once("\n\n") {
                let lines = message.lines().filter_map(|line| line.split_once(": "));
                let fields: BTreeMap<_, _> =
                    lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                self.text = rest.to_owned();
                // A comment keeps the connection alive and says nothing.
                if fields.contains_key("data") {
                    return Some(fields);
                }
                continue;
            }
            let chunk = tokio::time::timeout(Duration::from_secs(60), self.response.chunk()).await;
            self.text += std::str::from_utf8(&chunk.expect("the stream says something").unwrap()?).unwrap();
        }
    }

    async fn seq(&mut self) -> u64 {
        let message = self.next().await.unwrap();
        let event: Value = serde_json::from_str(&message["data"]).unwrap();
        assert_eq!(event["seq"].to_string(), message["id"]);
        event["seq"].as_u64().unwrap()
    }
}

#[tokio::test]
async fn a_reader_gets_what_was_and_then_what_is_and_goes_on_where_it_was_cut_off() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    plane.client.ingest(vec![paused("a"), paused("b")]).await.unwrap();
    let mut reader = Reader::at(&plane, "", None).await;
    assert_eq!((reader.seq().await, reader.seq().await), (1, 2));
    plane.client.ingest(vec![paused("c")]).await.unwrap();
    let message = reader.next().await.unwrap();
    let listed = plane.client.events(&EventsQuery { after: Some(2), ..Default::default() }).await.unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&message["data"]).unwrap(),
        serde_json::to_value(&listed.events[0]).unwrap()
    );
    drop(reader);

    plane.client.ingest(vec![paused("d"), paused("e")]).await.unwrap();
    // What the browser says on its own counts more than the address that it was given at first.
    let mut again = Reader::at(&plane, "?after=1", Some(3)).await;
    assert_eq!((again.seq().await, again.seq().await), (4, 5));
    assert_eq!(Reader::at(&plane, "?after=4", None).await.seq().await, 5);
    plane.stop().await;
}

#[tokio::test]
async fn a_reader_gets_only_what_it_asked_for() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1"]).await;
    let mut reader = Reader::at(&plane, "?task=t1&type=attempt.started", None).await;
    let attempt = plane.claim("t1").await.unwrap().attempt_id;
    plane
        .client
        .ingest(vec![paused("a"), step(&attempt, "t1", "attempt.started"), paused("b")])
        .await
        .unwrap();
    assert_eq!(reader.seq().await, 6);
    for (query, problem) in [
        ("?limit=3", "no `limit`"),
        ("?newest=true", "no `newest`"),
        ("?type=task.invented", "is not an event type"),
        ("?follow=1", "unknown field"),
    ] {
        let request = http().get(format!("{}/v1/events/stream{query}", plane.base)).bearer_auth(TOKEN);
        let (status, body) = answer(request).await;
        assert!(status == 422 && body.to_string().contains(problem), "{query}: {body}");
    }
    let request = http().get(format!("{}/v1/events/stream", plane.base)).bearer_auth(TOKEN);
    let (status, body) = answer(request.header("Last-Event-ID", "yesterday")).await;
    assert!(status == 422 && body.to_string().contains("Last-Event-ID"), "{body}");
    plane.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_ahead_of_the_log_is_told_so() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    plane.client.ingest(vec![paused("a")]).await.unwrap();
    let mut reader = Reader::at(&plane, "", Some(99)).await;
    let message = reader.next().await.unwrap();
    assert_eq!((message["event"].as_str(), message["data"].as_str()), ("reset", r#"{"head":1}"#));
    plane.client.ingest(vec![paused("b")]).await.unwrap();
    assert_eq!(reader.seq().await, 2);
    plane.stop().await;
}

#[tokio::test]
async fn readers_do_not_keep_a_control_plane_from_stopping() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let mut reader = Reader::at(&plane, "", None).await;
    let (stopped, ended) = tokio::join!(plane.stop(), reader.next());
    assert_eq!((stopped, ended), ((), None));
}

#[tokio::test]
async fn many_readers_of_which_some_are_slow_all_get_everything() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await;
    let mut readers = Vec::new();
    for _ in 0..100 {
        readers.push(Reader::at(&plane, "", None).await);
    }
    for n in 0..20 {
        let bundle = (0..50).map(|i| paused(&format!("{n}-{i} {}", "x".repeat(500)))).collect();
        plane.client.ingest(bundle).await.unwrap();
    }
    // Nobody has read anything so far, and the kernel does not keep half a megabyte for each.
    for mut reader in readers {
        for expected in 1..=1_000 {
            assert_eq!(reader.seq().await, expected);
        }
    }
    plane.stop().await;
}
