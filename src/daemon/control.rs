//! The control socket: the operator's commands reach the one loop through it.
//!
//! A client writes one line (`status`, `indexers` or `find X`), gets one line of JSON, and the connection is
//! closed. What went wrong is `{"error":"…"}`. The socket has mode 0600, and the system says who is at the
//! other end: only the owner of the process and root are answered.
//!
//! Bounds: 8 clients at once (others wait in the system's queue), 512 bytes a line, 5 s to send it, 10 s to
//! take the answer. How long an answer takes to make is the loop's affair; a request that it drops is answered
//! with an error.

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use miniserde::json;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Uid, geteuid};
use smol::channel::{Receiver, Sender, bounded};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use smol::lock::Semaphore;
use smol::{Async, Timer, future};

use super::client::socket_path;
use super::status::Refusal;
use super::storage::DataDir;
use crate::net::executor::{spawn, within};

const MAX_CLIENTS: usize = 8;
const MAX_LINE_BYTES: usize = 512;
const SEND_TIMEOUT: Duration = Duration::from_secs(5);
const TAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept: the descriptors that are missing do not come back at once.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

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
    path: PathBuf,
    /// What a long path leads through.
    _through: Option<OwnedFd>,
}

impl Control {
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
            path,
            _through: through,
        };
        std::fs::set_permissions(&control.path, Permissions::from_mode(0o600))?;
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
        let _ = std::fs::remove_file(&self.path);
    }
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
    let slots = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let slot = slots.acquire_arc().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let requests = requests.clone();
                spawn(async move {
                    converse(stream, &requests).await;
                    drop(slot);
                });
            }
            Err(error) => {
                log::warn!("cannot take in a client of the control socket: {error}");
                Timer::after(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One client, from its line to its answer.
async fn converse(mut stream: Async<UnixStream>, requests: &Sender<ControlRequest>) {
    let answer = match query_of(&mut stream).await {
        Ok(query) => ask(query, requests).await,
        Err(message) => Err(message),
    };
    let mut line = answer.unwrap_or_else(|message| refusal(&message));
    line.push('\n');
    send(&mut stream, line.as_bytes(), TAKE_TIMEOUT).await;
}

async fn query_of(stream: &mut Async<UnixStream>) -> Result<Query, String> {
    let peer = socket_peercred(&*stream)
        .map_err(|error| format!("the system does not say who asks: {error}"))?;
    if !may_ask(peer.uid, geteuid()) {
        return Err("only the user that oc-discovery runs as, and root, may ask it".to_owned());
    }
    parse(&receive(stream, SEND_TIMEOUT).await?)
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

/// Writes and closes. A client that does not read in time, or went away, gets no more.
async fn send(stream: &mut Async<UnixStream>, bytes: &[u8], limit: Duration) {
    let written = within(limit, stream.write_all(bytes)).await;
    if !matches!(written, Some(Ok(()))) {
        log::debug!("a client of the control socket did not take its answer");
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
mod tests {
    use super::*;
    use crate::daemon::testdir::TestDir;
    use crate::net::executor::block_on;

    /// For what is expected not to happen.
    const BRIEF: Duration = Duration::from_millis(30);

    async fn connect(dir: &Path) -> Async<UnixStream> {
        let (path, _through) = socket_path(dir).unwrap();
        Async::<UnixStream>::connect(&path).await.unwrap()
    }

    async fn asking(dir: &Path, line: &[u8]) -> Async<UnixStream> {
        let mut stream = connect(dir).await;
        stream.write_all(line).await.unwrap();
        stream
    }

    /// The whole line that the daemon answers.
    async fn line_from(mut stream: Async<UnixStream>) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        let answering = async {
            while stream.read(&mut byte).await.unwrap() == 1 && byte != *b"\n" {
                bytes.extend(byte);
            }
        };
        within(Duration::from_secs(10), answering)
            .await
            .expect("no answer came");
        assert_eq!(byte, *b"\n", "no whole line came");
        String::from_utf8(bytes).unwrap()
    }

    fn error_in(json: &str) -> String {
        json::from_str::<Refusal>(json).unwrap().error
    }

    #[test]
    fn each_query_reaches_the_loop_and_its_answer_the_client() {
        let dir = TestDir::new();
        let data = DataDir::open(dir.path()).unwrap();
        let control = Control::bind(&data).unwrap();
        block_on(async {
            for (line, query) in [
                ("status\n", Query::Status),
                ("indexers\n", Query::Indexers),
                ("find lamp-1\n", Query::Find("lamp-1".to_owned())),
            ] {
                let client = asking(dir.path(), line.as_bytes()).await;
                let request = control.next().await;
                assert_eq!(request.query, query);
                request.reply.answer(r#"{"a":1}"#.to_owned());
                assert_eq!(line_from(client).await, r#"{"a":1}"#);
            }
        });
    }

    #[test]
    fn connection_is_closed_after_the_answer() {
        let dir = TestDir::new();
        let data = DataDir::open(dir.path()).unwrap();
        let control = Control::bind(&data).unwrap();
        block_on(async {
            let mut client = asking(dir.path(), b"status\n").await;
            control.next().await.reply.refuse("no \"name\"\n");
            let mut all = String::new();
            client.read_to_string(&mut all).await.unwrap();
            assert_eq!(all, "{\"error\":\"no \\\"name\\\"\\n\"}\n");
        });
    }

    #[test]
    fn dropped_request_is_answered_with_an_error() {
        let dir = TestDir::new();
        let data = DataDir::open(dir.path()).unwrap();
        let control = Control::bind(&data).unwrap();
        block_on(async {
            let client = asking(dir.path(), b"status\n").await;
            drop(control.next().await);
            assert!(error_in(&line_from(client).await).contains("could not answer"));
        });
    }

    #[test]
    fn request_that_nobody_took_is_answered_at_the_end() {
        let dir = TestDir::new();
        let data = DataDir::open(dir.path()).unwrap();
        let control = Control::bind(&data).unwrap();
        block_on(async {
            let client = asking(dir.path(), b"status\n").await;
            while control.requests.is_empty() {
                future::yield_now().await;
            }
            drop(control);
            assert!(error_in(&line_from(client).await).contains("is ending"));
        });
    }

    #[test]
    fn wrong_line_is_answered_and_never_reaches_the_loop() {
        let dir = TestDir::new();
        let data = DataDir::open(dir.path()).unwrap();
        let control = Control::bind(&data).unwrap();
        let longest = [&[b'x'; 511][..], b"\n"].concat();
        let too_long = [&[b'x'; 512][..], b"\n"].concat();
        block_on(async {
            for (line, message) in [
                (&b"stop\n"[..], "`stop` is not known"),
                (b"\n", "`` is not known"),
                (b"status now\n", "is not known"),
                (b"find \n", "is not known"),
                (b"find \xff\n", "not UTF-8"),
                (&longest, "is not known"),
                (&too_long, "at most 512 bytes"),
            ] {
                let client = asking(dir.path(), line).await;
                let error = error_in(&line_from(client).await);
                assert!(error.contains(message), "{error}");
            }
        });
        assert!(control.requests.is_empty());
    }

    #[test]
    fn line_may_come_in_pieces() {
        let (mut near, far) = Async::<UnixStream>::pair().unwrap();
        block_on(async {
            let mut far = far;
            spawn(async move {
                for piece in [&b"sta"[..], b"tus", b"\nmore"] {
                    far.write_all(piece).await.unwrap();
                    future::yield_now().await;
                }
            });
            let line = receive(&mut near, SEND_TIMEOUT).await;
            assert_eq!(line.as_deref(), Ok(&b"status"[..]));
        });
    }

    #[test]
    fn client_that_says_nothing_is_given_up() {
        let (mut near, _far) = Async::<UnixStream>::pair().unwrap();
        let error = block_on(receive(&mut near, BRIEF)).unwrap_err();
        assert_eq!(error, "no request came within 0 s");
    }

    #[test]
    fn client_that_does_not_read_is_given_up() {
        let (mut near, _far) = Async::<UnixStream>::pair().unwrap();
        let more_than_the_system_buffers = vec![b'x'; 16 * 1024 * 1024];
        // It would wait for ever without its limit.
        block_on(send(&mut near, &more_than_the_system_buffers, BRIEF));
    }

    #[test]
    fn ninth_client_waits_for_a_place() {
        let dir = TestDir::new();
        let data = DataDir::open(dir.path()).unwrap();
        let control = Control::bind(&data).unwrap();
        block_on(async {
            let mut clients = Vec::new();
            let mut requests = Vec::new();
            for _ in 0..MAX_CLIENTS {
                clients.push(asking(dir.path(), b"status\n").await);
                requests.push(control.next().await);
            }
            let _ninth = asking(dir.path(), b"find x\n").await;
            assert!(within(BRIEF, control.next()).await.is_none());
            requests.pop();
            assert_eq!(control.next().await.query, Query::Find("x".to_owned()));
        });
    }

    #[test]
    fn other_users_are_refused() {
        let (own, other) = (Uid::from_raw(1000), Uid::from_raw(1001));
        assert!(may_ask(own, own));
        assert!(may_ask(Uid::ROOT, own));
        assert!(!may_ask(other, own));
        assert!(!may_ask(other, Uid::ROOT));
    }

    #[test]
    fn socket_of_a_dead_process_is_replaced_and_ours_is_removed() {
        let dir = TestDir::new();
        let path = dir.path().join("control.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let data = DataDir::open(dir.path()).unwrap();
        let control = Control::bind(&data).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(control);
        assert!(!path.exists());
    }

    #[test]
    fn file_in_the_place_of_the_socket_is_left_alone() {
        let dir = TestDir::new();
        let path = dir.path().join("control.sock");
        std::fs::write(&path, "mine").unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        let error = Control::bind(&data).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&path).unwrap(), b"mine");
    }

    #[test]
    fn path_longer_than_a_socket_address_works() {
        let dir = TestDir::new();
        let long = dir.path().join("d".repeat(200));
        let data = DataDir::open(&long).unwrap();
        let control = Control::bind(&data).unwrap();
        block_on(async {
            let client = asking(&long, b"status\n").await;
            control.next().await.reply.answer("{}".to_owned());
            assert_eq!(line_from(client).await, "{}");
        });
        drop(control);
        assert!(!long.join("control.sock").exists());
    }
}
