//! Short streams: a directory request and its response, or a ping and its pong. Each is a future
//! with a deadline of its own.
//!
//! Invariant: no side can keep the other waiting for longer than its limit, and no frame is longer
//! than its protocol allows.

use std::{io, time::Duration};

use futures_util::{AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;

use crate::{
    net::{
        executor::within,
        frames::{read_frame, write_frame},
    },
    protocol::{Verdict, codec::frame},
};

/// How long one side of an exchange may keep the other waiting.
pub(crate) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the response to our request may take, once there is a connection. A server has 3 s for
/// it (PROTOCOL.md, section 4). A later response makes the connection doubtful.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a pong may take, once there is a connection (PROTOCOL.md).
pub(crate) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a ping (libp2p ping specification).
const PING_LEN: usize = 32;

/// Sends the request and waits for the response.
pub(crate) async fn request(mut io: Stream, body: Vec<u8>, limit: Duration) -> io::Result<Vec<u8>> {
    let exchange = async {
        write_frame(&mut io, &body).await?;
        let response = read_frame(&mut io, frame::MAX_RESPONSE).await?;
        // The response is complete, so an error in closing does not matter.
        let _ = io.close().await;
        Ok(response)
    };
    within(limit, exchange).await.unwrap_or_else(too_late)
}

/// Reads a request. Returns the stream, on which the response is sent later.
pub(crate) async fn read_request(mut io: Stream) -> io::Result<(Stream, Vec<u8>)> {
    let exchange = async { read_frame(&mut io, frame::MAX_FRAME).await };
    let body = within(EXCHANGE_TIMEOUT, exchange)
        .await
        .unwrap_or_else(too_late)?;
    Ok((io, body))
}

/// Writes the response to a request.
pub(crate) async fn respond(mut io: Stream, body: Vec<u8>) -> io::Result<()> {
    let exchange = async {
        write_frame(&mut io, &body).await?;
        io.close().await
    };
    within(EXCHANGE_TIMEOUT, exchange)
        .await
        .unwrap_or_else(too_late)
}

/// Sends one ping. The peer is reachable if the right pong comes in time.
pub(crate) async fn ping(mut io: Stream, limit: Duration) -> Verdict {
    let exchange = async {
        let mut sent = [0; PING_LEN];
        getrandom::fill(&mut sent).map_err(|_| io::ErrorKind::Other)?;
        io.write_all(&sent).await?;
        io.flush().await?;
        let mut pong = [0; PING_LEN];
        io.read_exact(&mut pong).await?;
        let _ = io.close().await;
        io::Result::Ok(pong == sent)
    };
    match within(limit, exchange).await {
        Some(Ok(true)) => Verdict::Reachable,
        _ => Verdict::Silent,
    }
}

/// Answers every ping that comes on the stream, as the libp2p specification asks.
pub(crate) async fn pong(mut io: Stream) -> io::Result<()> {
    let mut ping = [0; PING_LEN];
    loop {
        io.read_exact(&mut ping).await?;
        io.write_all(&ping).await?;
        io.flush().await?;
    }
}

pub(super) fn too_late<T>() -> io::Result<T> {
    Err(io::ErrorKind::TimedOut.into())
}
