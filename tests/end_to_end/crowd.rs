//! Many silent connections: newcomers from other sources can still join.
//!
//! The long and strict version, with the optimised program:
//!
//! ```text
//! OC_DISCOVERY_FLOOD_SECONDS=20 cargo test --release --test end_to_end crowd -- --nocapture
//! ```

use std::collections::VecDeque;
use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::harness::{Look, Peer, SLACK, World, eventually};
use super::stranger::socket;

/// The sources of the silent connections. Daemons connect from 127.0.0.1.
const SOURCES: [Ipv4Addr; 3] = [
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 0, 3),
    Ipv4Addr::new(127, 0, 0, 4),
];
/// Connections a second, of all sources together.
const RATE: u64 = 2000;
/// The time between two turns of a source.
const TURN: Duration = Duration::from_millis(2);
/// The most connections that a late turn of a source catches up on: those of 20 ms.
const MAKE_UP: f64 = 14.0;
/// Indexers that join meanwhile.
const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// The time within which a newcomer must have its lease.
const JOINED: Duration = Duration::from_secs(1);
/// The same for a program without optimisation on a busy machine, where it depends on the processor
/// time that the crowd and other processes leave. With 20 to 30 busy processes on two cores,
/// newcomers took 0.02 to 16 s, and one that had lost its lease more than 21 s.
const LIMIT: Duration = SLACK.saturating_mul(3);
/// Sockets that each source holds open. It closes older ones itself.
const HELD: usize = 250;

/// Opens silent connections until it is dropped.
struct Flood {
    /// The thread of each source, which ends when the sender is dropped.
    sources: Vec<(Sender<()>, JoinHandle<()>)>,
    opened: Arc<AtomicU64>,
}

impl Flood {
    fn new(to: SocketAddr) -> Flood {
        let opened = Arc::new(AtomicU64::new(0));
        let sources = SOURCES.map(|source| {
            let (stop, stopped) = mpsc::channel();
            let opened = Arc::clone(&opened);
            let flood = move || flood(source, to, &stopped, &opened);
            (stop, thread::spawn(flood))
        });
        Flood {
            sources: sources.into(),
            opened,
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        for (stop, source) in self.sources.drain(..) {
            drop(stop);
            let _ = source.join();
        }
    }
}

fn flood(source: Ipv4Addr, to: SocketAddr, stopped: &Receiver<()>, opened: &AtomicU64) {
    let mut held = VecDeque::new();
    let begin = Instant::now();
    let mut due = 0.0;
    while stopped.recv_timeout(TURN) == Err(RecvTimeoutError::Timeout) {
        let now = begin.elapsed().as_secs_f64() * RATE as f64 / SOURCES.len() as f64;
        // As many as are due by now. A late turn catches up only a little, because otherwise the
        // native would get no processor time on a busy machine.
        due = f64::max(due, now - MAKE_UP);
        while due < now {
            due += 1.0;
            if let Some(socket) = silent(source, to) {
                opened.fetch_add(1, Relaxed);
                held.push_back(socket);
            }
            if held.len() > HELD {
                held.pop_front();
            }
        }
    }
}

fn silent(source: Ipv4Addr, to: SocketAddr) -> Option<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).ok()?;
    bind(&socket, &SocketAddr::from((source, 0))).ok()?;
    match connect(&socket, &to) {
        Ok(()) | Err(Errno::INPROGRESS) => Some(socket),
        Err(_) => None,
    }
}

#[test]
fn newcomers_join_among_two_thousand_silent_connections_a_second() {
    let seconds = env::var("OC_DISCOVERY_FLOOD_SECONDS").ok();
    let length = seconds.as_ref().map_or(2, |text| text.parse().unwrap());
    let length = Duration::from_secs(length);
    let limit = if seconds.is_some() { JOINED } else { LIMIT };

    let world = World::new();
    let native = world.native("native", &[]);
    let flood = Flood::new(socket(&native));
    native.until("a crowd", SLACK, |s| s.used("handshakes") > 200);
    let begin = Instant::now();
    let ticks = native.cpu_ticks();

    let mut indexers: Vec<Peer> = Vec::new();
    for number in 0..=NAMES.len() {
        let turn = length * number as u32 / NAMES.len() as u32;
        eventually("the next turn", turn + LIMIT, || {
            // The earlier peers stay connected all the time, however busy the machine is.
            for indexer in &indexers {
                indexer.until("its lease", LIMIT, |s| s.holds_lease_of(&native));
            }
            (begin.elapsed() >= turn).then_some(())
        });
        let Some(name) = NAMES.get(number) else {
            break;
        };
        let indexer = world.indexer(name, &[&native], &[]);
        indexer.until("its lease", LIMIT, |s| s.holds_lease_of(&native));
        let took = indexer.ready.elapsed();
        println!("{name} joined after {took:?}");
        assert!(took < limit, "{name} joined after {took:?}");
        indexers.push(indexer);
    }
    let lasted = begin.elapsed();
    let descriptors = native.descriptors();
    println!(
        "{} connections opened in {lasted:?}; {} ticks of processor time, {descriptors} descriptors",
        flood.opened.load(Relaxed),
        native.cpu_ticks() - ticks,
    );
    assert!(descriptors < 400, "{descriptors}");
    drop(flood);

    let said = "connections gave way to newcomers before their handshake was done";
    eventually("the episode", SLACK, || {
        native.log().contains(said).then_some(())
    });
    let log = native.log();
    println!("{log}");
    assert_eq!(log.matches(said).count(), 1, "{log}");
    let line = log.lines().find(|line| line.contains(said)).unwrap();
    for source in SOURCES {
        assert!(line.contains(&format!(" {source} (")), "{line}");
    }
}
