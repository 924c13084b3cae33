use super::*;
use crate::daemon::client;
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
        let line = receive(&mut near, SILENCE).await;
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
fn two_hundred_silent_clients_do_not_shut_the_next_one_out() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data).unwrap();
    block_on(async {
        let mut silent = VecDeque::new();
        for _ in 0..200 {
            silent.push_back(connect(dir.path()).await);
        }
        // Half a line is silence, too.
        let mut slow = connect(dir.path()).await;
        slow.write_all(b"stat").await.unwrap();
        let client = asking(dir.path(), b"status\n").await;
        let request = within(SILENCE / 2, control.next()).await.unwrap();
        request.reply.answer("{}".to_owned());
        assert_eq!(line_from(client).await, "{}");
        let told = error_in(&line_from(silent.pop_front().unwrap()).await);
        assert!(told.contains("silent the longest"), "{told}");
        // The last of them are heard still.
        let mut last = silent.pop_back().unwrap();
        last.write_all(b"indexers\n").await.unwrap();
        assert_eq!(control.next().await.query, Query::Indexers);
    });
}

#[test]
fn client_that_has_spoken_keeps_its_place_among_silent_ones() {
    let dir = TestDir::new();
    let data = DataDir::open(dir.path()).unwrap();
    let control = Control::bind(&data).unwrap();
    block_on(async {
        let mut spoken = Vec::new();
        for _ in 0..MAX_CLIENTS + 1 {
            spoken.push(asking(dir.path(), b"status\n").await);
        }
        let first = control.next().await;
        let mut silent = Vec::new();
        for _ in 0..2 * MAX_WAITING {
            silent.push(connect(dir.path()).await);
        }
        first.reply.answer("{}".to_owned());
        for _ in 0..MAX_CLIENTS {
            control.next().await.reply.answer("{}".to_owned());
        }
        for client in spoken {
            assert_eq!(line_from(client).await, "{}");
        }
    });
}

#[test]
fn the_user_at_the_other_end_is_known() {
    let (near, _far) = UnixStream::pair().unwrap();
    assert_eq!(uid_of(&near).unwrap(), geteuid());
    assert!(uid_of(std::fs::File::open("/dev/null").unwrap()).is_err());
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

#[test]
fn socket_with_a_name_is_found_by_way_of_its_directory_and_only_once() {
    let dir = TestDir::new();
    let listener = bind_name(dir.path()).unwrap();
    assert!(bind_name(dir.path()).is_err(), "another has it");
    let (sender, requests) = bounded(1);
    block_on(async {
        spawn(serve(listener, sender));
        let path = dir.path().to_path_buf();
        let asking = smol::unblock(move || {
            let patience = Duration::from_secs(10);
            client::ask::<Refusal>(&path, &client::Request::Status, patience)
        });
        let answering = async {
            let request = requests.recv().await.unwrap();
            request.reply.answer(r#"{"error":"by name"}"#.to_owned());
        };
        let (asked, ()) = futures_util::future::join(asking, answering).await;
        assert_eq!(asked.unwrap().value.error, "by name");
    });
}
