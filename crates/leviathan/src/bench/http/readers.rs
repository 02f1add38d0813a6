//! Many readers of the stream at once, each held to every event in its order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use control_plane::measure;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Barrier;

use super::served::{Served, TOKEN};

/// How long may pass without an event before a reader counts what it has.
const SILENCE: Duration = Duration::from_secs(30);

/// Connects `readers` clients, records `events` events while they read, and counts those that arrived: for each reader up to
/// the first that is missing or out of its place.
pub(super) async fn delivered(plane: &Served, readers: u32, events: u32) -> anyhow::Result<u64> {
    let connected = Arc::new(Barrier::new(readers as usize + 1));
    let mut reading = Vec::new();
    for _ in 0..readers {
        let mut stream = connect(plane.address()).await?;
        let connected = Arc::clone(&connected);
        reading.push(tokio::spawn(async move {
            let begun = begin(&mut stream).await;
            connected.wait().await;
            begun?;
            anyhow::Ok(read(stream, events).await)
        }));
    }
    connected.wait().await;
    for n in 0..u64::from(events) {
        plane.client().ingest(vec![measure::pause(n)]).await?;
    }
    let mut delivered = 0;
    for reader in reading {
        delivered += u64::from(reader.await??);
    }
    Ok(delivered)
}

async fn connect(address: &str) -> anyhow::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address)
        .await
        .context("cannot connect one more reader: is the limit of open files too low?")?;
    Ok(BufReader::new(stream))
}

/// Asks for the stream and reads the head of the answer. By HTTP/1.0, so that what follows are lines and nothing else.
async fn begin(stream: &mut BufReader<TcpStream>) -> anyhow::Result<()> {
    let request =
        format!("GET /v1/events/stream HTTP/1.0\r\nhost: bench\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    stream.get_mut().write_all(request.as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    anyhow::ensure!(line.contains(" 200 "), "the stream answers {}", line.trim());
    while line.trim() != "" {
        line.clear();
        anyhow::ensure!(stream.read_line(&mut line).await? > 0, "the stream ended in its head");
    }
    Ok(())
}

/// How many events came, in order and without a gap from the first on.
async fn read(mut stream: BufReader<TcpStream>, events: u32) -> u32 {
    let (mut came, mut line) = (0, String::new());
    while came < events {
        line.clear();
        match tokio::time::timeout(SILENCE, stream.read_line(&mut line)).await {
            Ok(Ok(bytes)) if bytes > 0 => {}
            Ok(_) | Err(_) => return came,
        }
        if let Some(id) = line.strip_prefix("id:") {
            if id.trim() != (came + 1).to_string() {
                return came;
            }
            came += 1;
        }
    }
    came
}
