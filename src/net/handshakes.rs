//! Places for inbound connections during their handshake, and which one is evicted when all places
//! are taken.
//!
//! Opening connections that stay silent is cheap for an attacker. So a newcomer always gets a
//! place, and the oldest connection of the source that has the most is evicted for it. A source is
//! an IPv4 address, or an IPv6 /64, because one host has a whole /64.
//!
//! A known peer (a lease holder, a native, a peer with remembered addresses) cannot be
//! recognised by a connection before its handshake, but its addresses are known. So of each source
//! as many connections are spared as there are known peers at it. Peer ids cost an attacker nothing
//! and addresses cost little, so this has two bounds: at most an eighth of all places is spared for
//! one source, and at most half of them for all sources together. Where the second bound is
//! exceeded, it is the sources with the most spared that have fewer: they all get the same number,
//! which is the highest with which all together stay within half.
//!
//! Invariants: at most `max` connections wait, and a newcomer is always one of them; the source of
//! an evicted connection has at least as many that are not spared as any other source; so if known
//! peers have half of the places, the other half is shared evenly. Evicted connections are counted,
//! and logged in one line for each episode. An episode ends when no connection was evicted for
//! [`QUIET`], or after [`LONG`].

mod quota;

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::mem;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::counted;
use crate::protocol::order::sort_few;
use quota::{Quotas, Standing};

/// An episode is over when no connection was evicted for this long.
const QUIET: Duration = Duration::from_secs(5);
/// An episode that goes on for this long is logged, and a new one begins.
const LONG: Duration = Duration::from_secs(60);
/// At most one in this many places is spared for the known peers of one source.
const SOURCE_SHARE: usize = 8;
/// At most one in this many places is spared for the known peers of all sources together.
const KNOWN_SHARE: usize = 2;
/// How many sources the log line of an episode names at most, and how many an episode counts. One
/// with a smaller share than one in `COUNTED` is not named.
const NAMED: usize = 3;
const COUNTED: usize = 16;

/// Where a connection comes from; `None` if that is not an IP address.
pub(super) type SourceIp = Option<IpAddr>;

/// The connections during their handshake. `H` is the handle that ends one.
#[derive(Debug)]
pub(super) struct Handshakes<H> {
    max: usize,
    next: u64,
    /// The oldest first.
    waiting: VecDeque<Waiting<H>>,
    /// The most that waited at once since [`Handshakes::take_most`].
    most: usize,
    /// Evicted connections that are still open.
    ending: usize,
    counts: HashMap<SourceIp, usize>,
    /// The number of known peers at each source.
    held: HashMap<SourceIp, usize>,
    remembered: HashMap<SourceIp, usize>,
    gave_way: u64,
    episode: Option<Episode>,
    quotas: Quotas,
}

#[derive(Debug)]
struct Waiting<H> {
    id: u64,
    source: SourceIp,
    handle: H,
}

/// The result of the arrival of a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered<H> {
    /// It has a place, with this id.
    Waits(u64),
    /// It has a place, with this id, and the caller must end this other connection.
    Displaced(u64, H),
}

impl<H> Handshakes<H> {
    /// Makes room for `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            next: 0,
            waiting: VecDeque::new(),
            most: 0,
            ending: 0,
            counts: HashMap::new(),
            held: HashMap::new(),
            remembered: HashMap::new(),
            gave_way: 0,
            episode: None,
            quotas: Quotas::new(Instant::now()),
        }
    }

    /// Whether a connection that comes from this source at `now` may begin a handshake. The others
    /// are closed at once, and counted.
    pub(super) fn admits(&mut self, now: Instant, source: SourceIp) -> bool {
        let counts = [&self.held, &self.remembered];
        let standing = match counts.iter().any(|known| known.contains_key(&source)) {
            true => Standing::Known,
            false => Standing::Stranger,
        };
        self.quotas.admits(now, source, standing)
    }

    /// Connections that were refused since the start, because their source had made too many.
    pub(super) fn refused(&self) -> u64 {
        self.quotas.refused()
    }

    /// Gives a place to a connection that came at `now`.
    pub(super) fn enter(&mut self, source: SourceIp, handle: H, now: Instant) -> Entered<H> {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.waiting.push_back(Waiting { id, source, handle });
        *self.counts.entry(source).or_default() += 1;
        self.most = self.most.max(self.waiting.len().min(self.max));
        if self.waiting.len() <= self.max {
            return Entered::Waits(id);
        }
        let Some(weakest) = self.weakest().and_then(|index| self.take(index)) else {
            return Entered::Waits(id);
        };
        self.gave_way = self.gave_way.saturating_add(1);
        self.ending += 1;
        self.episode
            .get_or_insert_with(|| Episode::new(now))
            .count(weakest.source, now);
        Entered::Displaced(id, weakest.handle)
    }

    /// Frees the place of a connection: its handshake is done or has failed, or it was evicted.
    /// Each leaves once.
    pub(super) fn leave(&mut self, id: u64) {
        // Ids grow from the front to the back.
        match self.waiting.binary_search_by_key(&id, |waiting| waiting.id) {
            Ok(index) => drop(self.take(index)),
            Err(_) => self.ending = self.ending.saturating_sub(1),
        }
    }

    /// Whether the number of evicted connections that are still open equals the number of places.
    /// Then they have to leave before another enters.
    pub(super) fn is_behind(&self) -> bool {
        self.ending >= self.max
    }

    /// Counts a known peer at this source.
    pub(super) fn hold(&mut self, source: SourceIp) {
        *self.held.entry(source).or_default() += 1;
    }

    /// Counts one known peer less at this source.
    pub(super) fn release(&mut self, source: SourceIp) {
        lower(&mut self.held, source);
    }

    /// Counts these peers as known, each with the sources that it may come from. A peer counts once
    /// for a source, even if it names that source several times.
    pub(super) fn remember<S>(&mut self, peers: impl Iterator<Item = S>)
    where
        S: Iterator<Item = SourceIp>,
    {
        self.remembered.clear();
        for sources in peers {
            let sources: HashSet<SourceIp> = sources.collect();
            for source in sources {
                *self.remembered.entry(source).or_default() += 1;
            }
        }
    }

    /// Connections that wait.
    pub(super) fn used(&self) -> usize {
        self.waiting.len()
    }

    /// The most connections that waited at once since the last call.
    pub(super) fn take_most(&mut self) -> usize {
        mem::replace(&mut self.most, self.waiting.len())
    }

    /// Connections that may wait.
    pub(super) fn capacity(&self) -> usize {
        self.max
    }

    /// Connections that were evicted since the start.
    pub(super) fn gave_way(&self) -> u64 {
        self.gave_way
    }

    /// Whether an episode goes on.
    pub(super) fn is_crowded(&self) -> bool {
        self.episode.is_some()
    }

    /// The episode, if it has to be logged at `now`.
    pub(super) fn ended(&mut self, now: Instant) -> Option<Episode> {
        self.episode.take_if(|episode| {
            now.saturating_duration_since(episode.last) >= QUIET
                || now.saturating_duration_since(episode.began) >= LONG
        })
    }

    /// Gives back memory that is no longer needed.
    pub(super) fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
        self.counts.shrink_to_fit();
        self.held.shrink_to_fit();
        self.remembered.shrink_to_fit();
        self.quotas.shrink();
    }

    /// The connection that is evicted: the oldest of the source with the most connections that are
    /// not spared; of several such sources, the oldest of all.
    fn weakest(&self) -> Option<usize> {
        let spared_at_most = self.spared_at_most();
        let beyond = |source: &SourceIp| {
            let spared = self.known_waiting(source).min(spared_at_most);
            self.count(source).saturating_sub(spared)
        };
        let most = self.counts.keys().map(beyond).max()?;
        self.waiting
            .iter()
            .position(|waiting| beyond(&waiting.source) == most)
    }

    /// How many connections of one source are spared at most: an eighth of the places, or fewer if
    /// that is needed to keep the spared connections of all sources within half of the places.
    fn spared_at_most(&self) -> usize {
        let known: Vec<usize> = self
            .counts
            .keys()
            .map(|at| self.known_waiting(at))
            .filter(|known| *known > 0)
            .collect();
        let mut left = self.max / KNOWN_SHARE;
        let of_one = (self.max / SOURCE_SHARE).max(1);
        let fits = |number: &usize| {
            // The places that one more for each of these sources takes.
            let more = known.iter().filter(|known| **known >= *number).count();
            let fits = more <= left;
            left = left.saturating_sub(more);
            fits
        };
        (1..=of_one).take_while(fits).last().unwrap_or(0)
    }

    /// Connections of the source that may belong to known peers.
    fn known_waiting(&self, source: &SourceIp) -> usize {
        let known = [&self.held, &self.remembered].map(|known| known.get(source).copied());
        let known = known.into_iter().flatten().max().unwrap_or(0);
        known.min(self.count(source))
    }

    fn count(&self, source: &SourceIp) -> usize {
        self.counts.get(source).copied().unwrap_or(0)
    }

    fn take(&mut self, index: usize) -> Option<Waiting<H>> {
        let taken = self.waiting.remove(index)?;
        lower(&mut self.counts, taken.source);
        Some(taken)
    }
}

fn lower(counts: &mut HashMap<SourceIp, usize>, source: SourceIp) {
    if let Some(count) = counts.get_mut(&source) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&source);
        }
    }
}

/// A period in which connections were evicted.
#[derive(Debug)]
pub(super) struct Episode {
    began: Instant,
    last: Instant,
    gave_way: u64,
    /// When a further source finds no room, it replaces the source with the fewest and inherits its
    /// count. So whatever source had more than its share is here.
    sources: Vec<Counted>,
}

/// How many connections of a source were evicted: from `certain` to `certain + inherited`.
#[derive(Clone, Copy, Debug)]
struct Counted {
    source: SourceIp,
    certain: u64,
    inherited: u64,
}

impl Counted {
    fn most(&self) -> u64 {
        self.certain.saturating_add(self.inherited)
    }
}

impl fmt::Display for Counted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Some(ip) => write!(f, "{ip}")?,
            None => f.write_str("without an IP address")?,
        }
        let bound = if self.inherited > 0 { "at least " } else { "" };
        write!(f, " ({bound}{})", self.certain)
    }
}

impl Episode {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            last: now,
            gave_way: 0,
            sources: Vec::new(),
        }
    }

    fn count(&mut self, source: SourceIp, now: Instant) {
        self.last = now;
        self.gave_way = self.gave_way.saturating_add(1);
        let one_of = |inherited| Counted {
            source,
            certain: 1,
            inherited,
        };
        if let Some(known) = self.sources.iter_mut().find(|known| known.source == source) {
            known.certain = known.certain.saturating_add(1);
        } else if self.sources.len() < COUNTED {
            self.sources.push(one_of(0));
        } else if let Some(fewest) = self.sources.iter_mut().min_by_key(|known| known.most()) {
            *fewest = one_of(fewest.most());
        }
    }

    /// Whether there were more sources than are counted.
    fn has_replaced(&self) -> bool {
        self.sources.iter().any(|known| known.inherited > 0)
    }

    /// The sources that certainly had a large share, the largest first.
    fn named(&self) -> Vec<Counted> {
        let is_large =
            |known: &&Counted| known.certain.saturating_mul(COUNTED as u64) >= self.gave_way;
        let mut named: Vec<_> = self.sources.iter().filter(is_large).copied().collect();
        sort_few(&mut named, |known| std::cmp::Reverse(known.certain));
        named.truncate(NAMED);
        named
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (self.last - self.began).as_secs_f32();
        write!(
            f,
            "{} gave way to newcomers before their handshake was done, in {seconds:.1} s; ",
            counted(&self.gave_way, "connection")
        )?;
        let named = self.named();
        if named.is_empty() {
            return write!(
                f,
                "they came from more than {COUNTED} sources, and none stands out"
            );
        }
        f.write_str("the sources with the most: ")?;
        for (index, known) in named.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{known}")?;
        }
        match self.sources.len() - named.len() {
            _ if self.has_replaced() => f.write_str(", and many others"),
            0 => Ok(()),
            1 => f.write_str(", and another"),
            others => write!(f, ", and {others} others"),
        }
    }
}

#[cfg(test)]
mod tests;
