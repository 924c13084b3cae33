//! A reader is offered only what it can use.

use super::*;
use crate::protocol::{Offer, address::Families};

const V4: &[u8] = &[4, 192, 0, 2, 7, 6, 0, 1];
const LOOPBACK: &[u8] = &[4, 127, 0, 0, 1, 6, 0, 1];
const V6: &[u8] = &[
    41, 0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 6, 0, 1,
];

fn listening(n: u8, addrs: &[&[u8]]) -> RecordInfo {
    let addr = |addr: &&[u8]| addr.iter().copied().collect();
    RecordInfo {
        addrs: addrs.iter().map(addr).collect(),
        ..record(n, 1)
    }
}

impl Rig {
    /// A beat of an indexer that listens at these addresses.
    fn indexer_at(&mut self, n: u8, addrs: &[&[u8]]) {
        let info = listening(n, addrs);
        let outcome = self.beat(Role::Indexer, n, u64::from(n), Some(&info));
        assert_eq!(outcome.ack.code, AckCode::Accepted);
    }

    /// A beat of a node on another host, seen by IPv4, with a record that lists `addrs`.
    fn far_node(&mut self, n: u8, addrs: &[&[u8]]) -> Ack<'_> {
        self.native.seen(&peer(n), Reader::far(Families::V4));
        let info = listening(n, addrs);
        self.beat(Role::Node, n, u64::from(n), Some(&info)).ack
    }

    /// A request of the same node.
    fn far_ask(&mut self, n: u8, want: Want) -> IndexersAnswer<'_> {
        self.native.seen(&peer(n), Reader::far(Families::V4));
        self.ask(n, want).unwrap()
    }

    /// The nodes that are released until then: when, and to which indexer and address.
    fn released(&mut self, until: u64) -> Vec<(u64, PeerId, Named)> {
        let released = |(at, action): (u64, Action)| match action {
            Action::Release { peer, offer, .. } => {
                Some((at, peer, named(offer.as_slice()).remove(0)))
            }
            _ => None,
        };
        self.run(until).into_iter().filter_map(released).collect()
    }

    fn failures(&self, n: u8) -> u8 {
        let entry = self.native.live_indexers.find(at(self.now), &peer(n));
        entry.unwrap().failures(at(self.now))
    }
}

/// An indexer and its addresses.
type Named = (PeerId, Vec<Vec<u8>>);

fn named(offers: &[Offer]) -> Vec<Named> {
    let addrs = |offer: &Offer| offer.addrs.iter().map(|addr| addr.to_vec()).collect();
    let offers = offers.iter();
    offers.map(|offer| (offer.peer, addrs(offer))).collect()
}

fn peers(offers: &[Offer]) -> Vec<PeerId> {
    offers.iter().map(|offer| offer.peer).collect()
}

#[test]
fn an_indexer_for_its_own_host_alone_is_none_for_a_node_elsewhere() {
    let mut rig = Rig::new();
    rig.indexer_at(1, &[LOOPBACK]);
    let answer = rig.far_ask(100, Want::Lease);
    assert!(answer.offers.is_empty() && answer.takes_in);
    assert_eq!(rig.far_node(100, &[V4]), Ack::accepted(LEASE));
    let taken_in = rig.native.delegation.iter().next().unwrap();
    assert_eq!(taken_in.shortage, Shortage::Unsuitable(1));
    rig.native.seen(&peer(101), Reader::near());
    let answer = rig.ask(101, Want::Lease).unwrap();
    assert_eq!(
        (peers(answer.offers), answer.takes_in),
        (vec![peer(1)], false)
    );
    // Even without a request, a node that can reach no indexer is accepted, and one that can is
    // not.
    assert_eq!(rig.far_node(102, &[V4]).code, AckCode::Accepted);
    rig.native.seen(&peer(103), Reader::near());
    let ack = rig.node(103);
    assert_eq!((ack.code, ack.offers.len()), (AckCode::Released, 1));
}

#[test]
fn an_offer_has_only_the_addresses_that_are_of_use_to_its_reader() {
    let mut rig = Rig::new();
    rig.indexer_at(1, &[LOOPBACK, V6, V4]);
    let offered = named(rig.far_ask(100, Want::Lease).offers);
    assert_eq!(offered, [(peer(1), vec![V6.to_vec(), V4.to_vec()])]);
    // Its beat shows that it has only IPv4.
    let ack = rig.far_node(100, &[V4]);
    assert_eq!(ack.code, AckCode::Released);
    assert_eq!(named(ack.offers), [(peer(1), vec![V4.to_vec()])]);
}

#[test]
fn a_node_that_lacks_the_family_of_every_indexer_stays_taken_in_until_one_of_its_own_comes() {
    let mut rig = Rig::new();
    assert_eq!(rig.far_node(100, &[V4]).code, AckCode::Accepted);
    rig.indexer_at(1, &[V6]);
    assert_eq!(rig.released(25_000), []);
    rig.indexer_at(1, &[V6]);
    assert_eq!(rig.released(30_000), [], "nor by the tick");
    let runs = rig.view().runs;
    assert!(runs.contains(&("offload", 1, Some(at(30_000)))), "{runs:?}");
    let answer = rig.far_ask(100, Want::Lease);
    assert!(answer.offers.is_empty() && answer.takes_in);
    rig.run(31_000);
    assert_eq!(rig.far_node(100, &[V4]), Ack::accepted(LEASE));
    rig.indexer_at(2, &[V6, V4]);
    let to = (peer(2), vec![V4.to_vec()]);
    assert_eq!(rig.released(31_000), [(31_000, peer(100), to)]);
}

#[test]
fn a_family_that_a_node_has_not_shown_is_offered_and_its_failure_blames_no_indexer() {
    for (addr, blamed, released) in [(V6, 0, 0), (V4, 1, 1)] {
        let mut rig = Rig::new();
        rig.indexer_at(1, &[addr]);
        let answer = rig.far_ask(100, Want::Lease);
        assert_eq!(
            (peers(answer.offers), answer.takes_in),
            (vec![peer(1)], false)
        );
        let answer = rig.far_ask(100, Want::OffersFailed);
        assert_eq!(
            (peers(answer.offers), answer.takes_in),
            (vec![peer(1)], true)
        );
        assert_eq!(rig.failures(1), blamed);
        // Its record may have been cut, so it is not known whether it lacks a family.
        assert_eq!(rig.far_node(100, &[V4; 4]), Ack::accepted(LEASE));
        rig.run(5_000);
        rig.native.stream_closed(at(5_000), &peer(1), StreamId(1));
        rig.beat(Role::Indexer, 1, 7, None);
        assert_eq!(rig.released(5_000).len(), released);
        if released == 0 {
            rig.run(25_000);
            rig.beat(Role::Indexer, 1, 7, None);
            assert_eq!(
                rig.released(30_000),
                [],
                "it is not sent where it has failed"
            );
            rig.indexer_at(2, &[V4]);
            let to = (peer(2), vec![V4.to_vec()]);
            assert_eq!(rig.released(30_999), []);
            rig.far_node(100, &[V4; 4]);
            assert_eq!(rig.released(31_000), [(31_000, peer(100), to)]);
        }
    }
}

#[test]
fn what_fits_the_reader_is_named_and_probed_before_what_may_be_of_use() {
    let mut rig = Rig::new();
    (1..=16).for_each(|n| rig.indexer_at(n, &[V6]));
    (17..=20).for_each(|n| rig.indexer_at(n, &[V4]));
    let offers = peers(rig.far_ask(100, Want::Lease).offers);
    assert_eq!(offers.len(), 16);
    let mut first = offers[..4].to_vec();
    first.sort();
    assert_eq!(first, (17..=20).map(peer).collect::<Vec<_>>());
    rig.drain();

    rig.run(10_001);
    rig.native.seen(&peer(101), Reader::far(Families::V4));
    assert_eq!(rig.ask(101, Want::Lease), None);
    let probed = rig.drain().into_iter().filter_map(|action| match action {
        Action::Probe { peer, .. } => Some(peer),
        _ => None,
    });
    let probed: Vec<_> = probed.collect();
    assert_eq!(probed.len(), 8);
    assert!((17..=20).all(|n| probed.contains(&peer(n))), "{probed:?}");
}

#[test]
fn no_number_of_those_that_fit_keeps_an_old_one_out_that_may_be_of_use() {
    let mut rig = Rig::new();
    rig.indexer_at(1, &[V6]);
    rig.run(1_000);
    (2..=31).for_each(|n| rig.indexer_at(n, &[V4]));
    let names_it = |rig: &mut Rig, want| peers(rig.far_ask(100, want).offers).contains(&peer(1));
    assert!(!names_it(&mut rig, Want::Lease));
    assert!(names_it(&mut rig, Want::OffersFailed));
    assert!(names_it(&mut rig, Want::Lease));
}

#[test]
fn those_that_only_ask_are_told_what_is_of_use_to_them_and_it_alone_takes_a_place() {
    let mut rig = Rig::new();
    (1..=16).for_each(|n| rig.indexer_at(n, &[LOOPBACK]));
    (17..=18).for_each(|n| rig.indexer_at(n, &[V4]));
    let expected = [peer(17), peer(18)];
    for _ in 0..2 {
        let answer = rig.far_ask(100, Want::Nothing);
        assert_eq!(peers(answer.offers), expected);
    }
    let page = rig.native.page(at(0), Some(&peer(100)), Cursor::Start, 2);
    assert_eq!(
        (peers(page.offers).as_slice(), page.next),
        (&expected[..], None)
    );
    // Of another peer nothing is known.
    let page = rig.native.page(at(0), Some(&peer(101)), Cursor::Start, 2);
    assert_eq!(peers(page.offers), [peer(1), peer(2)]);
    assert_eq!(page.next, Some(peer(2)));
}

#[test]
fn what_a_lease_holder_shows_later_counts_at_once() {
    let mut rig = Rig::new();
    rig.far_node(100, &[V4]);
    rig.indexer_at(1, &[V6]);
    assert_eq!(rig.released(1_000), []);
    rig.native.seen(&peer(100), Reader::far(Families::BOTH));
    assert_eq!(peers(rig.ask(100, Want::Lease).unwrap().offers), [peer(1)]);
    rig.run(25_000);
    rig.indexer_at(1, &[V6]);
    let to = (peer(1), vec![V6.to_vec()]);
    assert_eq!(rig.released(30_000), [(30_000, peer(100), to)]);
}
