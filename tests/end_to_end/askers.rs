//! Clients of the control socket that are silent, slow, many, or gone: none of them prevents an
//! answer to the operator, or occupies places that later clients need.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use miniserde::json;
use oc_discovery::embed::{Found, Status};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use super::harness::{Look, Peer, SLACK, World, ended};
use super::hosts::with_descriptors;

/// How long the operator waits at most, whatever other clients do. It is less than the time for
/// which a client may be silent. The goal is one second, but a busy machine is slower.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How long a newcomer waits for its lease at most.
const JOIN: Duration = Duration::from_secs(6);
/// The time between two turns of a crowd.
const PAUSE: Duration = Duration::from_millis(20);
/// How often the operator asks in one test.
const TIMES: usize = 12;
/// The time between two bytes of a slow client.
const BEAT: Duration = Duration::from_secs(1);
/// Finds at once (`Lookups` in `src/daemon/machines.rs`), and lists of indexers.
const FINDS: usize = 8;
const LISTS: usize = 2;
/// Clients that are served at once (`src/daemon/control.rs`).
const CLIENTS: usize = 40;

/// Longer than the longest request, which takes 5 s.
const ROUNDS: Duration = Duration::from_secs(6);

/// The behaviour of each client of a crowd. A client that loses its place comes back at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    Silent,
    /// Sends its line a byte a second.
    SpeaksSlowly,
    /// Asks for the status, and reads a byte of it a second.
    ReadsSlowly,
    /// Sends a line that never ends.
    Endless,
    /// Closes as soon as it has connected.
    Leaves,
    /// Asks for the status and closes.
    AsksAndLeaves,
}

/// Clients of one habit, until it is dropped.
struct Crowd {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    /// Returns when all of them have connected once.
    fn new(peer: &Peer, habit: Habit, count: usize) -> Crowd {
        let path = socket(peer);
        let over = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&over);
        let mut clients: Vec<_> = (0..count).map(|_| come(&path, habit)).collect();
        let thread = thread::spawn(move || {
            let mut last = Instant::now();
            while !is_over.load(Relaxed) {
                let due = last.elapsed() >= BEAT;
                if due {
                    last = Instant::now();
                }
                turn(&path, habit, &mut clients, due);
            }
        });
        Crowd {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || thread::panicking(), "the crowd failed");
    }
}

fn socket(peer: &Peer) -> PathBuf {
    peer.dir().join("control.sock")
}

fn come(path: &Path, habit: Habit) -> UnixStream {
    let mut client = UnixStream::connect(path).unwrap();
    client.set_nonblocking(true).unwrap();
    if matches!(habit, Habit::ReadsSlowly | Habit::AsksAndLeaves) {
        // It fails only if the daemon has closed already.
        let _ = client.write_all(b"status\n");
    }
    client
}

/// Clients that were evicted come back. If it is `due`, each client acts by its habit.
fn turn(path: &Path, habit: Habit, clients: &mut [UnixStream], due: bool) {
    let mut each = [0];
    if matches!(habit, Habit::Leaves | Habit::AsksAndLeaves) {
        clients.fill_with(|| come(path, habit));
        thread::sleep(PAUSE);
        return;
    }
    if habit == Habit::Endless {
        let much = vec![b'x'; 1 << 20];
        clients.iter_mut().for_each(|client| {
            let _ = client.write(&much);
        });
    }
    if due {
        for client in clients.iter_mut() {
            let _ = match habit {
                Habit::SpeaksSlowly => client.write(b"s"),
                Habit::ReadsSlowly => client.read(&mut each),
                _ => continue,
            };
        }
    }
    let mut polled: Vec<_> = clients
        .iter()
        .map(|client| PollFd::new(client, PollFlags::empty()))
        .collect();
    let pause = Timespec::try_from(PAUSE).unwrap();
    poll(&mut polled, Some(&pause)).unwrap();
    let closed: Vec<_> = polled
        .iter()
        .map(|client| client.revents().intersects(PollFlags::HUP | PollFlags::ERR))
        .collect();
    for (client, _) in clients.iter_mut().zip(closed).filter(|(_, closed)| *closed) {
        *client = come(path, habit);
    }
}

/// A client that has sent its line.
fn asking(peer: &Peer, line: &str) -> UnixStream {
    let mut client = UnixStream::connect(socket(peer)).unwrap();
    client.set_read_timeout(Some(SLACK)).unwrap();
    client.write_all(line.as_bytes()).unwrap();
    client
}

fn answer_to(mut client: UnixStream) -> String {
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    answer
}

/// Whether its answer has not come yet.
fn waits(client: &mut UnixStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = client.read(&mut [0]);
    client.set_nonblocking(false).unwrap();
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

/// Asks repeatedly. Returns the longest time that an answer took.
fn longest(world: &World, peer: &Peer) -> Duration {
    let asks = (0..TIMES).map(|_| {
        let begin = Instant::now();
        let answer = world.ask(peer, "status", &["--json"]);
        let took = begin.elapsed();
        assert_eq!(answer.code, Some(0), "{answer:?} after {took:?}");
        took
    });
    asks.max().unwrap()
}

fn operator_is_answered_at_once_beside(crowds: &[(Habit, usize)]) {
    let world = World::new();
    let native = world.native("native", &[]);
    let idle = native.descriptors();
    for (habit, count) in crowds {
        let crowd = Crowd::new(&native, *habit, *count);
        let took = longest(&world, &native);
        let open = native.descriptors();
        drop(crowd);
        println!("{count} {habit:?}: the longest took {took:?}, {open} descriptors open");
        assert!(took < AT_ONCE, "{count} {habit:?}: {took:?}");
        // One is for the client that asks, and one for the client that comes next.
        assert!(open <= idle + CLIENTS + 2, "{count} {habit:?}: {open}");
    }
    native.until("all places free", SLACK, |s| s.used("control_clients") == 1);
    assert!(native.descriptors() <= idle + 1);
}

/// A node with one native, which is frozen, so that each of its lookups takes 5 s. The lease
/// outlasts the test: of a server whose lease is lost, nothing is asked.
fn node_of_a_frozen_native(world: &World) -> (Peer, Peer) {
    let native = world.native("native", &["--lease", "5m"]);
    let node = world.node("node", &[&native], &["--lease", "5m"]);
    node.until("a lease", SLACK, |s| s.holds_lease_of(&native));
    native.freeze();
    (native, node)
}

fn until_lookups(node: &Peer, finds: usize, lists: usize) {
    let all = |used: u64, wanted: usize| usize::try_from(used) == Ok(wanted);
    node.until("the lookups under way", SLACK, |s| {
        all(s.used("lookups"), finds) && all(s.used("list_lookups"), lists)
    });
}

#[test]
fn operator_is_answered_at_once_beside_silent_clients_that_keep_coming_back() {
    operator_is_answered_at_once_beside(&[(Habit::Silent, 200), (Habit::Silent, 1000)]);
}

#[test]
fn operator_is_answered_at_once_beside_clients_that_speak_or_read_a_byte_a_second() {
    operator_is_answered_at_once_beside(&[(Habit::SpeaksSlowly, 200), (Habit::ReadsSlowly, 200)]);
}

#[test]
fn operator_is_answered_at_once_beside_clients_whose_line_never_ends() {
    operator_is_answered_at_once_beside(&[(Habit::Endless, 100)]);
}

#[test]
fn operator_is_answered_at_once_beside_clients_that_leave() {
    operator_is_answered_at_once_beside(&[(Habit::Leaves, 500), (Habit::AsksAndLeaves, 500)]);
}

#[test]
fn with_forty_descriptors_silent_clients_take_none_that_the_operator_or_a_node_needs() {
    let world = World::new();
    let wrapper = with_descriptors(40);
    let wrapper: Vec<&str> = wrapper.iter().map(String::as_str).collect();
    let native = world.start_by(&wrapper, "native", "native", &[]);
    let _crowd = Crowd::new(&native, Habit::Silent, 300);
    let took = longest(&world, &native);
    assert!(took < AT_ONCE, "{took:?}");
    let node = world.node("node", &[&native], &[]);
    node.until("its lease", JOIN, |s| s.is_under_native(&native));
    let log = native.log();
    assert!(!log.contains("cannot take"), "{log}");
}

#[test]
fn silent_client_gives_its_descriptor_at_once_to_the_next_if_none_is_left() {
    let world = World::new();
    let native = world.native("native", &[]);
    // The daemon opens more than it could know at its start.
    let current = Some(native.descriptors() as u64 + 4);
    let limit = Rlimit {
        current,
        maximum: current,
    };
    let pid = Pid::from_raw(native.pid().try_into().unwrap());
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let _crowd = Crowd::new(&native, Habit::Silent, 300);
    let took = longest(&world, &native);
    assert!(took < AT_ONCE, "{took:?}");
    assert!(native.log().contains("cannot take"));
}

#[test]
fn lookups_that_wait_hold_up_nothing_that_is_known_here() {
    let world = World::new();
    let (_native, node) = node_of_a_frozen_native(&world);
    let finds: Vec<_> = (0..CLIENTS).map(|_| asking(&node, "find x\n")).collect();
    let lists: Vec<_> = (0..CLIENTS).map(|_| asking(&node, "indexers\n")).collect();
    let took = longest(&world, &node);
    assert!(took < AT_ONCE, "{took:?}");
    until_lookups(&node, FINDS, LISTS);

    // A client without a slot gets its error at once, and not when a slot is free.
    let begin = Instant::now();
    for (mut clients, slots) in [(finds, FINDS), (lists, LISTS)] {
        let told = clients.extract_if(.., |client| !waits(client));
        let told: Vec<_> = told.map(answer_to).collect();
        assert_eq!((told.len(), clients.len()), (CLIENTS - slots, slots));
        for answer in told {
            assert!(answer.contains("try again in a moment"), "{answer}");
        }
    }
    assert!(begin.elapsed() < AT_ONCE);
    let status = node.status();
    for (name, slots) in [("lookups", FINDS), ("list_lookups", LISTS)] {
        let table = status.table(name);
        assert_eq!(table.refused, (CLIENTS - slots) as u64, "{table:?}");
    }
}

#[test]
fn find_that_was_told_to_come_back_is_asked_again_until_a_slot_is_free() {
    let world = World::new();
    let (_native, node) = node_of_a_frozen_native(&world);
    let finds: Vec<_> = (0..FINDS).map(|_| asking(&node, "find x\n")).collect();
    until_lookups(&node, FINDS, 0);
    let mut ninth = world.asking(&node, "find", &["x", "--json"]);
    let asker = thread::spawn(move || ended(&mut ninth));
    node.until("the ninth told to come back", SLACK, |s| {
        s.table("lookups").refused > 0
    });
    drop(finds);
    let answer = asker.join().unwrap().stdout;
    let found: Found = json::from_str(str::from_utf8(&answer).unwrap()).unwrap();
    assert!(!found.complete, "{found:?}");
}

#[test]
fn slots_of_clients_that_leave_are_free_at_once() {
    let world = World::new();
    let (_native, node) = node_of_a_frozen_native(&world);
    for _ in 0..3 {
        let finds: Vec<_> = (0..FINDS).map(|_| asking(&node, "find x\n")).collect();
        let lists: Vec<_> = (0..LISTS).map(|_| asking(&node, "indexers\n")).collect();
        until_lookups(&node, FINDS, LISTS);
        drop((finds, lists));
        let begin = Instant::now();
        until_lookups(&node, 0, 0);
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    }
}

#[test]
fn client_that_waits_for_a_lookup_as_the_daemon_ends_is_told_so() {
    let world = World::new();
    let (_native, mut node) = node_of_a_frozen_native(&world);
    let find = asking(&node, "find x\n");
    until_lookups(&node, 1, 0);
    node.end(Signal::TERM);
    let told = answer_to(find);
    assert!(told.contains("oc-discovery is ending"), "{told:?}");
}

#[test]
fn requests_of_clients_that_have_left_are_bounded_and_end() {
    let world = World::new();
    let (_native, node) = node_of_a_frozen_native(&world);
    let begin = Instant::now();
    let mut refused = 0;
    while begin.elapsed() < ROUNDS && refused == 0 {
        let finds: Vec<_> = (0..FINDS).map(|_| asking(&node, "find x\n")).collect();
        // It is asked after the finds. How many of them have begun does not matter: one has ended
        // at once if a new connection is made beside the silent one, and no more may wait for it.
        node.status();
        drop(finds);
        until_lookups(&node, 0, 0);
        let status = node.status();
        let requests = status.table("requests");
        assert!(requests.used <= requests.capacity, "{requests:?}");
        refused = requests.refused;
    }
    println!("{refused} requests refused after {:?}", begin.elapsed());
    assert!(refused > 0, "the bound was not reached");
    node.until("the last request ended", SLACK, |s| s.used("requests") <= 1);
}

#[test]
fn client_that_has_ended_its_request_and_reads_on_gets_its_answer() {
    let world = World::new();
    let (_native, node) = node_of_a_frozen_native(&world);
    let client = asking(&node, "find x\n");
    client.shutdown(Shutdown::Write).unwrap();
    until_lookups(&node, 1, 0);
    // The client ends its request as `nc -N` and `socat` do, half a lookup later.
    let found: Found = json::from_str(&answer_to(client)).unwrap();
    assert!(!found.complete, "{found:?}");
    let early = {
        let client = asking(&node, "status\n");
        client.shutdown(Shutdown::Write).unwrap();
        answer_to(client)
    };
    assert!(json::from_str::<Status>(&early).is_ok(), "{early}");
}

#[test]
fn half_closed_client_that_then_closes_frees_its_slot() {
    let world = World::new();
    let (_native, node) = node_of_a_frozen_native(&world);
    let client = asking(&node, "find x\n");
    client.shutdown(Shutdown::Write).unwrap();
    until_lookups(&node, 1, 0);
    drop(client);
    let begin = Instant::now();
    until_lookups(&node, 0, 0);
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
}
