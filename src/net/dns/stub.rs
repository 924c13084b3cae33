//! Queries to name servers over UDP, and over TCP for answers that do not fit (RFC 1035, 5452,
//! 7766).
//!
//! Invariants: each query has a random id, and a socket of its own that is connected to the server
//! and has a port that the kernel chooses at random; at most 16 foreign datagrams are read for it;
//! an answer is at most 16 KiB long.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};

use async_io::Async;
use domain::base::Rtype;
use futures_util::{AsyncReadExt, AsyncWriteExt};

use super::Problem;
use super::message::{self, Edns, MAX_TCP, MAX_UDP, QueryName, Value, Verdict, judge};
use super::system::System;
use crate::net::executor::within;

/// Datagrams read for one query. If the answer is not among them, they are a flood or guesses of
/// the id.
const MAX_FOREIGN: usize = 16;

/// The records of `name` that the servers of `system` return; `None` if the name does not exist.
/// After a server that fails or does not answer, the next one is asked; after the last, the first.
///
/// # Errors
///
/// If no server gave an answer: why the first failed, of those that did not just stay silent.
pub(super) async fn ask(
    system: &System,
    name: &QueryName,
    rtype: Rtype,
) -> Result<Option<Vec<Value>>, Problem> {
    let mut failed = None;
    for round in 0..system.attempts {
        for &server in &system.servers {
            let exchange = async {
                let mut id = [0; 2];
                getrandom::fill(&mut id).map_err(io::Error::other)?;
                // A server or firewall that is too old for EDNS0 gets a second query without it.
                let edns = match round {
                    0 => Edns::With,
                    _ => Edns::Without,
                };
                let query = message::query(name, rtype, u16::from_ne_bytes(id), edns)
                    .map_err(io::Error::other)?;
                exchange(server, query.as_ref(), system.tcp_only).await
            };
            let error = match within(system.timeout, exchange).await {
                Some(Ok(Verdict::Values(values))) => return Ok(Some(values)),
                Some(Ok(Verdict::NoName)) => return Ok(None),
                Some(Ok(Verdict::Failed(why))) => io::Error::other(why),
                Some(Ok(Verdict::Foreign | Verdict::Truncated)) => {
                    io::Error::other("it sends something else than the answer")
                }
                Some(Err(error)) => error,
                None => continue,
            };
            failed.get_or_insert(Problem::Failed(server, error));
        }
    }
    Err(failed.unwrap_or(Problem::Timeout))
}

async fn exchange(server: SocketAddr, query: &[u8], tcp_only: bool) -> io::Result<Verdict> {
    if !tcp_only {
        match over_udp(server, query).await? {
            Verdict::Truncated => {}
            verdict => return Ok(verdict),
        }
    }
    over_tcp(server, query).await
}

async fn over_udp(server: SocketAddr, query: &[u8]) -> io::Result<Verdict> {
    let local: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = Async::<UdpSocket>::bind(local)?;
    socket.get_ref().connect(server)?;
    socket.send(query).await?;
    let mut answer = vec![0; MAX_UDP.into()];
    for _ in 0..MAX_FOREIGN {
        let n = socket.recv(&mut answer).await?;
        match judge(query, answer.get(..n).unwrap_or_default()) {
            Verdict::Foreign => {}
            verdict => return Ok(verdict),
        }
    }
    Ok(Verdict::Foreign)
}

async fn over_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Verdict> {
    let mut stream = Async::<TcpStream>::connect(server).await?;
    let len = u16::try_from(query.len()).map_err(io::Error::other)?;
    let framed = [&len.to_be_bytes(), query].concat();
    stream.write_all(&framed).await?;
    let mut len = [0; 2];
    stream.read_exact(&mut len).await?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > MAX_TCP {
        let problem = format!("its answer of {len} bytes is longer than {MAX_TCP}");
        return Err(io::Error::other(problem));
    }
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer).await?;
    Ok(judge(query, &answer))
}
