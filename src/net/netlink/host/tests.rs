use super::super::message::{messages, written};
use super::*;

const ON: u32 = UP | RUNNING;

fn apply(state: &mut State, kind: u16, body: &[u8]) -> Applied {
    let bytes = written::message(kind, body);
    state.apply(&messages(&bytes).next().unwrap())
}

fn link(state: &mut State, index: u32, name: &str, kind: &str, over: (u32, u32)) {
    apply(state, NEW_LINK, &written::link(index, ON, name, kind, over));
    let ip = [10, 0, 0, index as u8].into();
    apply(state, NEW_ADDR, &written::address(index, ip, 0));
}

fn ips(state: &State) -> Vec<String> {
    let usable = state.usable();
    usable
        .iter()
        .map(|address| address.ip.to_string())
        .collect()
}

#[test]
fn an_address_counts_while_its_interface_is_up_and_has_a_carrier() {
    let mut state = State::default();
    link(&mut state, 1, "eth0", "", (0, 0));
    assert_eq!(ips(&state), ["10.0.0.1"]);
    for (flags, why) in [(UP, Gone::NoCarrier), (0, Gone::Down)] {
        let before = state.usable();
        apply(
            &mut state,
            NEW_LINK,
            &written::link(1, flags, "eth0", "", (0, 0)),
        );
        assert!(ips(&state).is_empty());
        assert!(state.has([10, 0, 0, 1].into()), "it is there all the same");
        let change = Change::between(&before, &state);
        assert_eq!(change.gone[0].1, why);
        assert!(!change.came());

        let applied = apply(
            &mut state,
            NEW_LINK,
            &written::link(1, ON, "eth0", "", (0, 0)),
        );
        assert!(applied.link);
        assert_eq!(ips(&state), ["10.0.0.1"]);
    }
    let before = state.usable();
    apply(
        &mut state,
        DEL_LINK,
        &written::link(1, 0, "eth0", "", (0, 0)),
    );
    let change = Change::between(&before, &state);
    assert_eq!(change.gone[0].1, Gone::NoLink);
    assert!(!state.has([10, 0, 0, 1].into()));
}

#[test]
fn an_address_that_is_checked_counts_when_it_is_found_to_be_alone() {
    let mut state = State::default();
    link(&mut state, 1, "eth0", "", (0, 0));
    let ip = "2001:db8::1".parse().unwrap();
    for (flags, counts) in [(TENTATIVE, false), (DUPLICATE, false), (0, true)] {
        apply(&mut state, NEW_ADDR, &written::address(1, ip, flags));
        assert_eq!(state.usable().iter().any(|a| a.ip == ip), counts, "{flags}");
    }
    let before = state.usable();
    apply(&mut state, DEL_ADDR, &written::address(1, ip, 0));
    let change = Change::between(&before, &state);
    assert_eq!(change.gone[0].1, Gone::Removed);
    assert_eq!(change.gone.len(), 1);
}

#[test]
fn an_interface_is_virtual_if_no_device_carries_it() {
    let mut state = State::default();
    link(&mut state, 1, "eth0", "", (0, 9));
    link(&mut state, 2, "veth7", "veth", (1, 8));
    link(&mut state, 3, "eth0.5", "vlan", (1, 0));
    link(&mut state, 4, "veth7.5", "vlan", (2, 0));
    link(&mut state, 5, "wg0", "wireguard", (0, 0));
    link(&mut state, 6, "bond0", "bond", (0, 0));
    link(&mut state, 7, "vx", "vxlan", (1, 0));
    link(&mut state, 8, "docker0", "bridge", (0, 0));
    link(&mut state, 9, "br-lan", "bridge", (0, 0));
    link(&mut state, 10, "loop", "vlan", (10, 0));
    let physical: Vec<_> = state
        .usable()
        .iter()
        .filter(|address| !address.is_virtual)
        .map(|address| address.link.to_string())
        .collect();
    assert_eq!(physical, ["eth0", "eth0.5", "bond0", "br-lan"]);
}

#[test]
fn the_way_out_of_a_container_is_not_virtual_and_the_way_into_one_is() {
    let mut state = State::default();
    let mut from_elsewhere = |index, name, kind, over| {
        let body = written::link_from_elsewhere(written::link(index, ON, name, kind, over));
        apply(&mut state, NEW_LINK, &body);
    };
    from_elsewhere(1, "eth0", "veth", (1, 0));
    from_elsewhere(2, "eth1", "macvlan", (3, 0));
    // The other end of another container's, and a tunnel that was made outside.
    from_elsewhere(3, "veth7", "veth", (1, 4));
    from_elsewhere(5, "gre1", "gre", (1, 0));
    apply(
        &mut state,
        NEW_LINK,
        &written::link(4, ON, "docker0", "bridge", (0, 0)),
    );
    apply(
        &mut state,
        NEW_LINK,
        &written::link(6, ON, "veth8", "veth", (7, 0)),
    );
    for index in [1, 2, 4, 5, 6] {
        let ip = [10, 0, 0, index as u8].into();
        apply(&mut state, NEW_ADDR, &written::address(index, ip, 0));
    }
    let usable = state.usable();
    let physical = usable.iter().filter(|address| !address.is_virtual);
    let physical: Vec<_> = physical.map(|address| address.link.to_string()).collect();
    assert_eq!(physical, ["eth0", "eth1"]);
}

#[test]
fn only_routes_of_the_main_table_count() {
    let mut state = State::default();
    let route = |table, kind| [2, 0, 0, 0, table, 3, 0, kind, 0, 0, 0, 0];
    assert!(apply(&mut state, NEW_ROUTE, &route(254, 1)).route);
    assert!(!apply(&mut state, NEW_ROUTE, &route(255, 2)).route);
    assert!(!apply(&mut state, NEW_ROUTE, &route(252, 1)).route);
}

#[test]
fn tables_are_bounded() {
    let mut state = State::default();
    for index in 1..2000_u32 {
        apply(
            &mut state,
            NEW_LINK,
            &written::link(index, ON, "x", "", (0, 0)),
        );
        let ip = std::net::Ipv4Addr::from(index).into();
        apply(&mut state, NEW_ADDR, &written::address(1, ip, 0));
    }
    assert_eq!(state.links.len(), MAX_LINKS);
    assert_eq!(state.addresses.len(), MAX_ADDRESSES);
}

#[test]
fn an_address_with_two_prefixes_stays_until_both_are_gone() {
    let mut state = State::default();
    link(&mut state, 1, "eth0", "", (0, 0));
    let ip = [10, 0, 0, 1].into();
    let wide = |kind, state: &mut State| {
        apply(state, kind, &written::address_in(1, ip, 16, 0));
    };
    wide(NEW_ADDR, &mut state);
    let prefixes: Vec<_> = state.usable().iter().map(|a| a.prefix).collect();
    assert_eq!(prefixes, [24, 16], "both are networks of the host");
    let all = Change::between(&[], &state);
    assert_eq!(all.new.len(), 1, "it came once");
    for (first, second) in [(16, 24), (24, 16)] {
        let mut state = state.clone();
        let before = state.usable();
        apply(&mut state, DEL_ADDR, &written::address_in(1, ip, first, 0));
        assert_eq!(ips(&state), ["10.0.0.1"]);
        assert!(!Change::between(&before, &state).is_any());
        let before = state.usable();
        apply(&mut state, DEL_ADDR, &written::address_in(1, ip, second, 0));
        let change = Change::between(&before, &state);
        assert_eq!((change.gone.len(), change.gone[0].1), (1, Gone::Removed));
    }
}

#[test]
fn what_found_no_place_is_asked_for_again_when_one_comes_free() {
    let ip = |n: usize| std::net::Ipv4Addr::from(n as u32).into();
    let add = |state: &mut State, n| {
        apply(state, NEW_ADDR, &written::address(1, ip(n), 0));
    };
    let remove = |state: &mut State, n| {
        let applied = apply(state, DEL_ADDR, &written::address(1, ip(n), 0));
        applied.room
    };
    let mut state = State::default();
    (1..=MAX_ADDRESSES).for_each(|n| add(&mut state, n));
    assert!(!remove(&mut state, 1), "nothing was left out");
    add(&mut state, 1);
    add(&mut state, 999);
    assert!(!remove(&mut state, 999), "it had no place");
    assert!(remove(&mut state, 1));

    let mut state = State::default();
    for index in 1..=MAX_LINKS as u32 + 1 {
        link(&mut state, index, "x", "", (0, 0));
    }
    let gone = written::link(1, 0, "x", "", (0, 0));
    assert!(apply(&mut state, DEL_LINK, &gone).room);
}
