//! Which names and services are announced in the DHT, and when: those that the directory lists, so
//! that others find this process, which knows which node has them.
//!
//! A new one is announced at once, and each again before its announcement runs out at the servers
//! that keep it. What failed is tried again after a random time within a pause that doubles. After
//! the own addresses have changed, all are announced again, because the servers name the old ones.
//!
//! Invariants: a key is kept once, however many nodes have it; at most [`MAX_UNDER_WAY`] are under
//! way and at most 50 begin in a second; one that is no longer listed is not announced again, and
//! gives its place to another. The table is sorted by key.

use core::{fmt, time::Duration};

use heapless::{Vec, VecView};

use super::{
    Instant, Name, Rng, SignedRecord, TableStats,
    codec::{
        record::{Kind, contents},
        service::ServiceName,
    },
    table::Vacant,
    time::{Bucket, backoff},
};

/// Announcements under way at most (PROTOCOL.md).
pub(crate) const MAX_UNDER_WAY: usize = 8;
/// Services that are announced at most, beside a name for each node.
pub(crate) const MAX_ANNOUNCED_SERVICES: usize = 512;
/// All are announced again after this time (PROTOCOL.md), and up to half as much at random.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// All are announced again this long after the own addresses have changed (PROTOCOL.md). One event
/// causes several changes in a row.
const SETTLES: Duration = Duration::from_secs(2);
/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// An announcement has failed if no end was reported by then.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(30);

/// How an announcement has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnnounceEnd {
    /// A server of the DHT took it.
    Taken,
    /// None did.
    Failed,
}

/// What can be looked for in the DHT: its servers name the peers that announced it, and those know
/// which node has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The name of a node.
    Name(Name),
    /// A service that nodes offer.
    Service(ServiceName),
}

/// The text that is hashed to the key in the DHT (PROTOCOL.md): `/oc/name/…` or `/oc/service/…`.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "/oc/name/{name}"),
            Self::Service(service) => write!(f, "/oc/service/{service}"),
        }
    }
}

/// What is announced of a directory of `N` nodes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Announcing<const N: usize> {
    rng: Rng,
    names: Vec<Announced, N>,
    services: Vec<Announced, MAX_ANNOUNCED_SERVICES>,
    under_way: usize,
    /// Nothing is due before this time.
    next: Instant,
    /// An announcement under way that fails by then at the latest has begun before the own
    /// addresses changed.
    outdated: Instant,
    begun: Bucket<50, { MAX_UNDER_WAY as u32 }>,
    /// Searches for a key to give up, when there is no room. Each search goes through the
    /// directory.
    looks: Bucket<8, 8>,
    looked_at: usize,
    refused: u64,
}

#[derive(Clone, Debug, PartialEq)]
struct Announced {
    key: Key,
    /// When it is announced; while that is under way, when it has failed.
    due: Instant,
    failures: u8,
    is_under_way: bool,
}

impl<const N: usize> Announcing<N> {
    /// Nothing to announce. It is all zeroes and uninitialised memory.
    pub(crate) const fn new() -> Self {
        Self {
            rng: Rng::new(0),
            names: Vec::new(),
            services: Vec::new(),
            under_way: 0,
            next: Instant::from_millis(0),
            outdated: Instant::from_millis(0),
            begun: Bucket::new(),
            looks: Bucket::new(),
            looked_at: 0,
            refused: 0,
        }
    }

    /// `seed` determines the times.
    pub(crate) fn start(&mut self, seed: u64) {
        self.rng = Rng::new(seed);
    }

    /// A node was listed with this record, which is new here. `is_listed` says whether some node
    /// has a key.
    pub(crate) fn record_listed(
        &mut self,
        now: Instant,
        record: &SignedRecord<'_>,
        is_listed: impl Fn(&Key) -> bool,
    ) {
        let listed = contents(Kind::Node, record.envelope);
        let own = listed.iter().flat_map(|record| record.services.clone());
        let of_link = listed.iter().flat_map(|record| record.link_services.iter());
        let services = own.chain(of_link.map(|it| it.service));
        let services = services.map(|service| Key::Service(service.name));
        for key in services.chain([Key::Name(record.info.name.clone())]) {
            self.listed(now, key, &is_listed);
        }
    }

    /// A node that has this key was listed.
    fn listed(&mut self, now: Instant, key: Key, is_listed: impl Fn(&Key) -> bool) {
        let Err(mut place) = position(self.of_its_kind(&key), &key) else {
            return;
        };
        if self.of_its_kind(&key).is_full() {
            match self.give_up_one(now, &key, is_listed) {
                Some(given_up) => place -= usize::from(given_up < place),
                None => {
                    self.refused += 1;
                    return;
                }
            }
        }
        let new = Announced {
            key: key.clone(),
            due: now,
            failures: 0,
            is_under_way: false,
        };
        // There is room.
        let _ = self.of_its_kind(&key).insert(place, new);
        self.reckon();
    }

    /// The next key to announce at `now`; its end is to be told by [`Announcing::announced`].
    pub(crate) fn poll(&mut self, now: Instant, is_listed: impl Fn(&Key) -> bool) -> Option<Key> {
        while self.timeout().is_some_and(|then| then <= now) {
            let due = self.waiting().min_by_key(|announced| announced.due)?;
            let (key, is_under_way) = (due.key.clone(), due.is_under_way);
            if is_under_way {
                self.announced(now, &key, AnnounceEnd::Failed);
                continue;
            }
            self.begun.take(now);
            let is_listed = is_listed(&key);
            let keys = self.of_its_kind(&key);
            let place = position(keys, &key).ok()?;
            if is_listed {
                let due = keys.get_mut(place)?;
                due.is_under_way = true;
                due.due = now + ANNOUNCE_TIMEOUT;
                self.under_way += 1;
            } else {
                keys.remove(place);
            }
            self.reckon();
            if is_listed {
                return Some(key);
            }
        }
        None
    }

    /// The announcement of the key has ended.
    pub(crate) fn announced(&mut self, now: Instant, key: &Key, end: AnnounceEnd) {
        let (mut rng, outdated) = (self.rng.clone(), self.outdated);
        let keys = self.of_its_kind(key);
        let found = position(keys, key)
            .ok()
            .and_then(|place| keys.get_mut(place));
        let Some(announced) = found.filter(|announced| announced.is_under_way) else {
            return;
        };
        let pause = match end {
            AnnounceEnd::Taken if announced.due <= outdated => SETTLES,
            AnnounceEnd::Taken => AGAIN + rng.up_to(AGAIN / 2),
            AnnounceEnd::Failed => backoff(&mut rng, announced.failures, LONGEST_PAUSE),
        };
        announced.failures = match end {
            AnnounceEnd::Taken => 0,
            AnnounceEnd::Failed => announced.failures.saturating_add(1),
        };
        announced.due = now + pause;
        announced.is_under_way = false;
        self.rng = rng;
        self.under_way -= 1;
        self.reckon();
    }

    /// The own addresses have changed, and what was announced names the old ones.
    pub(crate) fn addrs_changed(&mut self, now: Instant) {
        self.outdated = now + ANNOUNCE_TIMEOUT;
        let all = self.names.iter_mut().chain(&mut self.services);
        for announced in all.filter(|announced| !announced.is_under_way) {
            announced.due = announced.due.min(now + SETTLES);
        }
        self.reckon();
    }

    /// When [`Announcing::poll`] has something to do.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        let is_empty = self.names.is_empty() && self.services.is_empty();
        (!is_empty).then(|| self.next.max(self.begun.next(1)))
    }

    /// The room of names that are announced no more: a storm of nodes may have taken all of it.
    pub(crate) fn spare(&mut self) -> Vacant<'_> {
        Vacant::of(self.names.spare_capacity_mut())
    }

    /// The statistics for `status`.
    pub(crate) fn stats(&self) -> TableStats {
        TableStats {
            name: "announcements",
            used: self.names.len() + self.services.len(),
            capacity: N + MAX_ANNOUNCED_SERVICES,
            refused: self.refused,
            evicted: 0,
        }
    }

    fn of_its_kind(&mut self, key: &Key) -> &mut VecView<Announced> {
        match key {
            Key::Name(_) => &mut self.names,
            Key::Service(_) => &mut self.services,
        }
    }

    /// The announcements with a time that matters now: only those under way while no other may
    /// begin.
    fn waiting(&self) -> impl Iterator<Item = &Announced> {
        let may_begin = self.under_way < MAX_UNDER_WAY;
        let all = self.names.iter().chain(&self.services);
        all.filter(move |announced| may_begin || announced.is_under_way)
    }

    fn reckon(&mut self) {
        let next = self.waiting().map(|announced| announced.due).min();
        self.next = next.unwrap_or_default();
    }

    /// Removes a key of this kind that is no longer listed, if one of the next few is so. Returns
    /// its place.
    fn give_up_one(
        &mut self,
        now: Instant,
        kind: &Key,
        is_listed: impl Fn(&Key) -> bool,
    ) -> Option<usize> {
        while self.looks.take(now) {
            let place = self.looked_at.checked_rem(self.of_its_kind(kind).len())?;
            self.looked_at = place + 1;
            let keys = self.of_its_kind(kind);
            let old = keys.get(place)?;
            if !old.is_under_way && !is_listed(&old.key) {
                keys.remove(place);
                return Some(place);
            }
        }
        None
    }
}

impl<const N: usize> Default for Announcing<N> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the key is, or belongs.
fn position(keys: &VecView<Announced>, key: &Key) -> Result<usize, usize> {
    keys.binary_search_by(|announced| announced.key.cmp(key))
}

#[cfg(test)]
mod tests;
