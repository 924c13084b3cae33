//! Stories of operators that list all nodes. That no node has two rows, and what a listing that is
//! complete must have, are rules of [`crate::listing`], which each of them is checked against.

use crate::script::{
    Op::{self, *},
    Seen::*,
    play,
};

/// A native and two indexers, each of which has all four nodes.
const EACH_NODE_IS_AT_TWO_INDEXERS: [Op<'_>; 7] = [
    Wants(2),
    Native("N", &[]),
    Indexers("I", 2, &["N"]),
    Within(2, Lists("N", "I*")),
    Nodes("A", 4, &["N"]),
    Within(20, Lists("I1", "A*")),
    Within(20, Lists("I2", "A*")),
];

#[test]
fn node_with_two_leases_has_one_row_wherever_it_is_asked() {
    let list = [
        ListNodes("A1"),
        Within(2, Rows("A1", &["A*"])),
        ListNodes("I1"),
        Within(2, Rows("I1", &["A*"])),
        ListNodes("N"),
        Within(2, Rows("N", &["A*"])),
    ];
    play(&[&EACH_NODE_IS_AT_TWO_INDEXERS[..], &list].concat());
}

#[test]
fn frozen_indexer_is_named_and_its_nodes_are_listed_by_the_other() {
    let freezes = [
        Stop("I2"),
        ListNodes("A1"),
        // 3 s are given to each server.
        Within(4, RowsWithout("A1", &["I2"])),
        GoOn("I2"),
        Wait(1),
        ListNodes("A1"),
        Within(2, Rows("A1", &["A*"])),
    ];
    play(&[&EACH_NODE_IS_AT_TWO_INDEXERS[..], &freezes].concat());
}

#[test]
fn node_that_is_gone_has_a_row_as_such_until_it_is_back() {
    let goes = [
        PowerOff("A1"),
        End("A2"),
        Wait(120),
        ListNodes("A3"),
        Within(2, Rows("A3", &["A3", "A4"])),
        Within(0, RowOfVanished("A3", "A1")),
        Within(0, RowOfVanished("A3", "A2")),
        Restart("A1"),
        Within(20, Leased("A1")),
        ListNodes("A3"),
        Within(2, Rows("A3", &["A1", "A3", "A4"])),
    ];
    play(&[&EACH_NODE_IS_AT_TWO_INDEXERS[..], &goes].concat());
}
