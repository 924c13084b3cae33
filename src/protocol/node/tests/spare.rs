//! Several leases: which server publishes the record, and what happens when one of them becomes
//! silent.

use super::*;
use crate::protocol::{Publisher, signing::Urgency};

/// The node's beats at this instant: to which server, and whether that server publishes the record.
fn beats(rig: &mut Rig) -> Vec<(u8, bool)> {
    let mut out = Vec::new();
    while let Some(action) = rig.node.poll(at(rig.now), 0) {
        if let Action::Beat { server, beat, .. } = action {
            out.push((server.as_bytes()[0], beat.publisher == Publisher::Receiver));
        }
    }
    out.sort_unstable();
    out
}

#[test]
fn one_server_at_a_time_publishes_the_record() {
    let mut rig = holding(2, [10, 11]);
    let hurry = |rig: &mut Rig| {
        rig.node.record_signed(at(rig.now), Urgency::AtOnce);
        beats(rig)
    };
    let said = hurry(&mut rig);
    let publishers: Vec<u8> = said.iter().filter(|(_, is)| *is).map(|(n, _)| *n).collect();
    assert_eq!((said.len(), publishers.len()), (2, 1), "{said:?}");
    rig.accepted(10);
    rig.accepted(11);

    rig.now += 1;
    let publisher = publishers[0];
    let other = if publisher == 10 { 11 } else { 10 };
    rig.node.lease_closed(at(rig.now), &peer(publisher));
    let said = hurry(&mut rig);
    assert!(
        said.contains(&(other, true)),
        "the lease that is left: {said:?}"
    );
    assert!(said.contains(&(publisher, false)), "a new stream: {said:?}");
}

#[test]
fn a_node_that_holds_a_lease_stops_after_three_refusals_for_a_connect_interval() {
    let mut rig = holding(2, [10]);
    rig.run_held(66_000);
    let mut did = rig.answer(1, &offering(11..27));
    let mut tried = 0;
    while let Some(Beat(server)) = did.iter().find(|did| matches!(did, Beat(n) if *n > 10)) {
        tried += 1;
        did = rig.ack(*server, &Ack::full("places are short here"));
        did.extend(rig.run(rig.now + 2_000).into_iter().map(|(_, did)| did));
    }
    assert_eq!(tried, 3, "of 16 offers");
    let quiet = rig.run_held(rig.now + 50_000);
    assert!(
        quiet.iter().all(|(_, did)| !matches!(did, Asked(..))),
        "{quiet:?}"
    );
}
