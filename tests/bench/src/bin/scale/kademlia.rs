//! The routing of Kademlia among servers that have met: each knows [`K`] others, chosen at random,
//! of each part of the servers that is half as far from it as the one before, if there are so many.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use oc_discovery::protocol::{Key, Rng};

use crate::network::PeerNo;

/// Servers in a bucket and in an answer, those that keep an announcement, and those that a walk
/// ends with.
pub const K: usize = 8;
/// Requests of a walk that wait for their answers at a time.
const ALPHA: usize = 3;

/// All servers: their places, and which others each knows.
pub struct Servers {
    places: Vec<u64>,
    known: Vec<Vec<PeerNo>>,
}

impl Servers {
    /// So many, at random places.
    pub fn new(count: usize, rng: &mut Rng) -> Self {
        let places: Vec<u64> = (0..count).map(|_| rng.bits()).collect();
        let known = (0..count).map(|own| table(own, &places, rng)).collect();
        Self { places, known }
    }

    /// How far a server is from a place.
    fn distance(&self, server: PeerNo, place: u64) -> u64 {
        self.places[server] ^ place
    }

    /// Whether a server is one of the `copies` that are nearest to the key.
    pub fn keeps(&self, server: PeerNo, key: &Key, copies: usize) -> bool {
        let place = place_of(key);
        let own = self.distance(server, place);
        let is_nearer = |other: &u64| (other ^ place) < own;
        self.places.iter().filter(|other| is_nearer(other)).count() < copies
    }

    /// Those that a server would name: the nearest that it knows.
    fn named_by(&self, server: PeerNo, place: u64) -> Vec<PeerNo> {
        let mut named = self.known[server].clone();
        named.sort_unstable_by_key(|server| self.distance(*server, place));
        named.truncate(K);
        named
    }
}

/// The servers that the server `own` knows.
fn table(own: PeerNo, places: &[u64], rng: &mut Rng) -> Vec<PeerNo> {
    let mut others: Vec<_> = (0..places.len()).filter(|other| *other != own).collect();
    for at in (1..others.len()).rev() {
        others.swap(at, rng.below(at as u64 + 1) as usize);
    }
    let mut buckets = [0; u64::BITS as usize + 1];
    others.retain(|other| {
        let bucket = &mut buckets[(places[own] ^ places[*other]).leading_zeros() as usize];
        *bucket += 1;
        *bucket <= K
    });
    others
}

fn place_of(key: &Key) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.to_string().hash(&mut hasher);
    hasher.finish()
}

/// A search for the servers nearest to a key.
pub struct Walk {
    place: u64,
    /// The servers heard of, the nearest first.
    heard_of: Vec<(PeerNo, State)>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    New,
    Asked,
    Answered,
}

impl Walk {
    /// By a server, which is not asked itself.
    pub fn new(servers: &Servers, own: PeerNo, key: &Key) -> Self {
        let mut walk = Self {
            place: place_of(key),
            heard_of: vec![(own, State::Answered)],
        };
        walk.hear_of(servers, own);
        walk.heard_of.retain(|(server, _)| *server != own);
        walk
    }

    fn hear_of(&mut self, servers: &Servers, from: PeerNo) {
        for server in servers.named_by(from, self.place) {
            if self.heard_of.iter().all(|(known, _)| *known != server) {
                self.heard_of.push((server, State::New));
            }
        }
        let place = self.place;
        self.heard_of
            .sort_unstable_by_key(|(server, _)| servers.distance(*server, place));
    }

    /// The next server to be asked now.
    pub fn ask(&mut self) -> Option<PeerNo> {
        let asked = |(_, state): &&(PeerNo, State)| *state == State::Asked;
        if self.heard_of.iter().filter(asked).count() >= ALPHA {
            return None;
        }
        let mut nearest = self.heard_of.iter_mut().take(K);
        let (server, state) = nearest.find(|(_, state)| *state == State::New)?;
        *state = State::Asked;
        Some(*server)
    }

    /// A server has answered.
    pub fn answered(&mut self, servers: &Servers, by: PeerNo) {
        for (server, state) in &mut self.heard_of {
            if *server == by {
                *state = State::Answered;
            }
        }
        self.hear_of(servers, by);
    }

    /// How many have answered, once the nearest have.
    pub fn end(&self) -> Option<usize> {
        let has_answered = |(_, state): &&(PeerNo, State)| *state == State::Answered;
        let is_over = self
            .heard_of
            .iter()
            .take(K)
            .all(|heard| has_answered(&heard));
        is_over.then(|| self.heard_of.iter().filter(has_answered).count())
    }
}
