//! A node that servers refuse, for instance because another device has its identity.

use super::*;

fn refused() -> Ack<'static> {
    Ack::refused("a device at 192.0.2.1 has your identity")
}

/// The actions of a node in half an hour in which its native always offers these indexers. The
/// first `refusing` of them refuse the node, and the others do not answer.
fn half_an_hour(offered: u8, refusing: u8) -> Vec<(u64, Did)> {
    let mut rig = Rig::new(2, [1]);
    let mut all = Vec::new();
    let mut fresh: Vec<_> = rig.drain().into_iter().map(|did| (0, did)).collect();
    while rig.now < 1_800_000 {
        while !fresh.is_empty() {
            let now = rig.now;
            let did = std::mem::take(&mut fresh);
            for (_, did) in &did {
                let more = match did {
                    Asked(1, _) => rig.answer(1, &offering(10..10 + offered)),
                    Beat(n) if *n < 10 + refusing => rig.ack(*n, &refused()),
                    _ => continue,
                };
                fresh.extend(more.into_iter().map(|did| (now, did)));
            }
            all.extend(did);
        }
        let next = rig.node.timeout().as_millis().max(rig.now + 1);
        fresh = rig.run(next);
    }
    all
}

fn complains(did: &[(u64, Did)]) -> bool {
    did.iter()
        .any(|(_, did)| *did == Asked(1, Want::OffersFailed))
}

fn tries(did: &[(u64, Did)], server: u8) -> Vec<u64> {
    let tries = did.iter().filter(|(_, did)| *did == Beat(server));
    tries.map(|(now, _)| *now).collect()
}

#[test]
fn an_indexer_that_refused_is_tried_once_a_minute_at_most_and_not_reported() {
    let did = half_an_hour(2, 2);
    for server in [10, 11] {
        // In addition, an address pauses longer the more often it was tried.
        let tries = tries(&did, server);
        assert_eq!(tries[..3], [0, 60_000, 120_000]);
        assert!(tries.len() > 10, "{tries:?}");
        assert!(tries.windows(2).all(|two| two[1] - two[0] >= 60_000));
    }
    assert!(!complains(&did), "{did:?}");
}

#[test]
fn an_indexer_that_does_not_answer_is_reported_beside_one_that_refused() {
    assert!(complains(&half_an_hour(2, 1)));
}

#[test]
fn more_refusals_than_one_device_can_hold_leases_are_not_believed() {
    for (refusing, reported) in [(8, false), (9, true)] {
        let did = half_an_hour(refusing, refusing);
        assert_eq!(complains(&did), reported, "{refusing}");
    }
}

#[test]
fn a_place_that_is_kept_for_the_node_does_not_shorten_the_rest_after_a_refusal() {
    for (now, tried) in [(59_999, false), (60_000, true)] {
        let mut rig = Rig::new(1, [1]);
        rig.drain();
        rig.answer(1, &offering([10]));
        rig.ack(10, &refused());
        rig.answer(1, &offering([10, 11]));
        rig.run(1_000);
        rig.accepted(11);
        rig.now = now;
        let did = rig.released(11, [10]);
        assert_eq!(did.contains(&Beat(10)), tried, "{did:?} at {now}");
    }
}

#[test]
fn a_change_of_the_network_does_not_shorten_the_rest_after_a_refusal() {
    for (now, tried) in [(59_999, false), (60_000, true)] {
        let mut rig = Rig::new(1, [1]);
        rig.drain();
        rig.answer(1, &offering([10]));
        rig.ack(10, &refused());
        rig.now = now;
        rig.node.network_changed(at(now));
        let did = rig.drain();
        assert_eq!(did.contains(&Beat(10)), tried, "{did:?} at {now}");
    }
}

#[test]
fn a_native_that_refused_is_left_alone_for_a_minute() {
    for (now, tried) in [(59_999, false), (60_000, true)] {
        let mut rig = Rig::new(2, [1]);
        rig.drain();
        assert_eq!(rig.answer(1, &taking_in([])), [Beat(1)]);
        rig.ack(1, &refused());
        let mut did = Vec::new();
        while rig.now < now {
            let next = rig.node.timeout().as_millis().clamp(rig.now + 1, now);
            for (_, one) in rig.run(next) {
                did.push(one);
                if let Asked(1, _) = one {
                    did.extend(rig.answer(1, &taking_in([])));
                }
            }
        }
        rig.no_answer(1);
        assert!(!did.contains(&Beat(1)) || tried, "{did:?} at {now}");
        if tried {
            rig.now = 71_000;
            let asked = rig.drain();
            assert!(asked.contains(&Asked(1, Want::Lease)), "{asked:?}");
            assert_eq!(rig.answer(1, &taking_in([])), [Beat(1)]);
        }
    }
}
