//! Short streams: one directory request and its response, one ping and its pong. Each is a future with a deadline of its own.

use std::{io, time::Duration};

use futures_util::{AsyncReadExt, AsyncWriteExt};
use libp2p::Stream;

use crate::{
    net::executor::within,
    wire::frame::{self, read_frame, write_frame},
};

/// How long one side of an exchange may keep the other waiting.
pub(crate) const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a pong may take (PROTOCOL.md).
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a ping (libp2p ping specification).
const PING_LEN: usize = 32;

/// Asks and waits for the response.
pub(crate) async fn request(mut io: Stream, body: Vec<u8>) -> io::Result<Vec<u8>> {
    let exchange = async {
        write_frame(&mut io, &body).await?;
        let response = read_frame(&mut io, frame::MAX_RESPONSE).await?;
        // The response is here: how the stream ends does not matter.
        let _ = io.close().await;
        Ok(response)
    };
    within(EXCHANGE_TIMEOUT, exchange)
        .await
        .unwrap_or_else(too_late)
}

/// Reads a request; the stream waits for the response.
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

/// Sends one ping; whether the right pong came in time.
pub(crate) async fn ping(mut io: Stream) -> bool {
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
    matches!(within(PING_TIMEOUT, exchange).await, Some(Ok(true)))
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
