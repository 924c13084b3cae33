//! The control socket: the operator's commands reach the one loop through it.
//!
//! It is a file in the data directory; where that takes none (a read-only file system) it has a
//! name of its own.
//!
//! A client writes one line (`status`, `indexers` or `find X`), gets one line of JSON, and the connection is
//! closed. What went wrong is `{"error":"…"}`. The socket has mode 0600, and the system says who is at the
//! other end: only the owner of the process and root are answered.
//!
//! Bounds: `MAX_CLIENTS` are answered at once, and `MAX_WAITING` more are heard. A client that
//! does not send its line, or take its answer, loses its place after 2 s, and before that to a
//! newcomer if all places are taken: the one that has been silent the longest goes first, one that
//! has sent its line never. A line has 512 bytes at most. How long an answer takes to make is the
//! loop's affair; a request that it drops is answered with an error.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use miniserde::json;
use rustix::process::{Uid, geteuid};
use smol::channel::{Receiver, Sender, bounded};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::lock::Semaphore;
use smol::{Async, Timer, future};

use super::client::{socket_name, socket_path};
use super::status::Refusal;
use super::storage::{DataDir, takes_nothing};
use crate::net::EACH;
use crate::net::executor::{spawn, within};

/// Clients that are answered at once: an answer may be long.
const MAX_CLIENTS: usize = 8;
/// Clients beside them that have not sent their line, or wait for an answer to be begun.
const MAX_WAITING: usize = 32;
const MAX_LINE_BYTES: usize = 512;
/// How long a client may be silent: until its line is there, and between two pieces of its answer.
const SILENCE: Duration = Duration::from_secs(2);
/// After a failed accept: the descriptors that are missing do not come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operator may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// `status`: the tables of this process.
    Status,
    /// `indexers`: the indexers that it, or one of its natives, knows.
    Indexers,
    /// `find X`: the claimants of a name, or the node with a peer id.
    Find(String),
}

/// A query that waits for its answer.
#[derive(Debug)]
pub struct ControlRequest {
    /// What is asked.
    pub query: Query,
    /// Where the answer goes. Dropping it tells the client that there will be none.
    pub reply: Reply,
}

/// The way back to one client.
#[derive(Debug)]
pub struct Reply(Sender<String>);

impl Reply {
    /// Answers with one JSON value, without a line break in it.
    pub fn answer(self, json: String) {
        // There is room for one answer; it fails only if the client went away.
        let _ = self.0.try_send(json);
    }

    /// Answers with `{"error":"…"}`.
    pub fn refuse(self, message: &str) {
        self.answer(refusal(message));
    }
}

/// The listening socket. It is removed when this is dropped, which must be before the [`DataDir`] is.
#[derive(Debug)]
pub struct Control {
    requests: Receiver<ControlRequest>,
    /// `None`: there is no socket.
    path: Option<PathBuf>,
    /// What a long path leads through.
    _through: Option<OwnedFd>,
}

impl Control {
    /// As [`Control::bind`]; where the file system takes no socket it has a name instead. If that
    /// is taken there is none, which is said.
    ///
    /// # Errors
    /// All others of [`Control::bind`].
    pub fn bind_if_possible(dir: &DataDir) -> io::Result<Self> {
        match Self::bind(dir) {
            Err(error) if takes_nothing(&error) => {
                let bound = bind_name(dir.path());
                let listener = bound.inspect_err(|why| {
                    log::warn!("there is no control socket, neither in the data directory ({error}) nor by name ({why})");
                });
                let (sender, requests) = bounded(MAX_CLIENTS);
                if let Ok(listener) = listener {
                    spawn(serve(listener, sender));
                }
                Ok(Self {
                    requests,
                    path: None,
                    _through: None,
                })
            }
            bound => bound,
        }
    }

    /// Listens on the socket in `dir`, on this thread's executor. Because of the lock that `dir` stands for, a
    /// socket that is found there belongs to a process that is gone.
    ///
    /// # Errors
    /// If something else than a socket is in its place, or the system refuses.
    pub fn bind(dir: &DataDir) -> io::Result<Self> {
        let (path, through) = socket_path(dir.path())?;
        remove_stale(&path)?;
        let listener = Async::<UnixListener>::bind(&path)?;
        let (sender, requests) = bounded(MAX_CLIENTS);
        let control = Self {
            requests,
            path: Some(path.clone()),
            _through: through,
        };
        std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        spawn(serve(listener, sender));
        Ok(control)
    }

    /// The next request. Cancel-safe.
    pub async fn next(&self) -> ControlRequest {
        match self.requests.recv().await {
            Ok(request) => request,
            // The task that takes clients in lasts as long as this value.
            Err(_) => future::pending().await,
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // Requests that were not taken are dropped, so that their clients are told.
        self.requests.close();
        while self.requests.try_recv().is_ok() {}
        // If it fails, the next process removes it.
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_name(dir: &Path) -> io::Result<Async<UnixListener>> {
    let address = SocketAddr::from_abstract_name(socket_name(dir)?)?;
    Async::new(UnixListener::bind_addr(&address)?)
}

/// Only a socket is removed: anything else was put there by a person.
fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => std::fs::remove_file(path),
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is no socket is in the place of the control socket: remove it",
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Takes clients in, until the process ends.
async fn serve(listener: Async<UnixListener>, requests: Sender<ControlRequest>) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS + MAX_WAITING));
    let desk = Rc::new(Desk {
        requests,
        answered: Semaphore::new(MAX_CLIENTS),
        silent: RefCell::default(),
        count: Cell::new(0),
    });
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let place = match places.try_acquire_arc() {
                    Some(place) => place,
                    None => {
                        desk.send_the_longest_silent_away();
                        places.acquire_arc().await
                    }
                };
                let desk = Rc::clone(&desk);
                spawn(async move {
                    desk.converse(stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                // What is missing is a descriptor, and a silent client has one.
                desk.send_the_longest_silent_away();
                log::warn!(
                    target: EACH,
                    "cannot take in a client of the control socket: {error}"
                );
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What the clients share.
struct Desk {
    requests: Sender<ControlRequest>,
    answered: Semaphore,
    /// Clients that have not sent their line, the longest silent first. A client is sent away by
    /// dropping its sender.
    silent: RefCell<VecDeque<(u64, Sender<()>)>>,
    /// How many have come.
    count: Cell<u64>,
}

impl Desk {
    fn send_the_longest_silent_away(&self) {
        let longest = self.silent.borrow_mut().pop_front();
        drop(longest);
    }

    /// One client, from its line to its answer.
    async fn converse(&self, mut stream: Async<UnixStream>) {
        let query = self.query_of(&mut stream).await;
        // It has spoken: it is not sent away any more.
        let _turn = self.answered.acquire().await;
        let answer = match query {
            Ok(query) => ask(query, &self.requests).await,
            Err(message) => Err(message),
        };
        let mut line = answer.unwrap_or_else(|message| refusal(&message));
        line.push('\n');
        send(&mut stream, line.as_bytes(), SILENCE).await;
    }

    async fn query_of(&self, stream: &mut Async<UnixStream>) -> Result<Query, String> {
        let peer = uid_of(&*stream)
            .map_err(|error| format!("the system does not say who asks: {error}"))?;
        if !may_ask(peer, geteuid()) {
            return Err("only the user that oc-discovery runs as, and root, may ask it".to_owned());
        }
        let (here, sent_away) = bounded::<()>(1);
        let number = self.count.get();
        self.count.set(number.wrapping_add(1));
        self.silent.borrow_mut().push_back((number, here));
        let line = future::or(receive(stream, SILENCE), async {
            // Nothing is ever sent on it.
            let _ = sent_away.recv().await;
            Err("others asked meanwhile, and this client was silent the longest".to_owned())
        })
        .await;
        self.silent
            .borrow_mut()
            .retain(|(silent, _)| *silent != number);
        parse(&line?)
    }
}

/// The user at the other end of a UNIX socket. Its process may be in another pid namespace, as the
/// daemon's of a container is: then the system gives 0 for its pid, which `rustix` 1.1 takes for an
/// error.
#[allow(
    unsafe_code,
    reason = "neither the standard library nor rustix has a call for it that knows a pid of 0"
)]
pub(super) fn uid_of(socket: impl AsFd) -> io::Result<Uid> {
    let mut peer = libc::ucred {
        pid: 0,
        uid: libc::uid_t::MAX,
        gid: libc::gid_t::MAX,
    };
    let size = size_of::<libc::ucred>();
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: the socket is open during the call, which writes at most `length` bytes to `peer`:
    // numbers, of which each value is one.
    let got = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    match got {
        0 => Ok(Uid::from_raw(peer.uid)),
        _ => Err(io::Error::last_os_error()),
    }
}

fn may_ask(peer: Uid, own: Uid) -> bool {
    peer == own || peer.is_root()
}

/// The first line, without its end.
async fn receive(stream: &mut Async<UnixStream>, limit: Duration) -> Result<Vec<u8>, String> {
    let mut line = Vec::new();
    let mut source = stream.take(MAX_LINE_BYTES as u64);
    let reading = async {
        let mut chunk = [0; MAX_LINE_BYTES];
        loop {
            let count = source.read(&mut chunk).await.unwrap_or(0);
            let fresh = chunk.get(..count).unwrap_or_default();
            if let Some(end) = fresh.iter().position(|byte| *byte == b'\n') {
                line.extend(fresh.iter().take(end));
                return true;
            }
            if fresh.is_empty() {
                return false;
            }
            line.extend(fresh);
        }
    };
    match within(limit, reading).await {
        Some(true) => Ok(line),
        Some(false) => Err(format!(
            "the request is no line of at most {MAX_LINE_BYTES} bytes"
        )),
        None => Err(format!("no request came within {} s", limit.as_secs())),
    }
}

/// Writes and closes. A client that takes nothing for as long as `limit`, or went away, gets no
/// more.
async fn send(stream: &mut Async<UnixStream>, bytes: &[u8], limit: Duration) {
    let mut left = bytes;
    while !left.is_empty() {
        match within(limit, stream.write(left)).await {
            Some(Ok(taken @ 1..)) => left = left.get(taken..).unwrap_or_default(),
            _ => {
                log::debug!("a client of the control socket did not take its answer");
                return;
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Query, String> {
    let text = std::str::from_utf8(line).map_err(|_| "the request is not UTF-8".to_owned())?;
    match text.split_once(' ') {
        None if text == "status" => Ok(Query::Status),
        None if text == "indexers" => Ok(Query::Indexers),
        Some(("find", what)) if !what.trim().is_empty() => Ok(Query::Find(what.trim().to_owned())),
        _ => Err(format!(
            "`{text}` is not known: ask `status`, `indexers` or `find X`"
        )),
    }
}

/// Hands the query to the loop and waits for its answer.
async fn ask(query: Query, requests: &Sender<ControlRequest>) -> Result<String, String> {
    let (reply, answer) = bounded(1);
    let reply = Reply(reply);
    let gone = "oc-discovery is ending, or could not answer";
    let asked = requests.send(ControlRequest { query, reply }).await;
    asked.map_err(|_| gone.to_owned())?;
    answer.recv().await.map_err(|_| gone.to_owned())
}

fn refusal(message: &str) -> String {
    json::to_string(&Refusal {
        error: message.to_owned(),
    })
}

#[cfg(test)]
mod tests;
