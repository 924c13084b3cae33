mod rivals;

use super::*;
use crate::protocol::{AckCode, Action};

const LEASE: Duration = Duration::from_secs(90);

impl<const S: usize> LeaseTable<S> {
    /// A beat without a record that is admitted and renews the lease.
    /// The next stream to close.
    pub(crate) fn pop_stream(&mut self) -> Option<(PeerId, StreamId)> {
        self.pop_closed().map(|(peer, stream, _)| (peer, stream))
    }

    pub(crate) fn grant(
        &mut self,
        now: Instant,
        peer: PeerId,
        role: Role,
        stream: StreamId,
        lease: Duration,
    ) -> Arrival {
        let beat = Beat::new(role, lease);
        let sender = self.admit(&peer, stream, &beat).unwrap();
        self.renew(now, &sender, role, lease)
    }
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn table_with(peers: &[u8], now: Instant) -> LeaseTable<4> {
    let mut table = LeaseTable::new();
    for &n in peers {
        table.grant(now, peer(n), Role::Indexer, StreamId(u64::from(n)), LEASE);
    }
    table
}

#[test]
fn a_silent_lease_is_stale_just_after_two_thirds_of_it() {
    let (seen, expiry) = (at(0), at(90_000));
    assert!(!is_stale(at(59_999), seen, expiry));
    assert!(!is_stale(at(60_000), seen, expiry), "equal is not more");
    assert!(is_stale(at(60_001), seen, expiry));
}

#[test]
fn a_lease_is_stale_after_its_expiry_even_if_just_seen() {
    assert!(!is_stale(at(90_000), at(90_000), at(90_000)));
    assert!(is_stale(at(90_001), at(90_001), at(90_000)));
}

#[test]
fn what_remains_of_a_lease_saturates_at_zero() {
    assert!(is_stale(at(u64::MAX), at(0), at(1)));
    assert!(
        !is_stale(at(0), at(5), at(10)),
        "a clock that stood still makes nothing stale"
    );
}

#[test]
fn late_beat_renews_before_gc() {
    let mut table = table_with(&[1], at(0));
    table.grant(at(60_001), peer(1), Role::Indexer, StreamId(1), LEASE);
    table.collect(at(60_001), |_| panic!("it was renewed"));
    assert_eq!(table.find(&peer(1)).unwrap().expiry, at(150_001));
}

#[test]
fn gc_takes_the_stale_and_leaves_the_others_undisturbed() {
    let mut table = table_with(&[1, 2, 3], at(0));
    table.grant(at(30_000), peer(2), Role::Indexer, StreamId(2), LEASE);
    let before = table.find(&peer(2)).cloned();
    let mut gone = std::vec::Vec::new();
    table.collect(at(60_001), |record| gone.push(record.peer));
    gone.sort();
    assert_eq!(gone, [peer(1), peer(3)]);
    assert_eq!(table.find(&peer(2)).cloned(), before);
    let closed: std::vec::Vec<_> = std::iter::from_fn(|| table.pop_stream()).collect();
    assert_eq!(closed.len(), 2);
    assert!(!closed.contains(&(peer(2), StreamId(2))));
}

#[test]
fn a_newer_stream_replaces_the_older_whose_late_end_touches_nothing() {
    let mut table = table_with(&[1], at(0));
    table.grant(at(1_000), peer(1), Role::Indexer, StreamId(9), LEASE);
    assert_eq!(table.pop_stream(), Some((peer(1), StreamId(1))));
    assert!(!table.disconnected(&peer(1), StreamId(1)));
    assert!(table.find(&peer(1)).unwrap().connected);
    assert!(table.disconnected(&peer(1), StreamId(9)));
    assert!(!table.find(&peer(1)).unwrap().connected);
}

fn source(stream: u64, host: u8) -> TransportAddr {
    let ip = core::net::IpAddr::from([192, 0, 2, host]);
    core::net::SocketAddr::new(ip, 1000 + stream as u16).into()
}

/// The answer to the first beat of a new stream from this address, if it is not held. Without a
/// refusal the beat renews the lease.
fn beat_from(table: &mut LeaseTable<4>, now: u64, stream: u64, host: u8) -> Option<Ack<'_>> {
    let from = source(stream, host);
    match table.stream_opened(at(now), &peer(1), StreamId(stream), from) {
        FirstBeat::Now => beat_on(table, now, stream),
        FirstBeat::Held => None,
    }
}

fn beat_on(table: &mut LeaseTable<4>, now: u64, stream: u64) -> Option<Ack<'static>> {
    refusal_on(table, now, stream).map(|refused| refused.ack)
}

/// The same with what the beat has changed.
fn refusal_on(table: &mut LeaseTable<4>, now: u64, stream: u64) -> Option<BeatOutcome<'static>> {
    let beat = Beat::new(Role::Node, LEASE);
    let peer = peer(1);
    match table.admit(&peer, StreamId(stream), &beat) {
        Ok(sender) => {
            table.renew(at(now), &sender, Role::Node, LEASE);
            None
        }
        Err(refused) => Some(refused),
    }
}

#[test]
fn the_first_beat_of_a_stream_from_another_host_shows_that_the_peer_moved() {
    let mut table = LeaseTable::<4>::new();
    beat_from(&mut table, 0, 1, 1);
    let beat = Beat::new(Role::Node, LEASE);
    for (stream, host, moved) in [(2, 1, false), (3, 2, true)] {
        table.stream_opened(at(1), &peer(1), StreamId(stream), source(stream, host));
        for moved in [moved, false] {
            let peer = peer(1);
            let sender = table.admit(&peer, StreamId(stream), &beat).unwrap();
            assert_eq!(sender.moved, moved);
            table.renew(at(1), &sender, Role::Node, LEASE);
        }
    }
}

#[test]
fn a_full_table_refuses_newcomers_and_still_renews() {
    let mut table = table_with(&[1, 2, 3, 4], at(0));
    let beat = Beat::new(Role::Node, LEASE);
    let mut no_room_for = |n| {
        let from = peer(n);
        let sender = table.admit(&from, StreamId(9), &beat).unwrap();
        table.no_room_for(at(1), &sender, || Memory::None)
    };
    let ack = no_room_for(5).unwrap();
    assert_eq!(ack.code, AckCode::Full);
    assert!(ack.reason.contains("stream_records is full"));
    assert_eq!(no_room_for(4), None);
    assert_eq!(table.stats().refused, 1);
}

#[test]
fn a_late_beat_into_a_full_table_keeps_its_lease_and_its_stream() {
    let mut table = table_with(&[1, 2, 3, 4], at(0));
    let mut gone = std::vec::Vec::new();
    table.expire(at(90_001), &peer(1), |record| gone.push(record.peer));
    gone.sort();
    assert_eq!(gone, [peer(2), peer(3), peer(4)]);
    table.grant(at(90_001), peer(1), Role::Indexer, StreamId(1), LEASE);
    let closed: std::vec::Vec<_> = std::iter::from_fn(|| table.pop_stream()).collect();
    assert!(!closed.contains(&(peer(1), StreamId(1))));
    assert_eq!(table.find(&peer(1)).unwrap().expiry, at(180_001));
}

#[test]
fn sleeping_moves_leases_on_by_the_gap() {
    let mut table = table_with(&[1], at(0));
    table.shift(at(3_600_000), Duration::from_secs(3600));
    table.collect(at(3_660_000), |_| panic!("slept, not silent"));
    assert_eq!(table.iter().count(), 1);
    table.collect(at(3_660_001), |_| ());
    assert_eq!(table.iter().count(), 0);
}

#[test]
fn who_was_heard_while_catching_up_moves_on_by_no_more_than_its_silence() {
    let mut table = table_with(&[1, 2], at(0));
    table.grant(at(3_600_000), peer(1), Role::Indexer, StreamId(1), LEASE);
    table.shift(at(3_600_010), Duration::from_secs(3600));
    assert_eq!(table.find(&peer(1)).unwrap().expiry, at(3_690_010));
    assert_eq!(table.find(&peer(2)).unwrap().expiry, at(3_690_000));
}

#[test]
fn a_lease_that_beats_do_not_renew_any_more_is_not_told_as_silent() {
    let mut table = table_with(&[1, 2], at(1_000));
    let beat = Beat::new(Role::Indexer, LEASE);
    let peers = [peer(1), peer(2)];
    for (at_ms, renews) in [(40_000, true), (60_000, false), (90_000, false)] {
        for (n, peer) in (1..).zip(&peers) {
            let sender = table.admit(peer, StreamId(n), &beat).unwrap();
            match renews || n == 2 {
                true => drop(table.renew(at(at_ms), &sender, Role::Indexer, LEASE)),
                false => drop(table.seen(at(at_ms), &sender)),
            }
        }
    }
    let how = |table: &mut LeaseTable<4>| ends(table).first().map(|(peer, end)| (*peer, end.how));
    table.collect(at(130_001), |_| ());
    assert_eq!(how(&mut table), Some((peer(1), EndCause::Released)));
    table.collect(at(180_001), |_| ());
    assert_eq!(how(&mut table), Some((peer(2), EndCause::Lost)));
}

/// What is said of the leases that have ended.
fn ends(table: &mut LeaseTable<4>) -> std::vec::Vec<(PeerId, LeaseEnd)> {
    let closed = std::iter::from_fn(|| table.pop_closed());
    closed
        .filter_map(|(peer, _, end)| Some((peer, end?)))
        .collect()
}

#[test]
fn the_end_of_a_lease_says_how_it_ended_and_how_long_it_was() {
    let mut table = table_with(&[1, 2], at(1_000));
    table.grant(at(31_000), peer(1), Role::Indexer, StreamId(9), LEASE);
    assert_eq!(ends(&mut table), [], "a newer stream ends no lease");
    table.remove(at(40_000), &peer(1), EndCause::Left);
    let end = |how, held, silent| LeaseEnd {
        how,
        role: Role::Indexer,
        held_s: held,
        silent_s: silent,
    };
    assert_eq!(ends(&mut table), [(peer(1), end(EndCause::Left, 39, 9))]);
    table.collect(at(91_001), |_| ());
    assert_eq!(ends(&mut table), [(peer(2), end(EndCause::Lost, 90, 90))]);
}

#[test]
fn peer_that_was_away_is_back_once_with_the_time_between() {
    let back = |ms| Arrival::Back {
        source: None,
        away: Duration::from_millis(ms),
    };
    let mut table = table_with(&[1], at(0));
    let mut beat =
        |now, stream| table.grant(at(now), peer(1), Role::Indexer, StreamId(stream), LEASE);
    assert_eq!(beat(30_000, 1), Arrival::Known);
    // No run of GC has removed the lease that has run out.
    assert_eq!(beat(120_000, 1), Arrival::Known);
    assert_eq!(beat(210_001, 1), back(90_001));
    assert_eq!(
        beat(210_002, 2),
        Arrival::Known,
        "a newer stream replaced it"
    );
    table.disconnected(&peer(1), StreamId(2));
    let mut beat = |now| table.grant(at(now), peer(1), Role::Indexer, StreamId(3), LEASE);
    assert_eq!(beat(250_002), back(40_000));
    assert_eq!(beat(250_003), Arrival::Known);
}
