//! Listings between the core, which decides about them, and their readers: rows become parts.
//!
//! A reader (a command, or a task of this process) makes a [`PartsCall`] of a [`NodeQuery`] and
//! reads the parts as they come.
//!
//! Invariant: the loop never waits for a reader. The core is told before each poll for how many
//! rows a reader has room, and makes no more.

use std::time::Duration;

use super::{
    environment::Environment,
    lookup::Lookups,
    machines::{ProgramListing, boxed},
    report::{self, text},
    request::{Part, Parts},
    status::{ListTally, NodeQuery, NodeRow, NodeState},
    watch::filter_of,
};
use crate::{
    net::envelope::opened,
    protocol::{
        PeerId, Presence,
        listing::{Listing, ListingAction, ListingId, Row, SEEN_WORDS, States},
    },
};

/// A reader.
struct Reader {
    id: ListingId,
    parts: Parts,
}

/// The readers of listings.
#[derive(Default)]
pub(super) struct Listings {
    readers: Vec<Reader>,
}

impl Listings {
    /// Begins a listing of these nodes. Its rows go to `parts`.
    pub(super) fn begin(&mut self, env: &mut Environment, query: &NodeQuery, parts: Parts) {
        let filter = match filter_of(query) {
            Ok(filter) => filter,
            Err(why) => return parts.refuse(&why),
        };
        let (now, seed) = (env.now(), getrandom::u64().unwrap_or_default());
        let place = || boxed(|| Listing::new(vec![0; SEEN_WORDS]));
        match env.endpoint.list(now, seed, (filter, states(query)), place) {
            Some(id) => self.readers.push(Reader { id, parts }),
            None => parts.refuse_for_now("too many listings at once: try again in a moment"),
        }
    }

    /// Tells the core which readers have left, and how much room the others have.
    pub(super) fn note_readers(&mut self, env: &mut Environment) {
        let listings = env.endpoint.listings_mut();
        self.readers.retain(|Reader { id, parts }| {
            let has_left = parts.is_abandoned();
            match has_left {
                true => listings.leave(*id),
                false => listings.has_room(*id, room(parts)),
            }
            !has_left
        });
    }

    /// Carries out an action of the core that is about a listing.
    pub(super) fn perform(
        &mut self,
        env: &mut Environment,
        lookups: &mut Lookups,
        action: ListingAction,
    ) {
        match action {
            ListingAction::Ask {
                query,
                server,
                addrs,
                ask,
            } => {
                if let Some(request) = env.endpoint.listings().request(query, ask) {
                    lookups.ask(env, query, (server, &addrs), &request);
                }
            }
            ListingAction::Rows { listing } => {
                let now = env.now();
                let say = &mut |row: &Row<'_>| self.say(listing, row);
                env.endpoint.rows(now, listing, say);
            }
            ListingAction::Progress { listing } => {
                let reader = self.readers.iter().find(|reader| reader.id == listing);
                let listing = env.endpoint.listings().of(listing);
                if let Some((reader, listing)) = reader.zip(listing) {
                    let tally = tally(listing, Progress::Running);
                    reader.parts.send(Part::Tally(Box::new(tally)));
                }
            }
            ListingAction::Done { listing } => {
                let ended = self.readers.extract_if(.., |reader| reader.id == listing);
                let listing = env.endpoint.listings().of(listing);
                for (reader, listing) in ended.zip(listing) {
                    let tally = tally(listing, Progress::Done);
                    reader.parts.send(Part::Tally(Box::new(tally)));
                }
            }
        }
    }

    /// Sends a row. There is room.
    pub(super) fn say(&self, listing: ListingId, row: &Row<'_>) {
        if let Some(reader) = self.readers.iter().find(|reader| reader.id == listing) {
            reader.parts.send(Part::Row(Box::new(node_row(row))));
        }
    }
}

/// Rows that the reader has room for. One part is kept for the last one.
fn room(parts: &Parts) -> usize {
    parts.room().saturating_sub(1)
}

/// Whether the listing is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Running,
    Done,
}

fn states(query: &NodeQuery) -> States {
    match query.states.as_deref() {
        None | Some([]) => States::ALL,
        Some(states) => States::of(states.iter().map(|state| match state {
            NodeState::Alive => Presence::Alive,
            NodeState::Left => Presence::Left,
            NodeState::Lost => Presence::Lost,
        })),
    }
}

/// A node for its reader.
fn node_row(row: &Row<'_>) -> NodeRow {
    let record = row.record.map(opened);
    NodeRow {
        name: row.name.into(),
        peer_id: text(&row.peer),
        state: match row.presence {
            Presence::Alive => NodeState::Alive,
            Presence::Left => NodeState::Left,
            Presence::Lost => NodeState::Lost,
        },
        last_beat_ms: millis(row.age),
        addresses: record
            .iter()
            .flat_map(|record| &record.addrs)
            .map(ToString::to_string)
            .collect(),
        services: record
            .as_ref()
            .map(|record| report::services(&record.about))
            .unwrap_or_default(),
        tags: record
            .as_ref()
            .map(|record| report::tags(&record.about))
            .unwrap_or_default(),
        version: record.map(|record| record.version).unwrap_or_default(),
        server: row.server.as_ref().map(text),
    }
}

/// How far the listing is.
fn tally(listing: &ProgramListing, progress: Progress) -> ListTally {
    let texts = |servers: &mut dyn Iterator<Item = &PeerId>| servers.map(text).collect();
    let tally = listing.tally();
    ListTally {
        done: progress == Progress::Done,
        complete: listing.is_complete(),
        asked: tally.asked.into(),
        answered: tally.answered.into(),
        silent: texts(&mut listing.silent()),
        refused: texts(&mut listing.refused()),
        partial: texts(&mut listing.partial()),
    }
}

/// Milliseconds for a reader.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
