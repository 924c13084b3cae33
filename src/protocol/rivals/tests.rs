//! Which device is refused, when, and what is reported about it.

use core::net::IpAddr;
use std::vec::Vec;

use super::*;
use crate::protocol::AckCode;

const PEER: PeerId = PeerId::from_bytes([1; 32]);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn host(n: u8) -> Host {
    IpAddr::from([192, 0, 2, n]).into()
}

fn source(n: u8) -> TransportAddr {
    TransportAddr {
        host: host(n),
        port: 1000,
    }
}

/// One identity, the stream that holds its lease, and the actions.
struct Scene {
    rivals: Rivals,
    holder: Holder,
    streams: u64,
}

/// The decision about a newcomer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It has replaced the holder.
    Replaces,
    Refused,
    /// It waits for the holder's answer.
    Waits,
}
use Fate::{Refused, Replaces, Waits};

impl Scene {
    /// The device at host 1 holds the stream.
    fn new() -> Self {
        let holder = Holder {
            stream: StreamId(0),
            host: host(1),
        };
        Self {
            rivals: Rivals::new(),
            holder,
            streams: 0,
        }
    }

    /// The device at this host opens a new stream.
    fn comes(&mut self, now: u64, from: u8) -> Fate {
        self.streams += 1;
        let stream = StreamId(self.streams);
        self.rivals.opened(&PEER, stream, source(from));
        self.rivals.beat_from(&PEER, host(from));
        if self.holder.host != host(from) {
            let holder = self.holder;
            let (first_beat, _) =
                self.rivals
                    .newcomer(at(now), &PEER, holder, stream, source(from));
            if first_beat == FirstBeat::Held {
                return Waits;
            }
        }
        self.first_beat(stream, host(from))
    }

    fn first_beat(&mut self, stream: StreamId, from: Host) -> Fate {
        if self.rivals.refusal(&PEER, stream).is_some() {
            return Refused;
        }
        self.holder = Holder { stream, host: from };
        self.rivals.holds(&PEER, from);
        Replaces
    }

    /// All actions at this time, and the decision about a newcomer, if there is one.
    fn polled(&mut self, now: u64) -> (Vec<Action>, Option<Fate>) {
        let mut actions = Vec::new();
        let mut fate = None;
        while let Some(action) = self.rivals.poll(at(now)) {
            if let Action::Judge { peer: PEER, stream } = action {
                let from = self.rivals.source(&PEER, stream).unwrap().host;
                fate = Some(self.first_beat(stream, from));
            }
            actions.push(action);
        }
        (actions, fate)
    }

    /// The holder answers, or its ping fails.
    fn holder_answers(&mut self, now: u64, verdict: Verdict) -> Option<Fate> {
        self.polled(now);
        self.rivals.probed(&PEER, self.holder.stream, verdict);
        self.polled(now).1
    }

    /// The device at host 2 replaces the one at host 1, which comes back, and then host 2 comes
    /// again.
    fn third_comes(&mut self) {
        let fates = [2, 1, 2].map(|from| self.comes(0, from));
        assert_eq!(fates, [Replaces, Replaces, Waits]);
    }

    /// Two devices compete, and the one at host 1 is kept.
    fn contested() -> Self {
        let mut scene = Self::new();
        scene.third_comes();
        assert_eq!(scene.holder_answers(0, Verdict::Reachable), Some(Refused));
        scene
    }
}

#[test]
fn the_third_replacement_within_a_minute_is_checked() {
    for (third, fate) in [(60_000, Waits), (60_001, Replaces)] {
        let mut scene = Scene::new();
        assert_eq!(scene.comes(0, 2), Replaces);
        assert_eq!(scene.comes(30_000, 1), Replaces);
        assert_eq!(scene.comes(third, 2), fate, "at {third}");
    }
}

#[test]
fn a_newcomer_is_refused_once_the_holder_has_answered_its_ping() {
    let mut scene = Scene::new();
    scene.third_comes();
    let holder = scene.holder.stream;
    let (actions, fate) = scene.polled(0);
    let ping = Action::ProbeStream {
        peer: PEER,
        stream: holder,
    };
    assert_eq!((actions, fate), ([ping].into(), None), "one ping");
    assert_eq!(scene.polled(1_999), (Vec::new(), None));
    scene.rivals.probed(&PEER, StreamId(99), Verdict::Reachable);
    assert_eq!(scene.polled(1_999).1, None, "of another stream");
    scene.rivals.probed(&PEER, holder, Verdict::Reachable);
    assert_eq!(scene.polled(1_999).1, Some(Refused));
    assert_eq!(scene.holder.stream, holder);
}

#[test]
fn a_beat_of_the_holder_is_an_answer_and_one_of_the_newcomer_is_none() {
    let mut scene = Scene::new();
    scene.third_comes();
    scene.rivals.beat_from(&PEER, host(2));
    assert_eq!(scene.polled(1).1, None);
    scene.rivals.beat_from(&PEER, host(1));
    assert_eq!(scene.polled(1).1, Some(Refused));
}

#[test]
fn a_host_that_roams_to_and_fro_is_refused_nothing() {
    let mut scene = Scene::new();
    let mut now = 0;
    for from in [2, 1].into_iter().cycle().take(20) {
        now += 3_000;
        let fate = scene.comes(now, from);
        // There is no device at the other end of the earlier connection.
        if fate == Waits {
            assert_eq!(scene.polled(now).1, None);
            assert_eq!(scene.rivals.timeout(), Some(at(now + 2_000)));
            assert_eq!(scene.polled(now + 1_999).1, None);
            assert_eq!(scene.polled(now + 2_000).1, Some(Replaces));
        }
        assert_eq!(scene.holder.host, host(from));
    }
    assert_eq!(scene.rivals.contested().count(), 0);
}

#[test]
fn a_newcomer_takes_over_at_once_when_the_ping_fails() {
    let mut scene = Scene::new();
    scene.third_comes();
    assert_eq!(scene.holder_answers(10, Verdict::Silent), Some(Replaces));
}

#[test]
fn what_was_refused_once_is_refused_at_once_as_often_as_it_comes() {
    let mut scene = Scene::contested();
    scene.polled(0);
    let mut now = 0;
    for pause in [1, 59_999, 60_000, 60_001, 599_999] {
        now += pause;
        assert_eq!(scene.comes(now, 2), Refused, "at {now}");
        assert_eq!(scene.polled(now), (Vec::new(), None), "without a ping");
        let contested = scene.rivals.contested().next().unwrap();
        assert_eq!(contested.at, at(now));
    }
    assert_eq!(scene.holder.host, host(1));
}

#[test]
fn the_device_that_is_kept_comes_and_goes_as_it_likes() {
    let mut scene = Scene::contested();
    for now in 0..20 {
        assert_eq!(scene.comes(now, 1), Replaces);
    }
    assert_eq!(scene.comes(20, 2), Refused);
}

#[test]
fn the_device_that_is_kept_may_move_without_its_rival_slipping_in() {
    let mut scene = Scene::contested();
    assert_eq!(scene.comes(10, 3), Waits);
    assert_eq!(scene.holder_answers(10, Verdict::Silent), Some(Replaces));
    assert_eq!(scene.comes(20, 2), Refused);
    let contested = scene.rivals.contested().next().unwrap();
    assert_eq!((contested.kept, contested.refused), (host(3), host(2)));
}

#[test]
fn a_third_device_waits_in_place_of_the_second() {
    let mut scene = Scene::new();
    scene.third_comes();
    scene.polled(0);
    let second = StreamId(scene.streams);
    scene.rivals.opened(&PEER, StreamId(9), source(3));
    let holder = scene.holder;
    let newcomer = scene
        .rivals
        .newcomer(at(500), &PEER, holder, StreamId(9), source(3));
    assert_eq!(
        newcomer,
        (
            FirstBeat::Held,
            Some(Displaced {
                peer: PEER,
                stream: second
            })
        )
    );
    assert_eq!(
        scene.polled(1_999),
        (Vec::new(), None),
        "the ping under way counts"
    );
    let (actions, fate) = scene.polled(2_000);
    let judge = Action::Judge {
        peer: PEER,
        stream: StreamId(9),
    };
    assert_eq!((actions, fate), ([judge].into(), Some(Replaces)));
}

#[test]
fn the_refusal_names_the_other_address_and_what_to_do() {
    let scene = Scene::contested();
    let ack = scene
        .rivals
        .refusal(&PEER, StreamId(scene.streams))
        .unwrap();
    assert_eq!(ack.code, AckCode::Refused);
    assert!(ack.reason.contains("192.0.2.1"), "{}", ack.reason);
    assert!(ack.reason.contains("identity reset DIR"), "{}", ack.reason);
    let longest: IpAddr = "1111:2222:3333:4444:5555:6666:7777:8888".parse().unwrap();
    let reason = refusal(longest.into()).reason;
    assert!(
        reason.ends_with("`oc-discovery identity reset DIR`"),
        "{reason}"
    );
}

/// The lines of the log among the actions.
fn lines(actions: &[Action]) -> Vec<&str> {
    let line = |action: &Action| match action {
        Action::Contested(_) => Some("two"),
        Action::Uncontested { .. } => Some("one again"),
        _ => None,
    };
    actions.iter().filter_map(line).collect()
}

#[test]
fn the_log_has_the_begin_and_the_end_of_an_episode_once() {
    let mut scene = Scene::new();
    scene.third_comes();
    scene.polled(0);
    scene
        .rivals
        .probed(&PEER, scene.holder.stream, Verdict::Reachable);
    assert_eq!(lines(&scene.polled(0).0), ["two"]);
    for now in (60_000..600_000).step_by(60_000) {
        scene.comes(now, 2);
        scene.polled(now);
        scene
            .rivals
            .probed(&PEER, scene.holder.stream, Verdict::Reachable);
        assert!(lines(&scene.polled(now).0).is_empty(), "at {now}");
    }
    assert_eq!(scene.rivals.timeout(), Some(at(1_140_000)));
    assert!(lines(&scene.polled(1_139_999).0).is_empty());
    assert_eq!(scene.rivals.contested().count(), 1);
    assert_eq!(lines(&scene.polled(1_140_000).0), ["one again"]);
    assert_eq!(scene.rivals.contested().count(), 0);
    assert_eq!(scene.rivals.timeout(), None);
}

#[test]
fn an_episode_ends_with_the_lease_and_what_was_refused_may_come() {
    let mut scene = Scene::contested();
    scene.polled(0);
    assert_eq!(scene.comes(60_000, 2), Refused);
    scene.rivals.forget(&PEER);
    assert_eq!(lines(&scene.polled(60_000).0), ["one again"]);
    assert!(!scene.rivals.refuses(&PEER, host(2)));
    assert_eq!(scene.comes(60_001, 2), Replaces);
}

#[test]
fn a_lease_given_up_ends_the_episode_and_lets_in_what_waits() {
    let mut scene = Scene::contested();
    assert_eq!(scene.comes(60_000, 3), Waits);
    scene.rivals.forget(&PEER);
    let (actions, fate) = scene.polled(60_000);
    assert_eq!(fate, Some(Replaces));
    assert_eq!(lines(&actions), ["one again"]);
}

fn other(n: u8) -> PeerId {
    PeerId::from_bytes([100 + n; 32])
}

impl Rivals {
    /// A device at this host, of a prefix of its own or of the one that all share, replaces
    /// another.
    fn other_comes(&mut self, now: u64, n: u8, stream: u64, from: Host) {
        let holder = Scene::new().holder;
        let source = TransportAddr {
            host: from,
            port: 1,
        };
        self.newcomer(at(now), &other(n), holder, StreamId(stream), source);
    }

    fn has(&self, peer: &PeerId) -> bool {
        self.all.iter().any(|rival| rival.peer == *peer)
    }
}

#[test]
fn the_identity_that_was_quiet_the_longest_gives_way_and_one_that_is_contested_last() {
    let mut scene = Scene::contested();
    for n in 0..MAX_RIVALS as u8 {
        scene
            .rivals
            .other_comes(1 + u64::from(n), n, 50, host(10 + n));
    }
    let stats = scene.rivals.stats();
    assert_eq!((stats.used, stats.evicted), (MAX_RIVALS, 1));
    assert!(scene.rivals.has(&PEER));
    assert!(!scene.rivals.has(&other(0)) && scene.rivals.has(&other(1)));
}

#[test]
fn what_is_contested_and_what_is_counted_outlast_any_number_of_identities_on_two_hosts() {
    for honest in [false, true] {
        // Contested already, or about to be.
        let mut scene = match honest {
            true => Scene::contested(),
            false => Scene::new(),
        };
        let mut fates = Vec::new();
        for from in [2, 1, 2] {
            fates.push(scene.comes(0, from));
            for n in 0..100 {
                for stream in 50..55 {
                    let from = host(201 + u8::from(stream % 2 == 0));
                    scene.rivals.other_comes(0, n, stream, from);
                    scene
                        .rivals
                        .probed(&other(n), StreamId(0), Verdict::Reachable);
                }
            }
        }
        match honest {
            true => assert_eq!(fates, [Refused, Replaces, Refused]),
            false => {
                assert_eq!(fates[2], Waits);
                assert_eq!(scene.holder_answers(0, Verdict::Reachable), Some(Refused));
            }
        }
        assert!(scene.rivals.stats().evicted > 80);
    }
}

#[test]
fn who_fills_a_prefix_displaces_its_own_and_not_a_host_of_another_prefix() {
    let mut scene = Scene::contested();
    for n in 0..100 {
        let from = Host::from(IpAddr::from([198, 51, 100, n]));
        for stream in 50..53 {
            scene.rivals.other_comes(1, n, stream, from);
        }
    }
    assert!(scene.rivals.has(&PEER));
    assert_eq!(scene.rivals.contested().count(), 1);
}

#[test]
fn an_eviction_is_the_end_of_what_was_contested_and_is_told_apart_from_others() {
    let mut scene = Scene::contested();
    scene.polled(0);
    for n in 0..MAX_RIVALS as u8 {
        // All from the same host as the refused one, and all contested.
        for stream in 50..53 {
            scene.rivals.other_comes(1, n, stream, host(2));
        }
        scene
            .rivals
            .probed(&other(n), StreamId(0), Verdict::Reachable);
        let (actions, _) = scene.polled(1);
        let evicted = actions.iter().filter(
            |action| matches!(action, Action::Uncontested { evicted: true, peer } if *peer == PEER),
        );
        assert_eq!(
            evicted.count(),
            usize::from(n == MAX_RIVALS as u8 - 1),
            "{n}"
        );
    }
    assert_eq!(scene.rivals.contested().count(), MAX_RIVALS);
}

#[test]
fn all_that_are_contested_may_end_at_once_and_each_end_is_told() {
    let mut scene = Scene::contested();
    scene.polled(0);
    for n in 1..MAX_RIVALS as u8 {
        for stream in 50..53 {
            scene.rivals.other_comes(0, n, stream, host(2));
        }
        scene
            .rivals
            .probed(&other(n), StreamId(0), Verdict::Reachable);
        scene.polled(0);
    }
    assert_eq!(scene.rivals.contested().count(), MAX_RIVALS);
    assert_eq!(lines(&scene.polled(599_999).0).len(), 0);
    assert_eq!(lines(&scene.polled(600_000).0).len(), MAX_RIVALS);
}

#[test]
fn a_newcomer_whose_place_is_taken_is_closed_and_any_other_is_judged() {
    let mut rivals = Rivals::new();
    let holder = Scene::new().holder;
    for n in 0..MAX_RIVALS as u8 {
        for stream in 1..=3 {
            rivals.other_comes(u64::from(n), n, stream, host(2));
        }
    }
    let newcomer = rivals.newcomer(at(100), &other(77), holder, StreamId(9), source(2));
    let closed = Some(Displaced {
        peer: other(0),
        stream: StreamId(3),
    });
    assert_eq!(newcomer, (FirstBeat::Now, closed));
    assert_eq!(rivals.stats().evicted, 1);
    let mut judged = 0;
    for now in [100, 2_100] {
        while let Some(action) = rivals.poll(at(now)) {
            judged += usize::from(matches!(action, Action::Judge { .. }));
        }
    }
    assert_eq!(judged, MAX_RIVALS - 1);
}

#[test]
fn what_is_not_contested_is_counted_for_a_minute_and_then_takes_no_place() {
    let mut scene = Scene::new();
    scene.comes(0, 2);
    scene.polled(60_000);
    assert_eq!(scene.rivals.stats().used, 1);
    scene.polled(60_001);
    assert_eq!(scene.rivals.stats().used, 0);
}
