//! The DHT that natives and indexers share: Kademlia over a bounded store, and the searches under way.
//!
//! Invariants: only verified records of ours are stored, and the best one of a peer is kept; the peers of the routing table are
//! those that said by identify that they speak `/oc/kad/1.0.0`, at most [`MAX_PEER_ADDRS`] addresses each. Kademlia's own jobs
//! (republication, replication, periodic bootstrap, caching) are off: who signs a record anew has it PUT anew.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    kad::{
        self, BucketInserts, Caching, GetRecordOk, Mode, QueryId, QueryResult, Quorum, Record,
        RecordKey, StoreInserts, store::RecordStore,
    },
};

use super::store::BoundedStore;
use crate::{
    protocol,
    wire::{
        self, Kind,
        record::{OpenRecord, RecordError, open_indexer, open_node},
    },
};

/// Kademlia's protocol name in this system.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/oc/kad/1.0.0");
/// Addresses of one peer in the routing table.
pub(crate) const MAX_PEER_ADDRS: usize = 4;
/// Peers in one bucket, and copies of a record. Natives are few: 8 copies outlive many failures, and smaller buckets
/// keep an idle native small.
const BUCKET_SIZE: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");
/// Bytes of one Kademlia message at most: 8 peers with their addresses and a record.
const MAX_PACKET: usize = 8 * 1024;
/// How long a query may take; the refresh loop ends its searches itself at 5 s.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// The Kademlia behaviour as used here.
pub(crate) type Kademlia = kad::Behaviour<BoundedStore>;

/// Names a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SearchId(QueryId);

/// What Kademlia's events mean here.
#[derive(Debug)]
pub(crate) enum DhtEvent {
    /// A search found a record: verified, not judged by time.
    Found {
        search: SearchId,
        record: Box<OpenRecord>,
        envelope: Vec<u8>,
    },
    /// A search has come to its end.
    Ended { search: SearchId },
    /// Another peer wants a record stored: verified, not judged by time.
    Offered {
        record: Box<OpenRecord>,
        envelope: Vec<u8>,
        kind: Kind,
    },
}

/// Makes the behaviour of a DHT server with room for `capacity` records.
pub(crate) fn kademlia(own: PeerId, capacity: usize) -> Kademlia {
    let mut config = kad::Config::new(PROTOCOL);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_kbucket_size(BUCKET_SIZE)
        .set_replication_factor(BUCKET_SIZE)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_periodic_bootstrap_interval(None)
        .set_caching(Caching::Disabled)
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_max_packet_size(MAX_PACKET);
    let mut kademlia = Kademlia::with_config(own, BoundedStore::new(capacity), config);
    kademlia.set_mode(Some(Mode::Server));
    kademlia
}

/// The searches under way, and what there is to say about the store.
#[derive(Default)]
pub(crate) struct Dht {
    searches: HashMap<QueryId, (Kind, protocol::PeerId)>,
}

impl Dht {
    /// Searches for the peer's record.
    pub(crate) fn search(
        &mut self,
        kademlia: &mut Kademlia,
        kind: Kind,
        peer: protocol::PeerId,
    ) -> SearchId {
        let query = kademlia.get_record(key(kind, &peer));
        self.searches.insert(query, (kind, peer));
        SearchId(query)
    }

    /// Ends a search; nothing more is heard of it.
    pub(crate) fn end_search(&mut self, kademlia: &mut Kademlia, search: SearchId) {
        self.searches.remove(&search.0);
        if let Some(mut query) = kademlia.query_mut(&search.0) {
            query.finish();
        }
    }

    /// Translates an event; `None` if it means nothing here.
    pub(crate) fn translate(&mut self, event: kad::Event) -> Option<DhtEvent> {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result: QueryResult::GetRecord(result),
                step,
                ..
            } => self.progressed(id, result, step.last),
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::PutRecord {
                        record: Some(record),
                        ..
                    },
            } => offered(record),
            _ => None,
        }
    }

    fn progressed(
        &mut self,
        id: QueryId,
        result: Result<GetRecordOk, kad::GetRecordError>,
        last: bool,
    ) -> Option<DhtEvent> {
        let (kind, peer) = *self.searches.get(&id)?;
        let search = SearchId(id);
        if last {
            self.searches.remove(&id);
        }
        if let Ok(GetRecordOk::FoundRecord(found)) = result
            && let Ok(record) = open(kind, &found.record.value)
            && record.info.peer == peer
        {
            return Some(DhtEvent::Found {
                search,
                record: Box::new(record),
                envelope: found.record.value,
            });
        }
        last.then_some(DhtEvent::Ended { search })
    }
}

/// Keeps a verified record if it is better than what is stored. `left`: how long it still lives.
pub(crate) fn keep(
    kademlia: &mut Kademlia,
    kind: Kind,
    record: &OpenRecord,
    envelope: Vec<u8>,
    left: Duration,
) -> bool {
    let key = key(kind, &record.info.peer);
    if let Some(old) = kademlia.store_mut().get(&key)
        && let Ok(old) = open(kind, &old.value)
        && old.info.rank() >= record.info.rank()
    {
        return false;
    }
    kademlia
        .store_mut()
        .put(stored(key, envelope, left))
        .is_ok()
}

/// PUTs a verified record: keeps it and gives it to the peers nearest to its key.
pub(crate) fn publish(
    kademlia: &mut Kademlia,
    kind: Kind,
    peer: &protocol::PeerId,
    envelope: Vec<u8>,
    left: Duration,
) {
    let record = stored(key(kind, peer), envelope, left);
    if let Err(error) = kademlia.put_record(record, Quorum::One) {
        log::warn!(
            "the DHT store has no room for the record of {}: {error}",
            PeerId::from(*peer)
        );
    }
}

/// The key of a peer's record.
pub(crate) fn key(kind: Kind, peer: &protocol::PeerId) -> RecordKey {
    match kind {
        Kind::Indexer => wire::indexer_key(peer),
        Kind::Node => wire::node_key(peer),
    }
}

/// A peer told by identify where it listens and that it is a DHT server.
pub(crate) fn route(
    kademlia: &mut Kademlia,
    peer: &PeerId,
    addrs: impl Iterator<Item = Multiaddr>,
) {
    for addr in addrs.take(MAX_PEER_ADDRS) {
        kademlia.add_address(peer, addr);
    }
}

fn open(kind: Kind, envelope: &[u8]) -> Result<OpenRecord, RecordError> {
    match kind {
        Kind::Indexer => open_indexer(envelope),
        Kind::Node => open_node(envelope),
    }
}

fn offered(record: Record) -> Option<DhtEvent> {
    let (kind, peer) = wire::parse_key(record.key.as_ref())?;
    let opened = open(kind, &record.value)
        .ok()
        .filter(|opened| opened.info.peer == peer)?;
    Some(DhtEvent::Offered {
        record: Box::new(opened),
        envelope: record.value,
        kind,
    })
}

fn stored(key: RecordKey, value: Vec<u8>, left: Duration) -> Record {
    Record {
        key,
        value,
        publisher: None,
        expires: Some(Instant::now() + left),
    }
}
