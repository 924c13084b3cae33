//! The desk, with the test in the place of the loop.

use std::net::TcpStream;

use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::daemon::connections::MAX_CONNECTIONS;
use crate::net::executor::waits::{block_on, eventually};

const LONG: Duration = Duration::from_secs(20);

fn desk() -> (Rc<Desk>, Receiver<Resolve>) {
    desk_with(PATIENCE)
}

fn desk_with(patience: Duration) -> (Rc<Desk>, Receiver<Resolve>) {
    let (sender, lookups) = bounded(MAX_PROGRAM_LOOKUPS);
    let server = Server {
        zone: Zone::new("oc.internal").unwrap(),
        ip: [127, 0, 0, 1].into(),
    };
    (Rc::new(Desk::new(server, sender, patience)), lookups)
}

/// A query for the address of a name of this length.
fn query(number: usize) -> Vec<u8> {
    let name = format!("n{number:03}");
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4];
    bytes.extend(name.as_bytes());
    bytes.extend(b"\x02oc\x08internal\0\0\x01\0\x01");
    bytes
}

fn known(ip: [u8; 4], lifetime: Duration) -> Known {
    let host = Host {
        device: None,
        name: "n".into(),
        addrs: vec![ip.into()],
        ..Host::default()
    };
    Known {
        hosts: Hosts {
            hosts: vec![host],
            coverage: Coverage::Complete,
        },
        until: now() + lifetime,
    }
}

/// Asks in a task of its own. The channel gets the answer's code, and how many records it has.
fn ask(desk: &Rc<Desk>, number: usize) -> Receiver<(u8, u8)> {
    let (send, answer) = bounded(1);
    let (desk, bytes) = (desk.clone(), query(number));
    spawn(async move {
        let way = (IpAddr::from([127, 0, 0, 1]), Transport::Udp);
        let answer = match desk.receive(&bytes, way.0, way.1) {
            Received::Answer(answer) => answer,
            Received::Wait(question) => desk.look_up(&bytes, question, way).await,
        };
        let answer = answer.unwrap();
        send.send((answer[3] & 15, answer[7])).await.unwrap();
    });
    answer
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    within(LONG, future).await.expect("nothing happens")
}

#[test]
fn all_who_ask_the_same_share_one_lookup_and_later_ones_its_outcome() {
    let (desk, lookups) = desk();
    block_on(async {
        let answers: Vec<_> = (0..3).map(|_| ask(&desk, 1)).collect();
        let lookup = soon(lookups.recv()).await.unwrap();
        assert_eq!(lookup.question, Question::Name("n001".try_into().unwrap()));
        assert_eq!(desk.queries.get(), 3);
        lookup.reply.try_send(known([192, 0, 2, 1], LONG)).unwrap();
        for answer in answers {
            assert_eq!(soon(answer.recv()).await, Ok((0, 1)));
        }
        assert_eq!(soon(ask(&desk, 1).recv()).await, Ok((0, 1)));
        assert!(lookups.is_empty() && desk.pending.borrow().is_empty());
        assert_eq!(desk.queries.get(), 0);
        let [queries, cache, _] = desk.stats();
        assert_eq!((queries.used, queries.refused, cache.used), (0, 0, 1));
    });
}

#[test]
fn lookup_that_is_not_made_is_a_failure_that_is_remembered_for_a_moment() {
    let (desk, lookups) = desk();
    block_on(async {
        let answer = ask(&desk, 1);
        drop(soon(lookups.recv()).await.unwrap());
        assert_eq!(soon(answer.recv()).await, Ok((2, 0)));
        assert_eq!(soon(ask(&desk, 1).recv()).await, Ok((2, 0)));
        assert!(lookups.is_empty());
    });
}

#[test]
fn lookups_wait_for_slots_and_one_query_more_than_there_are_places_is_refused() {
    let (desk, lookups) = desk();
    block_on(async {
        let answers: Vec<_> = (0..MAX_QUERIES).map(|number| ask(&desk, number)).collect();
        eventually("all have places", || desk.queries.get() == MAX_QUERIES).await;
        let refused = ask(&desk, MAX_QUERIES);
        assert_eq!(soon(refused.recv()).await, Ok((2, 0)));
        assert_eq!((desk.stats()[0].used, desk.stats()[0].refused), (64, 1));
        let mut made = Vec::new();
        for _ in 0..MAX_PROGRAM_LOOKUPS {
            made.push(soon(lookups.recv()).await.unwrap());
        }
        for number in 0..MAX_QUERIES {
            let lookup: Resolve = made.remove(0);
            lookup.reply.try_send(known([192, 0, 2, 1], LONG)).unwrap();
            if number + MAX_PROGRAM_LOOKUPS < MAX_QUERIES {
                made.push(soon(lookups.recv()).await.unwrap());
            }
            assert!(lookups.is_empty(), "no more than there are slots");
        }
        for answer in answers {
            assert_eq!(soon(answer.recv()).await, Ok((0, 1)));
        }
        assert_eq!(desk.queries.get(), 0);
    });
}

#[test]
fn lookup_keeps_its_slot_until_it_ends_and_its_late_outcome_is_kept() {
    let (desk, lookups) = desk_with(Duration::from_millis(5));
    block_on(async {
        let mut made = Vec::new();
        for number in 0..MAX_PROGRAM_LOOKUPS {
            let answer = ask(&desk, number);
            made.push(soon(lookups.recv()).await.unwrap());
            assert_eq!(
                soon(answer.recv()).await,
                Ok((2, 0)),
                "no query waits longer"
            );
        }
        let late = ask(&desk, MAX_PROGRAM_LOOKUPS);
        assert_eq!(soon(late.recv()).await, Ok((2, 0)));
        let pending = || desk.pending.borrow().len();
        eventually("it is given up", || pending() == MAX_PROGRAM_LOOKUPS).await;
        assert!(lookups.is_empty(), "it has no slot");
        for lookup in made {
            lookup.reply.try_send(known([192, 0, 2, 1], LONG)).unwrap();
        }
        eventually("all have ended", || pending() == 0).await;
        for number in 0..MAX_PROGRAM_LOOKUPS {
            assert_eq!(soon(ask(&desk, number).recv()).await, Ok((0, 1)));
        }
        assert!(lookups.is_empty());
    });
}

#[test]
fn new_connection_takes_the_place_of_the_one_that_is_idle_for_the_longest() {
    let (desk, lookups) = desk();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    let listener = Async::new(listener).unwrap();
    let ask = async |stream: &mut Async<TcpStream>, number: usize| {
        let query = query(number);
        let framed = [&[0, query.len() as u8][..], &query].concat();
        stream.write_all(&framed).await.unwrap();
    };
    block_on(async {
        spawn(serve_tcp(desk.clone(), listener));
        let used = || desk.connections.stats().used;
        let mut streams = Vec::new();
        for number in 0..MAX_CONNECTIONS {
            streams.push(Async::<TcpStream>::connect(at).await.unwrap());
            eventually("it is accepted", || used() > number).await;
        }
        // A connection that waits for an answer is not idle.
        let mut busy = vec![streams.remove(0)];
        ask(&mut busy[0], 0).await;
        let lookup = soon(lookups.recv()).await.unwrap();
        let mut room = [0; 512];
        for mut longest in streams {
            let mut new = Async::<TcpStream>::connect(at).await.unwrap();
            assert_eq!(soon(longest.read(&mut room)).await.unwrap(), 0);
            ask(&mut new, 0).await;
            busy.push(new);
            eventually("it asks", || desk.queries.get() == busy.len()).await;
            assert_eq!(used(), MAX_CONNECTIONS);
        }
        let mut refused = Async::<TcpStream>::connect(at).await.unwrap();
        assert_eq!(soon(refused.read(&mut room)).await.unwrap(), 0);
        let stats = desk.connections.stats();
        assert_eq!((stats.refused, stats.evicted), (1, 15));
        lookup.reply.try_send(known([192, 0, 2, 1], LONG)).unwrap();
        for mut stream in busy {
            assert!(soon(stream.read(&mut room)).await.unwrap() > 0);
        }
    });
}

#[test]
fn what_needs_no_lookup_is_answered_at_once() {
    let (desk, lookups) = desk();
    let mut bytes = query(1);
    // A name that no node can have, and a name outside the zone.
    for (at, code) in [(13, 3), (19, 5)] {
        bytes[at] = b'_';
        let Received::Answer(Some(answer)) =
            desk.receive(&bytes, [127, 0, 0, 1].into(), Transport::Udp)
        else {
            panic!("it waits");
        };
        assert_eq!(answer[3] & 15, code);
    }
    assert!(matches!(
        desk.receive(&[0; 11], [127, 0, 0, 1].into(), Transport::Tcp),
        Received::Answer(None)
    ));
    assert!(lookups.is_empty());
}
