//! Room for inbound connections whose handshake is not done: who gives way when all places are taken.
//!
//! Silent connections cost those who open them nothing. So a newcomer always gets a place, and the
//! oldest connection of the source with the most gives way to it. A source is an IPv4 address, or
//! the /64 of an IPv6 one, which one host has to itself.
//!
//! Peers that were here before (lease holders, natives, peers whose addresses are remembered) are
//! not known by a connection before its handshake, but their addresses are: as many connections of
//! a source as there are such peers at it do not count, up to an eighth of all places. Ids cost
//! nothing: without this bound the peers of one source could keep all others out.
//!
//! Invariants: at most `max` connections wait; with a place for a newcomer from a source that has
//! fewer than another, none of a source that has fewer than the most gives way; a source gives way
//! only for what it has beyond its known peers, of which an eighth of the places counts. What gave way is counted, and said in one line for
//! each episode, which ends when for [`QUIET`] none did, or after [`LONG`].

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An episode is over when for so long none gave way.
const QUIET: Duration = Duration::from_secs(5);
/// An episode that goes on is said after so long, and counted anew.
const LONG: Duration = Duration::from_secs(60);
/// Of all places, the share that known peers of one source keep at most: one in so many.
const KNOWN_SHARE: usize = 8;
/// Sources that an episode names, and that it counts.
const NAMED: usize = 3;
const COUNTED: usize = 16;

/// Where a connection comes from; `None` if that is no IP address.
pub(super) type Source = Option<IpAddr>;

/// The connections that wait. `H` is what ends one.
#[derive(Debug)]
pub(super) struct Handshakes<H> {
    max: usize,
    next: u64,
    /// The oldest first.
    waiting: VecDeque<Waiting<H>>,
    counts: HashMap<Source, usize>,
    /// Peers that were here before, at each source.
    held: HashMap<Source, usize>,
    remembered: HashMap<Source, usize>,
    gave_way: u64,
    episode: Option<Episode>,
}

#[derive(Debug)]
struct Waiting<H> {
    id: u64,
    source: Source,
    handle: H,
}

/// What became of a newcomer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entered<H> {
    /// It waits, by this id.
    Waits(u64),
    /// It waits, and this other one is to be ended.
    Displaced(u64, H),
    /// It gives way itself: all others are known peers.
    Refused,
}

impl<H> Handshakes<H> {
    /// Room for `max` connections.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            next: 0,
            waiting: VecDeque::new(),
            counts: HashMap::new(),
            held: HashMap::new(),
            remembered: HashMap::new(),
            gave_way: 0,
            episode: None,
        }
    }

    /// A connection came at `now`.
    pub(super) fn enter(&mut self, source: Source, handle: H, now: Instant) -> Entered<H> {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        self.waiting.push_back(Waiting { id, source, handle });
        *self.counts.entry(source).or_default() += 1;
        if self.waiting.len() <= self.max {
            return Entered::Waits(id);
        }
        // None has more than it may: the newcomer is one too many.
        let index = self.weakest().unwrap_or(self.waiting.len() - 1);
        let Some(weakest) = self.take(index) else {
            return Entered::Waits(id);
        };
        self.gave_way = self.gave_way.saturating_add(1);
        self.episode
            .get_or_insert_with(|| Episode::new(now))
            .count(weakest.source, now);
        match weakest.id == id {
            true => Entered::Refused,
            false => Entered::Displaced(id, weakest.handle),
        }
    }

    /// The handshake of a connection is done, or failed.
    pub(super) fn leave(&mut self, id: u64) {
        // Ids grow from the front to the back.
        if let Ok(index) = self.waiting.binary_search_by_key(&id, |waiting| waiting.id) {
            self.take(index);
        }
    }

    /// A known peer is at this source.
    pub(super) fn hold(&mut self, source: Source) {
        *self.held.entry(source).or_default() += 1;
    }

    /// It is there no longer, or known no longer.
    pub(super) fn release(&mut self, source: Source) {
        lower(&mut self.held, source);
    }

    /// These are the sources of peers that are remembered, each as often as there are such peers.
    pub(super) fn remember(&mut self, sources: impl Iterator<Item = Source>) {
        self.remembered.clear();
        for source in sources {
            *self.remembered.entry(source).or_default() += 1;
        }
    }

    /// Connections that wait.
    pub(super) fn used(&self) -> usize {
        self.waiting.len()
    }

    /// Connections that may wait.
    pub(super) fn capacity(&self) -> usize {
        self.max
    }

    /// Connections that gave way since the start.
    pub(super) fn gave_way(&self) -> u64 {
        self.gave_way
    }

    /// Whether an episode goes on.
    pub(super) fn is_crowded(&self) -> bool {
        self.episode.is_some()
    }

    /// The episode, if there is something to say about it at `now`.
    pub(super) fn ended(&mut self, now: Instant) -> Option<Episode> {
        self.episode.take_if(|episode| {
            now.saturating_duration_since(episode.last) >= QUIET
                || now.saturating_duration_since(episode.began) >= LONG
        })
    }

    /// Gives memory back that more connections have needed.
    pub(super) fn shrink(&mut self) {
        self.waiting.shrink_to_fit();
        self.counts.shrink_to_fit();
        self.held.shrink_to_fit();
    }

    /// The oldest connection of the source with the most beyond its known peers; of several such
    /// sources, the oldest of all.
    fn weakest(&self) -> Option<usize> {
        let beyond = |source: &Source| {
            let known = [&self.held, &self.remembered].map(|known| known.get(source).copied());
            let known = known.into_iter().flatten().max().unwrap_or(0);
            let known = known.min((self.max / KNOWN_SHARE).max(1));
            self.count(source).saturating_sub(known)
        };
        let most = self
            .counts
            .keys()
            .map(beyond)
            .max()
            .filter(|most| *most > 0)?;
        self.waiting
            .iter()
            .position(|waiting| beyond(&waiting.source) == most)
    }

    fn count(&self, source: &Source) -> usize {
        self.counts.get(source).copied().unwrap_or(0)
    }

    fn take(&mut self, index: usize) -> Option<Waiting<H>> {
        let taken = self.waiting.remove(index)?;
        lower(&mut self.counts, taken.source);
        Some(taken)
    }
}

fn lower(counts: &mut HashMap<Source, usize>, source: Source) {
    if let Some(count) = counts.get_mut(&source) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(&source);
        }
    }
}

/// A time in which connections gave way.
#[derive(Debug)]
pub(super) struct Episode {
    began: Instant,
    last: Instant,
    gave_way: u64,
    /// How many of each source gave way. Of too many sources the one with the fewest is counted
    /// for the next that comes: its count is an upper bound then.
    sources: Vec<(Source, u64)>,
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

    fn count(&mut self, source: Source, now: Instant) {
        self.last = now;
        self.gave_way = self.gave_way.saturating_add(1);
        if let Some((_, count)) = self.sources.iter_mut().find(|(known, _)| *known == source) {
            *count = count.saturating_add(1);
        } else if self.sources.len() < COUNTED {
            self.sources.push((source, 1));
        } else if let Some(fewest) = self.sources.iter_mut().min_by_key(|(_, count)| *count) {
            *fewest = (source, fewest.1.saturating_add(1));
        }
    }
}

impl fmt::Display for Episode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = (self.last - self.began).as_secs_f32();
        write!(
            f,
            "{} connections gave way to newcomers before their handshake was done, in {seconds:.1} s; \
             the sources with the most:",
            self.gave_way
        )?;
        let mut sources = self.sources.clone();
        sources.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for (index, (source, count)) in sources.iter().take(NAMED).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match source {
                Some(ip) => write!(f, "{comma} {ip} ({count})")?,
                None => write!(f, "{comma} others ({count})")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
