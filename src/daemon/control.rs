//! The control socket, through which the operator's commands reach the loop.
//!
//! It is a file in the data directory. If that is not possible (a read-only file system), it has an
//! abstract name.
//!
//! A client writes one line (`status`, `doctor`, `indexers`, `config`, `reload`, `find X` or
//! `drain`), gets one line of JSON, and the connection is closed. `nodes FILTER`, with a JSON
//! object, is answered in parts: a line for each until the last. An error is `{"error":"…"}`. The
//! socket has mode 0600, and the system reports the user at the other end: only the owner of the
//! process and root are answered. A service may have a directory for its group
//! (`config::group_socket_dir`): then the socket is there, with mode 0660, and the data directory
//! has a link to it. The system lets in the group alone, and the process sees no user that is not
//! in its own namespace, so that the mode decides.
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

mod parts;
mod peer;

use std::cell::{Cell, RefCell, RefMut};
use std::collections::VecDeque;
use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use miniserde::json;
use rustix::process::geteuid;
use smol::channel::{Receiver, Sender, bounded};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::lock::Semaphore;
use smol::{Async, Timer, future};

pub(super) use self::peer::uid_of;
use self::peer::{closed, has_closed, may_ask};
use super::client::{SOCKET, socket_name, socket_path};
use super::drain::DrainCall;
use super::request::{Call, CallEvent, PartsCall, PendingCall};
use super::status::Refusal;
use super::storage::{DataDir, takes_nothing};
use crate::net::EACH;
use crate::net::executor::{spawn, within};
use crate::protocol::TableStats;

/// Clients that are served at once, at most.
pub(super) const MAX_CLIENTS: usize = 40;
/// Of these, clients that have not read their whole answer, which may be long: not more than half.
const MAX_TAKING: usize = 8;
/// Of these, answers in parts: not more than half.
const MAX_STREAMS: usize = 8;
/// Longest line of a client, with its end: a filter with the longest tags fits.
const MAX_LINE_BYTES: usize = 1024;
/// How long a client may be silent before its line is complete.
const SILENCE: Duration = Duration::from_secs(2);
/// How long it keeps its place even if others come. A process that has connected writes at once,
/// unless it must wait for the processor.
const GRACE: Duration = Duration::from_millis(10);
/// How long it may take to read its answer: as long as the own commands wait.
const TAKING: Duration = super::client::PATIENCE;
/// Events that wait for the loop.
const MAX_EVENTS: usize = 8;
/// The pause after a failed accept, unless a client leaves before: other parts of the process may
/// have the missing descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listening socket. It is removed when this is dropped, which must be before the [`DataDir`]
/// is.
#[derive(Debug)]
pub(crate) struct Control {
    events: Receiver<CallEvent>,
    /// The socket, and the link to it; none of a socket with a name.
    files: Vec<PathBuf>,
    /// What a long path leads through.
    _through: Option<OwnedFd>,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "only HTTP shows the tables of the socket")
    )]
    desk: Weak<Desk>,
}

impl Control {
    /// As [`Control::bind`]; where the file system takes no socket it has a name instead. If that
    /// is taken there is no socket, and this is logged.
    ///
    /// # Errors
    /// All others of [`Control::bind`], with the path.
    pub(crate) fn bind_if_possible(
        dir: &DataDir,
        group_dir: Option<&Path>,
        places: usize,
    ) -> io::Result<Self> {
        match Self::bind(dir, group_dir, places) {
            Err(error) if takes_nothing(&error) => {
                let bound = bind_name(dir.path());
                let listener = bound.inspect_err(|why| {
                    log::warn!("there is no control socket, neither in the data directory ({error}) nor by name ({why})");
                });
                let (sender, events) = bounded(MAX_EVENTS);
                let desk = Desk::new(sender, places, Askers::Owner);
                let seen = Rc::downgrade(&desk);
                if let Ok(listener) = listener {
                    spawn(serve(listener, desk));
                }
                Ok(Self {
                    events,
                    files: Vec::new(),
                    _through: None,
                    desk: seen,
                })
            }
            Err(error) => {
                let path = group_dir.unwrap_or(dir.path()).join(SOCKET);
                let what = format!("{}: {error}", path.display());
                Err(io::Error::new(error.kind(), what))
            }
            Ok(control) => Ok(control),
        }
    }

    /// Listens on the socket in `dir`, or in the directory for the group, on this thread's
    /// executor, and serves `places` clients at once. This process holds the lock of `dir`, so a
    /// socket that exists there belongs to a process that has ended.
    ///
    /// # Errors
    /// If there is something other than a socket in its place, or the system refuses.
    pub(crate) fn bind(dir: &DataDir, group_dir: Option<&Path>, places: usize) -> io::Result<Self> {
        let (path, through) = socket_path(group_dir.unwrap_or(dir.path()))?;
        remove_stale(&path)?;
        let listener = Async::<UnixListener>::bind(&path)?;
        let (sender, events) = bounded(MAX_EVENTS);
        let (mode, askers) = match group_dir {
            Some(_) => (0o660, Askers::Group),
            None => (0o600, Askers::Owner),
        };
        let desk = Desk::new(sender, places, askers);
        let mut control = Self {
            events,
            files: vec![path.clone()],
            _through: through,
            desk: Rc::downgrade(&desk),
        };
        std::fs::set_permissions(&path, Permissions::from_mode(mode))?;
        if group_dir.is_some() {
            // Without the link, for example on a read-only file system, commands look for the
            // directory of the group themselves.
            let link = dir.path().join(SOCKET);
            if remove_stale(&link).is_ok() && symlink(&path, &link).is_ok() {
                control.files.push(link);
            }
        }
        spawn(serve(listener, desk));
        Ok(control)
    }

    /// The statistics for a `status` that no client of the socket asks for.
    #[cfg(feature = "http")]
    pub(super) fn stats(&self) -> impl Iterator<Item = TableStats> {
        let shares = self.desk.strong_count();
        let desk = self.desk.upgrade();
        desk.into_iter().flat_map(move |desk| desk.tables(shares))
    }

    /// The next event. Cancel-safe.
    pub(super) async fn next(&self) -> CallEvent {
        match self.events.recv().await {
            Ok(event) => event,
            // The task that takes clients in lasts as long as this value.
            Err(_) => future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Requests that the loop has not taken are dropped, so that their clients get an error.
        self.events.close();
        while self.events.try_recv().is_ok() {}
        // If it fails, the next process removes it.
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
    }
}

fn bind_name(dir: &Path) -> io::Result<Async<UnixListener>> {
    let address = SocketAddr::from_abstract_name(socket_name(dir)?)?;
    Async::new(UnixListener::bind_addr(&address)?)
}

/// Removes only a socket or a link, because a user must have put anything else there.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() || metadata.is_symlink() => {
            std::fs::remove_file(path)
        }
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "it is no socket, and in the place of the control socket: move it away",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes clients in, until the process ends.
async fn serve(listener: Async<UnixListener>, desk: Rc<Desk>) {
    let places = Arc::new(Semaphore::new(desk.capacity));
    let (leaves, left) = bounded(1);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = match places.try_acquire_arc() {
                    Some(place) => place,
                    None => future::or(places.acquire_arc(), desk.make_room()).await,
                };
                let client = Rc::clone(&desk).converse(stream, desk.silent.enter());
                let leaves = leaves.clone();
                spawn(async move {
                    client.await;
                    drop(place);
                    // If this is full, a client is known to have left.
                    let _ = leaves.try_send(());
                });
                // A line that has arrived already is read before another client is accepted.
                future::yield_now().await;
            }
            Err(error) => {
                log::warn!(
                    target: EACH,
                    "cannot take in a client of the control socket: {error}"
                );
                // A descriptor is missing. A silent client holds one until it is evicted.
                let _ = left.try_recv();
                desk.silent.send_the_longest_away();
                let _ = within(ACCEPT_PAUSE, left.recv()).await;
            }
        }
    }
}

/// Clients for which the daemon waits, the longest first. When it no longer waits for one, that
/// client's receiver has been dropped.
#[derive(Default)]
struct Waited(RefCell<VecDeque<(Instant, Sender<()>)>>);

impl Waited {
    /// Adds a client for which the daemon waits, until the receiver is dropped. The client is
    /// evicted when the sender is dropped.
    fn enter(&self) -> Receiver<()> {
        let (here, sent_away) = bounded(1);
        self.clients().push_back((Instant::now(), here));
        sent_away
    }

    fn send_the_longest_away(&self) {
        // The client's receiver notices that this sender is dropped.
        self.clients().pop_front();
    }

    fn clients(&self) -> RefMut<'_, VecDeque<(Instant, Sender<()>)>> {
        let mut clients = self.0.borrow_mut();
        clients.retain(|(_, client)| !client.is_closed());
        clients
    }
}

/// Which users are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Askers {
    /// The user of the process, and root.
    Owner,
    /// Those that the mode of the socket and of its directory lets in.
    Group,
}

/// What the clients share.
struct Desk {
    askers: Askers,
    events: Sender<CallEvent>,
    /// Clients that are served at once.
    capacity: usize,
    /// Clients that have not sent their line.
    silent: Waited,
    /// Clients that have not read their answer.
    taking: Waited,
    /// A share for each answer in parts.
    streams: Rc<()>,
    /// Answers in parts for which there was no place.
    refused_streams: Cell<u64>,
    /// Clients that were silent or slow for too long, and other users.
    refused: Cell<u64>,
    /// Clients that were evicted for others.
    evicted: Cell<u64>,
}

impl Desk {
    fn new(events: Sender<CallEvent>, capacity: usize, askers: Askers) -> Rc<Self> {
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
    async fn make_room<T>(&self) -> T {
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
    async fn converse(self: Rc<Self>, mut stream: Async<UnixStream>, sent_away: Receiver<()>) {
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
                .and_then(|line| self.parse(&line))
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
    async fn send(&self, stream: &mut Async<UnixStream>, bytes: &[u8], limit: Duration) {
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

    fn parse(self: &Rc<Self>, line: &[u8]) -> Result<Asked, String> {
        let text = std::str::from_utf8(line).map_err(|_| "the request is not UTF-8".to_owned())?;
        let filter = |filter: &str| {
            json::from_str(filter).map_err(|_| format!("`{filter}` is not a filter of nodes"))
        };
        let call = match text.split_once(' ') {
            None if text == "status" => Call::Status(self.tables(Rc::strong_count(self)).into()),
            None if text == "doctor" => Call::Doctor,
            None if text == "indexers" => Call::Indexers,
            None if text == "drain" => Call::Drain(DrainCall::Begin),
            Some(("drain", "look")) => Call::Drain(DrainCall::Look),
            Some(("drain", "undo")) => Call::Drain(DrainCall::Undo),
            None if text == "config" => Call::Config,
            None if text == "log" => Call::Log,
            None if text == "reload" => Call::Reload,
            Some(("find", what)) if !what.trim().is_empty() => Call::Find(what.trim().to_owned()),
            Some(("nodes", what)) => {
                return Ok(Asked::InParts(PartsCall::Nodes(filter(what)?)));
            }
            Some(("watch", what)) => {
                return Ok(Asked::InParts(PartsCall::Watch(filter(what)?)));
            }
            _ => {
                return Err(format!(
                    "`{text}` is not known: ask `status`, `doctor`, `indexers`, `config`, `reload`, `find X`, `nodes FILTER`, `watch FILTER` or `drain`"
                ));
            }
        };
        Ok(Asked::Once(call))
    }

    /// `shares`: each client has one in the desk, and so has the task that accepts them.
    fn tables(&self, shares: usize) -> [TableStats; 2] {
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

/// A request of a client.
enum Asked {
    Once(Call),
    InParts(PartsCall),
}

fn count(counter: &Cell<u64>) {
    counter.set(counter.get().saturating_add(1));
}

/// The first line, without its end.
async fn receive(stream: &mut Async<UnixStream>) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let mut source = stream.take(MAX_LINE_BYTES as u64);
    let mut chunk = [0; MAX_LINE_BYTES];
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
fn ending() -> Refusal {
    Refusal::new("oc-discovery is ending, or could not answer")
}

#[cfg(test)]
mod tests;
