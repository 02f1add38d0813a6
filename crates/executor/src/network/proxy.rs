//! The proxy: answers one request on each connection, and carries what follows.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use model::event::{NetworkAnswer, NetworkUse};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::address::{Reach, reach};
use super::request::{self, Malformed, Wanted};
use super::tally::{Counts, Request, Tally};
use super::{HTTPS, Hosts, PrivateHost};

/// How long a command may take to say what it wants.
const TO_ASK: Duration = Duration::from_secs(20);
/// How long a host may take to answer.
const TO_CONNECT: Duration = Duration::from_secs(20);
/// Connections that one command may have at once; more of them wait.
const CONNECTIONS: usize = 64;

/// The way out for the commands of one kind. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Proxy(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    used_by: NetworkUse,
    hosts: Hosts,
    private: Vec<PrivateHost>,
    tally: Tally,
}

/// What a request comes to.
struct Judged {
    answer: NetworkAnswer,
    server: Option<TcpStream>,
}

impl Proxy {
    /// A way to `hosts`, and to those of them that are `private` also where they lie in the machine's own network.
    pub fn new(used_by: NetworkUse, hosts: Hosts, private: Vec<PrivateHost>, tally: Tally) -> Self {
        Self(Arc::new(Rules { used_by, hosts, private, tally }))
    }

    /// Answers on `listener` until the future is dropped; every connection ends then.
    pub async fn serve(&self, listener: TcpListener) -> std::convert::Infallible {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let place = Arc::clone(&places).acquire_owned().await.expect("nobody closes the places");
            while connections.try_join_next().is_some() {}
            let Ok((client, _)) = listener.accept().await else {
                // Out of descriptors: it gets better when a connection ends.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let rules = Arc::clone(&self.0);
            connections.spawn(async move {
                // What is wrong with a connection is the command's matter, which sees it end.
                let _ = rules.attend(client).await;
                drop(place);
            });
        }
    }
}

impl Rules {
    async fn attend(&self, mut client: TcpStream) -> io::Result<()> {
        let asked = timeout(TO_ASK, head_of(&mut client)).await;
        let (head, rest) = asked.map_err(|_| io::ErrorKind::TimedOut)??;
        let wanted = match request::read(&head) {
            Ok(wanted) => wanted,
            Err(malformed) => return refuse_unread(&mut client, malformed).await,
        };
        let Judged { answer, server } = self.judge(&wanted).await;
        let request = Request { used_by: self.used_by, host: wanted.host, port: wanted.port, answer };
        let text = self.text(&request);
        let counts = self.tally.count(request);
        match server {
            None => client.write_all(refusal(answer, &text).as_bytes()).await,
            Some(mut server) => {
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                counts.sent_bytes.fetch_add(rest.len() as u64, Ordering::Relaxed);
                server.write_all(&rest).await?;
                carry(client, server, &counts).await
            }
        }
    }

    /// Decides, and connects where it is permitted: to the address that was judged, never to the name again.
    async fn judge(&self, wanted: &Wanted) -> Judged {
        let refused = |answer| Judged { answer, server: None };
        let vouched = self.private.iter().any(|it| (&it.host, it.port) == (&wanted.host, wanted.port));
        if !self.hosts.include(&wanted.host) {
            return refused(NetworkAnswer::NotPermitted);
        }
        if wanted.port != HTTPS && !vouched {
            return refused(NetworkAnswer::PortNotPermitted);
        }
        let name = (wanted.host.as_str(), wanted.port);
        let Ok(Ok(found)) = timeout(TO_CONNECT, tokio::net::lookup_host(name)).await else {
            return refused(NetworkAnswer::Unknown);
        };
        let (open, closed): (Vec<SocketAddr>, Vec<SocketAddr>) =
            found.partition(|address| match reach(address.ip()) {
                Reach::Public => true,
                Reach::Private => vouched,
                Reach::Never => false,
            });
        if open.is_empty() {
            let has_any = !closed.is_empty();
            return refused(if has_any {
                NetworkAnswer::AddressNotPermitted
            } else {
                NetworkAnswer::Unknown
            });
        }
        match timeout(TO_CONNECT, TcpStream::connect(&open[..])).await {
            Ok(Ok(server)) => Judged { answer: NetworkAnswer::Connected, server: Some(server) },
            Ok(Err(_)) | Err(_) => refused(NetworkAnswer::Unreachable),
        }
    }

    /// What the command, and so whoever reads its output, is told.
    fn text(&self, Request { used_by, host, port, answer }: &Request) -> String {
        match answer {
            NetworkAnswer::Connected => String::new(),
            NetworkAnswer::NotPermitted => {
                format!("`network.{used_by}` of policy.yaml does not name {host}. It names: {}", self.hosts)
            }
            NetworkAnswer::PortNotPermitted => {
                format!("a policy opens port {HTTPS} of a host, and this is port {port} of {host}")
            }
            NetworkAnswer::AddressNotPermitted => format!(
                "{host} leads to an address of this machine or of a private network. An operator can permit it \
                 (LEVIATHAN_PRIVATE_HOSTS)"
            ),
            NetworkAnswer::Unknown => format!("nobody knows an address of {host}"),
            NetworkAnswer::Unreachable => format!("{host} does not answer at port {port}"),
        }
    }
}

/// Reads up to the empty line; what came after it belongs to the tunnel.
async fn head_of(client: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::with_capacity(512);
    loop {
        if let Some(end) = end_of(&head) {
            let rest = head.split_off(end);
            return Ok((head, rest));
        }
        if head.len() >= request::LARGEST {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut chunk = [0; 1 << 10];
        match client.read(&mut chunk).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => head.extend_from_slice(&chunk[..length]),
        }
    }
}

fn end_of(head: &[u8]) -> Option<usize> {
    let after = |separator: &[u8]| {
        head.windows(separator.len()).position(|window| window == separator).map(|at| at + separator.len())
    };
    let ends = [after(b"\r\n\r\n"), after(b"\n\n")];
    ends.into_iter().flatten().min()
}

async fn refuse_unread(client: &mut TcpStream, malformed: Malformed) -> io::Result<()> {
    let (status, text) = match malformed {
        Malformed::NotHttp => ("400 Bad Request", "this is no request for a tunnel to a host and a port"),
        Malformed::NotATunnel => ("405 Method Not Allowed", "nothing is carried in the clear: use https"),
    };
    client.write_all(response(status, text).as_bytes()).await
}

/// 403 where another try would be refused as well, so that no client tries again; 502 where it may help.
fn refusal(answer: NetworkAnswer, text: &str) -> String {
    let status = match answer {
        NetworkAnswer::Unknown | NetworkAnswer::Unreachable => "502 Bad Gateway",
        NetworkAnswer::Connected
        | NetworkAnswer::NotPermitted
        | NetworkAnswer::PortNotPermitted
        | NetworkAnswer::AddressNotPermitted => "403 Forbidden",
    };
    response(status, text)
}

fn response(status: &str, text: &str) -> String {
    let length = text.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{text}\n"
    )
}

/// Carries both directions until both have ended.
async fn carry(client: TcpStream, server: TcpStream, counts: &Counts) -> io::Result<()> {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        copy(from_client, to_server, &counts.sent_bytes),
        copy(from_server, to_client, &counts.received_bytes),
    )?;
    Ok(())
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match from.read(&mut buffer).await? {
            0 => return to.shutdown().await,
            length => {
                bytes.fetch_add(length as u64, Ordering::Relaxed);
                to.write_all(&buffer[..length]).await?;
            }
        }
    }
}
