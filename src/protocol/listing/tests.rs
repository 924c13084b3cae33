use core::time::Duration;
use std::{boxed::Box, vec, vec::Vec};

use super::*;
use crate::protocol::{
    EntriesPage, Entry, IndexersAnswer, IndexersPage, Offer, Reason, Selection, Subject,
    codec::{
        fixtures::{encoded, unsigned},
        record::{Kind, RecordError, Tags, contents, encode_record},
        service::{Service, Transport, to_service_name},
    },
};

mod rows;

const NATIVE: u16 = 900;
const FORGED: &[u8] = &[0x22, 1, 0];

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn after(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

fn peer(n: u16) -> PeerId {
    let mut bytes = [7; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    PeerId::from_bytes(bytes)
}

fn number(peer: &PeerId) -> u16 {
    u16::from_be_bytes([peer.as_bytes()[0], peer.as_bytes()[1]])
}

fn offer(n: u16) -> Offer {
    Offer {
        peer: peer(n),
        addrs: [[4, 1].into_iter().collect()].into_iter().collect(),
        ttl: Duration::from_secs(90),
        free: None,
    }
}

/// The envelope of a node with this number, which is called `pump` and offers `http`.
fn envelope(n: u16) -> Vec<u8> {
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
struct Seals;

impl Verifier for Seals {
    fn open(&self, kind: Kind, envelope: &[u8]) -> Result<(PeerId, impl AsRef<[u8]>), RecordError> {
        let record = contents(kind, envelope).filter(|_| !envelope.ends_with(FORGED));
        let record = record.ok_or(RecordError::NotAnEnvelope)?;
        let payload = encoded(|buffer| encode_record(&record, buffer));
        Ok((record.peer, payload))
    }
}

/// What a server says of a node: alive with a record, otherwise without one.
type Said = (u16, Presence, u64);

fn alive(n: u16) -> Said {
    (n, Presence::Alive, 1)
}

/// A process that knows only what a test sets.
struct Process {
    role: Role,
    servers: Vec<KnownServer>,
    live: Vec<Offer>,
    nodes: Vec<(u16, Vec<u8>)>,
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
struct Shown {
    room: usize,
    rows: Vec<Said>,
    servers: Vec<Option<u16>>,
}

impl Shown {
    fn say(&mut self, row: &Row<'_>) {
        self.room = self.room.checked_sub(1).expect("there is room for the row");
        let age = row.age.as_millis() as u64;
        self.rows.push((number(&row.peer), row.presence, age));
        self.servers.push(row.server.as_ref().map(number));
    }
}

/// A listing, and the queries that are not answered yet.
struct Desk {
    home: Process,
    listing: Option<Box<Listing<Vec<u64>>>>,
    asked: Vec<(u16, ListAsk, QueryId)>,
    shown: Shown,
    progress: Vec<u64>,
    is_done: bool,
}

impl Desk {
    fn new(role: Role) -> Self {
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

    fn server(mut self, n: u16, role: Role) -> Self {
        self.home.servers.push(KnownServer {
            peer: peer(n),
            role,
            is_held: true,
        });
        self
    }

    fn indexers(self, all: impl IntoIterator<Item = u16>) -> Self {
        all.into_iter()
            .fold(self, |desk, n| desk.server(n, Role::Indexer))
    }

    fn begin(self) -> Self {
        self.begin_with(Filter::default(), States::ALL)
    }

    fn begin_with(self, filter: Filter, states: States) -> Self {
        self.begin_in(4096, (filter, states))
    }

    /// Begins with a set of so many places.
    fn begin_in(mut self, places: usize, which: (Filter, States)) -> Self {
        let mut listing = Box::new(Listing::new(vec![0; places]));
        listing.begin(at(0), (peer(0), 5), which, &self.home);
        self.listing = Some(listing);
        self.poll(0);
        self
    }

    fn listing(&self) -> &Listing<Vec<u64>> {
        self.listing.as_ref().unwrap()
    }

    fn poll(&mut self, now: u64) {
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

    fn responds(&mut self, now: u64, n: u16, nodes: bool, response: Option<&Response<'_>>) {
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
    fn lists(&mut self, now: u64, n: u16, nodes: &[Said], next: Option<u16>) {
        let envelopes: Vec<_> = nodes.iter().map(|(node, ..)| envelope(*node)).collect();
        let entries = nodes.iter().zip(&envelopes);
        let entries: Vec<_> = entries
            .map(|(said, envelope)| entry(said, envelope))
            .collect();
        self.page(now, n, &entries, next);
    }

    fn page(&mut self, now: u64, n: u16, entries: &[Entry<'_>], next: Option<u16>) {
        let next = next.map(peer);
        let page = EntriesPage { entries, next };
        self.responds(now, n, true, Some(&Response::Entries(page)));
    }

    /// The native lists these indexers on its only page.
    fn lists_indexers(&mut self, now: u64, native: u16, ids: &[u16]) {
        let offers: Vec<_> = ids.iter().map(|n| offer(*n)).collect();
        let answer = IndexersAnswer {
            offers: &offers,
            takes_in: false,
        };
        self.responds(now, native, false, Some(&Response::Indexers(answer)));
    }

    /// The servers that were asked and have not answered.
    fn waiting(&self) -> Vec<u16> {
        self.asked.iter().map(|(server, ..)| *server).collect()
    }

    fn rows(&self) -> Vec<u16> {
        self.shown.rows.iter().map(|(n, ..)| *n).collect()
    }

    fn tally(&self) -> (u32, u32) {
        let Tally { asked, answered } = self.listing().tally();
        (asked, answered)
    }
}

fn entry<'a>((n, presence, age): &Said, envelope: &'a [u8]) -> Entry<'a> {
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

fn numbers<'a>(peers: impl Iterator<Item = &'a PeerId>) -> Vec<u16> {
    peers.map(number).collect()
}

#[test]
fn own_directory_comes_first_and_a_native_alone_is_complete() {
    let mut desk = Desk::new(Role::Native);
    desk.home.nodes = (1..=70).map(|n| (n, envelope(n))).collect();
    let desk = desk.begin();
    assert_eq!(desk.rows(), (1..=70).collect::<Vec<_>>());
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn who_knows_no_server_is_not_complete() {
    for role in [Role::Node, Role::Indexer] {
        let desk = Desk::new(role).begin();
        assert!(desk.is_done && !desk.listing().is_complete());
    }
}

#[test]
fn node_with_two_leases_has_one_row() {
    let mut desk = Desk::new(Role::Node).indexers([1, 2]).begin();
    desk.lists(5, 1, &[alive(10), alive(11)], None);
    assert_eq!(desk.rows(), [10, 11], "rows leave at once");
    desk.lists(6, 2, &[alive(10), alive(12)], None);
    assert_eq!(desk.rows(), [10, 11, 12]);
    assert!(desk.is_done && desk.listing().is_complete());
    assert_eq!(desk.tally(), (2, 2));
}

#[test]
fn natives_are_asked_for_their_nodes_and_for_indexers_which_are_asked_too() {
    let mut desk = Desk::new(Role::Node).server(NATIVE, Role::Native).begin();
    assert_eq!(desk.waiting(), [NATIVE, NATIVE]);
    desk.lists_indexers(1, NATIVE, &[1, 2]);
    assert_eq!(desk.waiting(), [NATIVE, 1, 2]);
    desk.lists(2, NATIVE, &[alive(20)], None);
    desk.lists(2, 1, &[alive(21)], None);
    desk.lists(2, 2, &[], None);
    assert_eq!(desk.rows(), [20, 21]);
    assert_eq!(desk.tally(), (3, 3));
    assert!(desk.listing().is_complete());
}

#[test]
fn native_asks_its_own_live_indexers_and_the_fellows() {
    let mut desk = Desk::new(Role::Native).server(NATIVE, Role::Native);
    desk.home.live = (1..=17).map(offer).collect();
    let mut desk = desk.begin();
    let mut asked = Vec::new();
    while let Some((n, ask, _)) = desk.asked.first().cloned() {
        match ask {
            ListAsk::Indexers(_) => desk.lists_indexers(1, n, &[]),
            ListAsk::Nodes(_) => {
                asked.push(n);
                desk.lists(1, n, &[], None);
            }
        }
    }
    asked.sort_unstable();
    let all: Vec<_> = (1..=17).chain([NATIVE]).collect();
    assert_eq!(asked, all);
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn eight_are_asked_at_a_time() {
    let mut desk = Desk::new(Role::Node).indexers(1..=10).begin();
    assert_eq!(desk.waiting(), (1..=8).collect::<Vec<_>>());
    desk.lists(1, 3, &[], None);
    assert_eq!(desk.waiting(), [1, 2, 4, 5, 6, 7, 8, 9]);
}

#[test]
fn pages_are_read_until_the_last() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    desk.lists(1, 1, &[alive(30)], Some(30));
    let (_, ask, _) = desk.asked[0];
    assert_eq!(ask, ListAsk::Nodes(Cursor::After(peer(30))));
    // A page may be empty and have a next one.
    desk.lists(2, 1, &[], Some(40));
    desk.lists(3, 1, &[alive(41)], None);
    assert_eq!(desk.rows(), [30, 41]);
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn pages_whose_ids_do_not_grow_are_not_read_for_ever() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    desk.lists(1, 1, &[alive(30)], Some(30));
    desk.lists(2, 1, &[alive(31)], Some(30));
    assert!(desk.is_done && !desk.listing().is_complete());
    assert_eq!(numbers(desk.listing().partial()), [1]);
    assert_eq!(desk.rows(), [30, 31]);
}

#[test]
fn silent_server_gives_its_turn_away_after_its_time() {
    let mut desk = Desk::new(Role::Node).indexers(1..=9).begin();
    let patience = after(LIST_PATIENCE);
    desk.poll(patience - 1);
    assert_eq!(desk.waiting(), (1..=8).collect::<Vec<_>>());
    desk.poll(patience);
    assert_eq!(desk.waiting().last(), Some(&9));
    desk.lists(patience + 1, 9, &[alive(50)], None);
    assert!(desk.is_done && !desk.listing().is_complete());
    let silent = numbers(desk.listing().silent());
    assert_eq!(silent, (1..=8).collect::<Vec<_>>());
    assert_eq!(desk.tally(), (9, 1));
    // No query waits for a late answer.
    desk.lists(patience + 2, 1, &[alive(51)], None);
    assert_eq!(desk.rows(), [50]);
}

#[test]
fn listing_ends_at_its_limit_with_what_it_has() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    let limit = after(LIMIT);
    for (page, now) in (100..).zip((0..limit).step_by(1000)) {
        desk.lists(now, 1, &[alive(page)], Some(page));
    }
    desk.poll(limit - 1);
    assert!(!desk.is_done);
    assert_eq!(desk.listing().timeout(), Some(at(limit)));
    desk.poll(limit);
    assert!(desk.is_done && !desk.listing().is_complete());
    assert_eq!((desk.rows().len(), desk.tally()), (10, (1, 0)));
    assert_eq!(desk.listing().timeout(), None);
}

#[test]
fn reader_is_told_each_second_how_far_it_is() {
    let mut desk = Desk::new(Role::Node).indexers([1]).begin();
    let second = after(PROGRESS);
    desk.poll(second - 1);
    assert!(desk.progress.is_empty());
    for now in [second, second + 1, 2 * second] {
        desk.poll(now);
    }
    assert_eq!(desk.progress, [second, 2 * second]);
    desk.lists(2 * second, 1, &[], None);
    desk.poll(3 * second);
    assert_eq!(desk.progress.len(), 2, "it is over");
}

#[test]
fn server_is_asked_when_all_of_its_rows_have_room() {
    let mut desk = Desk::new(Role::Node).indexers([1, 2]);
    desk.shown.room = 31;
    let mut desk = desk.begin();
    assert!(desk.asked.is_empty());
    desk.shown.room = 32;
    desk.poll(1);
    assert_eq!(desk.waiting(), [1]);
    desk.shown.room = 63;
    desk.poll(2);
    assert_eq!(desk.waiting(), [1]);
    desk.shown.room = 64;
    desk.poll(3);
    assert_eq!(desk.waiting(), [1, 2]);
}

#[test]
fn word_of_progress_takes_no_room_of_rows_that_may_come() {
    let second = after(PROGRESS);
    for (room, progress) in [(32, &[][..]), (33, &[second])] {
        let mut desk = Desk::new(Role::Node).indexers([1]);
        desk.shown.room = room;
        let mut desk = desk.begin();
        assert_eq!(desk.waiting(), [1]);
        desk.poll(second);
        assert_eq!(desk.progress, progress);
        assert_eq!(desk.listing().timeout(), Some(at(2 * second)));
        let page: Vec<_> = (10..42).map(alive).collect();
        desk.lists(second, 1, &page, None);
        assert_eq!(desk.rows().len(), 32);
        assert!(desk.is_done && desk.listing().is_complete());
    }
}

#[test]
fn end_needs_no_room_of_a_row() {
    let mut desk = Desk::new(Role::Native);
    desk.home.nodes = (1..=32).map(|n| (n, envelope(n))).collect();
    desk.shown.room = 32;
    let desk = desk.begin();
    assert_eq!(desk.shown.room, 0);
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn own_directory_is_read_when_a_page_of_it_has_room() {
    let mut desk = Desk::new(Role::Native);
    desk.home.nodes = (1..=33).map(|n| (n, envelope(n))).collect();
    desk.shown.room = 31;
    let mut desk = desk.begin();
    assert!(desk.rows().is_empty());
    desk.shown.room = 32;
    desk.poll(1);
    assert_eq!(desk.rows().len(), 32);
    desk.shown.room = 32;
    desk.poll(2);
    assert_eq!(desk.rows().len(), 33);
    assert!(desk.is_done && desk.listing().is_complete());
}

#[test]
fn server_that_answers_with_an_error_is_refused() {
    let mut desk = Desk::new(Role::Node)
        .indexers([1])
        .server(NATIVE, Role::Native);
    desk = desk.begin();
    let error = Response::Error(Reason::try_from("unknown code").unwrap());
    desk.responds(1, 1, true, Some(&error));
    desk.responds(1, NATIVE, false, Some(&error));
    desk.lists(1, NATIVE, &[], None);
    assert!(desk.is_done && !desk.listing().is_complete());
    assert_eq!(numbers(desk.listing().refused()), [1, NATIVE]);
    assert_eq!(desk.tally(), (2, 0));
}

#[test]
fn five_hundred_and_twelve_servers_are_asked_and_not_one_more() {
    for (count, is_complete) in [(512, true), (513, false)] {
        let mut desk = Desk::new(Role::Native);
        desk.home.live = (1..=count).map(offer).collect();
        let mut desk = desk.begin();
        while let Some((n, ..)) = desk.asked.first().cloned() {
            desk.lists(1, n, &[], None);
        }
        assert!(desk.is_done);
        assert_eq!(desk.listing().is_complete(), is_complete);
        assert_eq!(desk.tally(), (512, 512));
    }
}
