//! Bounds of time, servers and slots, and what an answer says when one of them is reached.

use super::*;

#[test]
fn lookup_ends_at_its_deadline_and_not_a_tick_before() {
    let mut desk = Desk::new(Role::Node).indexer(1).native(NATIVE);
    desk.begin(pump());
    desk.poll(4_999);
    assert_eq!(desk.done, None);
    assert_eq!(desk.lookups.timeout(), Some(at(5_000)));
    desk.poll(5_000);
    assert_eq!(desk.tally(), (2, 0));
    assert_eq!(desk.silent(), [1, NATIVE]);
    assert!(!desk.outcome().is_complete);
}

#[test]
fn lookup_of_a_program_ends_in_time_to_tell_it_so() {
    let mut desk = Desk::new(Role::Node).indexer(1);
    desk.lookups.begin_for_program(at(0), pump(), &desk.here);
    desk.poll(2_999);
    assert_eq!(desk.done, None);
    desk.poll(3_000);
    assert_eq!(desk.silent(), [1]);
    assert!(!desk.outcome().is_complete);
}

#[test]
fn lookups_of_programs_and_those_of_the_operator_do_not_take_one_anothers_slots() {
    let mut desk = Desk::new(Role::Node).indexer(1);
    let Desk { lookups, here, .. } = &mut desk;
    assert!(lookups.begin_for_program(at(0), pump(), here).is_some());
    assert!(lookups.begin_for_program(at(0), pump(), here).is_none());
    assert!(lookups.begin(at(0), pump(), here).is_some());
    assert!(lookups.begin(at(0), pump(), here).is_some());
    assert!(lookups.begin(at(0), pump(), here).is_none());
    desk.poll(3_000);
    desk.poll(3_000);
    let Desk { lookups, here, .. } = &mut desk;
    assert!(lookups.begin(at(3_000), pump(), here).is_none());
    assert!(lookups.begin_for_program(at(3_000), pump(), here).is_some());
}

#[test]
fn lookup_that_is_given_up_ends_its_search_and_frees_its_slot_at_once() {
    let mut desk = Desk::new(Role::Indexer).native(NATIVE);
    let lookup = desk.begin(Question::Peer(peer(9)));
    let _other = desk.begin(pump());
    assert!(desk.lookups.begin(at(0), pump(), &desk.here).is_none());
    desk.lookups.give_up(at(10), lookup);
    let searches: Vec<_> = desk.searches.iter().map(|(_, query)| *query).collect();
    assert!(!searches.is_empty() && desk.ended.is_empty());
    desk.poll(10);
    assert_eq!((desk.done, &desk.ended), (Some(lookup), &searches));
    assert!(!desk.lookups.searched(at(10), searches[0], 1));
    desk.poll(10);
    assert_eq!(desk.done, None, "the other one goes on");
    assert!(desk.lookups.begin(at(10), pump(), &desk.here).is_some());
}

#[test]
fn list_that_is_given_up_frees_its_slot_at_once() {
    let mut desk = Desk::new(Role::Node).native(NATIVE);
    let lookup = desk.begin(Question::Indexers);
    desk.lookups.give_up(at(10), lookup);
    desk.poll(10);
    assert_eq!(desk.done, Some(lookup));
}

#[test]
fn answer_counts_until_the_deadline_and_a_tick_later_not() {
    for (now, found) in [(4_999, true), (5_000, true), (5_001, false)] {
        let mut desk = Desk::new(Role::Node).indexer(1);
        desk.begin(pump());
        desk.answers(now, 1, &[7]);
        assert_eq!(!desk.found().is_empty(), found, "{now}");
        assert_eq!(desk.outcome().is_complete, found, "{now}");
        assert_eq!(desk.silent().is_empty(), found, "{now}");
    }
}

#[test]
fn answer_after_the_end_changes_nothing() {
    let mut desk = Desk::new(Role::Node).indexer(1);
    desk.begin(pump());
    let (_, query) = desk.question(1, false).unwrap();
    desk.poll(5_000);
    assert!(!desk.lookups.answered(at(5_000), query, Answer::Failed));
    assert_eq!(desk.tally(), (1, 0));
    desk.poll(5_000);
    assert!(!desk.lookups.answered(at(5_001), query, Answer::Failed));
}

#[test]
fn second_answer_to_one_question_changes_nothing() {
    let mut desk = Desk::new(Role::Node).indexer(1).indexer(2);
    desk.begin(pump());
    let (_, query) = desk.question(1, false).unwrap();
    assert!(desk.lookups.answered(at(10), query, Answer::Failed));
    let records = Answer::Records(AnswerRecords {
        records: &[],
        more: false,
        tally: None,
        claimants: None,
    });
    assert!(!desk.lookups.answered(at(10), query, records));
    desk.poll(10);
    desk.answers(10, 2, &[]);
    assert_eq!(desk.tally(), (2, 1), "the first one counts");
}

#[test]
fn server_that_refuses_or_answers_something_else_has_not_answered_and_is_not_silent() {
    let page = Answer::Indexers {
        offers: &[],
        next: None,
    };
    for (answer, silent, refused) in [
        (Answer::Failed, vec![1], vec![]),
        (Answer::Error, vec![], vec![1]),
        (page, vec![], vec![1]),
    ] {
        let mut desk = Desk::new(Role::Node).indexer(1);
        desk.begin(pump());
        let (_, query) = desk.question(1, false).unwrap();
        assert!(desk.lookups.answered(at(10), query, answer));
        desk.poll(10);
        assert_eq!(desk.tally(), (1, 0));
        assert_eq!((desk.silent(), desk.refused()), (silent, refused));
        assert!(!desk.outcome().is_complete);
    }
}

/// A native that has nothing is also asked for a page of its indexers.
#[test]
fn native_that_answers_one_of_two_questions_is_silent_or_has_refused() {
    for (answer, silent, refused) in [
        (Answer::Failed, vec![NATIVE], vec![]),
        (Answer::Error, vec![], vec![NATIVE]),
    ] {
        let mut desk = Desk::new(Role::Node).native(NATIVE);
        desk.begin(pump());
        desk.answers(10, NATIVE, &[]);
        let (_, query) = desk.question(NATIVE, true).unwrap();
        assert!(desk.lookups.answered(at(20), query, answer));
        desk.poll(5_000);
        assert_eq!(desk.tally(), (1, 0));
        assert_eq!((desk.silent(), desk.refused()), (silent, refused));
        assert!(!desk.outcome().is_complete);
    }
}

#[test]
fn eight_servers_are_asked_at_a_time_and_the_ninth_when_one_has_answered() {
    let mut desk = Desk::new(Role::Native);
    for n in 1..=9 {
        desk = desk.native(n);
    }
    desk.begin(pump());
    assert_eq!(desk.waiting(), [1, 2, 3, 4, 5, 6, 7, 8]);
    desk.answers(10, 4, &[]);
    assert_eq!(desk.waiting(), [1, 2, 3, 5, 6, 7, 8, 9]);
}

#[test]
fn native_is_asked_for_32_pages_and_the_answer_says_that_more_was_left_out() {
    let id = |count: u16| {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&count.to_be_bytes());
        PeerId::from_bytes(id)
    };
    for (pages, complete) in [(MAX_PAGES, true), (MAX_PAGES + 1, false)] {
        let mut desk = Desk::new(Role::Node).native(NATIVE);
        desk.begin(Question::Indexers);
        let mut asked = 0;
        while let Some((_, query)) = desk.question(NATIVE, true) {
            asked += 1;
            let next = (asked < pages).then(|| id(asked as u16 * 16));
            let offers: Vec<_> = (1..=16)
                .map(|n| Offer {
                    peer: id((asked as u16 - 1) * 16 + n),
                    ..offer(1, 1)
                })
                .collect();
            let offers = &offers;
            let answer = Answer::Indexers { offers, next };
            assert!(desk.lookups.answered(at(10), query, answer));
            desk.poll(10);
        }
        assert_eq!(asked, MAX_PAGES);
        assert_eq!(desk.outcome().indexers.len(), MAX_SERVERS);
        assert_eq!(desk.outcome().is_complete, complete, "{pages}");
    }
}

#[test]
fn more_at_a_server_than_it_told_makes_the_answer_incomplete() {
    let mut desk = Desk::new(Role::Node).indexer(1);
    desk.begin(pump());
    desk.answers_with(10, 1, &[info(7, "pump", 1)], true, None);
    assert!(desk.outcome().more && !desk.outcome().is_complete);
    assert_eq!(desk.tally(), (1, 1));
}

#[test]
fn server_that_lacks_answers_itself_makes_the_answer_incomplete_and_none_is_counted_for_it() {
    let tally = |asked, answered| Some(Tally { asked, answered });
    for (told, complete) in [
        (None, true),
        (tally(2, 2), true),
        (tally(2, 1), false),
        (tally(u32::MAX, u32::MAX), true),
        (tally(1, 5), true),
    ] {
        let mut desk = Desk::new(Role::Node).indexer(1);
        desk.begin(pump());
        desk.answers_with(10, 1, &[], false, told);
        assert_eq!(desk.tally(), (1, 1), "{told:?}");
        assert_eq!(desk.outcome().is_complete, complete, "{told:?}");
        assert_eq!(desk.outcome().partial().count(), usize::from(!complete));
    }
}

/// Whatever servers do, each server asked is in exactly one of these groups: it has answered, is
/// silent or has refused.
#[test]
fn what_was_asked_is_what_answered_was_silent_and_refused() {
    let mut seen = [0; 4];
    for seed in 0..500 {
        let mut rng = crate::protocol::time::Rng::new(seed);
        let role = [Role::Node, Role::Indexer, Role::Native][rng.below(3) as usize];
        let mut desk = Desk::new(role);
        for n in 1..=rng.below(4) as u8 {
            desk = desk.indexer(n).native(200 + n);
        }
        desk.here.live = (1..rng.below(9) as u8).map(|n| offer(n, 1)).collect();
        let questions = [pump(), Question::Peer(peer(5)), Question::Indexers];
        desk.begin(questions[rng.below(3) as usize].clone());
        let mut asked = std::collections::BTreeSet::new();
        let mut now = 0;
        while desk.done.is_none() {
            now += 100;
            asked.extend(desk.waiting());
            for (_, query) in std::mem::take(&mut desk.searches) {
                desk.lookups.searched(at(now), query, 1);
            }
            if !desk.wanted.is_empty() && rng.below(3) == 0 {
                let named: Vec<_> = (0..rng.below(4) as u8).map(|n| n + 90).collect();
                desk.names(now, &named, Coverage::Complete);
            }
            if !desk.wanted.is_empty() && rng.below(3) == 0 {
                desk.search_ends(now, 1);
            }
            asked.extend(desk.waiting());
            if desk.done.is_some() {
                break;
            }
            if !desk.asked.is_empty() && rng.below(4) > 0 {
                let (_, ask, query) = desk.asked.swap_remove(0);
                let offers: Vec<_> = (0..rng.below(5) as u8).map(|n| offer(n + 1, 1)).collect();
                let tally = Some(Tally {
                    asked: 2,
                    answered: rng.below(3) as u32,
                });
                let page = Answer::Indexers {
                    offers: &offers,
                    next: None,
                };
                let records = Answer::Records(AnswerRecords {
                    records: &[],
                    more: false,
                    tally,
                    claimants: None,
                });
                let answer = match (rng.below(6), matches!(ask, Ask::Indexers(_))) {
                    (0, _) => Answer::Failed,
                    (1, _) => Answer::Error,
                    (2, true) | (3.., false) => records,
                    (2, false) | (3.., true) => page,
                };
                desk.lookups.answered(at(now), query, answer);
            }
            desk.poll(now);
            asked.extend(desk.waiting());
        }
        let (all, answered) = desk.tally();
        let (silent, refused) = (desk.silent(), desk.refused());
        assert_eq!(all as usize, asked.len(), "seed {seed}");
        assert!(silent.iter().all(|server| !refused.contains(server)));
        let known = answered as usize + silent.len() + refused.len();
        assert_eq!(all as usize, known, "seed {seed}");
        let partial = desk.outcome().partial().count();
        assert!(partial <= answered as usize, "seed {seed}");
        let is_whole = known == answered as usize && partial == 0;
        assert!(is_whole || !desk.outcome().is_complete, "seed {seed}");
        for (count, some) in
            seen.iter_mut()
                .zip([answered as usize, silent.len(), refused.len(), partial])
        {
            *count += some;
        }
    }
    assert!(seen.iter().all(|&count| count > 50), "{seen:?}");
}

#[test]
fn client_that_knows_no_server_has_no_complete_answer_and_a_lone_native_has() {
    for (role, complete) in [
        (Role::Node, false),
        (Role::Indexer, false),
        (Role::Native, true),
    ] {
        let mut desk = Desk::new(role);
        desk.begin(pump());
        if role != Role::Node {
            desk.search_ends(10, 0);
        }
        assert_eq!(desk.outcome().is_complete, complete, "{role:?}");
        assert_eq!(desk.tally(), (0, 0));
    }
}

#[test]
fn client_that_asks_none_of_the_servers_that_it_knows_has_no_complete_answer() {
    for (is_held, question) in [(false, pump()), (true, Question::Indexers)] {
        let mut desk = Desk::new(Role::Node).server(1, Role::Indexer, is_held);
        desk.begin(question);
        assert_eq!(desk.tally(), (0, 0));
        assert!(!desk.outcome().is_complete, "held: {is_held}");
    }
}

#[test]
fn search_that_is_open_at_the_deadline_is_ended_and_what_it_finds_does_not_count() {
    let mut desk = Desk::new(Role::Native);
    desk.begin(Question::Peer(peer(5)));
    let (_, slow) = desk.searches[0];
    let (_, quick) = desk.searches[1];
    assert!(desk.lookups.searched(at(10), quick, 1));
    assert!(desk.finds(5_001, 1_000, slow, &info(5, "pump", 1)));
    desk.poll(5_001);
    assert_eq!(desk.ended, [slow]);
    assert!(desk.found().is_empty());
    assert!(!desk.outcome().is_complete);
    assert!(!desk.lookups.searched(at(5_001), slow, 1));
}

#[test]
fn outcome_can_be_read_until_the_next_poll_which_frees_its_slot() {
    let mut desk = Desk::new(Role::Native);
    let id = desk.begin(pump());
    desk.search_ends(0, 0);
    assert_eq!(desk.done, Some(id));
    assert_eq!(desk.lookups.stats()[0].used, 1);
    desk.poll(0);
    assert!(desk.lookups.outcome(id).is_none());
    assert_eq!(desk.lookups.stats()[0].used, 0);
}

#[test]
fn full_class_refuses_is_counted_and_leaves_the_other_classes_their_slots() {
    let mut desk = Desk::new(Role::Native).native(NATIVE);
    for _ in 0..2 {
        let begun = desk.begin_for_peer(pump(), Reach::Network);
        assert!(matches!(begun, Begun::Lookup(_)));
    }
    assert_eq!(desk.begin_for_peer(pump(), Reach::Network), Begun::Full);
    desk.begin(pump());
    desk.begin(pump());
    assert_eq!(desk.lookups.begin(at(0), pump(), &desk.here), None);
    assert!(
        desk.lookups
            .begin(at(0), Question::Indexers, &desk.here)
            .is_some()
    );
    let seen = desk.lookups.stats();
    let seen = seen.map(|stats| (stats.used, stats.capacity, stats.refused));
    assert_eq!(seen, [(2, 2, 1), (1, 1, 0), (2, 2, 1), (0, 1, 0)]);
    assert_eq!(
        desk.begin_for_peer(pump(), Reach::Directory),
        Begun::Here,
        "what asks no other needs no slot"
    );
}
