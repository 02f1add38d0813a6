//! The one way out of a command's own network: a port inside it, at which this process answers.
//!
//! A socket belongs to the network in which it was made, whoever holds it. The warden, the first process inside, makes
//! the listener and hands it over; from then on what connects to that port in there arrives at the caller out here.
//! Nothing inside is trusted with it, and there is no second way.

use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The port inside. The network in there is new and empty, so that it is free.
pub(super) const PORT: u16 = 3128;

/// What tells a command's programs the way. Both spellings are in use.
pub(super) fn variables() -> BTreeMap<String, String> {
    let way = format!("http://127.0.0.1:{PORT}");
    let own = "localhost,127.0.0.1,::1".to_owned();
    ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"]
        .into_iter()
        .map(|name| (name.to_owned(), way.clone()))
        .chain(["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), own.clone())))
        .collect()
}

/// Inside: makes the listener and sends it through `out`.
pub(super) fn open(out: &OwnedFd) -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [listener.as_fd()];
    if !ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(io::Error::other("the message has no room for a descriptor"));
    }
    sendmsg(out, &[IoSlice::new(b".")], &mut ancillary, SendFlags::empty())?;
    Ok(())
}

/// Outside: the listener that comes through `from`. Pending for ever when none comes: the end of the command is told
/// elsewhere.
pub(super) async fn received(from: &UnixStream) -> io::Result<tokio::net::TcpListener> {
    let listener = from.async_io(Interest::READABLE, || receive(from)).await?;
    match listener {
        None => std::future::pending().await,
        Some(listener) => {
            let listener = TcpListener::from(listener);
            listener.set_nonblocking(true)?;
            tokio::net::TcpListener::from_std(listener)
        }
    }
}

/// One message: the descriptor in it, or nothing at its end.
fn receive(from: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let sent = ancillary.drain().find_map(|message| {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message { descriptors.next() } else { None }
    });
    Ok(sent)
}
