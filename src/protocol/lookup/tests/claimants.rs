//! Names that many nodes claim: all are counted, and those come first that a known server vouches
//! for.

use super::*;
use crate::protocol::{
    Presence, Subject,
    codec::directory::{Response, UNKNOWN_AGE},
};

fn claim(n: u8) -> RecordInfo {
    info(n, "pump", 1)
}

fn count(nodes: u32, are_all: bool) -> Count {
    Count { nodes, are_all }
}

impl Desk {
    /// The server answers with the records of the first sixteen, and has others.
    fn answers_in_part(&mut self, now: u64, n: u8, found: &[u8], claimants: Option<Count>) {
        let (_, query) = self.question(n, false).expect("it was asked");
        let infos: Vec<_> = found.iter().map(|n| claim(*n)).collect();
        let answer = Answer::Records(AnswerRecords {
            records: &copies(&infos),
            more: true,
            tally: None,
            claimants,
        });
        assert!(self.lookups.answered(at(now), query, answer));
        self.poll(now);
    }

    /// The server is asked for the page from there, and lists these.
    fn lists_claimants(&mut self, now: u64, n: u8, from: Cursor, page: &[u8], next: Option<u8>) {
        let (ask, query) = self.question(n, false).expect("it was asked");
        let name = name("pump");
        assert_eq!(ask, Ask::Claimants { name, from });
        // The prefix admits others, too.
        let infos = page.iter().map(|n| claim(*n));
        let infos: Vec<_> = infos.chain([info(99, "pump2", 1)]).collect();
        let answer = Answer::Listed {
            records: &copies(&infos),
            next: next.map(peer),
        };
        assert!(self.lookups.answered(at(now), query, answer));
        self.poll(now);
    }

    fn claimants(&self) -> Count {
        self.outcome().claimants
    }
}

fn copies(infos: &[RecordInfo]) -> Vec<RecordCopy<'_>> {
    let copy = |info| RecordCopy {
        info,
        envelope: &[1],
        age: None,
        claimed: None,
    };
    infos.iter().map(copy).collect()
}

fn ids(ids: core::ops::RangeInclusive<u8>) -> Vec<u8> {
    ids.collect()
}

#[test]
fn of_fifty_claimants_all_are_counted_and_the_oldest_come_first() {
    let mut desk = Desk::new(Role::Native).native(NATIVE);
    desk.begin(pump());
    desk.names(10, &[101, 102], Coverage::Complete);
    desk.search_ends(10, 4);
    desk.answers(20, NATIVE, &[]);
    // The oldest claim at one server is that of the node with the greatest id.
    let oldest: Vec<u8> = (35..=50).rev().collect();
    desk.answers_in_part(20, 101, &oldest, None);
    desk.answers(20, 102, &[50, 3]);
    desk.lists_claimants(30, 101, Cursor::Start, &ids(1..=32), Some(32));
    desk.lists_claimants(40, 101, Cursor::After(peer(32)), &ids(33..=50), None);
    assert_eq!(desk.claimants(), count(50, true));
    assert_eq!(
        desk.found()[..3],
        [50, 3, 49],
        "of two that are equal, the newer record"
    );
    assert_eq!(desk.found().len(), MAX_FOUND);
    assert!(desk.outcome().more && !desk.outcome().is_complete);
    assert_eq!(desk.tally(), (3, 3));
}

#[test]
fn seventeen_claimants_of_one_holder_are_a_complete_answer_for_the_operator() {
    let mut desk = Desk::new(Role::Native).native(NATIVE);
    desk.begin(pump());
    desk.search_ends(10, 4);
    desk.answers_in_part(20, NATIVE, &ids(2..=17), None);
    desk.lists_claimants(30, NATIVE, Cursor::Start, &ids(1..=17), None);
    assert_eq!((desk.found()[0], desk.found().len()), (2, 17));
    assert_eq!(desk.found()[16], 1, "its claim is the youngest");
    assert!(desk.outcome().is_complete);
}

#[test]
fn count_is_open_if_a_list_is_not_read_to_its_end() {
    for (next, silent) in [(Some(20), true), (Some(10), false)] {
        let mut desk = Desk::new(Role::Native).native(NATIVE);
        desk.begin(pump());
        desk.search_ends(10, 4);
        desk.answers_in_part(20, NATIVE, &ids(1..=16), None);
        desk.lists_claimants(30, NATIVE, Cursor::Start, &ids(1..=20), Some(20));
        match silent {
            true => desk.fails(40, NATIVE, false),
            // The ids do not grow.
            false => desk.lists_claimants(40, NATIVE, Cursor::After(peer(20)), &[], next),
        }
        assert_eq!(desk.claimants(), count(20, false));
        assert!(!desk.outcome().is_complete);
    }
}

#[test]
fn thirty_two_pages_are_read_in_one_lookup_and_256_claimants_are_counted() {
    assert_eq!(
        (usize::from(MAX_READ_ON) * MAX_HOLDERS, MAX_COUNTED),
        (32, 256)
    );
    for (each, pages, counted) in [(1, 32, 48), (16, 15, 256)] {
        let mut desk = Desk::new(Role::Native).native(NATIVE);
        desk.begin(pump());
        desk.search_ends(10, 4);
        desk.answers_in_part(20, NATIVE, &ids(1..=16), None);
        let (mut read, mut next) = (0, 0u16);
        while let Some((Ask::Claimants { .. }, query)) = desk.question(NATIVE, false) {
            read += 1;
            let many = |n: u16| {
                let mut id = [0; 32];
                id[..2].copy_from_slice(&(n + 1000).to_be_bytes());
                PeerId::from_bytes(id)
            };
            let infos = (next..next + each).map(|n| RecordInfo {
                peer: many(n),
                ..claim(1)
            });
            let infos: Vec<_> = infos.collect();
            next += each;
            let answer = Answer::Listed {
                records: &copies(&infos),
                next: Some(many(next)),
            };
            assert!(desk.lookups.answered(at(30), query, answer));
            desk.poll(30);
        }
        assert_eq!(read, pages);
        assert_eq!(desk.claimants(), count(counted, false));
    }
}

/// The ages that a lookup tells to a peer, by name: of the heartbeats and of the claims.
#[test]
fn oldest_claim_is_told_as_the_oldest_and_one_of_unknown_age_as_such() {
    let most = u64::from(u32::MAX);
    for (claimed, told) in [
        (Some(0), 0),
        (Some(most - 1), u32::MAX - 1),
        (Some(most), u32::MAX - 1),
        (Some(most + 1), u32::MAX - 1),
        (None, UNKNOWN_AGE),
    ] {
        let mut desk = Desk::new(Role::Indexer);
        desk.begin_for_peer(pump(), Reach::Network);
        desk.names(10, &[1], Coverage::Complete);
        desk.search_ends(10, 4);
        let (_, query) = desk.question(1, false).expect("it was asked");
        let age = claimed.map(Duration::from_millis);
        let infos = [claim(7)];
        let records = copies(&infos).into_iter().map(|copy| RecordCopy {
            age,
            claimed: age,
            ..copy
        });
        let records: Vec<_> = records.collect();
        let answer = Answer::Records(AnswerRecords {
            records: &records,
            more: false,
            tally: None,
            claimants: None,
        });
        assert!(desk.lookups.answered(at(20), query, answer));
        desk.poll(20);
        let response = desk.outcome().response();
        let Response::Records { ages, claims, .. } = response else {
            panic!("{response:?}");
        };
        assert_eq!((&ages[..], &claims[..]), (&[told][..], &[told][..]));
    }
}

#[test]
fn own_directory_is_counted_as_a_whole() {
    let mut desk = Desk::new(Role::Native);
    for n in 1..=20 {
        let text = if n == 20 { "pump2" } else { "pump" };
        let record = unsigned_claim(n, text);
        desk.here
            .directory
            .list(at(u64::from(n)), &info(n, text, 1), &record);
    }
    desk.begin(pump());
    desk.search_ends(10, 4);
    assert_eq!(
        (desk.claimants(), desk.found().len()),
        (count(19, true), 19)
    );
    assert_eq!(desk.found()[..16], ids(1..=16)[..]);
}

fn unsigned_claim(n: u8, claims: &str) -> Vec<u8> {
    use crate::protocol::codec::{
        fixtures::unsigned,
        record::{Record, Tags},
    };
    unsigned(&Record {
        peer: peer(n),
        sequence: 1,
        issued_at_ms: 1,
        ttl: Duration::from_secs(60),
        addrs: [&[4][..]].into_iter().collect(),
        name: claims,
        tags: Tags::new(),
        services: Default::default(),
        version: "",
        link_services: Default::default(),
        grant: &[],
    })
}

#[test]
fn node_is_told_how_many_there_are_by_the_indexer_that_has_counted() {
    for (told, counted) in [
        (Some(count(50, true)), count(50, true)),
        (Some(count(256, false)), count(256, false)),
        (None, count(16, false)),
    ] {
        let mut desk = Desk::new(Role::Node).indexer(1);
        desk.begin(pump());
        desk.answers_in_part(10, 1, &ids(1..=16), told);
        assert_eq!(desk.claimants(), counted, "{told:?}");
        let response = desk.outcome().response();
        let Response::Records { claimants, .. } = response else {
            panic!("{response:?}");
        };
        assert_eq!(claimants, Some(counted), "and tells it to others");
    }
}

#[test]
fn who_was_found_before_is_asked_for_if_it_is_not_among_the_first_and_comes_first_then() {
    let mut desk = Desk::new(Role::Node).indexer(1);
    desk.begin(pump());
    desk.answers(10, 1, &[200]);
    assert_eq!(desk.found(), [200]);
    desk.poll(10);
    for (found, asks) in [(ids(1..=16), true), (ids(185..=200), false)] {
        desk.begin(pump());
        desk.answers_in_part(20, 1, &found, Some(count(50, true)));
        assert_eq!(desk.done.is_none(), asks);
        if asks {
            let (ask, query) = desk.question(1, false).unwrap();
            let reach = Reach::Network;
            assert_eq!(
                ask,
                Ask::Peer {
                    peer: peer(200),
                    reach
                }
            );
            let before = [claim(200)];
            let answer = Answer::Records(AnswerRecords {
                records: &copies(&before),
                more: false,
                tally: None,
                claimants: None,
            });
            assert!(desk.lookups.answered(at(30), query, answer));
            desk.poll(30);
        }
        assert_eq!(desk.found()[0], 200);
        assert_eq!(desk.claimants(), count(50, true));
        desk.poll(30);
    }
}

#[test]
fn peer_that_was_found_before_is_replaced_only_by_a_complete_find() {
    let mut desk = Desk::new(Role::Node).indexer(1).native(NATIVE);
    desk.begin(pump());
    desk.answers(10, 1, &[200]);
    desk.poll(10);
    // One that is given up has not heard of it.
    let lookup = desk.begin(pump());
    let tally = Some(Tally {
        asked: 2,
        answered: 1,
    });
    desk.answers_with(20, 1, &[claim(7)], false, tally);
    assert_eq!(desk.done, None);
    desk.lookups.give_up(at(30), lookup);
    desk.poll(30);
    assert_eq!(desk.found(), [7]);
    desk.poll(30);
    for (claimants, first) in [(&[7, 200][..], 200), (&[7], 7), (&[7, 200], 7)] {
        desk.begin(pump());
        desk.answers(40, 1, claimants);
        assert!(desk.outcome().is_complete);
        assert_eq!(desk.found()[0], first, "{claimants:?}");
        desk.poll(40);
    }
}

#[test]
fn all_pages_of_a_server_must_come_in_its_patience() {
    let mut desk = Desk::new(Role::Indexer);
    desk.begin_for_peer(pump(), Reach::Network);
    desk.names(10, &[1, 2], Coverage::Complete);
    desk.search_ends(10, 4);
    desk.answers(20, 1, &[7]);
    desk.answers_in_part(700, 2, &[], None);
    desk.lists_claimants(750, 2, Cursor::Start, &[], Some(1));
    assert_eq!(desk.waiting(), [2]);
    desk.poll(759);
    assert_eq!(desk.done, None);
    desk.poll(760);
    assert_eq!((desk.found(), desk.silent()), (vec![7], vec![2]));
    assert!(!desk.outcome().is_complete);
}

/// One server's list has no end, and it answers before the others.
#[test]
fn server_leaves_the_others_their_share_of_the_pages() {
    for others in [0, 1, 14, 15] {
        let mut desk = Desk::new(Role::Indexer);
        desk.begin_for_peer(pump(), Reach::Network);
        let servers: Vec<u8> = (1..=others + 1).collect();
        desk.names(10, &servers, Coverage::Complete);
        desk.search_ends(10, 4);
        let mut read = 0;
        desk.answers_in_part(20, 1, &[], None);
        let mut from = Cursor::Start;
        while desk.waiting().contains(&1) {
            read += 1;
            desk.lists_claimants(20, 1, from, &[], Some(read));
            from = Cursor::After(peer(read));
        }
        assert_eq!(read, 32 - 2 * others, "{others}");
        for n in 2..=others + 1 {
            desk.answers_in_part(30, n, &[n], None);
            desk.lists_claimants(30, n, Cursor::Start, &[100 + n], Some(100 + n));
            desk.lists_claimants(30, n, Cursor::After(peer(100 + n)), &[200 + n], None);
        }
        assert_eq!(desk.claimants(), count(3 * u32::from(others), false));
    }
}

/// A process that lists 257 claimants, 255 of them on the first page.
struct Crowd(Vec<Vec<u8>>);

impl Home for Crowd {
    fn role(&self) -> Role {
        Role::Native
    }

    fn page(&mut self, _: Instant, _: Cursor, _: usize) -> IndexersPage<'_> {
        IndexersPage::default()
    }

    fn addrs_of(&self, _: &PeerId) -> Option<&Addrs> {
        None
    }

    fn servers(&self, _: Instant, _: &mut dyn FnMut(KnownServer)) {}

    fn entries<'s>(
        &'s self,
        _: Instant,
        which: Selection<'_>,
        visit: &mut dyn FnMut(Entry<'s>) -> bool,
    ) -> Option<PeerId> {
        let (first, rest) = self.0.split_at(255);
        let (page, next) = match which.from {
            Cursor::Start => (first, Some(peer(254))),
            Cursor::After(_) => (rest, None),
        };
        let entry = |envelope: &'s Vec<u8>| Entry {
            subject: Subject::Signed(envelope),
            age: Duration::ZERO,
            presence: Presence::Alive,
        };
        // As the directory, which names no id if the first one is refused.
        let _ = page.iter().map(entry).all(visit);
        next
    }
}

impl Here for Crowd {
    fn claimants(&self, _: Instant, _: &str) -> Claimants<'_> {
        Claimants {
            more: true,
            ..Claimants::default()
        }
    }

    fn listed(&self, _: Instant, _: &PeerId) -> Option<Found<'_>> {
        None
    }

    fn has_left(&self, _: Instant, _: &PeerId) -> bool {
        false
    }
}

#[test]
fn own_list_that_is_left_at_the_first_node_of_a_page_is_not_read_to_its_end() {
    let mut crowd = Crowd(
        (0..=255)
            .chain([255])
            .map(|n| unsigned_claim(n, "pump"))
            .collect(),
    );
    let mut lookups = Box::new(EMPTY);
    let id = lookups.begin(at(0), pump(), &crowd).unwrap();
    while let Some(step) = lookups.poll(at(0), 0, &mut crowd) {
        match step {
            LookupAction::Providers { query, .. } => _ = lookups.searched(at(0), query, 4),
            LookupAction::Done { .. } => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(lookups.outcome(id).unwrap().claimants, count(256, false));
}
