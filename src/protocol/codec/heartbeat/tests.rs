use core::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::protocol::{Addr, MAX_LIST, Offer, Offers, PeerId, codec::fixtures::*};

fn encode_beat(sequence: u64, beat: &OutBeat, record: Option<&[u8]>, known: &[PeerId]) -> Vec<u8> {
    let with_record = record.is_some();
    let beat = &OutBeat {
        with_record,
        ..beat.clone()
    };
    encoded(|buffer| super::encode_beat(sequence, beat, record, known, Membership::OPEN, buffer))
}

fn encode_ack(sequence: u64, ack: &Ack<'_>, clock: Option<WallReading>) -> Vec<u8> {
    encoded(|buffer| super::encode_ack(sequence, ack, clock, Membership::OPEN, buffer))
}

fn plain_beat() -> OutBeat {
    OutBeat {
        role: Role::Indexer,
        lease: Duration::from_secs(90),
        with_record: false,
        fresh: false,
        publisher: Publisher::Receiver,
        load: None,
    }
}

#[test]
fn a_beat_has_the_bytes_of_the_protocol() {
    let beat = OutBeat {
        load: Some(Load {
            held: 1,
            possible: 24,
        }),
        ..plain_beat()
    };
    let bytes = encode_beat(0, &beat, Some(&[0xab]), &[]);
    let expected = [
        0xa5, 0, 0, 1, 1, 2, 0x1a, 0x00, 0x01, 0x5f, 0x90, 3, 0x41, 0xab, 4, 0x82, 1, 0x18, 24,
    ];
    assert_eq!(bytes, expected);
}

#[test]
fn a_beat_without_its_record_leaves_the_record_out() {
    let mut beat = plain_beat();
    for (with_record, expected) in [(false, None), (true, Some(&[0xab][..]))] {
        beat.with_record = with_record;
        let bytes = encoded(|buffer| {
            super::encode_beat(0, &beat, Some(&[0xab]), &[], Membership::OPEN, buffer)
        });
        assert_eq!(decode_beat(&bytes).unwrap().beat.record, expected);
    }
}

#[test]
fn a_beat_says_if_another_server_publishes_and_else_nothing() {
    let elsewhere = OutBeat {
        publisher: Publisher::Another,
        ..plain_beat()
    };
    let bytes = encode_beat(0, &elsewhere, None, &[]);
    assert_eq!(
        bytes,
        [0xa4, 0, 0, 1, 1, 2, 0x1a, 0, 1, 0x5f, 0x90, 8, 0xf4]
    );
    assert_eq!(
        decode_beat(&bytes).unwrap().beat.publisher,
        Publisher::Another
    );
    let silent = decode_beat(&[0xa3, 0, 0, 1, 0, 2, 0]).unwrap().beat;
    let default = Publisher::Receiver;
    assert_eq!(silent.publisher, default, "the default of version 1");
    let no_bool = decode_beat(&[0xa4, 0, 0, 1, 0, 2, 0, 8, 0]);
    assert!(no_bool.is_err());
}

#[test]
fn a_record_has_at_most_1024_bytes() {
    let bytes = |length: usize| {
        let mut bytes = vec![0xa4, 0, 0, 1, 0, 2, 0, 3];
        bytes.extend(written(|w| w.bytes(&vec![7; length])?.ok()));
        bytes
    };
    assert_eq!(
        decode_beat(&bytes(1024))
            .unwrap()
            .beat
            .record
            .unwrap()
            .len(),
        1024
    );
    let error = DecodeError::TooLong {
        field: "signed record",
        length: 1025,
        limit: 1024,
    };
    assert_eq!(decode_beat(&bytes(1025)), Err(error));
}

/// What a member sends in a beat and an ack of this sequence.
fn of_member(sequence: u64, membership: Membership<'_>) -> [Vec<u8>; 2] {
    let (beat, ack) = (plain_beat(), Ack::accepted(Duration::from_secs(90)));
    [
        encoded(|buffer| super::encode_beat(sequence, &beat, None, &[], membership, buffer)),
        encoded(|buffer| super::encode_ack(sequence, &ack, None, membership, buffer)),
    ]
}

#[test]
fn a_member_sends_its_grant_first_and_the_sequence_of_its_list_always() {
    let member = Membership {
        grant: Some(&[0xab]),
        revocations: Some(0),
    };
    let [beat, ack] = of_member(0, member);
    let body = [0, 0, 1, 1, 2, 0x1a, 0, 1, 0x5f, 0x90];
    assert_eq!(beat, [&[0xa5][..], &body, &[6, 0x41, 0xab, 7, 0]].concat());
    let body = [0, 0, 1, 0, 2, 0x1a, 0, 1, 0x5f, 0x90];
    assert_eq!(ack, [&[0xa5][..], &body, &[8, 0x41, 0xab, 9, 0]].concat());
    assert_eq!(decode_beat(&beat).unwrap().membership, member);
    assert_eq!(decode_ack(&ack).unwrap().membership, member);
    let [beat, ack] = of_member(1, member);
    let later = Membership {
        grant: None,
        ..member
    };
    assert_eq!(decode_beat(&beat).unwrap().membership, later);
    assert_eq!(decode_ack(&ack).unwrap().membership, later);
}

#[test]
fn what_a_member_sends_says_the_same_without_its_membership() {
    let member = Membership {
        grant: Some(&[0xab]),
        revocations: Some(7),
    };
    let ([beat, ack], [open_beat, open_ack]) =
        (of_member(0, member), of_member(0, Membership::OPEN));
    let read = |bytes| decode_beat(bytes).unwrap().beat;
    assert_eq!(read(&beat), read(&open_beat));
    let read = |bytes| decode_ack(bytes).unwrap().ack;
    assert_eq!(read(&ack), read(&open_ack));
}

#[test]
fn a_grant_has_at_most_384_bytes() {
    let grant = [7; 385];
    for (length, fits) in [(0, true), (384, true), (385, false)] {
        let member = Membership {
            grant: Some(&grant[..length]),
            revocations: None,
        };
        let error = DecodeError::TooLong {
            field: "grant",
            length: 385,
            limit: 384,
        };
        let [beat, ack] = of_member(0, member);
        let beat = decode_beat(&beat).map(|read| read.membership.grant.map(<[u8]>::len));
        let ack = decode_ack(&ack).map(|read| read.membership.grant.map(<[u8]>::len));
        let expected = if fits { Ok(Some(length)) } else { Err(error) };
        assert_eq!((beat, ack), (expected.clone(), expected));
    }
}

#[test]
fn known_ids_are_at_most_sixteen() {
    let bytes = |count: usize| {
        let mut bytes = written(|w| {
            w.map(4)?.u8(0)?.u8(0)?.u8(1)?.u8(2)?.u8(2)?.u8(0)?;
            w.u8(5)?.array(count as u64)?.ok()
        });
        (0..count).for_each(|_| bytes.extend(item(PeerId::from_bytes([1; 32]))));
        bytes
    };
    assert_eq!(decode_beat(&bytes(16)).unwrap().beat.known.len(), 16);
    let error = DecodeError::TooMany {
        field: "known ids",
        count: 17,
        limit: 16,
    };
    assert_eq!(decode_beat(&bytes(17)), Err(error));
}

#[test]
fn the_fullest_beat_fits_its_frame() {
    let known: PeerList = (0..16).map(|i| PeerId::from_bytes([i; 32])).collect();
    let load = Some(Load {
        held: u32::MAX,
        possible: u32::MAX,
    });
    let beat = OutBeat {
        load,
        lease: Duration::MAX,
        ..plain_beat()
    };
    let with_record = true;
    let beat = OutBeat {
        with_record,
        ..beat
    };
    let member = Membership {
        grant: Some(&[0; MAX_GRANT_LEN]),
        revocations: Some(u64::MAX),
    };
    let record = Some(&[0; MAX_ENVELOPE_LEN][..]);
    let bytes = encoded(|buffer| super::encode_beat(0, &beat, record, &known, member, buffer));
    assert!(bytes.len() <= MAX_FRAME);
    assert_eq!(decode_beat(&bytes).unwrap().beat.known, known);
}

#[test]
fn addresses_that_nobody_can_dial_are_left_out_of_offers_and_counted() {
    let [broadcast, port_0, good]: [&[u8]; 3] = [
        &[4, 255, 255, 255, 255, 6, 1, 0],
        &[4, 192, 0, 2, 1, 6, 0, 0],
        &[4, 192, 0, 2, 1, 6, 1, 0],
    ];
    let offer = |seed, addrs: &[&[u8]]| Offer {
        peer: PeerId::from_bytes([seed; 32]),
        addrs: addrs
            .iter()
            .map(|addr| Addr::from_slice(addr).unwrap())
            .collect(),
        ttl: Duration::from_secs(1),
        free: None,
    };
    let sent = [
        offer(1, &[port_0, good]),
        offer(2, &[broadcast, port_0]),
        offer(3, &[good]),
    ];
    let bytes = encode_ack(1, &Ack::released(Duration::from_secs(9), &sent), None);
    let read = decode_ack(&bytes).unwrap();
    assert_eq!(read.ack.offers, [offer(1, &[good]), offer(3, &[good])]);
    assert_eq!(read.left_out, 3);
}

#[test]
fn an_ack_takes_the_best_offers_that_fit_its_frame() {
    let offers: Offers = (0..16).map(long_offer).collect();
    let mut ack = Ack::released(Duration::MAX, &offers);
    ack.reason = Reason::try_from("x".repeat(128).as_str()).unwrap();
    let clock = Some(WallReading {
        ms: u64::MAX,
        synchronised: true,
    });
    let bytes = encode_ack(u64::MAX, &ack, clock);
    assert!(
        bytes.len() <= MAX_FRAME && bytes.len() > MAX_FRAME - 400,
        "{}",
        bytes.len()
    );
    let got = decode_ack(&bytes).unwrap();
    assert!(got.ack.offers.len() < MAX_LIST);
    assert_eq!(got.ack.offers[..], ack.offers[..got.ack.offers.len()]);
    assert_eq!((got.ack.reason, got.clock), (ack.reason, clock));
}

#[test]
fn a_small_buffer_takes_fewer_offers_or_says_that_it_is_too_small() {
    let two: Offers = (0..2).map(long_offer).collect();
    let ack = Ack::released(Duration::ZERO, &two);
    let all = encode_ack(0, &ack, None).len();
    let offers = |size: usize| {
        let mut buffer = vec![0; size];
        let bytes = super::encode_ack(0, &ack, None, Membership::OPEN, &mut buffer)?;
        Ok(decode_ack(bytes).unwrap().ack.offers.len())
    };
    assert_eq!((offers(all), offers(all - 1)), (Ok(2), Ok(1)));
    assert_eq!((offers(7), offers(6)), (Ok(0), Err(NoRoom)));
}

#[test]
fn a_reason_has_at_most_128_bytes_of_utf8() {
    let bytes = |reason: &[u8]| {
        let head = [0xa4, 0, 0, 1, 2, 2, 0, 4, 0x78, reason.len() as u8];
        [&head, reason].concat()
    };
    assert_eq!(
        decode_ack(&bytes(&[b'x'; 128])).unwrap().ack.reason.len(),
        128
    );
    let long = DecodeError::TooLong {
        field: "reason",
        length: 129,
        limit: 128,
    };
    assert_eq!(decode_ack(&bytes(&[b'x'; 129])), Err(long));
    let garbled = DecodeError::NotUtf8 { field: "reason" };
    assert_eq!(decode_ack(&bytes(&[0xff; 30])), Err(garbled));
}

#[test]
fn errors_name_their_cause() {
    let missing = |key| Err(DecodeError::Missing { field: "beat", key });
    assert_eq!(decode_beat(&[]), Err(DecodeError::Truncated));
    assert_eq!(decode_beat(&[0xa2, 1, 0, 2, 0]), missing(0));
    assert_eq!(decode_beat(&[0xa2, 0, 0, 2, 0]), missing(1));
    assert_eq!(decode_beat(&[0xa2, 0, 0, 1, 0]), missing(2));
    let code = DecodeError::UnknownCode {
        field: "role",
        code: 3,
    };
    assert_eq!(decode_beat(&[0xa3, 0, 0, 1, 3, 2, 0]), Err(code));
    let code = DecodeError::UnknownCode {
        field: "verdict",
        code: 4,
    };
    assert_eq!(decode_ack(&[0xa3, 0, 0, 1, 4, 2, 0]), Err(code));
    let trailing = DecodeError::Trailing { length: 1 };
    assert_eq!(decode_beat(&[0xa3, 0, 0, 1, 0, 2, 0, 0]), Err(trailing));
    let indefinite = DecodeError::Indefinite { field: "beat" };
    assert_eq!(
        decode_beat(&[0xbf, 0, 0, 1, 0, 2, 0, 0xff]),
        Err(indefinite)
    );
    let indefinite = DecodeError::Indefinite {
        field: "signed record",
    };
    assert_eq!(
        decode_beat(&[0xa4, 0, 0, 1, 0, 2, 0, 3, 0x5f, 0x40, 0xff]),
        Err(indefinite)
    );
    let load = DecodeError::OutOfBounds {
        field: "load",
        bound: "two counts",
    };
    assert_eq!(
        decode_beat(&[0xa4, 0, 0, 1, 0, 2, 0, 4, 0x81, 1]),
        Err(load)
    );
    let no_addrs = DecodeError::OutOfBounds {
        field: "offer's addresses",
        bound: "1 to 4 addresses",
    };
    assert_eq!(
        decode_ack(&[0xa4, 0, 0, 1, 1, 2, 0, 3, 0x81, 0xa1, 1, 0x80]),
        Err(no_addrs)
    );
}

#[test]
fn unknown_keys_and_any_order_are_fine() {
    let beat = decode_beat(&[0xa5, 9, 0x82, 0xf6, 0xa0, 2, 5, 1, 2, 0x18, 99, 0xf4, 0, 7])
        .unwrap()
        .beat;
    assert_eq!((beat.sequence, beat.role), (7, Role::Native));
    assert_eq!(beat.lease, Duration::from_millis(5));
}

#[test]
fn counts_and_times_beyond_reason_do_not_wrap() {
    let max = [0x1b, 255, 255, 255, 255, 255, 255, 255, 255];
    let bytes = [&[0xa4, 0, 0, 1, 0, 2][..], &max, &[4, 0x82], &max, &max].concat();
    let beat = decode_beat(&bytes).unwrap().beat;
    assert_eq!(beat.lease, Duration::from_millis(u64::MAX));
    assert_eq!(
        beat.load,
        Some(Load {
            held: u32::MAX,
            possible: u32::MAX
        })
    );
}

#[test]
fn half_a_clock_is_none_or_unsynchronised() {
    let only_flag = decode_ack(&[0xa4, 0, 0, 1, 0, 2, 0, 6, 0xf5]).unwrap();
    assert_eq!(only_flag.clock, None);
    let only_time = decode_ack(&[0xa4, 0, 0, 1, 0, 2, 0, 5, 9]).unwrap();
    assert_eq!(
        only_time.clock,
        Some(WallReading {
            ms: 9,
            synchronised: false
        })
    );
}

proptest! {
    #[test]
    fn beats_are_read_back(
        sequence: u64,
        beat in any_out_beat(),
        record in any_record(),
        known in any_known(),
    ) {
        let bytes = encode_beat(sequence, &beat, record.as_deref(), &known);
        let got = decode_beat(&bytes).unwrap();
        prop_assert_eq!(got.membership, Membership::OPEN);
        prop_assert_eq!(got.beat, Beat {
            sequence,
            role: beat.role,
            lease: beat.lease,
            record: record.as_deref(),
            load: beat.load,
            known,
            publisher: beat.publisher,
        });
    }

    #[test]
    fn acks_are_read_back(sequence: u64, ack in any_ack(), clock in any_clock()) {
        let bytes = encode_ack(sequence, &ack.as_ack(), clock);
        let membership = Membership::OPEN;
        let sent = WireAck { sequence, ack, clock, membership, left_out: 0 };
        prop_assert_eq!(decode_ack(&bytes).unwrap(), sent);
    }

    #[test]
    fn any_bytes_give_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode_beat(&bytes);
        let _ = decode_ack(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn every_cut_is_refused_and_every_mutation_answered(
        beat in any_out_beat(), record in any_record(), known in any_known(),
        ack in any_ack(), clock in any_clock())
    {
        let beat = encode_beat(3, &beat, record.as_deref(), &known);
        let ack = encode_ack(3, &ack.as_ack(), clock);
        for end in 0..beat.len() {
            prop_assert!(decode_beat(&beat[..end]).is_err());
        }
        for end in 0..ack.len() {
            prop_assert!(decode_ack(&ack[..end]).is_err());
        }
        mutations(&beat, |bytes| drop(decode_beat(bytes)));
        mutations(&ack, |bytes| drop(decode_ack(bytes)));
    }
}

#[test]
fn beat_is_in_order_if_its_sequence_is_the_one_that_is_due() {
    let bytes = encode_beat(5, &plain_beat(), None, &[]);
    for (due, is_in_order) in [(0, false), (4, false), (5, true), (6, false)] {
        let beat = decode_beat(&bytes).unwrap().beat.in_order(due);
        assert_eq!(beat.is_ok(), is_in_order, "{due}");
    }
}

#[test]
fn ack_answers_the_beat_that_waits_and_only_released_comes_unasked() {
    const SENT: u64 = 5;
    let lease = Duration::from_secs(90);
    let (beat, unsolicited) = (Some(AckCause::Beat), Some(AckCause::Unsolicited));
    for (sequence, is_awaited, accepted, released) in [
        (4, true, None, unsolicited),
        (5, true, beat, beat),
        (6, true, None, None),
        (4, false, None, unsolicited),
        (5, false, None, unsolicited),
        (6, false, None, None),
    ] {
        let last = LastBeat {
            sequence: SENT,
            is_awaited,
        };
        let cause = |ack: &Ack<'_>| {
            let bytes = encode_ack(sequence, ack, None);
            let ack = decode_ack(&bytes).unwrap();
            ack.cause(last).ok()
        };
        let case = format!("{sequence}, awaited: {is_awaited}");
        assert_eq!(cause(&Ack::accepted(lease)), accepted, "{case}");
        assert_eq!(cause(&Ack::full("no room")), accepted, "{case}");
        assert_eq!(cause(&Ack::released(lease, &[])), released, "{case}");
    }
}
