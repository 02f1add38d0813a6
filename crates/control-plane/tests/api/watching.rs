//! What Prometheus is told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::*;

/// Every sample of a scrape, by its name with labels.
pub(crate) async fn scraped(plane: &Plane) -> BTreeMap<String, f64> {
    let response = http().get(format!("{}/metrics", plane.base)).bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(response.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text"));
    let text = response.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    samples.map(sample).collect()
}

/// Waits until a scrape has a sample as it should be.
pub(crate) async fn until(plane: &Plane, name: &str, is_so: impl Fn(f64) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let samples = scraped(plane).await;
        if is_so(samples[name]) {
            return;
        }
        assert!(Instant::now() < deadline, "waited in vain for {name}: {samples:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_scrape_says_how_things_stand_and_what_was_done() {
    let data = tempfile::tempdir().unwrap();
    let plane = Plane::start(data.path()).await.with_tasks(&["t1", "t2"]).await;
    let one = plane.claim("t1").await.unwrap().attempt_id;
    plane.client.ingest(vec![step(&one, "t1", "attempt.started")]).await.unwrap();
    plane
        .client
        .ingest(vec![step(&one, "t1", "agent.finished"), step(&one, "t1", "attempt.failed")])
        .await
        .unwrap();
    plane.claim("t2").await.unwrap();
    refusal(plane.claim("t2").await);
    plane.client.ingest(vec![paused("Lunch")]).await.unwrap();
    let samples = scraped(&plane).await;
    for (name, value) in [
        ("leviathan_journal_head", 11.0),
        ("leviathan_journal_events_total", 11.0),
        ("leviathan_journal_bundles_total", 7.0),
        ("leviathan_journal_append_seconds_count", 7.0),
        ("leviathan_journal_batch_events_sum", 11.0),
        ("leviathan_journal_waiting", 0.0),
        (r#"leviathan_journal_refused_total{reason="denied"}"#, 1.0),
        (r#"leviathan_attempts{state="failed"}"#, 1.0),
        (r#"leviathan_attempts_failed{target="shop",reason="no_change"}"#, 1.0),
        (r#"leviathan_attempts_live{target="shop"}"#, 1.0),
        (r#"leviathan_pull_requests_open{target="shop"}"#, 0.0),
        (r#"leviathan_tasks{target="shop",state="running",reason="running"}"#, 1.0),
        ("leviathan_cost_usd_total", 0.0015),
        ("leviathan_paused", 1.0),
        (
            r#"leviathan_http_request_seconds_count{method="POST",path="/v1/attempts/claim",status="409"}"#,
            1.0,
        ),
    ] {
        assert_eq!(samples.get(name), Some(&value), "{name}: {samples:#?}");
    }
    let (status, _) = answer(http().get(format!("{}/metrics", plane.base))).await;
    assert_eq!(status, 401);
    plane.stop().await;
}
