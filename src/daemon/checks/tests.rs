//! Checks of services that the tests start themselves, on loopback.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use super::*;
use crate::net::executor::waits::{block_on, eventually};

fn checked(probe: Probe, port: u16) -> Result<(), String> {
    made(probe, &hosts(&[]), port)
}

fn made(probe: Probe, hosts: &[IpAddr], port: u16) -> Result<(), String> {
    let ended = Rc::new(RefCell::new(Vec::new()));
    let tell = |what| ended.borrow_mut().push(what);
    block_on(async {
        match probe {
            Probe::Exec(command) => execute(&command, (0, &Groups::default()), tell).await,
            Probe::Tcp => tell(What::Result(connects(hosts, port).await)),
            Probe::Http(path) => tell(What::Result(gets(hosts, port, &path).await)),
        }
    });
    match ended.borrow_mut().remove(0) {
        What::Result(result) => result.map_err(|failure| failure.why),
        What::Over => panic!("it is over before its result"),
    }
}

/// Answers one connection with these bytes, after it has read a request.
fn server(answer: &'static [u8]) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 512];
        let read = client.read(&mut request).unwrap();
        assert!(request[..read].starts_with(b"GET /healthz HTTP/1.1\r\nHost: localhost:"));
        client.write_all(answer).unwrap();
    });
    port
}

fn http() -> Probe {
    Probe::Http("/healthz".into())
}

#[test]
fn tcp_check_passes_where_something_listens_and_names_the_refusal_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(checked(Probe::Tcp, port), Ok(()));
    drop(listener);
    let refused = format!("127.0.0.1:{port}: connection refused");
    assert_eq!(checked(Probe::Tcp, port), Err(refused));
}

#[test]
fn service_that_listens_only_at_an_announced_address_passes() {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // 127.0.0.2 is an address of this host only while its network is known.
    let hosts = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2)].map(IpAddr::from);
    assert_eq!(made(Probe::Tcp, &hosts, port), Ok(()));
}

#[test]
fn announced_address_of_a_router_is_not_asked() {
    let announced = ["/ip4/192.0.2.1/tcp/1".parse().unwrap()];
    assert_eq!(hosts(&announced), hosts(&[]));
}

#[test]
fn lack_of_descriptors_is_no_failure_of_the_service() {
    let ending = |errno: Errno| system_failed("", &errno.into()).ending;
    assert_eq!(ending(Errno::MFILE), Ending::NotMade);
    assert_eq!(ending(Errno::CONNREFUSED), Ending::Failed);
}

#[test]
fn commands_that_run_are_killed_when_the_loop_ends() {
    let groups = Groups::default();
    let ended = RefCell::new(Vec::new());
    block_on(async {
        let run = execute("sleep 600", (0, &groups), |what| {
            ended.borrow_mut().push(what)
        });
        let stop = async {
            eventually("the command runs", || !groups.borrow().is_empty()).await;
            groups
                .borrow_mut()
                .drain(..)
                .for_each(|(_, group)| kill(group));
            std::future::pending().await
        };
        smol::future::or(run, stop).await;
    });
    assert!(
        matches!(&ended.borrow()[..], [What::Result(Err(failure))] if failure.why.ends_with("signal 9"))
    );
}

#[test]
fn http_check_passes_with_a_status_from_200_to_399() {
    for answer in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"HTTP/1.0 399\r\n\r\n"] {
        assert_eq!(checked(http(), server(answer)), Ok(()));
    }
    let unavailable = "GET /healthz: HTTP status 503";
    let answer = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n";
    assert_eq!(checked(http(), server(answer)), Err(unavailable.into()));
    assert_eq!(
        checked(http(), server(b"HTTP/1.1 400\r\n")),
        Err("GET /healthz: HTTP status 400".into())
    );
}

#[test]
fn what_is_not_http_fails_and_is_not_repeated() {
    for answer in [
        &b"220 smtp ready\r\n"[..],
        b"",
        &[b'x'; 4096],
        b"HTTP/1.1 99\r\n",
    ] {
        let not_http = "GET /healthz: what it answers is not HTTP";
        assert_eq!(checked(http(), server(answer)), Err(not_http.into()));
    }
}

#[test]
fn command_passes_with_exit_code_0_alone() {
    let exec = |command: &str| checked(Probe::Exec(command.into()), 1);
    assert_eq!(exec("exit 0"), Ok(()));
    assert_eq!(
        exec("exit 3"),
        Err("the command ended with exit code 3".into())
    );
    let killed = "the command was ended by signal 9";
    assert_eq!(exec("kill -9 $$"), Err(killed.into()));
}

#[test]
fn command_that_does_not_end_is_killed_with_what_it_has_started() {
    let dir = crate::daemon::testdir::TestDir::new();
    let file = dir.path().join("pid");
    let command = format!("sleep 600 & echo $! > {}; wait", file.display());
    let late = "the command did not end within 5 s";
    assert_eq!(checked(Probe::Exec(command), 1), Err(late.into()));
    let child: i32 = std::fs::read_to_string(file)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let stat = format!("/proc/{child}/stat");
    let is_over = || std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z "));
    block_on(eventually("what it started is over", is_over));
}

#[test]
fn check_that_never_ran_has_no_failures() {
    let now = Instant::from_millis(0);
    let mut health = Health::new(now, 1, std::time::Duration::from_secs(10), [0].into_iter());
    assert_eq!(failures(health.of(0).unwrap()), 0);
    assert_eq!(health.poll(now), Some(0));
    health.ended(now, 0, Ending::Failed);
    assert!(failures(health.of(0).unwrap()) > 0);
}
