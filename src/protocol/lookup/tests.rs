use core::time::Duration;
use std::{boxed::Box, vec::Vec};

use super::*;
use crate::protocol::{
    Addrs, Beat, Count, Cursor, Entry, IndexersPage, Key, MAX_ENVELOPE_LEN, Machine, Name, Offer,
    RecordInfo, Selection, StreamId, Tally,
    directory::{Claimants, Directory, Found},
    lease_table::LeaseTable,
};

mod claimants;

mod exchange;
mod limits;
mod lists;
mod messages;
mod operator;
mod peers;
mod services;

const NATIVE: u8 = 200;
const LEASE: Duration = Duration::from_secs(90);

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn name(text: &str) -> Name {
    Name::try_from(text).unwrap()
}

fn pump() -> Question {
    Question::Name(name("pump"))
}

fn info(n: u8, claims: &str, sequence: u64) -> RecordInfo {
    RecordInfo {
        peer: peer(n),
        sequence,
        issued_at_ms: 1_000,
        ttl: Duration::from_secs(270),
        addrs: Addrs::new(),
        name: name(claims),
    }
}

fn offer(n: u8, ttl_ms: u64) -> Offer {
    Offer {
        peer: peer(n),
        addrs: [[4, n].into_iter().collect()].into_iter().collect(),
        ttl: Duration::from_millis(ttl_ms),
        free: None,
    }
}

/// A process that knows only what a test sets.
struct Process {
    role: Role,
    directory: Directory<32>,
    leases: LeaseTable<32>,
    servers: Vec<KnownServer>,
    left: Vec<PeerId>,
    live: Vec<Offer>,
    page: Vec<Offer>,
}

impl Home for Process {
    fn role(&self) -> Role {
        self.role
    }

    fn page(&mut self, _now: Instant, from: Cursor, most: usize) -> IndexersPage<'_> {
        let is_behind = |offer: &&Offer| match from {
            Cursor::Start => true,
            Cursor::After(id) => offer.peer > id,
        };
        let left: Vec<_> = self.live.iter().filter(is_behind).collect();
        self.page = left.iter().take(most).copied().cloned().collect();
        let offers = self.page.as_slice();
        let next = (left.len() > most).then(|| offers.last().unwrap().peer);
        IndexersPage { offers, next }
    }

    fn addrs_of(&self, _peer: &PeerId) -> Option<&Addrs> {
        None
    }

    fn servers(&self, _now: Instant, tell: &mut dyn FnMut(KnownServer)) {
        self.servers.iter().for_each(|server| tell(*server));
    }

    fn entries<'s>(
        &'s self,
        now: Instant,
        which: Selection<'_>,
        visit: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId> {
        self.directory
            .entries(now, which, |peer| self.leases.find(peer), visit)
    }
}

impl Here for Process {
    fn claimants(&self, now: Instant, name: &str) -> Claimants<'_> {
        self.directory.claimants(now, name)
    }

    fn listed(&self, now: Instant, peer: &PeerId) -> Option<Found<'_>> {
        self.directory.heard(now, peer, &self.leases)
    }

    fn has_left(&self, _: Instant, server: &PeerId) -> bool {
        self.left.contains(server)
    }
}

type Slots = Lookups<2, 1, 2, 1>;

// Made at compile time, because it is large for the stack of a test.
const EMPTY: Slots = Slots::new();

/// Lookups in a process of `role`, and the queries that are not answered yet.
struct Desk {
    lookups: Box<Slots>,
    here: Process,
    asked: Vec<(PeerId, Ask, QueryId)>,
    searches: Vec<(Role, QueryId)>,
    /// Searches for providers.
    wanted: Vec<(Key, QueryId)>,
    ended: Vec<QueryId>,
    done: Option<LookupId>,
    /// The page of the list of nodes that is asked for next.
    page: Cursor,
    /// The wall-clock time.
    own_ms: u64,
}

impl Desk {
    fn new(role: Role) -> Self {
        let mut lookups = Box::new(EMPTY);
        lookups.start(peer(0));
        Self {
            lookups,
            here: Process {
                role,
                directory: Directory::new(),
                leases: LeaseTable::new(),
                servers: Vec::new(),
                left: Vec::new(),
                live: Vec::new(),
                page: Vec::new(),
            },
            asked: Vec::new(),
            searches: Vec::new(),
            wanted: Vec::new(),
            ended: Vec::new(),
            done: None,
            page: Cursor::Start,
            own_ms: 0,
        }
    }

    fn server(mut self, n: u8, role: Role, is_held: bool) -> Self {
        self.here.servers.push(KnownServer {
            peer: peer(n),
            role,
            is_held,
        });
        self
    }

    fn indexer(self, n: u8) -> Self {
        self.server(n, Role::Indexer, true)
    }

    fn native(self, n: u8) -> Self {
        self.server(n, Role::Native, true)
    }

    fn lists(mut self, n: u8, claims: &str) -> Self {
        self.here.directory.list(at(0), &info(n, claims, 1), &[n]);
        let (peer, stream) = (peer(n), StreamId(n.into()));
        let leases = &mut self.here.leases;
        let beat = Beat::new(Role::Node, LEASE);
        let sender = leases.admit(&peer, stream, &beat).unwrap();
        leases.renew(at(0), &sender, Role::Node, LEASE);
        self
    }

    fn begin(&mut self, question: Question) -> LookupId {
        let id = self.lookups.begin(at(0), question, &self.here).unwrap();
        self.poll(0);
        id
    }

    fn begin_for_peer(&mut self, question: Question, reach: Reach) -> Begun {
        let begun = self
            .lookups
            .begin_for_peer(at(0), question, reach, &self.here);
        self.poll(0);
        begun
    }

    /// Polls until there is no step, or a lookup is over.
    fn poll(&mut self, now: u64) {
        self.done = None;
        while let Some(step) = self.lookups.poll(at(now), self.own_ms, &mut self.here) {
            match step {
                LookupAction::Ask {
                    query, server, ask, ..
                } => self.asked.push((server, ask, query)),
                LookupAction::Providers { query, key } => self.wanted.push((key, query)),
                LookupAction::Search { query, role, .. } => self.searches.push((role, query)),
                LookupAction::EndSearch { query } => {
                    self.wanted.retain(|(_, of)| *of != query);
                    self.ended.push(query);
                }
                LookupAction::Done { lookup } => {
                    self.done = Some(lookup);
                    return;
                }
            }
        }
    }

    /// Removes and returns the query that waits at the server: the one for pages, or the other one.
    fn question(&mut self, n: u8, for_pages: bool) -> Option<(Ask, QueryId)> {
        let is_it = |(server, ask, _): &(PeerId, Ask, QueryId)| {
            *server == peer(n) && matches!(ask, Ask::Indexers(_)) == for_pages
        };
        let at = self.asked.iter().position(is_it)?;
        let (_, ask, query) = self.asked.remove(at);
        Some((ask, query))
    }

    /// The reach that the server was asked for, if it was asked.
    fn reach(&self, n: u8) -> Option<Reach> {
        let mut asked = self.asked.iter();
        asked.find_map(|(server, ask, _)| match ask {
            Ask::Name { reach, .. } | Ask::Peer { reach, .. } if *server == peer(n) => Some(*reach),
            _ => None,
        })
    }

    /// The servers that were asked and have not answered, in the order of the queries.
    fn waiting(&self) -> Vec<u8> {
        let all = self.asked.iter();
        all.map(|(server, ..)| server.as_bytes()[0]).collect()
    }

    /// The server answers with these records of peers that claim `pump`.
    fn answers(&mut self, now: u64, n: u8, found: &[u8]) {
        let infos: Vec<_> = found.iter().map(|n| info(*n, "pump", 2)).collect();
        self.answers_with(now, n, &infos, false, None);
    }

    fn answers_with(
        &mut self,
        now: u64,
        n: u8,
        found: &[RecordInfo],
        more: bool,
        tally: Option<Tally>,
    ) {
        let (_, query) = self.question(n, false).expect("it was asked");
        let envelope = &[n];
        let records: Vec<_> = found
            .iter()
            .map(|info| RecordCopy {
                info,
                envelope,
                age: None,
                claimed: None,
            })
            .collect();
        let records = &records;
        let answer = Answer::Records(AnswerRecords {
            records,
            more,
            tally,
            claimants: None,
        });
        assert!(self.lookups.answered(at(now), query, answer));
        self.poll(now);
    }

    /// The native lists these indexers; `next`: there are more behind that id.
    fn lists_indexers(&mut self, now: u64, native: u8, ids: &[u8], next: Option<u8>) {
        let (_, query) = self.question(native, true).expect("it was asked");
        let offers: Vec<_> = ids.iter().map(|n| offer(*n, 1)).collect();
        let answer = Answer::Indexers {
            offers: &offers,
            next: next.map(peer),
        };
        assert!(self.lookups.answered(at(now), query, answer));
        self.poll(now);
    }

    /// A server of the DHT names these providers.
    fn names(&mut self, now: u64, providers: &[u8], coverage: Coverage) {
        let (_, query) = *self.wanted.last().expect("it is searched");
        let named: Vec<_> = providers.iter().map(|n| (peer(*n), Addrs::new())).collect();
        assert!(self.lookups.provided(at(now), query, &named, coverage));
        self.poll(now);
    }

    /// The search for providers is over, in which so many servers have answered.
    fn search_ends(&mut self, now: u64, reached: u16) {
        let (_, query) = self.wanted.pop().expect("it is searched");
        assert!(self.lookups.searched(at(now), query, reached));
        self.poll(now);
    }

    fn fails(&mut self, now: u64, n: u8, for_pages: bool) {
        let (_, query) = self.question(n, for_pages).expect("it was asked");
        assert!(self.lookups.answered(at(now), query, Answer::Failed));
        self.poll(now);
    }

    fn finds(&mut self, now: u64, own_ms: u64, query: QueryId, found: &RecordInfo) -> bool {
        let copy = RecordCopy {
            info: found,
            envelope: &[9],
            age: None,
            claimed: None,
        };
        self.lookups.found(at(now), own_ms, query, copy)
    }

    fn outcome(&self) -> Outcome<'_> {
        let done = self.done.expect("a lookup is over");
        self.lookups.outcome(done).unwrap()
    }

    fn found(&self) -> Vec<u8> {
        let records = self.outcome().records.iter();
        records.map(|record| record.peer().as_bytes()[0]).collect()
    }

    fn tally(&self) -> (u32, u32) {
        let Tally { asked, answered } = self.outcome().tally;
        (asked, answered)
    }

    fn left(&self) -> Vec<u8> {
        let left = self.outcome().left();
        left.map(|server| server.as_bytes()[0]).collect()
    }

    fn refused(&self) -> Vec<u8> {
        let refused = self.outcome().refused();
        refused.map(|server| server.as_bytes()[0]).collect()
    }

    fn silent(&self) -> Vec<u8> {
        let silent = self.outcome().silent();
        silent.map(|server| server.as_bytes()[0]).collect()
    }
}
