//! Two devices that use one identity, and one device that looks like two.

use super::*;

/// The stream of the held beat that is decided now.
fn judged(table: &mut LeaseTable<4>, now: u64) -> Option<u64> {
    std::iter::from_fn(|| table.rivals.poll(at(now))).find_map(|action| match action {
        Action::Judge { stream, .. } => Some(stream.0),
        _ => None,
    })
}

/// Three replacements: stream 3, from address 1, holds the lease, and stream 4 from address 2
/// waits.
fn contested() -> LeaseTable<4> {
    let mut table = LeaseTable::new();
    for (stream, host) in [(1, 1), (2, 2), (3, 1), (4, 2)] {
        assert_eq!(beat_from(&mut table, stream * 100, stream, host), None);
    }
    assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(3));
    assert_eq!(judged(&mut table, 400), None);
    table
}

#[test]
fn of_two_devices_with_one_identity_the_newcomer_is_refused_and_the_stream_stays() {
    let mut table = contested();
    assert_eq!(beat_on(&mut table, 450, 3), None, "the holder beats");
    assert_eq!(judged(&mut table, 450), Some(4));
    let refused = beat_on(&mut table, 450, 4).unwrap();
    assert_eq!(refused.code, AckCode::Refused);
    assert!(refused.reason.contains("192.0.2.1"), "{}", refused.reason);
    assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(3));
    assert_eq!(
        beat_from(&mut table, 500, 5, 1),
        None,
        "the one that is kept comes again"
    );
    assert_eq!(lines(&mut table, 500), ["two"]);
}

#[test]
fn only_a_refusal_for_another_device_says_that_it_is_a_rival() {
    let mut table = contested();
    let arrival = |table: &mut _, stream| refusal_on(table, 450, stream).unwrap().arrival;
    assert_eq!(arrival(&mut table, 4), Arrival::Known, "it is not decided");
    assert_eq!(arrival(&mut table, 2), Arrival::Known, "it is older");
    assert_eq!(beat_on(&mut table, 450, 3), None, "the holder beats");
    assert_eq!(judged(&mut table, 450), Some(4));
    assert_eq!(arrival(&mut table, 4), Arrival::Rival);
}

#[test]
fn second_beat_on_a_held_stream_is_not_admitted() {
    let mut table = contested();
    for now in [400, 401] {
        let refused = beat_on(&mut table, now, 4).unwrap();
        assert!(refused.reason.contains("first beat"), "{}", refused.reason);
        assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(3));
    }
    // It is not held either if the lease that it would replace is over.
    table.remove(at(402), &peer(1), EndCause::Left);
    assert!(beat_on(&mut table, 402, 4).is_some() && table.find(&peer(1)).is_none());
    assert_eq!(judged(&mut table, 402), Some(4));
    assert_eq!(beat_on(&mut table, 402, 4), None, "it is decided");
}

/// Device 1 was kept, over stream 3, and device 2 was refused.
fn decided() -> LeaseTable<4> {
    let mut table = contested();
    table
        .rivals
        .probed(&peer(1), StreamId(3), Verdict::Reachable);
    assert_eq!(judged(&mut table, 450), Some(4));
    assert!(beat_on(&mut table, 450, 4).is_some());
    table
}

/// The lines of the log.
fn lines(table: &mut LeaseTable<4>, now: u64) -> std::vec::Vec<&'static str> {
    let actions = std::iter::from_fn(|| table.rivals.poll(at(now)));
    let line = |action| match action {
        Action::Contested(_) => Some("two"),
        Action::Uncontested { .. } => Some("one again"),
        _ => None,
    };
    actions.filter_map(line).collect()
}

#[test]
fn what_was_refused_gets_no_lease_before_the_one_of_the_device_that_was_kept_is_over() {
    for ended in [false, true] {
        let mut table = decided();
        if ended {
            // For instance because this server was stopped, and the copy comes back first.
            table.disconnected(&peer(1), StreamId(3));
        }
        let refused = beat_from(&mut table, 60_450, 5, 2).unwrap();
        assert!(refused.reason.contains("192.0.2.1"), "{}", refused.reason);
        assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(3));
        assert_eq!(lines(&mut table, 60_450), ["two"]);
        table.remove(at(90_000), &peer(1), EndCause::Lost);
        assert_eq!(lines(&mut table, 90_000), ["one again"]);
        assert_eq!(beat_from(&mut table, 90_001, 6, 2), None);
        assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(6));
    }
}

#[test]
fn the_device_that_was_kept_comes_back_after_its_stream_has_ended_and_the_contest_goes_on() {
    let mut table = decided();
    table.disconnected(&peer(1), StreamId(3));
    assert_eq!(beat_from(&mut table, 1_000, 5, 1), None);
    assert!(beat_from(&mut table, 2_000, 6, 2).is_some());
    assert_eq!(table.rivals.contested().count(), 1);
}

#[test]
fn a_contest_follows_the_device_that_was_kept_to_another_address() {
    let mut table = decided();
    table.disconnected(&peer(1), StreamId(3));
    assert_eq!(beat_from(&mut table, 1_000, 5, 3), None);
    let contested = table.rivals.contested().next().unwrap();
    assert_eq!(contested.kept, source(5, 3).host);
}

#[test]
fn a_contest_ends_with_the_lease() {
    type End = fn(&mut LeaseTable<4>);
    let ends: [End; 3] = [
        |table| {
            table.remove(at(402), &peer(1), EndCause::Left);
        },
        |table| {
            table.collect(at(60_301), |_| ());
        },
        |table| table.expire(at(90_301), &peer(2), |_| ()),
    ];
    for (n, end) in ends.into_iter().enumerate() {
        let mut table = decided();
        end(&mut table);
        assert_eq!(table.iter().count(), 0);
        assert_eq!(table.rivals.contested().count(), 0, "end {n}");
        assert_eq!(
            beat_from(&mut table, 90_302, 7, 2),
            None,
            "the other has left"
        );
    }
}

#[test]
fn a_newcomer_takes_over_when_the_stream_that_it_waits_for_ends() {
    let mut table = contested();
    table.disconnected(&peer(1), StreamId(3));
    assert_eq!(judged(&mut table, 450), Some(4));
    assert_eq!(beat_on(&mut table, 450, 4), None);
    assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(4));
}

#[test]
fn of_two_newcomers_that_wait_the_earlier_is_closed() {
    let mut table = contested();
    while table.pop_closed().is_some() {}
    assert_eq!(beat_from(&mut table, 450, 5, 2), None);
    assert_eq!(table.pop_stream(), Some((peer(1), StreamId(4))));
    assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(3));
}

#[test]
fn one_device_is_never_refused_however_often_it_comes() {
    let mut table = LeaseTable::new();
    for stream in 1..20 {
        assert_eq!(beat_from(&mut table, stream, stream, 1), None);
        assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(stream));
    }
    // The same with another address, if the old stream has ended before.
    for stream in 20..40 {
        table.disconnected(&peer(1), StreamId(stream - 1));
        assert_eq!(beat_from(&mut table, stream, stream, stream as u8), None);
        assert_eq!(table.find(&peer(1)).unwrap().stream, StreamId(stream));
    }
}

/// What is contested after streams 1, 2, … of one peer at one host, each `pause` after the last
/// beat.
fn replaced_at_home(streams: u64, pause: u64) -> Option<bool> {
    let mut table = LeaseTable::<4>::new();
    let source = TransportAddr::of(&[4, 192, 0, 2, 7, 6, 0, 80]);
    for stream in 1..=streams {
        let now = at(stream * pause);
        let first = table.stream_opened(now, &peer(1), StreamId(stream), source);
        assert_eq!(first, FirstBeat::Now, "it is never delayed");
        table.grant(now, peer(1), Role::Node, StreamId(stream), LEASE);
    }
    let mut contested = table.rivals.contested();
    contested.next().map(|it| it.is_at_home())
}

#[test]
fn streams_from_one_address_that_replace_each_other_at_once_are_told_and_not_refused() {
    assert_eq!(replaced_at_home(3, 1_000), None, "twice may be chance");
    assert_eq!(replaced_at_home(4, 1_000), Some(true));
    assert_eq!(replaced_at_home(9, 9_999), Some(true));
    assert_eq!(
        replaced_at_home(9, 10_000),
        None,
        "an ack may have been late"
    );
    let source = TransportAddr::of(&[4, 192, 0, 2, 7, 6, 0, 80]);
    let mut table = LeaseTable::<4>::new();
    for stream in 1..=9 {
        table.stream_opened(at(stream), &peer(1), StreamId(stream), source);
        table.grant(at(stream), peer(1), Role::Node, StreamId(stream), LEASE);
        table.disconnected(&peer(1), StreamId(stream));
    }
    assert_eq!(table.rivals.contested().count(), 0, "each had ended");
}

#[test]
fn device_that_was_told_at_one_address_may_go_to_another_and_back() {
    let mut table = LeaseTable::<4>::new();
    let at_host = |last| TransportAddr::of(&[4, 192, 0, 2, last, 6, 0, 80]);
    let hosts = [7, 7, 7, 7, 8, 7];
    for (stream, host) in (1..).zip(hosts) {
        let now = at(stream * 1_000);
        let first = table.stream_opened(now, &peer(1), StreamId(stream), at_host(host));
        assert_eq!(first, FirstBeat::Now, "{stream}");
        table.grant(now, peer(1), Role::Node, StreamId(stream), LEASE);
        let told = usize::from(stream == 4);
        assert_eq!(table.rivals.contested().count(), told, "{stream}");
    }
}

#[test]
fn streams_replaced_at_one_address_do_not_count_as_replaced_from_another() {
    let mut table = LeaseTable::<4>::new();
    for (stream, host) in [(1, 7), (2, 7), (3, 7), (4, 8), (5, 7)] {
        assert_eq!(beat_from(&mut table, stream * 1_000, stream, host), None);
        let held = table.find(&peer(1)).unwrap().stream;
        assert_eq!(held, StreamId(stream), "it is not held back");
    }
}

#[test]
fn contest_ends_without_the_other_device_although_the_one_that_was_kept_opens_new_streams() {
    let mut table = decided();
    let mut held = 3;
    for minute in 1..10 {
        let (now, stream) = (minute * 60_000, 4 + minute);
        assert_eq!(beat_on(&mut table, now - 1, held), None);
        assert_eq!(beat_from(&mut table, now, stream, 1), None);
        held = stream;
    }
    assert_eq!(lines(&mut table, 600_450), ["two", "one again"]);
}
