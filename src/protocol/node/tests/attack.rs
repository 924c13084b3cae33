//! Bounds for whatever servers send: how much one node does in a minute, and to one third party.

use std::collections::BTreeMap;

use super::*;
use crate::protocol::{AckBuf, address::TransportAddr, signing::Urgency};

/// The tokens of the bucket within this many seconds.
fn most(seconds: u64) -> usize {
    16 + 2 * seconds as usize
}

#[derive(Clone)]
enum Word {
    Ack(AckBuf),
    Notified(AckBuf),
    Closed,
    Answer(Answer),
}

/// A node among servers that answer each beat and request within 2 ms, by `speak`.
struct Attack {
    node: Node,
    now: u64,
    words: BTreeMap<(u64, u64), (PeerId, Word)>,
    /// The times of requests, and of opened streams with all addresses that are dialled for them.
    did: Vec<(u64, Option<Addrs>)>,
    accepted: usize,
    open: std::collections::BTreeSet<PeerId>,
    /// The endpoint at which each server answers: the first address at which it was dialled.
    carriers: BTreeMap<PeerId, TransportAddr>,
}

impl Attack {
    fn new(min_indexers: usize, natives: u8) -> Self {
        let rig = Rig::new(min_indexers, (1..=natives).collect::<Vec<_>>());
        Self {
            node: rig.node,
            now: 0,
            words: BTreeMap::new(),
            did: Vec::new(),
            accepted: 0,
            open: Default::default(),
            carriers: BTreeMap::new(),
        }
    }

    fn run(&mut self, until: u64, mut speak: impl FnMut(PeerId, bool) -> Vec<Word>) {
        let mut number = 0;
        while self.now < until {
            while let Some(action) = self.node.poll(at(self.now), 0) {
                let (peer, is_question) = match action {
                    Action::Ask { server: native, .. } => {
                        self.did.push((self.now, None));
                        (native, true)
                    }
                    Action::Beat {
                        server,
                        addrs,
                        beat,
                    } => {
                        if self.open.insert(server) || beat.fresh {
                            let first = addrs.first().map(|addr| TransportAddr::of(addr));
                            self.did.push((self.now, Some(addrs)));
                            let Some(first) = first else {
                                number += 1;
                                let closed = (server, Word::Closed);
                                self.words.insert((self.now + 2, number), closed);
                                continue;
                            };
                            self.carriers.entry(server).or_insert(first);
                        }
                        (server, false)
                    }
                    Action::Drop { server } | Action::GiveUp { server, .. } => {
                        self.open.remove(&server);
                        continue;
                    }
                    _ => continue,
                };
                for word in speak(peer, is_question) {
                    number += 1;
                    self.words.insert((self.now + 2, number), (peer, word));
                }
            }
            let next = self.words.keys().next().map_or(u64::MAX, |(when, _)| *when);
            let timer = self.node.timeout().as_millis();
            assert!(timer > self.now, "it would spin");
            self.now = next.min(timer);
            while let Some(entry) = self.words.first_entry().filter(|e| e.key().0 <= self.now) {
                let (peer, word) = entry.remove();
                let now = at(self.now);
                match word {
                    Word::Ack(ack) => {
                        self.accepted += usize::from(ack.code == AckCode::Accepted);
                        let over = self.carriers[&peer];
                        self.node.carried(now, &peer, over, &ack.as_ack());
                    }
                    Word::Notified(ack) => self.node.notified(now, &peer, &ack.as_ack()),
                    Word::Closed => {
                        self.open.remove(&peer);
                        self.node.lease_closed(now, &peer);
                    }
                    Word::Answer(answer) => self.node.answered(now, &peer, answer.as_answer()),
                }
            }
        }
    }

    /// Streams and requests in the time.
    fn within(&self, from: u64, to: u64) -> usize {
        let all = self.did.iter();
        all.filter(|(when, _)| (from..to).contains(when)).count()
    }

    /// Streams for which the host and port are dialled in the time.
    fn to(&self, endpoint: TransportAddr, until: u64) -> usize {
        let is_there = |to: &Option<Addrs>| {
            let mut all = to.iter().flatten();
            all.any(|addr| TransportAddr::of(addr) == endpoint)
        };
        let all = self.did.iter();
        all.filter(|(when, to)| *when < until && is_there(to))
            .count()
    }
}

/// 10.`net`.0.`host`, port 80.
fn ip(net: u8, host: u8) -> Addrs {
    [Addr::from_iter([4, 10, net, 0, host, 6, 0, 80])]
        .into_iter()
        .collect()
}

/// Sixteen offers, each with a new id.
fn new_ids(count: &mut u32, addrs: impl Fn(u32) -> Addrs) -> Answer {
    let offer = |_| {
        *count += 1;
        let mut key = [77; 32];
        key[..4].copy_from_slice(&count.to_be_bytes());
        Offer {
            peer: PeerId::from_bytes(key),
            addrs: addrs(*count),
            ttl: LEASE,
            free: Some(65_535),
        }
    };
    Answer {
        offers: (0..16).map(offer).collect(),
        takes_in: false,
    }
}

fn spread(n: u32) -> Addrs {
    ip((n / 200 % 250) as u8, (n % 200) as u8)
}

#[test]
fn a_port_that_40_records_name_is_dialled_five_times_in_20_s_and_seven_in_a_minute() {
    let victim = ip(9, 9);
    let mut attack = Attack::new(2, 1);
    let mut turn = 0u8;
    attack.run(60_000, |_, is_question| {
        if !is_question {
            return std::vec![Word::Closed];
        }
        turn = (turn + 16) % 40;
        let mut answer = offering((0..16).map(|i| 100 + (turn + i) % 40));
        for offer in &mut answer.offers {
            offer.addrs.clone_from(&victim);
        }
        std::vec![Word::Answer(answer)]
    });
    let endpoint = TransportAddr::of(&victim[0]);
    assert!((2..=5).contains(&attack.to(endpoint, 20_000)));
    assert!(attack.to(endpoint, 60_000) <= 7);
}

#[test]
fn a_native_with_ever_new_dead_ids_costs_no_more_than_the_bucket_holds() {
    let (mut attack, mut count) = (Attack::new(2, 1), 0);
    attack.run(120_000, |_, is_question| {
        std::vec![match is_question {
            true => Word::Answer(new_ids(&mut count, spread)),
            false => Word::Closed,
        }]
    });
    assert!(attack.within(0, 10_000) <= most(10));
    assert!(attack.within(0, 60_000) <= most(60));
    assert!(attack.within(60_000, 120_000) <= most(60));
    let questions = attack.did.iter().filter(|(_, to)| to.is_none()).count();
    assert!(
        questions <= 80,
        "asks in two minutes, in pauses of up to 10 s: {questions}"
    );
}

#[test]
fn ids_of_one_prefix_are_tried_16_times_and_then_once_a_second() {
    let (mut attack, mut count) = (Attack::new(2, 1), 0);
    attack.run(30_000, |_, is_question| {
        std::vec![match is_question {
            true => Word::Answer(new_ids(&mut count, |n| ip(7, (n % 250) as u8))),
            false => Word::Closed,
        }]
    });
    let dials = attack.did.iter().filter(|(_, to)| to.is_some()).count();
    assert!((16..=16 + 30).contains(&dials), "{dials}");
}

#[test]
fn two_hundred_and_fifty_that_are_full_cost_no_more_than_the_bucket_holds() {
    let (mut attack, mut count) = (Attack::new(1, 2), 0);
    attack.run(25_000, |_, is_question| {
        count %= 250;
        match is_question {
            true => std::vec![Word::Answer(new_ids(&mut count, spread))],
            false => std::vec![Word::Ack(Ack::full("no").into()), Word::Closed],
        }
    });
    assert!(attack.within(0, 25_000) <= most(25));
}

#[test]
fn servers_that_accept_and_send_away_at_once_grant_no_more_leases_than_the_bucket_holds() {
    for by_native in [true, false] {
        let (mut attack, mut count) = (Attack::new(2, 1), 0);
        attack.run(60_000, |peer, is_question| {
            if !is_question {
                let accepted = Ack::accepted(LEASE);
                let to = new_ids(&mut count, spread).offers;
                let away = match by_native && peer == super::peer(1) {
                    true => Ack::released(LEASE, &[]),
                    false => Ack::released(LEASE, &to),
                };
                return std::vec![Word::Ack(accepted.into()), Word::Notified(away.into())];
            }
            std::vec![Word::Answer(match by_native {
                true => taking_in([]),
                false => new_ids(&mut count, spread),
            })]
        });
        let accepted = attack.accepted;
        assert!(accepted <= most(60), "{accepted} of a native: {by_native}");
        assert!(attack.within(0, 60_000) <= most(60));
    }
}

#[test]
fn a_lease_that_is_granted_and_lost_over_and_over_costs_no_more_than_the_bucket_holds() {
    let mut attack = Attack::new(2, 1);
    attack.run(60_000, |_, is_question| match is_question {
        true => std::vec![Word::Answer(taking_in(10..26))],
        false => std::vec![Word::Ack(Ack::accepted(LEASE).into()), Word::Closed],
    });
    assert!(attack.within(0, 60_000) <= most(60));
}

/// The answers of a server that grants a lease and does not keep it.
type Breach = fn(u32) -> Vec<Word>;

/// Accepts two beats with a short lease, then answers each third one by `third`.
fn short_lease(nth: u32, third: Breach) -> Vec<Word> {
    match nth % 3 {
        2 => third(nth),
        _ => std::vec![Word::Ack(Ack::accepted(Duration::from_secs(1)).into())],
    }
}

#[test]
fn a_holder_that_names_a_third_party_makes_a_node_dial_it_as_seldom_as_any_failing_address() {
    let hangs_up: Breach = |_| std::vec![Word::Closed];
    let is_silent: Breach = |_| Vec::new();
    for (breach, holders) in [(hangs_up, 1), (is_silent, 1), (hangs_up, 8), (is_silent, 8)] {
        let (victim, mut beats) = (ip(99, 9), BTreeMap::<PeerId, u32>::new());
        let mut attack = Attack::new(2, 1);
        let mut renewals = 0;
        attack.run(600_000, |peer, is_question| {
            if is_question {
                let mut answer = offering(10..10 + holders);
                for offer in &mut answer.offers {
                    offer.addrs = ip(offer.peer.as_bytes()[0], 1);
                    offer.addrs.extend(victim.clone());
                }
                return std::vec![Word::Answer(answer)];
            }
            let nth = beats.entry(peer).or_default();
            *nth += 1;
            renewals += u32::from((*nth - 1) % 3 == 1);
            short_lease(*nth - 1, breach)
        });
        let endpoint = TransportAddr::of(&victim[0]);
        let dialled = [20_000, 60_000, 600_000].map(|until| attack.to(endpoint, until));
        assert!((2..=5).contains(&dialled[0]), "{dialled:?}");
        assert!(dialled[1] <= 7 && dialled[2] <= 11, "{dialled:?}");
        // The leases themselves continue, at the addresses that carry them.
        let own = (10..10 + holders).map(|n| attack.to(TransportAddr::of(&ip(n, 1)[0]), 600_000));
        assert!(own.sum::<usize>() > 100);
        assert!(renewals > 100, "{renewals}");
    }
}

#[test]
fn a_lease_is_reopened_at_once_where_it_was_carried_however_often_others_were_dialled() {
    let mut rig = Rig::new(1, [1]);
    rig.drain();
    let mut answer = offering([10]);
    answer.offers[0].addrs = ip(10, 1);
    answer.offers[0].addrs.extend(ip(99, 9));
    let (both, own) = (answer.offers[0].addrs.clone(), ip(10, 1));
    rig.node.answered(at(0), &peer(1), answer.as_answer());
    // The times at which the stream is opened after each end. The other address pauses for 1 s
    // after the first attempt, and for at least 2 s after the second.
    for (now, dialled) in [(0, &both), (999, &own), (1_000, &both), (2_999, &own)] {
        let beats = |rig: &mut Rig| {
            let mut beats = Vec::new();
            while let Some(action) = rig.node.poll(at(now), 0) {
                if let Action::Beat { addrs, .. } = action {
                    beats.push(addrs);
                }
            }
            beats
        };
        if now > 0 {
            rig.node.lease_closed(at(now), &peer(10));
        }
        assert_eq!(beats(&mut rig), core::slice::from_ref(dialled), "{now}");
        for _ in 0..2 {
            let over = TransportAddr::of(&own[0]);
            rig.node
                .carried(at(now), &peer(10), over, &Ack::accepted(LEASE));
            rig.node.record_signed(at(now), Urgency::AtOnce);
            assert_eq!(
                beats(&mut rig).len(),
                1,
                "a beat on the stream that is open"
            );
        }
    }
}

#[test]
fn of_4000_words_that_were_not_asked_for_one_counts() {
    let mut rig = holding(1, [10]);
    rig.now = 5_000;
    assert!(rig.released(10, [11]).contains(&Beat(11)));
    let before = rig.node.clone();
    for n in 0..4_000u32 {
        let code = [AckCode::Released, AckCode::Accepted, AckCode::Full][n as usize % 3];
        let offers = offers([12 + (n % 200) as u8]);
        let mut ack = Ack::released(LEASE, &offers);
        ack.code = code;
        rig.node.notified(at(5_000), &peer(10), &ack);
    }
    assert_eq!(rig.node, before);
}

#[test]
fn more_failing_indexers_than_places_are_not_forgotten() {
    let mut attack = Attack::new(2, 1);
    let (mut count, mut tried) = (0u32, BTreeMap::<PeerId, Vec<u64>>::new());
    let clock = std::cell::Cell::new(0u64);
    for second in 0..60u64 {
        clock.set(second);
        attack.run(
            (second + 1) * 1_000,
            |peer, is_question| match is_question {
                true => {
                    count %= 64;
                    std::vec![Word::Answer(new_ids(&mut count, spread))]
                }
                false => {
                    tried.entry(peer).or_default().push(clock.get());
                    std::vec![Word::Closed]
                }
            },
        );
    }
    for (peer, at) in &tried {
        for pair in at.windows(2) {
            assert!(pair[1] - pair[0] >= 9, "{peer:?} at second {pair:?}");
        }
    }
    assert!(tried.len() > 32, "{}", tried.len());
}
