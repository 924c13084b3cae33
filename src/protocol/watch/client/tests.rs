use std::{boxed::Box, vec, vec::Vec};

use super::*;
use crate::protocol::{Addrs, Name};

mod doubts;
mod leaving;
mod places;

/// A watch of at most 8 nodes, with two servers that it has opened streams to at 0 ms.
struct World {
    watch: Box<Watch<8>>,
    now: u64,
    /// The servers that were listed last.
    listed: Vec<u8>,
    /// The same are listed whenever they are to be.
    answers: bool,
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn name(n: u8) -> Name {
    Name::try_from(std::format!("node-{n}").as_str()).unwrap()
}

const A: u8 = 201;
const B: u8 = 202;
const C: u8 = 203;

impl World {
    fn new() -> Self {
        let mut watch = Box::new(Watch::new());
        watch.start(at(0), 7, Presence::Lost);
        let mut world = Self {
            watch,
            now: 0,
            listed: Vec::new(),
            answers: false,
        };
        assert_eq!(world.steps(), [WatchStep::List]);
        world
    }

    /// The same, with two servers that have caught up.
    fn live() -> Self {
        let mut world = Self::new();
        world.list(&[A, B], Extent::Known);
        assert_eq!(world.opened(), [A, B]);
        world.caught_up(A);
        world.caught_up(B);
        assert_eq!(world.steps(), [told_up(0)]);
        world
    }

    fn list(&mut self, servers: &[u8], extent: Extent) {
        self.listed = servers.to_vec();
        let none = Addrs::new();
        let servers = servers.iter().map(|&n| (peer(n), &none));
        self.watch.listed(at(self.now), servers, extent);
    }

    fn steps(&mut self) -> Vec<WatchStep> {
        let mut steps = Vec::new();
        while let Some(step) = self.watch.poll(at(self.now)) {
            match step {
                WatchStep::List if self.answers => {
                    self.list(&self.listed.clone(), Extent::Known);
                }
                step => steps.push(step),
            }
            assert!(steps.len() < 1000, "poll does not come to an end");
        }
        if let Some(next) = self.watch.timeout() {
            assert!(next > at(self.now), "it would spin");
        }
        steps
    }

    /// The servers to which streams are opened now, and nothing else.
    fn opened(&mut self) -> Vec<u8> {
        let server = |step| match step {
            WatchStep::Open { server, .. } => server.as_bytes()[0],
            step => panic!("{step:?}"),
        };
        self.steps().into_iter().map(server).collect()
    }

    fn sees(&mut self, server: u8, node: u8, sequence: u64, contents: u64) -> Option<Said> {
        self.sees_meant(server, node, sequence, contents, true)
    }

    fn sees_meant(
        &mut self,
        server: u8,
        node: u8,
        sequence: u64,
        contents: u64,
        is_meant: bool,
    ) -> Option<Said> {
        let sighting = Sighting {
            peer: &peer(node),
            name: &name(node),
            sequence,
            contents,
            is_meant,
        };
        self.watch
            .hear(at(self.now), &peer(server), Statement::Here(sighting))
    }

    fn loses(&mut self, server: u8, node: u8, how: Presence) {
        let peer_of_node = peer(node);
        let statement = Statement::Gone {
            peer: &peer_of_node,
            how,
        };
        assert_eq!(
            self.watch.hear(at(self.now), &peer(server), statement),
            None
        );
    }

    fn caught_up(&mut self, server: u8) {
        let said = self
            .watch
            .hear(at(self.now), &peer(server), Statement::CaughtUp);
        assert_eq!(said, None);
    }

    fn breaks(&mut self, server: u8) {
        self.watch.ended(at(self.now), &peer(server));
    }

    /// Waits until the stream to this server, and no other, is opened again.
    fn reopens(&mut self, server: u8) {
        let mut opened = Vec::new();
        while opened.is_empty() {
            self.now = self.watch.timeout().unwrap().as_millis();
            for step in self.steps() {
                match step {
                    WatchStep::List => self.list(&self.listed.clone(), Extent::Known),
                    WatchStep::Open { server, .. } => opened.push(server.as_bytes()[0]),
                    step => panic!("{step:?}"),
                }
            }
        }
        assert_eq!(opened, [server]);
    }

    /// A stream to this server, which was live, is opened now.
    fn opens_anew(&mut self, server: u8) {
        assert_eq!(self.opened(), [server]);
    }

    /// Until then no stream can be opened, and these servers are listed. Returns what is said
    /// meanwhile.
    fn fails_until(&mut self, end: u64, servers: &[u8]) -> Vec<WatchStep> {
        let mut told = Vec::new();
        loop {
            for step in self.steps() {
                match step {
                    WatchStep::List => self.list(servers, Extent::Known),
                    WatchStep::Open { server, .. } => self.watch.ended(at(self.now), &server),
                    step => told.push(step),
                }
            }
            let next = self.watch.timeout().unwrap().as_millis();
            if self.now == end {
                return told;
            }
            self.now = next.max(self.now).min(end);
        }
    }

    /// Opens streams to the servers 1 to 64. All but the last eight of them have caught up.
    fn opens_all(&mut self) {
        for first in (1..=64).step_by(MAX_OPENING) {
            let these: Vec<u8> = (first..first + MAX_OPENING as u8).collect();
            assert_eq!(self.opened(), these);
            if these[MAX_OPENING - 1] < 64 {
                these.into_iter().for_each(|n| self.caught_up(n));
            }
        }
    }

    fn silent(&self) -> Vec<u8> {
        self.watch.silent().map(|p| p.as_bytes()[0]).collect()
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn told_up(blind_ms: u64) -> WatchStep {
    WatchStep::CaughtUp {
        blind: Duration::from_millis(blind_ms),
    }
}

fn gone(node: u8, how: Presence) -> WatchStep {
    WatchStep::Gone {
        peer: peer(node),
        name: name(node),
        how,
        ago: LINGER,
    }
}

#[test]
fn a_node_that_two_servers_report_is_present_once_and_changed_once() {
    let mut world = World::live();
    assert_eq!(world.sees(A, 1, 5, 1), Some(Said::Present));
    assert_eq!(world.sees(B, 1, 5, 1), None);
    assert_eq!(world.sees(A, 1, 6, 1), None, "signed anew, and no change");
    assert_eq!(world.sees(B, 1, 7, 2), Some(Said::Changed));
    assert_eq!(world.sees(A, 1, 7, 2), None);
    assert_eq!(world.sees(A, 1, 6, 1), None, "an older record is no news");
    assert_eq!(world.steps(), []);
}

#[test]
fn a_node_is_gone_when_the_last_server_lets_it_go_and_not_before() {
    let mut world = World::live();
    world.sees(A, 1, 5, 1);
    world.sees(B, 1, 5, 1);
    world.loses(A, 1, Presence::Left);
    world.now += 5_000;
    assert_eq!(world.steps(), []);
    world.loses(B, 1, Presence::Lost);
    let linger = LINGER.as_millis() as u64;
    world.now += linger - 1;
    assert_eq!(world.steps(), []);
    world.now += 1;
    assert_eq!(world.steps(), [gone(1, Presence::Lost)]);
    assert_eq!(world.sees(A, 1, 6, 1), Some(Said::Present), "it is back");
}

#[test]
fn a_node_that_moves_from_one_server_to_another_is_not_gone() {
    let mut world = World::live();
    world.sees(A, 1, 5, 1);
    world.loses(A, 1, Presence::Left);
    world.now += LINGER.as_millis() as u64 - 1;
    assert_eq!(world.sees(B, 1, 5, 1), None);
    world.now += 5_000;
    assert_eq!(world.steps(), []);
    world.loses(B, 1, Presence::Left);
    world.now += LINGER.as_millis() as u64;
    assert_eq!(world.steps(), [gone(1, Presence::Left)]);
}

#[test]
fn after_a_break_nothing_is_said_twice_and_who_is_missing_is_lost() {
    let mut world = World::live();
    world.answers = true;
    for n in 1..=3 {
        assert_eq!(world.sees(A, n, 5, 1), Some(Said::Present));
    }
    world.sees(B, 3, 5, 1);
    world.breaks(A);
    world.reopens(A);
    assert_eq!(world.sees(A, 1, 5, 1), None);
    let since = world.now;
    world.caught_up(A);
    world.now += millis(CONFIRM) - 1;
    assert_eq!(
        world.steps(),
        [],
        "it may have restarted, and 2 may beat soon"
    );
    world.now += 1;
    assert_eq!(world.steps(), []);
    world.now += millis(LINGER);
    // 2 is lost; 3 is held by B.
    assert_eq!(
        world.steps(),
        [gone(2, Presence::Lost), told_up(since)],
        "lost nodes come before the step that all have caught up"
    );
    assert_eq!(world.silent(), []);
}

#[test]
fn a_change_that_happened_while_it_was_blind_is_said_once() {
    let mut world = World::live();
    world.answers = true;
    world.sees(A, 1, 5, 1);
    world.breaks(A);
    world.reopens(A);
    assert_eq!(world.sees(A, 1, 6, 2), Some(Said::Changed));
    assert_eq!(world.sees(A, 2, 6, 2), Some(Said::Present));
    world.caught_up(A);
    world.now += LINGER.as_millis() as u64;
    assert_eq!(world.steps().len(), 1, "caught up, and nothing else");
}

#[test]
fn all_have_caught_up_when_each_has_or_has_failed() {
    let mut world = World::new();
    world.list(&[A, B], Extent::Known);
    assert_eq!(world.opened(), [A, B]);
    world.caught_up(A);
    assert_eq!(world.steps(), []);
    world.now = 100;
    world.breaks(B);
    assert_eq!(world.steps(), [told_up(0)]);
    assert_eq!(world.silent(), [B]);
    world.reopens(B);
    assert_eq!(world.steps(), [], "it is still silent");
    let since = world.now - 100;
    world.caught_up(B);
    assert_eq!(world.steps(), [told_up(since)]);
    assert_eq!(world.silent(), []);
}

#[test]
fn a_server_that_stays_away_is_said_to_be_silent_once() {
    let mut world = World::live();
    world.answers = true;
    world.now = 1_000;
    world.breaks(B);
    assert_eq!(world.steps(), [], "it may be back in a moment");
    world.reopens(B);
    world.breaks(B);
    let blind = world.now - 1_000;
    assert_eq!(world.steps(), [told_up(blind)]);
    for _ in 0..3 {
        world.reopens(B);
        world.breaks(B);
        assert_eq!(world.steps(), []);
    }
    assert_eq!(world.silent(), [B]);
}

#[test]
fn a_list_that_is_not_whole_drops_nobody_and_is_read_again_soon() {
    let mut world = World::live();
    world.now = 30_000;
    assert_eq!(world.steps(), [WatchStep::List]);
    world.list(&[A], Extent::Part);
    world.breaks(B);
    let mut lists = 0;
    while world.now < 41_000 {
        for step in world.steps() {
            match step {
                WatchStep::List => {
                    world.list(&[A], Extent::Part);
                    lists += 1;
                }
                WatchStep::Open { .. } => world.breaks(B),
                _ => {}
            }
        }
        world.now = world.watch.timeout().unwrap().as_millis();
    }
    assert!(lists > 0);
    assert_eq!(world.watch.servers(), 2);
}

#[test]
fn servers_are_listed_every_thirty_seconds_and_a_new_one_is_watched() {
    let mut world = World::live();
    world.now = 29_999;
    assert_eq!(world.steps(), []);
    world.now = 30_000;
    assert_eq!(world.steps(), [WatchStep::List]);
    world.list(&[A, B, 203], Extent::Known);
    assert_eq!(world.opened(), [203]);
    assert_eq!(world.sees(203, 1, 1, 1), Some(Said::Present));
    world.caught_up(203);
    assert_eq!(world.steps(), [], "it was never blind");
}

#[test]
fn pauses_grow_to_ten_seconds_and_no_further() {
    let mut world = World::live();
    let mut longest = 0;
    for _ in 0..200 {
        world.breaks(B);
        let begin = world.now;
        loop {
            let steps = world.steps();
            if steps.contains(&WatchStep::List) {
                world.list(&[A, B], Extent::Known);
            }
            if steps.iter().any(|s| matches!(s, WatchStep::Open { .. })) {
                break;
            }
            world.now = world.watch.timeout().unwrap().as_millis();
        }
        longest = longest.max(world.now - begin);
    }
    assert!((9_000..=10_000).contains(&longest), "{longest}");
}

#[test]
fn sixty_four_servers_are_watched_and_the_next_is_counted() {
    let mut world = World::new();
    let servers: Vec<u8> = (1..=65).collect();
    world.list(&servers[..64], Extent::Known);
    assert_eq!(world.watch.unwatched(), 0);
    world.list(&servers, Extent::Known);
    assert_eq!((world.watch.servers(), world.watch.unwatched()), (64, 1));
    world.opens_all();
    assert_eq!(world.sees(64, 1, 1, 1), Some(Said::Present), "the last bit");
    world.loses(64, 1, Presence::Left);
    world.now += LINGER.as_millis() as u64;
    assert_eq!(world.steps(), [gone(1, Presence::Left)]);
}

#[test]
fn what_the_filter_does_not_mean_is_not_said_but_known_if_it_was() {
    let mut world = World::live();
    assert_eq!(world.sees_meant(A, 1, 1, 1, false), None);
    assert_eq!(world.sees(A, 2, 1, 1), Some(Said::Present));
    assert_eq!(world.sees_meant(A, 2, 2, 2, false), Some(Said::Excluded));
    assert_eq!(world.sees(B, 2, 1, 1), None, "an older record");
    assert_eq!(world.sees(B, 2, 3, 1), Some(Said::Present));
    world.sees_meant(A, 2, 4, 2, false);
    world.loses(A, 2, Presence::Left);
    world.loses(B, 2, Presence::Left);
    world.now += 1_000;
    assert_eq!(world.steps(), [], "it was said to be out already");
}

#[test]
fn words_of_strangers_and_of_closed_streams_count_for_nothing() {
    let mut world = World::live();
    assert_eq!(world.sees(99, 1, 1, 1), None);
    world.breaks(99);
    assert_eq!(world.steps(), []);
}

#[test]
fn it_begins_anew_without_a_memory_of_what_was() {
    let mut world = World::live();
    world.sees(A, 1, 1, 1);
    world.watch.start(at(world.now), 7, Presence::Lost);
    let fresh = World::new();
    assert_eq!(world.watch.stats().used, 0);
    assert_eq!(world.watch.servers(), 0);
    assert_eq!(world.steps(), vec![WatchStep::List]);
    assert_eq!(world.watch, fresh.watch);
}

#[test]
fn eight_streams_are_opened_at_once_and_one_that_fails_frees_a_place() {
    let mut world = World::new();
    world.list(&(1..=10).collect::<Vec<u8>>(), Extent::Known);
    assert_eq!(world.opened(), [1, 2, 3, 4, 5, 6, 7, 8]);
    world.breaks(3);
    assert_eq!(world.opened(), [9]);
    world.sees(1, 99, 1, 1);
    assert_eq!(world.opened(), [10]);
}

#[test]
fn record_that_its_server_takes_back_is_told_again_and_an_old_one_of_another_is_not() {
    let mut world = World::live();
    assert_eq!(world.sees(A, 1, 5, 50), Some(Said::Present));
    // A copy of the identity signs a later record, and is refused a moment later.
    assert_eq!(world.sees(A, 1, 9, 90), Some(Said::Changed));
    assert_eq!(world.sees(B, 1, 5, 50), None, "B has not heard of it yet");
    assert_eq!(world.sees(A, 1, 5, 50), Some(Said::Changed));
    assert_eq!(world.sees(A, 1, 5, 50), None, "it is told once");
    assert_eq!(world.sees(B, 1, 6, 60), Some(Said::Changed));
}

#[test]
fn server_in_the_place_of_one_that_is_gone_does_not_take_back_what_that_one_told() {
    let mut world = World::live();
    assert_eq!(world.sees(A, 1, 9, 90), Some(Said::Present));
    world.sees(B, 1, 9, 90);
    // A ends in order and leaves the list; C is given its slot.
    world.watch.ended(at(world.now), &peer(A));
    world.list(&[B], Extent::Known);
    world.now += millis(HOLD);
    world.steps();
    world.list(&[B, C], Extent::Known);
    assert_eq!(world.sees(C, 1, 5, 50), None, "C knows an older record");
}
