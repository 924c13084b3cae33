//! Queries in, answers out: over UDP, and over TCP.
//!
//! Invariants: after [`BATCH`] datagrams the loop has its turn, so that a flood of queries cannot
//! delay a heartbeat; connections have bounded places ([`Connections`]), and end when they are idle
//! for [`IDLE`].
//!
//! [`Connections`]: crate::daemon::connections::Connections

use std::{
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    rc::Rc,
    time::Duration,
};

use async_io::{Async, Timer};
use smol::{
    future::yield_now,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

use super::{Desk, MAX_QUERIES, Received, count, failure, now};
use crate::{
    net::{
        EACH,
        dns::serve::MAX_QUERY,
        executor::{Left, Watched, Way, spawn, within},
    },
    protocol::codec::service::Transport,
};

/// How long a connection may be idle, and how long a message may take.
const IDLE: Duration = Duration::from_secs(10);
/// Datagrams that are answered in one turn.
const BATCH: usize = 16;
/// The pause after a failure of a socket, such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers datagrams, until the process ends.
pub(super) async fn serve_udp(desk: Rc<Desk>, socket: Rc<Watched<UdpSocket>>) {
    let mut room = [0; MAX_QUERY];
    loop {
        for _ in 0..BATCH {
            let received = poll_fn(|cx| {
                socket.poll(Way::Read, cx, |socket| {
                    Ok((socket.recv_from(&mut room)?, Left::Maybe))
                })
            });
            match received.await {
                Ok((len, from)) => {
                    let bytes = room.get(..len).unwrap_or_default();
                    on_datagram(&desk, &socket, bytes, from);
                }
                Err(error) => {
                    log::warn!(target: EACH, "cannot read a query of the DNS: {error}");
                    Timer::after(PAUSE).await;
                }
            }
        }
        yield_now().await;
    }
}

fn on_datagram(desk: &Rc<Desk>, socket: &Rc<Watched<UdpSocket>>, bytes: &[u8], from: SocketAddr) {
    // An answer that the system does not take is lost, as on any network.
    let send = move |socket: &Watched<UdpSocket>, answer: Option<Vec<u8>>| {
        let _ = answer.map(|answer| socket.socket().send_to(&answer, from));
    };
    match desk.receive(bytes, from.ip(), Transport::Udp) {
        Received::Answer(answer) => send(socket, answer),
        // Only as many tasks as places.
        Received::Wait(_) if desk.queries.get() >= MAX_QUERIES => {
            count(&desk.refused);
            send(
                socket,
                desk.answer(bytes, &failure(), now(), (from.ip(), Transport::Udp)),
            );
        }
        Received::Wait(question) => {
            let (desk, socket, bytes) = (desk.clone(), socket.clone(), bytes.to_vec());
            spawn(async move {
                let answer = desk
                    .look_up(&bytes, question, (from.ip(), Transport::Udp))
                    .await;
                send(&socket, answer);
            });
        }
    }
}

/// Takes connections in, until the process ends.
pub(super) async fn serve_tcp(desk: Rc<Desk>, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                if let Some(place) = desk.connections.place().await {
                    let desk = desk.clone();
                    spawn(async move {
                        let _place = place;
                        // A failed connection needs no log line: the client sees the failure, too.
                        let _ = converse(&desk, stream, from.ip()).await;
                    });
                }
            }
            Err(error) => {
                log::warn!(target: EACH, "cannot take in a connection of the DNS: {error}");
                Timer::after(PAUSE).await;
            }
        }
        yield_now().await;
    }
}

/// Answers one query after another, each with its length before it (RFC 1035, section 4.2.2).
async fn converse(desk: &Rc<Desk>, mut stream: Async<TcpStream>, from: IpAddr) -> io::Result<()> {
    let mut room = [0; MAX_QUERY];
    let idle = || io::Error::from(io::ErrorKind::TimedOut);
    loop {
        let received = async {
            let received = within(IDLE, receive(&mut stream, &mut room)).await;
            received.ok_or_else(idle)?
        };
        let bytes = desk.connections.while_idle(received).await?;
        let answer = match desk.receive(bytes, from, Transport::Tcp) {
            Received::Answer(answer) => answer,
            Received::Wait(question) => {
                desk.clone()
                    .look_up(bytes, question, (from, Transport::Tcp))
                    .await
            }
        };
        let Some(answer) = answer else {
            return Ok(());
        };
        let len = u16::try_from(answer.len()).map_err(io::Error::other)?;
        let framed = [&len.to_be_bytes()[..], &answer].concat();
        within(IDLE, stream.write_all(&framed))
            .await
            .ok_or_else(idle)??;
    }
}

/// One message. A longer one than a query has ends the connection.
async fn receive<'a>(stream: &mut Async<TcpStream>, room: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let room = room.get_mut(..u16::from_be_bytes(len).into());
    let room = room.ok_or(io::ErrorKind::InvalidData)?;
    stream.read_exact(room).await?;
    Ok(room)
}
