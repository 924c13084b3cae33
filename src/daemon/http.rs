//! Answers over HTTP, for monitoring, for browsers and for scripts: on the one loop.
//!
//! ```text
//!  a client ──request──▶ sockets ──▶ Desk ──▶ status, nodes, watch ──▶ the loop
//!                                     ▲                                 │
//!  a client ◀──answer────────────────-┴──── an answer, or its parts ◀───┘
//! ```
//!
//! It is a reader of the one status and of the one stream of changes, and keeps nothing of them.
//!
//! Invariants: at most [`MAX_CONNECTIONS`] connections, of which at most [`MAX_STREAMS`] have an
//! answer in parts; a request has [`REQUEST_LIMIT`] and 8 KiB; a client that does not take a piece
//! of its answer within [`TAKING`] is closed; the loop waits for none of them.

mod answer;
mod events;
mod guard;
mod nodes;
mod page;
mod query;
mod request;
mod routes;

pub(super) use self::guard::{open_token, token};
#[cfg(fuzzing)]
pub(crate) use self::request::fuzz;

use std::{
    cell::Cell,
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    rc::Rc,
    time::Duration,
};

use async_io::{Async, Timer};
use rustix::{
    net::sockopt::{set_socket_send_buffer_size, set_tcp_user_timeout},
    system::uname,
};
use smol::{
    channel::{Receiver, Sender, bounded},
    future::yield_now,
    io::{AsyncReadExt as _, AsyncWriteExt as _},
};

use self::{
    answer::{After, Answer, Length},
    guard::Guard,
    request::{HttpRequest, MAX_HEAD, Method},
};
use super::{
    Error,
    connections::{Connections, Place, cannot_answer, count},
    request::CallEvent,
};
use crate::{
    config::Config,
    net::{
        EACH,
        executor::{spawn, within},
    },
    protocol::TableStats,
};

/// Connections with an answer in parts at most: the others are left for short answers.
const MAX_STREAMS: usize = 8;
/// Connections for which there is no place and that are told so, at once.
const MAX_TURNED_AWAY: usize = 4;
/// How long a request may take, and how long a connection may be idle.
const REQUEST_LIMIT: Duration = Duration::from_secs(10);
/// How long a client may take for each piece of an answer.
const TAKING: Duration = Duration::from_secs(10);
/// Bytes of a piece.
const PIECE: usize = 16 * 1024;
/// A reader that acknowledges nothing for so long has vanished, ms.
const VANISHED_MS: u32 = 30_000;
/// What the system keeps for a client that does not read; it doubles this.
const SEND_BUFFER: usize = 16 * 1024;
/// How long a connection that is closed is still read: without this, the end of the connection
/// could overtake the answer.
const LINGER: Duration = Duration::from_secs(1);
/// How much is read in this time.
const MAX_LEFT_OVER: u64 = 64 * 1024;
/// Events that wait for the loop.
const MAX_EVENTS: usize = 8;
/// The pause after a failed accept, such as a lack of descriptors.
const PAUSE: Duration = Duration::from_millis(100);
/// Descriptors that it takes at most.
pub(super) const DESCRIPTORS: usize = 1 + super::connections::MAX_CONNECTIONS + MAX_TURNED_AWAY;

/// A server that answers.
pub(super) struct Http {
    desk: Rc<Desk>,
    calls: Receiver<CallEvent>,
    at: SocketAddr,
}

impl Http {
    /// Binds the socket and answers from now on, if the loop takes the calls.
    ///
    /// # Errors
    /// If the system refuses the socket, or the file of the token cannot be used.
    pub(super) fn start(at: SocketAddr, config: &Config) -> Result<Self, Error> {
        let failed = |error: io::Error| cannot_answer("HTTP at --http", at, &error);
        let token = config.http_token.as_deref().map(guard::token).transpose();
        let token = token.map_err(Error::new)?;
        if let Some(open) = config.http_token.as_deref().and_then(open_token) {
            log::warn!("{open}");
        }
        let host = uname().nodename().to_string_lossy().into_owned();
        let names = [host].into_iter().chain(config.name.clone());
        let listener = Async::<TcpListener>::bind(at).map_err(failed)?;
        let at = listener.get_ref().local_addr().map_err(failed)?;
        let (sender, calls) = bounded(MAX_EVENTS);
        let desk = Rc::new(Desk {
            events: sender,
            guard: Guard::new(token, names),
            connections: Connections::new("http_connections"),
            streams: Rc::default(),
            refused_streams: Cell::new(0),
            turned_away: Rc::default(),
        });
        spawn(serve(desk.clone(), listener));
        Ok(Self { desk, calls, at })
    }

    /// The line for stdout.
    pub(super) fn line(&self) -> String {
        format!("answers HTTP on http://{}/", self.at)
    }

    /// The next call to the loop. Cancel-safe.
    pub(super) async fn next(&self) -> CallEvent {
        match self.calls.recv().await {
            Ok(call) => call,
            // The desk lasts as long as this value.
            Err(_) => std::future::pending().await,
        }
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> [TableStats; 2] {
        let streams = TableStats {
            name: "http_streams",
            used: self.desk.streams.get(),
            capacity: MAX_STREAMS,
            refused: self.desk.refused_streams.get(),
            evicted: 0,
        };
        [self.desk.connections.stats(), streams]
    }
}

/// What all connections share.
struct Desk {
    events: Sender<CallEvent>,
    guard: Guard,
    connections: Connections,
    /// Answers in parts.
    streams: Rc<Cell<usize>>,
    /// Answers in parts for which there was no place.
    refused_streams: Cell<u64>,
    /// Connections that are told that there is no place.
    turned_away: Rc<Cell<usize>>,
}

/// Takes connections in, until the process ends.
async fn serve(desk: Rc<Desk>, listener: Async<TcpListener>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match desk.connections.place().await {
                Some(place) => {
                    let desk = desk.clone();
                    spawn(async move {
                        let _place = place;
                        // A failed connection needs no log line: the client sees the failure, too.
                        let _ = desk.converse(stream).await;
                    });
                }
                None => {
                    if let Some(place) = Place::take(&desk.turned_away, MAX_TURNED_AWAY) {
                        spawn(async move {
                            let _place = place;
                            let _ = turn_away(stream).await;
                        });
                    }
                }
            },
            Err(error) => {
                log::warn!(target: EACH, "cannot take in a connection of HTTP: {error}");
                Timer::after(PAUSE).await;
            }
        }
        yield_now().await;
    }
}

/// Says that there is no place.
async fn turn_away(stream: Async<TcpStream>) -> io::Result<()> {
    let client = Client::new(&stream, None);
    let _ = within(LINGER, client.receive(&mut Vec::new())).await;
    let answer = Answer::again("all connections are in use: ask again in a moment");
    client.answer(Method::Get, &answer, After::Close).await?;
    client.end().await
}

impl Desk {
    /// Answers one request after another.
    async fn converse(self: Rc<Self>, stream: Async<TcpStream>) -> io::Result<()> {
        set_socket_send_buffer_size(&stream, SEND_BUFFER)?;
        set_tcp_user_timeout(&stream, VANISHED_MS)?;
        let client = Client::new(&stream, Some(&self.connections));
        let mut read = Vec::new();
        loop {
            let received = async {
                match within(REQUEST_LIMIT, client.receive(&mut read)).await {
                    Some(received) => received,
                    None => Ok(Received::Late),
                }
            };
            let (answer, method) = match self.connections.while_idle(received).await? {
                Received::HttpRequest(request) => {
                    // Requests that came together must not keep others waiting.
                    yield_now().await;
                    match self.pass(&client, &request).await? {
                        After::Keep => continue,
                        After::Close => return client.end().await,
                    }
                }
                Received::Refused(answer) => (answer, Method::Get),
                Received::Late if !read.is_empty() => (
                    Answer::error(408, "the request did not come within 10 s"),
                    Method::Get,
                ),
                Received::Late | Received::End => return Ok(()),
            };
            client.answer(method, &answer, After::Close).await?;
            return client.end().await;
        }
    }

    /// Answers a request.
    async fn pass(&self, client: &Client<'_>, request: &HttpRequest) -> io::Result<After> {
        let after = match request.keeps {
            true => After::Keep,
            false => After::Close,
        };
        let answer = match self.guard.check(request, routes::is_open(&request.path)) {
            // The page is the same everywhere. It asks for the token itself.
            _ if request.path == "/" => page::answer(request),
            Err(refused) => refused,
            Ok(()) => match request.path.as_str() {
                "/nodes.json" => return self.nodes(client, request, after).await,
                "/http_sd" => return self.targets(client, request, after).await,
                "/events" => return self.tell(client, request, after).await,
                _ => self.short(request).await,
            },
        };
        client.answer(request.method, &answer, after).await?;
        Ok(after)
    }

    /// A place for an answer in parts.
    fn stream(&self) -> Result<Place, Answer> {
        Place::take(&self.streams, MAX_STREAMS).ok_or_else(|| {
            count(&self.refused_streams);
            Answer::again("too many lists and event streams are open: close one, or ask again")
        })
    }
}

/// What a client has sent.
enum Received {
    HttpRequest(Box<HttpRequest>),
    /// What it sent is answered like this.
    Refused(Answer),
    /// It has not sent a whole request in time.
    Late,
    /// It has closed its direction.
    End,
}

/// One connection.
struct Client<'a> {
    stream: &'a Async<TcpStream>,
    /// Where it may have to give way while the server waits for it. `None`: it has no place there.
    connections: Option<&'a Connections>,
}

impl<'a> Client<'a> {
    fn new(stream: &'a Async<TcpStream>, connections: Option<&'a Connections>) -> Self {
        Self {
            stream,
            connections,
        }
    }

    /// Waits for the client, which gives way meanwhile to a new one without a place.
    async fn waited<T>(&self, done: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        match self.connections {
            Some(connections) => connections.while_idle(done).await,
            None => done.await,
        }
    }

    /// The next request. `read`: what was read and belongs to no request yet.
    async fn receive(&self, read: &mut Vec<u8>) -> io::Result<Received> {
        let mut stream = self.stream;
        loop {
            if !read.is_empty() {
                match request::read(read) {
                    Ok(None) => {}
                    Ok(Some((request, length))) => {
                        read.drain(..length);
                        return Ok(Received::HttpRequest(Box::new(request)));
                    }
                    Err(answer) => return Ok(Received::Refused(answer)),
                }
            }
            let mut room = [0; 1024];
            let free = MAX_HEAD.saturating_sub(read.len()).min(room.len());
            let room = room.get_mut(..free).unwrap_or_default();
            match stream.read(room).await? {
                0 => return Ok(Received::End),
                count => read.extend_from_slice(room.get(..count).unwrap_or_default()),
            }
        }
    }

    async fn answer(&self, method: Method, answer: &Answer, after: After) -> io::Result<()> {
        let body: &[u8] = match method {
            Method::Get => &answer.body,
            Method::Head => &[],
        };
        // A short body goes with the head; a long one is not copied.
        let (begin, rest) = body.split_at(body.len().min(PIECE));
        let mut bytes = answer.head(after).into_bytes();
        bytes.extend_from_slice(begin);
        self.send(&bytes).await?;
        self.send(rest).await
    }

    /// Sends bytes. A client that does not take a piece of them in time gets no more.
    async fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.stream;
        for piece in bytes.chunks(PIECE) {
            let sent = async {
                within(TAKING, stream.write_all(piece))
                    .await
                    .unwrap_or_else(|| {
                        log::debug!("a client of HTTP did not take its answer");
                        Err(io::ErrorKind::TimedOut.into())
                    })
            };
            self.waited(sent).await?;
        }
        Ok(())
    }

    /// Closes the connection when the client has read what was sent.
    async fn end(&self) -> io::Result<()> {
        self.stream.get_ref().shutdown(std::net::Shutdown::Write)?;
        let mut rest = self.stream.take(MAX_LEFT_OVER);
        let mut room = [0; 1024];
        let rest = async { while rest.read(&mut room).await.is_ok_and(|count| count > 0) {} };
        let rest = async {
            within(LINGER, rest).await;
            Ok(())
        };
        self.waited(rest).await
    }
}

/// The body of an answer that is made while it is sent.
struct Body<'a> {
    client: &'a Client<'a>,
    length: Length,
}

impl Body<'_> {
    async fn send(&self, text: &str) -> io::Result<()> {
        match (self.length, text) {
            // An empty chunk would be the last one.
            (_, "") => Ok(()),
            (Length::Chunked, text) => {
                let chunk = format!("{:x}\r\n{text}\r\n", text.len());
                self.client.send(chunk.as_bytes()).await
            }
            (_, text) => self.client.send(text.as_bytes()).await,
        }
    }

    async fn end(&self) -> io::Result<()> {
        match self.length {
            Length::Chunked => self.client.send(b"0\r\n\r\n").await,
            _ => Ok(()),
        }
    }
}
