//! A process that lists, its servers, and its reader.

use core::time::Duration;
use std::{boxed::Box, vec, vec::Vec};

use super::super::*;
use crate::protocol::{
    EntriesPage, Entry, IndexersAnswer, IndexersPage, Offer, Selection, Subject,
    codec::{
        fixtures::{encoded, unsigned},
        record::{Flaw, Purpose, Tags, contents, encode_record},
        service::{Service, Transport, to_service_name},
    },
};

pub(super) const NATIVE: u16 = 900;
pub(super) const FORGED: &[u8] = &[0x22, 1, 0];

pub(super) fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

pub(super) fn after(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

pub(super) fn peer(n: u16) -> PeerId {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(bytes)
}

pub(super) fn number(peer: &PeerId) -> u16 {
    u16::from_be_bytes([peer.as_bytes()[0], peer.as_bytes()[1]])
}

pub(super) fn offer(n: u16) -> Offer {
    Offer {
        peer: peer(n),
        addrs: [[4, 1].into_iter().collect()].into_iter().collect(),
        ttl: Duration::from_secs(90),
        free: None,
    }
}

/// The envelope of a node with this number, which is called `pump` and offers `http`.
pub(super) fn envelope(n: u16) -> Vec<u8> {
    let record = Record {
        peer: peer(n),
        sequence: 1,
        issued_at_ms: 1,
        ttl: Duration::from_secs(60),
        addrs: [&[4][..]].into_iter().collect(),
        name: "pump",
        tags: Tags::new(),
        services: [Service {
            name: to_service_name("http").unwrap(),
            transport: Transport::Tcp,
            port: 80,
        }]
        .into_iter()
        .collect(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    };
    unsigned(&record)
}

/// Verifies the envelopes of [`envelope`] that do not end as forged ones do here.
pub(super) struct Seals;

impl Verifier for Seals {
    fn open(&self, purpose: Purpose, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), Flaw> {
        let record = purpose
            .kind()
            .and_then(|kind| contents(kind, envelope))
            .filter(|_| !envelope.ends_with(FORGED));
        let record = record.ok_or(Flaw::NotAnEnvelope)?;
        let payload = encoded(|buffer| encode_record(&record, buffer));
        Ok((record.peer, payload))
    }
}

/// What a server says of a node: alive with a record, otherwise without one.
pub(super) type Said = (u16, Presence, u64);

pub(super) fn alive(n: u16) -> Said {
    (n, Presence::Alive, 1)
}

/// A process that knows only what a test sets.
pub(super) struct Process {
    pub(super) role: Role,
    pub(super) servers: Vec<KnownServer>,
    pub(super) live: Vec<Offer>,
    pub(super) nodes: Vec<(u16, Vec<u8>)>,
}

impl Home for Process {
    fn role(&self) -> Role {
        self.role
    }

    fn page(&mut self, _: Instant, from: Cursor, most: usize) -> IndexersPage<'_> {
        let start = match from {
            Cursor::Start => 0,
            Cursor::After(id) => self.live.partition_point(|offer| offer.peer <= id),
        };
        let rest = &self.live[start..];
        let offers = &rest[..rest.len().min(most)];
        let next = (rest.len() > most).then(|| offers.last().unwrap().peer);
        IndexersPage { offers, next }
    }

    fn addrs_of(&self, _: &PeerId) -> Option<&Addrs> {
        None
    }

    fn servers(&self, _: Instant, tell: &mut dyn FnMut(KnownServer)) {
        self.servers.iter().for_each(|server| tell(*server));
    }

    fn entries<'s>(
        &'s self,
        _: Instant,
        Selection { from, .. }: Selection<'_>,
        visit: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId> {
        let mut last = None;
        for (n, envelope) in &self.nodes {
            if matches!(from, Cursor::After(id) if peer(*n) <= id) {
                continue;
            }
            let entry = Entry {
                subject: Subject::Signed(envelope),
                age: Duration::from_millis(1),
                presence: Presence::Alive,
            };
            if !visit(entry) {
                return last;
            }
            last = Some(peer(*n));
        }
        None
    }
}

/// Keeps rows, and has room for a number of them.
pub(super) struct Shown {
    pub(super) room: usize,
    pub(super) rows: Vec<Said>,
    pub(super) servers: Vec<Option<u16>>,
}

impl Shown {
    pub(super) fn say(&mut self, row: &Row<'_>) {
        self.room = self.room.checked_sub(1).expect("there is room for the row");
        let age = row.age.as_millis() as u64;
        self.rows.push((number(&row.peer), row.presence, age));
        self.servers.push(row.server.as_ref().map(number));
    }
}

/// A listing, and the queries that are not answered yet.
pub(super) struct Desk {
    pub(super) home: Process,
    pub(super) listing: Option<Box<Listing<Vec<u64>>>>,
    pub(super) asked: Vec<(u16, ListAsk, QueryId)>,
    pub(super) shown: Shown,
    pub(super) progress: Vec<u64>,
    pub(super) is_done: bool,
}

impl Desk {
    pub(super) fn new(role: Role) -> Self {
        Self {
            home: Process {
                role,
                servers: Vec::new(),
                live: Vec::new(),
                nodes: Vec::new(),
            },
            listing: None,
            asked: Vec::new(),
            shown: Shown {
                room: 10_000,
                rows: Vec::new(),
                servers: Vec::new(),
            },
            progress: Vec::new(),
            is_done: false,
        }
    }

    pub(super) fn server(mut self, n: u16, role: Role) -> Self {
        self.home.servers.push(KnownServer {
            peer: peer(n),
            role,
            is_held: true,
        });
        self
    }

    pub(super) fn indexers(self, all: impl IntoIterator<Item = u16>) -> Self {
        all.into_iter()
            .fold(self, |desk, n| desk.server(n, Role::Indexer))
    }

    pub(super) fn begin(self) -> Self {
        self.begin_with(Filter::default(), States::ALL)
    }

    pub(super) fn begin_with(self, filter: Filter, states: States) -> Self {
        self.begin_in(4096, (filter, states))
    }

    /// Begins with a set of so many places.
    pub(super) fn begin_in(mut self, places: usize, which: (Filter, States)) -> Self {
        let mut listing = Box::new(Listing::new(vec![0; places]));
        listing.begin(at(0), (peer(0), 5), which, &self.home);
        self.listing = Some(listing);
        self.poll(0);
        self
    }

    pub(super) fn listing(&self) -> &Listing<Vec<u64>> {
        self.listing.as_ref().unwrap()
    }

    pub(super) fn poll(&mut self, now: u64) {
        let listing = self.listing.as_mut().unwrap();
        listing.has_room(self.shown.room);
        while let Some(step) = listing.poll(at(now), &mut self.home) {
            match step {
                ListingStep::Ask {
                    query, server, ask, ..
                } => self.asked.push((number(&server), ask, query)),
                ListingStep::Rows => {
                    let shown = &mut self.shown;
                    listing.rows(at(now), &self.home, &mut |row| shown.say(row));
                }
                ListingStep::Progress => {
                    let room = self.shown.room.checked_sub(1);
                    self.shown.room = room.expect("there is room for it");
                    self.progress.push(now);
                }
                ListingStep::Done => self.is_done = true,
            }
        }
    }

    pub(super) fn responds(
        &mut self,
        now: u64,
        n: u16,
        nodes: bool,
        response: Option<&Response<'_>>,
    ) {
        let is_it = |(server, ask, _): &(u16, ListAsk, QueryId)| {
            *server == n && matches!(ask, ListAsk::Nodes(_)) == nodes
        };
        let position = self.asked.iter().position(is_it);
        let (_, _, query) = self.asked.remove(position.expect("it was asked"));
        let listing = self.listing.as_mut().unwrap();
        let shown = &mut self.shown;
        listing.responded(query, response, &Seals, &mut |row| shown.say(row));
        self.poll(now);
    }

    /// The server lists these nodes; `next`: there are more after that id.
    pub(super) fn lists(&mut self, now: u64, n: u16, nodes: &[Said], next: Option<u16>) {
        let envelopes: Vec<_> = nodes.iter().map(|(node, ..)| envelope(*node)).collect();
        let entries = nodes.iter().zip(&envelopes);
        let entries: Vec<_> = entries
            .map(|(said, envelope)| entry(said, envelope))
            .collect();
        self.page(now, n, &entries, next);
    }

    pub(super) fn page(&mut self, now: u64, n: u16, entries: &[Entry<'_>], next: Option<u16>) {
        let next = next.map(peer);
        let page = EntriesPage { entries, next };
        self.responds(now, n, true, Some(&Response::Entries(page)));
    }

    /// The native lists these indexers on its only page.
    pub(super) fn lists_indexers(&mut self, now: u64, native: u16, ids: &[u16]) {
        let offers: Vec<_> = ids.iter().map(|n| offer(*n)).collect();
        let answer = IndexersAnswer {
            offers: &offers,
            takes_in: false,
        };
        self.responds(now, native, false, Some(&Response::Indexers(answer)));
    }

    /// The servers that were asked and have not answered.
    pub(super) fn waiting(&self) -> Vec<u16> {
        self.asked.iter().map(|(server, ..)| *server).collect()
    }

    pub(super) fn rows(&self) -> Vec<u16> {
        self.shown.rows.iter().map(|(n, ..)| *n).collect()
    }

    pub(super) fn tally(&self) -> (u32, u32) {
        let Tally { asked, answered } = self.listing().tally();
        (asked, answered)
    }
}

pub(super) fn entry<'a>((n, presence, age): &Said, envelope: &'a [u8]) -> Entry<'a> {
    let subject = match presence {
        Presence::Alive => Subject::Signed(envelope),
        _ => Subject::Named {
            peer: peer(*n),
            name: "pump",
        },
    };
    Entry {
        subject,
        age: Duration::from_millis(*age),
        presence: *presence,
    }
}

pub(super) fn numbers<'a>(peers: impl Iterator<Item = &'a PeerId>) -> Vec<u16> {
    peers.map(number).collect()
}
