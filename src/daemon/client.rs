//! The client of the control socket: with it a command asks the daemon that runs on this machine.
//!
//! A connection is for one request: the client writes a line, and the daemon answers with one line
//! of JSON and closes, or with one line for each part of its answer. An error is
//! `{"error":"sentence"}`. If it states that too many others ask, the request is repeated. Nothing
//! here waits longer than the given time, and no line is read past [`ANSWER_MAX`].

mod error;
mod locate;

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use miniserde::{Deserialize, json};
use rustix::fs::{Mode, OFlags};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Uid;

use super::control::uid_of;
use super::drain::DrainCall;
use super::status::{NodeQuery, Refusal};
use super::storage::{self, identity::IDENTITY};
use crate::config::{self, EnvVars};
use crate::protocol::{self, MAX_NAME_LEN, codec::to_name};
use error::explain;
use locate::only;

pub(crate) use error::Error;
pub(crate) use locate::locate;

/// Longest line that is read, in bytes.
pub(crate) const ANSWER_MAX: usize = 4 * 1024 * 1024;
/// How long a command waits for an answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// How long `id` waits for a daemon: the key in the directory says the same.
const ID_PATIENCE: Duration = Duration::from_secs(1);
/// How long it repeats a request when too many others ask. The rest of [`PATIENCE`] is then enough
/// for a lookup.
const AGAIN: Duration = Duration::from_secs(4);
/// The pause before it asks again.
const PAUSE: Duration = Duration::from_millis(100);

/// Name of the control socket in the data directory.
pub(super) const SOCKET: &str = "control.sock";
/// Longest socket path that is used as it is: `sun_path` has 108 bytes (unix(7)).
const PATH_MAX: usize = 100;

/// A request to a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum OperatorRequest {
    /// The status. Answered with a [`Status`](super::status::Status).
    Status,
    /// The same, after a new look at what is wrong.
    Doctor,
    /// The indexers. Answered with an [`IndexerList`](super::status::IndexerList).
    Indexers,
    /// The settings. Answered with a [`ConfigReport`](config::ConfigReport).
    Config,
    /// The last lines of the log. Answered with [`LogLines`](super::logging::LogLines).
    Log,
    /// To take its configuration over anew. Answered with
    /// [`Reloaded`](super::reload::Reloaded).
    Reload,
    /// The nodes with this name, or the one with this peer id. Answered with
    /// [`Found`](super::status::Found).
    Find(NameOrPeerId),
    /// Hand the nodes of an indexer over, or take nodes again. Answered with
    /// [`Drained`](super::drain::Drained).
    Drain(DrainCall),
    /// To take a revocation list, a line of text. Answered with
    /// [`Revoked`](super::members::Revoked).
    Revoke(String),
    /// The nodes of the network. Answered in parts: with a [`NodeRow`](super::status::NodeRow) for
    /// each, and with a [`ListTally`](super::status::ListTally) from time to time and at the end.
    Nodes(NodeQuery),
    /// The nodes, and each change. Answered in parts: with a
    /// [`WatchRow`](super::status::WatchRow) for each, and with a
    /// [`CaughtUp`](super::status::CaughtUp) when all of them were reported.
    Watch(NodeQuery),
}

/// A name or a peer id, checked, so that it fits into one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameOrPeerId(String);

/// An answer, both parsed and as text.
#[derive(Clone, Debug)]
pub(crate) struct Answer<T> {
    /// The parsed answer.
    pub value: T,
    /// The line of JSON, without its end.
    pub json: String,
}

impl NameOrPeerId {
    /// Parses a node's name or a peer id. Any other text stands for the default name of a host with
    /// that name ([`config::folded_name`]).
    ///
    /// # Errors
    /// [`Error::Query`] if the text is too long for a name, has control characters, or leaves no
    /// name; [`Error::NoPeerId`] if it begins as an id.
    pub(crate) fn parse(text: &str) -> Result<NameOrPeerId, Error> {
        let is_other = |peer: PeerId| protocol::PeerId::try_from(peer).is_err();
        if text.parse().is_ok_and(is_other) {
            return Err(Error::OtherKey(text.to_owned()));
        }
        if config::begins_a_peer_id(text) && text.parse::<PeerId>().is_err() {
            return Err(Error::NoPeerId(text.chars().take(120).collect()));
        }
        let is_sensible = text.len() <= MAX_NAME_LEN && !text.contains(char::is_control);
        if text.parse::<PeerId>().is_ok() || to_name(text).is_some() {
            return Ok(NameOrPeerId(text.to_owned()));
        }
        config::folded_name(text)
            .filter(|_| is_sensible)
            .map(NameOrPeerId)
            .ok_or_else(|| Error::Query(text.chars().take(120).collect()))
    }

    /// The name or peer id.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperatorRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OperatorRequest::Status => f.write_str("status"),
            OperatorRequest::Doctor => f.write_str("doctor"),
            OperatorRequest::Indexers => f.write_str("indexers"),
            OperatorRequest::Config => f.write_str("config"),
            OperatorRequest::Log => f.write_str("log"),
            OperatorRequest::Reload => f.write_str("reload"),
            OperatorRequest::Find(NameOrPeerId(query)) => write!(f, "find {query}"),
            OperatorRequest::Drain(DrainCall::Begin) => f.write_str("drain"),
            OperatorRequest::Drain(DrainCall::Look) => f.write_str("drain look"),
            OperatorRequest::Drain(DrainCall::Undo) => f.write_str("drain undo"),
            OperatorRequest::Revoke(line) => write!(f, "revoke {line}"),
            OperatorRequest::Nodes(query) => write!(f, "nodes {}", json::to_string(query)),
            OperatorRequest::Watch(query) => write!(f, "watch {}", json::to_string(query)),
        }
    }
}

/// Asks the daemon of a data directory and waits at most `patience` for the whole answer. If too
/// many others ask, it repeats the request for at most 4 s.
///
/// # Errors
/// Every [`Error`] except those about the choice of a daemon.
pub(crate) fn ask<T: Deserialize>(
    dir: &Path,
    request: &OperatorRequest,
    patience: Duration,
) -> Result<Answer<T>, Error> {
    until_it_is_heard(patience, |left| ask_once(dir, request, left))
}

/// Repeats a request while too many others ask.
fn until_it_is_heard<T>(
    patience: Duration,
    mut ask: impl FnMut(Duration) -> Result<T, Error>,
) -> Result<T, Error> {
    let begin = Instant::now();
    loop {
        let left = patience.saturating_sub(begin.elapsed());
        match ask(left) {
            Err(Error::Busy(_)) if begin.elapsed() + PAUSE < AGAIN.min(patience) => {
                thread::sleep(PAUSE);
            }
            // The error states the whole time.
            Err(Error::Deaf(dir, _)) => return Err(Error::Deaf(dir, patience.min(PATIENCE))),
            answered => return answered,
        }
    }
}

/// An answer in parts, a line of JSON for each.
pub(crate) struct Lines {
    dir: PathBuf,
    connection: BufReader<UnixStream>,
    /// The first line, which has been read already.
    first: Option<String>,
}

impl Lines {
    /// Asks the daemon of a data directory, and waits at most `patience` for the first part. If too
    /// many others ask, it repeats the request as [`ask`] does.
    ///
    /// # Errors
    /// As [`ask`].
    pub(crate) fn ask(
        dir: &Path,
        request: &OperatorRequest,
        patience: Duration,
    ) -> Result<Self, Error> {
        until_it_is_heard(patience, |left| {
            let of_this = |error| explain(dir, left, error);
            // An answer without end still has a limit for its first part: the daemon must accept.
            let soon = left.min(PATIENCE);
            let connected = connect(dir, soon).map_err(|error| explain(dir, soon, error))?;
            let mut connection = BufReader::new(connected);
            let deadline = Some(Instant::now() + left);
            let first = exchange_on(&mut connection, request, deadline).map_err(of_this)?;
            Ok(Self {
                dir: dir.into(),
                connection,
                first: Some(text_of(dir, first)?),
            })
        })
    }

    /// The next part. `None`: the daemon has closed. Without `patience` it waits for ever.
    ///
    /// # Errors
    /// As [`ask`].
    pub(crate) fn next(&mut self, patience: Option<Duration>) -> Result<Option<String>, Error> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let deadline = patience.map(|patience| Instant::now() + patience);
        let line = read_line(&mut self.connection, deadline)
            .map_err(|error| explain(&self.dir, patience.unwrap_or_default(), error))?;
        line.map(|line| text_of(&self.dir, line)).transpose()
    }
}

/// The line as text, if it is not an error.
fn text_of(dir: &Path, line: Vec<u8>) -> Result<String, Error> {
    let text = String::from_utf8(line).map_err(|_| Error::Nonsense(dir.into()))?;
    match json::from_str::<Refusal>(&text) {
        Ok(refusal) => Err(refusal.into()),
        Err(_) => Ok(text),
    }
}

fn ask_once<T: Deserialize>(
    dir: &Path,
    request: &OperatorRequest,
    patience: Duration,
) -> Result<Answer<T>, Error> {
    let line = exchange(dir, request, patience).map_err(|error| explain(dir, patience, error))?;
    let json = String::from_utf8(line).map_err(|_| Error::Nonsense(dir.into()))?;
    match json::from_str(&json) {
        Ok(value) => Ok(Answer { value, json }),
        Err(_) => Err(match json::from_str::<Refusal>(&json) {
            Ok(refusal) => refusal.into(),
            Err(_) => match version_of(dir, &json, patience) {
                Some(version) => Error::OtherVersion(dir.into(), version),
                None => Error::Nonsense(dir.into()),
            },
        }),
    }
}

/// The version of the daemon that gave an unreadable answer: from that answer, or from the daemon's
/// status.
fn version_of(dir: &Path, json: &str, patience: Duration) -> Option<String> {
    let read = |json: &str| Some(json::from_str::<Version>(json).ok()?.version);
    // The answer of a daemon is always an object.
    json::from_str::<Anything>(json).ok()?;
    read(json).or_else(|| {
        let line = exchange(dir, &OperatorRequest::Status, patience).ok()?;
        read(&String::from_utf8(line).ok()?)
    })
}

/// The fields that the status has in every version of the program.
#[derive(Deserialize)]
struct Version {
    version: String,
}

/// The same.
#[derive(Deserialize)]
struct Identity {
    peer_id: String,
}

#[derive(Deserialize)]
struct Anything {}

/// The peer id of the running daemon, or else the one in the data directory.
///
/// # Errors
/// As [`locate`] and [`ask`], and [`Error::Identity`].
pub(crate) fn peer_id(given: Option<&Path>, env: EnvVars<'_>) -> Result<String, Error> {
    let dir = match locate(given, env) {
        Err(Error::NoneRunning) => {
            let made = config::default_data_dirs(env)
                .into_iter()
                .filter(|dir| dir.join(IDENTITY).exists());
            only(made.collect()).map_err(|error| match error {
                Error::Several(dirs) => Error::SeveralStopped(dirs),
                error => error,
            })?
        }
        dir => dir?,
    };
    match ask::<Identity>(&dir, &OperatorRequest::Status, ID_PATIENCE) {
        Ok(answer) => Ok(answer.value.peer_id),
        Err(Error::NotRunning(dir) | Error::Deaf(dir, _)) => storage::peer_id_in(&dir)
            .map(|peer| peer.to_base58())
            .map_err(Error::Identity),
        Err(error) => Err(error),
    }
}

/// The path of the control socket of a data directory, in a form that fits a socket address. If it
/// is long, it leads through `/proc` and the descriptor, which must be kept until the path has been
/// used.
///
/// # Errors
/// The directory cannot be opened.
pub(crate) fn socket_path(dir: &Path) -> io::Result<(PathBuf, Option<OwnedFd>)> {
    let path = dir.join(SOCKET);
    if path.as_os_str().as_bytes().len() <= PATH_MAX {
        return Ok((path, None));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let handle = rustix::fs::open(dir, flags, Mode::empty())?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", handle.as_raw_fd()));
    Ok((path, Some(handle)))
}

/// The abstract name of the control socket (unix(7)), for a data directory that cannot hold one. It
/// contains the device and inode of the directory, so it does not depend on the path.
///
/// # Errors
/// The directory cannot be accessed.
pub(crate) fn socket_name(dir: &Path) -> io::Result<Vec<u8>> {
    let metadata = std::fs::metadata(dir)?;
    let name = format!("oc-discovery/{}:{}", metadata.dev(), metadata.ino());
    Ok(name.into_bytes())
}

/// Connects to the daemon's socket: the one in its directory, or the abstract one if there is none.
fn connect(dir: &Path, patience: Duration) -> io::Result<UnixStream> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    let (path, _handle) = socket_path(dir)?;
    let in_dir = connect_to(&SocketAddrUnix::new(&path)?, patience);
    match in_dir {
        Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => {
            connect_by_name(dir, patience).map_err(|_| error)
        }
        in_dir => in_dir,
    }
}

/// Any user may take an abstract name, so it counts only if the owner of the directory or root
/// holds it.
fn connect_by_name(dir: &Path, patience: Duration) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new_abstract_name(&socket_name(dir)?)?;
    let stream = connect_to(&address, patience)?;
    let holder = uid_of(&stream)?;
    let owner = Uid::from_raw(std::fs::metadata(dir)?.uid());
    match holder == owner || holder.is_root() {
        true => Ok(stream),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// Connects with a time limit. A standard stream would wait forever if the daemon does not accept
/// and its queue is full.
fn connect_to(address: &SocketAddrUnix, patience: Duration) -> io::Result<UnixStream> {
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    rustix::net::connect(&socket, address)?;
    Ok(UnixStream::from(socket))
}

fn exchange(dir: &Path, request: &OperatorRequest, patience: Duration) -> io::Result<Vec<u8>> {
    let deadline = Some(Instant::now() + patience);
    let mut connection = BufReader::new(connect(dir, patience)?);
    exchange_on(&mut connection, request, deadline)
}

/// Writes the request and reads the first line of the answer.
fn exchange_on(
    connection: &mut BufReader<UnixStream>,
    request: &OperatorRequest,
    deadline: Option<Instant>,
) -> io::Result<Vec<u8>> {
    // If the daemon closed before the request, it may have sent the reason.
    let asked = connection
        .get_mut()
        .write_all(format!("{request}\n").as_bytes());
    let ended = || io::Error::new(io::ErrorKind::UnexpectedEof, "it ended before it answered");
    read_line(connection, deadline)?.ok_or_else(|| asked.err().unwrap_or_else(ended))
}

/// The next line, without its end. `None`: the daemon has closed.
fn read_line(
    connection: &mut BufReader<UnixStream>,
    deadline: Option<Instant>,
) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    loop {
        if connection.buffer().is_empty() {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(io::ErrorKind::TimedOut.into());
            }
            connection.get_ref().set_read_timeout(left)?;
        }
        let fresh = match connection.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            fresh => fresh?,
        };
        let (read, end) = (fresh.len(), fresh.iter().position(|&byte| byte == b'\n'));
        line.extend_from_slice(fresh.get(..end.unwrap_or(read)).unwrap_or_default());
        connection.consume(end.map_or(read, |end| end + 1));
        if end.is_some() || read == 0 {
            return Ok((end.is_some() || !line.is_empty()).then_some(line));
        }
        if line.len() > ANSWER_MAX {
            return Err(io::Error::other("its answer is longer than 4 MiB"));
        }
    }
}

#[cfg(test)]
mod tests;
