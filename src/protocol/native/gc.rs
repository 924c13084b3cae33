//! `LongLivedStreamRecordedService GC`: removes the peers with stale leases, in one synchronous
//! step.
//!
//! ```text
//!  tick ─▶ for every record of stream_records:
//!            now > expiry, or time since last_seen > 2 × what remains of the lease?
//!              │ yes
//!              ▼
//!            removed from the tables of all protocols; its heartbeat stream is closed;
//!            its entry in live_indexers expires by itself
//! ```
//!
//! No event is processed between two records, so no partial state is ever visible. The other peers
//! are not affected.
//!
//! Invariants: a peer that beats stays even if one beat is lost, because two beat intervals are
//! shorter than two thirds of a lease; a silent peer has been removed from every table a lease and
//! one run of the loop after its last beat.

use crate::protocol::{
    Instant, Name, PeerId, Presence, Role,
    directory::Directory,
    lease_table::{LeaseTable, StreamRecord},
};

use super::{delegation::Delegation, live_indexers::LiveIndexers};

/// One run of the loop over the tables of all protocols. Returns how many peers it has removed.
pub(super) fn gc<const I: usize, const R: usize, const S: usize>(
    now: Instant,
    streams: &mut LeaseTable<S>,
    delegation: &mut Delegation<R>,
    directory: &mut Directory<S>,
    live: &mut LiveIndexers<I>,
) -> usize {
    let removed = streams.collect(now, |record| end(now, record, delegation, directory, live));
    live.expire(now);
    directory.lost_mut().expire(now);
    removed
}

/// The same between runs, but only for expired leases, so that they take no room from `newcomer`.
pub(super) fn expire<const I: usize, const R: usize, const S: usize>(
    now: Instant,
    newcomer: &PeerId,
    streams: &mut LeaseTable<S>,
    delegation: &mut Delegation<R>,
    directory: &mut Directory<S>,
    live: &mut LiveIndexers<I>,
) {
    streams.expire(now, newcomer, |record| {
        end(now, record, delegation, directory, live);
    });
}

/// Removes the peer of a record that is over from the tables of all protocols, and takes note of
/// it as lost. A node that was handed over belongs to its indexer, so this native does not know
/// whether it is lost.
fn end<const I: usize, const R: usize, const S: usize>(
    now: Instant,
    record: &StreamRecord,
    delegation: &mut Delegation<R>,
    directory: &mut Directory<S>,
    live: &mut LiveIndexers<I>,
) {
    let peer = &record.peer;
    let now_is = match delegation.contains(peer) {
        true => Presence::Lost,
        false => Presence::Alive,
    };
    delegation.forget(peer);
    directory.unlist(now, peer, now_is);
    live.lease_ended(peer);
    if record.role != Role::Node {
        directory.lose(now, peer, Name::new(), record.role, Presence::Lost);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;
    use crate::protocol::{Addrs, RecordInfo, Shortage, StreamId, signing::record_ttl};

    const LEASE: Duration = Duration::from_secs(90);

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn peer(n: u8) -> PeerId {
        PeerId::from_bytes([n; 32])
    }

    fn record(n: u8) -> RecordInfo {
        RecordInfo {
            peer: peer(n),
            sequence: 1,
            issued_at_ms: 0,
            ttl: record_ttl(LEASE),
            addrs: Addrs::new(),
            name: Name::try_from("pump").unwrap(),
        }
    }

    #[test]
    fn a_stale_peer_leaves_the_tables_of_all_protocols_and_nobody_else_does() {
        let mut streams = LeaseTable::<8>::new();
        let mut delegation = Delegation::<8>::new();
        let mut directory = Directory::<8>::new();
        let mut live = LiveIndexers::<8>::new();
        for (n, seen) in [(1, 0), (2, 20_000)] {
            streams.grant(at(seen), peer(n), Role::Node, StreamId(u64::from(n)), LEASE);
            delegation.take_in(at(seen), &peer(n), Shortage::NoneLive);
            directory.list(at(seen), &record(n), b"signed");
            live.beat(at(seen), &peer(n), LEASE, None, Some(&record(n)))
                .unwrap();
        }

        gc(
            at(60_000),
            &mut streams,
            &mut delegation,
            &mut directory,
            &mut live,
        );
        assert_eq!(
            streams.iter().count(),
            2,
            "one tick before, no lease is stale"
        );

        gc(
            at(60_001),
            &mut streams,
            &mut delegation,
            &mut directory,
            &mut live,
        );
        assert!(streams.find(&peer(1)).is_none());
        assert!(!delegation.contains(&peer(1)));
        assert!(directory.find(&peer(1)).is_none());
        assert_eq!(streams.pop_stream(), Some((peer(1), StreamId(1))));
        assert!(
            live.find(at(60_001), &peer(1)).is_some(),
            "left to run out by itself"
        );

        assert!(streams.find(&peer(2)).is_some() && delegation.contains(&peer(2)));
        assert!(directory.find(&peer(2)).is_some());
        assert_eq!(streams.pop_stream(), None);

        gc(
            at(90_000),
            &mut streams,
            &mut delegation,
            &mut directory,
            &mut live,
        );
        assert!(live.find(at(90_000), &peer(1)).is_some());
        gc(
            at(90_001),
            &mut streams,
            &mut delegation,
            &mut directory,
            &mut live,
        );
        assert!(live.find(at(90_001), &peer(1)).is_none());
    }
}
