//! Room for inbound connections whose handshake is not done: who gives way when all places are
//! taken.
//!
//! Silent connections cost those who open them nothing. So a newcomer always gets a place, and the
//! oldest connection of the source with the most gives way to it. A source is an IPv4 address, or
//! the /64 of an IPv6 one, which one host has to itself.
//!
//! Peers that were here before (lease holders, natives, peers whose addresses are remembered) are
//! not known by a connection before its handshake, but their addresses are: as many connections of
//! a source as there are such peers at it are spared. Ids cost nothing, and a few addresses cost
//! little, so that this has two bounds: of one source at most an eighth of all places is spared,
//! and of all sources together at most half of them. Where more would be, the sources that would
//! have the most spared have fewer: all of them at most the same number, the highest at which all
//! together stay within half.
//!
//! Invariants: at most `max` connections wait, and a newcomer is always one of them; of the sources
//! none gives way that has fewer beyond what is spared than another; so with half of the places in
//! the hands of known peers, the other half is shared evenly. What gave way is counted, and said in
//! one line for each episode, which ends when for [`QUIET`] none did, or after [`LONG`].

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// An episode is over when for so long none gave way.
const QUIET: Duration = Duration::from_secs(5);
/// An episode that goes on is said after so long, and counted anew.
const LONG: Duration = Duration::from_secs(60);
/// Of all places, the share that is spared for known peers of one source at most: one in so many.
const SOURCE_SHARE: usize = 8;
/// The same for those of all sources together.
const KNOWN_SHARE: usize = 2;
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
        let Some(weakest) = self.weakest().and_then(|index| self.take(index)) else {
            return Entered::Waits(id);
        };
        self.gave_way = self.gave_way.saturating_add(1);
        self.episode
            .get_or_insert_with(|| Episode::new(now))
            .count(weakest.source, now);
        Entered::Displaced(id, weakest.handle)
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

    /// These peers are remembered, each with the sources that it may come from. However often it
    /// names one of them, it is one peer there.
    pub(super) fn remember<S>(&mut self, peers: impl Iterator<Item = S>)
    where
        S: Iterator<Item = Source>,
    {
        self.remembered.clear();
        for sources in peers {
            let sources: HashSet<Source> = sources.collect();
            for source in sources {
                *self.remembered.entry(source).or_default() += 1;
            }
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

    /// The oldest connection of the source with the most beyond what is spared; of several such
    /// sources, the oldest of all.
    fn weakest(&self) -> Option<usize> {
        let spared_at_most = self.spared_at_most();
        let beyond = |source: &Source| {
            let spared = self.known_waiting(source).min(spared_at_most);
            self.count(source).saturating_sub(spared)
        };
        let most = self.counts.keys().map(beyond).max()?;
        self.waiting
            .iter()
            .position(|waiting| beyond(&waiting.source) == most)
    }

    /// How many connections of one source are spared at most: an eighth of the places, or what
    /// keeps all that are spared within half of them.
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
            // What one more for each source that has so many takes.
            let more = known.iter().filter(|known| **known >= *number).count();
            let fits = more <= left;
            left = left.saturating_sub(more);
            fits
        };
        (1..=of_one).take_while(fits).last().unwrap_or(0)
    }

    /// Connections of the source that may be those of known peers.
    fn known_waiting(&self, source: &Source) -> usize {
        let known = [&self.held, &self.remembered].map(|known| known.get(source).copied());
        let known = known.into_iter().flatten().max().unwrap_or(0);
        known.min(self.count(source))
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
