//! Requests and answers, and how long a client has for them.

mod socket;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::pin::pin;
use std::time::Instant;

use miniserde::json;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::desk::{MAX_TAKING, SILENCE, TAKING, receive};
use super::*;
use crate::daemon::client;
use crate::daemon::request::{Call, CallAnswer, CallEvent, PendingCall};
use crate::daemon::status::Refusal;
use crate::daemon::testdir::TestDir;
use crate::net::executor::waits::{block_on, eventually};
use crate::protocol::TableStats;

/// The time for events that must not happen.
pub(super) const BRIEF: Duration = Duration::from_millis(30);

async fn connect(dir: &Path) -> Async<UnixStream> {
    let (path, _through) = socket_path(dir).unwrap();
    Async::<UnixStream>::connect(&path).await.unwrap()
}

pub(super) async fn asking(dir: &Path, line: &[u8]) -> Async<UnixStream> {
    let mut stream = connect(dir).await;
    stream.write_all(line).await.unwrap();
    stream
}

/// The whole line that the daemon answers.
pub(super) async fn line_from(mut stream: Async<UnixStream>) -> String {
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

const NO_INDEXERS: &str = concat!(
    r#"{"complete":true,"asked":0,"answered":0,"silent":[],"#,
    r#""refused":[],"partial":[],"indexers":[]}"#
);

fn no_indexers() -> CallAnswer {
    CallAnswer::Indexers(json::from_str(NO_INDEXERS).unwrap())
}

fn error_in(json: &str) -> String {
    json::from_str::<Refusal>(json).unwrap().error
}

/// The next request.
async fn request(control: &Control) -> PendingCall {
    match within(Duration::from_secs(10), control.next()).await {
        Some(CallEvent::Made(request)) => request,
        Some(event) => panic!("{event:?}"),
        None => panic!("no client was heard"),
    }
}

async fn stats(dir: &Path, control: &Control) -> TableStats {
    tables(dir, control).await[0]
}

/// The tables of the clients and of the answers in parts.
pub(super) async fn tables(dir: &Path, control: &Control) -> Vec<TableStats> {
    let _client = asking(dir, b"status\n").await;
    match request(control).await.call {
        Call::Status(tables) => tables,
        call => panic!("{call:?}"),
    }
}

#[test]
fn each_query_reaches_the_loop_and_its_answer_the_client() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        for (line, call) in [
            (
                "status\n",
                Call::Status(vec![
                    TableStats {
                        name: "control_clients",
                        used: 1,
                        capacity: 40,
                        refused: 0,
                        evicted: 0,
                    },
                    TableStats {
                        name: "control_streams",
                        used: 0,
                        capacity: 8,
                        refused: 0,
                        evicted: 0,
                    },
                ]),
            ),
            ("indexers\n", Call::Indexers),
            ("find lamp-1\n", Call::Find("lamp-1".to_owned())),
        ] {
            let client = asking(dir.path(), line.as_bytes()).await;
            let request = request(&control).await;
            assert_eq!(request.call, call);
            request.reply.answer(no_indexers());
            assert_eq!(line_from(client).await, NO_INDEXERS);
        }
    });
}

#[test]
fn connection_is_closed_after_the_answer() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let mut client = asking(dir.path(), b"status\n").await;
        request(&control).await.reply.refuse("no \"name\"\n");
        let mut all = String::new();
        client.read_to_string(&mut all).await.unwrap();
        assert_eq!(all, "{\"error\":\"no \\\"name\\\"\\n\",\"again\":null}\n");
    });
}

#[test]
fn dropped_request_is_answered_with_an_error() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let client = asking(dir.path(), b"status\n").await;
        drop(request(&control).await);
        assert!(error_in(&line_from(client).await).contains("could not answer"));
    });
}

#[test]
fn request_that_nobody_took_is_answered_at_the_end() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let client = asking(dir.path(), b"status\n").await;
        eventually("the request", || !control.events.is_empty()).await;
        drop(control);
        assert!(error_in(&line_from(client).await).contains("is ending"));
    });
}

#[test]
fn wrong_line_is_answered_and_never_reaches_the_loop() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    let longest = [&[b'x'; 1023][..], b"\n"].concat();
    let too_long = [&[b'x'; 6144][..], b"\n"].concat();
    block_on(async {
        for (line, message) in [
            (&b"stop\n"[..], "`stop` is not known"),
            (b"\n", "`` is not known"),
            (b"status now\n", "is not known"),
            (b"find \n", "is not known"),
            (b"find \xff\n", "not UTF-8"),
            (&longest, "is not known"),
            (&too_long, "at most 6144 bytes"),
        ] {
            let client = asking(dir.path(), line).await;
            let error = error_in(&line_from(client).await);
            assert!(error.contains(message), "{error}");
        }
    });
    assert!(control.events.is_empty());
}

#[test]
fn line_may_come_in_pieces() {
    let (mut near, mut far) = Async::<UnixStream>::pair().unwrap();
    block_on(async {
        let mut line = pin!(receive(&mut near));
        for piece in [&b"sta"[..], b"tus"] {
            far.write_all(piece).await.unwrap();
            assert!(future::poll_once(&mut line).await.is_none());
        }
        far.write_all(b"\nmore").await.unwrap();
        assert_eq!(line.await.as_deref(), Ok(&b"status"[..]));
    });
}

#[test]
fn client_that_says_nothing_loses_its_place_and_is_counted() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let begin = Instant::now();
        let error = error_in(&line_from(connect(dir.path()).await).await);
        assert_eq!(error, "no request came within 2 s");
        assert!(begin.elapsed() >= SILENCE);
        let stats = stats(dir.path(), &control).await;
        assert_eq!((stats.used, stats.refused, stats.evicted), (1, 1, 0));
    });
}

/// A desk of its own, and the events for the loop.
pub(super) fn desk(places: usize) -> (Rc<Desk>, Receiver<CallEvent>) {
    let (sender, events) = bounded(MAX_EVENTS);
    (Desk::new(sender, places, Askers::Owner), events)
}

#[test]
fn client_that_does_not_read_is_given_up() {
    let (mut near, _far) = Async::<UnixStream>::pair().unwrap();
    let more_than_the_system_buffers = vec![b'x'; 16 * 1024 * 1024];
    let (desk, _events) = desk(MAX_CLIENTS);
    // Without its limit it would wait forever.
    block_on(desk.send(&mut near, &more_than_the_system_buffers, BRIEF));
    assert_eq!((desk.refused.get(), desk.evicted.get()), (1, 0));
    assert!(desk.taking.clients().is_empty());
}

#[test]
fn ninth_slow_reader_takes_the_place_of_the_first() {
    one_slow_reader_more_than(MAX_TAKING, MAX_CLIENTS);
}

#[test]
fn slow_readers_have_at_most_half_of_few_places() {
    one_slow_reader_more_than(2, 4);
}

/// It takes the place of the first one.
fn one_slow_reader_more_than(most: usize, places: usize) {
    let (desk, _events) = desk(places);
    let mut far = Vec::new();
    let read = Rc::new(RefCell::new(Vec::new()));
    block_on(async {
        for number in 0..=most {
            // A client is listed only once the desk waits for it.
            let waiting = || desk.taking.clients().len();
            eventually("they are listed", || waiting() == number.min(most)).await;
            assert_eq!(desk.evicted.get(), 0);
            let (mut near, end) = Async::<UnixStream>::pair().unwrap();
            far.push(end);
            let (desk, read) = (Rc::clone(&desk), Rc::clone(&read));
            spawn(async move {
                let long = vec![b'x'; 4 * 1024 * 1024];
                desk.send(&mut near, &long, TAKING).await;
                read.borrow_mut().push(number);
            });
        }
        eventually("a client gives way", || !read.borrow().is_empty()).await;
        assert_eq!(*read.borrow(), [0]);
        assert_eq!((desk.refused.get(), desk.evicted.get()), (0, 1));
        // The last client reads on and gets the whole answer.
        let mut all = Vec::new();
        far.pop().unwrap().read_to_end(&mut all).await.unwrap();
        assert_eq!(all.len(), 4 * 1024 * 1024);
    });
}

#[test]
fn clients_that_wait_for_lookups_hold_up_nobody() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let mut waiting = Vec::new();
        for _ in 0..MAX_CLIENTS - 1 {
            let client = asking(dir.path(), b"find x\n").await;
            waiting.push((client, request(&control).await));
        }
        let stats = stats(dir.path(), &control).await;
        assert_eq!((stats.used, stats.capacity), (MAX_CLIENTS, MAX_CLIENTS));
    });
}

#[test]
fn newcomers_take_the_places_of_silent_clients_the_longest_silent_first() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let mut silent = VecDeque::new();
        for _ in 0..200 {
            silent.push_back(connect(dir.path()).await);
        }
        // Half a line counts as silence too.
        let mut slow = connect(dir.path()).await;
        slow.write_all(b"stat").await.unwrap();
        let client = asking(dir.path(), b"status\n").await;
        let request = within(SILENCE / 2, request(&control)).await.unwrap();
        request.reply.answer(no_indexers());
        assert_eq!(line_from(client).await, NO_INDEXERS);
        let told = line_from(silent.pop_front().unwrap()).await;
        assert!(told.contains("silent the longest"), "{told}");
        let told: Refusal = json::from_str(&told).unwrap();
        assert_eq!(told.again, Some(true));
        // The last of them can still send their line.
        let mut last = silent.pop_back().unwrap();
        last.write_all(b"indexers\n").await.unwrap();
        let CallEvent::Made(request) = control.next().await else {
            panic!("no client has left");
        };
        assert_eq!(request.call, Call::Indexers);
        let stats = stats(dir.path(), &control).await;
        let gone = 200 + 3 + 1 - 1 - MAX_CLIENTS as u64;
        assert!((gone - 1..=gone).contains(&stats.evicted), "{stats:?}");
        assert_eq!(stats.refused, 0);
    });
}

#[test]
fn lines_that_are_here_are_read_before_anybody_has_to_give_way() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let mut spoken = Vec::new();
        for _ in 0..5 * MAX_CLIENTS {
            // The clients do not let the daemon run in between.
            let mut client = UnixStream::connect(dir.path().join("control.sock")).unwrap();
            std::io::Write::write_all(&mut client, b"status\n").unwrap();
            spoken.push(Async::new(client).unwrap());
        }
        for _ in 0..spoken.len() {
            request(&control).await.reply.answer(no_indexers());
        }
        for client in spoken {
            assert_eq!(line_from(client).await, NO_INDEXERS);
        }
        assert_eq!(stats(dir.path(), &control).await.evicted, 0);
    });
}

#[test]
fn client_that_leaves_before_its_answer_is_noticed() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        for half_closed_before in [false, true] {
            let client = asking(dir.path(), b"find x\n").await;
            let PendingCall { reply, .. } = request(&control).await;
            if half_closed_before {
                client.get_ref().shutdown(Shutdown::Write).unwrap();
            }
            assert!(within(BRIEF, control.next()).await.is_none());
            assert!(!reply.is_abandoned());
            drop(client);
            let event = within(SILENCE, control.next()).await;
            assert!(matches!(event, Some(CallEvent::Left)), "{event:?}");
            assert!(reply.is_abandoned());
        }
        assert_eq!(stats(dir.path(), &control).await.used, 1);
    });
}

#[test]
fn client_that_has_ended_its_request_gets_its_answer() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let client = asking(dir.path(), b"find x\n").await;
        client.get_ref().shutdown(Shutdown::Write).unwrap();
        let request = request(&control).await;
        assert!(within(BRIEF, control.next()).await.is_none());
        request.reply.answer(no_indexers());
        assert_eq!(line_from(client).await, NO_INDEXERS);
    });
}

#[test]
fn client_that_has_spoken_keeps_its_place_among_silent_ones() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data, None, MAX_CLIENTS).unwrap();
    block_on(async {
        let mut spoken = Vec::new();
        for _ in 0..MAX_EVENTS + 1 {
            spoken.push(asking(dir.path(), b"status\n").await);
        }
        let first = request(&control).await;
        let mut silent = Vec::new();
        for _ in 0..2 * MAX_CLIENTS {
            silent.push(connect(dir.path()).await);
        }
        first.reply.answer(no_indexers());
        for _ in 0..MAX_EVENTS {
            request(&control).await.reply.answer(no_indexers());
        }
        for client in spoken {
            assert_eq!(line_from(client).await, NO_INDEXERS);
        }
    });
}
