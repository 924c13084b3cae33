//! Stories of operators that watch all nodes. That nothing is said twice is a rule of
//! [`crate::watching`], which each of them is checked against.

use crate::script::{
    Op::{self, *},
    Seen::*,
    play,
};

/// A native, an indexer with three nodes, and a node from which all are watched.
const THREE_NODES_ARE_WATCHED: [Op<'_>; 8] = [
    Native("N", &[]),
    Indexer("I", &["N"]),
    Within(2, Lists("N", "I")),
    Nodes("A", 3, &["N"]),
    Node("W", &["N"]),
    Within(5, Under("A*", "I")),
    Watches("W"),
    Within(2, Tells("W", "A*")),
];

#[test]
fn nodes_of_an_indexer_that_dies_are_told_once_and_are_not_gone_while_they_move() {
    let dies = [
        Within(2, HasCaughtUp("W")),
        PowerOff("I"),
        For(35, Tells("W", "A*")),
        Within(0, Leased("A*")),
        For(300, Tells("W", "A*")),
        End("A1"),
        Within(2, TellsNot("W", "A1")),
        Restart("A1"),
        Within(5, Tells("W", "A1")),
    ];
    play(&[&THREE_NODES_ARE_WATCHED[..], &dies].concat());
}

#[test]
fn node_that_ends_after_its_indexer_died_is_told_to_have_left() {
    let taken_in = [
        Kill("I"),
        Within(20, TakenIn("N", "A*")),
        Within(1, Tells("W", "A*")),
        End("A1"),
        Within(4, TellsLeft("W", "A1")),
        For(120, Tells("W", "A2")),
    ];
    play(&[&THREE_NODES_ARE_WATCHED[..], &taken_in].concat());
    let with_another = [
        Indexer("J", &["N"]),
        Within(2, Lists("N", "J")),
        Kill("I"),
        Within(20, Under("A*", "J")),
        End("A1"),
        Within(4, TellsLeft("W", "A1")),
        For(120, Tells("W", "A2")),
    ];
    play(&[&THREE_NODES_ARE_WATCHED[..], &with_another].concat());
}

#[test]
fn nodes_of_an_indexer_that_comes_later_are_told() {
    let comes = [
        // It holds no lease with another indexer, so it must find it.
        Watches("I"),
        Within(2, Tells("I", "A*")),
        Indexer("J", &["N"]),
        Within(2, Lists("N", "J")),
        // Its nodes move to the other one, and newcomers go there.
        Drain("I"),
        Nodes("B", 3, &["N"]),
        Within(5, Under("B*", "J")),
        Within(1, Tells("I", "B*")),
        For(120, Tells("I", "A*")),
        PowerOff("B1"),
        For(28, Tells("I", "B1")),
        Within(90, TellsNot("I", "B1")),
    ];
    play(&[&THREE_NODES_ARE_WATCHED[..], &comes].concat());
}

#[test]
fn indexer_that_watches_hears_its_own_nodes_and_those_of_others() {
    play(&[
        Native("N", &[]),
        Indexer("I", &["N"]),
        Within(2, Lists("N", "I")),
        Watches("I"),
        Nodes("A", 3, &["N"]),
        Within(5, Under("A*", "I")),
        Within(1, Tells("I", "A*")),
        Indexer("J", &["N"]),
        Within(2, Lists("N", "J")),
        Kill("A1"),
        Within(100, TellsNot("I", "A1")),
        Restart("A1"),
        Within(5, Tells("I", "A1")),
        For(60, Tells("I", "A*")),
    ]);
}
