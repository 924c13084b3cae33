use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixListener;
use std::thread;

use super::locate::{by_group, locate_by_group};
use super::*;
use crate::daemon::status::{IndexerList, Status};
use crate::daemon::testdir::TestDir;

const BRIEF: Duration = Duration::from_millis(100);

fn listen(dir: &Path) -> UnixListener {
    let (path, _handle) = socket_path(dir).unwrap();
    UnixListener::bind(path).unwrap()
}

/// A daemon that answers one request with these bytes.
fn answering(dir: &Path, answer: Vec<u8>) -> thread::JoinHandle<String> {
    let listener = listen(dir);
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        // The client may close before all of it is written.
        let _ = stream.write_all(&answer);
        line
    })
}

fn indexers(dir: &Path, answer: &[u8]) -> Result<Answer<IndexerList>, Error> {
    let daemon = answering(dir, answer.to_vec());
    let result = ask(dir, &OperatorRequest::Indexers, PATIENCE);
    assert_eq!(daemon.join().unwrap(), "indexers\n");
    result
}

#[test]
fn answer_comes_parsed_and_as_it_was_sent() {
    for end in ["\n", ""] {
        let dir = TestDir::new();
        let text = r#"{"complete":true,"asked":0,"answered":0,"silent":[],"refused":[],"partial":[],"indexers":[],"later":1}"#;
        let answer = indexers(dir.path(), format!("{text}{end}").as_bytes()).unwrap();
        assert_eq!(answer.json, text);
        assert!(answer.value.indexers.is_empty());
    }
}

#[test]
fn daemon_that_ends_before_its_answer_is_not_another_version() {
    let dir = TestDir::new();
    let error = indexers(dir.path(), b"").unwrap_err().to_string();
    assert!(error.contains("it ended before it answered"), "{error}");
}

#[test]
fn sentence_of_the_daemon_is_passed_on() {
    let dir = TestDir::new();
    let error = indexers(dir.path(), b"{\"error\":\"it is late\"}\n").unwrap_err();
    assert_eq!(error.to_string(), "it is late");
    assert_eq!(error.exit_code(), 1);
}

/// A daemon that answers one request after another. Returns the requests.
fn answering_all(dir: &Path, answers: Vec<&'static str>) -> thread::JoinHandle<usize> {
    let listener = listen(dir);
    thread::spawn(move || {
        for answer in &answers {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(&stream)
                .read_line(&mut String::new())
                .unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
        answers.len()
    })
}

const BUSY: &str = r#"{"error":"too many","again":true}"#;

#[test]
fn where_too_many_others_ask_the_question_is_put_again() {
    let dir = TestDir::new();
    let last = r#"{"complete":true,"asked":0,"answered":0,"silent":[],"refused":[],"partial":[],"indexers":[]}"#;
    let daemon = answering_all(dir.path(), vec![BUSY, BUSY, last]);
    let answer = ask::<IndexerList>(dir.path(), &OperatorRequest::Indexers, PATIENCE).unwrap();
    assert_eq!((answer.json.as_str(), daemon.join().unwrap()), (last, 3));
}

#[test]
fn the_daemons_sentence_is_passed_on_when_there_is_no_time_to_ask_again() {
    let dir = TestDir::new();
    let daemon = answering_all(dir.path(), vec![BUSY]);
    let error = ask::<IndexerList>(dir.path(), &OperatorRequest::Indexers, PAUSE).unwrap_err();
    daemon.join().unwrap();
    assert_eq!(
        (error.to_string().as_str(), error.exit_code()),
        ("too many", 1)
    );
}

#[test]
fn parts_come_line_by_line_and_an_error_ends_them() {
    let nodes = || OperatorRequest::Nodes(Default::default());
    let dir = TestDir::new();
    let daemon = answering_all(dir.path(), vec![BUSY, "{}\n[1]\n{\"error\":\"late\"}\n"]);
    let mut lines = Lines::ask(dir.path(), &nodes(), PATIENCE).unwrap();
    for line in ["{}", "[1]"] {
        assert_eq!(lines.next(Some(PATIENCE)).unwrap().as_deref(), Some(line));
    }
    assert_eq!(lines.next(None).unwrap_err().to_string(), "late");
    assert_eq!(lines.next(None).unwrap(), None, "it has closed");
    assert_eq!(daemon.join().unwrap(), 2);
}

#[test]
fn daemon_that_stops_in_the_middle_of_its_answer_is_given_up() {
    let dir = TestDir::new();
    let listener = listen(dir.path());
    let mut client = connect(dir.path(), PATIENCE).unwrap();
    client.write_all(b"nodes {}\n").unwrap();
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(b"{}\nhalf").unwrap();
    let mut lines = Lines {
        dir: dir.path().into(),
        connection: BufReader::new(client),
        first: None,
    };
    assert_eq!(lines.next(Some(BRIEF)).unwrap().as_deref(), Some("{}"));
    let error = lines.next(Some(BRIEF)).unwrap_err();
    assert!(matches!(error, Error::Deaf(..)), "{error:?}");
}

#[test]
fn what_a_daemon_said_before_it_was_asked_is_read() {
    let dir = TestDir::new();
    let listener = listen(dir.path());
    let mut client = BufReader::new(connect(dir.path(), PATIENCE).unwrap());
    let (mut far, _) = listener.accept().unwrap();
    far.write_all(b"told\n").unwrap();
    drop(far);
    let deadline = Some(Instant::now() + PATIENCE);
    let told = exchange_on(&mut client, &OperatorRequest::Status, deadline).unwrap();
    assert_eq!(told, b"told");

    let mut client = BufReader::new(connect(dir.path(), PATIENCE).unwrap());
    drop(listener.accept().unwrap());
    let error = exchange_on(&mut client, &OperatorRequest::Status, deadline).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn answer_of_an_older_daemon_names_its_version() {
    let older = br#"{"role":"node","peer_id":"12D3A","version":"0.0.9\n"}"#;
    let dir = TestDir::new();
    let daemon = answering(dir.path(), older.to_vec());
    let error = ask::<Status>(dir.path(), &OperatorRequest::Status, PATIENCE).unwrap_err();
    daemon.join().unwrap();
    let text = error.to_string();
    assert!(
        text.contains(r"(version 0.0.9\n, and this program has "),
        "{text}"
    );
    assert!(text.contains("restart the daemon"), "{text}");
    assert_eq!(error.exit_code(), 1);

    let dir = TestDir::new();
    let daemon = answering(dir.path(), older.to_vec());
    assert_eq!(peer_id(Some(dir.path()), &|_| None).unwrap(), "12D3A");
    daemon.join().unwrap();
}

#[test]
fn where_an_answer_has_no_version_the_status_is_asked_for_it() {
    let dir = TestDir::new();
    let listener = listen(dir.path());
    let daemon = thread::spawn(move || {
        for (asked, answer) in [
            ("indexers\n", r#"{"places":[]}"#),
            ("status\n", r#"{"version":"9.0.0"}"#),
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            assert_eq!(line, asked);
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let error = ask::<IndexerList>(dir.path(), &OperatorRequest::Indexers, PATIENCE).unwrap_err();
    daemon.join().unwrap();
    assert!(
        matches!(&error, Error::OtherVersion(_, version) if version == "9.0.0"),
        "{error:?}"
    );
}

#[test]
fn nonsense_is_no_answer() {
    for bytes in [&b"\n"[..], b"{}\n", b"\xff\n", b"[1]"] {
        let dir = TestDir::new();
        let error = indexers(dir.path(), bytes).unwrap_err();
        assert!(matches!(error, Error::Nonsense(_)), "{error:?}");
    }
}

#[test]
fn answer_without_end_is_not_read_past_its_bound() {
    let dir = TestDir::new();
    let error = indexers(dir.path(), &vec![b'x'; ANSWER_MAX + 65_536]).unwrap_err();
    assert!(matches!(error, Error::Io(..)), "{error:?}");
}

#[test]
fn deaf_daemon_is_given_up() {
    let dir = TestDir::new();
    let _listener = listen(dir.path());
    let error = ask::<Status>(dir.path(), &OperatorRequest::Status, BRIEF).unwrap_err();
    assert!(matches!(error, Error::Deaf(..)), "{error:?}");
}

#[test]
fn id_of_a_frozen_daemon_comes_from_its_key_after_a_second() {
    let dir = TestDir::new();
    let key = storage::DataDir::open(dir.path()).unwrap().identity();
    let _listener = listen(dir.path());
    let begin = Instant::now();
    let id = peer_id(Some(dir.path()), &|_| None).unwrap();
    assert_eq!(id, key.unwrap().public().to_peer_id().to_base58());
    assert!(begin.elapsed() < PATIENCE / 2);
}

#[test]
fn daemon_that_does_not_even_accept_is_given_up() {
    let dir = TestDir::new();
    let listener = listen(dir.path());
    rustix::net::listen(&listener, 0).unwrap();
    let _queued = connect(dir.path(), BRIEF).unwrap();
    let error = ask::<Status>(dir.path(), &OperatorRequest::Status, BRIEF).unwrap_err();
    assert!(matches!(error, Error::Deaf(..)), "{error:?}");
}

#[test]
fn left_over_socket_and_missing_directory_are_no_daemon() {
    let dir = TestDir::new();
    drop(listen(dir.path()));
    let error = ask::<Status>(dir.path(), &OperatorRequest::Status, BRIEF).unwrap_err();
    assert!(matches!(error, Error::NotRunning(_)), "{error:?}");
    assert!(error.to_string().contains("start one"), "{error}");
    let long = dir.path().join("x".repeat(120));
    for dir in [&dir.path().join("none"), &long] {
        let error = ask::<Status>(dir, &OperatorRequest::Status, BRIEF).unwrap_err();
        assert!(matches!(error, Error::NoDirectory(_)), "{error:?}");
        assert!(
            error.to_string().contains("there is no directory"),
            "{error}"
        );
    }
}

#[test]
fn long_directory_is_reached_by_its_descriptor() {
    let base = TestDir::new();
    let dir = base.path().join("d".repeat(200));
    std::fs::create_dir(&dir).unwrap();
    let list = br#"{"complete":true,"asked":0,"answered":0,"silent":[],"refused":[],"partial":[],"indexers":[]}"#;
    assert!(indexers(&dir, list).is_ok());
    assert!(dir.join(SOCKET).exists());
}

#[test]
fn the_only_running_daemon_is_found_and_several_are_listed() {
    let state = TestDir::new();
    let env = |variable: &str| (variable == "XDG_STATE_HOME").then(|| state.path().into());
    let dir = |role: &str| {
        let dir = state.path().join("oc-discovery").join(role);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    };
    let error = locate(None, &env).unwrap_err();
    assert!(matches!(error, Error::NoneRunning), "{error:?}");
    assert_eq!(error.exit_code(), 1);

    let _native = listen(&dir("native"));
    assert_eq!(locate(None, &env).unwrap(), dir("native"));
    let _node = listen(&dir("node"));
    let error = locate(None, &env).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains(dir("native").to_str().unwrap()), "{text}");
    assert!(text.contains(dir("node").to_str().unwrap()), "{text}");
    let elsewhere = Path::new("elsewhere");
    assert_eq!(locate(Some(elsewhere), &env).unwrap(), elsewhere);
}

#[test]
fn a_service_is_found_by_the_directory_of_its_group() {
    let state = TestDir::new();
    let dirs = ["native", "node"].map(|role| state.path().join(role));
    assert!(matches!(locate_by_group(&dirs), Err(Error::NoneRunning)));
    std::fs::create_dir(&dirs[1]).unwrap();
    let _node = listen(&dirs[1]);
    assert_eq!(locate_by_group(&dirs).unwrap(), dirs[1]);
    std::fs::create_dir(&dirs[0]).unwrap();
    let _native = listen(&dirs[0]);
    assert!(matches!(locate_by_group(&dirs), Err(Error::Several(_))));
}

#[test]
fn member_of_the_group_reaches_a_service_by_its_data_directory() {
    let data = Path::new("/var/lib/oc-discovery/node");
    let socket = Path::new("/run/oc-discovery/node");
    let refused = |kind: io::ErrorKind| Err(io::Error::from(kind));
    let seen = |dir: &Path, at_data: io::ErrorKind, at_socket: bool| {
        by_group(dir, |asked: &Path| match asked == socket {
            true if at_socket => Ok(()),
            true => refused(io::ErrorKind::PermissionDenied),
            false => refused(at_data),
        })
    };
    use io::ErrorKind::{NotFound, PermissionDenied};
    assert_eq!(seen(data, PermissionDenied, true).as_deref(), Some(socket));
    assert_eq!(seen(data, PermissionDenied, false), None, "no member");
    assert_eq!(seen(data, NotFound, true), None, "it is not there");
    assert_eq!(seen(Path::new("/home/a"), PermissionDenied, true), None);
}

#[test]
fn only_names_and_peer_ids_are_asked_for() {
    let id = "12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp";
    for good in ["cam-3.hall", id] {
        let request = OperatorRequest::Find(NameOrPeerId::parse(good).unwrap());
        assert_eq!(request.to_string(), format!("find {good}"));
    }
    let longest = "x".repeat(63);
    for (host, name) in [
        ("PHost01", "phost01"),
        ("My_Host", "my-host"),
        ("büro 2.", "b-ro-2"),
        (longest.as_str(), longest.as_str()),
    ] {
        let query = NameOrPeerId::parse(host).unwrap();
        assert_eq!(query.as_str(), name);
        assert_eq!(name, config::name_of_host(host), "one rule");
    }
    for bad in ["", "_", "é", "a\nstatus", &"X".repeat(64)] {
        let error = NameOrPeerId::parse(bad).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(!error.to_string().contains('\n'));
    }
}
