use super::*;
use crate::daemon::{request::has_room_again, status::CaughtUp};

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
