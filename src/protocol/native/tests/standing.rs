//! Indexers that do not keep their promises.

use super::*;
use crate::protocol::rivals::FirstBeat;

/// A native with room for 204 indexers.
struct Crowd {
    native: Box<Native<204, 204, 2, 208>>,
    now: u64,
}

/// The address of the indexer: `/ip4/10.x.y.1/tcp/1`, with two bytes of network.
fn listening(network: u16) -> Addrs {
    let [x, y] = network.to_be_bytes();
    let addr = [4, 10, x, y, 1, 6, 0, 1].into_iter().collect();
    [addr].into_iter().collect()
}

impl Crowd {
    fn new() -> Self {
        // The native is built on the stack before it is boxed, and the stack of a test is too small
        // for it.
        let in_box = std::thread::Builder::new().stack_size(32 << 20);
        let in_box = in_box.spawn(|| Box::new(Native::new())).unwrap();
        let mut native = in_box.join().unwrap();
        let config = NativeConfig {
            terms: Terms {
                lease: LEASE,
                beat_interval: INTERVAL,
            },
            offload_interval: INTERVAL,
            refresh_interval: INTERVAL,
            gc_interval: INTERVAL,
        };
        native.start(at(0), OWN, 1, config);
        Self { native, now: 0 }
    }

    fn indexer(&mut self, n: u8, network: u16, free: u32) {
        let info = RecordInfo {
            addrs: listening(network),
            ..record(n, 1)
        };
        let beat = Beat {
            record: Some(SignedRecord::of(&info)),
            load: Some(Load {
                held: 0,
                possible: free,
            }),
            ..Beat::new(Role::Indexer, LEASE)
        };
        let outcome = self
            .native
            .beat(at(self.now), &peer(n), StreamId(n.into()), &beat);
        assert_eq!(outcome.ack.code, AckCode::Accepted);
        self.drain();
    }

    fn drain(&mut self) -> Vec<Action> {
        std::iter::from_fn(|| self.native.poll(at(self.now), self.now)).collect()
    }

    fn node(&mut self, n: u8, lease: Duration) -> Ack<'_> {
        self.node_on(n, StreamId(1000 + u64::from(n)), lease)
    }

    fn node_on(&mut self, n: u8, stream: StreamId, lease: Duration) -> Ack<'_> {
        let beat = Beat::new(Role::Node, lease);
        self.native.beat(at(self.now), &peer(n), stream, &beat).ack
    }

    fn offered(&mut self, node: u8, want: Want) -> Vec<u8> {
        let request = RequestId(node.into());
        let answer = self
            .native
            .ask(at(self.now), &peer(node), request, MAX_LIST, want)
            .unwrap();
        let ids = answer.offers.iter().map(|offer| offer.peer.as_bytes()[0]);
        ids.collect()
    }

    fn failures(&self, n: u8) -> u8 {
        let entry = self.native.live_indexers.find(at(self.now), &peer(n));
        entry.unwrap().failures(at(self.now))
    }
}

#[test]
fn the_oldest_keep_places_among_many_newcomers_that_boast() {
    let mut crowd = Crowd::new();
    (1..=2).for_each(|n| crowd.indexer(n, 1, 10));
    crowd.now = 1_000;
    (3..=202).for_each(|n| crowd.indexer(n, 1, 65_535));
    let first = crowd.offered(230, Want::Lease);
    assert_eq!(first.len(), 16);
    for (node, want) in (230..250).zip(std::iter::once(Want::OffersFailed).chain([Want::Lease; 19]))
    {
        let offered = crowd.offered(node, want);
        assert_eq!(offered.len(), 16);
        assert!(offered.contains(&1) && offered.contains(&2), "{offered:?}");
    }
}

#[test]
fn an_indexer_of_another_network_is_named_beside_many_of_one() {
    let mut crowd = Crowd::new();
    (3..=202).for_each(|n| crowd.indexer(n, 1, 65_535));
    crowd.now = 1_000;
    crowd.indexer(1, 2, 10);
    let offered = crowd.offered(230, Want::Lease);
    assert!(offered[..2].contains(&1), "{offered:?}");
}

#[test]
fn what_failed_at_a_node_is_named_after_the_others() {
    let mut crowd = Crowd::new();
    (1..=40).for_each(|n| crowd.indexer(n, 1, 100));
    // All indexers are equally old, so the last quarter is chosen at random.
    let first = crowd.offered(230, Want::Lease);
    assert_eq!(first.len(), 16);
    let second = crowd.offered(230, Want::OffersFailed);
    assert!(first.iter().all(|&n| crowd.failures(n) == 1));
    assert!(
        second[..12].iter().all(|n| !first.contains(n)),
        "{first:?} {second:?}"
    );
}

#[test]
fn with_all_of_them_liars_but_one_a_node_finds_that_one_in_a_few_rounds() {
    let mut crowd = Crowd::new();
    (3..=202).for_each(|n| crowd.indexer(n, 1, 65_535));
    crowd.now = 1_000;
    crowd.indexer(1, 1, 10);
    // The youngest indexer, in the same network, with the fewest places, and unproved. Its only
    // advantage is that the others failed.
    let mut want = Want::Lease;
    let rounds = (1..=40).find(|_| {
        let offered = crowd.offered(230, want);
        want = Want::OffersFailed;
        offered.contains(&1)
    });
    assert!(rounds.is_some_and(|rounds| rounds <= 17), "{rounds:?}");
}

#[test]
fn a_node_that_gives_up_after_it_was_sent_proves_the_indexer_and_blames_it_if_it_comes_back() {
    let mut crowd = Crowd::new();
    crowd.node(100, LEASE);
    crowd.indexer(1, 1, 10);
    // It was sent by the registration, and now leaves.
    assert_eq!(crowd.node(100, Duration::ZERO).code, AckCode::Accepted);
    (2..=30).for_each(|n| crowd.indexer(n, 1, 65_535));
    crowd.now = 5_000;
    let standing = |crowd: &Crowd, n| {
        let entry = crowd.native.live_indexers.find(at(crowd.now), &peer(n));
        entry.unwrap().standing.clone()
    };
    assert!(standing(&crowd, 1).has_proved() && !standing(&crowd, 2).has_proved());
    crowd.offered(100, Want::OffersFailed);
    assert_eq!(crowd.failures(1), 1);
    assert!((2..=30).all(|n| crowd.failures(n) == 0));
    let offered = crowd.offered(101, Want::Lease);
    assert_eq!(offered[12], 1, "the first of those that keep a place");
}

#[test]
fn a_node_that_was_told_nothing_blames_nobody() {
    let mut crowd = Crowd::new();
    (1..=4).for_each(|n| crowd.indexer(n, 1, 10));
    crowd.offered(100, Want::OffersFailed);
    assert!((1..=4).all(|n| crowd.failures(n) == 0));
    crowd.offered(100, Want::OffersFailed);
    assert!(
        (1..=4).all(|n| crowd.failures(n) == 1),
        "those of its first"
    );
}

#[test]
fn an_indexer_that_failed_is_sent_nodes_after_the_others() {
    let mut crowd = Crowd::new();
    crowd.indexer(1, 1, 65_535);
    crowd.offered(100, Want::Lease);
    crowd.offered(100, Want::OffersFailed);
    crowd.node(100, LEASE);
    crowd.indexer(2, 1, 3);
    let actions = crowd.drain();
    let sent = |action: &Action| match action {
        Action::Release { offer, .. } => offer.as_ref().map(|offer| offer.peer),
        _ => None,
    };
    // The registration began the run, and the release came out at that time.
    assert_eq!(actions.iter().find_map(sent), None);
    assert!(crowd
        .native
        .offered_indexers
        .where_sent(at(0), &peer(100))
        .unwrap()(&peer(2)));
}

#[test]
fn those_that_keep_places_are_probed_for_an_answer_even_if_enough_others_are_reachable() {
    let mut crowd = Crowd::new();
    (1..=2).for_each(|n| crowd.indexer(n, 1, 10));
    crowd.now = 5_000;
    (3..=4).for_each(|n| crowd.indexer(n, 1, 10));
    crowd.offered(229, Want::Lease);
    crowd.offered(229, Want::OffersFailed);
    crowd.now = 10_001;
    (5..=40).for_each(|n| crowd.indexer(n, 1, 100));
    let request = RequestId(1);
    let asked = crowd
        .native
        .ask(at(crowd.now), &peer(230), request, MAX_LIST, Want::Lease);
    assert_eq!(asked, None);
    // Actions are large, and the stack of a test has little room for them.
    let probes = crowd.drain().into_iter().map(|action| match action {
        Action::Probe { peer, .. } => Some(peer),
        _ => None,
    });
    let mut probed: Vec<_> = probes.collect();
    probed.sort();
    assert_eq!(probed, [Some(peer(1)), Some(peer(2))]);
}

#[test]
fn while_no_node_failed_the_oldest_have_no_more_nodes_than_others() {
    let mut crowd = Crowd::new();
    crowd.indexer(1, 1, 100);
    crowd.now = 1_000;
    (2..=160).for_each(|n| crowd.indexer(n, 1, 100));
    let named = (0..200).filter(|_| crowd.offered(230, Want::Lease).contains(&1));
    let named = named.count();
    assert!(
        (5..=40).contains(&named),
        "of 200, 20 are expected: {named}"
    );
}

#[test]
fn a_node_that_says_again_and_again_that_all_failed_counts_once() {
    let mut crowd = Crowd::new();
    (1..=4).for_each(|n| crowd.indexer(n, 1, 10));
    for now in [0, 9_000, 9_999] {
        crowd.now = now;
        crowd.offered(100, Want::Lease);
        crowd.offered(100, Want::OffersFailed);
    }
    assert_eq!([1, 2, 3, 4].map(|n| crowd.failures(n)), [1; 4]);
    crowd.offered(101, Want::Lease);
    crowd.offered(101, Want::OffersFailed);
    assert_eq!([1, 2, 3, 4].map(|n| crowd.failures(n)), [2; 4]);
}

#[test]
fn what_is_said_under_a_contested_identity_does_not_count() {
    let mut crowd = Crowd::new();
    (1..=4).for_each(|n| crowd.indexer(n, 1, 10));
    crowd.offered(100, Want::OffersFailed);
    for (stream, host) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
        let ip = core::net::IpAddr::from([192, 0, 2, host]);
        let source = core::net::SocketAddr::new(ip, 1000).into();
        let stream = StreamId(2000 + stream);
        let opened = crowd
            .native
            .stream_opened(at(0), &peer(100), stream, source);
        if opened == FirstBeat::Now {
            crowd.node_on(100, stream, LEASE);
        }
    }
    crowd
        .native
        .stream_probed(at(0), &peer(100), StreamId(2003), Verdict::Reachable);
    crowd.drain();
    crowd.offered(100, Want::OffersFailed);
    assert_eq!([1, 2, 3, 4].map(|n| crowd.failures(n)), [0; 4]);
}
