//! Outcomes of lookups as answers for the operator, or for the embedding program.
//!
//! Invariant: an answer is complete only if the outcome of the lookup is.

use libp2p::{Multiaddr, multiaddr::Protocol};

use crate::{
    daemon::{
        environment::Environment,
        report::{self, addr_texts, text},
        request::CallAnswer,
        status::{Found, FoundRecord, IndexerList, KnownIndexer},
    },
    net::{
        envelope::{open_indexer, open_node},
        own_subnets,
    },
    protocol::{
        Instant, Offer, Report, Role,
        address::{Subnet, distance},
        lease::Lease,
        lookup::{self, Outcome, Place, Question},
        order::sort_few,
    },
};

/// The state of every node that is found: nodes that left or were lost are in no directory.
const ALIVE: &str = "alive";

pub(super) fn answer_of(outcome: &Outcome<'_>, own_ms: u64) -> CallAnswer {
    let complete = outcome.is_complete;
    let (asked, answered) = (outcome.tally.asked.into(), outcome.tally.answered.into());
    let silent = outcome.silent().map(text).collect();
    let refused = outcome.refused().map(text).collect();
    let partial = outcome.partial().map(text).collect();
    let query = match outcome.question {
        Question::Indexers => {
            return CallAnswer::Indexers(IndexerList {
                complete,
                asked,
                answered,
                silent,
                refused,
                partial,
                indexers: outcome.indexers.iter().map(known_indexer).collect(),
            });
        }
        Question::Name(name) => name.as_str().to_owned(),
        Question::Service(service) => service.as_str().to_owned(),
        Question::Peer(peer) => text(peer),
    };
    let near = own_subnets();
    let found = outcome.records.iter();
    let mut records: Vec<_> = found
        .filter_map(|record| found_record(record, own_ms, &near))
        .collect();
    if records.is_empty() {
        records.extend(outcome.indexers.iter().map(found_offer));
    }
    CallAnswer::Found(Found {
        schema: 1,
        query,
        complete,
        asked,
        answered,
        silent,
        refused,
        partial,
        more: outcome.more,
        claimants: outcome.claimants.nodes.into(),
        all_counted: outcome.claimants.are_all,
        records,
    })
}

fn found_record(found: &lookup::FoundRecord, own_ms: u64, near: &[Subnet]) -> Option<FoundRecord> {
    let record = open_node(found.envelope())
        .or_else(|_| open_indexer(found.envelope()))
        .ok()?;
    let mut addresses = record.addrs.clone();
    sort_few(&mut addresses, |addr| match addr.iter().next() {
        Some(Protocol::Ip4(ip)) => distance(ip.into(), near, None),
        Some(Protocol::Ip6(ip)) => distance(ip.into(), near, None),
        _ => u8::MAX,
    });
    Some(FoundRecord {
        peer_id: text(&record.info.peer),
        name: record.info.name.as_str().into(),
        addrs: record.addrs.iter().map(Multiaddr::to_string).collect(),
        addresses: addresses.iter().map(Multiaddr::to_string).collect(),
        state: ALIVE.into(),
        last_beat_ms: found.age().map(|age| age.as_millis() as u64),
        version: record.version.clone(),
        tags: report::tags(&record.about),
        services: report::services(&record.about),
        expires_in_ms: record.info.expires_at_ms().saturating_sub(own_ms),
        source: match found.place() {
            Place::Here => "local",
            Place::Indexer => "indexer",
            Place::Native => "native",
            Place::Dht => "dht",
        }
        .into(),
    })
}

/// An indexer has no record in a directory, so the answer is what the natives report about it.
fn found_offer(offer: &Offer) -> FoundRecord {
    FoundRecord {
        peer_id: text(&offer.peer),
        name: String::new(),
        addrs: addr_texts(&offer.addrs),
        addresses: addr_texts(&offer.addrs),
        state: ALIVE.into(),
        last_beat_ms: None,
        version: String::new(),
        tags: Default::default(),
        services: Vec::new(),
        expires_in_ms: offer.ttl.as_millis() as u64,
        source: "native".into(),
    }
}

fn known_indexer(offer: &Offer) -> KnownIndexer {
    KnownIndexer {
        peer_id: text(&offer.peer),
        addrs: addr_texts(&offer.addrs),
        expires_in_ms: offer.ttl.as_millis() as u64,
        free_leases: offer.free.map(u64::from),
        source: "native".into(),
    }
}

/// Adds the indexers that grant a lease to this process and that no native has listed, as when it
/// does not answer.
pub(super) fn add_granting(env: &Environment, list: &mut IndexerList) {
    let now = env.now();
    let mut granting = Granting(now, Vec::new());
    env.machine().report(now, &mut granting);
    for indexer in granting.1 {
        if list
            .indexers
            .iter()
            .all(|known| known.peer_id != indexer.peer_id)
        {
            list.indexers.push(indexer);
        }
    }
}

/// Collects the indexers that grant a lease.
struct Granting(Instant, Vec<KnownIndexer>);

impl Report for Granting {
    fn lease(&mut self, lease: &Lease) {
        if let (Role::Indexer, Some(expiry)) = (lease.role(), lease.expiry(self.0)) {
            self.1.push(KnownIndexer {
                peer_id: text(lease.server()),
                addrs: addr_texts(lease.addrs()),
                expires_in_ms: (expiry - self.0).as_millis() as u64,
                free_leases: None,
                source: "lease".into(),
            });
        }
    }
}
