use super::*;

const S: Duration = Duration::from_secs(1);
const TERMS: Terms = Terms {
    lease: Duration::from_secs(90),
    beat_interval: Duration::from_secs(30),
};

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

fn peer(n: u8) -> PeerId {
    PeerId::from_bytes([n; 32])
}

fn started() -> (Leases, Rng) {
    let mut leases = Leases::new();
    leases.start(TERMS, SERVER_DIAL);
    leases.add(at(0), peer(1), Role::Native, &Addrs::new());
    (leases, Rng::new(2))
}

#[test]
fn the_record_is_signed_at_the_start_and_when_it_is_a_lease_old() {
    let (mut leases, mut rng) = started();
    leases.start_signing(at(0));
    assert_eq!(
        leases.poll(at(0), &mut rng),
        Some(LeaseStep::Other(Action::Sign))
    );
    leases.signed(at(0), Urgency::NextBeat);
    leases.held.clear();
    assert_eq!(leases.poll(at(89_999), &mut rng), None);
    assert_eq!(
        leases.poll(at(90_000), &mut rng),
        Some(LeaseStep::Other(Action::Sign))
    );
}

#[test]
fn without_a_record_the_first_beat_goes_bare_and_an_urgent_record_follows_at_once() {
    let (mut leases, mut rng) = started();
    let beat = |with_record| {
        let manner = Manner {
            with_record,
            fresh: false,
            again: false,
        };
        Some(LeaseStep::Beat(peer(1), Addrs::new(), manner))
    };
    assert_eq!(leases.poll(at(0), &mut rng), beat(false));
    leases.acked(at(10), &peer(1), &Ack::accepted(90 * S), &mut rng);
    assert_eq!(leases.poll(at(11), &mut rng), None);
    leases.signed(at(11), Urgency::AtOnce);
    assert_eq!(leases.poll(at(11), &mut rng), beat(true));
}

#[test]
fn giving_up_sends_a_last_beat_only_where_a_stream_is() {
    let (mut leases, mut rng) = started();
    leases.add(at(0), peer(2), Role::Native, &Addrs::new());
    assert!(leases.poll(at(0), &mut rng).is_some());
    leases.give_up_all();
    let (server, role) = (peer(1), Role::Native);
    assert_eq!(
        leases.poll(at(0), &mut rng),
        Some(LeaseStep::Other(Action::GiveUp { server, role }))
    );
    assert_eq!(leases.poll(at(0), &mut rng), None);
    assert_eq!(leases.timeout(), None);
}

#[test]
fn a_server_has_one_lease_however_often_it_is_added() {
    let (mut leases, _) = started();
    let addrs = Addrs::from_slice(&[super::super::Addr::from_slice(b"a").unwrap()]).unwrap();
    assert!(leases.add(at(5), peer(1), Role::Native, &addrs));
    assert_eq!(leases.iter().count(), 1);
    assert_eq!(leases.find(&peer(1)).unwrap().addrs(), &addrs);
    for n in 2..=MAX_LEASES as u8 {
        assert!(leases.add(at(5), peer(n), Role::Native, &addrs));
    }
    assert!(!leases.add(at(5), peer(200), Role::Native, &addrs));
}

#[test]
fn natives_take_the_leases_that_the_build_says_and_correct_their_addresses() {
    let (mut leases, _) = started();
    let addrs = Addrs::from_slice(&[super::super::Addr::from_slice(b"a").unwrap()]).unwrap();
    // The first native is there from the start.
    for n in 2..=MAX_NATIVES as u8 + 1 {
        leases.add_native(at(5), peer(n), &Addrs::new());
    }
    assert_eq!(leases.iter().count(), MAX_NATIVES);
    leases.add_native(at(5), peer(2), &addrs);
    assert_eq!(leases.find(&peer(2)).unwrap().addrs(), &addrs);
}

#[test]
fn streams_and_questions_draw_from_one_bucket_and_wait_for_it() {
    for (cost, at_once, pause) in [(NODE_DIAL, 16, 500), (SERVER_DIAL, 64, 125)] {
        let (mut leases, mut rng) = (Leases::new(), Rng::new(2));
        leases.start(TERMS, cost);
        for _ in 1..at_once {
            assert!(leases.draw(at(0)));
        }
        for n in [1, 2] {
            assert!(leases.has_dials(at(0), 0) == (n == 1), "one is due already");
            leases.add(at(0), peer(n), Role::Native, &Addrs::new());
        }
        assert!(!leases.draw(at(0)), "a stream that is due goes first");
        assert!(
            matches!(leases.poll(at(0), &mut rng), Some(LeaseStep::Beat(server, ..)) if server == peer(1))
        );
        assert_eq!(leases.poll(at(pause - 1), &mut rng), None);
        assert_eq!(leases.timeout(), Some(at(pause)));
        assert!(!leases.draw(at(pause - 1)));
        assert!(
            matches!(leases.poll(at(pause), &mut rng), Some(LeaseStep::Beat(server, ..)) if server == peer(2))
        );
        assert_eq!(leases.dials(at(pause)).capacity, at_once);
        assert_eq!(leases.dials(at(pause)).used, at_once);
    }
}

#[test]
fn a_beat_on_a_stream_that_is_open_needs_no_bucket() {
    let (mut leases, mut rng) = started();
    assert!(leases.poll(at(0), &mut rng).is_some());
    leases.acked(at(10), &peer(1), &Ack::accepted(90 * S), &mut rng);
    let beat = leases.timeout().unwrap();
    while leases.draw(beat) {}
    assert!(matches!(
        leases.poll(beat, &mut rng),
        Some(LeaseStep::Beat(..))
    ));
    assert!(leases.next_dial() > beat);
}
