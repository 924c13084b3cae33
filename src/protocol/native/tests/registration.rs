//! Indexers register, beat and leave.

use super::*;
use crate::protocol::rivals::FirstBeat;
use crate::protocol::{AnnounceEnd, LeaseEnd};

#[test]
fn a_beat_with_a_record_registers_the_indexer_in_every_table_and_publishes_the_record() {
    let mut rig = Rig::new();
    let outcome = rig.beat(Role::Indexer, 1, 7, Some(&record(1, 5)));
    assert_eq!(outcome.ack, Ack::accepted(LEASE));
    assert!(outcome.publish);
    let view = rig.view();
    assert_eq!(view.live, [(peer(1), Source::Heartbeat)]);
    assert_eq!(view.known, [peer(1)]);
    assert_eq!(view.expiry(1), Some(at(90_000)));
}

#[test]
fn a_record_is_published_once_and_again_when_it_was_re_signed() {
    let mut rig = Rig::new();
    let mut publishes = |sequence| {
        rig.beat(Role::Indexer, 1, 1, Some(&record(1, sequence)))
            .publish
    };
    assert!(publishes(5));
    assert!(!publishes(5), "the same is not news");
    assert!(!publishes(4), "nor is an older one");
    assert!(publishes(6));
}

#[test]
fn a_record_signed_again_with_a_corrected_clock_counts_although_it_expires_earlier() {
    let mut rig = Rig::new();
    let mut ahead = record(1, 9_000_000);
    rig.beat(Role::Indexer, 1, 1, Some(&ahead));
    ahead.sequence += 1;
    ahead.issued_at_ms = 0;
    ahead.addrs = addrs(77);
    assert!(rig.beat(Role::Indexer, 1, 1, Some(&ahead)).publish);
    assert_eq!(rig.native.addrs_of(&peer(1)), Some(&addrs(77)));
}

#[test]
fn without_a_record_an_indexer_has_a_lease_but_is_not_live() {
    let mut rig = Rig::new();
    let outcome = rig.beat(Role::Indexer, 1, 1, None);
    assert_eq!(outcome.ack, Ack::accepted(LEASE));
    assert!(rig.view().live.is_empty());
    assert!(rig.view().expiry(1).is_some());
}

#[test]
fn every_beat_renews_until_its_receipt_plus_the_lease() {
    let mut rig = Rig::new();
    rig.indexer(1);
    for now in [28_000, 56_000, 84_000] {
        rig.run(now);
        rig.beat(Role::Indexer, 1, 1, None);
        assert_eq!(rig.view().expiry(1), Some(at(now + 90_000)));
    }
    for (now, live) in [(173_999, 1), (174_000, 1), (174_001, 0)] {
        // The loops do not run: an expired entry is not listed even before GC removes it.
        rig.now = now;
        assert_eq!(rig.view().live.len(), live, "live at {now}");
        assert_eq!(rig.view().records.len(), live, "recorded at {now}");
    }
}

#[test]
fn the_lease_granted_is_never_longer_than_this_natives_own() {
    let mut rig = Rig::new();
    for (asked, granted) in [(30, 30), (90, 90), (91, 90), (0, 0)] {
        let asked = Duration::from_secs(asked);
        let outcome = rig.beat_with(Role::Indexer, 1, 1, asked, None, None, &[]);
        assert_eq!(outcome.ack, Ack::accepted(Duration::from_secs(granted)));
    }
}

#[test]
fn giving_up_leaves_every_table_at_once() {
    let mut rig = Rig::new();
    rig.indexer(1);
    rig.drain();
    assert_eq!(
        rig.give_up(Role::Indexer, 1, 1),
        Ack::accepted(Duration::ZERO)
    );
    let view = rig.view();
    assert!(view.live.is_empty() && view.known.is_empty() && view.records.is_empty());
    let close = Action::Close {
        peer: peer(1),
        stream: StreamId(1),
        ended: Some(LeaseEnd {
            how: EndCause::Left,
            role: Role::Indexer,
            held_s: 0,
            silent_s: 0,
        }),
    };
    assert_eq!(rig.drain(), [close]);
}

#[test]
fn indexer_is_cut_off_from_the_end_of_its_newest_stream_until_it_beats_or_gives_its_lease_up() {
    let mut rig = Rig::new();
    rig.node(2);
    assert!(rig.view().expiry(2).is_some(), "it is taken in");
    rig.indexer(1);
    let closed = |rig: &mut Rig, n, stream| {
        let (peer, stream) = (&peer(n), StreamId(stream));
        let now = at(rig.now);
        rig.native.handle(now, Input::StreamClosed { peer, stream });
        rig.native.has_cut_off(peer)
    };
    assert!(!rig.native.has_cut_off(&peer(1)), "its stream is open");
    rig.beat(Role::Indexer, 1, 11, None);
    assert!(!closed(&mut rig, 1, 1), "a newer stream is open");
    assert!(closed(&mut rig, 1, 11));
    assert!(!closed(&mut rig, 2, 2), "a node is no indexer");
    rig.beat(Role::Indexer, 1, 12, None);
    assert!(!rig.native.has_cut_off(&peer(1)), "it is back");
    rig.give_up(Role::Indexer, 1, 12);
    assert!(!closed(&mut rig, 1, 12), "it has left in order");
}

#[test]
fn hearsay_and_refresh_do_not_bring_back_who_gave_its_lease_up() {
    let mut rig = Rig::new();
    rig.learn_native(9);
    rig.drain();
    rig.indexer(1);
    rig.now = 15_000;
    rig.give_up(Role::Indexer, 1, 1);
    // Copies of its record live for 270 s.
    for (now, known) in [(284_999, 0), (285_000, 0), (285_001, 1)] {
        rig.now = now;
        rig.beat_with(Role::Native, 9, 9, LEASE, None, None, &[peer(1)]);
        assert_eq!(rig.view().known.len(), known, "at {now}");
    }
}

#[test]
fn a_search_under_way_does_not_bring_back_who_gave_its_lease_up() {
    let mut rig = Rig::new();
    rig.native.remember(at(0), &peer(1));
    rig.run(20_000);
    rig.native
        .search_value(at(20_000), 20_000, &peer(1), &record(1, 1));
    rig.give_up(Role::Indexer, 1, 1);
    rig.native.search_ended(at(20_000), 20_000, &peer(1));
    rig.drain();
    assert!(rig.view().live.is_empty());
}

#[test]
fn a_beat_on_an_older_stream_is_refused_and_changes_nothing() {
    let mut rig = Rig::new();
    rig.beat(Role::Indexer, 1, 5, Some(&record(1, 1)));
    let before = rig.native.clone();
    assert_eq!(
        rig.beat(Role::Indexer, 1, 4, Some(&record(1, 2))).ack.code,
        AckCode::Refused
    );
    assert_eq!(
        rig.give_up(Role::Indexer, 1, 4).code,
        AckCode::Refused,
        "nor does it give the lease up"
    );
    rig.native.stream_closed(at(0), &peer(1), StreamId(4));
    assert_eq!(rig.native, before);
}

#[test]
fn a_record_of_somebody_else_is_refused() {
    let mut rig = Rig::new();
    let outcome = rig.beat(Role::Indexer, 1, 1, Some(&record(2, 1)));
    assert_eq!(outcome.ack.code, AckCode::Refused);
    assert!(rig.view().live.is_empty() && rig.view().records.is_empty());
}

#[test]
fn full_tables_refuse_newcomers_with_a_reason_and_still_renew() {
    let mut rig = Rig::new();
    for n in 1..=32 {
        rig.indexer(n);
    }
    let outcome = rig.beat(Role::Indexer, 33, 33, Some(&record(33, 1)));
    assert_eq!(outcome.ack.code, AckCode::Full);
    assert!(outcome.ack.reason.contains("OC_DISCOVERY_MAX_INDEXERS"));
    assert!(rig.view().expiry(33).is_none());
    for n in 40..48 {
        rig.beat(Role::Indexer, n, u64::from(n), None);
    }
    let outcome = rig.beat(Role::Indexer, 50, 50, None);
    assert_eq!(outcome.ack.code, AckCode::Full);
    assert!(outcome.ack.reason.contains("stream_records"));
    assert_eq!(rig.view().refused("stream_records"), 1);
    rig.indexer(32);
}

#[test]
fn the_addresses_of_the_device_that_holds_the_lease_count_whatever_the_other_signed() {
    let mut rig = Rig::new();
    let source = |host: u8| {
        let ip = core::net::IpAddr::from([192, 0, 2, host]);
        core::net::SocketAddr::new(ip, 1000).into()
    };
    for (stream, host, sequence) in [(1, 1, 5), (2, 2, 9), (3, 1, 5)] {
        let opened = rig
            .native
            .stream_opened(at(0), &peer(7), StreamId(stream), source(host));
        assert_eq!(opened, FirstBeat::Now);
        let info = RecordInfo {
            addrs: addrs(host),
            ..record(7, sequence)
        };
        rig.beat(Role::Indexer, 7, stream, Some(&info));
        let entry = rig.native.live_indexers.find(at(0), &peer(7)).unwrap();
        assert_eq!(entry.addrs, addrs(host));
    }
    let held = rig
        .native
        .stream_opened(at(0), &peer(7), StreamId(4), source(2));
    assert_eq!(held, FirstBeat::Held);
}

#[test]
fn what_it_has_announced_is_announced_again_when_the_network_has_changed() {
    let mut rig = Rig::new();
    let own = record(100, 1);
    rig.beat(Role::Node, 100, 100, Some(&own));
    let announced = |out: Vec<(u64, Action)>| {
        let is_announced = |(at, action)| matches!(action, Action::Announce { .. }).then_some(at);
        out.into_iter().filter_map(is_announced).collect::<Vec<_>>()
    };
    assert_eq!(announced(rig.run(0)), [0]);
    let key = Key::Name(own.name);
    rig.native.handle(
        at(10),
        Input::Announced {
            key: &key,
            end: AnnounceEnd::Taken,
        },
    );
    rig.now = 5_000;
    rig.native.network_changed(at(5_000));
    assert_eq!(announced(rig.run(10_000)), [7_000]);
}
