//! The clients of the control socket, from their line to their answer.
//!
//! A client writes one line (`status`, `doctor`, `indexers`, `config`, `log`, `reload`, `find X` or
//! `drain`), gets one line of JSON, and the connection is closed. `nodes FILTER` and
//! `watch FILTER`, with a JSON object, are answered in parts: a line for each until the last. An
//! error is `{"error":"…"}`.
//!
//! Bounds: there are at most `MAX_CLIENTS` places, fewer with few file descriptors. A client that
//! waits for the daemon keeps its place until the answer: the loop answers at once, the core
//! refuses the lookup, or the lookup takes up to 5 s. If the client closes meanwhile, this is
//! noticed; if it has only ended its request (`nc -N`), it still gets the answer. A client for
//! which the *daemon* waits does not block others: it has 2 s to send its line and 10 s to read its
//! answer, and it may be evicted earlier, the longest-waiting first: a silent client for a newcomer
//! without a place or a descriptor, a slow reader for one more than `MAX_TAKING`. A line has at
//! most 1024 bytes. A request that the loop drops is answered with an error. Answers in parts have
//! places of their own among these, at most `MAX_STREAMS`, so that they leave room for the other
//! requests.

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use miniserde::json;
use rustix::process::geteuid;
use smol::channel::{Receiver, Sender, bounded};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::{Async, Timer, future};

use super::peer::{closed, has_closed, may_ask, uid_of};
use crate::daemon::client;
use crate::daemon::drain::DrainCall;
use crate::daemon::request::{Call, CallEvent, PartsCall, PendingCall};
use crate::daemon::status::Refusal;
use crate::net::executor::within;
use crate::protocol::TableStats;

/// Clients that have not read their whole answer, which may be long: not more than half of all.
pub(super) const MAX_TAKING: usize = 8;
/// Answers in parts: not more than half of all.
pub(super) const MAX_STREAMS: usize = 8;
/// Longest line of a client, with its end: a filter with the longest tags fits.
const MAX_LINE_BYTES: usize = 6 * 1024;
/// Bytes that are read at once: nearly all requests are shorter.
const CHUNK_BYTES: usize = 512;
/// How long a client may be silent before its line is complete.
pub(super) const SILENCE: Duration = Duration::from_secs(2);
/// How long it keeps its place even if others come. A process that has connected writes at once,
/// unless it must wait for the processor.
const GRACE: Duration = Duration::from_millis(10);
/// How long it may take to read its answer: as long as the own commands wait.
pub(super) const TAKING: Duration = client::PATIENCE;

/// Clients for which the daemon waits, the longest first. When it no longer waits for one, that
/// client's receiver has been dropped.
#[derive(Default)]
pub(super) struct Waited(RefCell<VecDeque<(Instant, Sender<()>)>>);

impl Waited {
    /// Adds a client for which the daemon waits, until the receiver is dropped. The client is
    /// evicted when the sender is dropped.
    pub(super) fn enter(&self) -> Receiver<()> {
        let (here, sent_away) = bounded(1);
        self.clients().push_back((Instant::now(), here));
        sent_away
    }

    pub(super) fn send_the_longest_away(&self) {
        // The client's receiver notices that this sender is dropped.
        self.clients().pop_front();
    }

    pub(super) fn clients(&self) -> RefMut<'_, VecDeque<(Instant, Sender<()>)>> {
        let mut clients = self.0.borrow_mut();
        clients.retain(|(_, client)| !client.is_closed());
        clients
    }
}

/// Which users are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Askers {
    /// The user of the process, and root.
    Owner,
    /// Those that the mode of the socket and of its directory lets in.
    Group,
}

/// What the clients share.
pub(super) struct Desk {
    askers: Askers,
    pub(super) events: Sender<CallEvent>,
    /// Clients that are served at once.
    pub(super) capacity: usize,
    /// Clients that have not sent their line.
    pub(super) silent: Waited,
    /// Clients that have not read their answer.
    pub(super) taking: Waited,
    /// A share for each answer in parts.
    pub(super) streams: Rc<()>,
    /// Answers in parts for which there was no place.
    pub(super) refused_streams: Cell<u64>,
    /// Clients that were silent or slow for too long, and other users.
    pub(super) refused: Cell<u64>,
    /// Clients that were evicted for others.
    pub(super) evicted: Cell<u64>,
}

impl Desk {
    pub(super) fn new(events: Sender<CallEvent>, capacity: usize, askers: Askers) -> Rc<Self> {
        Rc::new(Self {
            askers,
            events,
            capacity,
            silent: Waited::default(),
            taking: Waited::default(),
            streams: Rc::default(),
            refused_streams: Cell::new(0),
            refused: Cell::new(0),
            evicted: Cell::new(0),
        })
    }

    /// Evicts the client that has been silent for the longest time, when its time of grace is over.
    /// Does not end: the caller waits for the place at the same time.
    pub(super) async fn make_room<T>(&self) -> T {
        let longest = || Some(self.silent.clients().front()?.0);
        while let Some(since) = longest() {
            if since.elapsed() >= GRACE {
                self.silent.send_the_longest_away();
                break;
            }
            Timer::at(since + GRACE).await;
        }
        future::pending().await
    }

    /// Serves one client, from its line to its answer.
    pub(super) async fn converse(
        self: Rc<Self>,
        mut stream: Async<UnixStream>,
        sent_away: Receiver<()>,
    ) {
        let answer = match self.query_of(&mut stream, sent_away).await {
            Ok(Asked::Once(call)) => self.answer_to(call, &stream).await,
            Ok(Asked::InParts(call)) => self.answer_in_parts(call, &mut stream).await,
            Err(refusal) => Some(refusal),
        };
        if let Some(mut line) = answer {
            line.push('\n');
            self.send(&mut stream, line.as_bytes(), TAKING).await;
        }
    }

    /// The client's call, or the error for it.
    async fn query_of(
        self: &Rc<Self>,
        stream: &mut Async<UnixStream>,
        sent_away: Receiver<()>,
    ) -> Result<Asked, String> {
        let refused_with = |message: &str| Err(json::to_string(&Refusal::new(message)));
        match uid_of(&*stream) {
            _ if self.askers == Askers::Group => {}
            Ok(peer) if may_ask(peer, geteuid()) => {}
            Ok(_) => {
                count(&self.refused);
                return refused_with(
                    "only the user that oc-discovery runs as, and root, may ask it",
                );
            }
            Err(error) => {
                return refused_with(&format!(
                    "the system does not name the user that asks: {error}"
                ));
            }
        }
        let line = within(SILENCE, receive(stream));
        let sent_away = async {
            // Nothing is ever sent on this channel.
            let _ = sent_away.recv().await;
            None
        };
        match future::or(async { Some(line.await) }, sent_away).await {
            Some(Some(line)) => line
                .and_then(|line| parse(&line, || self.tables(Rc::strong_count(self)).into()))
                .or_else(|message| refused_with(&message)),
            Some(None) => {
                count(&self.refused);
                refused_with(&format!("no request came within {} s", SILENCE.as_secs()))
            }
            None => {
                count(&self.evicted);
                let message = "others asked meanwhile, and this client was silent the longest";
                Err(json::to_string(&Refusal::for_now(message)))
            }
        }
    }

    /// Passes the call to the loop and waits for its answer. `None` if the client has left.
    async fn answer_to(&self, call: Call, stream: &Async<UnixStream>) -> Option<String> {
        // Checked first, because an answer takes time of the loop.
        if has_closed(stream).unwrap_or(false) {
            return None;
        }
        let (request, answer) = PendingCall::new(call);
        let asked = CallEvent::Made(request);
        if self.events.send(asked).await.is_err() {
            return Some(json::to_string(&ending()));
        }
        let answered = async {
            Some(match answer.recv().await {
                Ok(Ok(answer)) => answer.to_json(),
                Ok(Err(refusal)) => json::to_string(&refusal),
                Err(_) => json::to_string(&ending()),
            })
        };
        let left = async {
            closed(stream).await;
            None
        };
        let answered = future::or(answered, left).await;
        if answered.is_none() {
            // Dropped first, so that the loop sees that the client has left.
            drop(answer);
            let _ = self.events.send(CallEvent::Left).await;
        }
        answered
    }

    /// Writes and closes. A client that has not read all of it within `limit` gets no more.
    pub(super) async fn send(&self, stream: &mut Async<UnixStream>, bytes: &[u8], limit: Duration) {
        let taken = async {
            // If the client has left, no error is needed.
            let _ = stream.write_all(bytes).await;
            None
        };
        let sent_away = async {
            // The socket buffer has no room for all of it: the client is slow, or the answer is
            // long.
            if self.taking.clients().len() >= MAX_TAKING.min(self.capacity / 2) {
                self.taking.send_the_longest_away();
            }
            let _ = self.taking.enter().recv().await;
            Some(&self.evicted)
        };
        let sent = within(limit, future::or(taken, sent_away)).await;
        if let Some(why) = sent.unwrap_or(Some(&self.refused)) {
            count(why);
            log::debug!("a client of the control socket did not take its answer");
        }
    }

    /// `shares`: each client has one in the desk, and so has the task that accepts them.
    pub(super) fn tables(&self, shares: usize) -> [TableStats; 2] {
        let clients = TableStats {
            name: "control_clients",
            used: shares.saturating_sub(1),
            capacity: self.capacity,
            refused: self.refused.get(),
            evicted: self.evicted.get(),
        };
        [clients, self.streams()]
    }
}

/// The request in a line. `tables`: those of the desk.
///
/// # Errors
/// A sentence for the client.
fn parse(line: &[u8], tables: impl FnOnce() -> Vec<TableStats>) -> Result<Asked, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the request is not UTF-8".to_owned())?;
    let filter = |filter: &str| {
        json::from_str(filter).map_err(|_| format!("`{filter}` is not a filter of nodes"))
    };
    let call = match text.split_once(' ') {
        None if text == "status" => Call::Status(tables()),
        None if text == "doctor" => Call::Doctor,
        None if text == "indexers" => Call::Indexers,
        None if text == "drain" => Call::Drain(DrainCall::Begin),
        Some(("drain", "look")) => Call::Drain(DrainCall::Look),
        Some(("drain", "undo")) => Call::Drain(DrainCall::Undo),
        Some(("revoke", line)) => Call::Revoke(line.trim().to_owned()),
        None if text == "config" => Call::Config,
        None if text == "log" => Call::Log,
        None if text == "reload" => Call::Reload,
        Some(("find", what)) if !what.trim().is_empty() => Call::Find(what.trim().to_owned()),
        Some(("nodes", what)) => return Ok(Asked::InParts(PartsCall::Nodes(filter(what)?))),
        Some(("watch", what)) => return Ok(Asked::InParts(PartsCall::Watch(filter(what)?))),
        _ => {
            return Err(format!(
                "`{text}` is not known: ask `status`, `doctor`, `indexers`, `config`, `reload`, `find X`, `nodes FILTER`, `watch FILTER`, `drain` or `revoke LIST`"
            ));
        }
    };
    Ok(Asked::Once(call))
}

/// For `crate::fuzzing`.
#[cfg(fuzzing)]
pub(crate) fn fuzz(line: &[u8]) {
    let _ = parse(line, Default::default);
}

/// A request of a client.
enum Asked {
    Once(Call),
    InParts(PartsCall),
}

pub(super) fn count(counter: &Cell<u64>) {
    counter.set(counter.get().saturating_add(1));
}

/// The first line, without its end.
pub(super) async fn receive(stream: &mut Async<UnixStream>) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let mut source = stream.take(MAX_LINE_BYTES as u64);
    let mut chunk = [0; CHUNK_BYTES];
    loop {
        let count = source.read(&mut chunk).await.unwrap_or(0);
        let fresh = chunk.get(..count).unwrap_or_default();
        if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
            line.extend(fresh.iter().take(end));
            return Ok(line);
        }
        if fresh.is_empty() {
            return Err(format!(
                "the request is no line of at most {MAX_LINE_BYTES} bytes"
            ));
        }
        line.extend(fresh);
    }
}

/// The answer to a request that the loop has dropped.
pub(super) fn ending() -> Refusal {
    Refusal::new("oc-discovery is ending, or could not answer")
}
