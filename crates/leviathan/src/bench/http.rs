//! `leviathan bench http`: what recording over HTTP costs the server, how soon it is signed and proven, and a thousand readers
//! of the stream.
//!
//! Servers are processes of their own, so that what this one does to ask them is not counted.

mod readers;
mod served;
mod signed;

use anyhow::{Context, ensure};
use api::Client;
use api::types::{IngestRequest, IngestResponse};
use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use control_plane::measure;
use model::Event;

use self::served::Served;
use super::{Goal, machine, print_row, print_verdicts, show};
use crate::Answer;

/// With one event in each request, so little of what an endpoint reaches that only parses;
const SINGLE_TARGET: f64 = 0.5;
/// with 64, so little.
const BUNDLE_TARGET: f64 = 0.15;
/// A signed checkpoint is over what was recorded after so many seconds,
const LAG: f64 = 1.0;
/// and that an event is in the log is proven in so many.
const PROOF: f64 = 0.001;
/// How many requests are under way at once.
const IN_FLIGHT: u64 = 64;

/// What `leviathan bench http` is told.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many events are sent to each server, in requests of one and again in requests of 64
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    events: u64,
    /// How many clients read the stream at once
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    readers: u32,
    /// How many events each of them must receive
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    streamed: u32,
    /// Write JSON objects, one a line, instead of the table
    #[arg(long)]
    json: bool,
    /// Be the endpoint that only parses
    #[arg(long, hide = true)]
    only_parse: bool,
}

/// Measures, prints, and says whether the goals are met.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<Answer> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the async runtime")?;
    if arguments.only_parse {
        runtime.block_on(only_parse())?;
        return Ok(Answer::Yes);
    }
    crate::open_files::raise_limit();
    let rows = runtime.block_on(measured(arguments))?;
    let Rows { single, bundle, signed, delivered, expected } = &rows;
    let goals = [
        Goal::at_least(SINGLE_TARGET, "G3-single", single.recorded, single.parsed),
        Goal::at_least(BUNDLE_TARGET, "G3-bundle", bundle.recorded, bundle.parsed),
        Goal::at_most(1.0, "G10-lag", signed.lag, LAG),
        Goal::at_most(1.0, "G10-proof", signed.proof, PROOF),
        Goal::at_least(1.0, "G10-stream", *delivered as f64, *expected as f64),
    ];
    show(&goals, arguments.json, || {
        anstream::println!("{}\n", machine());
        anstream::println!(
            "{} events, {IN_FLIGHT} requests at once; events per processor second of the server",
            arguments.events
        );
        print_row("one event in a request, recorded", single.recorded);
        print_row("one event in a request, parsed", single.parsed);
        print_row("64 events in a request, recorded", bundle.recorded);
        print_row("64 events in a request, parsed", bundle.parsed);
        anstream::println!("\nmilliseconds");
        print_row("from an answer to a checkpoint over it, p99", signed.lag * 1000.0);
        print_row("one proof of inclusion, median", signed.proof * 1000.0);
        anstream::println!("\n{} readers of the stream, {} events", arguments.readers, arguments.streamed);
        print_row("delivered in order", *delivered as f64);
        print_row("expected", *expected as f64);
        print_verdicts(&goals);
    })
}

struct Rows {
    single: Rates,
    bundle: Rates,
    signed: signed::Measured,
    delivered: u64,
    expected: u64,
}

/// Events per processor second of a server.
struct Rates {
    recorded: f64,
    parsed: f64,
}

async fn measured(arguments: &Arguments) -> anyhow::Result<Rows> {
    let single = rates(arguments.events, 1).await?;
    let bundle = rates(arguments.events, 64).await?;
    let plane = Served::control_plane().await?;
    let signed = signed::measure(&plane, arguments.events).await?;
    plane.stop().await?;
    let plane = Served::control_plane().await?;
    let delivered = readers::delivered(&plane, arguments.readers, arguments.streamed).await?;
    plane.stop().await?;
    let expected = u64::from(arguments.readers) * u64::from(arguments.streamed);
    Ok(Rows { single, bundle, signed, delivered, expected })
}

/// The same requests to a control plane and to an endpoint that only parses.
async fn rates(events: u64, in_a_request: usize) -> anyhow::Result<Rates> {
    let plane = Served::control_plane().await?;
    let recorded = rate(&plane, events, in_a_request).await?;
    let head = plane.client().graph_summary().await?.head;
    plane.stop().await?;
    let parser = Served::only_parse().await?;
    let parsed = rate(&parser, events, in_a_request).await?;
    parser.stop().await?;
    ensure!(head >= events, "only {head} events were recorded of {events}");
    Ok(Rates { recorded, parsed })
}

/// Sends at least `events` events and says how many the server took per processor second.
async fn rate(server: &Served, events: u64, in_a_request: usize) -> anyhow::Result<f64> {
    server.client().ingest(vec![measure::target()]).await?;
    let before = server.processor_seconds()?;
    let senders: Vec<_> = (0..IN_FLIGHT)
        .map(|sender| {
            let client = server.client().clone();
            tokio::spawn(send(client, sender, events.div_ceil(IN_FLIGHT), in_a_request))
        })
        .collect();
    let mut sent = 0;
    for sender in senders {
        sent += sender.await??;
    }
    let took = server.processor_seconds()? - before;
    ensure!(took > 0.0, "{events} events are too few to see what they cost: give more with --events");
    Ok(sent as f64 / took)
}

/// Sends whole lives of attempts that no other sender sends, one request after the other.
async fn send(client: Client, sender: u64, events: u64, in_a_request: usize) -> anyhow::Result<u64> {
    let mut lives = (sender..).step_by(IN_FLIGHT as usize).flat_map(measure::life);
    let mut sent = 0;
    while sent < events {
        let bundle: Vec<Event> = lives.by_ref().take(in_a_request).collect();
        sent += bundle.len() as u64;
        client.ingest(bundle).await?;
    }
    Ok(sent)
}

/// Serves an endpoint that reads each event as its type and does nothing with it, until it is told to stop.
async fn only_parse() -> anyhow::Result<()> {
    async fn parse(body: Bytes) -> Result<Json<IngestResponse>, StatusCode> {
        let request: IngestRequest =
            serde_json::from_slice(&body).map_err(|_| StatusCode::UNPROCESSABLE_ENTITY)?;
        let ingested = request.events.len() as u64;
        Ok(Json(IngestResponse {
            status: "ok".to_owned(),
            ingested,
            duplicates: 0,
            seqs: Vec::new(),
            head: 0,
        }))
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    anstream::println!("Listening on http://{}", listener.local_addr()?);
    Ok(axum::serve(listener, Router::new().route("/v1/events/ingest", post(parse))).await?)
}
