//! Values for the tests of this module.

use std::time::Duration;

use libp2p::Multiaddr;
use proptest::{collection::vec, option, prelude::*};

use super::{
    directory::{Request, Response},
    heartbeat::WallReading,
    to_addr,
};
use crate::protocol::{
    Ack, AckCode, Addr, Cursor, IndexersAnswer, IndexersPage, Load, MAX_ENVELOPE_LEN, Name, Offer,
    OutBeat, PeerId, Reach, Reason, Role, Tally, Want,
};

pub(super) fn any_peer() -> impl Strategy<Value = PeerId> {
    any::<[u8; 32]>().prop_map(PeerId::from_bytes)
}

fn any_multiaddr() -> impl Strategy<Value = Multiaddr> {
    let text = prop_oneof![
        any::<(std::net::Ipv4Addr, u16)>().prop_map(|(ip, port)| format!("/ip4/{ip}/tcp/{port}")),
        any::<(std::net::Ipv6Addr, u16)>().prop_map(|(ip, port)| format!("/ip6/{ip}/tcp/{port}")),
        ("[a-z]{1,50}", any::<u16>()).prop_map(|(name, port)| format!("/dns4/{name}/tcp/{port}")),
    ];
    text.prop_map(|text| text.parse().unwrap())
}

pub(super) fn any_multiaddrs(most: usize) -> impl Strategy<Value = Vec<Multiaddr>> {
    vec(any_multiaddr(), 1..=most)
}

fn any_millis() -> impl Strategy<Value = Duration> {
    any::<u64>().prop_map(Duration::from_millis)
}

pub(super) fn any_offer() -> impl Strategy<Value = Offer> {
    (
        any_peer(),
        any_multiaddrs(4),
        any_millis(),
        any::<Option<u32>>(),
    )
        .prop_map(|(peer, addrs, ttl, free)| Offer {
            peer,
            addrs: addrs.iter().map(|addr| to_addr(addr).unwrap()).collect(),
            ttl,
            free,
        })
}

/// An offer of the greatest size.
pub(super) fn long_offer(seed: u8) -> Offer {
    let addr: Multiaddr = format!("/dns4/{}/tcp/4820", "a".repeat(59))
        .parse()
        .unwrap();
    let addr: Addr = to_addr(&addr).unwrap();
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
    let known = vec(any_peer(), 0..=16);
    (role, any_millis(), load, known, any::<bool>()).prop_map(
        |(role, lease, load, known, publish)| OutBeat {
            role,
            lease,
            with_record: false,
            fresh: false,
            publish,
            load: load.map(|(held, possible)| Load { held, possible }),
            known: known.into_iter().collect(),
        },
    )
}

pub(super) fn any_record() -> impl Strategy<Value = Option<Vec<u8>>> {
    option::of(vec(any::<u8>(), 0..=MAX_ENVELOPE_LEN))
}

/// As many offers as fit a frame whatever their size.
pub(super) fn any_ack() -> impl Strategy<Value = Ack> {
    let code = prop_oneof![
        Just(AckCode::Accepted),
        Just(AckCode::Released),
        Just(AckCode::Full),
        Just(AckCode::Refused),
    ];
    let known = vec(any_peer(), 0..=16);
    let offers = vec(any_offer(), 0..=8);
    (code, any_millis(), offers, "[ -~]{0,100}", known).prop_map(
        |(code, lease, offers, reason, known)| Ack {
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

/// Calls `check` with every one-byte mutation of `bytes` that flips one bit or sets a byte that CBOR makes special.
pub(super) fn mutations(bytes: &[u8], mut check: impl FnMut(&[u8])) {
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
    let from = option::of(prop_oneof![
        Just(Cursor::Start),
        any_peer().prop_map(Cursor::After)
    ]);
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
    ]
}

fn any_reach() -> impl Strategy<Value = Reach> {
    prop_oneof![Just(Reach::Network), Just(Reach::Directory)]
}

fn any_tally() -> impl Strategy<Value = Tally> {
    (any::<u32>(), any::<u32>()).prop_map(|(asked, answered)| Tally { asked, answered })
}

pub(super) fn any_response() -> impl Strategy<Value = Response> {
    let record = vec(any::<u8>(), 0..200);
    prop_oneof![
        (vec(any_offer(), 0..=16), any::<bool>()).prop_map(|(offers, takes_in)| {
            let offers = offers.into_iter().collect();
            Response::Indexers(Box::new(IndexersAnswer { offers, takes_in }))
        }),
        (vec(any_offer(), 0..=16), any_peer()).prop_map(|(offers, next)| {
            let offers = offers.into_iter().collect();
            let next = Some(next);
            Response::Page(Box::new(IndexersPage { offers, next }))
        }),
        (vec(record, 0..=16), any::<bool>(), option::of(any_tally())).prop_map(
            |(records, more, tally)| Response::Records {
                records,
                more,
                tally
            }
        ),
        "[ -~]{0,128}".prop_map(|text| Response::Error(Reason::try_from(text.as_str()).unwrap())),
    ]
}
