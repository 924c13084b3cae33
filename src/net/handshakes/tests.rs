use super::*;

fn ip(last: u8) -> SourceIp {
    Some([192, 0, 2, last].into())
}

/// A set of connections, each with its number as the handle.
struct Room {
    handshakes: Handshakes<u32>,
    begin: Instant,
    entered: u32,
}

impl Room {
    fn new(max: usize) -> Self {
        Self {
            handshakes: Handshakes::new(max),
            begin: Instant::now(),
            entered: 0,
        }
    }

    fn at(&self, time: Duration) -> Instant {
        self.begin + time
    }

    /// Lets a newcomer in, which gets the next number. Returns the number of the connection that
    /// gave way, if one did.
    fn enter(&mut self, source: SourceIp) -> Option<u32> {
        let number = self.entered;
        self.entered += 1;
        match self.handshakes.enter(source, number, self.begin) {
            Entered::Waits(_) => None,
            Entered::Displaced(_, gave_way) => Some(gave_way),
        }
    }

    fn enter_all(&mut self, sources: &[SourceIp]) -> Vec<Option<u32>> {
        sources.iter().map(|source| self.enter(*source)).collect()
    }
}

#[test]
fn as_many_wait_as_there_are_places_and_one_more_displaces_one() {
    let mut room = Room::new(3);
    assert_eq!(room.enter_all(&[ip(1), ip(1), ip(2)]), [None; 3]);
    assert_eq!(room.enter(ip(3)), Some(0), "the oldest of the most");
    assert_eq!(room.handshakes.used(), 3);
    assert_eq!(room.handshakes.gave_way(), 1);
}

#[test]
fn source_with_the_most_displaces_its_own_oldest() {
    let mut room = Room::new(4);
    room.enter_all(&[ip(2), ip(1), ip(1), ip(2)]);
    // With the newcomer, source 1 has three.
    assert_eq!(room.enter(ip(1)), Some(1));
    assert_eq!(room.enter(ip(1)), Some(2));
}

#[test]
fn newcomer_is_safe_from_any_number_of_connections_of_few_sources() {
    let mut room = Room::new(8);
    for number in 0..100 {
        room.enter(ip(number % 3));
    }
    let honest = room.entered;
    room.enter(ip(9));
    for number in 0..1000 {
        assert_ne!(room.enter(ip(number as u8 % 3)), Some(honest));
    }
}

#[test]
fn of_sources_that_have_equally_many_the_oldest_connection_gives_way() {
    let mut room = Room::new(3);
    room.enter_all(&[ip(1), ip(2), ip(3)]);
    assert_eq!(room.enter(ip(4)), Some(0));
    assert_eq!(room.enter(ip(1)), Some(1));
}

#[test]
fn one_that_left_makes_room() {
    let mut room = Room::new(2);
    room.enter_all(&[ip(1), ip(1)]);
    room.handshakes.leave(0);
    room.handshakes.leave(0);
    assert_eq!(room.handshakes.used(), 1);
    assert_eq!(room.enter(ip(1)), None);
    assert_eq!(room.enter(ip(2)), Some(1));
}

#[test]
fn no_more_gave_way_and_are_still_here_than_there_are_places() {
    let mut room = Room::new(3);
    room.enter_all(&[ip(1); 5]);
    assert!(!room.handshakes.is_behind(), "two gave way");
    room.enter(ip(1));
    assert!(room.handshakes.is_behind());
    room.handshakes.leave(0);
    assert!(!room.handshakes.is_behind());
    // It had a place.
    room.enter(ip(1));
    room.handshakes.leave(6);
    assert!(room.handshakes.is_behind());
}

#[test]
fn as_many_of_a_source_as_it_has_known_peers_never_give_way() {
    let mut room = Room::new(16);
    room.handshakes.hold(ip(1));
    room.handshakes.hold(ip(1));
    room.enter_all(&[ip(1), ip(1)]);
    room.enter_all(&(2..16).map(ip).collect::<Vec<_>>());
    // Each source has at most one that is not spared; the oldest of these belongs to source 2.
    assert_eq!(room.enter(ip(16)), Some(2));
    assert_eq!(room.enter(ip(17)), Some(3));
    // With a third connection, source 1 has one that is not spared. Its oldest is the oldest of
    // all.
    assert_eq!(room.enter(ip(1)), Some(0));
    room.handshakes.release(ip(1));
    room.handshakes.release(ip(1));
    assert_eq!(room.enter(ip(18)), Some(1));
}

#[test]
fn known_peers_of_one_source_keep_no_more_than_an_eighth_of_the_places() {
    let mut room = Room::new(16);
    for _ in 0..16 {
        room.handshakes.hold(ip(1));
        room.enter(ip(1));
    }
    let honest = room.entered;
    assert_eq!(room.enter(ip(2)), Some(0));
    for _ in 0..100 {
        assert_ne!(room.enter(ip(1)), Some(honest));
    }
}

#[test]
fn known_peers_of_many_sources_keep_no_more_than_half_of_the_places() {
    let mut room = Room::new(64);
    // Eight sources with as many leases each as an eighth of the places.
    for source in 1..=8 {
        for _ in 0..8 {
            room.handshakes.hold(ip(source));
        }
    }
    for number in 0..64 {
        room.enter(ip(1 + number % 8));
    }
    // Unknown sources get the other half.
    let strangers = room.entered..room.entered + 32;
    for number in 0..32 {
        let gave_way = room.enter(ip(100 + number)).unwrap();
        assert!(gave_way < 64, "a known source's: {gave_way}");
    }
    // Of that half, each known source gets no more than an unknown one, however many connections it
    // opens.
    let floods = (0..1000).map(|number| room.enter(ip(1 + (number % 8) as u8)).unwrap());
    let displaced = floods
        .filter(|gave_way| strangers.contains(gave_way))
        .count();
    assert_eq!(displaced, 8);
}

#[test]
fn what_is_spared_of_one_source_shrinks_only_when_all_are_more_than_half() {
    let mut room = Room::new(16);
    for source in 1..=5 {
        room.handshakes.hold(ip(source));
        room.handshakes.hold(ip(source));
    }
    let two_each = |sources: u8| (0..2 * sources).map(|number| ip(1 + number / 2));
    room.enter_all(&two_each(4).collect::<Vec<_>>());
    assert_eq!(room.handshakes.spared_at_most(), 2, "eight of sixteen");
    room.enter(ip(5));
    assert_eq!(room.handshakes.spared_at_most(), 1, "nine would be");
    for source in 10..20 {
        room.handshakes.hold(ip(source));
        room.enter(ip(source));
        let spared = usize::from(source < 13);
        assert_eq!(room.handshakes.spared_at_most(), spared, "{source}");
    }
}

#[test]
fn stranger_does_not_displace_known_peers_that_wait_in_half_of_the_places() {
    let mut room = Room::new(4);
    room.handshakes.hold(ip(1));
    room.handshakes.remember([[ip(2)].into_iter()].into_iter());
    room.enter_all(&[ip(1), ip(2), ip(3), ip(4)]);
    assert_eq!(room.enter(ip(5)), Some(2));
    room.handshakes
        .remember(std::iter::empty::<std::vec::IntoIter<SourceIp>>());
    assert_eq!(room.enter(ip(6)), Some(1), "it is forgotten");
}

#[test]
fn remembered_peer_with_many_addresses_at_a_source_is_one_peer_there() {
    let mut room = Room::new(16);
    let peers = [vec![ip(1); 8], vec![ip(1), ip(2)]];
    room.handshakes
        .remember(peers.into_iter().map(Vec::into_iter));
    for (source, known) in [(1, 2), (2, 1), (3, 0)] {
        room.enter_all(&[ip(source); 4]);
        assert_eq!(
            room.handshakes.known_waiting(&ip(source)),
            known,
            "{source}"
        );
    }
}

#[test]
fn episode_is_over_after_quiet_and_names_the_sources_with_the_most() {
    let mut room = Room::new(1);
    assert!(!room.handshakes.is_crowded());
    for number in 0..10 {
        room.enter(ip(1 + u8::from(number > 5)));
    }
    assert!(room.handshakes.is_crowded());
    let just_before = room.at(QUIET - Duration::from_millis(1));
    assert!(room.handshakes.ended(just_before).is_none());
    let ended = room.handshakes.ended(room.at(QUIET)).unwrap();
    assert_eq!(
        ended.to_string(),
        "9 connections gave way to newcomers before their handshake was done, in 0.0 s; the sources \
         with the most: 192.0.2.1 (6), 192.0.2.2 (3)"
    );
    assert!(!room.handshakes.is_crowded());
    assert!(room.handshakes.ended(room.at(LONG)).is_none());
}

#[test]
fn episode_that_goes_on_is_said_after_a_minute() {
    let mut room = Room::new(1);
    let begin = room.begin;
    let step = Duration::from_secs(1);
    let mut time = Duration::ZERO;
    while time < LONG {
        room.begin = begin + time;
        room.enter(ip(1));
        room.enter(ip(1));
        assert!(room.handshakes.ended(room.begin).is_none());
        time += step;
    }
    assert!(room.handshakes.ended(begin + LONG).is_some());
}

/// What is said of the sources in an episode in which these connections gave way.
fn said(sources: impl IntoIterator<Item = u8>) -> String {
    let mut episode = Episode::new(Instant::now());
    let now = episode.began;
    for source in sources {
        episode.count(ip(source), now);
    }
    assert!(episode.sources.len() <= COUNTED);
    let said = episode.to_string();
    said.split_once("; ").unwrap().1.to_owned()
}

/// `times` connections of each of `sources` sources, in turn.
fn in_turn(sources: u8, times: usize) -> impl Iterator<Item = u8> {
    (0..times).flat_map(move |_| 0..sources)
}

#[test]
fn as_many_sources_as_are_counted_are_named_with_their_exact_numbers() {
    assert_eq!(
        said(in_turn(16, 96)),
        "the sources with the most: 192.0.2.0 (96), 192.0.2.1 (96), 192.0.2.2 (96), \
         and 13 others"
    );
}

#[test]
fn no_source_is_blamed_for_the_connections_of_others() {
    let none_named = "they came from more than 16 sources, and none stands out";
    for sources in [17, 250] {
        assert_eq!(said(in_turn(sources, 96)), none_named, "{sources}");
    }
}

#[test]
fn source_that_stands_out_of_many_is_named_with_what_is_certain() {
    for others in [16, 249] {
        let all = in_turn(others, 96);
        let early = std::iter::repeat_n(255, 4000).chain(all);
        assert_eq!(
            said(early),
            "the sources with the most: 192.0.2.255 (4000), and many others"
        );
        let late = in_turn(others, 96).chain([255; 4000]);
        assert_eq!(
            said(late),
            "the sources with the most: 192.0.2.255 (at least 4000), and many others"
        );
    }
}

#[test]
fn source_with_a_small_share_is_not_named() {
    let said = |most| said(std::iter::repeat_n(1, most).chain([2]));
    assert_eq!(
        said(15),
        "the sources with the most: 192.0.2.1 (15), 192.0.2.2 (1)"
    );
    assert_eq!(
        said(16),
        "the sources with the most: 192.0.2.1 (16), and another"
    );
}

#[test]
fn the_most_that_waited_is_remembered_until_it_is_taken() {
    let mut room = Room::new(3);
    room.enter_all(&[ip(1); 5]);
    for id in 2..5 {
        room.handshakes.leave(id);
    }
    assert_eq!(room.handshakes.take_most(), 3);
    room.enter(ip(1));
    room.handshakes.leave(5);
    assert_eq!(room.handshakes.take_most(), 1);
    assert_eq!(room.handshakes.take_most(), 0);
}
