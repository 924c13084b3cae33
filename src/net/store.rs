//! What this peer stores for the DHT: a bounded [`RecordStore`] for libp2p's Kademlia.
//!
//! Invariants: at most `capacity` records, each with a key of at most [`MAX_KEY`] and a value of at
//! most [`MAX_VALUE`] bytes; at most `capacity` protected keys, so a protected key always finds a
//! place; providers as [`Providers`] keeps them. Memory is allocated when it is used. The store
//! checks no signatures: it keeps verified records with their rank ([`BoundedStore::keep`]), so
//! that no value is verified twice. Only [`BoundedStore::expire`] removes expired records.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, hash_map};
use std::iter;
use std::time::Instant;

use super::providers::Providers;

use libp2p::PeerId;
use libp2p::kad::store::{Error, RecordStore, Result};
use libp2p::kad::{ProviderRecord, Record, RecordKey};

use crate::protocol::{MAX_ENVELOPE_LEN, RecordInfo, RecordRank, address::Prefix};

/// A key, in its smallest form.
type Key = Box<[u8]>;

/// Longest key, in bytes: `/indexer/` or `/node/` and a peer id in base58 take at most 64.
pub(crate) const MAX_KEY: usize = 80;

/// Longest value, in bytes: values are signed records.
pub(crate) const MAX_VALUE: usize = MAX_ENVELOPE_LEN;

/// One in so many places is the share of a network (IPv4 /24, IPv6 /48) whose peers put records of
/// others. In a full store, one that has its share makes room by its own records.
pub(super) const SHARE: usize = 2;

/// A record store of fixed capacity. When it is full, the least recently stored record without a
/// protected key is evicted.
pub(crate) struct BoundedStore {
    capacity: usize,
    slots: HashMap<Key, Slot>,
    protected: HashSet<Key>,
    /// No record expires before this time.
    soonest: Option<Instant>,
    /// The number of records ever stored; it orders the records by age.
    stored: u64,
    refused: u64,
    pub(super) providers: Providers,
}

impl BoundedStore {
    /// An empty store for at most `capacity` records and `providers` providers.
    pub(crate) fn new(own: PeerId, capacity: usize, providers: usize) -> Self {
        Self {
            providers: Providers::new(own, providers, Instant::now()),
            capacity,
            slots: HashMap::new(),
            protected: HashSet::new(),
            soonest: None,
            stored: 0,
            refused: 0,
        }
    }

    /// Protects the record of `key`, which may come later, from eviction, because its subject holds
    /// a lease here. Returns false if the key is too long, or if as many keys as the store has
    /// places are protected already.
    pub(crate) fn protect(&mut self, key: &RecordKey) -> bool {
        if self.protected.contains(key.as_ref()) {
            return true;
        }
        if self.protected.len() >= self.capacity || key.as_ref().len() > MAX_KEY {
            return false;
        }
        self.protected.insert(key.as_ref().into())
    }

    /// Ends the protection of `key`. Its record stays until it expires or its place is needed.
    pub(crate) fn unprotect(&mut self, key: &RecordKey) {
        self.protected.remove(key.as_ref());
    }

    /// Removes what has expired at `now`, and returns how many records that were. Protection does
    /// not prolong a record's life.
    pub(crate) fn expire(&mut self, now: Instant) -> usize {
        self.providers.expire(now);
        let before = self.slots.len();
        if self.soonest.is_some_and(|soonest| soonest <= now) {
            self.slots
                .retain(|_, slot| slot.expires.is_none_or(|expires| now < expires));
            self.soonest = self.slots.values().filter_map(|slot| slot.expires).min();
        }
        before - self.slots.len()
    }

    /// The time before which nothing expires.
    pub(crate) fn soonest(&self) -> Option<Instant> {
        self.soonest
            .into_iter()
            .chain(self.providers.soonest())
            .min()
    }

    /// Records stored.
    pub(crate) fn used(&self) -> usize {
        self.slots.len()
    }

    /// Records that can be stored.
    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// Records refused since the start, because they were too large or every place had a protected
    /// record.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// Gives back memory that is no longer needed.
    pub(crate) fn shrink(&mut self) {
        self.slots.shrink_to_fit();
        self.protected.shrink_to_fit();
        self.providers.shrink();
    }

    /// Stores a verified record with this content, which a peer in the network `from` has put;
    /// `None` if it came from its subject.
    pub(crate) fn keep(
        &mut self,
        record: Record,
        info: &RecordInfo,
        from: Option<Prefix>,
    ) -> Result<()> {
        let merit = Merit {
            rank: info.rank(),
            counts_from_ms: info.counts_from_ms(),
        };
        self.insert(record, merit, from)
    }

    /// The rank of the record of `key`, if it counts at wall-clock time `own_ms`.
    pub(crate) fn rank(&self, key: &RecordKey, own_ms: u64) -> Option<RecordRank> {
        let Merit {
            rank,
            counts_from_ms,
        } = self.slots.get(key.as_ref())?.merit;
        (counts_from_ms..=rank.expires_at_ms)
            .contains(&own_ms)
            .then_some(rank)
    }

    fn insert(&mut self, record: Record, merit: Merit, from: Option<Prefix>) -> Result<()> {
        if let Err(error) = self.check(&record, from) {
            self.refused += 1;
            return Err(error);
        }
        self.stored += 1;
        self.soonest = self.soonest.into_iter().chain(record.expires).min();
        let slot = Slot {
            value: record.value.into(),
            expires: record.expires,
            order: self.stored,
            merit,
            from,
        };
        self.slots.insert(record.key.as_ref().into(), slot);
        Ok(())
    }

    fn check(&mut self, record: &Record, from: Option<Prefix>) -> Result<()> {
        if record.key.as_ref().len() > MAX_KEY || record.value.len() > MAX_VALUE {
            return Err(Error::ValueTooLarge);
        }
        if self.slots.contains_key(record.key.as_ref()) || self.slots.len() < self.capacity {
            return Ok(());
        }
        let is_its = |slot: &Slot| from.is_some() && slot.from == from;
        let its = self.slots.values().filter(|slot| is_its(slot)).count();
        let has_share = its > 0 && its >= self.capacity / SHARE;
        let oldest = self
            .slots
            .iter()
            .filter(|(key, slot)| !self.protected.contains(*key) && (!has_share || is_its(slot)))
            .min_by_key(|(_, slot)| slot.order)
            .map(|(key, _)| key.clone());
        match oldest.and_then(|key| self.slots.remove(&key)) {
            Some(_) => Ok(()),
            None => Err(Error::MaxRecords),
        }
    }
}

/// A stored record, apart from its key, with its place in the order of storing. The publisher is
/// not kept, because nothing here needs it.
pub(crate) struct Slot {
    value: Box<[u8]>,
    expires: Option<Instant>,
    order: u64,
    merit: Merit,
    from: Option<Prefix>,
}

/// The rank of a record, and the time from which it counts, ms since the Unix epoch. A record that
/// was not verified has none.
#[derive(Clone, Copy)]
struct Merit {
    rank: RecordRank,
    counts_from_ms: u64,
}

impl Merit {
    const NONE: Self = Self {
        rank: RecordRank {
            expires_at_ms: 0,
            sequence: 0,
        },
        counts_from_ms: u64::MAX,
    };
}

impl RecordStore for BoundedStore {
    type RecordsIter<'a> =
        iter::Map<hash_map::Iter<'a, Key, Slot>, fn((&'a Key, &'a Slot)) -> Cow<'a, Record>>;
    type ProvidedIter<'a> = iter::Empty<Cow<'a, ProviderRecord>>;

    fn get(&self, key: &RecordKey) -> Option<Cow<'_, Record>> {
        self.slots.get_key_value(key.as_ref()).map(record)
    }

    /// Kademlia stores a record that it PUTs. It got the record from this store, so the record
    /// keeps its rank.
    fn put(&mut self, record: Record) -> Result<()> {
        let kept = self.slots.get(record.key.as_ref());
        let same = kept.filter(|slot| *slot.value == *record.value);
        let merit = same.map_or(Merit::NONE, |slot| slot.merit);
        let from = kept.and_then(|slot| slot.from);
        self.insert(record, merit, from)
    }

    fn remove(&mut self, key: &RecordKey) {
        self.slots.remove(key.as_ref());
    }

    fn records(&self) -> Self::RecordsIter<'_> {
        self.slots.iter().map(record)
    }

    fn add_provider(&mut self, record: ProviderRecord) -> Result<()> {
        self.providers.add(&record, None, Instant::now())
    }

    fn providers(&self, key: &RecordKey) -> Vec<ProviderRecord> {
        self.providers.of(key, Instant::now())
    }

    /// For Kademlia's own announcing, which is off.
    fn provided(&self) -> Self::ProvidedIter<'_> {
        iter::empty()
    }

    /// Kademlia removes only what has expired, and that is never in an answer of this store.
    fn remove_provider(&mut self, _: &RecordKey, _: &PeerId) {}
}

fn record<'a>((key, slot): (&'a Key, &'a Slot)) -> Cow<'a, Record> {
    Cow::Owned(Record {
        key: RecordKey::new(key),
        value: slot.value.to_vec(),
        publisher: None,
        expires: slot.expires,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use libp2p::identity::Keypair;

    use super::*;

    fn key(name: &str) -> RecordKey {
        RecordKey::new(&name)
    }

    fn record(name: &str, value: &[u8]) -> Record {
        Record::new(key(name), value.to_vec())
    }

    fn empty(capacity: usize) -> BoundedStore {
        BoundedStore::new(PeerId::random(), capacity, 8)
    }

    fn filled(names: &[&str]) -> BoundedStore {
        let mut store = empty(names.len());
        for name in names {
            store.put(record(name, b"1")).unwrap();
        }
        store
    }

    #[test]
    fn put_replaces_by_key_without_taking_a_place() {
        let mut store = filled(&["a", "b"]);
        store.put(record("a", b"2")).unwrap();
        assert_eq!(store.get(&key("a")).unwrap().value, b"2");
        assert_eq!((store.used(), store.capacity()), (2, 2));
        assert_eq!(store.records().count(), 2);
        store.remove(&key("a"));
        assert!(store.get(&key("a")).is_none());
    }

    #[test]
    fn a_record_leaves_when_it_expires_and_the_next_time_is_known() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut store = empty(4);
        assert_eq!(store.soonest(), None);
        for (name, seconds) in [("b", 20), ("a", 10), ("c", 30)] {
            let expires = Some(at(seconds));
            store
                .put(Record {
                    expires,
                    ..record(name, b"1")
                })
                .unwrap();
        }
        store.put(record("for ever", b"1")).unwrap();
        assert_eq!(store.soonest(), Some(at(10)));
        assert_eq!(store.expire(at(10) - Duration::from_nanos(1)), 0);
        assert_eq!(store.expire(at(10)), 1);
        assert_eq!(store.soonest(), Some(at(20)));
        // The soonest time of a removed record causes one check that finds nothing.
        store.remove(&key("b"));
        assert_eq!(store.expire(at(20)), 0);
        assert_eq!(store.soonest(), Some(at(30)));
        assert_eq!(store.expire(at(31)), 1);
        assert_eq!((store.soonest(), store.used()), (None, 1));
    }

    #[test]
    fn full_store_lets_the_least_recently_stored_go() {
        let mut store = filled(&["a", "b"]);
        store.put(record("a", b"2")).unwrap();
        store.put(record("c", b"1")).unwrap();
        assert!(store.get(&key("b")).is_none());
        assert!(store.get(&key("a")).is_some() && store.get(&key("c")).is_some());
        assert_eq!((store.used(), store.refused()), (2, 0));
    }

    #[test]
    fn network_that_has_its_share_of_a_full_store_makes_room_by_its_own_records() {
        let network = |third: u8| {
            let addr = [4, 203, 0, third, 1, 6, 0, 1];
            Some(crate::protocol::TransportAddr::of(&addr).prefix())
        };
        let mut store = empty(4);
        let put = |store: &mut BoundedStore, name: &str, from| {
            store.insert(record(name, b"1"), Merit::NONE, from).unwrap();
        };
        for (name, from) in [
            ("a", None),
            ("b", None),
            ("c", network(1)),
            ("d", network(2)),
        ] {
            put(&mut store, name, from);
        }
        let names = |store: &BoundedStore| {
            let mut names: Vec<_> = store
                .slots
                .keys()
                .map(|key| String::from_utf8_lossy(key).into_owned())
                .collect();
            names.sort();
            names.concat()
        };
        put(&mut store, "e", network(1));
        assert_eq!(names(&store), "bcde", "the least recently stored of all");
        put(&mut store, "f", network(1));
        assert_eq!(names(&store), "bdef", "it has two of four places: its own");
        put(&mut store, "g", network(2));
        assert_eq!(names(&store), "defg", "the others have less");
    }

    #[test]
    fn protected_records_stay_and_a_store_full_of_them_refuses() {
        let mut store = filled(&["a", "b"]);
        assert!(store.protect(&key("a")) && store.protect(&key("b")));
        assert!(matches!(
            store.put(record("c", b"1")),
            Err(Error::MaxRecords)
        ));
        assert_eq!((store.used(), store.refused()), (2, 1));

        store.unprotect(&key("b"));
        store.put(record("c", b"1")).unwrap();
        assert!(store.get(&key("a")).is_some() && store.get(&key("b")).is_none());
    }

    #[test]
    fn protected_keys_are_bounded_by_the_capacity() {
        let mut store = empty(1);
        assert!(store.protect(&key("a")) && store.protect(&key("a")));
        assert!(!store.protect(&key("b")));
        store.unprotect(&key("a"));
        assert!(store.protect(&key("b")));
    }

    #[test]
    fn key_protected_ahead_of_its_record_finds_a_place_in_a_full_store() {
        let mut store = filled(&["a", "b"]);
        store.protect(&key("a"));
        store.protect(&key("late"));
        store.put(record("late", b"1")).unwrap();
        assert!(store.get(&key("late")).is_some() && store.get(&key("a")).is_some());
    }

    #[test]
    fn oversized_records_are_refused_and_displace_nothing() {
        let mut store = filled(&["a"]);
        let long_key = "k".repeat(MAX_KEY + 1);
        for bad in [record("b", &[0; MAX_VALUE + 1]), record(&long_key, b"1")] {
            assert!(matches!(store.put(bad), Err(Error::ValueTooLarge)));
        }
        assert!(!store.protect(&key(&long_key)));
        assert_eq!((store.used(), store.refused()), (1, 2));
        store.put(record(&long_key[1..], &[0; MAX_VALUE])).unwrap();
    }

    #[test]
    fn expire_removes_at_the_exact_instant_protected_or_not() {
        let now = Instant::now();
        let mut store = filled(&["forever"]);
        store.capacity = 3;
        for (name, life) in [("ends", 1), ("lives", 2)] {
            let mut record = record(name, b"1");
            record.expires = Some(now + Duration::from_secs(life));
            store.put(record).unwrap();
        }
        store.protect(&key("ends"));
        assert_eq!(store.expire(now), 0);
        assert_eq!(store.expire(now + Duration::from_secs(1)), 1);
        assert!(store.get(&key("ends")).is_none());
        assert_eq!(store.used(), 2);
    }

    #[test]
    fn the_next_time_is_that_of_a_record_or_of_a_provider() {
        let mut store = empty(4);
        let peer = Keypair::generate_ed25519().public().to_peer_id();
        let provider = ProviderRecord::new(key("a"), peer, Vec::new());
        store.add_provider(provider).unwrap();
        let over = store.soonest().unwrap();
        assert_eq!(store.providers(&key("a")).len(), 1);
        for earlier in [Duration::from_secs(1), Duration::from_secs(2)] {
            let mut soon = record(&format!("{earlier:?}"), b"1");
            soon.expires = Some(over - earlier);
            store.put(soon).unwrap();
            assert_eq!(store.soonest(), Some(over - earlier));
        }
        assert_eq!(store.expire(over), 2);
        assert!(store.soonest().is_none() && store.providers(&key("a")).is_empty());
    }

    #[test]
    fn no_place_at_capacity_zero() {
        let mut store = empty(0);
        assert!(matches!(
            store.put(record("a", b"1")),
            Err(Error::MaxRecords)
        ));
        assert_eq!(store.provided().count(), 0);
    }
}
