//! Listings between the core, which decides about them, and the network: rows for the reader.
//!
//! A reader (a command, or a task of this process) makes a [`PartsCall`] of a [`NodeQuery`] and
//! reads the parts as they come.
//!
//! Invariants: at most [`MAX_LISTINGS`] listings at once, and one more is refused; the loop never
//! waits for a reader, because rows are made only while there is room.

use std::time::Duration;

use super::{
    environment::Environment,
    life::short,
    lookup::{Lookups, Requester},
    machines::boxed,
    report::{self, text},
    request::{Part, Parts},
    status::{ListTally, NodeQuery, NodeRow, NodeState},
    watch::filter_of,
};
use crate::{
    net::envelope::{Libp2p, opened},
    protocol::{
        Instant, PeerId, Presence, TableStats,
        codec::directory::Response,
        listing::{Listing, ListingAction, Row, Rows, SEEN_WORDS, States},
        lookup::QueryId,
    },
};

/// Listings at once.
pub(super) const MAX_LISTINGS: usize = 2;

/// Names a listing under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListingId(u64);

/// A listing, and its reader.
struct Running {
    id: ListingId,
    listing: Box<Listing<Vec<u64>>>,
    parts: Parts,
}

/// The listings under way.
#[derive(Default)]
pub(super) struct Listings {
    running: Vec<Running>,
    next: u64,
    refused: u64,
}

impl Listings {
    /// Takes a server's response to a query, or its failure.
    pub(super) fn responded(
        &mut self,
        (id, query): (ListingId, QueryId),
        response: Option<&Response<'_>>,
    ) {
        let mut running = self.running.iter_mut();
        if let Some(Running { listing, parts, .. }) = running.find(|running| running.id == id) {
            listing.responded(query, response, &Libp2p, parts);
        }
    }

    /// When a listing has something to do without an event.
    pub(super) fn timeout(&self) -> Option<Instant> {
        let timeouts = self.running.iter().filter_map(|one| one.listing.timeout());
        timeouts.min()
    }

    /// The statistics for `status`.
    pub(super) fn stats(&self) -> TableStats {
        TableStats {
            name: "listings",
            used: self.running.len(),
            capacity: MAX_LISTINGS,
            refused: self.refused,
            evicted: 0,
        }
    }
}

impl Lookups {
    /// Begins a listing of these nodes. Its rows go to `parts`.
    pub(super) fn nodes(&mut self, env: &Environment, query: &NodeQuery, parts: Parts) {
        let filter = match filter_of(query) {
            Ok(filter) => filter,
            Err(why) => return parts.refuse(&why),
        };
        if self.listings.running.len() >= MAX_LISTINGS {
            self.listings.refused += 1;
            return parts.refuse_for_now("too many listings at once: try again in a moment");
        }
        self.listings.next += 1;
        let (now, seed) = (env.now(), getrandom::u64().unwrap_or_default());
        let states = states(query);
        let running = Running {
            id: ListingId(self.listings.next),
            listing: boxed(|| {
                let buffer = vec![0; SEEN_WORDS];
                Listing::begin(now, env.own, seed, filter, states, env.machine(), buffer)
            }),
            parts,
        };
        self.listings.running.push(running);
    }

    /// Carries out the steps of the core's listings.
    pub(super) fn pump_listings(&mut self, env: &mut Environment) {
        let mut running = std::mem::take(&mut self.listings.running);
        running.retain_mut(|running| self.advance(env, running));
        self.listings.running = running;
    }

    /// Returns whether the listing goes on.
    fn advance(&mut self, env: &mut Environment, running: &mut Running) -> bool {
        let Running { id, listing, parts } = running;
        let now = env.now();
        while !parts.is_abandoned() {
            match listing.poll(now, env.endpoint.machine_mut(), parts) {
                None => return true,
                Some(ListingAction::Done) => {
                    let done = true;
                    let tally = tally(listing);
                    parts.send(Part::Tally(Box::new(ListTally { done, ..tally })));
                    return false;
                }
                Some(ListingAction::Progress) => {
                    // The room of the last part is kept for it.
                    if Rows::room(parts) > 0 {
                        parts.send(Part::Tally(Box::new(tally(listing))));
                    }
                }
                Some(ListingAction::Ask {
                    query,
                    server,
                    addrs,
                    ask,
                }) => match self.name_if_there_is_room(Requester::Listing(*id, query)) {
                    Some(request) => {
                        log::debug!("a listing asks {}", short(&server));
                        env.net
                            .request(server, &addrs, request, &listing.request(ask));
                    }
                    None => {
                        listing.responded(query, None, &Libp2p, parts);
                    }
                },
            }
        }
        false
    }
}

impl Rows for Parts {
    /// One part is kept for the last one.
    fn room(&self) -> usize {
        Parts::room(self).saturating_sub(1)
    }

    fn row(&mut self, row: &Row<'_>) {
        self.send(Part::Row(Box::new(node_row(row))));
    }
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

/// How far the listing is, before its end.
fn tally(listing: &Listing<Vec<u64>>) -> ListTally {
    let texts = |servers: &mut dyn Iterator<Item = &PeerId>| servers.map(text).collect();
    let tally = listing.tally();
    ListTally {
        done: false,
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
