//! Values for the tests of this module.

use std::time::Duration;

use minicbor::{
    Encoder,
    encode::write::{Cursor as Position, EndOfSlice},
};
use proptest::{
    collection::{hash_map, vec},
    option,
    prelude::*,
};

use super::{
    NoRoom,
    directory::{Request, Response},
    frame::MAX_RESPONSE,
    grant::{Grant, GrantName, MAX_GRANT_LEN, Membership, Roles},
    heartbeat::WallReading,
    record::{Kind, Record, encode_record},
    service::{Service, Transport, to_service_name},
};
use crate::protocol::{
    AckBuf, AckCode, Addr, Count, Cursor, EntriesPage, Entry, Filter, IndexersAnswer, IndexersPage,
    Load, MAX_ENVELOPE_LEN, Name, Offer, OutBeat, PeerId, PeerList, Presence, Publisher, Reach,
    Reason, Role, Subject, Tally, Want,
    dial_back::{DialedBack, Finding},
};

/// The bytes that an encoder writes.
pub(crate) fn encoded(encode: impl FnOnce(&mut [u8]) -> Result<&[u8], NoRoom>) -> Vec<u8> {
    encode(&mut [0; MAX_RESPONSE]).unwrap().to_vec()
}

/// An envelope with this record of a node, without a signature. It has less than 128 bytes.
pub(crate) fn unsigned(record: &Record<'_>) -> Vec<u8> {
    let payload = encoded(|buffer| encode_record(record, buffer));
    let field = |tag: u8, bytes: &[u8]| {
        assert!(bytes.len() < 128, "one byte tells the length");
        [&[tag, bytes.len() as u8], bytes].concat()
    };
    [
        field(0x12, Kind::Node.payload_type()),
        field(0x1a, &payload),
    ]
    .concat()
}

/// The bytes that `write` writes.
pub(super) fn written(
    write: impl FnOnce(
        &mut Encoder<Position<&mut [u8]>>,
    ) -> Result<(), minicbor::encode::Error<EndOfSlice>>,
) -> Vec<u8> {
    let mut buffer = vec![0; 4 * MAX_RESPONSE];
    let mut encoder = Encoder::new(Position::new(&mut buffer[..]));
    write(&mut encoder).unwrap();
    let length = encoder.into_writer().position();
    buffer.truncate(length);
    buffer
}

/// The bytes of a value.
pub(super) fn item(value: impl minicbor::Encode<()>) -> Vec<u8> {
    written(|w| w.encode(value)?.ok())
}

pub(super) fn any_peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(PeerId::from_bytes)
}

pub(super) fn any_addrs(most: usize) -> impl Strategy<Value = Vec<Addr>> {
    let bytes = vec(any::<u8>(), 1..=64).prop_filter("a reader leaves it out", |addr| {
        crate::protocol::address::can_be_dialled(addr)
    });
    let addr = bytes.prop_map(|bytes| Addr::from_slice(&bytes).unwrap());
    vec(addr, 1..=most)
}

pub(super) fn any_service() -> impl Strategy<Value = Service> {
    let transport = prop_oneof![Just(Transport::Tcp), Just(Transport::Udp)];
    (
        "[a-z0-9]{0,4}[a-z](-[a-z0-9]{1,9})?",
        transport,
        1..=u16::MAX,
    )
        .prop_map(|(name, transport, port)| Service {
            name: to_service_name(&name).unwrap(),
            transport,
            port,
        })
}

fn any_millis() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_millis)
}

pub(super) fn any_offer() -> impl Strategy<Value = Offer> {
    (any_peer(), any_addrs(4), any_millis(), any::<Option<u32>>()).prop_map(
        |(peer, addrs, ttl, free)| Offer {
            peer,
            addrs: addrs.into_iter().collect(),
            ttl,
            free,
        },
    )
}

/// An offer of the largest size.
pub(super) fn long_offer(seed: u8) -> Offer {
    let addr = Addr::from_slice(&[seed; 64]).unwrap();
    Offer {
        peer: PeerId::from_bytes([seed; 32]),
        addrs: std::iter::repeat_n(addr, 4).collect(),
        ttl: Duration::from_millis(u64::MAX),
        free: Some(u32::MAX),
    }
}

pub(super) fn any_out_beat() -> impl Strategy<Value = OutBeat> {
    let role = prop_oneof![Just(Role::Node), Just(Role::Indexer), Just(Role::Native)];
    let load = option::of(any::<(u32, u32)>());
    let publisher = prop_oneof![Just(Publisher::Receiver), Just(Publisher::Another)];
    (role, any_millis(), load, publisher).prop_map(|(role, lease, load, publisher)| OutBeat {
        role,
        lease,
        with_record: true,
        fresh: false,
        publisher,
        load: load.map(|(held, possible)| Load { held, possible }),
    })
}

pub(super) fn any_known() -> impl Strategy<Value = PeerList> {
    vec(any_peer(), 0..=16).prop_map(|known| known.into_iter().collect())
}

pub(super) fn any_record() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..=MAX_ENVELOPE_LEN))
}

/// Acks with as many offers as fit a frame at any size.
pub(super) fn any_ack() -> impl Strategy<Value = AckBuf> {
    let code = prop_oneof![
        Just(AckCode::Accepted),
        Just(AckCode::Released),
        Just(AckCode::Full),
        Just(AckCode::Refused),
    ];
    let known = vec(any_peer(), 0..=16);
    let offers = vec(any_offer(), 0..=8);
    (code, any_millis(), offers, "[ -~]{0,100}", known).prop_map(
        |(code, lease, offers, reason, known)| AckBuf {
            code,
            lease,
            offers: offers.into_iter().collect(),
            reason: Reason::try_from(reason.as_str()).unwrap(),
            known: known.into_iter().collect(),
        },
    )
}

pub(super) fn any_clock() -> impl Strategy<Value = Option<WallReading>> {
    option::of(any::<(u64, bool)>().prop_map(|(ms, synchronised)| WallReading { ms, synchronised }))
}

/// A membership, as the first message of a stream has it.
pub(super) fn any_membership() -> impl Strategy<Value = Membership<'static>> {
    static BYTES: [u8; MAX_GRANT_LEN] = [7; MAX_GRANT_LEN];
    let grant = option::of((0..=MAX_GRANT_LEN).prop_map(|length| &BYTES[..length]));
    (grant, any::<Option<u64>>()).prop_map(|(grant, revocations)| Membership { grant, revocations })
}

pub(super) fn any_grant() -> impl Strategy<Value = Grant<'static>> {
    let roles = prop::sample::subsequence(&Role::ALL[..], 1..=3);
    let names = vec("([*][.])?[a-z0-9.-]{1,61}", 0..=4);
    let end = any::<Option<u64>>();
    (any_peer(), roles, names, any::<u64>(), end).prop_map(
        |(peer, roles, names, issued_at_ms, not_after_ms)| Grant {
            peer,
            roles: Roles::of(&roles).unwrap(),
            names: names
                .into_iter()
                .filter_map(|name| GrantName::new(name.leak()))
                .collect(),
            issued_at_ms,
            not_after_ms,
        },
    )
}

/// Calls `check` with every one-byte mutation of `bytes` that flips one bit or sets a byte that
/// CBOR makes special.
pub(crate) fn mutations(bytes: &[u8], mut check: impl FnMut(&[u8])) {
    let mut copy = bytes.to_vec();
    for index in 0..bytes.len() {
        let original = bytes[index];
        let flips = (0..8).map(|bit| original ^ (1 << bit));
        for value in flips.chain([0x00, 0x1f, 0x5f, 0x7f, 0x9b, 0x9f, 0xbf, 0xf8, 0xff]) {
            copy[index] = value;
            check(&copy);
        }
        copy[index] = original;
    }
}

pub(super) fn any_request() -> impl Strategy<Value = Request> {
    let want = prop_oneof![
        Just(Want::Nothing),
        Just(Want::Lease),
        Just(Want::OffersFailed)
    ];
    let from = option::of(any_cursor());
    prop_oneof![
        (0..=16u8, want, from).prop_map(|(most, want, from)| Request::Indexers {
            most,
            want,
            from
        }),
        ("[a-z0-9.-]{1,63}", any_reach()).prop_map(|(name, reach)| Request::FindName {
            name: Name::try_from(name.as_str()).unwrap(),
            reach
        }),
        (any_peer(), any_reach()).prop_map(|(peer, reach)| Request::FindPeer { peer, reach }),
        (any_filter(), any_cursor(), any::<bool>())
            .prop_map(|(filter, from, gone)| Request::List { filter, from, gone }),
        (1..=u16::MAX).prop_map(|port| Request::DialBack { port }),
        Just(Request::Revocations),
    ]
}

fn any_cursor() -> impl Strategy<Value = Cursor> {
    prop_oneof![Just(Cursor::Start), any_peer().prop_map(Cursor::After)]
}

pub(crate) fn any_filter() -> impl Strategy<Value = Filter> {
    let service = option::of(any_service().prop_map(|service| service.name));
    let tags = hash_map("[a-z]{0,8}", "[a-z]{0,20}", 0..=8);
    (service, "[ -~]{0,63}", tags).prop_map(|(service, prefix, tags)| {
        let prefix = Name::try_from(prefix.as_str()).unwrap();
        let filter = Filter::new(service, prefix);
        let with = |filter: Filter, (key, value): (&String, &String)| filter.with_tag(key, value);
        tags.iter().try_fold(filter, with).unwrap()
    })
}

pub(crate) fn any_entry() -> impl Strategy<Value = Entry<'static>> {
    static BYTES: [u8; 400] = [7; 400];
    let signed = (1..=400usize).prop_map(|length| Subject::Signed(&BYTES[..length]));
    let named = (any_peer(), "[ -~]{0,63}").prop_map(|(peer, name)| Subject::Named {
        peer,
        name: name.leak(),
    });
    let presence = prop_oneof![
        Just(Presence::Alive),
        Just(Presence::Left),
        Just(Presence::Lost)
    ];
    let subject = prop_oneof![signed, named];
    (subject, any_millis(), presence).prop_map(|(subject, age, presence)| Entry {
        subject,
        age,
        presence,
    })
}

fn any_reach() -> impl Strategy<Value = Reach> {
    prop_oneof![Just(Reach::Network), Just(Reach::Directory)]
}

fn any_tally() -> impl Strategy<Value = Tally> {
    (any::<u32>(), any::<u32>()).prop_map(|(asked, answered)| Tally { asked, answered })
}

fn any_count() -> impl Strategy<Value = Count> {
    // No count is open that has no greater number.
    (0..u32::MAX, any::<bool>()).prop_map(|(nodes, are_all)| Count { nodes, are_all })
}

pub(super) fn any_response() -> impl Strategy<Value = Response<'static>> {
    static BYTES: [u8; 400] = [7; 400];
    let record = (0..200usize, 0..200usize).prop_map(|(at, length)| &BYTES[at..at + length]);
    prop_oneof![
        (vec(any_offer(), 0..=16), any::<bool>()).prop_map(|(offers, takes_in)| {
            let offers = offers.leak();
            Response::Indexers(IndexersAnswer { offers, takes_in })
        }),
        (vec(any_offer(), 0..=16), any_peer()).prop_map(|(offers, next)| {
            let offers = offers.leak();
            let next = Some(next);
            Response::Page(IndexersPage { offers, next })
        }),
        (
            vec(record, 0..=16),
            any::<bool>(),
            option::of(any_tally()),
            option::of(any_count())
        )
            .prop_map(|(records, more, tally, claimants)| Response::Records {
                ages: (0..records.len() as u32).collect(),
                claims: (7..7 + records.len() as u32).collect(),
                records: records.into_iter().collect(),
                more,
                tally,
                claimants,
            }),
        (vec(any_entry(), 0..=32), option::of(any_peer())).prop_map(|(entries, next)| {
            let entries = entries.leak();
            Response::Entries(EntriesPage { entries, next })
        }),
        (0..3u64, "[ -~]{0,128}", vec(any::<u8>(), 0..=64)).prop_map(|(finding, reason, addr)| {
            Response::DialedBack(DialedBack {
                finding: Finding::of(finding).unwrap(),
                reason: Reason::try_from(reason.as_str()).unwrap(),
                addr: addr.into_iter().collect(),
            })
        }),
        (0..=400usize).prop_map(|length| Response::Revocations(&BYTES[..length])),
        "[ -~]{0,128}".prop_map(|text| Response::Error(Reason::try_from(text.as_str()).unwrap())),
    ]
}
