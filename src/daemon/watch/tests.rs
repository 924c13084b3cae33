use libp2p::identity::Keypair;

use super::{reader::may_read_on, rows::opened, *};
use crate::{
    daemon::{
        request::{Part, has_room_again},
        status::CaughtUp,
    },
    net::envelope::{About, sign_node},
};

#[test]
fn a_record_of_the_own_directory_is_not_verified_again_and_that_of_a_server_is() {
    let ttl = Duration::from_secs(90);
    let key = Keypair::generate_ed25519();
    let addr = "/ip4/192.0.2.1/tcp/4820".parse().unwrap();
    let about = About {
        name: "pump".into(),
        ..About::default()
    };
    let mut envelope = sign_node(&key, 1, 1, ttl, &[addr], &about).unwrap();
    let filter = Filter::default();
    assert!(opened(&filter, &envelope, false).is_ok());
    // The signature comes last.
    *envelope.last_mut().unwrap() ^= 1;
    assert!(opened(&filter, &envelope, false).is_err());
    assert!(opened(&filter, &envelope, true).is_ok());
}

#[test]
fn frames_are_read_on_as_soon_as_the_loop_is_told_of_room() {
    let (parts, taken) = Parts::new();
    let caught_up = || Part::CaughtUp(Box::new(CaughtUp::whole()));
    while may_read_on(&parts) {
        assert!(parts.send(caught_up()));
    }
    let before = taken.len();
    taken.try_recv().unwrap().unwrap();
    assert!(has_room_again(before, taken.len()) && may_read_on(&parts));
}
