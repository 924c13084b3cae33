//! The DHT that natives and indexers share: Kademlia over a bounded store, and the searches under
//! way.
//!
//! Invariants: only verified records of this system are stored, and the best one of each peer is
//! kept; the routing table holds the peers that announced `/oc/kad/1.0.0` by identify, at the
//! addresses at which they were found ([`claims`]), at most [`MAX_PEER_ADDRS`] each; at most
//! [`MAX_PUTS`] PUTs are under way, the others wait. Kademlia's own jobs (republication,
//! replication, periodic bootstrap, caching) are off: each newly signed record is PUT once.

pub(super) mod claims;
mod dials;
pub(super) mod routing;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use libp2p::{
    PeerId, StreamProtocol,
    kad::{
        self, BucketInserts, Caching, GetProvidersOk, GetRecordOk, Mode, ProgressStep, QueryId,
        QueryResult, QueryStats, Quorum, Record, RecordKey, StoreInserts, store::RecordStore,
    },
};

use super::{
    each::{About, each, short_id},
    providers,
    scope::is_loopback,
    store::BoundedStore,
    undialable::is_kept,
};
use crate::{
    net::{
        convert,
        envelope::{OpenRecord, open_indexer, open_node},
    },
    protocol::{
        self, Addrs, AnnounceEnd, Coverage, Key, RecordInfo, TableStats,
        address::Prefix,
        codec::record::{Kind, RecordError},
        lookup::MAX_NAMED,
    },
};

pub(crate) use self::routing::{forget_loopback, route};
use self::{claims::Claims, dials::Dials, routing::reachable_at};

/// Kademlia's protocol name in this system.
pub(crate) const PROTOCOL: StreamProtocol = StreamProtocol::new("/oc/kad/1.0.0");
/// Addresses of one peer in the routing table.
pub(crate) const MAX_PEER_ADDRS: usize = 4;
/// Peers in one bucket, and copies of a record. Natives are few: 8 copies outlive many failures,
/// and smaller buckets keep an idle native small. Kademlia names as many providers in an answer.
const BUCKET_SIZE: NonZeroUsize = NonZeroUsize::new(MAX_NAMED).expect("not zero");
/// Bytes of one Kademlia message at most: 8 peers with their addresses and a record.
const MAX_PACKET: usize = 8 * 1024;
/// How long a query may take; the refresh loop ends its searches itself at 5 s.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a query waits for one server to be connected, and then for its answer. Three servers
/// that are silent then take less than the time of a search for providers.
const PATIENCE: Duration = Duration::from_secs(1);

/// PUTs under way at most, so that a burst of new leases does not become a burst of streams to the
/// other natives.
const MAX_PUTS: usize = 8;
/// PUTs that wait at most. When more wait, the first is dropped; its record is PUT again after its
/// next signature.
const MAX_WAITING_PUTS: usize = 1024;

/// The Kademlia behaviour as used here.
pub(crate) type Kademlia = kad::Behaviour<BoundedStore>;

/// Names a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SearchId(QueryId);

/// Kademlia's events as far as they matter here.
#[derive(Debug)]
pub(crate) enum DhtEvent {
    /// A search found a record. It is verified, but its expiry is not checked.
    Found {
        search: SearchId,
        record: Box<OpenRecord>,
        envelope: Vec<u8>,
    },
    /// A server named these peers, without this one, as those that announced the key.
    Provided {
        search: SearchId,
        /// Each with the addresses at which it can be reached; none if they are not known.
        servers: Vec<(protocol::PeerId, Addrs)>,
        /// It may know of more if it named as many as one answer has room for.
        coverage: Coverage,
    },
    /// A search has ended.
    Ended {
        search: SearchId,
        /// Servers of the DHT that answered.
        reached: u16,
    },
    Announced {
        key: Key,
        end: AnnounceEnd,
    },
    /// Another peer asks this one to store a record. It is verified, but its expiry is not checked.
    Offered {
        record: Box<OpenRecord>,
        envelope: Vec<u8>,
        kind: Kind,
        /// The network of the peer that asks, if it is known.
        from: Option<Prefix>,
    },
}

/// Makes the behaviour of a DHT server with room for this many records and providers.
pub(crate) fn kademlia(own: PeerId, records: usize, providers: usize) -> Kademlia {
    let mut config = kad::Config::new(PROTOCOL);
    config
        .set_query_timeout(QUERY_TIMEOUT)
        .set_substreams_timeout(PATIENCE)
        .set_kbucket_size(BUCKET_SIZE)
        .set_replication_factor(BUCKET_SIZE)
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_replication_interval(None)
        .set_publication_interval(None)
        .set_provider_publication_interval(None)
        .set_provider_record_ttl(Some(providers::LIFETIME))
        .set_periodic_bootstrap_interval(None)
        .set_caching(Caching::Disabled)
        .set_kbucket_inserts(BucketInserts::Manual)
        .set_max_packet_size(MAX_PACKET);
    let mut kademlia =
        Kademlia::with_config(own, BoundedStore::new(own, records, providers), config);
    kademlia.set_mode(Some(Mode::Server));
    kademlia
}

/// What a search is for.
#[derive(Clone, Copy)]
enum Wanted {
    Record(Kind, protocol::PeerId),
    Providers,
}

/// The own PUTs, announcements and searches that are under way.
#[derive(Default)]
pub(crate) struct Dht {
    searches: HashMap<QueryId, Wanted>,
    announcements: HashMap<QueryId, Key>,
    puts: HashSet<QueryId>,
    /// Keys of records in the store that wait for their PUT.
    to_put: VecDeque<RecordKey>,
    /// Those that were dropped.
    dropped: u64,
    /// Where servers of the DHT say that they are.
    pub(super) claims: Claims,
    /// Dials of the swarm, which searches wait for.
    pub(super) dials: Dials,
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
        self.searches.insert(query, Wanted::Record(kind, peer));
        SearchId(query)
    }

    /// Searches for the peers that announced the key.
    pub(crate) fn providers(&mut self, kademlia: &mut Kademlia, key: &Key) -> SearchId {
        let query = kademlia.get_providers(convert::provider_key(key));
        self.searches.insert(query, Wanted::Providers);
        SearchId(query)
    }

    /// Announces that this peer knows which node has the key. Returns whether that began; then it
    /// ends in [`DhtEvent::Announced`].
    pub(crate) fn provide(&mut self, kademlia: &mut Kademlia, key: &Key) -> bool {
        let query = kademlia.start_providing(convert::provider_key(key)).ok();
        self.announcements
            .extend(query.map(|query| (query, key.clone())));
        query.is_some()
    }

    /// The kind of record that is searched for; `None` if it is none.
    pub(crate) fn kind_of(&self, search: SearchId) -> Option<Kind> {
        match self.searches.get(&search.0)? {
            Wanted::Record(kind, _) => Some(*kind),
            Wanted::Providers => None,
        }
    }

    /// Ends a search. No event of it follows.
    pub(crate) fn end_search(&mut self, kademlia: &mut Kademlia, search: SearchId) {
        self.searches.remove(&search.0);
        if let Some(mut query) = kademlia.query_mut(&search.0) {
            query.finish();
        }
    }

    /// PUTs a record that its subject sent to this peer: stores it and sends it to the peers
    /// nearest to its key, unless a better one is stored that is valid at `own_ms`.
    pub(crate) fn publish(
        &mut self,
        kademlia: &mut Kademlia,
        kind: Kind,
        info: &RecordInfo,
        envelope: Vec<u8>,
        own_ms: u64,
    ) {
        let key = key(kind, &info.peer);
        // The subject holds a lease here, since only then is its record published. So the record
        // must not be evicted.
        kademlia.store_mut().protect(&key);
        if kademlia.store_mut().rank(&key, own_ms) > Some(info.rank()) {
            return;
        }
        // A record from its own subject is judged by its time to live from receipt (PROTOCOL.md).
        if let Err(error) = store(kademlia, key.clone(), (info, None), envelope, info.ttl) {
            let about = About::peer(&PeerId::from(info.peer));
            each!(
                warn,
                &about;
                "the DHT store has no room for the record of {}: {error}",
                short_id(&about.peer)
            );
            return;
        }
        if !self.to_put.contains(&key) {
            if self.to_put.len() == MAX_WAITING_PUTS {
                self.to_put.pop_front();
                self.dropped = self.dropped.saturating_add(1);
            }
            self.to_put.push_back(key);
        }
        self.put_next(kademlia);
    }

    /// The statistics of the records that wait for their PUT.
    pub(crate) fn waiting_puts(&self) -> TableStats {
        TableStats {
            name: "dht_puts",
            used: self.to_put.len(),
            capacity: MAX_WAITING_PUTS,
            refused: 0,
            evicted: self.dropped,
        }
    }

    fn put_next(&mut self, kademlia: &mut Kademlia) {
        while self.puts.len() < MAX_PUTS
            && let Some(key) = self.to_put.pop_front()
        {
            // The record may have been removed in the meantime.
            let record = kademlia.store_mut().get(&key).map(|put| put.into_owned());
            let put = record.and_then(|record| kademlia.put_record(record, Quorum::One).ok());
            self.puts.extend(put);
        }
    }

    /// Translates an event; `None` if it means nothing here. `loopback`: loopback addresses may be
    /// announced to every known peer. `from`: the network of the peer that asks, if it is known.
    /// `may_store`: what the peer PUTs or announces is stored.
    pub(crate) fn translate(
        &mut self,
        kademlia: &mut Kademlia,
        event: kad::Event,
        loopback: bool,
        from: Option<Prefix>,
        may_store: &dyn Fn(&PeerId) -> bool,
    ) -> Option<DhtEvent> {
        match event {
            kad::Event::OutboundQueryProgressed {
                id,
                result,
                stats,
                step,
            } => self.progressed(kademlia, id, result, &stats, &step, loopback),
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::PutRecord {
                        source,
                        record: Some(record),
                        ..
                    },
            } if may_store(&source) => offered(record, from),
            kad::Event::InboundRequest {
                request:
                    kad::InboundRequest::AddProvider {
                        record: Some(mut record),
                    },
            } if may_store(&record.provider) => {
                record
                    .addresses
                    .retain(|addr| is_kept(addr) && (loopback || !is_loopback(addr)));
                // If there is no room, this is counted, and seven other servers keep it.
                let _ = kademlia
                    .store_mut()
                    .providers
                    .add(&record, from, Instant::now());
                None
            }
            kad::Event::RoutingUpdated {
                peer, addresses, ..
            } => {
                // Kademlia adds the address at which a peer was dialled.
                let usable = addresses
                    .iter()
                    .filter(|addr| loopback || !is_loopback(addr));
                let keep: Vec<_> = usable.take(MAX_PEER_ADDRS).collect();
                for addr in addresses.iter().filter(|addr| !keep.contains(addr)) {
                    kademlia.remove_address(&peer, addr);
                }
                None
            }
            _ => None,
        }
    }

    /// Translates what a query of ours has found, or its end.
    fn progressed(
        &mut self,
        kademlia: &mut Kademlia,
        id: QueryId,
        result: QueryResult,
        stats: &QueryStats,
        step: &ProgressStep,
        loopback: bool,
    ) -> Option<DhtEvent> {
        match result {
            QueryResult::GetRecord(result) => {
                let found = self.found(id, result);
                found.or_else(|| self.ended(id, stats.num_successes(), step.last))
            }
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                // Our own store has room for all in its answer.
                let most = match stats.num_requests() {
                    0 => providers::MAX_PER_KEY,
                    _ => MAX_NAMED,
                };
                self.named(kademlia, id, (&providers, most), loopback)
            }
            QueryResult::GetProviders(_) => self.ended(id, stats.num_successes(), step.last),
            QueryResult::StartProviding(result) => Some(DhtEvent::Announced {
                key: self.announcements.remove(&id)?,
                // Kademlia reports a success even if it knew no server to send it to.
                end: match result.is_ok() && stats.num_successes() > 0 {
                    true => AnnounceEnd::Taken,
                    false => AnnounceEnd::Failed,
                },
            }),
            _ => {
                if step.last && self.puts.remove(&id) {
                    self.put_next(kademlia);
                }
                None
            }
        }
    }

    fn found(
        &self,
        id: QueryId,
        result: Result<GetRecordOk, kad::GetRecordError>,
    ) -> Option<DhtEvent> {
        let Wanted::Record(kind, peer) = *self.searches.get(&id)? else {
            return None;
        };
        let Ok(GetRecordOk::FoundRecord(found)) = result else {
            return None;
        };
        let record = open(kind, &found.record.value).ok()?;
        (record.info.peer == peer).then(|| DhtEvent::Found {
            search: SearchId(id),
            record: Box::new(record),
            envelope: found.record.value,
        })
    }

    fn named(
        &self,
        kademlia: &mut Kademlia,
        id: QueryId,
        (providers, most): (&HashSet<PeerId>, usize),
        loopback: bool,
    ) -> Option<DhtEvent> {
        self.searches.get(&id)?;
        let others = providers
            .iter()
            .filter_map(|peer| protocol::PeerId::try_from(*peer).ok())
            .filter(|peer| !kademlia.store_mut().providers.is_own(peer))
            .collect::<Vec<_>>();
        let servers = others.into_iter().map(|peer| {
            let addrs = reachable_at(kademlia, &peer, loopback);
            (peer, addrs)
        });
        Some(DhtEvent::Provided {
            search: SearchId(id),
            servers: servers.collect(),
            coverage: match providers.len() < most {
                true => Coverage::Complete,
                false => Coverage::Partial,
            },
        })
    }

    fn ended(&mut self, id: QueryId, reached: u32, last: bool) -> Option<DhtEvent> {
        if !last {
            return None;
        }
        self.searches.remove(&id)?;
        Some(DhtEvent::Ended {
            search: SearchId(id),
            reached: u16::try_from(reached).unwrap_or(u16::MAX),
        })
    }
}

/// Stores a verified record that another peer offered, if it is valid at `own_ms` and better than
/// the stored one.
pub(crate) fn keep(
    kademlia: &mut Kademlia,
    kind: Kind,
    info: &RecordInfo,
    envelope: Vec<u8>,
    from: Option<Prefix>,
    own_ms: u64,
) -> bool {
    let key = key(kind, &info.peer);
    if !info.is_valid_copy(own_ms) || kademlia.store_mut().rank(&key, own_ms) >= Some(info.rank()) {
        return false;
    }
    let left = Duration::from_millis(info.expires_at_ms().saturating_sub(own_ms));
    store(kademlia, key, (info, from), envelope, left).is_ok()
}

/// Removes the peer's record, whatever its source.
pub(crate) fn forget(kademlia: &mut Kademlia, kind: Kind, peer: &protocol::PeerId) {
    // Not `remove_record`: that keeps records that other peers put.
    kademlia.store_mut().remove(&key(kind, peer));
}

/// The key of a peer's record.
pub(crate) fn key(kind: Kind, peer: &protocol::PeerId) -> RecordKey {
    match kind {
        Kind::Indexer => convert::indexer_key(peer),
        Kind::Node => convert::node_key(peer),
    }
}

fn open(kind: Kind, envelope: &[u8]) -> Result<OpenRecord, RecordError> {
    match kind {
        Kind::Indexer => open_indexer(envelope),
        Kind::Node => open_node(envelope),
    }
}

fn offered(record: Record, from: Option<Prefix>) -> Option<DhtEvent> {
    let (kind, peer) = convert::parse_key(record.key.as_ref())?;
    let opened = open(kind, &record.value)
        .ok()
        .filter(|opened| opened.info.peer == peer)?;
    Some(DhtEvent::Offered {
        record: Box::new(opened),
        envelope: record.value,
        kind,
        from,
    })
}

fn store(
    kademlia: &mut Kademlia,
    key: RecordKey,
    (info, from): (&RecordInfo, Option<Prefix>),
    value: Vec<u8>,
    left: Duration,
) -> kad::store::Result<()> {
    let record = Record {
        key,
        value,
        publisher: None,
        expires: Some(Instant::now() + left),
    };
    kademlia.store_mut().keep(record, info, from)
}

#[cfg(test)]
mod tests;
